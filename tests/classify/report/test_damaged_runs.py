"""A run whose files are damaged, missing or changed by hand: one message that names the file, and no page."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from classify.__main__ import app
from classify.report.data import describe_audit
from classify.report.run_files import RunFiles
from features.common.errors import InputError
from tests.classify.toy import LABELS, reseal

SHOWN = (
    "predictions_probability.csv",
    "oof_probability.csv",
    "metrics.csv",
    "thresholds.csv",
    "backbones.csv",
    "curves.csv",
    "labels.csv",
    "gallery.csv",
)


@pytest.fixture
def copied(plain_run, tmp_path) -> Path:
    """A run of one's own."""
    return shutil.copytree(plain_run, tmp_path / "run")


@pytest.mark.parametrize("name", SHOWN)
def test_a_table_that_was_changed_or_is_missing_is_one_message_that_names_it(copied, name):
    path = copied / name
    text = path.read_text()
    for damaged, says in ((text[:-1], "was changed by hand, or is damaged"), (None, "is missing")):
        path.unlink() if damaged is None else path.write_text(damaged)
        result = CliRunner().invoke(app, ["report", str(copied)])
        assert result.exit_code == 2
        assert result.output == (
            f"error: {path} {says}. Put the original back, or make the run again: with the options that "
            f"{copied} had, and --overwrite.\n"
        )
        assert not (copied / "report.html").exists()
        path.write_text(text)
    RunFiles.read(copied)


def test_a_file_that_the_page_does_not_show_is_not_read(copied):
    whole = RunFiles.read(copied)
    (copied / "predictions_binary.csv").unlink()
    shutil.rmtree(copied / "models")
    assert RunFiles.read(copied).splits.keys() == whole.splits.keys()


def test_a_test_image_that_stage_1_rejected_needs_no_probability(copied):
    rejected = RunFiles.read(copied).splits["test"].image_ids[0]
    for name in ("labels.csv", "gallery.csv"):
        lines = (copied / name).read_text().splitlines(keepends=True)
        (copied / name).write_text("".join(line for line in lines if not line.startswith(f"test,{rejected},")))
    path = copied / "predictions_probability.csv"
    lines = path.read_text().splitlines(keepends=True)
    empty = "," * len(LABELS)
    path.write_text("".join(f"{rejected}{empty}\n" if line.startswith(f"{rejected},") else line for line in lines))
    reseal(copied)
    assert len(RunFiles.read(copied).splits["test"].image_ids) == 29


def test_a_damaged_audit_is_made_again_and_not_the_run(copied):
    for damaged in ("{", "[1, 2]", '{"pairs": {}}'):
        (copied / "audit.json").write_text(damaged)
        run = RunFiles.read(copied)
        with pytest.raises(
            InputError, match=r"audit\.json cannot be read .*Make it again: \.venv/bin/python -m features audit \S"
        ):
            describe_audit(run)


def test_a_record_that_was_changed_by_hand_is_refused_and_blanks_are_not(copied):
    path = copied / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record, sort_keys=True))
    RunFiles.read(copied)
    path.write_text(json.dumps(record | {"final_model": "prior"}))
    with pytest.raises(InputError, match=r"run\.json was changed by hand, or is damaged"):
        RunFiles.read(copied)
