"""The tests; they mirror the rooms."""

import signal
from pathlib import Path

#: The repository's root.
ROOT = Path(__file__).parents[1]


def heed_signals() -> None:
    """Let a child process be stopped by signals, whatever the caller of the tests ignores: a `preexec_fn`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
