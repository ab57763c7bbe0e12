"""Read a CSV file cell by cell, with the line number that an editor shows, and collect what is wrong."""

import csv
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.common.errors import InputError
from features.common.text import first_few

# What pandas calls a column without a header ("Unnamed: 0"), also after a second round ("Unnamed: 0.1").
_UNNAMED = re.compile(r"(Unnamed: \d+(\.\d+)*)?")
_SHOWN_CHARACTERS = 60
_SHOWN_NAMES = 20
_SHOWN_FAULTS = 10
KEPT_FAULTS = 1000


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a data set.

    Attributes:
        kind: `table`, `image`, `id`, `label` or `group`: what cannot be read.
        path: the file or folder.
        what: what was received.
        remedy: what to do, as sentences.
        line: 1-based; None if the fault is not of one row.
        column: the column's name; None if the fault is not of one column.
    """

    kind: str
    path: Path
    what: str
    remedy: str
    line: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        """The place, what was received, and what to do."""
        line = "" if self.line is None else f", line {self.line}"
        column = "" if self.column is None else f", column {listed([self.column])}"
        return f"{self.path}{line}{column}: {self.what}. {self.remedy}"


@dataclass
class Faults:
    """The faults of a data set, as a reader finds them.

    Attributes:
        kept: the first thousand.
        count: how many there are.
        warnings: what is not a fault, but ignored or left out.
    """

    kept: list[Fault] = field(default_factory=list)
    count: int = 0
    warnings: list[str] = field(default_factory=list)

    def add(self, *first: Fault, count: int | None = None) -> None:
        """Add faults; where these are only the first of them, `count` says how many there are."""
        self.kept += first[: KEPT_FAULTS - len(self.kept)]
        self.count += len(first) if count is None else count

    def refuse(self, hint: str = "") -> None:
        """Stop if there is any fault.

        Raises:
            InputError: there is one; the message shows the first ten, how many more there are, and the hint.
        """
        if self.count == 1:
            raise InputError(str(self.kept[0]))
        if self.count:
            lines = [f"{self.count:,} faults:", *map(str, self.kept[:_SHOWN_FAULTS])]
            if self.count > _SHOWN_FAULTS:
                lines.append(f"and {self.count - _SHOWN_FAULTS:,} more{hint}")
            raise InputError("\n  ".join(lines))


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

    def find(self, name: str) -> int:
        """Find the index of a column of the header.

        Raises:
            InputError: two columns have that name.
        """
        for fault in self.find_duplicates((name,)):
            raise InputError(str(fault))
        return self.header.index(name)

    def find_duplicates(self, names: Iterable[str]) -> list[Fault]:
        """Give a fault for each of these names that two columns have."""
        faults = []
        for name in dict.fromkeys(names):
            places = [place for place, other in enumerate(self.header, start=1) if other == name]
            if len(places) > 1:
                what = f"columns {places[0]} and {places[1]} are both called {shown(name)}"
                faults.append(Fault("table", self.path, what, "Rename one of them."))
        return faults

    def keep(self, rows: Sequence[int]) -> "Table":
        """The table of some of its rows."""
        if len(rows) == len(self.lines):
            return self
        columns = tuple([column[row] for row in rows] for column in self.columns)
        return Table(self.path, self.header, columns, [self.lines[row] for row in rows])


def read_table(path: Path, faults: Faults | None = None) -> Table:
    """Read a whole CSV file, at least one row; see `read_rows`."""
    rows = read_rows(path, faults)
    _, header = next(rows)
    columns: tuple[list[str], ...] = tuple([] for _ in header)
    lines = array("q")
    for line, cells in rows:
        lines.append(line)
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    return Table(path, tuple(header), columns, lines)


def read_rows(path: Path, faults: Faults | None = None) -> Iterator[tuple[int, list[str]]]:
    """Read a CSV file row by row; blank lines are skipped, and a quoted cell may span lines.

    Args:
        path: comma-separated file, UTF-8 with or without byte order mark, with a header.
        faults: gets the rows with too many or too few cells, which are left out; None refuses them after the last row.

    Yields:
        The line where a row begins (1-based), and its cells without blanks around. The header comes first, and at least
        one row after it; all rows have the header's number of cells.

    Raises:
        InputError: the file cannot be opened, is not such a table, or has no row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            found = Faults() if faults is None else faults
            yield from _split_rows(path, file, found)
            if faults is None:
                found.refuse()
    except UnicodeDecodeError:
        raise _encoding_error(path) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Make it a readable file, or remove it.") from None


def _split_rows(path: Path, text: Iterable[str], faults: Faults) -> Iterator[tuple[int, list[str]]]:
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
                if len(cells) == width:
                    rows += 1
                    yield line, cells
                else:
                    what = (
                        f"received {len(cells)} cells, but the header has {width} (the row begins with "
                        f"{shown(cells[0])})"
                    )
                    remedy = 'Give the row one cell for each column; a cell that holds a comma needs quotes ("a, b").'
                    faults.add(Fault("table", path, what, remedy, line))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f'{path}, line {line}: {error}. Close the quote (") that begins in this row.') from None
    if not width:
        raise InputError(f"{path} is empty. Write a header and one row for each image, or remove the file.")
    if rows == 1 and not faults.count:
        raise InputError(f"{path} holds a header but no row. Write one row for each image, or remove the file.")


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
    """Whether a header cell names no column: it is blank, or what pandas writes for a blank one."""
    return _UNNAMED.fullmatch(name) is not None


def named(header: Iterable[str]) -> tuple[str, ...]:
    """Give the names of a header without the unnamed columns."""
    return tuple(name for name in header if not is_unnamed(name))


def shown(value: str) -> str:
    """Write a cell for a message: quoted, and cut if it is long."""
    if not value:
        return "a blank cell"
    return repr(value if len(value) <= _SHOWN_CHARACTERS else value[: _SHOWN_CHARACTERS - 3] + "...")


def listed(names: Sequence[str]) -> str:
    """Write names for a message: separated by commas, and cut if there are many."""
    return first_few([shown(name)[1:-1] for name in names], _SHOWN_NAMES) or "none"


def cell_fault(kind: str, path: Path, line: int, column: str, cell: str, remedy: str) -> Fault:
    """Make the fault of one cell; the remedy may begin with what is wrong."""
    return Fault(kind, path, f"received {shown(cell)}", remedy, line, column)
