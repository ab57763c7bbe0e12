"""The tests; they mirror the rooms."""

import signal
from pathlib import Path

#: The repository's root.
ROOT = Path(__file__).parents[1]


def heed_signals() -> None:
    """Let a child process be stopped by signals, whatever the caller of the tests ignores: a `preexec_fn`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def processes_below(ancestor: int) -> dict[int, str]:
    """The processes below a process, by number, with what they are called."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(path.name)] = (path / "cmdline").read_text()
        except OSError:
            continue
    below = {ancestor}
    while more := {process for process, parent in parents.items() if parent in below} - below:
        below |= more
    return {process: names[process] for process in below - {ancestor} if process in names}
