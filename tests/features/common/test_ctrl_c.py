"""Ctrl-C while a command is being imported ends it without a word; once it has begun, it can tidy up."""

import signal
import subprocess
import sys

import pytest

from tests import ROOT

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


def start(program: str, *arguments: str, handler: signal.Handlers = signal.SIG_DFL) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )  # fmt: skip


@pytest.mark.parametrize("room", ["classify", "extract", "features"])
def test_ctrl_c_while_importing_ends_a_command_without_a_word(room):
    done = start(WHILE_IMPORTING, room, "--help")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_process_that_was_made_deaf_to_ctrl_c_stays_so():
    done = start(WHILE_IMPORTING, "features", "--help", handler=signal.SIG_IGN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout


def test_a_command_that_has_begun_ends_by_ctrl_c_with_its_own_code():
    program = """
import os, signal
from features.common.ctrl_c import end_silently
from features.common.cli import application
end_silently()
app = application("A test.")

@app.command()
def wait() -> None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        print("tidied up")

app(["wait"])
"""
    done = start(program)
    assert (done.returncode, done.stdout, done.stderr) == (130, "tidied up\n", "")
