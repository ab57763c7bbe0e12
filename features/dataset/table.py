"""Read a CSV file cell by cell, with the line number that an editor shows."""

import csv
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.common.errors import InputError
from features.common.text import first_few

# What pandas calls a column without a header ("Unnamed: 0"), also after a second round ("Unnamed: 0.1").
_UNNAMED = re.compile(r"(Unnamed: \d+(\.\d+)*)?")
_SHOWN_CHARACTERS = 60
_SHOWN_NAMES = 20


@dataclass(frozen=True)
class Table:
    """The cells of one CSV file.

    Attributes:
        path: the file.
        header: column names without blanks around; unnamed columns keep the name that they have in the file.
        columns: one list of N cells for each column, without blanks around.
        lines: N line numbers, 1-based: where each row begins.
    """

    path: Path
    header: tuple[str, ...]
    columns: tuple[list[str], ...]
    lines: Sequence[int]

    def check_header(self) -> None:
        """Refuse column names that occur twice.

        Raises:
            InputError: a name occurs twice; the message gives both columns by number.
        """
        for name in named(self.header):
            self.find(name)

    def find(self, name: str) -> int:
        """Find a column.

        Args:
            name: a name in the header.

        Returns:
            The column's index, from 0.

        Raises:
            InputError: the name occurs twice.
        """
        first = self.header.index(name)
        if name in self.header[first + 1 :]:
            second = self.header.index(name, first + 1)
            raise InputError(
                f"{self.path}: columns {first + 1} and {second + 1} are both called {shown(name)}. Rename one of them."
            )
        return first


def read_table(path: Path) -> Table:
    """Read a whole CSV file.

    Args:
        path: comma-separated file, UTF-8 with or without byte order mark, with a header.

    Returns:
        Its cells; at least one row.

    Raises:
        InputError: see `read_rows`.
    """
    rows = read_rows(path)
    _, header = next(rows)
    columns: tuple[list[str], ...] = tuple([] for _ in header)
    lines = array("q")
    for line, cells in rows:
        lines.append(line)
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    return Table(path, tuple(header), columns, lines)


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Go through the rows of a CSV file without holding them.

    Blank lines are skipped; a quoted cell may span lines.

    Args:
        path: comma-separated file, UTF-8 with or without byte order mark, with a header.

    Yields:
        The line where a row begins (1-based), and its cells without blanks around. The header comes first, and at least
        one row after it; all rows have the header's number of cells.

    Raises:
        InputError: the file cannot be opened, is empty, has only a header, is not UTF-8, is separated by something else
            than commas, opens a quote that it never closes, or has a row with too many or too few cells.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _split_rows(path, file)
    except UnicodeDecodeError:
        raise _encoding_error(path) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Make it a readable file, or remove it.") from None


def _split_rows(path: Path, text: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Do the work of `read_rows` on the lines of an open file."""
    exhausted = False

    def lines() -> Iterator[str]:
        nonlocal exhausted
        yield from text
        exhausted = True

    reader = csv.reader(lines(), skipinitialspace=True)
    width, rows, line = 0, 0, 1
    try:
        for raw in reader:
            if exhausted:  # the reader asked for one line more than there is: it is still inside a quoted cell
                raise csv.Error("a quoted cell does not end")
            cells = [cell.strip() for cell in raw]
            if any(cells) or len(cells) > 1:
                if not width:
                    _check_separator(path, line, cells)
                    width = len(cells)
                elif len(cells) != width:
                    raise InputError(
                        f"{path}, line {line}: received {len(cells)} cells, but the header has {width} "
                        f"(the row begins with {shown(cells[0])}). Give the row one cell for each column; "
                        'a cell that holds a comma needs quotes ("a, b").'
                    )
                else:
                    rows += 1
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f'{path}, line {line}: {error}. Close the quote (") that begins in this row.') from None
    if not width:
        raise InputError(f"{path} is empty. Write a header and one row for each image, or remove the file.")
    if not rows:
        raise InputError(f"{path} holds a header and no row. Write one row for each image, or remove the file.")


def _check_separator(path: Path, line: int, header: list[str]) -> None:
    """Refuse a header that shows another separator or another encoding."""
    if any("\0" in name for name in header):
        raise InputError(f"{path}, line {line}: received a NUL byte, as in UTF-16. Save the file as UTF-8.")
    if len(header) == 1:
        for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if separator in header[0]:
                raise InputError(
                    f"{path}, line {line}: the columns are separated by {name}; received {shown(header[0])}. "
                    "Save the file with commas (CSV UTF-8, comma delimited)."
                )


def _encoding_error(path: Path) -> InputError:
    """Say where a file stops being UTF-8."""
    content = path.read_bytes()
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind the byte order mark.
        start = error.start + len(content) - len(error.object)
        before = content[:start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        line, byte = before.count(b"\n") + 1, content[start]
        return InputError(
            f"{path}, line {line}: received the byte 0x{byte:02x} (byte {start + 1} of the file), which is not UTF-8. "
            "Save the file as UTF-8."
        )
    return InputError(f"{path} changed while it was read. Run the command again.")


def is_unnamed(name: str) -> bool:
    """Tell whether a header cell is no name: blank, or what pandas writes for a blank one."""
    return _UNNAMED.fullmatch(name) is not None


def named(header: Iterable[str]) -> tuple[str, ...]:
    """Keep the names of a header that are names."""
    return tuple(name for name in header if not is_unnamed(name))


def shown(value: str) -> str:
    """Write a cell for an error message: quoted, and cut where it is long."""
    if not value:
        return "a blank cell"
    return repr(value if len(value) <= _SHOWN_CHARACTERS else value[: _SHOWN_CHARACTERS - 3] + "...")


def listed(names: Sequence[str]) -> str:
    """Write names for an error message: separated by commas, and cut where there are many."""
    return first_few([shown(name)[1:-1] for name in names], _SHOWN_NAMES) or "none"


def cell_error(table_path: Path, line: int, column: str, value: str, remedy: str) -> InputError:
    """Make the error of one cell.

    Args:
        table_path: the CSV file.
        line: the row's line, 1-based.
        column: the column's name.
        value: what the cell holds.
        remedy: what is wrong and what to do, as sentences.

    Returns:
        The error, to be raised.
    """
    return InputError(f"{table_path}, line {line}, column {listed([column])}: received {shown(value)}. {remedy}")
