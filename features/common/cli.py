"""Run a command line so that every error ends as one message with the right exit code.

Exit codes: 0 done; 1 a fault of ours; 2 bad usage or bad input; 3 done, but some inputs were rejected;
128 + signal when stopped by a signal.
"""

import logging
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer
import typer.core

from features.common.ctrl_c import raise_again
from features.common.errors import InputError

EXIT_FAULT = 1
EXIT_BAD_INPUT = 2
EXIT_REJECTED = 3
EXIT_INTERRUPTED = 128 + 2  # as a shell reports SIGINT
EXIT_TERMINATED = 128 + 15  # as a shell reports SIGTERM
EXIT_BROKEN_PIPE = 128 + 13  # as a shell reports SIGPIPE


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. What ends well by Ctrl-C ends well by it too."""


class Command(typer.core.TyperGroup):
    """A group of sub-commands that turns exceptions into messages on stderr and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the sub-command.

        Raises:
            typer.Exit: with code 2 for an `InputError`, code 1 for any fault of ours, 130 or 143 for a signal.
        """
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr, force=True)
        try:
            with _terminable():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            code = EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED
            raise typer.Exit(code) from None
        except InputError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(EXIT_BAD_INPUT) from None
        except BrokenPipeError:
            raise typer.Exit(EXIT_BROKEN_PIPE) from None
        except Exception as error:
            # Typer's own exceptions (usage, exit, abort) carry an exit code: they are not faults.
            if isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "exit_code"):
                raise
            report = _write_report(error)
            typer.echo(
                f"error: a fault of Headbank: {type(error).__name__}: {error}\n"
                f"Please report it, with {report}. Finished work is kept: the same command goes on from there.",
                err=True,
            )
            raise typer.Exit(EXIT_FAULT) from None


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` in the block, and Ctrl-C KeyboardInterrupt: else nothing would be tidied."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def handle(number: int, frame: FrameType | None) -> None:
        raise Terminated

    raise_again()
    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _write_report(error: Exception) -> Path:
    """Write the traceback to a file of its own and return the file's path."""
    with tempfile.NamedTemporaryFile("w", prefix="headbank-fault-", suffix=".txt", delete=False) as file:
        file.write("".join(traceback.format_exception(error)))
    return Path(file.name)


def application(purpose: str) -> typer.Typer:
    """Make the Typer application of one room.

    Args:
        purpose: what `--help` says first.

    Returns:
        An application whose sub-commands may raise `InputError`.
    """
    app = typer.Typer(
        cls=Command, help=purpose, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    app.callback(help=purpose)(lambda: None)  # without a callback Typer would fold a lone sub-command away
    return app
