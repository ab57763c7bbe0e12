"""What ends a command before its work is done: an error that the user can fix, and a signal."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

#: Seconds after which a signal is sent again that a destructor swallowed.
_AGAIN = 0.05
#: The signals that arrived while they raise `Stopped`.
_RECEIVED: list[int] = []
#: One entry for each block at whose end they do so, and not before.
_WAITING: list[None] = []
#: What the system answers where a disk or a quota is full.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: What a file system answers that has no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
#: What helps, by what the system answers.
_REMEDIES = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "Change the rights of the file and its folders, or the user"),
    errno.EROFS: "It can only be read there: work in a folder on another disk",
    **dict.fromkeys(FULL, "Make room on its disk, or use another"),
    **dict.fromkeys(NO_LOCKS, "Its file system has no locks: work in a folder on another one"),
    errno.EAGAIN: "Another program has locked it: close that program, and run again",
    errno.EIO: "The disk, or the network to it, fails: look at the system's log, then run again",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "Raise the number of open files, as by: ulimit -n 4096"),
    errno.ENOMEM: "Close other programs, or use a machine with more memory",
    errno.EISDIR: "A file is expected there: move the folder away",
    errno.ENOTDIR: "A folder is expected there, and it is a file: move it away",
    errno.ELOOP: "It is a symbolic link that leads nowhere, or may not be followed: put the file itself there",
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.ENOENT: "Check the path",
    **dict.fromkeys(
        (errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN, errno.ECONNRESET),
        "The network drive does not answer: mount it again, then run again",
    ),
}


class InputError(Exception):
    """Bad usage or bad input.

    The message says what, where, what was received, and what to do. Commands print it and exit with code 2; a notebook
    shows it, without a traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of the traceback."""
        return [f"error: {self}"]


def cause_of(error: OSError) -> str:
    """Say what the system answered, and what helps: two sentences; none of them says that a file is damaged."""
    remedy = _REMEDIES.get(error.errno or 0, "Check the path, its rights and its disk")
    return f"{error.strerror or error}. {remedy}."


class Stopped(KeyboardInterrupt):
    """A signal arrived: Ctrl-C (SIGINT), SIGTERM or SIGHUP.

    Attributes:
        number: the signal's number.
        exit_code: what a shell reports for a process that the signal ended.
    """

    def __init__(self, number: int) -> None:
        super().__init__("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)
        self.number = number
        self.exit_code = 128 + number


def refuse_other_python() -> None:
    """End with exit code 2 where the packages that commands need are missing: mostly it is the system's Python."""
    if find_spec("typer") is None:
        python = Path(__file__).parents[2] / ".venv" / "bin" / "python"
        print(
            f"error: {sys.executable} has no package typer. Use {python}; scripts/setup.sh makes it.", file=sys.stderr
        )
        sys.exit(2)


@contextmanager
def naming_packages() -> Iterator[None]:
    """Say in one message which package cannot be imported in the block: a thread of readers would show a traceback.

    Raises:
        InputError: a package is missing, or something that it needs is.
    """
    try:
        yield
    except ImportError as error:
        name = (error.name or "that reads these files").partition(".")[0]
        raise InputError(f"the package {name} cannot be loaded: {error}. Run: scripts/setup.sh") from error


def end_silently() -> None:
    """Give Ctrl-C back to the system while modules are imported: a traceback of an import helps nobody.

    A process that was started with Ctrl-C ignored goes on ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def heeded_signals() -> tuple[int, ...]:
    """List the signals that stop a command: not those that its caller (a shell's `&`, nohup) set to be ignored."""
    ignorable = (signal.SIGINT, signal.SIGHUP)
    return (signal.SIGTERM, *(number for number in ignorable if signal.getsignal(number) is not signal.SIG_IGN))


@contextmanager
def raising_signals() -> Iterator[None]:
    """Let signals raise `Stopped` in the block, whatever code they interrupt, so that it can tidy up.

    Raises:
        Stopped: a signal arrived, whatever the interrupted code made of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    _RECEIVED.clear()

    def handle(number: int, frame: FrameType | None) -> None:
        _RECEIVED.append(number)
        if not _WAITING:
            raise Stopped(number)

    def send_again(unraisable: "sys.UnraisableHookArgs") -> None:
        if isinstance(stop := unraisable.exc_value, Stopped):
            # Python drops what a destructor or a callback of a weak reference raises.
            threading.Timer(_AGAIN, os.kill, (os.getpid(), stop.number)).start()
        else:
            hook(unraisable)

    hook = sys.unraisablehook
    previous = {number: signal.signal(number, handle) for number in heeded_signals()}
    sys.unraisablehook = send_again
    try:
        with unmasked_signals():
            yield
    except InputError:
        raise
    except Exception as error:
        if _RECEIVED:  # C code that raises an error of its own drops the interrupt
            raise Stopped(_RECEIVED[0]) from error
        raise
    finally:
        sys.unraisablehook = hook
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let a signal wait until the block ends, in which files that belong together take their places.

    Raises:
        Stopped: a signal arrived in the block; an error of the block goes first.
    """
    before = len(_RECEIVED)
    _WAITING.append(None)
    try:
        yield
    finally:
        _WAITING.pop()
    if len(_RECEIVED) > before and not _WAITING:
        raise Stopped(_RECEIVED[before])


@contextmanager
def unmasked_signals() -> Iterator[None]:
    """Raise the interrupt itself where a library made another error of it.

    A C function that is interrupted and returns a result all the same ends in a SystemError; others report that a file
    is damaged, or that a module cannot be imported; those of Ray raise an interrupt that does not say by which signal.
    """
    try:
        yield
    except Stopped:
        raise
    except KeyboardInterrupt as error:
        if _RECEIVED:
            raise Stopped(_RECEIVED[0]) from error
        raise
    except Exception as error:
        link: BaseException | None = error
        while link is not None and not isinstance(link, KeyboardInterrupt):
            link = link.__cause__ or link.__context__
        if link is None:
            raise
        raise link from None
