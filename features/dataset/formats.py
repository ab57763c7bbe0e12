"""The formats in which a table gives ids and labels. A new one is a function here, and its line in FORMATS."""

import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from features.common.arrays import UNKNOWN
from features.dataset.faults import KEPT_FAULTS, Fault, Faults, cell_fault, listed, shown
from features.dataset.folder import refuse_id, to_image_id
from features.dataset.ids import ID, NO_IMAGE, Joined, Pool, counts_rows, find_ids, keep_first
from features.dataset.table import Table, is_unnamed, named, read_rows, read_table

_VALUES = {
    **dict.fromkeys(("0", "no", "n", "false", "negative", "falsch", "nein", "faux", "non", "falso"), 0),
    **dict.fromkeys(("1", "yes", "y", "true", "positive", "wahr", "ja", "vrai", "oui", "vero", "sí", "si"), 1),
}
#: What stands for a label that is not known; CheXpert writes -1 where a report is not certain.
_NOT_KNOWN = frozenset(("", "nan", "na", "n/a", "null", "?", "unknown"))
_UNCERTAIN = -1.0
_NUMBER = re.compile(r"[+-]?\d+([.,]\d*)?")
#: A cell that is not a label: neither 0 nor 1, nor what stands for a label that is not known.
_REFUSED = 254
_LABEL = "Label"
# The label columns of the RSNA 2019 Intracranial Hemorrhage Detection challenge.
_RSNA_SUBTYPES = frozenset(("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any"))


@dataclass(frozen=True)
class Column:
    """What may be a label: N cells.

    Attributes:
        column: name of the column that holds its cells.
        values: uint8 (N,): 0, 1, or UNKNOWN.
        likely: whether it is a label unless a person names others.
        refused: how many cells are neither 0 nor 1, nor stand for a label that is not known.
        first_refused: line and content of the first of these cells.
        unknown: line and content of the first cells of labels that are not known.
        uncertain: how many cells say that the label is not certain (-1), where others are blank.
        faults: what else is wrong if it is a label.
        repeats: lines of the rows that repeat an earlier row with the same label.
        spelling: how 0 and 1 are written, where that is in words: `False/True`.
        remedy: what to do about a refused cell, as sentences.
    """

    column: str
    values: np.ndarray
    likely: bool
    refused: int
    first_refused: Sequence[tuple[int, str]]
    unknown: Sequence[tuple[int, str]] = ()
    uncertain: int = 0
    faults: tuple[Fault, ...] = ()
    repeats: Sequence[int] = ()
    spelling: str = ""
    remedy: str = "A label is 0 or 1: correct the cell, or name the label columns with --labels."


@dataclass(frozen=True)
class Listing:
    """The ids and cells of one table: N rows of different images.

    Attributes:
        path: the table; where there is none, the folder of the images.
        images: int64 (N,): which image of the pool each row names, or `NO_IMAGE`.
        image_ids: N ids, as messages show them.
        lines: N line numbers, 1-based, of the first row of each id.
        header: the table's columns; () if there is none.
        joined: how the table's rows were joined with images; None where nothing had to be found.
        table: N rows of cells, where groups may be; None if the format has none.
        columns: what may be a label, by the label's name.
        are_labels: whether the format says that these are labels, not only columns that may be.
        unnamed: columns without a name that hold anything.
    """

    path: Path
    images: np.ndarray
    image_ids: Sequence[str]
    lines: Sequence[int] = ()
    header: tuple[str, ...] = ()
    joined: Joined | None = None
    table: Table | None = None
    columns: dict[str, Column] = field(default_factory=dict)
    are_labels: bool = False
    unnamed: tuple[str, ...] = ()

    def keep(self, rows: Sequence[int]) -> "Listing":
        """Some of the rows, as if the table held no others."""
        table = self.table
        if table is not None and self.joined is not None:
            table = table.keep(rows)
            columns, _ = _read_columns(table, self.joined)
        else:
            columns = {name: replace(column, values=column.values[rows]) for name, column in self.columns.items()}
        return replace(
            self,
            images=self.images[rows],
            image_ids=[self.image_ids[row] for row in rows],
            lines=[self.lines[row] for row in rows],
            table=table,
            columns=columns,
        )

    @property
    def id_column(self) -> str:
        """The name of the id column; "" where there is no table."""
        return self.joined.name if self.joined else (ID if self.header else "")


def read_value(cell: str) -> int:
    """Read a label: 0, 1, `UNKNOWN`, or something else where the cell is not a label."""
    known = _VALUES.get(cell)
    if known is not None:
        return known
    word = cell.lower()
    if word in _NOT_KNOWN:
        return UNKNOWN
    if _NUMBER.fullmatch(cell):
        number = float(cell.replace(",", "."))
        return int(number) if number in (0, 1) else UNKNOWN if number == _UNCERTAIN else _REFUSED
    return _VALUES.get(word, _REFUSED)


def is_unknown(cell: str) -> bool:
    """Whether a cell stands for what is not known."""
    return cell.lower() in _NOT_KNOWN


def _is_long(csv: Path, pool: Pool, id_column: str | None) -> bool:
    """Whether the header is ID,Label, and the ids name images once their last part ("_epidural") is removed.

    A file with one label that happens to be called "Label" has the same header; the images tell which it is.
    """
    rows = read_rows(csv, Faults())  # they are noted when it is read
    _, header = next(rows)
    if named(header) != (ID, _LABEL) or id_column not in (None, ID):
        return False
    column = header.index(ID)
    subtype = ""
    for _, cells in rows:
        cell = cells[column]
        if to_image_id(cell) in pool.by_id:
            return False
        image, _, last = cell.rpartition("_")
        if to_image_id(image) in pool.by_id:
            return True
        subtype = subtype or last
    return subtype in _RSNA_SUBTYPES  # no row has an image: the error will be about that, and should count right


def _read_long(csv: Path, pool: Pool, id_column: str | None, faults: Faults) -> Listing | None:
    """Read a row for each image and label, one at a time: the file of the RSNA 2019 competition has 4.5 million."""
    if not _is_long(csv, pool, id_column):
        return None
    rows = read_rows(csv, faults)
    _, header = next(rows)
    id_place, label_place = (header.index(name) for name in (ID, _LABEL))
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
            faults.add(cell_fault("id", csv, line, ID, cells[id_place], remedy))
            continue
        place = places_of_cells.get(cell)
        if place is None:
            if remedy := refuse_id(cell):
                faults.add(cell_fault("id", csv, line, ID, cell, remedy))
                continue
            place = places_of_cells[cell] = places.setdefault(to_image_id(cell), len(places))
            if place == len(first_lines):
                first_lines.append(line)
        value = read_value(cells[label_place])
        if value == _REFUSED and len(refused[name]) < KEPT_FAULTS:
            refused[name].append((line, cells[label_place]))
        row_places.append(place)
        row_subtypes.append(subtypes.setdefault(name, len(subtypes)))
        row_lines.append(line)
        row_values.append(value)
    images = np.array([pool.by_id.get(image_id, NO_IMAGE) for image_id in places], np.int64)
    listing = Listing(csv, images, tuple(places), first_lines, tuple(header), are_labels=True)
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
    image_ids, wrong = listing.image_ids, values == _REFUSED
    blank = (values == UNKNOWN) & ~wrong
    values = np.where(wrong, np.uint8(UNKNOWN), values)
    rows, keys = np.arange(len(values)), places.astype(np.int64) * len(names) + subtypes
    first = np.full(len(image_ids) * len(names), -1)
    for own in (rows, rows[values != UNKNOWN]):  # a row that says something goes before a blank one
        first[keys[own[::-1]]] = own[::-1]  # of equal keys the last one assigned stays: the first row
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
            faults.append(cell_fault("label", listing.path, int(lines[row]), _LABEL, str(values[row]), remedy))
        if count := int(missing[:, number].sum()):
            place = int(missing[:, number].argmax())
            what = (
                f"{count} of {len(image_ids)} ids have no row for {listed([name])} (first: {shown(image_ids[place])} "
                f"in line {listing.lines[place]})"
            )
            faults.append(Fault("label", listing.path, what, "Add the rows, or remove all rows of such ids."))
        columns[name] = Column(
            _LABEL,
            known[:, number],
            bool((known != UNKNOWN).any()),
            int(wrong[own].sum()),
            refused.get(name, ()),
            [(int(line), "") for line in lines[blank & own][:KEPT_FAULTS]],
            faults=tuple(faults),
            repeats=lines[repeated & own].tolist(),
        )
    return columns


def _read_wide(path: Path, pool: Pool, id_column: str | None, faults: Faults) -> Listing:
    """Read a row for each image; a column may be a label if at least half of its known cells are 0 or 1, or words."""
    table = read_table(path, faults)
    joined = find_ids(table, pool, id_column)
    places = [None if image == NO_IMAGE else pool.places[image] for image in joined.images.tolist()]
    rows = keep_first(table, joined.column, places, faults)
    table, images = table.keep(rows), joined.images[rows]
    columns, unnamed = _read_columns(table, joined)
    ids = [
        pool.image_ids[image] if image != NO_IMAGE else to_image_id(cell)
        for image, cell in zip(images.tolist(), table.columns[joined.column], strict=True)
    ]
    return Listing(path, images, ids, table.lines, table.header, joined, table, columns, unnamed=unnamed)


def _read_columns(table: Table, joined: Joined) -> tuple[dict[str, Column], tuple[str, ...]]:
    """Read all columns but the ids as labels; and list the columns without a name that hold anything."""
    columns, unnamed = dict[str, Column](), list[str]()
    for place, (name, cells) in enumerate(zip(table.header, table.columns, strict=True)):
        if place == joined.column:
            continue
        if is_unnamed(name):
            if place > 0 and any(cells):  # the first one is an index, as pandas writes it
                unnamed.append(f"column {place + 1} (no name)")
            continue
        column = _read_column(name, cells, table.lines)
        # What names images, or counts rows, is not a label, even where there are but two.
        counts = name in joined.others or (len(cells) > 2 and counts_rows(cells))
        columns[name] = replace(column, likely=column.likely and not counts)
    return columns, tuple(unnamed)


def _read_column(name: str, cells: Sequence[str], lines: Sequence[int]) -> Column:
    """Read the N cells of a column as labels."""
    meanings = {cell: read_value(cell) for cell in set(cells)}
    words = [cell for cell, value in meanings.items() if value in (0, 1) and not _NUMBER.fullmatch(cell)]
    numbers = [cell for cell, value in meanings.items() if value in (0, 1) and _NUMBER.fullmatch(cell)]
    if words and not numbers and (len(words) < 2 or _REFUSED in meanings.values()):
        meanings |= dict.fromkeys(words, _REFUSED)  # "n" may be north, or a name
        words = []
    values = np.array([meanings[cell] for cell in cells], np.uint8)
    refused, unknown = np.flatnonzero(values == _REFUSED).tolist(), np.flatnonzero(values == UNKNOWN).tolist()
    values[refused] = UNKNOWN
    known = len(values) - len(refused) - len(unknown)
    # Of the filled ones: a label that few rows have yet is a label.
    likely = bool(known) and 2 * known >= len(cells) - len(unknown)
    uncertain = {cell for cell, value in meanings.items() if value == UNKNOWN and _NUMBER.fullmatch(cell)}
    return Column(
        name,
        values,
        likely,
        len(refused),
        [(lines[row], cells[row]) for row in refused[:KEPT_FAULTS]],
        [(lines[row], cells[row]) for row in unknown[:KEPT_FAULTS]],
        sum(cell in uncertain for cell in cells) if uncertain else 0,
        spelling="/".join(sorted(words, key=meanings.__getitem__)),
    )


#: By name; the first that recognises a file reads it, the others give None.
FORMATS: dict[str, Callable[[Path, Pool, str | None, Faults], Listing | None]] = {
    "long": _read_long,
    "wide": _read_wide,
}


def read_listing(path: Path, pool: Pool, id_column: str | None, faults: Faults) -> Listing:
    """Read ids and cells of a table, in the first format that recognises it.

    Args:
        path: the file.
        pool: the images that it may name, at least one.
        id_column: name of the id column; None looks for it.
        faults: gets what is wrong with ids.

    Raises:
        InputError: the file is not a readable table, or has no id column, or several.
    """
    listings = (read(path, pool, id_column, faults) for read in FORMATS.values())
    return next(listing for listing in listings if listing is not None)
