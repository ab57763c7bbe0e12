"""Run a command line so that every error ends as one message with the right exit code.

Exit codes: 0 done; 1 a fault of ours; 2 bad usage or bad input; 3 done, but some inputs were rejected;
128 + signal when stopped by a signal.
"""

import csv
import dataclasses
import errno
import inspect
import io
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import typer
import typer.core
from typer.models import ArgumentInfo

from features.common.commands import option_words
from features.common.errors import FULL, InputError, Stopped, cause_of, raising_signals
from features.common.files import open_stderr
from features.common.text import LAYOUT, visible

EXIT_FAULT = 1
EXIT_BAD_INPUT = 2
EXIT_REJECTED = 3
EXIT_BROKEN_PIPE = 128 + 13  # as a shell reports SIGPIPE
#: What the system answers for a path that a person has to change, wherever it is met: no fault of ours.
_OF_THE_SYSTEM = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE,
    *FULL,
)  # fmt: skip

#: The years of a zip archive (APPNOTE.TXT, 4.4.6, as MS-DOS counts them).
_YEARS = range(1980, 2108)

_Act = TypeVar("_Act", bound=Callable[[Any], int | None])
_Options = TypeVar("_Options")
#: What Typer raises where a command is not called as it has to be: it exports only kinds of it.
_UsageError: Any = typer.BadParameter.__base__


def split_names(text: str | None, option: str) -> tuple[str, ...] | None:
    """Split a list of names at its commas; a name that holds one stands in double quotes, as in a CSV file.

    Raises:
        InputError: a name is empty or duplicated.
    """
    if text is None:
        return None
    names = tuple(name.strip() for name in next(csv.reader([text], skipinitialspace=True)) or [""])
    if "" in names or len(set(names)) < len(names):
        raise InputError(f"{option} {text!r}: expected different names between commas, such as {option} a,b.")
    return names


def choose_names(text: str, option: str, kind: str, table: Collection[str], *, none: bool = False) -> tuple[str, ...]:
    """Choose from a table by names between commas, in the table's order; where there may be `none`, it stands alone.

    Raises:
        InputError: a name is empty, duplicated or not of the table, which the message lists.
    """
    names = split_names(text, option) or ()
    if none and names == ("none",):
        return ()
    unknown = [name for name in names if name not in table]
    if unknown:
        known = f"Expected {', '.join(table)}; or none." if none else f"Expected some of {', '.join(table)}."
        raise InputError(f"{option} {text!r}: {unknown[0]} is not {kind}. {known}")
    return tuple(name for name in table if name in names)


class _VisibleFormatter(logging.Formatter):
    """Writes log lines; see `visible`."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        return visible(super().formatMessage(record), LAYOUT)


class Command(typer.core.TyperGroup):
    """A group of sub-commands that turns exceptions into messages on stderr and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the sub-command; any error ends as a `typer.Exit` with the code that the module's docstring gives."""
        open_stderr()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # what it cannot show must not end a command
                stream.reconfigure(errors="backslashreplace")
        logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
        logging.getLogger().handlers[0].setFormatter(_VisibleFormatter("%(levelname)s: %(message)s"))
        try:
            with raising_signals():
                _refuse_clock()
                return super().invoke(ctx)
        except Stopped as stop:
            raise typer.Exit(stop.exit_code) from None
        except InputError as error:
            typer.echo(f"error: {visible(str(error), LAYOUT)}", err=True)
            raise typer.Exit(EXIT_BAD_INPUT) from None
        except BrokenPipeError:
            raise typer.Exit(EXIT_BROKEN_PIPE) from None
        except Exception as error:
            # Typer's own exceptions (usage, exit, abort) carry an exit code: they are not faults.
            if isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "exit_code"):
                raise
            if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
                where = f"{error.filename}: " if error.filename else ""
                typer.echo(f"error: {visible(where)}{cause_of(error)}", err=True)
                raise typer.Exit(EXIT_BAD_INPUT) from None
            report_fault(error)
            raise typer.Exit(EXIT_FAULT) from None


def _refuse_clock() -> None:
    """Refuse by an `InputError` a year that zip archives cannot hold: models and parts are such archives."""
    if (now := time.localtime()).tm_year not in _YEARS:
        raise InputError(
            f"the clock of this machine says {time.strftime('%Y-%m-%d', now)}, which files of models cannot hold. "
            "Set the clock, and run again."
        )


def report_fault(error: Exception) -> None:
    """Write the traceback of a fault of ours to a file of its own, and say on stderr where it is."""
    with tempfile.NamedTemporaryFile("w", prefix="headbank-fault-", suffix=".txt", delete=False) as file:
        file.write("".join(traceback.format_exception(error)))
    typer.echo(
        f"error: a fault of Headbank: {type(error).__name__}: {visible(str(error), LAYOUT)}\n"
        f"Please report it, with {file.name}. Finished work is kept: the same command goes on from there.",
        err=True,
    )


def command(app: typer.Typer, name: str | None = None) -> Callable[[_Act], _Act]:
    """Decorate a function that becomes a sub-command, whose arguments and options are the fields of a dataclass.

    It takes the dataclass alone and returns the exit code, or None for 0. Each field is declared as Typer reads it:
    `folds: Annotated[int, typer.Option(help=...)] = 5`. Without `name` the sub-command is named after the function.
    """

    def add(act: _Act) -> _Act:
        (parameter,) = inspect.signature(act).parameters
        options = get_type_hints(act)[parameter]
        hints = get_type_hints(options, include_extras=True)

        def run(**values: Any) -> None:
            if code := act(options(**values)):
                raise typer.Exit(code)

        parameters = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
                annotation=hints[field.name],
            )
            for field in dataclasses.fields(options)
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = hints
        run.__doc__ = act.__doc__
        app.command(name or act.__name__)(run)
        return act

    return add


def read_options(kind: type[_Options], values: Mapping[str, Any]) -> _Options:
    """Make the options of a sub-command from Python's values by name, checked as those of a command line are.

    A list or tuple is written as the command takes several: between commas, or the option again.

    Raises:
        InputError: no option has such a name, one that is needed is missing, or a value is not one that it takes.
    """
    hints = get_type_hints(kind, include_extras=True)
    arguments, options = [], {}
    for name, value in values.items():
        if name not in hints:
            options[name] = True  # whatever its value, so that it is refused
            continue
        declared, *how = get_args(hints[name])
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, list | tuple):
            again = list in (get_origin(declared), *map(get_origin, get_args(declared)))
            value = [*value] if again else _join_names(value)
        if any(isinstance(one, ArgumentInfo) for one in how):
            arguments.append(str(value))
        else:
            options[name] = value
    made: list[_Options] = []

    def take(options: Any) -> None:
        made.append(options)

    take.__annotations__["options"] = kind
    app = typer.Typer(add_completion=False)
    command(app)(take)
    parser = typer.main.get_command(app)
    parser.add_help_option = False
    try:
        parser.main([*option_words(options), "--", *arguments], "", standalone_mode=False)
    except _UsageError as error:
        raise InputError(error.format_message()) from None
    return made[0]


def read_path(name: str, value: Any) -> Path:
    """Make a path of what Python was given for one; an `InputError` says that it is none."""
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{name}: received {value!r}. Expected the path of a folder.")
    return Path(value)


def _join_names(names: Collection[Any]) -> str:
    """Write names as `split_names` reads them."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()


def application(purpose: str) -> typer.Typer:
    """Make the Typer application of one room, whose sub-commands may raise `InputError`; `--help` says its purpose."""
    app = typer.Typer(cls=Command, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback(help=purpose)(lambda: None)  # without a callback Typer would fold a lone sub-command away
    return app
