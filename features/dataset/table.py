"""Read a table cell by cell, as spreadsheets and scripts leave it, with the line number that an editor shows."""

import codecs
import csv
import gzip
import io
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from features.common.errors import InputError
from features.dataset.faults import Fault, Faults, shown

#: Endings of the tables that are read; `.gz` may follow those of text.
TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")
#: Between the cells of a row, in the order in which they are tried.
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# What pandas calls a column without a header ("Unnamed: 0"), also after a second round ("Unnamed: 0.1").
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_UNNAMED = re.compile(r"(Unnamed: \d+(\.\d+)*)?")
# The first line of a file that Excel opens with the separator that it names.
_SEP_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
#: Rows by which the separator is recognised.
_SNIFFED_ROWS = 20
#: What a compressed table may hold: more than that is a mistake, or harm.
_MOST_BYTES = 1 << 30
#: Files that are no tables, by how they begin.
_OTHERS = {
    b"PAR1": "a Parquet file",
    b"\xd0\xcf\x11\xe0": "a workbook of Excel 97 to 2003 (.xls)",
    b"%PDF": "a PDF file",
    b"\x89PNG": "a PNG image",
}


@dataclass(frozen=True)
class Table:
    """The cells of one table.

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

    def cells(self, name: str) -> list[str]:
        """The cells of a column of the header; see `find`."""
        return self.columns[self.find(name)]

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
        if list(rows) == list(range(len(self.lines))):
            return self
        columns = tuple([column[row] for row in rows] for column in self.columns)
        return Table(self.path, self.header, columns, [self.lines[row] for row in rows])


def read_table(path: Path, faults: Faults | None = None) -> Table:
    """Read a whole table, at least one row; see `read_rows`."""
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
    """Read a table row by row; blank lines are skipped, and a quoted cell may span lines.

    Args:
        path: a text file of cells separated by commas, semicolons, tabs or bars, in UTF-8, UTF-16 or Latin-1, maybe
            compressed by gzip; lines before the header may be comments (`#`) or Excel's `sep=;`. Or a workbook of
            Excel (.xlsx), of which the first sheet is read.
        faults: gets the rows with too many or too few cells, which are left out, and notes of what was recognised;
            None refuses such rows after the last one.

    Yields:
        The line where a row begins (1-based), and its cells without blanks around. The header comes first, and at least
        one row after it; all rows have the header's number of cells.

    Raises:
        InputError: the file cannot be opened, is not such a table, or has no row.
    """
    found = Faults() if faults is None else faults
    try:
        content = path.read_bytes()
        yield from _check_rows(path, _read_cells(path, content, found), found)
    except (OSError, EOFError, zlib.error, MemoryError) as error:  # the latter three: what claims to be compressed
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read: {reason}. Make it a readable file, or name another.") from None
    if faults is None:
        found.refuse()


def _read_cells(path: Path, content: bytes, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """Read the rows of a table as they are."""
    if content.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise InputError(
                f"{path} holds more than {_MOST_BYTES >> 30} GB of text. Give the table of these images alone."
            )
    if content.startswith(b"PK\x03\x04"):
        return _read_workbook(path, content, faults)
    for start, kind in _OTHERS.items():
        if content.startswith(start):
            raise InputError(f"{path} is {kind}, which is not read. Save the table as CSV (UTF-8) or as .xlsx.")
    return _split_rows(path, _decode(path, content, faults), faults)


def _decode(path: Path, content: bytes, faults: Faults) -> str:
    """Decode the text of a table: by its byte order mark, as UTF-8, as UTF-16 without a mark, or as Windows-1252."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        names = ["utf-16"]
    elif b"\0" in content[:1000]:
        names = ["utf-16-le" if content[1:2] == b"\0" else "utf-16-be"]
    else:
        names = ["utf-8-sig", "cp1252", "latin-1"]
    for name in names:
        try:
            text = content.decode(name)
        except UnicodeDecodeError:
            continue
        if name != "utf-8-sig":
            known = {"cp1252": "Latin-1 (Windows-1252), for it is not UTF-8", "latin-1": "Latin-1, for it is not UTF-8"}
            faults.warnings.append(
                f"{path}: read as {known.get(name, 'UTF-16')}. Where accents are wrong, save it as UTF-8."
            )
        if "\0" in text:
            line = text[: text.index("\0")].count("\n") + 1
            raise InputError(f"{path}, line {line}: received a NUL byte. Save the table as CSV (UTF-8).")
        return text
    raise InputError(f"{path} is not text in UTF-16, as its first bytes say. Save it as UTF-8.")


def _split_rows(path: Path, text: str, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """Split text into rows and cells, by the separator that it shows."""
    lines = io.StringIO(text, newline="")
    skipped, separator, start, comment, line = 0, "", 0, "", ""
    for line in lines:  # before the header
        named_separator = _SEP_LINE.fullmatch(line.rstrip("\r\n"))
        if line.strip() and not named_separator and not line.startswith("#"):
            break
        if named_separator:
            separator = named_separator[1]
        skipped, start, comment = skipped + 1, start + len(line), line
    else:
        skipped, start, comment = 0, 0, ""  # where every line begins so, none is a comment
    separator = separator or _recognise_separator(text[start:])
    if _is_header(comment, line, separator):
        faults.notes.append(f"{path}: line {skipped} is the header, without its {comment[0]}")
        skipped, start = skipped - 1, start - len(comment) + 1
    if separator != ",":
        faults.notes.append(f"{path}: cells are separated by {_SEPARATORS.get(separator, repr(separator))}")
    exhausted = False

    def rest() -> Iterator[str]:
        nonlocal exhausted
        lines.seek(start)
        yield from lines
        exhausted = True

    reader = csv.reader(rest(), delimiter=separator, skipinitialspace=True)
    line_number = skipped + 1
    try:
        for cells in reader:
            if exhausted:  # the reader asked for one line more than there is: it is still inside a quoted cell
                raise csv.Error("a quoted cell does not end")
            yield line_number, cells
            line_number = skipped + reader.line_num + 1
    except csv.Error as error:
        raise InputError(f'{path}, line {line_number}: {error}. Close the quote (") that begins in this row.') from None


def _is_header(comment: str, row: str, separator: str) -> bool:
    """Whether a comment above a row is a header (`#ID,a`): as many cells, each a word and no number.

    After a blank (`# ID,a`), as numpy writes it, only above a row with a number: else the row is the header.
    """
    if not comment.startswith("#"):
        return False
    names, cells = (next(csv.reader([line], delimiter=separator), []) for line in (comment[1:], row))
    if len(names) != len(cells) or len(names) < 2 or any(len(name.split()) != 1 or _is_number(name) for name in names):
        return False
    return not comment[1].isspace() or any(map(_is_number, cells))


def _is_number(cell: str) -> bool:
    """Whether a cell is a number."""
    return re.fullmatch(r"\s*[-+]?\d+([.,]\d+)?\s*", cell) is not None


def _recognise_separator(text: str) -> str:
    """Find what separates the cells of a table: what gives its first rows the same number of cells, and the most."""
    best, most = ",", 1
    for separator in _SEPARATORS:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        widths = set()
        try:
            for row, _ in zip(rows, range(_SNIFFED_ROWS), strict=False):
                # A quote within a cell shows that the cell began before it.
                widths |= {0 if any('"' in cell for cell in row) else len(row)} if any(row) else set()
        except csv.Error:
            continue
        # A row of another width is a fault to name, so that the header counts where no separator fits all.
        first = max(widths) if len(widths) == 1 else 0
        if first > most:
            best, most = separator, first
    if most > 1:
        return best
    header = next((line for line in text.splitlines() if line.strip()), "")
    counts = {separator: header.count(separator) for separator in _SEPARATORS}
    return "," if counts[","] or not any(counts.values()) else max(counts, key=counts.__getitem__)


def _read_workbook(path: Path, content: bytes, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """Read the rows of the first sheet of a workbook of Excel, whatever the file is called."""
    import openpyxl  # type: ignore[import-untyped]

    try:
        workbook = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheets = workbook.worksheets
        if len(sheets) > 1:
            others = ", ".join(sheet.title for sheet in sheets[1:])
            faults.warnings.append(f"{path}: the sheet {sheets[0].title} is read, the others are not: {others}")
        for line, row in enumerate(sheets[0].iter_rows(values_only=True), start=1):
            yield line, [_write_cell(value) for value in row]
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - openpyxl raises what it meets: KeyError, BadZipFile, ParseError, ...
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read as a workbook of Excel: {reason}. Save the table as CSV.") from None


def _write_cell(value: Any) -> str:
    """Write what a cell of a workbook holds as a CSV file would: whole numbers without `.0`."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value).removesuffix(" 00:00:00")  # a date is stored as the moment it begins at


def _check_rows(path: Path, rows: Iterable[tuple[int, list[str]]], faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """Strip the cells, skip blank rows, and give every row the header's width."""
    width = count = 0
    for line, raw in rows:
        cells = [normalize("NFC", cell).strip() for cell in raw]
        if not any(cells):  # as spreadsheets leave them below a table
            continue
        if not width and len(cells) > 2 and cells[0] and not any(cells[1:]):
            faults.notes.append(f"{path}: line {line} is passed over, as a title: {shown(cells[0])}")
            continue
        if not width:
            width = len(cells)
        if len(cells) == width:
            count += 1
            yield line, cells
        else:
            what = f"received {len(cells)} cells, but the header has {width} (the row begins with {shown(cells[0])})"
            remedy = 'Give the row one cell for each column; a cell that holds a comma needs quotes ("a, b").'
            faults.add(Fault("table", path, what, remedy, line))
    if not width:
        raise InputError(f"{path} is empty. Write a header and one row for each image, or remove the file.")
    if count == 1 and not faults.count:
        raise InputError(f"{path} holds a header but no row. Write one row for each image, or remove the file.")


def words_of(name: str) -> set[str]:
    """Take the words of a name apart, in small letters: `stage_2_trainLabels` gives stage, train and labels."""
    return {word.lower() for word in _WORD.findall(name)}


def is_unnamed(name: str) -> bool:
    """Whether a header cell names no column: it is blank, or what pandas writes for a blank one."""
    return _UNNAMED.fullmatch(name) is not None


def named(header: Iterable[str]) -> tuple[str, ...]:
    """Give the names of a header without the unnamed columns."""
    return tuple(name for name in header if not is_unnamed(name))
