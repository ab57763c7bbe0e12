"""Join the rows of a table with images: which column names them, and what its cells have to lose to do so."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from features.common.errors import InputError
from features.dataset.faults import Faults, cell_fault, listed, shown
from features.dataset.folder import has_image_suffix, refuse_id, to_image_id
from features.dataset.table import Table, is_unnamed, named, words_of

#: The name of the id column that Headbank writes, and goes by where no image tells better.
ID = "ID"
#: A row that names no image.
NO_IMAGE = -1
#: What spreadsheets make of a long number.
_SCIENTIFIC = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)
#: Columns that are tried by every way of writing an id; more are data.
_TRIED_COLUMNS = 40
_NUMBER = re.compile(r"0*(\d+)(?:[.]0+)?")
#: Cells of a column by which it is seen whether it may name images.
_LOOKED_AT = 200
#: Words of columns that name images, and of those that name whom they are of.
_OF_IMAGES = frozenset(["id", "image", "images", "img", "file", "filename", "name", "path", "slice", "key"])
_OF_OWNERS = frozenset(["patient", "subject", "participant", "person", "case", "study", "exam", "series"])


@dataclass(frozen=True)
class Pool:
    """The images that a table may name, M of them.

    Attributes:
        image_ids: M ids, each relative to its folder.
        places: M paths relative to the data set, without extension: what tells two images of one id apart.
    """

    image_ids: Sequence[str]
    places: Sequence[str]

    @cached_property
    def by_id(self) -> dict[str, int]:
        """The index of each id that one image has."""
        return _index(self.image_ids)

    @cached_property
    def depth(self) -> int:
        """The number of parts of the longest place."""
        return max((place.count("/") + 1 for place in self.places), default=1)


@dataclass(frozen=True)
class Joined:
    """The rows of a table, joined with images: N rows.

    Attributes:
        column: place of the id column in the header.
        name: its name.
        images: int64 (N,): index of each row's image in the pool, or `NO_IMAGE`.
        how: what the ids had to lose, in words; "" if nothing.
        note: why this column and not another that names other images; "" if there is no such.
        suffixes: whether most cells have an image's extension.
        others: further columns that name images.
    """

    column: int
    name: str
    images: np.ndarray
    how: str = ""
    note: str = ""
    suffixes: bool = False
    others: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many different images are named."""
        return len(set(self.images.tolist()) - {NO_IMAGE})


def _index(keys: Sequence[str]) -> dict[str, int]:
    """Give the index of each key; keys that occur twice are left out."""
    index: dict[str, int] = {}
    twice = set()
    for place, key in enumerate(keys):
        if index.setdefault(key, place) != place:
            twice.add(key)
    return {key: place for key, place in index.items() if key not in twice}


def _tail(depth: int) -> Callable[[str], str]:
    """Keep the last parts of a path."""
    return lambda path: "/".join(path.split("/")[-depth:])


def _fold(path: str) -> str:
    """Ignore case."""
    return unicodedata.normalize("NFC", path.casefold())


def _number(path: str) -> str:
    """Write a number without leading zeros and without `.0`."""
    folder, slash, name = path.rpartition("/")
    found = _NUMBER.fullmatch(name)
    return folder + slash + (found[1] if found else name)


#: What ids lose on the way through spreadsheets and file systems, the least first.
_REWRITINGS: tuple[tuple[Callable[[str], str], str], ...] = (
    (str, ""),
    (_fold, "ignoring case"),
    (_number, "ignoring leading zeros and .0"),
    (lambda path: _number(_fold(path)), "ignoring case, leading zeros and .0"),
)


def _join_cells(cells: Sequence[str], pool: Pool, *, loosely: bool) -> tuple[np.ndarray, str]:
    """Join cells with images: as they are or, where most find none, by the first rewriting that joins the most.

    Returns:
        int64 (N,): index of each cell's image, or `NO_IMAGE`; and what was rewritten, in words.
    """
    ids = [to_image_id(cell) for cell in cells]
    best, how = np.array([pool.by_id.get(one, NO_IMAGE) for one in ids], np.int64), ""
    if not loosely or 2 * (best != NO_IMAGE).sum() >= len(cells):
        return best, how
    ids = [to_image_id(cell.replace("\\", "/")) for cell in cells]
    # Each with what it does to paths, and what it says: whole ids, whole paths, and ever shorter ends of paths.
    paths: list[tuple[Sequence[str], Callable[[str], str], str]] = [
        (pool.image_ids, str, ""),
        (pool.places, str, "paths begin in the folder of the data set"),
        *((pool.places, _tail(depth), f"by the last {depth} parts of paths") for depth in range(pool.depth, 1, -1)),
        (pool.places, _tail(1), "by the file's name alone"),
    ]
    for rewrite, said in _REWRITINGS:
        for names, tail, parts in paths:
            index = _index([rewrite(tail(name)) for name in names])
            found = np.array([index.get(rewrite(tail(one)), NO_IMAGE) for one in ids], np.int64)
            if (found != NO_IMAGE).sum() > (best != NO_IMAGE).sum():
                best, how = found, " and ".join(filter(None, (parts, said)))
        if 2 * (best != NO_IMAGE).sum() >= len(cells):
            break
    return best, how


def join_column(table: Table, column: int, pool: Pool, *, loosely: bool = True) -> Joined:
    """Join a table with images by one of its columns."""
    cells = table.columns[column]
    images, how = _join_cells(cells, pool, loosely=loosely)
    with_suffix = sum(map(has_image_suffix, cells))
    return Joined(column, table.header[column], images, how, suffixes=2 * with_suffix >= len(cells))


def find_ids(table: Table, pool: Pool, wanted: str | None) -> Joined:
    """Find the column that names the images, and join the table by it.

    Args:
        table: N rows.
        pool: the images.
        wanted: name of the column; None finds it: the one whose cells name images, those with an image's extension
            first.

    Raises:
        InputError: there is no such column, or several name the images, and differently.
    """
    if wanted is not None:
        if wanted not in table.header:
            raise InputError(
                f"{table.path} has no column {shown(wanted)}. Its columns: {listed(named(table.header))}. "
                "Name one of them with --id-column."
            )
        return join_column(table, table.find(wanted), pool)
    places = [place for place, name in enumerate(table.header) if not is_unnamed(name)]
    tried = [join_column(table, place, pool, loosely=False) for place in places]
    rows = len(table.lines)
    if not any(2 * joined.count > rows for joined in tried):
        tried = [join_column(table, place, pool) for place in places[:_TRIED_COLUMNS]] + tried[_TRIED_COLUMNS:]
    tried = [
        join_column(table, joined.column, pool) if 2 * joined.count <= rows and _is_id_like(joined) else joined
        for joined in tried
    ]
    naming = [joined for joined in tried if 2 * joined.count > rows]
    naming += _find_rivals(table, pool, [joined for joined in tried if joined not in naming]) if naming else []
    # Labels of 0 and 1 name images, too, where some are called so.
    naming = [one for one in naming if not {*map(_number, {*table.columns[one.column]})} <= {"0", "1"}] or naming
    if not naming and tried:  # a few images at hand, or a name alone
        likely = max(map(_likelihood, tried))
        naming = [joined for joined in tried if joined.count and _likelihood(joined) == likely]
    best = _choose(table, pool, naming, tried) if naming else max(tried, key=_likelihood, default=None)
    if best is None or _likelihood(best) <= (0, False, False):
        raise _no_ids(table, pool)
    if to_image_id(best.name) in pool.by_id:
        raise InputError(
            f"{table.path}, line 1: the first line names an image ({listed(table.header)}), so there is no header. "
            "Write the names of the columns into a first line, such as ID,epidural,patient."
        )
    table.find(best.name)  # refuses a name that two columns have
    others = tuple(joined.name for joined in naming if joined.column != best.column and joined.count > 2)
    return replace(best, others=others)


def _find_rivals(table: Table, pool: Pool, others: Sequence[Joined]) -> list[Joined]:
    """Find columns that name no image as they are, but most rows once names are rewritten: beside one that does."""

    def loosest(name: str) -> str:
        return _number(_fold(_tail(1)(to_image_id(name.replace("\\", "/")))))

    keys = {loosest(place) for place in pool.places}
    rivals = []
    for joined in others:
        cells = table.columns[joined.column]
        some = cells[:: max(1, len(cells) // _LOOKED_AT)]
        if 2 * sum(loosest(cell) in keys for cell in some) > len(some):
            again = join_column(table, joined.column, pool)
            rivals += [again] if 2 * again.count > len(cells) else []
    return rivals


def _is_id_like(joined: Joined) -> bool:
    """Whether a column looks as if it held ids, whatever it names."""
    return joined.suffixes or joined.name.casefold() == ID.casefold()


def counts_rows(cells: Sequence[str]) -> bool:
    """Whether a column counts rows, from 0 or from 1."""
    return any(cells == [str(row + start) for row in range(len(cells))] for start in (0, 1))


def _likelihood(joined: Joined) -> tuple[int, bool, bool]:
    """Order columns by how likely they are the ids."""
    return joined.count, joined.suffixes, joined.name.casefold() == ID.casefold()


def _choose(table: Table, pool: Pool, naming: Sequence[Joined], tried: Sequence[Joined]) -> Joined:
    """Choose among columns that name most images; an `InputError` where others do so differently, or look like ids."""
    with_suffix = [joined for joined in naming if joined.suffixes]
    best = sorted(with_suffix or naming, key=lambda joined: joined.name.casefold() != ID.casefold())[0]
    words = words_of(best.name)
    lost = next((joined for joined in tried if joined.suffixes), None)
    if not with_suffix and lost is not None and (words & _OF_OWNERS or not words & _OF_IMAGES):
        raise InputError(
            f"{table.path}: the cells of {shown(lost.name)} have an image's extension, but name no image that is there "
            f"(first: {shown(table.columns[lost.column][0])}); {shown(best.name)} does. Say which holds the ids with "
            "--id-column."
        )
    for other in naming:
        differing = np.flatnonzero(
            (other.images != best.images) & (other.images != NO_IMAGE) & (best.images != NO_IMAGE)
        )
        if not len(differing):
            continue
        row = int(differing[0])
        if best.suffixes and not other.suffixes:
            why = f"its cells have an image's extension; {shown(other.name)} names other images"
            return replace(best, note=why)
        raise InputError(
            f"{table.path}: the columns {shown(best.name)} and {shown(other.name)} both name images, and differently: "
            f"in line {table.lines[row]} {shown(best.name)} names {pool.places[best.images[row]]}, {shown(other.name)} "
            f"names {pool.places[other.images[row]]}. Say which holds the ids with --id-column."
        )
    return best


def _no_ids(table: Table, pool: Pool) -> InputError:
    """Refuse a table of which no column names an image."""
    names, first = listed(named(table.header)), min(pool.image_ids)
    return InputError(
        f"{table.path} has no id column: none is called {ID}, and none names the images (such as {shown(first)}). "
        f"Its columns: {names}. Name the right one with --id-column."
    )


def keep_first(table: Table, column: int, places: Sequence[str | None], faults: Faults) -> list[int]:
    """List the rows whose ids are sound, each image once: the others are faults.

    Args:
        table: N rows.
        column: place of the id column.
        places: what tells the image of each row from others; None for a row that names no image that is there.
        faults: gets the other rows.

    Raises:
        InputError: a spreadsheet has rounded the ids.
    """
    path, name, cells = table.path, table.header[column], table.columns[column]
    rows: list[int] = []
    first: dict[str, int] = {}
    for row, (cell, place) in enumerate(zip(cells, places, strict=True)):
        key = to_image_id(cell) if place is None else place
        remedy = refuse_id(cell) if place is None else ""
        if not remedy and first.setdefault(key, row) != row:
            earlier = first[key]
            if _SCIENTIFIC.fullmatch(cell):
                raise InputError(
                    f"{path}, column {name}: a spreadsheet has rounded the ids to {shown(cell)}: they are lost. "
                    "Export the table again, with the ids as text."
                )
            remedy = f"Line {table.lines[earlier]} has the same id ({shown(key)})"
            if all(own[row] == own[earlier] for place, own in enumerate(table.columns) if place != column):
                remedy += ". Remove one of the two rows."
            else:
                remedy += ", and other cells. Correct the wrong one, or name the column of the ids with --id-column."
        if remedy:
            faults.add(cell_fault("id", path, table.lines[row], name, cell, remedy))
        else:
            rows.append(row)
    return rows
