"""Read a data set from disk: ids, image paths, labels and groups of the images to learn from and to predict."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from unicodedata import normalize

import numpy as np

from features.common.arrays import UNKNOWN
from features.common.cli import split_names
from features.common.commands import option_words, write_command
from features.common.errors import InputError
from features.common.text import first_few
from features.dataset.faults import Fault, Faults, listed, shown
from features.dataset.formats import Listing, read_listing
from features.dataset.groups import FoundGroups, find_groups, suggest_groups
from features.dataset.ids import NO_IMAGE
from features.dataset.labels import LabelOptions, read_labels
from features.dataset.layout import ROLES, ImageFile, Layout, find_layout, place_without_row, read_roles, refuse_clashes
from features.dataset.table import named
from features.options import OF_DATASET, DatasetOptions, ImageOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """The images of one split.

    Attributes:
        name: "train", to learn from, or "test", to predict.
        image_ids: N ids, each once, in the order of the tables; images without a row come after them, sorted. An id is
            the image's POSIX path relative to its folder, without extension ("sub/a17").
        paths: N image files, aligned with image_ids.
        labels: uint8 (N, L), 0, 1 or UNKNOWN; None if no label is known.
        groups: str (N,), such as patients; None if none are known.
        stored: str (N,): the folder of the cache that keeps each image's features, "train" or "test".
        columns: str (N,) by name, cells of further columns that were asked for, "" where one is blank; those that a
            table has.
        without_row: ids of images that no table has a row for, though there is one of their split.
        without_image: ids of the tables that have no image.
    """

    name: str
    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray | None
    groups: np.ndarray | None
    stored: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    without_row: tuple[str, ...] = ()
    without_image: tuple[str, ...] = ()

    def take(self, rows: np.ndarray) -> "Split":
        """Some of the images, by row: int64 (n,)."""
        return replace(
            self,
            image_ids=tuple(self.image_ids[row] for row in rows),
            paths=tuple(self.paths[row] for row in rows),
            labels=None if self.labels is None else self.labels[rows],
            groups=None if self.groups is None else self.groups[rows],
            stored=self.stored[rows],
            columns={name: cells[rows] for name, cells in self.columns.items()},
        )

    def parts(self) -> Iterator[tuple[str, np.ndarray]]:
        """The images by the folder of the cache that keeps them: its name, and their rows, int64 (n,)."""
        for name in ROLES:
            rows = np.flatnonzero(self.stored == name)
            if len(rows):
                yield name, rows


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        root: its folder.
        label_names: L names, for all splits that have labels; () if none has.
        splits: by name, those that are there, in the order train, test.
        understood: what was understood of the data set, a line each.
        groups_from: where the groups are from, in words.
        groups_guessed: whether they were recognised in the ids, and nobody said so.
    """

    root: Path
    label_names: tuple[str, ...]
    splits: dict[str, Split]
    understood: tuple[str, ...] = ()
    groups_from: str = "none"
    groups_guessed: bool = False


@dataclass(frozen=True)
class _Sheet:
    """One table, or the images of a split that has none: R rows, of which `listing.images` index all M images.

    Attributes:
        split: of the table or folder; None of a table of all images.
        listing: the rows.
        roles: what each row's image is for.
        said: how roles were found, in words; "" if by the name of the table or folder.
        split_column: the column that holds them; "" if none does.
        skipped: ids of rows that have no image, and are left out.
    """

    split: str | None
    listing: Listing
    roles: Sequence[str]
    said: str = ""
    split_column: str = ""
    skipped: tuple[str, ...] = ()

    def without_image(self, role: str) -> list[str]:
        """The ids of the rows of a role that have no image."""
        rows = zip(self.listing.image_ids, self.listing.images.tolist(), self.roles, strict=True)
        missing = [image_id for image_id, image, of_row in rows if image == NO_IMAGE and of_row == role]
        return [*missing, *(self.skipped if role in self.roles[:1] else ())]


@dataclass(frozen=True)
class _Found:
    """All M images, joined with tables, before labels and groups are read.

    Attributes:
        order: indices of the images that are used: those with a row in its order, then the others.
        roles: what each of the M images is for; "" if it is left out.
        without_row: indices of the images that no table has a row for.
    """

    layout: Layout
    sheets: Sequence[_Sheet]
    order: Sequence[int]
    roles: Sequence[str]
    without_row: Sequence[int]

    def say(self) -> list[str]:
        """Say what was understood of ids and of splits."""
        tables = [sheet.listing for sheet in self.sheets if sheet.listing.header]
        said = dict.fromkeys(
            f"id: {shown(listing.id_column)}"
            + (f" ({listing.joined.how})" if listing.joined and listing.joined.how else "")
            + (f" ({listing.joined.note})" if listing.joined and listing.joined.note else "")
            for listing in tables
        )
        return [*said, *dict.fromkeys(sheet.said for sheet in self.sheets if sheet.said)]


_DEFAULTS = DatasetOptions()
_Options = TypeVar("_Options", bound=ImageOptions)


def read_dataset(root: Path, options: DatasetOptions = _DEFAULTS, further: Sequence[str] = ()) -> Dataset:
    """Read a data set with its labels.

    Args:
        root: its folder; docs/data.md says what may be in it.
        options: how to read the tables.
        further: columns to read beside labels and groups. The first table must have them; they are not labels, unless
            the options name them as such.

    Raises:
        InputError: anything is wrong, missing or ambiguous; the message names file, line and column, what was received,
            and what to do, of the first ten faults.
    """
    dataset, faults = read_with_faults(root, options, further)
    _conclude(root, options, faults)
    return dataset


def read_images(
    root: Path, options: ImageOptions = _DEFAULTS, say: Callable[[str], object] | None = None
) -> dict[str, tuple[tuple[str, ...], tuple[Path, ...]]]:
    """Read the ids and image paths of a data set as `read_dataset`, whatever labels and groups its tables hold.

    Args:
        root: its folder.
        options: how to read the tables.
        say: called with what was understood, a line each.

    Returns:
        N ids and N files by the folder of the cache that keeps their features, in the order train, test.
    """
    _, used = read_layout(root, options, say)
    stored = {name: [image for image in used if image.stored == name] for name in ROLES}
    return {
        name: (tuple(image.image_id for image in images), tuple(image.path for image in images))
        for name, images in stored.items()
        if images
    }


def read_layout(
    root: Path, options: ImageOptions = _DEFAULTS, say: Callable[[str], object] | None = None
) -> tuple[Layout, list[ImageFile]]:
    """Find where the images and tables of a data set are, as `read_images` does, and say which images are used."""
    faults, options = Faults(), _in_one_form(options)
    found = _find(root, options, faults)
    _conclude(root, options, faults)
    for line in (*faults.notes, "; ".join(found.say())) if say else ():
        if line and say:
            say(line)
    return found.layout, [found.layout.images[index] for index in found.order]


def read_with_faults(
    root: Path, options: DatasetOptions = _DEFAULTS, further: Sequence[str] = ()
) -> tuple[Dataset, Faults]:
    """Read a data set as far as that is possible; see `read_dataset`.

    Returns:
        The data set, and what is wrong with it. With faults, a label may be `UNKNOWN`, and a group "".

    Raises:
        InputError: there is no data set, a table cannot be read as one of ids, or an option names what is not there.
    """
    faults, options = Faults(), _in_one_form(options)
    found = _find(root, options, faults)
    images, sheets = found.layout.images, found.sheets
    cells = _read_further(sheets, further, len(images))
    for sheet in sheets:
        if sheet.listing.table is not None:
            faults.add(*sheet.listing.table.find_duplicates(named(sheet.listing.header)))
    wanted = split_names(options.labels, "--labels")
    not_labels = {
        *(name for name in further if name not in (wanted or ())),
        *(sheet.split_column for sheet in sheets if sheet.split_column),
    }
    groups = find_groups([sheet.listing for sheet in sheets], images, found.roles, not_labels, options, faults)
    listings, folders = {}, {}
    for sheet in sheets:
        listing, name = sheet.listing, sheet.split or ROLES[0]
        taken = [column for column in further if column in not_labels and column in listing.columns]
        taken = [column for column in taken if listing.columns[column].likely]
        if taken and wanted is None:
            faults.warnings.append(
                f"{listing.path}: {listed(taken)} holds 0 and 1, but is named to split the images by, so it is not "
                "a label. To have it as both, name all labels with --labels."
            )
        used = not_labels | groups.columns
        kept = {label: column for label, column in listing.columns.items() if label not in used}
        listings[name] = replace(listing, columns=kept)
        folders[name] = [
            "" if image == NO_IMAGE else images[image].within.rpartition("/")[0].partition("/")[0]
            for image in listing.images.tolist()
        ]
    learnt = {
        name: np.array([role == ROLES[0] for role in sheet.roles], bool)
        for name, sheet in zip(listings, sheets, strict=True)
        if ROLES[0] in sheet.roles
    }
    label_options = LabelOptions(wanted, options.separator, options.unknown)
    labels = read_labels(listings, folders, learnt, label_options, faults)
    if not (groups.values != "").any():
        ids = [image.within for image, role in zip(images, found.roles, strict=True) if role == ROLES[0]]
        questions = (suggest_groups(sheet.listing, ids, not_labels | labels.columns) for sheet in sheets)
        faults.warnings += [question for question in questions if question][:1]
    values = np.full((len(images), len(labels.names)), UNKNOWN, np.uint8)
    for name, of_table in labels.values.items():
        own = listings[name].images
        if of_table is not None:
            values[own[own != NO_IMAGE]] = of_table[own != NO_IMAGE]
    for sheet in sheets if labels.names else ():
        if labels.values[sheet.split or ROLES[0]] is None and ROLES[0] in sheet.roles and sheet.split != ROLES[0]:
            what = f"its {len(sheet.roles)} images are to learn from, but have no labels"
            remedy = "Add a table of them, such as valid.csv, or move them out of the data set."
            faults.add(Fault("label", sheet.listing.path, what, remedy))
    splits = {role: _gather(found, role, values, groups, cells) for role in ROLES if role in found.roles}
    said = [*found.say(), f"labels: {labels.said or 'none'}", f"groups: {groups.said}"]
    understood = (*dict.fromkeys(faults.notes), "; ".join(said))
    return Dataset(root, labels.names, splits, understood, groups.said, groups.guessed), faults


def _in_one_form(options: _Options) -> _Options:
    """Write what names columns in the Unicode form in which tables are read."""
    given = {name: getattr(options, name, None) for name in OF_DATASET}
    changed: dict[str, Any] = {name: normalize("NFC", text) for name, text in given.items() if type(text) is str}
    return replace(options, **changed)


def _gather(
    found: _Found, role: str, values: np.ndarray, groups: FoundGroups, cells: Mapping[str, np.ndarray]
) -> Split:
    """Gather the images of one role: values uint8 (M, L) and groups are of all images."""
    images = found.layout.images
    own = np.array([index for index in found.order if found.roles[index] == role], np.int64)
    labels = values[own]
    without = [index for index in found.without_row if found.roles[index] == role]
    headers = {name for sheet in found.sheets if role in sheet.roles for name in sheet.listing.header}
    of_split = groups.values[own]
    if (of_split != "").any():
        # An image that no table gives a group is a group of its own.
        lone = (np.isin(own, without) | groups.lone[own]) & (of_split == "")
        of_split = np.where(lone, np.array([images[index].image_id for index in own], np.str_), of_split)
    return Split(
        name=role,
        image_ids=tuple(images[index].image_id for index in own),
        paths=tuple(images[index].path for index in own),
        labels=labels if labels.size and (labels != UNKNOWN).any() else None,
        groups=of_split if (of_split != "").any() else None,
        stored=np.array([images[index].stored for index in own], np.str_),
        columns={name: of_images[own] for name, of_images in cells.items() if name in headers},
        without_row=tuple(images[index].image_id for index in without),
        without_image=tuple(image_id for sheet in found.sheets for image_id in sheet.without_image(role)),
    )


def _conclude(root: Path, options: ImageOptions, faults: Faults) -> None:
    """Log the warnings, and refuse the faults."""
    for warning in faults.warnings:
        logger.warning("%s", warning)
    named_options = {name: getattr(options, name, None) for name in OF_DATASET}
    words = option_words({name: value for name, value in named_options.items() if value != getattr(_DEFAULTS, name)})
    faults.refuse(f": {write_command('features describe', root, *words)} lists them all")


def _find(root: Path, options: ImageOptions, faults: Faults) -> _Found:
    """Find images and tables, join them, and say what each image is for."""
    try:
        layout = find_layout(root, options.table, faults)
    except OSError as error:  # no right to look into the folder, a name that is too long
        where = error.filename or root
        raise InputError(f"{where} cannot be read: {error.strerror}. Fix its permissions, or give another.") from None
    sheets = [
        sheet
        for split, path in (*((split, layout.tables[split]) for split in layout.tables), (None, layout.shared))
        if path is not None and (sheet := _read_sheet(layout, split, path, options, faults))
    ]
    if not any(sheet.listing.header for sheet in sheets):
        _refuse_column_options(root, options)
    if layout.shared is None:
        sheets += [
            _list_folder(layout, split)
            for split in dict.fromkeys(i.split for i in layout.images)
            if split not in layout.tables
        ]
    sheets.sort(key=lambda sheet: (sheet.split != ROLES[0], sheet.split == "test"))
    roles, order = [""] * len(layout.images), list[int]()
    for sheet in sheets:
        for row, (index, role) in enumerate(zip(sheet.listing.images.tolist(), sheet.roles, strict=True)):
            if index == NO_IMAGE:
                continue
            if roles[index]:
                place = layout.images[index].place
                what = f"{shown(place)} is also in another table of {root}"
                line = sheet.listing.lines[row] if sheet.listing.lines else None
                faults.add(Fault("id", sheet.listing.path, what, "Keep it in one of them.", line))
            else:
                roles[index] = role
                order.append(index)
    without = [index for index, role in enumerate(roles) if not role]
    if without:
        place_without_row(layout, without, roles, options.unlabelled, faults)
        order += [index for index in without if roles[index]]
    refuse_clashes(layout, roles)
    return _Found(layout, sheets, order, roles, without)


def _read_sheet(layout: Layout, split: str | None, path: Path, options: ImageOptions, faults: Faults) -> _Sheet | None:
    """Read a table, and join it with the images that it may name; None, and a fault, if there are none."""
    own = np.array(layout.select(split), np.int64)
    if not len(own):
        what = f"there is no folder {layout.root / str(split)}"
        faults.add(Fault("image", path, what, "Add its images, or remove the file."))
        return None
    listing = read_listing(path, layout.pool(split), options.id_column, faults)
    images = np.where(listing.images == NO_IMAGE, NO_IMAGE, own[listing.images])
    listing = replace(listing, images=images)
    missing = np.flatnonzero(images == NO_IMAGE).tolist()
    skipped: tuple[str, ...] = ()
    if missing:
        first = first_few([f"{shown(listing.image_ids[row])} in line {listing.lines[row]}" for row in missing], 3)
        what = f"{len(missing)} of {len(images)} ids have no image (first: {first}; images are such as "
        what += f"{shown(layout.images[int(own[0])].place)})"
        if options.missing == "skip":
            faults.warnings.append(f"{path}: {what}; they are skipped.")
            skipped = tuple(listing.image_ids[row] for row in missing)
            listing = listing.keep(np.flatnonzero(images != NO_IMAGE).tolist())
            images = listing.images
        else:
            remedy = (
                "Add the images, skip such rows with --missing skip, or name the right column with --id-column. An id "
                "is the image's path relative to its folder, without extension."
            )
            of_files = {image.within.rpartition("#")[0]: image.within for image in layout.images}
            of_file = next(filter(None, (of_files.get(listing.image_ids[row]) for row in missing)), None)
            if of_file is not None:
                remedy = f"These are files of several images: give each image a row, such as {shown(of_file)}."
            faults.add(Fault("image", path, what, remedy, column=listing.id_column))
    splits = [split or (ROLES[0] if index == NO_IMAGE else layout.images[index].split) for index in images.tolist()]
    otherwise = [layout.roles.get(one, ROLES[0]) for one in splits]
    named_images = {*images.tolist()}
    is_left_out = split is None and options.unlabelled == "ignore"
    others = () if is_left_out else (i for index, i in enumerate(layout.images) if index not in named_images)
    beside = {image.split for image in others} | (layout.tables.keys() - {split})
    roles, column, said = read_roles(listing, options.split_column, otherwise, beside)
    return _Sheet(split, listing, roles, said, column, skipped)


def _list_folder(layout: Layout, split: str) -> _Sheet:
    """List the images of a split that has no table."""
    own = layout.select(split)
    images = [layout.images[index] for index in own]
    listing = Listing(layout.folders[split], np.array(own, np.int64), [image.image_id for image in images])
    return _Sheet(split, listing, [layout.roles[split]] * len(images))


def _refuse_column_options(root: Path, options: ImageOptions) -> None:
    """Refuse options that name columns where there is no table."""
    for name in ("id_column", "group_column", "split_column"):
        if getattr(options, name, None) is not None:
            what = f"--{name.replace('_', '-')}"
            raise InputError(
                f"{what} names a column, but {root} has no train.csv or test.csv. Add it, or leave {what} out."
            )


def _read_further(sheets: Sequence[_Sheet], names: Sequence[str], count: int) -> dict[str, np.ndarray]:
    """Read the cells of columns by name: str (M,) each, "" where a table does not have it; the first one must."""
    first = next((sheet.listing for sheet in sheets if sheet.listing.header), None)
    missing = [name for name in names if first is None or first.table is None or name not in named(first.header)]
    if missing:
        where, header = (first.path, first.header) if first else (sheets[0].listing.path, ())
        raise InputError(
            f"{where} has no column {shown(missing[0])} to split the images by. Its columns: {listed(named(header))}. "
            "Name some of them, one cell for each image."
        )
    cells = {}
    for name in names:
        values = [""] * count
        for listing in (sheet.listing for sheet in sheets):
            if listing.table is not None and name in listing.header:
                for index, cell in zip(listing.images.tolist(), listing.table.cells(name), strict=True):
                    if index != NO_IMAGE:
                        values[index] = cell
        cells[name] = np.array(values, dtype=np.str_)
    return cells
