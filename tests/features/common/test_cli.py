"""Exit codes and messages: of `python -m features verify`, and of any command line made by `application`."""

import errno
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from features.__main__ import app
from features.common.cli import application
from features.common.errors import InputError
from features.common.text import make_console
from tests import ROOT
from tests.features.store.caches import write_cache


def verify(cache: Path) -> Result:
    return CliRunner().invoke(app, ["verify", str(cache)])


def test_a_whole_cache_is_said_file_by_file(tmp_path):
    test = write_cache(tmp_path, [str(number) for number in range(1100)], "test")
    train = write_cache(tmp_path, "abc", "train")
    result = verify(tmp_path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"whole:   {test} (1,100 rows)\n"
        f"whole:   {train} (3 rows)\n"
        f"2 files checked, 1,103 rows whole, 0 files damaged.\n"
    )


def test_each_damaged_file_is_named_with_what_to_run(tmp_path):
    broken = write_cache(tmp_path, "abc", backbone="broken")
    whole = write_cache(tmp_path, "abc", backbone="whole")
    broken.write_bytes(b"")
    result = verify(tmp_path)
    assert result.exit_code == 2
    first, remedy, second, last = result.stdout.splitlines()
    assert first.startswith(f"damaged: {broken}: ")
    assert remedy == (
        f"  Run: mv {broken} {broken}.damaged && scripts/extract.sh DATA --backbones broken --cache {tmp_path}"
    )
    assert second == f"whole:   {whole} (3 rows)"
    assert last == "2 files checked, 3 rows whole, 1 file damaged."


def test_nothing_to_verify_is_bad_input(tmp_path):
    missing, empty = verify(tmp_path / "none"), verify(tmp_path)
    assert (missing.exit_code, empty.exit_code) == (2, 2)
    assert missing.stderr.startswith(f"error: {tmp_path}/none is not there: no features have been extracted. Run: ")
    assert empty.stderr.startswith(f"error: {tmp_path} holds no cache file ({{split}}/{{backbone}}.h5). Run: ")


def test_the_module_runs_as_a_program(tmp_path):
    write_cache(tmp_path, "abc")
    done = subprocess.run(
        [sys.executable, "-m", "features", "verify", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("1 file checked, 3 rows whole, 0 files damaged.\n")


def test_with_a_closed_stderr_no_file_of_a_command_takes_its_place():
    code = (
        "import os, typer; from features.common.cli import application; toy = application('A toy.')\n"
        "toy.command()(lambda: print(os.open(os.devnull, os.O_RDONLY)))\n"
        "toy.callback()(lambda: None)\n"
        "toy()"
    )
    words = ["sh", "-c", 'exec "$0" -c "$1" "<lambda>" 2>&-', sys.executable, code]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert int(done.stdout) > 2


def run(error: BaseException | None) -> Result:
    """Run a command that raises an error."""
    toy = application("A toy.")

    @toy.command()
    def act() -> None:
        """Act."""
        if error is not None:
            raise error

    return CliRunner().invoke(toy, ["act"])


def test_a_command_that_returns_ends_with_0():
    assert run(None).exit_code == 0


def test_bad_input_is_one_message_and_2():
    result = run(InputError("a.csv, line 3: received x. Write 0 or 1."))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: a.csv, line 3: received x. Write 0 or 1.\n"


@pytest.mark.parametrize(("year", "code"), [(1970, 2), (1979, 2), (1980, 0), (2107, 0), (2108, 2)])
def test_a_clock_that_no_archive_can_hold_is_bad_input(monkeypatch, year, code):
    now = time.struct_time((year, 1, 2, 3, 4, 5, 0, 2, 0))
    monkeypatch.setattr("features.common.cli.time.localtime", lambda: now)
    result = run(None)
    assert result.exit_code == code
    said = f"error: the clock of this machine says {year}-01-02, which files of models cannot hold. "
    assert result.stderr == (f"{said}Set the clock, and run again.\n" if code else "")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "Change the rights of the file and its folders, or the user"),
        (errno.ENAMETOOLONG, "Give a shorter name"),
        (errno.ENOSPC, "Make room on its disk, or use another"),
        (errno.EROFS, "It can only be read there: work in a folder on another disk"),
        (errno.EIO, "The disk, or the network to it, fails: look at the system's log, then run again"),
        (errno.EMFILE, "Raise the number of open files, as by: ulimit -n 4096"),
    ],
)
def test_what_the_system_refuses_is_no_fault_of_ours(number, remedy):
    reason = os.strerror(number)
    for error, what in ((OSError(number, reason, "a/b"), f"a/b: {reason}"), (OSError(number, reason), reason)):
        result = run(error)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"error: {what}. {remedy}.\n"


def test_a_split_whose_folder_cannot_be_read_is_not_passed_over(tmp_path, monkeypatch):
    write_cache(tmp_path, "abc", "test")
    write_cache(tmp_path, "abc", "train")

    def listdir(path):
        if Path(path) == tmp_path / "train":  # as root, whom no rights stop
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return names(path)

    names = os.listdir
    monkeypatch.setattr(os, "listdir", listdir)
    result = verify(tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {tmp_path}/train: Permission denied. Change the rights")


def test_a_fault_of_ours_is_1_with_the_traceback_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = run(ZeroDivisionError("division by zero"))
    (report,) = tmp_path.iterdir()
    assert result.exit_code == 1
    assert result.stderr.startswith("error: a fault of Headbank: ZeroDivisionError: division by zero\n")
    assert str(report) in result.stderr
    assert "Traceback" not in result.stderr
    assert report.read_text().startswith("Traceback (most recent call last):")


@pytest.mark.parametrize(
    ("arguments", "says"), [(["verify"], "CACHE"), (["vanish"], "vanish"), (["verify", "-x"], "-x")]
)
def test_bad_usage_is_2_and_names_what_is_wrong(arguments, says):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize("room", ["classify", "extract", "features"])
def test_a_python_without_the_packages_is_told_which_has_them(room):
    command = [sys.executable, "-S", "-m", room, "--help"]  # without its site-packages, as the system's
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    python = ROOT / ".venv" / "bin" / "python"
    assert result.stderr == f"error: {sys.executable} has no package typer. Use {python}; scripts/setup.sh makes it.\n"


def test_control_characters_of_a_message_are_escaped_and_its_lines_stay():
    assert run(InputError("a\x1b[2J.csv:\nsecond")).stderr == "error: a\\x1b[2J.csv:\nsecond\n"
    assert run(OSError(errno.EACCES, "Permission denied", "a\n\x07")).stderr.startswith("error: a\\n\\x07: Permission")


def test_what_the_output_cannot_show_is_escaped_and_ends_nothing():
    toy = application("A toy.")

    @toy.command()
    def act() -> None:
        """Act."""
        print("Ödem")
        make_console().print("脳")
        logging.getLogger("toy").warning("é\x1b")

    result = CliRunner(charset="ascii").invoke(toy, ["act"])
    assert (result.exit_code, result.stdout) == (0, "\\xd6dem\n\\u8133\n")
    assert result.stderr == "WARNING: \\xe9\\x1b\n"
