"""Commands as messages and pages print them: what is pasted into a shell does what was meant, whatever the names."""

import itertools
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]


def write_command(program: str, *words: object) -> str:
    """Write a command that can be pasted into the shell that this process was started from.

    Args:
        program: a script, such as `scripts/extract.sh`; or a module and its sub-command, such as `features verify`.
        words: its arguments and options; a `Path` that begins with a dash is written so that it is not an option.
    """
    elsewhere = "" if Path.cwd() == _ROOT else f"{_ROOT}/"
    if program.endswith(".sh"):
        return join_words(f"{elsewhere}{program}", *words)
    start = [f"{elsewhere}.venv/bin/python", "-m", *program.split()]
    return join_words(*(["env", f"PYTHONPATH={_ROOT}"] if elsewhere else []), *start, *words)


def move_aside(path: Path) -> str:
    """Write the command that gives a damaged file another name, which no other file has."""
    names = itertools.chain([f"{path.name}.damaged"], (f"{path.name}.damaged{n}" for n in itertools.count(2)))
    return join_words("mv", path, next(free for name in names if not (free := path.with_name(name)).exists()))


def option_words(options: Mapping[str, Any]) -> list[str]:
    """Write options by name as words of a command; None, and a switch that is off, take no word; a list several."""
    words = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif isinstance(value, list):
            words += [word for one in value for word in (option, str(one))]
        elif value is not None and value is not False:
            words += [option, str(value)]
    return words


def join_words(*words: object) -> str:
    """Quote words for a shell, on one line; a `Path` never becomes an option."""
    return " ".join(_quote(_as_path(word) if isinstance(word, Path) else str(word)) for word in words)


def _as_path(path: Path) -> str:
    """A path as a word that no program takes for an option: `Path` itself drops the ./ that says so."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def _quote(word: str) -> str:
    """Quote a word; where a terminal would act on a character, by codes: Bash manual, 3.1.2.4 ANSI-C Quoting."""
    if word.isprintable():
        return shlex.quote(word)
    return f"$'{''.join(map(_escape, word))}'"


def _escape(letter: str) -> str:
    """Write a character between $' and '."""
    if letter in "\\'":
        return f"\\{letter}"
    return letter if letter.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))
