"""Read a data set from disk: ids, image paths, labels and groups of DATA/train and DATA/test."""

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from features.common.cells import read_cell, write_cell
from features.common.cli import split_names
from features.common.commands import write_command
from features.common.errors import InputError
from features.common.files import replacing
from features.common.text import first_few
from features.dataset.folder import collect_images, read_ids
from features.dataset.formats import Listing, read_listing
from features.dataset.labels import read_labels
from features.dataset.table import Fault, Faults, Table, cell_fault, listed, named, read_table, shown
from features.options import DatasetOptions

logger = logging.getLogger(__name__)

_SPLITS = ("train", "test")
DEFAULT_GROUP = "patient"
#: The columns of a file of groups.
_ID, _GROUP = "ID", "group"


@dataclass(frozen=True)
class Split:
    """The images of one split.

    Attributes:
        name: "train" or "test".
        image_ids: N ids, each once, in the order of the CSV file, or sorted if there is none. An id is the image's
            POSIX path relative to the split's folder, without extension ("sub/a17").
        paths: N image files, aligned with image_ids.
        labels: uint8 (N, L), 0 or 1; None if the CSV file gives none.
        groups: str (N,), such as patients; None if there is no group column and no file of groups.
        columns: str (N,) by name, cells of further columns that were asked for, "" where one is blank; those that the
            CSV file has.
        without_row: ids of images that are left out, as the CSV file of the split has no row for them.
        without_image: ids of the CSV file that have no image; a fault.
    """

    name: str
    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray | None
    groups: np.ndarray | None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    without_row: tuple[str, ...] = ()
    without_image: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        root: its folder.
        label_names: L names, for all splits that have labels; () if none has.
        splits: by name, those that are there, in the order train, test.
    """

    root: Path
    label_names: tuple[str, ...]
    splits: dict[str, Split]


_DEFAULTS = DatasetOptions()


@dataclass(frozen=True)
class _Part:
    """One split before labels and groups are read: N images, and their rows of the listing, int64 (N,)."""

    split: Split
    listing: Listing
    rows: np.ndarray


def read_dataset(root: Path, options: DatasetOptions = _DEFAULTS, further: Sequence[str] = ()) -> Dataset:
    """Read a data set with its labels.

    Args:
        root: folder with train/ and train.csv, or test/ with or without test.csv, or both.
        options: which columns of the CSV files to take.
        further: columns to read beside labels and groups. The first CSV file must have them; they are not labels,
            unless the options name them as such.

    Raises:
        InputError: anything is wrong, missing or ambiguous; the message names file, line and column, what was received,
            and what to do, of the first ten faults.
    """
    dataset, faults = read_with_faults(root, options, further)
    _conclude(root, faults)
    return dataset


def read_images(root: Path, id_column: str | None = None) -> dict[str, tuple[tuple[str, ...], tuple[Path, ...]]]:
    """Read the ids and image paths of a data set as `read_dataset`, whatever its label and group columns hold.

    Returns:
        N ids and N files by split, as in `Split`, in the order train, test.
    """
    faults = Faults()
    parts = _find_parts(root, DatasetOptions(id_column=id_column), faults)
    _conclude(root, faults)
    return {name: (part.split.image_ids, part.split.paths) for name, part in parts.items()}


def read_with_faults(
    root: Path, options: DatasetOptions = _DEFAULTS, further: Sequence[str] = ()
) -> tuple[Dataset, Faults]:
    """Read a data set as far as that is possible; see `read_dataset`.

    Returns:
        The data set, and what is wrong with it. With faults, a label may be `UNKNOWN`, and a group "".

    Raises:
        InputError: there is no data set, a CSV file cannot be read as a table of ids, or an option names what is not
            there.
    """
    if options.groups is not None and options.group_column is not None:
        raise InputError(f"--groups {options.groups} and --group-column {options.group_column}: give one of them.")
    faults = Faults()
    parts = _find_parts(root, options, faults)
    listings: dict[str, Listing] = {}
    groups: dict[str, np.ndarray | None] = dict.fromkeys(parts)
    wanted = split_names(options.labels, "--labels")
    cells: dict[str, dict[str, np.ndarray]] = {name: {} for name in parts}
    for name, part in parts.items():
        if not part.listing.header:
            continue
        # Only the first CSV file must have the group column: a test.csv may do without.
        group = _find_group_column(part.listing, options.group_column, required=not listings)
        cells[name] = _read_further(part, further, required=not listings)
        no_labels = {group, *(column for column in further if column not in (wanted or ()))}
        columns = {label: column for label, column in part.listing.columns.items() if label not in no_labels}
        taken = [column for column in further if column in no_labels and _is_likely(part.listing, column)]
        if taken and wanted is None:
            faults.warnings.append(
                f"{part.listing.csv}: {listed(taken)} holds 0 and 1, but is named to split the images by, so it is not "
                "a label. To have it as both, name all labels with --labels."
            )
        listings[name] = replace(part.listing, columns=columns)
        if (table := part.listing.table) is not None:
            faults.add(*table.find_duplicates(named(table.header)))
            if group is not None and options.groups is None:
                groups[name] = _read_group_column(table, group, faults)[part.rows]
    label_names, labels = read_labels(listings, wanted, faults)
    if options.groups is not None:
        groups = _join_groups(options.groups, parts, faults)
    splits = {}
    for name, part in parts.items():
        values = labels.get(name)
        of_rows = None if values is None else values[part.rows]
        splits[name] = replace(part.split, labels=of_rows, groups=groups[name], columns=cells[name])
    return Dataset(root, label_names, splits), faults


def _conclude(root: Path, faults: Faults) -> None:
    """Log the warnings, and refuse the faults."""
    for warning in faults.warnings:
        logger.warning("%s", warning)
    faults.refuse(f": {write_command('features describe', root)} lists them all")


def _find_parts(root: Path, options: DatasetOptions, faults: Faults) -> dict[str, _Part]:
    """Find the splits that are there, in the order train, test; at least one."""
    try:
        if not root.is_dir():
            what = "is not a folder" if root.exists() else "does not exist"
            raise InputError(f"{root} {what}. Give the folder of the data set: the one that holds train/ or test/.")
        found = [_find_part(root, name, options.id_column, faults) for name in _SPLITS]
    except OSError as error:  # no right to look into the folder, a name that is too long
        where = error.filename or root
        raise InputError(f"{where} cannot be read: {error.strerror}. Fix its permissions, or give another.") from None
    parts = {part.split.name: part for part in found if part is not None}
    if not parts:
        faults.refuse()
        raise InputError(f"{root} has neither a folder train nor a folder test. Put the images into one of them.")
    if not any(part.listing.header for part in parts.values()):
        for option in ("id_column", "labels", "group_column"):
            if getattr(options, option) is not None:
                option = f"--{option.replace('_', '-')}"
                raise InputError(
                    f"{option} names a column, but {root} has no train.csv or test.csv. Add it, or leave {option} out."
                )
    return parts


def _find_part(root: Path, name: str, id_column: str | None, faults: Faults) -> _Part | None:
    """Join the ids of one split with its images; None if the split is not there."""
    folder, file = root / name, root / f"{name}.csv"
    has_csv = file.exists() or file.is_symlink()
    if not folder.is_dir():
        if has_csv:
            faults.add(Fault("image", file, f"there is no folder {folder}", "Add its images, or remove the file."))
        return None
    images = collect_images(folder, faults)
    listing = Listing(file, sorted(images))
    if has_csv:
        listing = read_listing(file, images.keys(), id_column, faults)
    rows, missing = list[int](), list[int]()
    for row, image_id in enumerate(listing.image_ids):
        (rows if image_id in images else missing).append(row)
    if missing:
        first = first_few([f"{shown(listing.image_ids[row])} in line {listing.lines[row]}" for row in missing], 3)
        what = f"{len(missing)} of {len(listing.image_ids)} ids have no image in {folder} (first: {first})"
        remedy = (
            "Add the images, remove the rows, or name the right column with --id-column. An id is the image's path "
            "relative to that folder, without extension."
        )
        faults.add(Fault("image", file, what, remedy, column=listing.id_column))
    image_ids = tuple(listing.image_ids[row] for row in rows)
    extra = tuple(sorted(images.keys() - set(image_ids)))
    if extra:
        what = f"{len(extra)} of {len(images)} images in {folder} have no row in this file (first: {images[extra[0]]})"
        if name == "test":
            faults.warnings.append(f"{file}: {what}; they are left out.")
        else:
            faults.add(Fault("image", file, what, "Add their rows, or move the images out of the folder."))
    paths = tuple(images[image_id] for image_id in image_ids)
    without_image = tuple(listing.image_ids[row] for row in missing)
    split = Split(name, image_ids, paths, None, None, {}, extra, without_image)
    return _Part(split, listing, np.array(rows, np.int64))


def _find_group_column(listing: Listing, wanted: str | None, *, required: bool) -> str | None:
    """Find the name of the group column; None if there is none and none is required."""
    name = DEFAULT_GROUP if wanted is None else wanted
    if name in listing.header:
        return name
    if wanted is not None and required:
        raise InputError(
            f"{listing.csv} has no column {shown(wanted)}. Its columns: {listed(named(listing.header))}. "
            "Name one of them with --group-column."
        )
    return None


def _is_likely(listing: Listing, column: str) -> bool:
    """Whether a column would be a label unless a person says otherwise."""
    return column in listing.columns and listing.columns[column].likely


def _read_further(part: _Part, names: Sequence[str], *, required: bool) -> dict[str, np.ndarray]:
    """Read the cells of columns by name: str (N,) each; an `InputError` where a required one is missing."""
    table, header = part.listing.table, named(part.listing.header)
    missing = [name for name in names if table is None or name not in header]
    if missing and required:
        raise InputError(
            f"{part.listing.csv} has no column {shown(missing[0])} to split the images by. Its columns: "
            f"{listed(header)}. Name some of them, one cell for each image."
        )
    if table is None:
        return {}
    return {
        name: np.array(table.columns[table.find(name)], dtype=np.str_)[part.rows]
        for name in names
        if name not in missing
    }


def _read_group_column(table: Table, name: str, faults: Faults) -> np.ndarray:
    """Read the groups of the table's N rows: str (N,), "" where the cell is blank."""
    cells = table.columns[table.header.index(name)]
    remedy = "Every row needs a group, such as its patient: write it, or take another column with --group-column."
    for line, cell in zip(table.lines, cells, strict=True):
        if not cell:
            faults.add(cell_fault("group", table.path, line, name, cell, remedy))
    return np.array(cells, dtype=np.str_)


def _join_groups(path: Path, parts: Mapping[str, _Part], faults: Faults) -> dict[str, np.ndarray | None]:
    """Give every split the groups of a file, "" where it has none; None if it names no image of test."""
    groups = read_groups_file(path, faults)
    unknown = sorted(groups.keys() - {image_id for part in parts.values() for image_id in part.split.image_ids})
    if unknown:
        faults.warnings.append(
            f"{path}: {len(unknown)} of {len(groups)} rows name no image of the data set (first: {shown(unknown[0])}); "
            "they are ignored."
        )
    of_splits: dict[str, np.ndarray | None] = dict.fromkeys(parts)
    for name, part in parts.items():
        image_ids = part.split.image_ids
        missing = [image_id for image_id in image_ids if image_id not in groups]
        if len(missing) == len(image_ids) and name != "train":
            continue
        if missing:
            what = f"no group for {len(missing)} of {len(image_ids)} {name} images (first: {shown(missing[0])})"
            remedy = "Add their rows; an image that belongs to no group gets one of its own."
            faults.add(Fault("group", path, what, remedy))
        of_splits[name] = np.array([groups.get(image_id, "") for image_id in image_ids], dtype=np.str_)
    return of_splits


def read_groups_file(path: Path, faults: Faults) -> dict[str, str]:
    """Read the group of every image that a file names, neither of them blank.

    Args:
        path: CSV file with the columns `ID` and `group`; other columns are ignored.
        faults: gets ids that are blank, lead outside the data set or are duplicated, and blank groups.

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
        if cells[row]:
            groups[read_cell(image_id)] = read_cell(cells[row])
        else:
            remedy = "Every image needs a group: write it; one of its own will do."
            faults.add(cell_fault("group", path, table.lines[row], _GROUP, "", remedy))
    return groups


def write_groups_file(path: Path, groups: Mapping[str, str]) -> None:
    """Write the group of every image, for `read_groups_file`.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((_ID, _GROUP))
        writer.writerows([write_cell(cell, safe=False) for cell in row] for row in groups.items())
