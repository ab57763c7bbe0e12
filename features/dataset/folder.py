"""Find the images of a folder, and say what an image id is: how file names and CSV cells become one."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from features.common.errors import InputError
from features.dataset.table import Fault, Faults, Table, cell_fault, shown

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp"),
    *(".gif", ".jp2", ".avif"),
)
_DICOM_SUFFIX = ".dcm"
# An id in a CSV may carry any of these. DICOM too: who converts the files to PNG need not edit the CSV as well.
_ID_SUFFIXES = frozenset((*IMAGE_SUFFIXES, _DICOM_SUFFIX))
# A leading slash, a drive, a backslash, a NUL, or a part "..".
_OUTSIDE = re.compile(r"^/|^[A-Za-z]:|[\\\0]|(?:^|/)\.\.(?:/|\Z)")


def to_image_id(cell: str) -> str:
    """Turn what a CSV calls an image into the image's id.

    Args:
        cell: "a17", "a17.png", "sub/a17.PNG", "./sub//a17"; without blanks around.

    Returns:
        The id in its one form: no image extension, no empty or "." parts ("sub/a17"). May be "".
    """
    stem, suffix = _split_suffix(cell)
    image_id = stem if suffix in _ID_SUFFIXES else cell
    if "/" in image_id or image_id == ".":
        image_id = "/".join(part for part in image_id.split("/") if part not in ("", "."))
    return image_id


def refuse_id(cell: str) -> str:
    """Say what is wrong with what a CSV calls an image; "" if nothing is."""
    if _OUTSIDE.search(cell):
        return (
            "An id must stay inside the data set: write the image's path relative to its folder, with / between the "
            'parts, without "..", drive or leading slash.'
        )
    if "\r" in cell:  # pandas writes it unquoted, and reads it as the end of a line
        return "An id must not hold a carriage return: remove it."
    return "" if to_image_id(cell) else "Every row needs an id: write it, or remove the row."


def read_ids(table: Table, column: int, faults: Faults) -> dict[str, int]:
    """Give the row of each id of a CSV file's id column, in the order of the file.

    Ids that are blank, lead outside the data set or are duplicated are faults; their rows are left out.
    """
    path, name = table.path, table.header[column]
    rows: dict[str, int] = {}
    for row, cell in enumerate(table.columns[column]):
        image_id, remedy = to_image_id(cell), refuse_id(cell)
        if not remedy and rows.setdefault(image_id, row) != row:
            line = table.lines[rows[image_id]]
            remedy = f"Line {line} has the same id ({shown(image_id)}). Remove one of the two rows."
        if remedy:
            faults.add(cell_fault("id", path, table.lines[row], name, cell, remedy))
    return rows


def scan_images(folder: Path) -> dict[str, Path]:
    """Find all images of a folder and its subfolders; see `collect_images`.

    Raises:
        InputError: there is no image, or any fault; or a folder cannot be read.
    """
    faults = Faults()
    images = collect_images(folder, faults)
    faults.refuse()
    return images


def collect_images(folder: Path, faults: Faults) -> dict[str, Path]:
    """Find all images of a folder and its subfolders.

    Hidden files and folders are left out, and so are files that are not images. Links are followed.

    Args:
        folder: an existing folder.
        faults: gets two images with the same id; a DICOM file without an image of the same id; a name that is not
            UTF-8 or holds a backslash; a link that leads nowhere.

    Returns:
        The path of each image by its id: its POSIX path relative to the folder, without extension; unordered.

    Raises:
        InputError: there is no image; a folder cannot be read, or is a link to a folder that contains it.
    """
    images: dict[str, Path] = {}
    dicoms: dict[str, Path] = {}
    for entry, prefix in _walk(folder):
        stem, suffix = _split_suffix(entry.name)
        if suffix not in _ID_SUFFIXES:
            continue
        image_id, path = prefix + stem, Path(entry.path)
        if fault := _file_fault(entry, image_id, path):
            faults.add(fault)
        elif suffix == _DICOM_SUFFIX:
            dicoms[image_id] = path
        elif image_id in images:
            first, second = sorted((images[image_id], path))
            what = f"{second.name} has the same id, {image_id!r}"
            faults.add(Fault("image", first, what, "Keep one of them, or rename one (and its id)."))
        else:
            images[image_id] = path
    orphans = sorted(dicoms.keys() - images.keys())
    if orphans:
        what = f"{len(orphans)} DICOM file(s) without an image of the same id (first: {dicoms[orphans[0]]})"
        remedy = "DICOM is not supported yet. Convert them to PNG in the window that you want."
        faults.add(Fault("image", folder, what, remedy))
    if not images:
        faults.refuse()
        raise InputError(f"{folder} holds no image. Put images there ({', '.join(IMAGE_SUFFIXES)}), or remove it.")
    return images


def _split_suffix(name: str) -> tuple[str, str]:
    """Split a name from its extension: "sub/a.PNG" into "sub/a" and ".png", "a" and ".png" into themselves and ""."""
    stem, dot, suffix = name.rpartition(".")
    if not dot or not stem or stem.endswith("/"):
        return name, ""
    return stem, f".{suffix.lower()}"


def _walk(folder: Path) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Yield every visible file below a folder, with the prefix of its id ("" or "sub/")."""
    # os.scandir knows the kind of an entry; after Path.iterdir every file would cost a call of its own.
    pending: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(str(folder), "", ())]
    while pending:
        path, prefix, ancestors = pending.pop()
        try:
            status = os.stat(path)  # noqa: PTH116 - a Path for each folder only to ask this
            identity = (status.st_dev, status.st_ino)
            if identity in ancestors:
                raise InputError(f"{path} is a link to a folder that contains it. Remove the link.")
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        pending.append((entry.path, f"{prefix}{entry.name}/", (*ancestors, identity)))
                    else:
                        yield entry, prefix
        except OSError as error:
            where = error.filename or path
            raise InputError(f"{where} cannot be read: {error.strerror}. Fix its permissions, or remove it.") from None


def _file_fault(entry: os.DirEntry[str], image_id: str, path: Path) -> Fault | None:
    """Say why a file cannot be opened as an image, or named by a CSV file; None if it can."""
    if not entry.is_file():
        what = "it is not a file, or it is a link that leads nowhere"
        return Fault("image", path, what, "Replace it by the image, or remove it.")
    try:
        image_id.encode()
    except UnicodeEncodeError:
        return Fault("image", Path(ascii(str(path))), "the name is not UTF-8", "Rename the file or folder.")
    if "\\" in image_id:
        return Fault("image", path, "the name holds a backslash", "Rename the file or folder.")
    if "\r" in image_id:
        return Fault("image", Path(ascii(str(path))), "the name holds a carriage return", "Rename the file or folder.")
    return None
