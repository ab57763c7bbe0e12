"""Read and write a file that gives each image its group: `ID,group`."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from features.common.errors import InputError
from features.common.files import replacing
from features.dataset.image_id import read_id
from features.dataset.table import cell_error, listed, named, read_table, shown

logger = logging.getLogger(__name__)

_ID, _GROUP = "ID", "group"


def read_groups_file(path: Path) -> dict[str, str]:
    """Read the group of every image that the file names.

    Args:
        path: CSV file with the columns `ID` and `group`; other columns are passed over.

    Returns:
        The group by image id, neither of them blank.

    Raises:
        InputError: it is no readable table, lacks a column, names an id twice, or has a blank cell.
    """
    table = read_table(path)
    for name in (_ID, _GROUP):
        if name not in table.header:
            raise InputError(
                f"{path} has no column {name}. Its columns: {listed(named(table.header))}. A file of groups has the "
                f"columns {_ID} and {_GROUP}; python -m features audit writes one."
            )
    id_column, group_column = table.find(_ID), table.find(_GROUP)
    lines: dict[str, int] = {}
    groups: dict[str, str] = {}
    cells = zip(table.lines, table.columns[id_column], table.columns[group_column], strict=True)
    for line, id_cell, group in cells:
        image_id = read_id(path, line, _ID, id_cell)
        if image_id in groups:
            remedy = f"Line {lines[image_id]} has the same id ({shown(image_id)}). Remove one of the two rows."
            raise cell_error(path, line, _ID, id_cell, remedy)
        if not group:
            raise cell_error(path, line, _GROUP, "", "Every image needs a group: write it; one of its own will do.")
        groups[image_id], lines[image_id] = group, line
    return groups


def join_groups(path: Path, groups: dict[str, str], split: str, image_ids: Sequence[str]) -> np.ndarray | None:
    """Give the images of a split their groups.

    Args:
        path: the file that the groups are from, for messages.
        groups: by image id.
        split: name of the split.
        image_ids: the N images of the split.

    Returns:
        str (N,), in the order of the images; None if the file names no image of a split other than train.

    Raises:
        InputError: the file names some images of the split, but not all; or none of train.
    """
    missing = [image_id for image_id in image_ids if image_id not in groups]
    if len(missing) == len(image_ids) and split != "train":
        return None
    if missing:
        raise InputError(
            f"{path} gives no group to {len(missing)} of {len(image_ids)} {split} images (first: {shown(missing[0])}). "
            "Add their rows; an image that belongs to no group gets one of its own."
        )
    return np.array([groups[image_id] for image_id in image_ids], dtype=np.str_)


def note_unknown(path: Path, groups: dict[str, str], image_ids: Sequence[str]) -> None:
    """Say how many rows of the file belong to no image of the data set."""
    unknown = sorted(groups.keys() - set(image_ids))
    if unknown:
        logger.warning(
            "%s: %d of %d rows name no image of the data set (first: %s); they are passed over.",
            path,
            len(unknown),
            len(groups),
            shown(unknown[0]),
        )


def write_groups_file(path: Path, groups: dict[str, str]) -> None:
    """Write the group of every image, in the order of the dictionary.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((_ID, _GROUP))
        writer.writerows(groups.items())
