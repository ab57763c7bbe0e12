"""`scripts/classify.sh`: run, pictures, report, in this order; its exit code and its signals are those of its steps."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import ROOT
from tests.classify.toy import make_toy, reject

#: Stands for the Python of .venv: notes each step, and ends it as the variable of its name says.
STUB = f"""#!/usr/bin/env bash
[ "$2" != classify.rundir.command_lines ] || PYTHONPATH={ROOT} exec {sys.executable} "$@"
said=()
for word in "${{@:2}}"; do [[ $word != *" "* ]] || word="<$word>"; said+=("$word"); done
echo "${{said[*]}}" >> "$NOTES"
step="$2_$3"
[ "${{!step:-0}}" != waits ] || exec sleep 60
exit "${{!step:-0}}"
"""
RUN, HEAT, REPORT = (
    "classify run <data set> --out RUN --folds 2",
    "extract heat <the data> RUN --id-column <the file>",
    "classify report RUN",
)


@pytest.fixture
def stubbed(tmp_path):
    """A folder with the scripts, a Python that notes the steps, and a run that is finished."""
    for name in ("classify.sh", "run.sh"):
        (tmp_path / "scripts").mkdir(exist_ok=True)
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)
    (tmp_path / "RUN").mkdir()
    record = {"data": "the data", "cache": "the cache", "arguments": {"id_column": "the file"}}
    (tmp_path / "RUN" / "run.json").write_text(json.dumps(record))
    return tmp_path


def start(folder: Path, *arguments: str, **codes: object) -> subprocess.Popen[str]:
    """Start the script in a folder of stubs; codes by step, such as classify_run=3."""
    variables = {**os.environ, "NOTES": str(folder / "notes"), **{name: str(code) for name, code in codes.items()}}
    return subprocess.Popen(
        ["scripts/classify.sh", *arguments],
        cwd=folder, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whatever started the tests
    )  # fmt: skip


def notes(folder: Path) -> list[str]:
    """The steps that were begun."""
    return (folder / "notes").read_text().splitlines()


@pytest.mark.parametrize(
    ("codes", "code", "steps"),
    [
        ({}, 0, [RUN, HEAT, REPORT]),
        ({"classify_run": 3}, 3, [RUN, HEAT, REPORT]),
        ({"classify_run": 2}, 2, [RUN]),
        ({"classify_run": 1}, 1, [RUN]),
        ({"extract_heat": 3}, 0, [RUN, HEAT, REPORT]),
        ({"extract_heat": 2}, 0, [RUN, HEAT, REPORT]),
        ({"extract_heat": 1}, 1, [RUN, HEAT, REPORT]),
        ({"extract_heat": 2, "classify_run": 3}, 3, [RUN, HEAT, REPORT]),
        ({"classify_report": 2}, 2, [RUN, HEAT, REPORT]),
    ],
)
@pytest.mark.parametrize("out", [["--out", "RUN"], ["--out=RUN"]])
def test_every_step_has_its_turn_and_its_say(stubbed, codes, code, steps, out):
    process = start(stubbed, "data set", *out, "--folds", "2", **codes)
    _, complaint = process.communicate()
    assert process.returncode == code
    assert [step.replace("--out=RUN", "--out RUN") for step in notes(stubbed)] == steps
    assert ("no pictures" in complaint) == (codes.get("extract_heat", 0) in (1, 2))


@pytest.mark.parametrize("place", [0, 1, 5])
def test_without_pictures_no_backbone_runs(stubbed, place):
    words = ["data set", "--out", "RUN", "--folds", "2"]
    words.insert(place, "--no-pictures")
    process = start(stubbed, *words)
    _, complaint = process.communicate()
    assert (process.returncode, notes(stubbed), complaint) == (0, [RUN, REPORT], "")


@pytest.mark.parametrize("step", ["classify_run", "extract_heat", "classify_report"])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_step_and_the_script(stubbed, step, sent, code):
    process = start(stubbed, "data set", "--out", "RUN", "--folds", "2", **{step: "waits"})
    begun = {"classify_run": RUN, "extract_heat": HEAT, "classify_report": REPORT}[step]
    while not (stubbed / "notes").exists() or begun not in notes(stubbed):
        time.sleep(0.01)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    process.send_signal(sent)
    process.communicate(timeout=30)
    assert process.returncode == code
    assert notes(stubbed)[-1] == begun
    assert not [child for child in children.split() if Path(f"/proc/{child}").exists()]


def test_help_is_the_runs(stubbed):
    process = start(stubbed, "--help")
    process.communicate()
    assert (process.returncode, notes(stubbed)) == (0, ["classify run --help"])


def test_a_run_whose_images_are_not_at_hand_has_its_report_without_pictures(tmp_path):
    toy = make_toy(tmp_path)
    reject(toy, f"test/{toy.test_ids[0]}.png")
    arguments = [toy.data, "--cache", toy.cache, "--out", tmp_path / "run", "--preset", "none", "--ensemble", "none"]
    command = [str(ROOT / "scripts" / "classify.sh"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "no pictures (the message above says why): the report stands without" in done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"report: {tmp_path / 'run' / 'report.html'}")
    assert "No pictures" in (tmp_path / "run" / "report.html").read_text()
