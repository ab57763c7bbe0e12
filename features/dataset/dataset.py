"""Read a data set from disk: ids, image paths, labels and groups of DATA/train and DATA/test."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.common.errors import InputError
from features.dataset.folder import scan_images
from features.dataset.groups import join_groups, note_unknown, read_groups_file
from features.dataset.ids import Listing, match_images, read_listing
from features.dataset.image_id import IMAGE_SUFFIXES
from features.dataset.labels import LabelSource, read_test_labels, read_train_labels
from features.dataset.long_format import LongTable
from features.dataset.table import Table, listed, named, shown
from features.dataset.wide_format import WideTable, read_groups

__all__ = ["IMAGE_SUFFIXES", "Dataset", "DatasetOptions", "Split", "read_dataset", "read_images"]

_SPLITS = ("train", "test")
DEFAULT_GROUP = "patient"


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
    """

    name: str
    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray | None
    groups: np.ndarray | None


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


@dataclass(frozen=True)
class DatasetOptions:
    """What a person may say about the columns of the CSV files.

    Attributes:
        id_column: the id column; None takes "ID", or else the first column that names the images.
        labels: the label columns; None takes every column that holds only 0 and 1.
        group_column: the group column; None takes "patient" if it is there.
        groups_file: a CSV file `ID,group` that gives the groups instead of a column; None for a column.
    """

    id_column: str | None = None
    labels: tuple[str, ...] | None = None
    group_column: str | None = None
    groups_file: Path | None = None


_DEFAULTS = DatasetOptions()


@dataclass(frozen=True)
class _Source:
    """One split before its labels are read: N ids, their files, and the CSV file if there is one."""

    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    listing: Listing | None


def read_dataset(root: Path, options: DatasetOptions = _DEFAULTS) -> Dataset:
    """Read a data set with its labels.

    Args:
        root: folder with train/ and train.csv, or test/ with or without test.csv, or both.
        options: which columns of the CSV files to take.

    Returns:
        The data set.

    Raises:
        InputError: anything is wrong, missing or ambiguous; the message names file, line and column, what was received,
            and what to do.
    """
    if options.groups_file is not None and options.group_column is not None:
        raise InputError(
            f"--groups {options.groups_file} and --group-column {options.group_column} both name the groups. Give one."
        )
    sources = _find_sources(root, options.id_column)
    _check_options(root, sources, options)
    labels: dict[str, np.ndarray | None] = dict.fromkeys(sources)
    groups: dict[str, np.ndarray | None] = dict.fromkeys(sources)
    label_names: tuple[str, ...] = ()
    train: LabelSource | None = None
    group_required = True  # in the first CSV file there is: a test.csv may do without
    for name, source in sources.items():
        if source.listing is None:
            continue
        table = source.listing.table
        table.check_header()
        group = _find_group_column(table, options.group_column, required=group_required)
        group_required = False
        taken = {source.listing.id_column} | ({group} if group is not None else set())
        columns = table if isinstance(table, LongTable) else WideTable(table, frozenset(taken))
        if name == "train":
            train = columns
            label_names, labels[name] = read_train_labels(columns, options.labels)
        else:
            names, labels[name] = read_test_labels(columns, options.labels, train, label_names)
            label_names = label_names or names
        if group is not None and isinstance(table, Table):
            groups[name] = read_groups(table, group) if options.groups_file is None else None
    if options.groups_file is not None:
        groups = _read_groups_file(options.groups_file, sources)
    splits = {
        name: Split(name, source.image_ids, source.paths, labels[name], groups[name])
        for name, source in sources.items()
    }
    return Dataset(root, label_names, splits)


def _read_groups_file(path: Path, sources: Mapping[str, _Source]) -> dict[str, np.ndarray | None]:
    """Give every split the groups of a file."""
    of_images = read_groups_file(path)
    note_unknown(path, of_images, [image_id for source in sources.values() for image_id in source.image_ids])
    return {name: join_groups(path, of_images, name, source.image_ids) for name, source in sources.items()}


def read_images(root: Path, id_column: str | None = None) -> dict[str, tuple[tuple[str, ...], tuple[Path, ...]]]:
    """Read the ids and image paths of a data set, and look at no label.

    Args:
        root: as in `read_dataset`.
        id_column: the id column; None takes "ID", or else the first column that names the images.

    Returns:
        N ids and N files by split, as in `Split`, in the order train, test.

    Raises:
        InputError: anything is wrong with ids or images, as in `read_dataset`; what label and group columns hold is not
            looked at.
    """
    sources = _find_sources(root, id_column)
    if id_column is not None and all(source.listing is None for source in sources.values()):
        raise _no_csv(root, "--id-column")
    return {name: (source.image_ids, source.paths) for name, source in sources.items()}


def _find_sources(root: Path, id_column: str | None) -> dict[str, _Source]:
    """Find the splits that are there, in the order train, test; at least one."""
    try:
        if not root.is_dir():
            what = "is not a folder" if root.exists() else "does not exist"
            raise InputError(f"{root} {what}. Give the folder of the data set: the one that holds train/ or test/.")
        found = {name: _find_source(root, name, id_column) for name in _SPLITS}
    except OSError as error:  # no right to look into the folder, a name that is too long
        where = error.filename or root
        raise InputError(f"{where} cannot be read: {error.strerror}. Mend its permissions, or give another.") from None
    sources = {name: source for name, source in found.items() if source is not None}
    if not sources:
        raise InputError(f"{root} has neither a folder train nor a folder test. Put the images into one of them.")
    return sources


def _find_source(root: Path, name: str, id_column: str | None) -> _Source | None:
    """Find the images of one split and put them in order; None if the split is not there."""
    folder, table = root / name, root / f"{name}.csv"
    has_table = table.exists() or table.is_symlink()
    if not folder.is_dir():
        if has_table:
            raise InputError(f"{table} is there, but the folder {folder} is not. Add its images, or remove the file.")
        return None
    images = scan_images(folder)
    if not has_table:
        return _order(images, None)
    listing = read_listing(table, images, id_column)
    match_images(listing, images, folder, extra_allowed=name == "test")
    return _order(images, listing)


def _order(images: Mapping[str, Path], listing: Listing | None) -> _Source:
    """Put images in the order of the CSV file, or sort them by id."""
    image_ids = tuple(sorted(images)) if listing is None else listing.image_ids
    return _Source(image_ids, tuple(images[image_id] for image_id in image_ids), listing)


def _check_options(root: Path, sources: Mapping[str, _Source], options: DatasetOptions) -> None:
    """Refuse to name columns where no CSV file is."""
    if any(source.listing is not None for source in sources.values()):
        return
    asked = {
        "--id-column": options.id_column,
        "--labels": options.labels,
        "--group-column": options.group_column,
    }
    for option, value in asked.items():
        if value is not None:
            raise _no_csv(root, option)


def _no_csv(root: Path, option: str) -> InputError:
    """Make the error of an option that names columns where no CSV file is."""
    return InputError(
        f"{option} names a column, but {root} has no train.csv or test.csv. Add it, or leave {option} out."
    )


def _find_group_column(table: Table | LongTable, wanted: str | None, *, required: bool) -> int | None:
    """Find the index of the group column; None if there is none and none is required."""
    name = DEFAULT_GROUP if wanted is None else wanted
    if name in table.header:
        return table.header.index(name)
    if wanted is not None and required:
        raise InputError(
            f"{table.path} has no column {shown(wanted)}. Its columns: {listed(named(table.header))}. "
            "Name one of them with --group-column."
        )
    return None
