"""The formats in which a data set gives ids and labels. A new one is a function here, and its line in FORMATS."""

from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from features.common.arrays import UNKNOWN
from features.common.errors import InputError
from features.dataset.folder import read_ids, refuse_id, to_image_id
from features.dataset.table import (
    KEPT_FAULTS,
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

_VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
_ID, _LABEL = "ID", "Label"
# The label columns of the RSNA 2019 Intracranial Hemorrhage Detection challenge.
_RSNA_SUBTYPES = frozenset(("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any"))


@dataclass(frozen=True)
class Column:
    """What may be a label: N cells.

    Attributes:
        column: name of the column that holds its cells.
        values: uint8 (N,): 0, 1, or UNKNOWN.
        likely: whether it is a label unless a person names others.
        refused: how many cells are neither 0 nor 1.
        first_refused: line and content of the first of these cells.
        faults: what else is wrong if it is a label.
        repeats: lines of the rows that repeat an earlier row with the same label.
    """

    column: str
    values: np.ndarray
    likely: bool
    refused: int
    first_refused: Sequence[tuple[int, str]]
    faults: tuple[Fault, ...] = ()
    repeats: Sequence[int] = ()


@dataclass(frozen=True)
class Listing:
    """The ids and cells of one split.

    Attributes:
        csv: where the split's CSV file is, if there is one.
        image_ids: N ids, each once, in the order of the file.
        lines: N line numbers, 1-based, of the first row of each id.
        header: the CSV file's columns; () if there is no file.
        id_column: name of the id column.
        table: N rows of cells, where groups may be; None if the format has none.
        columns: what may be a label, by the label's name.
        are_labels: whether the format says that these are labels, not only columns that may be.
        unnamed: columns without a name that hold anything.
    """

    csv: Path
    image_ids: Sequence[str]
    lines: Sequence[int] = ()
    header: tuple[str, ...] = ()
    id_column: str = ""
    table: Table | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    are_labels: bool = False
    unnamed: tuple[str, ...] = ()


def _is_long(csv: Path, images: Collection[str], id_column: str | None) -> bool:
    """Whether the header is ID,Label, and the ids name images once their last part ("_epidural") is removed.

    A file with one label that happens to be called "Label" has the same header; the images tell which it is.
    """
    rows = read_rows(csv, Faults())  # they are noted when it is read
    _, header = next(rows)
    if named(header) != (_ID, _LABEL) or id_column not in (None, _ID):
        return False
    column = header.index(_ID)
    subtype = ""
    for _, cells in rows:
        cell = cells[column]
        if to_image_id(cell) in images:
            return False
        image, _, last = cell.rpartition("_")
        if to_image_id(image) in images:
            return True
        subtype = subtype or last
    return subtype in _RSNA_SUBTYPES  # no row has an image: the error will be about that, and should count right


def _read_long(csv: Path, images: Collection[str], id_column: str | None, faults: Faults) -> Listing | None:
    """Read a row for each image and label, one at a time: the file of the RSNA 2019 competition has 4.5 million."""
    if not _is_long(csv, images, id_column):
        return None
    rows = read_rows(csv, faults)
    _, header = next(rows)
    id_place, label_place = (header.index(name) for name in (_ID, _LABEL))
    places: dict[str, int] = {}  # of each id
    places_of_cells: dict[str, int] = {}  # by the id as written, to read each once
    subtypes: dict[str, int] = {}
    first_lines = array("q")
    refused: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    row_places, row_subtypes, row_lines, row_values = array("i"), array("i"), array("i"), array("B")
    for line, cells in rows:
        cell, _, name = cells[id_place].rpartition("_")
        if not cell or not name:
            remedy = "In the long format an id ends in its label: write ID_label, such as ID_63eb1e259_epidural."
            faults.add(cell_fault("id", csv, line, _ID, cells[id_place], remedy))
            continue
        place = places_of_cells.get(cell)
        if place is None:
            if remedy := refuse_id(cell):
                faults.add(cell_fault("id", csv, line, _ID, cell, remedy))
                continue
            place = places_of_cells[cell] = places.setdefault(to_image_id(cell), len(places))
            if place == len(first_lines):
                first_lines.append(line)
        value = _VALUES.get(cells[label_place], UNKNOWN)
        if value == UNKNOWN and len(refused[name]) < KEPT_FAULTS:
            refused[name].append((line, cells[label_place]))
        row_places.append(place)
        row_subtypes.append(subtypes.setdefault(name, len(subtypes)))
        row_lines.append(line)
        row_values.append(value)
    listing = Listing(csv, tuple(places), first_lines, tuple(header), _ID, are_labels=True)
    of_rows = [np.asarray(column) for column in (row_places, row_subtypes, row_lines, row_values)]
    return replace(listing, columns=_long_columns(listing, tuple(subtypes), refused, of_rows))


def _long_columns(
    listing: Listing,
    names: Sequence[str],
    refused: Mapping[str, Sequence[tuple[int, str]]],
    of_rows: Sequence[np.ndarray],
) -> dict[str, Column]:
    """Give the subtypes; they are labels if any cell of the file is 0 or 1: a sample submission has none.

    Of each row come the places of id and subtype, the line, and the value: int32, int32, int32, uint8 (R,).
    """
    places, subtypes, lines, values = of_rows
    image_ids = listing.image_ids
    rows, keys = np.arange(len(values)), places.astype(np.int64) * len(names) + subtypes
    first = np.full(len(image_ids) * len(names), -1)
    first[keys[::-1]] = rows[::-1]  # of equal keys the last one assigned stays: the first row
    earlier = first[keys]
    repeated = (earlier < rows) & (values == values[earlier]) & (values != UNKNOWN)
    contradicting = values ^ values[earlier] == 1  # 0 and 1
    known = np.where(first < 0, np.uint8(UNKNOWN), values[first]).reshape(len(image_ids), len(names))
    missing = (first < 0).reshape(known.shape)
    columns = {}
    for number, name in enumerate(names):
        own = subtypes == number
        faults = []
        for row in np.flatnonzero(contradicting & own).tolist():
            before = earlier[row]
            remedy = (
                f"Line {lines[before]} has '{values[before]}' for the same id and label "
                f"({image_ids[places[row]]}, {name}). Remove the wrong row."
            )
            faults.append(cell_fault("label", listing.csv, int(lines[row]), _LABEL, str(values[row]), remedy))
        if count := int(missing[:, number].sum()):
            place = int(missing[:, number].argmax())
            what = (
                f"{count} of {len(image_ids)} ids have no row for {listed([name])} (first: {shown(image_ids[place])} "
                f"in line {listing.lines[place]})"
            )
            faults.append(Fault("label", listing.csv, what, "Add the rows, or remove all rows of such ids."))
        columns[name] = Column(
            _LABEL,
            known[:, number],
            bool((known != UNKNOWN).any()),
            int((values[own] == UNKNOWN).sum()),
            refused.get(name, ()),
            tuple(faults),
            lines[repeated & own].tolist(),
        )
    return columns


def _read_wide(csv: Path, images: Collection[str], id_column: str | None, faults: Faults) -> Listing:
    """Read a row for each image, with a column for each label: 0 or 1 in at least half of the filled cells."""
    table = read_table(csv, faults)
    id_place = _find_id_column(table, images, id_column)
    rows = read_ids(table, id_place, faults)
    table = table.keep(tuple(rows.values()))
    columns, unnamed = {}, []
    for place, (name, cells) in enumerate(zip(table.header, table.columns, strict=True)):
        if place == id_place:
            continue
        if is_unnamed(name):
            if place > 0 and any(cells):  # the first one is an index, as pandas writes it
                unnamed.append(f"column {place + 1} (no name)")
            continue
        values = np.array([_VALUES.get(cell, UNKNOWN) for cell in cells], np.uint8)
        refused = np.flatnonzero(values == UNKNOWN).tolist()
        known = len(values) - len(refused)
        # Of the filled ones: a label that few rows have yet is a label.
        likely = bool(known) and 2 * known >= len(cells) - cells.count("")
        first_refused = [(table.lines[row], cells[row]) for row in refused[:KEPT_FAULTS]]
        columns[name] = Column(name, values, likely, len(refused), first_refused)
    header, name = table.header, table.header[id_place]
    return Listing(csv, tuple(rows), table.lines, header, name, table, columns, unnamed=tuple(unnamed))


def _find_id_column(table: Table, images: Collection[str], wanted: str | None) -> int:
    """Find the index of the id column by the name asked for, by the default name, or by the images."""
    names = named(table.header)
    if wanted is not None:
        if wanted not in table.header:
            raise InputError(
                f"{table.path} has no column {shown(wanted)}. Its columns: {listed(names)}. "
                "Name one of them with --id-column."
            )
        return table.find(wanted)
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
        if not is_unnamed(name) and 2 * sum(to_image_id(cell) in images for cell in column) >= len(column):
            return table.find(name)
    raise InputError(
        f"{table.path} has no id column: none is called {_ID}, and none names the images (such as "
        f"{shown(min(images))}). Its columns: {listed(names)}. Name the right one with --id-column."
    )


#: By name; the first that recognises a file reads it, the others give None.
FORMATS: dict[str, Callable[[Path, Collection[str], str | None, Faults], Listing | None]] = {
    "long": _read_long,
    "wide": _read_wide,
}


def read_listing(csv: Path, images: Collection[str], id_column: str | None, faults: Faults) -> Listing:
    """Read ids and cells of a split, in the first format that recognises its CSV file.

    Args:
        csv: the file.
        images: ids of the split's images, at least one.
        id_column: name of the id column; None looks for it.
        faults: gets what is wrong with ids.

    Raises:
        InputError: the CSV file is not a readable table, or has no id column, or several.
    """
    listings = (read(csv, images, id_column, faults) for read in FORMATS.values())
    return next(listing for listing in listings if listing is not None)
