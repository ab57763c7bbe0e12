"""Run a command of the product, watch it, and say how it ended."""

import ctypes
import os
import re
import resource
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.knocks.case import CORRECT, CRASH, HANG, REJECTED, SILENCE, TRACEBACK, Verdict

ROOT = Path(__file__).resolve().parents[2]
#: Seconds after which a command hangs.
LIMIT = 60.0
#: What a command imports sooner or later, so that its forks need not: of each room.
EXTRACTING = ("extract.run", "extract.images.decoding", "extract.engines.onnx", "PIL.ImageFile", "pydantic")
READING = ("features.describe", "features.dataset.dataset", "features.store.cache")
LEARNING = (
    "classify.run", "classify.experiment", "classify.bank.train", "classify.models.linear",
    "classify.models.closed_form", "classify.validation", "classify.predict", "classify.search.command",
    "classify.report.page", "skops.io", "optuna.storages.journal", "jinja2", "numba.core.caching",
)  # fmt: skip
#: Exit codes of the manual: done, bad input, some rejected, stopped.
KNOWN_CODES = (0, 2, 3, 129, 130, 143)
_FAULT = re.compile(r"Traceback \(most recent call last\)|a fault of Headbank|Fatal Python error|Segmentation fault")
_DEATH_SIGNAL, _NEW_MOUNTS = 1, 0x20000  # prctl(2) PR_SET_PDEATHSIG; unshare(2) CLONE_NEWNS
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; minus the signal that ended it.
        said: stdout and stderr.
        seconds: how long it took.
        hung: whether it had to be killed after the limit.
        sent: the signal that it was sent; 0 for none.
    """

    code: int
    said: str
    seconds: float
    hung: bool = False
    sent: int = 0

    def failure(self) -> Verdict | None:
        """What must never be, as far as a command's end alone says it."""
        tail = " | ".join(self.said.strip().splitlines()[-3:])[-400:]
        if self.hung:
            return Verdict(HANG, f"no end after {self.seconds:.0f} s: {tail}")
        if _FAULT.search(self.said) or self.code == 1:
            return Verdict(TRACEBACK, f"exit code {self.code}: {tail}")
        if self.code not in KNOWN_CODES and not (self.sent and self.code == -self.sent):
            return Verdict(CRASH, f"exit code {self.code}: {tail}")
        if self.code in (2, 3) and not self.said.strip():
            return Verdict(SILENCE, f"exit code {self.code} without a word")
        return None

    def verdict(self) -> Verdict:
        """The verdict of a command whose result is judged no further."""
        return self.failure() or Verdict(CORRECT if self.code == 0 else REJECTED, self.last_line())

    def last_line(self) -> str:
        """What it said last, or its first error."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        return next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "")[:300]


@dataclass(frozen=True)
class Surroundings:
    """What a command meets.

    Attributes:
        scratch: its TMPDIR.
        limit: seconds.
        real: whether a new interpreter is started, as a shell does; else this one is forked, which is faster.
        signal_at: a signal, and the seconds after which it is sent.
        environment: further variables; those of LD_PRELOAD need a new interpreter.
        limits: of `resource.setrlimit`, soft ones.
        powerless: whether it runs as one who is not root, whoever this is: the rights of files count.
        meanwhile: called again and again while it runs, with the seconds gone.
    """

    scratch: Path
    limit: float = LIMIT
    real: bool = False
    signal_at: tuple[int, float] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[int, int] = field(default_factory=dict)
    powerless: bool = False
    meanwhile: Callable[[float], object] = lambda _: None


def run(words: list[str], around: Surroundings) -> Ended:
    """Run `python -m WORDS` in a process group of its own, and wait for it."""
    return wait(start(words, around), around)


def start(words: list[str], around: Surroundings) -> tuple[int, Path]:
    """Start a command; give its process, and the file of what it says."""
    around.scratch.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(".said", dir=around.scratch)
    process = os.fork()
    if process == 0:
        _become(words, around, descriptor)
    os.close(descriptor)
    return process, Path(name)


def wait(started: tuple[int, Path], around: Surroundings) -> Ended:
    """Wait for a command; what is left of its group after it is killed."""
    process, output = started
    began = time.monotonic()
    hung, sent = False, 0
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            break
        seconds = time.monotonic() - began
        around.meanwhile(seconds)
        if around.signal_at and not sent and seconds >= around.signal_at[1]:
            sent = around.signal_at[0]
            # Ctrl-C reaches all that a terminal started; other signals are sent to one process.
            (_signal_group if sent == signal.SIGINT else os.kill)(process, sent)
        if seconds > around.limit and not hung:
            hung = True
            _signal_group(process, signal.SIGKILL)
        time.sleep(0.002 if seconds < 1 else 0.01)
    seconds = time.monotonic() - began
    _end_group(process)
    return Ended(os.waitstatus_to_exitcode(status), output.read_text(errors="replace"), seconds, hung, sent)


def _signal_group(process: int, number: int) -> None:
    """Send a signal to a process and all that it started; it may be that it has no group yet."""
    try:
        os.killpg(process, number)
    except ProcessLookupError:
        os.kill(process, number)


def _end_group(process: int, patience: float = 3.0) -> None:
    """Give what a command started a moment to end, then kill it: a killed one leaves workers that tidy up."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            os.killpg(process, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.02)
    try:
        os.killpg(process, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _become(words: list[str], around: Surroundings, output: int) -> None:
    """Turn this forked process into a command; it does not come back."""
    code = 70
    try:
        os.setsid()
        die_with_parent()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        own = {"TMPDIR": str(around.scratch), "JOBLIB_TEMP_FOLDER": str(around.scratch), "PYTHONFAULTHANDLER": "1"}
        os.environ.update({**own, "MPLCONFIGDIR": str(around.scratch), **around.environment})
        tempfile.tempdir = None
        os.chdir(ROOT)
        for limit, soft in around.limits.items():
            resource.setrlimit(limit, (soft, resource.getrlimit(limit)[1]))
        if around.powerless:
            _drop_powers()
        if around.real:
            os.execv(sys.executable, [sys.executable, "-m", *words])
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in ((0, "r"), (1, "w"), (2, "w")))
        sys.argv = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except KeyboardInterrupt:  # the interpreter ends by the signal itself
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                code = code or 120
        os._exit(code)


def die_with_parent() -> None:
    """Let this process be killed when the one that forked it ends, however that ends."""
    _libc.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _drop_powers() -> None:
    """Give up what root may do beyond others: capset(2), version 3, with nothing in either half."""
    _libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())


def own_mounts() -> bool:
    """Let this process see mounts of its own, which vanish with it; say whether the system let it."""
    private = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC
    return _libc.unshare(_NEW_MOUNTS) == 0 and _libc.mount(b"none", b"/", None, private, None) == 0


def mount_small(folder: Path, size: int) -> bool:
    """Put a disk of so many bytes at a folder, or resize it; say whether the system let it."""
    is_there = os.path.ismount(folder)
    remount = 32 if is_there else 0  # MS_REMOUNT
    return _libc.mount(b"tmpfs", bytes(folder), b"tmpfs", remount, f"size={size}".encode()) == 0


def make_read_only(folder: Path) -> bool:
    """Let a folder be read only, for root too; say whether the system let it."""
    bind, read_only_again = 4096, 1 | 32 | 4096  # MS_BIND; MS_RDONLY | MS_REMOUNT | MS_BIND
    path = bytes(folder)
    return _libc.mount(path, path, None, bind, None) == 0 and _libc.mount(path, path, None, read_only_again, None) == 0
