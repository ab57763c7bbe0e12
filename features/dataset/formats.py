"""The formats in which a data set gives ids and labels. A new one is two functions here, and its line in FORMATS."""

from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from features.common.errors import InputError
from features.dataset.folder import read_ids, refuse_id, to_image_id
from features.dataset.table import (
    Fault,
    Faults,
    Table,
    cell_fault,
    is_unnamed,
    listed,
    named,
    read_rows,
    read_table,
    shown,
)

#: A label that is not known: its cell is not 0 or 1, or is missing.
UNKNOWN = 255
_VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
_ID, _LABEL = "ID", "Label"
# The label columns of the RSNA 2019 Intracranial Hemorrhage Detection challenge.
_RSNA_SUBTYPES = frozenset(("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any"))
_NO_ROW = 254
_KEPT_CELLS = 100


@dataclass(frozen=True)
class Source:
    """One split as it lies on the disk.

    Attributes:
        images: path of each image by its id; not empty.
        csv: where the split's CSV file is, if there is one.
        has_csv: whether there is one.
        id_column: name of the id column; None looks for it.
    """

    images: Mapping[str, Path]
    csv: Path
    has_csv: bool
    id_column: str | None


@dataclass(frozen=True)
class Column:
    """What may be a label: N cells.

    Attributes:
        name: the label's name.
        column: name of the column that holds its cells.
        values: N bytes: 0, 1, or UNKNOWN.
        likely: whether it is a label unless a person names others.
        refused: how many cells are neither 0 nor 1.
        first_refused: line and content of the first of these cells.
        faults: what else is wrong if it is a label.
        repeats: lines of the rows that repeat an earlier row with the same label.
    """

    name: str
    column: str
    values: bytes
    likely: bool
    refused: int
    first_refused: Sequence[tuple[int, str]]
    faults: tuple[Fault, ...] = ()
    repeats: Sequence[int] = ()


@dataclass(frozen=True)
class Listing:
    """The ids and cells of one split.

    Attributes:
        csv: the CSV file; None if there is none.
        image_ids: N ids, each once, in the order of the file.
        lines: N line numbers, 1-based, of the first row of each id.
        header: the CSV file's columns.
        id_column: name of the id column.
        table: N rows of cells, where groups may be; None if the format has none.
        read_columns: gives what may be a label. Who needs only ids does not call it.
        are_labels: whether the format says that these are labels, not only columns that may be.
        unnamed: columns without a name that hold anything.
    """

    csv: Path | None
    image_ids: Sequence[str]
    lines: Sequence[int] = ()
    header: tuple[str, ...] = ()
    id_column: str = ""
    table: Table | None = None
    read_columns: Callable[[], tuple[Column, ...]] = tuple
    are_labels: bool = False
    unnamed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: its name.
        description: what it looks like.
        recognises: whether a split is in this format.
        read: reads such a split; adds faults of ids, and looks at no label.
    """

    name: str
    description: str
    recognises: Callable[[Source], bool]
    read: Callable[[Source, Faults], Listing]


# Long: one row for each image and label


def _is_long(source: Source) -> bool:
    """Whether the header is ID,Label, and the ids name images once their last part ("_epidural") is removed.

    A file with one label that happens to be called "Label" has the same header; the images tell which it is.
    """
    if not source.has_csv:
        return False
    rows = read_rows(source.csv)
    _, header = next(rows)
    if named(header) != (_ID, _LABEL) or source.id_column not in (None, _ID):
        return False
    column = header.index(_ID)
    subtype = ""
    for _, cells in rows:
        cell = cells[column]
        if to_image_id(cell) in source.images:
            return False
        image, _, last = cell.rpartition("_")
        if to_image_id(image) in source.images:
            return True
        subtype = subtype or last
    return subtype in _RSNA_SUBTYPES  # no row has an image: the error will be about that, and should count right


class _Subtype:
    """The rows of one label of the long format, as they are read."""

    def __init__(self) -> None:
        self.values = bytearray()
        self.lines = array("q")
        self.refused = 0
        self.first_refused: list[tuple[int, str]] = []
        self.conflicts: list[Fault] = []
        self.repeats = array("q")

    def add(self, place: int, value: int, line: int, cell: str) -> tuple[int, int]:
        """Add the row of an image; return the value that the image had before, maybe _NO_ROW, and its line."""
        missing = place + 1 - len(self.values)
        if missing > 0:
            self.values.extend((_NO_ROW,) * missing)
            self.lines.extend((0,) * missing)
        if value == UNKNOWN:
            self.refused += 1
            if self.refused <= _KEPT_CELLS:
                self.first_refused.append((line, cell))
        earlier, earlier_line = self.values[place], self.lines[place]
        if earlier in (_NO_ROW, value):
            self.values[place], self.lines[place] = value, line
        return earlier, earlier_line


def _read_long(source: Source, faults: Faults) -> Listing:
    """Read a file in long format, a row at a time: the competition's has 4.5 million."""
    path = source.csv
    rows = read_rows(path)
    _, header = next(rows)
    id_column, label_column = (header.index(name) for name in (_ID, _LABEL))
    places: dict[str, int] = {}  # of each id
    places_of_cells: dict[str, int] = {}  # by the id as written, to read each once
    subtypes: defaultdict[str, _Subtype] = defaultdict(_Subtype)
    lines = array("q")
    for line, cells in rows:
        cell, _, name = cells[id_column].rpartition("_")
        if not cell or not name:
            remedy = "In the long format an id ends in its label: write ID_label, such as ID_63eb1e259_epidural."
            faults.add(cell_fault("id", path, line, _ID, cells[id_column], remedy))
            continue
        place = places_of_cells.get(cell)
        if place is None:
            if remedy := refuse_id(cell):
                faults.add(cell_fault("id", path, line, _ID, cell, remedy))
                continue
            place = places_of_cells[cell] = places.setdefault(to_image_id(cell), len(places))
            if place == len(lines):
                lines.append(line)
        label_cell, subtype = cells[label_column], subtypes[name]
        value = _VALUES.get(label_cell, UNKNOWN)
        if place == len(subtype.values) and value != UNKNOWN:  # nearly all rows
            subtype.values.append(value)
            subtype.lines.append(line)
            continue
        earlier, earlier_line = subtype.add(place, value, line, label_cell)
        if earlier == value != UNKNOWN:
            subtype.repeats.append(line)
        elif {earlier, value} == {0, 1}:
            remedy = (
                f"Line {earlier_line} has '{earlier}' for the same id and label ({cell}, {name}). Remove the wrong row."
            )
            subtype.conflicts.append(cell_fault("label", path, line, _LABEL, label_cell, remedy))
    read_columns = partial(_long_columns, path, tuple(places), lines, subtypes)
    return Listing(path, tuple(places), lines, tuple(header), _ID, read_columns=read_columns, are_labels=True)


def _long_columns(
    path: Path, image_ids: Sequence[str], lines: Sequence[int], subtypes: Mapping[str, _Subtype]
) -> tuple[Column, ...]:
    """Give the subtypes; they are labels if any cell of the file is 0 or 1: a sample submission has none."""
    likely = any(value in subtype.values for subtype in subtypes.values() for value in (0, 1))
    columns = []
    for name, subtype in subtypes.items():
        values = subtype.values.ljust(len(image_ids), bytes((_NO_ROW,)))
        faults = list(subtype.conflicts)
        if missing := values.count(_NO_ROW):
            first = values.index(_NO_ROW)
            what = (
                f"{missing} of {len(image_ids)} ids have no row for {listed([name])} (first: {shown(image_ids[first])} "
                f"in line {lines[first]})"
            )
            faults.append(Fault("label", path, what, "Add the rows, or remove all rows of such ids."))
        known = bytes(values).replace(bytes((_NO_ROW,)), bytes((UNKNOWN,)))
        columns.append(
            Column(name, _LABEL, known, likely, subtype.refused, subtype.first_refused, tuple(faults), subtype.repeats)
        )
    return tuple(columns)


# Wide: one row for each image, one column for each label


def _is_wide(source: Source) -> bool:
    return source.has_csv


def _read_wide(source: Source, faults: Faults) -> Listing:
    """Read a file with one row for each image."""
    table = read_table(source.csv)
    column = _find_id_column(table, source)
    rows = read_ids(table, column, faults)
    table = table.keep(tuple(rows.values()))
    return Listing(
        table.path,
        tuple(rows),
        table.lines,
        table.header,
        table.header[column],
        table,
        read_columns=partial(_wide_columns, table, column),
        unnamed=tuple(
            f"column {place} (no name)"
            for place, (name, cells) in enumerate(zip(table.header, table.columns, strict=True), start=1)
            # The first one is an index, as pandas writes it.
            if is_unnamed(name) and place > 1 and place != column + 1 and any(cells)
        ),
    )


def _find_id_column(table: Table, source: Source) -> int:
    """Find the index of the id column by the name asked for, by the default name, or by the images."""
    names = named(table.header)
    if source.id_column is not None:
        if source.id_column not in table.header:
            raise InputError(
                f"{table.path} has no column {shown(source.id_column)}. Its columns: {listed(names)}. "
                "Name one of them with --id-column."
            )
        return table.find(source.id_column)
    if _ID in names:
        return table.find(_ID)
    alike = [name for name in names if name.casefold() == _ID.casefold()]
    if len(set(alike)) > 1:
        raise InputError(
            f"{table.path}: each of the columns {listed(alike)} may hold the ids. Name one of them with --id-column."
        )
    if alike:
        return table.find(alike[0])
    for name, column in zip(table.header, table.columns, strict=True):
        # Most, not all: a few missing images must be reported as such.
        if not is_unnamed(name) and 2 * sum(to_image_id(cell) in source.images for cell in column) >= len(column):
            return table.find(name)
    raise InputError(
        f"{table.path} has no id column: none is called {_ID}, and none names the images (such as "
        f"{shown(min(source.images))}). Its columns: {listed(names)}. Name the right one with --id-column."
    )


def _wide_columns(table: Table, id_column: int) -> tuple[Column, ...]:
    """Give the named columns but the ids. One is likely a label if at least half of its filled cells are 0 or 1."""
    columns = []
    for place, (name, cells) in enumerate(zip(table.header, table.columns, strict=True)):
        if place == id_column or is_unnamed(name):
            continue
        values = bytes([_VALUES.get(cell, UNKNOWN) for cell in cells])
        known = len(values) - values.count(UNKNOWN)
        # Of the filled ones: a label that few rows have yet is a label.
        likely = bool(known) and 2 * known >= len(cells) - cells.count("")
        refused = [row for row, value in enumerate(values) if value == UNKNOWN]
        first = [(table.lines[row], cells[row]) for row in refused[:_KEPT_CELLS]]
        columns.append(Column(name, name, values, likely, len(refused), first))
    return tuple(columns)


# Images alone


def _read_images(source: Source, faults: Faults) -> Listing:
    """List the images, sorted: there are no labels."""
    return Listing(None, sorted(source.images))


#: The first that recognises a split reads it.
FORMATS = (
    Format("long", "a CSV file with a row for each image and label: ID,Label (RSNA 2019)", _is_long, _read_long),
    Format("wide", "a CSV file with a row for each image and a column for each label", _is_wide, _read_wide),
    Format("images", "a folder of images without a CSV file: no labels", lambda source: True, _read_images),
)


def read_listing(source: Source, faults: Faults) -> Listing:
    """Read ids and cells of a split, in the first format that recognises it.

    Raises:
        InputError: the CSV file is not a readable table, or has no id column, or several.
    """
    return next(form for form in FORMATS if form.recognises(source)).read(source, faults)
