"""Signals: silent while a command is being imported; then it tidies up, and ends with the signal's exit code."""

import signal
import subprocess
import sys
import threading
import weakref

import pytest
from typer.testing import CliRunner, Result

from features.common.cli import application
from features.common.errors import InputError, signals_wait
from tests import ROOT, heed_signals

#: Starts a room as `python -m` does, and presses Ctrl-C when it imports Typer, the first import that takes its time.
WHILE_IMPORTING = """
import os, runpy, signal, sys

class PressCtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, PressCtrlC())
room, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_module(room, run_name="__main__", alter_sys=True)
"""
#: Sends itself a signal, and says that it tidied up and whether it went on.
SENDS = """
import os, signal, sys
from features.common.errors import end_silently
end_silently()
from features.common.cli import application
app = application("A test.")

@app.command()
def act() -> None:
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        print("went on")
    finally:
        print("tidied up")

app(["act"])
"""
ENDING = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


def start(program: str, *arguments: object, ignored: signal.Signals | None = None) -> subprocess.CompletedProcess[str]:
    def before() -> None:
        heed_signals()
        if ignored:
            signal.signal(ignored, signal.SIG_IGN)

    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300, preexec_fn=before,
    )  # fmt: skip


@pytest.mark.parametrize("room", ["classify", "extract", "features"])
def test_ctrl_c_while_importing_ends_a_command_without_a_word(room):
    done = start(WHILE_IMPORTING, room, "--help")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it_while_importing():
    done = start(WHILE_IMPORTING, "features", "--help", ignored=signal.SIGINT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout


@pytest.mark.parametrize(("number", "code"), ENDING)
def test_a_command_that_has_begun_tidies_up_and_ends_with_the_signals_code(number, code):
    done = start(SENDS, int(number))
    assert (done.returncode, done.stdout, done.stderr) == (code, "tidied up\n", "")


@pytest.mark.parametrize(("number", "code"), ENDING)
def test_an_interrupt_that_a_library_makes_of_a_signal_ends_with_that_signals_code(number, code):
    other = "    except KeyboardInterrupt:\n        raise KeyboardInterrupt from None\n    finally:"
    done = start(SENDS.replace("    finally:", other), int(number))
    assert (done.returncode, done.stdout, done.stderr) == (code, "tidied up\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_command_goes_on_where_its_caller_ignores_the_signal_as_nohup_does(number):
    done = start(SENDS, int(number), ignored=number)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\ntidied up\n", "")


@pytest.fixture
def heeding():
    """Heed the signals that whoever started the tests may ignore."""
    previous = {number: signal.signal(number, signal.default_int_handler) for number, _ in ENDING}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


def invoke(body) -> Result:
    toy = application("A toy.")
    toy.command("act")(lambda: body())
    return CliRunner().invoke(toy, ["act"])


def _masked_with_cause(stop):
    raise SystemError("<built-in method __array__> returned a result with an exception set") from stop


def _masked_as_bad_input(stop):
    try:
        raise ImportError("numpy failed to import")
    except ImportError:
        raise InputError("the file is damaged") from None


@pytest.mark.usefixtures("heeding")
@pytest.mark.parametrize("mask", [_masked_with_cause, _masked_as_bad_input])
@pytest.mark.parametrize(("number", "code"), ENDING)
def test_an_error_that_an_interrupt_became_is_the_interrupt(mask, number, code):
    handlers = [signal.getsignal(number) for number, _ in ENDING]

    def act():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as stop:
            mask(stop)

    result = invoke(act)
    assert (result.exit_code, result.output) == (code, "")
    assert [signal.getsignal(number) for number, _ in ENDING] == handlers


@pytest.mark.usefixtures("heeding")
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SystemError("error return without exception set"), 130, ""),
        (InputError("the disk is full"), 2, "error: the disk is full\n"),
    ],
)
def test_after_an_interrupt_that_was_dropped_a_fault_is_the_interrupt_and_bad_input_is_reported(error, code, said):
    dropped = []

    def act():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            dropped.append(True)
        raise error

    result = invoke(act)
    assert (result.exit_code, result.output) == (code, said)


@pytest.mark.usefixtures("heeding")
@pytest.mark.parametrize(("number", "code"), ENDING)
def test_a_signal_waits_where_files_take_their_places(number, code):
    placed = []

    def act():
        with signals_wait():
            for place in range(3):
                signal.raise_signal(number)
                placed.append(place)
        placed.append("after")

    assert invoke(act).exit_code == code
    assert placed == [0, 1, 2]


@pytest.mark.usefixtures("heeding")
def test_a_signal_that_a_callback_swallows_is_sent_again(capfd):
    class Thing:
        pass

    def act():
        thing = Thing()
        watch = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
        del thing
        threading.Event().wait(60)
        raise AssertionError(f"nothing arrived: {watch}")

    result = invoke(act)
    assert (result.exit_code, result.output) == (143, "")
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("heeding")
def test_a_system_error_without_a_signal_is_a_fault_of_ours(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def act():
        raise SystemError("error return without exception set")

    result = invoke(act)
    assert result.exit_code == 1
    assert "a fault of Headbank: SystemError" in result.stderr
    assert "Traceback" in next(tmp_path.iterdir()).read_text()
