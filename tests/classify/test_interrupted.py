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
from classify.models.estimators import OneVsRest
from classify.models.heads import HeadSpec, write_presets
from tests import ROOT, heed_signals
from tests.classify.test_run import TABLES, run
from tests.classify.toy import Toy, make_toy

#: Fits of 15, of three logistic models in five folds, that are finished when a run comes to a stand.
KEPT = 7
SAID = "stopped: what was fitted until now is kept, and the same command goes on from there.\n"
REUSED = re.compile(r"\d+ fits were finished before, and reused\n")
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


def stop_run(toy: Toy, out: str, number: int, *options: str, kept: int = KEPT, stand: bool = True) -> tuple[int, Path]:
    """Start a run, and send it a signal once it keeps so many fits.

    Args:
        toy: its data.
        out: its folder's name.
        number: of the signal.
        options: of the command.
        kept: after how many files.
        stand: whether it comes to a stand there, or goes on until the signal arrives.

    Returns:
        The exit code, and the folder of finished fits.
    """
    root = toy.data.parent
    finished = root / out / ".partial" / "finished"
    command = [sys.executable, "-m", "tests.classify.standing_run", str(kept if stand else 10**6), "run"]
    command += [str(toy.data), "--cache", str(toy.cache), "--out", str(root / out), *options]
    command += [] if "--preset" in options else ["--preset", "none"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals
    ) as process:
        while len(list(finished.glob("*.fits"))) < kept and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        said, complained = process.communicate(timeout=1200)
    assert said == ""
    assert complained == ("" if number == signal.SIGKILL else SAID)
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
    fit = OneVsRest.fit

    def counted(self, X, y):
        made.append(len(X))
        return fit(self, X, y)

    monkeypatch.setattr(OneVsRest, "fit", counted)
    return made


@pytest.mark.parametrize(
    ("number", "jobs", "code", "left"),
    [
        (signal.SIGINT, "1", 130, []),
        (signal.SIGTERM, "2", 143, []),
        (signal.SIGKILL, "2", -signal.SIGKILL, [".lock"]),
    ],
)
def test_a_run_that_is_stopped_goes_on_and_ends_with_the_same_bytes(toy, at_once, fits, number, jobs, code, left):
    out = f"stopped{int(number)}"
    returned, finished = stop_run(toy, out, number, "--jobs", jobs)
    assert returned == code
    assert len(list(finished.glob("*.fits"))) == KEPT
    assert sorted(path.name for path in (toy.data.parent / out).iterdir()) == sorted([".partial", *left])
    assert hidden(toy.data.parent) == []

    assert run(toy, out, "--jobs", "2")[0] == 0
    assert len(fits) == 15 - KEPT
    assert set(tables(at_once)) == set(TABLES)
    assert tables(toy.data.parent / out) == tables(at_once)
    assert hidden(toy.data.parent / out) == []
    assert not (toy.data.parent / out / "finished").exists()
    assert len(list((toy.data.parent / out / "models").rglob("*.skops"))) == 15 + 6


def test_a_forest_in_two_threads_is_stopped_without_a_trace(toy):
    options = ("--jobs", "2", "--baselines", "forest", "--repeats", "4")  # 60 fits, of which nothing stands
    code, finished = stop_run(toy, "forest", signal.SIGINT, *options, kept=1, stand=False)
    assert code == 130
    assert 1 <= len(list(finished.glob("*.fits"))) < 60
    assert hidden(toy.data.parent / "forest") == [".partial"]
    shutil.rmtree(finished.parent)


def test_a_run_that_is_stopped_in_the_midst_of_heads_reuses_them(toy, monkeypatch):
    mine = str(toy.data.parent / "mine.json")
    options = ("--preset", mine, "--folds", "3", "--baselines", "prior", "--backbones", "alpha")
    trained = []
    train_bank = bank.train_bank
    _, _, once = run(toy, "heads_once", *options)
    code, finished = stop_run(toy, "heads", signal.SIGINT, *options, kept=4, stand=False)
    assert code == 130
    kept = len(list(finished.glob("*.fits"))) - 3  # the prior's
    assert 1 <= kept < 3

    def watch(*arguments):
        trained.append(arguments)
        return train_bank(*arguments)

    monkeypatch.setattr(bank, "train_bank", watch)
    assert run(toy, "heads", *options)[0] == 0
    assert len(trained) == 3 - kept
    assert tables(toy.data.parent / "heads") == tables(once)
    heads, of_once = (
        {
            model: facts.get("best_epochs")
            for model, facts in json.loads((folder / "run.json").read_text())["models"].items()
        }
        for folder in (toy.data.parent / "heads", once)
    )
    assert heads == of_once
    assert hidden(toy.data.parent / "heads") == []


def test_other_options_after_a_stop_do_not_mix_with_what_was_kept(toy, fits):
    stop_run(toy, "other", signal.SIGKILL, "--jobs", "2")
    options = ("--seed", "1", "--baselines", "logistic,prior", "--backbones", "beta")
    _, _, expected = run(toy, "other_expected", *options)
    fits.clear()
    _, _, out = run(toy, "other", *options)
    assert len(fits) == 5
    assert tables(out) == tables(expected)
    assert sorted(path.name for path in (out / "models").iterdir()) == ["logistic__beta", "prior"]
    assert not (out / "finished").exists()
    assert hidden(out) == []


def test_an_overwrite_that_is_stopped_leaves_the_earlier_run_whole(toy, fits):
    _, _, expected = run(toy, "overwrite_expected", "--seed", "1")
    _, _, out = run(toy, "overwritten")
    before = contents(out)
    code, finished = stop_run(toy, "overwritten", signal.SIGINT, "--seed", "1", "--overwrite")
    assert code == 130
    assert contents(out) == before
    assert finished.parent == out / ".partial"
    fits.clear()
    assert run(toy, "overwritten", "--seed", "1", "--overwrite")[0] == 0
    assert len(fits) == 15 - KEPT
    assert tables(out) == tables(expected)
    assert not (out / ".partial").exists()
    assert not (out / "finished").exists()


def test_a_signal_at_any_moment_stops_a_run_without_harm(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where a fault of ours would be written
    mine = str(toy.data.parent / "mine.json")
    options = ("--preset", mine, "--folds", "2", "--baselines", "prior", "--backbones", "alpha", "--jobs", "2")
    _, _, once = run(toy, "any_once", *options)
    began = time.perf_counter()  # of the second run: the first one imports and compiles
    run(toy, "any_timed", *options)
    seconds = time.perf_counter() - began
    out = toy.data.parent / "any"
    arguments = ["run", str(toy.data), "--cache", str(toy.cache), "--out", str(out), *options]
    outside = [signal.signal(number, lambda *_: None) for number in ENDING]  # one that arrives late ends no test
    codes = set()
    try:
        for moment in range(MOMENTS):
            number = list(ENDING)[moment % len(ENDING)]
            timer = threading.Timer(seconds * moment / MOMENTS, os.kill, (os.getpid(), number))
            timer.start()
            result = CliRunner().invoke(app, arguments)
            timer.cancel()
            timer.join()
            codes.add(result.exit_code)
            assert result.exit_code == 0 or (result.exit_code, hidden(toy.data.parent)) == (ENDING[number], [])
            if (out / "run.json").exists():  # the signal came too late, or after all was written
                assert tables(out) == tables(once)
                shutil.rmtree(out)
            else:
                assert (result.exit_code, result.stdout) == (ENDING[number], "")
                assert REUSED.sub("", result.stderr) in ("", SAID)
                assert not out.exists() or [path.name for path in out.iterdir()] == [".partial"]
    finally:
        for number, handler in zip(ENDING, outside, strict=True):
            signal.signal(number, handler)
    assert codes & set(ENDING.values())
    assert list(tmp_path.glob("headbank-fault-*")) == []
    assert run(toy, "any", *options)[0] == 0
    assert tables(out) == tables(once)
    assert hidden(out) == []
