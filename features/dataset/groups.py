"""Read the groups of images, such as patients: from a column, or from a file `ID,group`; and write such a file."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from features.common.errors import InputError
from features.common.files import replacing
from features.dataset.folder import read_ids
from features.dataset.table import Fault, Faults, Table, cell_fault, listed, named, read_table, shown

_ID, _GROUP = "ID", "group"


def read_group_column(table: Table, name: str, faults: Faults) -> np.ndarray:
    """Read the group column of a data set's CSV file.

    Args:
        table: the cells, N rows.
        name: the column.
        faults: gets the blank cells.

    Returns:
        str (N,); "" where the cell is blank.
    """
    cells = table.columns[table.header.index(name)]
    remedy = "Every row needs a group, such as its patient: write it, or take another column with --group-column."
    for line, cell in zip(table.lines, cells, strict=True):
        if not cell:
            faults.add(cell_fault("group", table.path, line, name, cell, remedy))
    return np.array(cells, dtype=np.str_)


def read_groups_file(path: Path, faults: Faults) -> dict[str, str]:
    """Read the group of every image that a file names.

    Args:
        path: CSV file with the columns `ID` and `group`; other columns are ignored.
        faults: gets ids that are blank, lead outside the data set or are duplicated, and blank groups.

    Returns:
        The group by image id, neither of them blank.

    Raises:
        InputError: it is not a readable table, or a column is missing.
    """
    table = read_table(path)
    for name in (_ID, _GROUP):
        if name not in table.header:
            raise InputError(
                f"{path} has no column {name}. Its columns: {listed(named(table.header))}. A file of groups has the "
                f"columns {_ID} and {_GROUP}; python -m features audit writes one."
            )
    groups: dict[str, str] = {}
    cells = table.columns[table.find(_GROUP)]
    for image_id, row in read_ids(table, table.find(_ID), faults).items():
        if not cells[row]:
            remedy = "Every image needs a group: write it; one of its own will do."
            faults.add(cell_fault("group", path, table.lines[row], _GROUP, "", remedy))
        else:
            groups[image_id] = cells[row]
    return groups


def join_groups(
    path: Path, groups: dict[str, str], split: str, image_ids: Sequence[str], faults: Faults
) -> np.ndarray | None:
    """Give the images of a split their groups.

    Args:
        path: the file that the groups are from, for messages.
        groups: by image id.
        split: name of the split.
        image_ids: the N images of the split.
        faults: gets one if the file names some images of the split, but not all; or none of train.

    Returns:
        str (N,), in the order of the images, "" where the file has none; None if the file names no image of a split
        other than train.
    """
    missing = [image_id for image_id in image_ids if image_id not in groups]
    if len(missing) == len(image_ids) and split != "train":
        return None
    if missing:
        what = f"no group for {len(missing)} of {len(image_ids)} {split} images (first: {shown(missing[0])})"
        remedy = "Add their rows; an image that belongs to no group gets one of its own."
        faults.add(Fault("group", path, what, remedy))
    return np.array([groups.get(image_id, "") for image_id in image_ids], dtype=np.str_)


def write_groups_file(path: Path, groups: dict[str, str]) -> None:
    """Write the group of every image, in the order of the dictionary.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((_ID, _GROUP))
        writer.writerows(groups.items())
