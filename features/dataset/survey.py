"""Read a data set as it is, with its gaps: what is missing is listed, not refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.common.errors import InputError
from features.dataset.dataset import DatasetOptions
from features.dataset.folder import scan_images
from features.dataset.groups import read_groups_file
from features.dataset.ids import Listing, read_listing
from features.dataset.labels import LABELS, NOT_A_LABEL
from features.dataset.long_format import LongTable
from features.dataset.table import Table, is_unnamed, listed

_SPLITS = ("train", "test")
_DEFAULT_GROUP = "patient"


@dataclass(frozen=True)
class SurveyedSplit:
    """One split: N ids, those of the CSV file, or of the images where there is none.

    Attributes:
        name: `train` or `test`.
        image_ids: N ids.
        label_names: L names; () where the CSV file has none, or is not there.
        labels: int8 (N, L), 0 or 1; -1 where the cell is blank or anything else.
        groups: str (N,), "" where none is known.
        without_image: ids that name no image.
        without_row: images that the CSV file does not name, by id.
    """

    name: str
    image_ids: tuple[str, ...]
    label_names: tuple[str, ...]
    labels: np.ndarray
    groups: np.ndarray
    without_image: tuple[str, ...]
    without_row: tuple[str, ...]

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """The ids that lack at least one label; () where the split has no labels at all."""
        lacking = np.flatnonzero((self.labels < 0).any(axis=1))
        return tuple(self.image_ids[row] for row in lacking)


def survey(root: Path, options: DatasetOptions) -> tuple[SurveyedSplit, ...]:
    """Read ids, labels and groups of a data set, in the order train, test.

    A label is a column at least half of whose filled cells are 0 or 1, which `read_dataset` refuses unless all are; or
    one asked for. Of test.csv those that train.csv has.

    Raises:
        InputError: there is no data set, a CSV file cannot be read as a table of ids, or an option names what is not
            there.
    """
    if not any((root / name).is_dir() for name in _SPLITS):
        raise InputError(f"{root} has neither a folder train nor a folder test. Give the folder of the data set.")
    of_file = None if options.groups_file is None else read_groups_file(options.groups_file)
    splits: list[SurveyedSplit] = []
    for name in _SPLITS:
        if (root / name).is_dir():
            wanted = options.labels or (splits[0].label_names if splits else ()) or None
            splits.append(_survey_split(root, name, options, wanted, of_file))
    return tuple(splits)


def _survey_split(
    root: Path, name: str, options: DatasetOptions, wanted: tuple[str, ...] | None, of_file: Mapping[str, str] | None
) -> SurveyedSplit:
    """Read one split."""
    images, path = scan_images(root / name), root / f"{name}.csv"
    if not path.exists():
        image_ids = tuple(sorted(images))
        groups = _groups_of(image_ids, of_file or {})
        return SurveyedSplit(name, image_ids, (), np.empty((len(images), 0), np.int8), groups, (), ())
    listing = read_listing(path, images, options.id_column)
    table, image_ids = listing.table, listing.image_ids
    group_name = options.group_column or _DEFAULT_GROUP
    if options.group_column and name == "train" and group_name not in table.header:
        raise InputError(f"{path} has no column {group_name!r}. Its columns: {listed(table.header)}.")
    groups = _groups_of(image_ids, of_file or {})
    if isinstance(table, Table):
        if of_file is None and group_name in table.header:
            groups = np.array(table.columns[table.find(group_name)], dtype=np.str_)
        names, labels = _wide_labels(listing, table, wanted, group_name)
    else:
        names, labels = _long_labels(table, wanted)
    if options.labels and name == "train" and set(options.labels) - set(names):
        raise InputError(
            f"--labels names {listed(sorted(set(options.labels) - set(names)))}, which {path} does not have."
        )
    return SurveyedSplit(
        name,
        image_ids,
        names,
        labels,
        groups,
        tuple(image_id for image_id in image_ids if image_id not in images),
        tuple(sorted(images.keys() - set(image_ids))),
    )


def _groups_of(image_ids: tuple[str, ...], of_images: Mapping[str, str]) -> np.ndarray:
    """Give every image its group: str (N,), "" where the mapping has none."""
    return np.array([of_images.get(image_id, "") for image_id in image_ids], dtype=np.str_)


def _wide_labels(
    listing: Listing, table: Table, wanted: tuple[str, ...] | None, group_name: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """Read the labels of a file with one column for each."""
    found: dict[str, np.ndarray] = {}
    for index, (name, cells) in enumerate(zip(table.header, table.columns, strict=True)):
        if index == listing.id_column or is_unnamed(name) or (name == group_name and wanted is None):
            continue
        column = np.array([LABELS.get(cell, -1) for cell in cells], np.int8)
        binary = int((column >= 0).sum())
        if name in wanted if wanted else binary and 2 * binary >= sum(map(bool, cells)):
            found[name] = column
    names = tuple(name for name in wanted if name in found) if wanted else tuple(found)
    if not any((found[name] >= 0).any() for name in names):
        names = ()  # as in a test.csv that leaves the cells open
    return names, np.column_stack([np.empty((len(listing.image_ids), 0), np.int8), *(found[name] for name in names)])


def _long_labels(table: LongTable, wanted: tuple[str, ...] | None) -> tuple[tuple[str, ...], np.ndarray]:
    """Read the labels of the long format."""
    labels = np.full((len(table.image_ids), len(table.names)), -1, np.int8)
    known = table.row_labels != NOT_A_LABEL
    labels[table.row_images[known], table.row_names[known]] = table.row_labels[known]
    names = tuple(name for name in wanted if name in table.names) if wanted else table.names
    return names, labels[:, [table.names.index(name) for name in names]]
