"""`scripts/classify.sh`: run, pictures, report, in this order; its exit code, and what a signal does to it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import ROOT, heed_signals
from tests.classify.toy import make_toy, reject

#: Stands for the Python of .venv: runs the pipeline with steps that note their turn, and end as a variable says.
STUB = f"""#!{sys.executable}
import os, runpy, sys, threading, types
from pathlib import Path
from features.common.errors import InputError

def module(name, **steps):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(steps)

def note(words):
    with Path(os.environ["NOTES"]).open("a") as notes:
        print(words, file=notes)

def step(name, code=True):
    def act(*arguments):
        try:
            note(name)
            if os.environ.get(name) == "waits":
                threading.Event().wait(600)
        finally:  # a signal may come at once
            if os.environ.get(name) == "waits":
                note("tidied up")
        match os.environ.get(name, "0"):
            case "2":
                raise InputError("bad input of " + name)
            case "1":
                raise ZeroDivisionError(name)
            case number:
                return int(number) if code else None
    return act

module("classify.run", run_classification=step("run"))
module("extract.pictures.heat", draw_heat=step("heat"))
module("classify.report.page", write_report=step("report", code=False))
assert sys.argv[1] == "-m"
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
ENDING = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.fixture
def stubbed(tmp_path):
    """A copy of the scripts, beside a Python that notes the steps."""
    (tmp_path / "scripts").mkdir()
    for name in ("classify.sh", "run.sh", "pipeline.py"):
        (tmp_path / "scripts" / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    (tmp_path / "scripts" / "classify.sh").chmod(0o755)
    for room in ("classify", "extract", "features"):
        (tmp_path / room).symlink_to(ROOT / room)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)
    return tmp_path


def start(folder: Path, *options: str, ignored: signal.Signals | None = None, **codes: object) -> subprocess.Popen[str]:
    """Start the script in a folder of stubs; codes by step, such as run=3."""

    def before() -> None:
        heed_signals()
        if ignored:
            signal.signal(ignored, signal.SIG_IGN)

    variables = {**os.environ, "NOTES": str(folder / "notes"), "TMPDIR": str(folder)}
    return subprocess.Popen(
        ["scripts/classify.sh", "data set", "--out", "RUN", *options],
        cwd=folder, env=variables | {name: str(code) for name, code in codes.items()}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=before,
    )  # fmt: skip


def notes(folder: Path) -> list[str]:
    """The steps that were begun."""
    return (folder / "notes").read_text().splitlines() if (folder / "notes").exists() else []


@pytest.mark.parametrize(
    ("codes", "code", "steps"),
    [
        ({}, 0, "run heat report"),
        ({"run": 3}, 3, "run heat report"),
        ({"run": 2}, 2, "run"),
        ({"run": 1}, 1, "run"),
        ({"heat": 3}, 0, "run heat report"),
        ({"heat": 2}, 0, "run heat report"),
        ({"heat": 1}, 1, "run heat report"),
        ({"heat": 2, "run": 3}, 3, "run heat report"),
        ({"report": 2}, 2, "run heat report"),
    ],
)
def test_every_step_has_its_turn_and_its_say(stubbed, codes, code, steps):
    process = start(stubbed, **codes)
    _, complaint = process.communicate()
    assert process.returncode == code, complaint
    assert notes(stubbed) == steps.split()
    assert ("no pictures" in complaint) == (codes.get("heat") in (1, 2))
    assert ("a fault of Headbank" in complaint) == (1 in codes.values())


def test_without_pictures_no_backbone_runs(stubbed):
    process = start(stubbed, "--no-pictures", run=3)
    _, complaint = process.communicate()
    assert (process.returncode, notes(stubbed), complaint) == (3, ["run", "report"], "")


@pytest.mark.parametrize("step", ["run", "heat", "report"])
@pytest.mark.parametrize(("sent", "code"), ENDING)
def test_a_signal_reaches_the_step_and_ends_the_script(stubbed, step, sent, code):
    process = start(stubbed, **{step: "waits"})
    while step not in notes(stubbed) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(sent)
    _, complaint = process.communicate(timeout=300)
    assert process.returncode == code
    if step == "run":
        assert complaint == ""
    else:
        assert "is whole, but for its report. Run: " in complaint
        assert "-m extract heat" in complaint
        assert "-m classify report" in complaint
    assert notes(stubbed)[-2:] == [step, "tidied up"]


def test_under_nohup_the_script_goes_on_when_the_terminal_is_closed(stubbed):
    process = start(stubbed, ignored=signal.SIGHUP, run="waits")
    while "run" not in notes(stubbed) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 143  # as SIGHUP was ignored, SIGTERM ended it


def test_bad_usage_is_one_message_before_any_step(stubbed):
    process = start(stubbed, "--folds", "1")
    _, complaint = process.communicate()
    assert (process.returncode, notes(stubbed)) == (2, [])
    assert "Invalid value for '--folds'" in complaint


def test_without_an_environment_it_says_what_to_run(stubbed):
    (stubbed / ".venv" / "bin" / "python").unlink()
    process = start(stubbed)
    _, complaint = process.communicate()
    assert process.returncode == 2
    assert complaint == f"error: {stubbed}/.venv is not set up. Run: {stubbed}/scripts/setup.sh\n"


def test_a_run_whose_images_are_missing_has_its_report_without_pictures(tmp_path):
    toy = make_toy(tmp_path)
    reject(toy, f"test/{toy.test_ids[0]}.png")
    arguments = [toy.data, "--cache", toy.cache, "--out", tmp_path / "run", "--preset", "none", "--ensemble", "none"]
    command = [str(ROOT / "scripts" / "classify.sh"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "no pictures (the message above says why): the report is made without them" in done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"report: {tmp_path / 'run' / 'report.html'}")
    assert "No pictures" in (tmp_path / "run" / "report.html").read_text()
