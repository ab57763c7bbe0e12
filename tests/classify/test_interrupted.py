"""A run that is stopped keeps its fits; the same command goes on from there, and ends as if nothing had happened."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from classify.__main__ import app
from classify.bank import train as bank
from classify.models.heads import HeadSpec, write_presets
from classify.models.linear import PenalisedLogistic
from classify.rundir import folder
from classify.rundir.folder import SealedRun
from tests import ROOT, heed_signals
from tests.classify.test_run import TABLES, run
from tests.classify.toy import Toy, make_toy

#: Fits of 15, of three logistic models in five folds, that are finished when a run comes to a stand.
KEPT = 7
SAID = "stopped: what was fitted until now is kept, and the same command goes on from there.\n"
#: What a run says of its fits before it ends.
REUSED = re.compile(r"(fits|fitted): .*\n")
#: What makes `run` find and keep fits.
KEEP = ("--fits-gb", "1")
#: Signals, and the exit codes of a run that they stop.
ENDING = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
#: How many moments of a run a signal is sent at.
MOMENTS = 12
TINY = HeadSpec(dropout=0.2, learning_rate=3e-3, batch_size=64, epochs=4)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    toy = make_toy(tmp_path_factory.mktemp("resume"))
    write_presets(toy.data.parent / "mine.json", {"tiny": TINY})
    return toy


@pytest.fixture(scope="module")
def at_once(toy) -> Path:
    """A run that nothing stops."""
    return run(toy, "at_once")[2]


@pytest.fixture(scope="module")
def heads_options(toy) -> tuple[str, ...]:
    """Options of a short run of heads."""
    mine = str(toy.data.parent / "mine.json")
    return ("--preset", mine, "--folds", "3", "--baselines", "prior")


@pytest.fixture(scope="module")
def heads_at_once(toy, heads_options) -> Path:
    """A run of heads that nothing stops."""
    return run(toy, "heads_at_once", *heads_options)[2]


@pytest.fixture(scope="module")
def killed(toy, tmp_path_factory) -> tuple[int, Path]:
    """The exit code of a run that was killed, and a folder of its `run` and `fits`, for tests to copy."""
    code, fits = stop_run(toy, "killed", signal.SIGKILL, "--jobs", "2")
    folder = tmp_path_factory.mktemp("killed")
    (toy.data.parent / "killed").rename(folder / "run")
    shutil.copytree(fits, folder / "fits")
    return code, folder


def stop_run(toy: Toy, out: str, number: int, *options: str, kept: int = KEPT, stand: int = KEPT) -> tuple[int, Path]:
    """Start a run that finds no fits, and send it a signal once it keeps so many.

    Args:
        toy: its data.
        out: its folder's name.
        number: of the signal.
        options: of the command.
        kept: after how many files.
        stand: after how many fits of `PenalisedLogistic`, or banks of heads, it comes to a stand.

    Returns:
        The exit code, and the folder of finished fits.
    """
    root = toy.data.parent
    finished = toy.cache / "fits"
    shutil.rmtree(finished, ignore_errors=True)
    command = [sys.executable, "-m", "tests.classify.standing_run", str(stand), "run"]
    command += [str(toy.data), "--cache", str(toy.cache), "--out", str(root / out), *options]
    command += [] if "--preset" in options else ["--preset", "none"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals
    ) as process:
        while len(list(finished.glob("*.fit"))) < kept and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        said, complained = process.communicate(timeout=1200)
    assert [line for line in said.splitlines() if not line.startswith("understood: ")] == []
    assert REUSED.sub("", complained) == ("" if number == signal.SIGKILL else SAID)
    return process.returncode, finished


def hidden(folder: Path) -> list[str]:
    """What is hidden in a run, or beside the runs."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def contents(folder: Path) -> dict[Path, bytes]:
    """All files of a run, but not of one in the making."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".partial" not in path.parts)
    return {path.relative_to(folder): path.read_bytes() for path in files}


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.csv")}


@pytest.fixture
def fits(monkeypatch) -> list[int]:
    """Counts the fits of `logistic` in this process."""
    made: list[int] = []
    fit = PenalisedLogistic.fit

    def counted(self, X, y, groups=None):
        made.append(len(X))
        return fit(self, X, y, groups)

    monkeypatch.setattr(PenalisedLogistic, "fit", counted)
    return made


@pytest.mark.parametrize(
    ("number", "code", "left"),
    [(signal.SIGINT, 130, []), (signal.SIGTERM, 143, []), (signal.SIGKILL, -signal.SIGKILL, [".lock", ".partial"])],
)
def test_a_run_that_is_stopped_goes_on_and_ends_with_the_same_bytes(toy, at_once, fits, request, number, code, left):
    stopped = toy.data.parent / f"stopped{int(number)}"
    if number == signal.SIGKILL:
        returned, folder = request.getfixturevalue("killed")
        shutil.copytree(folder / "run", stopped)
        shutil.rmtree(toy.cache / "fits")
        shutil.copytree(folder / "fits", toy.cache / "fits")
    else:
        returned, _ = stop_run(toy, stopped.name, number, "--jobs", "1")
    assert returned == code
    assert len(list((toy.cache / "fits").glob("*.fit"))) == KEPT
    assert (sorted(path.name for path in stopped.iterdir()) if stopped.exists() else []) == left
    assert hidden(toy.data.parent) == []

    ended, said, _ = run(toy, stopped.name, "--jobs", "2", *KEEP)
    assert ended == 0
    assert f"fits: {KEPT} reused, {15 - KEPT} made" in said
    assert len(fits) == 15 - KEPT
    assert set(tables(at_once)) == set(TABLES)
    assert tables(stopped) == tables(at_once)
    assert hidden(stopped) == []
    assert len(list((stopped / "models").rglob("*.skops"))) == 15 + 6


def test_a_forest_in_two_threads_is_stopped_without_a_trace(toy):
    # 60 fits, of which nothing stands; of one label, they are short.
    options = ("--jobs", "2", "--baselines", "forest", "--repeats", "4", "--labels", "epidural")
    code, finished = stop_run(toy, "forest", signal.SIGINT, *options, kept=1, stand=10**6)
    assert code == 130
    assert 1 <= len(list(finished.glob("*.fit"))) < 60
    assert not (toy.data.parent / "forest").exists()


def test_a_run_that_is_stopped_in_the_midst_of_heads_reuses_them(toy, heads_options, heads_at_once, monkeypatch):
    trained = []
    train_bank = bank.train_bank
    code, finished = stop_run(toy, "heads", signal.SIGINT, *heads_options, kept=6, stand=3)
    assert code == 130
    assert len(list(finished.glob("*.fit"))) == 6  # three of the prior, and the first head's

    def watch(*arguments, **options):
        trained.append(arguments)
        return train_bank(*arguments, **options)

    monkeypatch.setattr(bank, "train_bank", watch)
    assert run(toy, "heads", *heads_options, *KEEP)[0] == 0
    assert len(trained) == 6
    assert tables(toy.data.parent / "heads") == tables(heads_at_once)
    heads, of_once = (
        {
            model: facts.get("best_epochs")
            for model, facts in json.loads((folder / "run.json").read_text())["models"].items()
        }
        for folder in (toy.data.parent / "heads", heads_at_once)
    )
    assert heads == of_once
    assert hidden(toy.data.parent / "heads") == []


def test_other_options_after_a_stop_do_not_mix_with_what_was_kept(toy, killed, fits):
    shutil.copytree(killed[1] / "run", toy.data.parent / "other")
    options = ("--seed", "1", "--baselines", "logistic,prior", "--backbones", "beta")
    _, _, expected = run(toy, "other_expected", *options)
    fits.clear()
    _, _, out = run(toy, "other", *options, *KEEP)
    assert len(fits) == 5
    assert tables(out) == tables(expected)
    assert sorted(path.name for path in (out / "models").iterdir()) == ["logistic__beta", "prior"]
    assert hidden(out) == []


def test_an_overwrite_that_is_stopped_leaves_the_earlier_run_whole(toy, at_once, fits):
    _, _, out = run(toy, "overwritten", "--seed", "1", "--baselines", "prior", "--backbones", "beta")
    before = contents(out)
    code, finished = stop_run(toy, "overwritten", signal.SIGINT, "--overwrite")
    assert code == 130
    assert len(list(finished.glob("*.fit"))) == KEPT
    assert contents(out) == before
    assert run(toy, "overwritten", "--overwrite", *KEEP)[0] == 0
    assert len(fits) == 15 - KEPT
    assert tables(out) == tables(at_once)
    assert not (out / ".partial").exists()


def test_a_signal_while_the_files_take_their_places_waits_until_the_run_is_whole(toy, at_once, monkeypatch):
    remove_stale = folder._remove_stale

    def send(*arguments):
        signal.raise_signal(signal.SIGTERM)
        remove_stale(*arguments)

    monkeypatch.setattr(folder, "_remove_stale", send)
    out = toy.data.parent / "placed"
    result = CliRunner().invoke(app, ["run", str(toy.data), "--cache", str(toy.cache), "--out", str(out)])
    assert result.exit_code == ENDING[signal.SIGTERM]
    assert f"stopped when all was done: {out} is whole.\n" in result.stderr
    SealedRun.open(out)
    assert hidden(out) == []


def test_a_signal_just_before_the_files_take_their_places_stops_the_run(toy, at_once, monkeypatch):
    check, checked = folder._check, []

    def send(*arguments):
        check(*arguments)
        checked.append(arguments)
        if len(checked) == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(folder, "_check", send)
    out = toy.data.parent / "before"
    result = CliRunner().invoke(app, ["run", str(toy.data), "--cache", str(toy.cache), "--out", str(out)])
    assert result.exit_code == ENDING[signal.SIGTERM]
    assert result.stderr.endswith(SAID)
    assert not out.exists()


def test_a_signal_at_any_moment_stops_a_run_without_harm(toy, heads_options, heads_at_once, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where a fault of ours would be written
    options = (*heads_options, "--jobs", "2")
    began = time.perf_counter()  # of a second run: the first one imported and compiled
    run(toy, "any_timed", *options)
    seconds = time.perf_counter() - began
    out = toy.data.parent / "any"
    arguments = ["run", str(toy.data), "--cache", str(toy.cache), "--out", str(out), *options]
    outside = [signal.signal(number, lambda *_: None) for number in ENDING]  # one that arrives late ends no test
    codes, threads = set(), {*threading.enumerate()}
    try:
        for moment in range(MOMENTS):
            number = list(ENDING)[moment % len(ENDING)]
            timer = threading.Timer(seconds * moment / MOMENTS, os.kill, (os.getpid(), number))
            timer.start()
            result = CliRunner().invoke(app, arguments)
            timer.cancel()
            for thread in {*threading.enumerate()} - threads:  # a fit that was begun ends, in a process that does not
                thread.join(60)
            codes.add(result.exit_code)
            faults = [path.read_text() for path in tmp_path.glob("headbank-fault-*")]
            assert faults == [], (moment, result.stderr)
            assert result.exit_code in (0, ENDING[number]), (moment, result.stderr)
            assert result.exit_code == 0 or hidden(toy.data.parent) == []
            if (out / "run.json").exists():  # the signal came too late, or after all was written
                assert tables(out) == tables(heads_at_once)
                shutil.rmtree(out)
                shutil.rmtree(toy.cache / "fits")
            else:
                assert result.exit_code == ENDING[number]
                assert "written to" not in result.stdout
                assert REUSED.sub("", result.stderr) in ("", SAID)
                # In the first moments RUN may be left empty, or with a lock that nobody holds.
                assert not out.exists() or {path.name for path in out.iterdir()} <= {".lock", ".partial"}
    finally:
        for number, handler in zip(ENDING, outside, strict=True):
            signal.signal(number, handler)
    assert codes & set(ENDING.values())
    assert run(toy, "any", *options, *KEEP)[0] == 0
    assert tables(out) == tables(heads_at_once)
    assert hidden(out) == []
