"""Write the commands that made a run or go on from it, with the run's own data, cache and columns.

`python -m classify.rundir.command_lines RUN COMMAND` prints the words of one, each ended by NUL, for
scripts/classify.sh.
"""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Options that say how the CSV files of a data set are read.
_OF_TABLES = ("id_column", "labels", "group_column", "groups")


def command_words(command: str, run: Path, record: Mapping[str, Any]) -> list[str]:
    """Give the words that follow `python -m`.

    Args:
        command: `classify run`, `extract heat`, `classify report` or `features audit`.
        run: the run's folder.
        record: its `run.json`: `data`, `cache`, `arguments`.
    """
    data, cache, given = str(record["data"]), str(record["cache"]), record["arguments"]
    words = {
        "classify run": [data, "--out", str(run), *_options(given, tuple(given))],
        # Without labels and groups: it reads images, and of the tables which column names them.
        "extract heat": [data, str(run), *_options(given, ("id_column",))],
        "classify report": [str(run)],
        "features audit": [cache, "--data", data, "--run", str(run), *_options(given, _OF_TABLES)],
    }
    return [*command.split(), *words[command]]


def command_line(command: str, run: Path, record: Mapping[str, Any]) -> str:
    """Write a command so that it can be pasted into a shell; arguments as of `command_words`."""
    return shlex.join(["python", "-m", *command_words(command, run, record)])


def _options(given: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    """Write options as they were given; one that was not given, or a switch that is off, takes no word."""
    words = []
    for name in names:
        value, option = given.get(name), f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            words += [option, str(value)]
    return words


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    of_run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    print(*command_words(" ".join(sys.argv[2:]), folder, of_run), sep="\0", end="\0")
