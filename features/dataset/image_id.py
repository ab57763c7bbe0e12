"""Say what an image id is: how file names and CSV cells become one."""

import re
from pathlib import Path

from features.dataset.table import cell_error

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
DICOM_SUFFIX = ".dcm"
# An id in a CSV may carry any of these. DICOM too: who converts the files to PNG need not edit the CSV as well.
ID_SUFFIXES = frozenset((*IMAGE_SUFFIXES, DICOM_SUFFIX))
_DRIVE = re.compile(r"[A-Za-z]:")


def split_suffix(name: str) -> tuple[str, str]:
    """Split a file name from its extension.

    Args:
        name: "a.b.PNG", also behind folders ("sub/a.b.PNG").

    Returns:
        The rest and the extension in lower case ("a.b", ".png"). A name without extension, or of nothing else (".png"),
        is returned whole, with "".
    """
    stem, dot, suffix = name.rpartition(".")
    if not dot or not stem or stem.endswith("/"):
        return name, ""
    return stem, f".{suffix.lower()}"


def to_image_id(cell: str) -> str:
    """Turn what a CSV calls an image into the image's id.

    Args:
        cell: "a17", "a17.png", "sub/a17.PNG", "./sub//a17"; without blanks around.

    Returns:
        The id in its one form: no image extension, no empty or "." parts ("sub/a17"). May be "".
    """
    stem, suffix = split_suffix(cell)
    image_id = stem if suffix in ID_SUFFIXES else cell
    if "/" in image_id or image_id == ".":
        image_id = "/".join(part for part in image_id.split("/") if part not in ("", "."))
    return image_id


def read_id(path: Path, line: int, column: str, cell: str) -> str:
    """Read one id.

    Args:
        path: the CSV file, for the message; so are line and column.
        line: the row's line, 1-based.
        column: name of the id column.
        cell: what it holds.

    Returns:
        The id in its one form, not blank.

    Raises:
        InputError: the id is blank, or leads outside the data set.
    """
    if _leads_outside(cell):
        raise cell_error(
            path,
            line,
            column,
            cell,
            "An id must stay inside the data set: write the image's path relative to its folder, with / between the "
            'parts, without "..", drive or leading slash.',
        )
    image_id = to_image_id(cell)
    if not image_id:
        raise cell_error(path, line, column, cell, "Every row needs an id: write it, or remove the row.")
    return image_id


def _leads_outside(cell: str) -> bool:
    """Tell whether what a CSV calls an image could name a file outside the data set's folder.

    Args:
        cell: as in the CSV.

    Returns:
        True for an absolute path, "..", a backslash, a drive ("C:"), or NUL.
    """
    return (
        cell.startswith("/")
        or "\\" in cell
        or "\0" in cell
        or _DRIVE.match(cell) is not None
        or (".." in cell and ".." in cell.split("/"))
    )
