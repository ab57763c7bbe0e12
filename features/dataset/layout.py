"""Find the folders of images and the tables of a data set, by the names that people give them."""

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.common.errors import InputError
from features.dataset.faults import Fault, Faults, listed, shown
from features.dataset.folder import collect_images, has_image_suffix, is_junk, no_image
from features.dataset.formats import Listing
from features.dataset.ids import Pool
from features.dataset.table import TABLE_SUFFIXES, named, words_of

#: What the images of a data set are for, in order: to learn from, and to predict.
ROLES = ("train", "test")
#: Words that say what images are for.
_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
# Words of folders and tables that hold something else than images and their labels.
_OTHERS = frozenset(
    ["mask", "masks", "segmentation", "segmentations", "bbox", "box", "boxes", "metadata", "meta", "group", "groups"]
)
# Words of tables that hold labels, where several tables speak of one split.
_OF_LABELS = frozenset(["label", "labels", "truth", "groundtruth"])
#: Names of columns that may say what images are for.
_SPLIT_COLUMNS = ("split", "fold", "set", "subset", "partition", "phase")
_SUBMISSION = "submission"
# Endings of tables and annotations that are not read.
_OTHER_TABLES = frozenset([".json", ".jsonl", ".parquet", ".feather", ".xls", ".ods", ".pkl", ".xml"])


@dataclass(frozen=True)
class ImageFile:
    """One image of a data set.

    Attributes:
        split: "train", "val" or "test": what the name of its folder says; "train" where no folder says anything.
        image_id: its id, unique among those that are `stored` together.
        stored: the folder of the cache that keeps its features: "train" or "test".
        path: the file.
        within: its path relative to its split's folder, without extension.
        place: its path relative to the data set, without extension.
    """

    split: str
    image_id: str
    stored: str
    path: Path
    within: str
    place: str


@dataclass(frozen=True)
class Layout:
    """Where the images and tables of a data set are.

    Attributes:
        root: the data set.
        images: all images; those that are stored together stand together, sorted by folder and id.
        roles: by split that has a folder or a table, "train" or "test": what it is taken for.
        tables: by split, the table of its images.
        shared: a table of all images; None where there is none.
        folders: by split, the folder of its images.
        has_folders: whether the names of folders say what images are for.
    """

    root: Path
    images: Sequence[ImageFile]
    roles: Mapping[str, str]
    tables: Mapping[str, Path]
    shared: Path | None
    folders: Mapping[str, Path]
    has_folders: bool

    def select(self, split: str | None) -> list[int]:
        """The indices of the images that a table of a split may name; None for a table of all."""
        everything = split is None or not self.has_folders
        return [index for index, image in enumerate(self.images) if everything or image.split == split]

    def pool(self, split: str | None) -> Pool:
        """The images of `select`, for the cells of that table."""
        images = [self.images[index] for index in self.select(split)]
        return Pool([image.within for image in images], [image.place for image in images])


def split_word(name: str) -> str | None:
    """Say which split a name speaks of, if one: `Training`, `stage_2_test`, `ISIC_2019_Training_Input`, `VALID`."""
    words = words_of(name)
    found = {_WORDS[word] for word in words if word in _WORDS}
    return found.pop() if len(found) == 1 and not _OTHERS & words else None


def find_layout(root: Path, table: Path | None, faults: Faults) -> Layout:
    """Find the images and tables of a data set.

    Args:
        root: its folder.
        table: the table of all images; None looks for tables.
        faults: gets what is wrong with names of images, and what was understood.

    Raises:
        InputError: there is no such folder or no image, or two folders or tables may be the same one.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {what}. Give the folder of the data set: the one that holds train/ or test/.")
    bases, folders = [root], _choose_folders(_subfolders(root), faults)
    below = _subfolders(root)
    if not folders and len(below) == 1 and not any(has_image_suffix(path.name) for path in root.iterdir()):
        bases, folders = [root, *below], _choose_folders(_subfolders(below[0]), faults)
    if table is None:
        tables, shared = _choose_tables(bases, faults)
    else:
        tables, shared = {}, table if table.exists() else root / table
    for base in bases if folders else ():
        _name_unread(base, [*folders.values(), *bases], faults.notes if "train" in folders else faults.warnings)
    roles = _give_roles({*folders, *tables})
    if "val" in roles:
        faults.notes.append(f"{folders.get('val') or tables['val']}: {_VAL_SAYS[roles['val']]}")
    has_folders = bool(folders)
    if not folders:
        folders = {"train": bases[-1]}
        roles.setdefault("train", "train")
        if not tables.keys() - {"train"}:
            faults.notes.append(f"images: all in {bases[-1]}: none of its folders is called train or test")
    images: list[ImageFile] = []
    for split, folder in folders.items():
        found = collect_images(folder, faults)
        if not found:
            faults.refuse()
            raise InputError(no_image(folder))
        prefix = f"{folder.name}/" if split == "val" and roles["val"] in folders else ""
        under = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        for within in sorted(found):
            images.append(ImageFile(split, prefix + within, roles[split], found[within], within, under + within))
    images.sort(key=lambda image: ROLES.index(image.stored))
    places: dict[tuple[str, str], str] = {}
    for image in images:
        if places.setdefault((image.stored, image.image_id), image.place) != image.place:
            raise InputError(
                f"{root}: {places[image.stored, image.image_id]} and {image.place} have the same id "
                f"({shown(image.image_id)}) among the images that are learnt from. Rename one of the folders."
            )
    return Layout(root, images, roles, tables, shared, folders, has_folders)


#: What is said of images for validation, by what they are taken for.
_VAL_SAYS = {
    "test": "taken for the test images, as there are no others",
    "train": "learnt from together with train: folds validate, and there are test images beside",
}


def _give_roles(splits: set[str]) -> dict[str, str]:
    """Say what each split is taken for."""
    return {split: ("train" if "test" in splits else "test") if split == "val" else split for split in splits}


def _subfolders(folder: Path) -> list[Path]:
    """List the folders of a folder, but not hidden ones and what systems leave behind."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_junk(path.name))


def _choose_folders(folders: Sequence[Path], faults: Faults) -> dict[str, Path]:
    """Choose the folder of each split, in the order train, val, test: a name that says no more goes before others."""
    chosen = {}
    for split in dict.fromkeys(_WORDS.values()):
        own = [folder for folder in folders if split_word(folder.name) == split]
        best = [one for one in own if one.name == split] or [one for one in own if one.name.lower() in _WORDS] or own
        if len(best) > 1:
            raise InputError(
                f"{best[0].parent}: each of the folders {', '.join(folder.name for folder in best)} may hold the "
                f"{split} images. Rename the right one to {split}."
            )
        if best:
            chosen[split] = best[0]
            if len(own) > 1:
                others = listed([folder.name for folder in own if folder != best[0]])
                faults.warnings.append(
                    f"{best[0].parent}: the {split} images are those of {best[0].name}, not of {others}"
                )
    return chosen


def _name_unread(base: Path, read: Sequence[Path], says: list[str]) -> None:
    """Say which images beside the folders of splits are not read."""
    unread = [folder.name for folder in _subfolders(base) if folder not in read and _holds_image(folder)]
    unread += [path.name for path in sorted(base.iterdir()) if has_image_suffix(path.name) and path.is_file()]
    if unread:
        says.append(f"{base}: images that are not read, as they are in no folder of a split: {listed(unread)}")


def _holds_image(folder: Path) -> bool:
    """Whether a folder, or one below, holds a file with an image's ending."""
    return any(has_image_suffix(name) and not is_junk(name) for _, _, names in os.walk(folder) for name in names)


def _choose_tables(bases: Sequence[Path], faults: Faults) -> tuple[dict[str, Path], Path | None]:
    """Choose the table of each split, or the one of all images."""
    found = [path for base in bases for path in sorted(base.iterdir()) if is_table(path.name)]
    of_split: dict[str, list[Path]] = {}
    for path in found:
        split = "test" if _SUBMISSION in words_of(path.name) else split_word(_stem(path))
        if split is not None or not _OTHERS & words_of(path.name):
            of_split.setdefault(split or "", []).append(path)
    chosen = {}
    for split, own in of_split.items():
        exact = [path for path in own if _stem(path) == split] or [p for p in own if _stem(p).lower() in _WORDS]
        labels = [path for path in own if words_of(path.name) & _OF_LABELS]
        best = exact or labels or [path for path in own if _SUBMISSION not in words_of(path.name)] or own
        if len(best) > 1:
            raise InputError(
                f"{best[0].parent}: each of the tables {', '.join(path.name for path in best)} may name the "
                f"{split + ' ' if split else ''}images and their labels. Name the right one with --table."
            )
        chosen[split] = best[0]
    shared = chosen.pop("", None)
    if "train" in chosen:
        shared = None
    unread = [path.name for path in found if path not in (*chosen.values(), shared)]
    unread += [path.name for base in bases for path in sorted(base.iterdir()) if path.suffix.lower() in _OTHER_TABLES]
    if unread:
        faults.notes.append(
            f"{bases[-1]}: tables that are not read: {listed(unread)} (--table names another, --groups one of groups)"
        )
    return {split: chosen[split] for split in dict.fromkeys(_WORDS.values()) if split in chosen}, shared


def read_roles(
    listing: Listing, wanted: str | None, otherwise: Sequence[str], beside: Collection[str]
) -> tuple[Sequence[str], str, str]:
    """Read what the images of a table's N rows are for.

    Args:
        listing: the table.
        wanted: name of the column that says so; None recognises it by name and cells.
        otherwise: the roles where no column says so.
        beside: the splits of the images that the table does not name.

    Returns:
        N roles; the column, or ""; and what was understood, in words.

    Raises:
        InputError: the column is missing, or holds other words.
    """
    header = listing.header if listing.table is not None else ()
    if wanted is not None and wanted not in header and header:
        raise InputError(
            f"{listing.path} has no column {shown(wanted)}. Its columns: {listed(named(header))}. Name one of them "
            "with --split-column."
        )
    for name in header if wanted is None else [wanted]:
        if wanted is None and name.casefold() not in _SPLIT_COLUMNS:
            continue
        cells = listing.table.cells(name) if listing.table else []
        splits = [_WORDS.get(cell.lower()) for cell in cells]
        if None in splits:
            if wanted is None and 2 * splits.count(None) >= len(splits):
                continue
            row = splits.index(None)
            raise InputError(
                f"{listing.path}, line {listing.lines[row]}, column {name}: received {shown(cells[row])}. Write one of "
                f"{', '.join(_WORDS)}."
            )
        roles = _give_roles({split for split in splits if split} | ({"test"} & {*beside}))
        counts = Counter(splits)
        said = ", ".join(f"{word} {count:,}" for word, count in counts.items())
        val = f"; val is taken for {roles['val']}" if "val" in roles else ""
        return [roles[split] for split in splits if split], name, f"splits: {shown(name)} ({said}{val})"
    return otherwise, "", ""


def place_without_row(layout: Layout, without: Sequence[int], roles: list[str], rule: str, faults: Faults) -> None:
    """Say, in place, what images without a row are for, by --unlabelled."""
    tables = ", ".join(path.name for path in (*layout.tables.values(), layout.shared) if path is not None)
    first = layout.images[without[0]].path
    what = f"{len(without)} of {len(layout.images)} images have no row in {tables} (first: {first})"
    if rule == "error":
        faults.add(Fault("image", layout.root, what, "Add their rows, or move the images out of the folder."))
    elif rule == "ignore":
        faults.warnings.append(f"{layout.root}: {what}; they are left out.")
    else:
        others = "--unlabelled ignore leaves them out, --unlabelled error refuses them"
        faults.warnings.append(f"{layout.root}: {what}; they are predicted like test images ({others}).")
    for index in without:
        roles[index] = "" if rule == "ignore" else ROLES[1]


def refuse_clashes(layout: Layout, roles: Sequence[str]) -> None:
    """Refuse one id for two images where a table, not the folder, says what an image is for."""
    moved = [image for image, role in zip(layout.images, roles, strict=True) if role and role != image.stored]
    ids: dict[str, str] = {}
    for image, role in zip(layout.images, roles, strict=True):
        if moved and role and ids.setdefault(image.image_id, image.place) != image.place:
            raise InputError(
                f"{layout.root}: {ids[image.image_id]} and {image.place} have the same id ({shown(image.image_id)}), "
                f"and {moved[0].place} is not for what its folder says. Rename one of the two, or --unlabelled ignore."
            )


def is_table(name: str) -> bool:
    """Whether a file is a table, by its name."""
    return not is_junk(name) and name.lower().removesuffix(".gz").endswith(TABLE_SUFFIXES)


def _stem(path: Path) -> str:
    """The name of a table without its endings."""
    name = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
    return name.rpartition(".")[0]
