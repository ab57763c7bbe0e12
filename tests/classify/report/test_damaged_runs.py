"""A run whose files are damaged, cut short or changed by hand: one message that names the file, and no page."""

import copy
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from markupsafe import Markup
from typer.testing import CliRunner

from classify.__main__ import app
from classify.report import data_section, label_section, models_section
from classify.report.audit_section import describe_audit
from classify.report.page import make_page
from classify.report.plotting import Picture
from classify.report.run_files import RunFiles
from features.common.errors import InputError
from tests.classify.toy import LABELS


@pytest.fixture
def copied(plain_run, tmp_path) -> Path:
    """A run of one's own."""
    return shutil.copytree(plain_run, tmp_path / "run")


def read(path: Path) -> pd.DataFrame:
    """Read a table as it stands, cell by cell."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def put(column, value, row=3):
    """A change of one cell."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[table.index[row], column] = value
        return table

    return change


def of_final(column, value):
    """A change of one cell of the final model's rows."""

    def change(table: pd.DataFrame, final: str) -> pd.DataFrame:
        table.loc[table.index[table["model"] == final][2], column] = value
        return table

    return change


def twice(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.iloc[[3]]])


def half(table: pd.DataFrame) -> pd.DataFrame:
    return table.iloc[: len(table) // 2]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("labels.csv", put("epidural", ""), r"epidural of s\d+ is nan, not a number from 0 to 1"),
        ("labels.csv", put("epidural", "2"), r"epidural of s\d+ is 2, not a number from 0 to 1"),
        ("labels.csv", put("epidural", "0.5"), "epidural is not 0 or 1 everywhere in train"),
        ("labels.csv", lambda t: put("epidural", str(1 - int(t["epidural"].iloc[3])))(t), "positives in train, but"),
        ("labels.csv", put("split", "other"), "it names a split 'other' that the run does not have"),
        ("labels.csv", lambda t: t.iloc[20:], "it has 180 rows of train, but the run had 200 labelled images of it"),
        ("labels.csv", lambda t: t.iloc[:-1], "it has 29 rows of test, but the run had 30 labelled images of it"),
        ("labels.csv", twice, r"1 rows stand twice \(first: s\d+\)"),
        ("labels.csv", lambda t: put("ID", t["ID"].iloc[4])(t), r"1 rows stand twice \(first: s\d+\)"),
        ("labels.csv", put("ID", "another"), r"oof_probability\.csv cannot be read \(it lacks 1 rows \(first: a"),
        ("oof_probability.csv", of_final("epidural", "2.5"), r"epidural of s\d+ is 2\.5, not a number from 0 to 1"),
        ("oof_probability.csv", of_final("epidural", ""), r"epidural of s\d+ is nan, not a number from 0 to 1"),
        ("oof_probability.csv", of_final("epidural", "inf"), r"epidural of s\d+ is inf, not a number from 0 to 1"),
        ("oof_probability.csv", lambda t: t.iloc[:-40], r"it lacks 40 rows \(first: s\d+\)"),
        ("predictions_probability.csv", lambda t: t.iloc[:10], r"it lacks 20 rows \(first: s\d+\)"),
        ("predictions_probability.csv", twice, "1 rows stand twice"),
        ("predictions_probability.csv", put("epidural", "-0.1"), r"epidural of s\d+ is -0\.1"),
        ("metrics.csv", half, r"it lacks \d+ rows \(first: \S+, (oof|test), \w+, \w+\)"),
        ("metrics.csv", twice, "1 rows stand twice"),
        ("metrics.csv", lambda t: t[t["metric"] != "roc_auc"], r"it lacks \d+ rows \(first: \S+ oof, macro, roc_auc\)"),
        ("metrics.csv", put("value", "x"), "value of epidural is x, not a number"),
        ("thresholds.csv", half, r"it lacks \d+ rows \(first: "),
        ("thresholds.csv", put("threshold", ""), "threshold of epidural is nan"),
        ("curves.csv", half, r"it lacks the curve of \S+ in fold \d|the curve of \S+ in fold \d is not whole"),
        ("curves.csv", lambda t: t.iloc[:-1], r"the curve of \S+ in fold 1 is not whole"),
        ("curves.csv", None, "it is not there, though the run has heads"),
        ("gallery.csv", lambda t: t.iloc[:0], "it shows no image of train for epidural"),
        ("gallery.csv", lambda t: t[t["split"] == "train"], "it shows no image of test for epidural"),
        ("gallery.csv", put("rank", "x"), r"rank of s\d+ is x, not a number"),
        ("gallery.csv", put("outcome", "luck"), r"1 rows name no outcome of the run \(first: luck\)"),
        ("gallery.csv", put("label", "luck"), r"1 rows name no label of the run \(first: luck\)"),
        ("gallery.csv", put("ID", "luck"), r"1 rows name no image of the run \(first: train/luck\)"),
        ("backbones.csv", half, "it lacks 1 rows"),
        ("backbones.csv", put("gain", "", 1), "gain of (alpha|beta) is nan"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_one_short_message_that_names_it(copied, name, change, message):
    final = json.loads((copied / "run.json").read_text())["final_model"]
    path = copied / name
    if change is None:
        path.unlink()
    else:
        table = read(path)
        changed = change(table, final) if change.__qualname__.startswith("of_final") else change(table)
        if name == "oof_probability.csv" and "lacks 40" in message:
            changed = table.drop(table.index[table["model"] == final][:40])
        changed.to_csv(path, index=False)
    with pytest.raises(InputError, match=message) as caught:
        RunFiles.read(copied)
    said = str(caught.value)
    assert (name in said) == ("oof_probability" not in message or name == "oof_probability.csv")
    assert said.endswith("Make the run again.")
    assert len(said) < len(str(copied)) + 320


def test_a_test_image_that_stage_1_rejected_needs_no_probability(copied):
    path = copied / "predictions_probability.csv"
    table = read(path)
    rejected = table["ID"].iloc[0]
    table.loc[0, list(LABELS)] = ""
    table.to_csv(path, index=False)
    labels = read(copied / "labels.csv")
    gone = (labels["split"] == "test") & (labels["ID"] == rejected)
    record = json.loads((copied / "run.json").read_text())
    record["splits"]["test"]["rejected"] = [rejected]
    for label in LABELS:
        record["splits"]["test"]["positives"][label] -= int(labels.loc[gone, label].iloc[0])
    labels[~gone].to_csv(copied / "labels.csv", index=False)
    (copied / "run.json").write_text(json.dumps(record))
    gallery = read(copied / "gallery.csv")
    gallery[gallery["ID"] != rejected].to_csv(copied / "gallery.csv", index=False)
    assert len(RunFiles.read(copied).splits["test"].image_ids) == 29


def test_a_damaged_audit_is_made_again_and_not_the_run(copied):
    for damaged in ("{", "[1, 2]", '{"pairs": {}}'):
        (copied / "audit.json").write_text(damaged)
        run = RunFiles.read(copied)
        with pytest.raises(
            InputError, match=r"audit\.json cannot be read .*Make it again: python -m features audit \S"
        ):
            describe_audit(run)


@pytest.fixture
def undrawn(monkeypatch):
    """Sections without their figures, which take a second."""
    for module, names in (
        (data_section, ("draw_prevalence", "draw_folds")),
        (models_section, ("draw_models", "draw_returns", "draw_curves")),
        (label_section, ("draw_roc", "draw_precision_recall", "draw_calibration", "draw_histogram")),
    ):
        monkeypatch.setattr(module, "render", lambda *_: Picture("", Markup(""), ""))
        for name in names:
            monkeypatch.setattr(module, name, lambda *_: None)


def paths(record, depth: int) -> list[tuple[str, ...]]:
    """List the paths of all names, down to a depth."""
    found: list[tuple[str, ...]] = [(name,) for name in record]
    if depth > 1:
        found += [(n, *rest) for n, v in record.items() if isinstance(v, dict) for rest in paths(v, depth - 1)]
    return found


def changed_at(record, path: tuple[str, ...], value):
    """Give a copy of the record with another value, or none, at a path."""
    changed = copy.deepcopy(record)
    part = changed
    for name in path[:-1]:
        part = part[name]
    if value == "removed":
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return changed


def test_a_record_that_lacks_a_name_or_holds_nothing_there_makes_a_page_or_one_message(copied, undrawn):
    record = json.loads((copied / "run.json").read_text())
    refused, strange = set(), []
    for path in paths(record, 3):
        for value in ("removed", None, {}, "x"):
            (copied / "run.json").write_text(json.dumps(changed_at(record, path, value)))
            try:
                run = RunFiles.read(copied)
                if len(path) < 3 or value is None:
                    make_page(run, copied)
            except InputError as error:
                refused.add((path, str(value)))
                strange += [] if str(error).endswith("Make the run again.") else [str(error)]
    assert strange == []
    needed = ("seconds", "seconds read", "arguments seed", "backbones alpha width", "labels", "final_model")
    for path in (tuple(names.split()) for names in needed):
        assert {(path, "removed"), (path, "None"), (path, "{}")} <= refused
    assert (("versions",), "None") in refused
    assert (("backbones", "alpha", "recipe"), "removed") not in refused  # the page has dashes for it


def test_what_no_check_foresees_is_one_message_too(copied, undrawn, monkeypatch):
    monkeypatch.setattr("classify.report.run_files.check_record", lambda record: None)
    record = json.loads((copied / "run.json").read_text())
    for path in (("seconds",), ("seconds", "read"), ("arguments", "seed"), ("versions",)):
        (copied / "run.json").write_text(json.dumps(changed_at(record, path, {} if len(path) == 1 else "removed")))
        code = CliRunner().invoke(app, ["report", str(copied)])
        assert (code.exit_code, "a fault of Headbank" in code.output) == (0 if path == ("versions",) else 2, False)
