"""Find out which images a CSV file names, in its order."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from features.common.errors import InputError
from features.dataset.image_id import read_id, to_image_id
from features.dataset.long_format import LongTable, is_long, read_long
from features.dataset.table import Table, cell_error, is_unnamed, listed, named, read_table, shown

logger = logging.getLogger(__name__)

_DEFAULT_ID = "ID"
_FIRST_FEW = 3


@dataclass(frozen=True)
class Listing:
    """The images that a CSV file names, and the file's cells.

    Attributes:
        image_ids: N ids in the order of the file, each once.
        table: the cells, wide (one row for each image) or long (one row for each image and label).
        id_column: index of the id column in the table.
    """

    image_ids: tuple[str, ...]
    table: Table | LongTable
    id_column: int


def read_listing(path: Path, images: Mapping[str, Path], id_column: str | None) -> Listing:
    """Read the ids of a CSV file.

    Args:
        path: the CSV file.
        images: path of each image by its id; they decide which column holds the ids, and whether the file is long.
        id_column: name of the id column; None looks for it.

    Returns:
        The ids. No label was looked at.

    Raises:
        InputError: the file is no readable table; no id column, or several; an id that is blank, leads outside the data
            set or occurs twice.
    """
    if is_long(path, images, id_column):
        long_table = read_long(path)
        return Listing(long_table.image_ids, long_table, long_table.header.index(_DEFAULT_ID))
    table = read_table(path)
    column = _find_id_column(table, images, id_column)
    return Listing(_read_ids(table, column), table, column)


def match_images(listing: Listing, images: Mapping[str, Path], folder: Path, *, extra_allowed: bool) -> None:
    """Compare the ids of a CSV file with the images of its folder.

    Args:
        listing: the ids.
        images: path of each image by its id.
        folder: the folder of the images, for messages.
        extra_allowed: whether images without an id are left out with a warning, or refused.

    Raises:
        InputError: ids without image, or images without id; the message says how many and names the first.
    """
    path = listing.table.path
    missing = [row for row, image_id in enumerate(listing.image_ids) if image_id not in images]
    if missing:
        first = ", ".join(
            f"{shown(listing.image_ids[row])} in line {listing.table.lines[row]}" for row in missing[:_FIRST_FEW]
        )
        raise InputError(
            f"{path}, column {listed([listing.table.header[listing.id_column]])}: {len(missing)} of "
            f"{len(listing.image_ids)} ids have no image in {folder} (first: {first}). Add the images, "
            "remove the rows, or name the right column with --id-column. An id is the image's path relative to that "
            "folder, without extension."
        )
    if len(images) == len(listing.image_ids):
        return
    extra = sorted(images.keys() - set(listing.image_ids))
    found = f"{len(extra)} of {len(images)} images in {folder} have no row in {path} (first: {images[extra[0]]})"
    if not extra_allowed:
        raise InputError(f"{found}. Add their rows, or move the images out of the folder.")
    logger.warning("%s; they are left out.", found)


def _find_id_column(table: Table, images: Mapping[str, Path], id_column: str | None) -> int:
    """Find the index of the id column by the name asked for, by the default name, or by the images."""
    names = named(table.header)
    if id_column is not None:
        if id_column not in table.header:
            raise InputError(
                f"{table.path} has no column {shown(id_column)}. Its columns: {listed(names)}. "
                "Name one of them with --id-column."
            )
        return table.find(id_column)
    if _DEFAULT_ID in names:
        return table.find(_DEFAULT_ID)
    alike = [name for name in names if name.casefold() == _DEFAULT_ID.casefold()]
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
        f"{table.path} has no id column: none is called {_DEFAULT_ID}, and none names the images (such as "
        f"{shown(min(images))}). Its columns: {listed(names)}. Name the right one with --id-column."
    )


def _read_ids(table: Table, column: int) -> tuple[str, ...]:
    """Read the id column: N different ids."""
    rows: dict[str, int] = {}
    for row, cell in enumerate(table.columns[column]):
        image_id = read_id(table.path, table.lines[row], table.header[column], cell)
        if rows.setdefault(image_id, row) != row:
            raise cell_error(
                table.path,
                table.lines[row],
                table.header[column],
                cell,
                f"Line {table.lines[rows[image_id]]} has the same id ({shown(image_id)}). Remove one of the two rows.",
            )
    return tuple(rows)
