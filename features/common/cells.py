"""Texts as cells of a CSV file that a spreadsheet may open, and back, exactly.

What a spreadsheet would run as a formula gets an apostrophe before it, where a person asks for that (OWASP, CSV
Injection). What looks like such a cell already gets one more, always, so that every reader gives back what was meant.
"""

import csv
import re
from pathlib import Path

from features.common.files import replacing

#: With these a formula begins.
_ACTS = ("=", "+", "-", "@", "\t", "\r")
_PROTECTED = tuple(f"'{begin}" for begin in (*_ACTS, "'"))
#: A number, which is no formula whatever its sign.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|inf|nan)")


def write_cell(text: str, safe: bool) -> str:
    """Write a text as a cell; `safe` from spreadsheets, if asked for."""
    acts = safe and text.startswith(_ACTS) and not _NUMBER.fullmatch(text)
    return f"'{text}" if acts or text.startswith(_PROTECTED) else text


def read_cell(cell: str) -> str:
    """Read what `write_cell` wrote."""
    return cell[1:] if cell.startswith(_PROTECTED) else cell


def protect_tables(folder: Path, safe: bool) -> None:
    """Protect the CSV files of a folder as `protect_table` does."""
    for path in sorted(folder.glob("*.csv")):
        protect_table(path, safe)


def protect_table(path: Path, safe: bool) -> None:
    """Write the cells of a CSV file as `write_cell` does; where that changes nothing it stays as it is.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    if not safe and b"'" not in path.read_bytes():
        return
    with path.open(encoding="utf-8", newline="") as file:
        changed = any(write_cell(cell, safe) != cell for row in csv.reader(file) for cell in row)
    if changed:
        with (
            path.open(encoding="utf-8", newline="") as file,
            replacing(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as protected,
        ):
            rows = ([write_cell(cell, safe) for cell in row] for row in csv.reader(file))
            csv.writer(protected, lineterminator="\n").writerows(rows)
