"""Find the images of a folder by their ids."""

import os
from collections.abc import Iterator
from pathlib import Path

from features.common.errors import InputError
from features.dataset.image_id import DICOM_SUFFIX, ID_SUFFIXES, IMAGE_SUFFIXES, split_suffix


def scan_images(folder: Path) -> dict[str, Path]:
    """Find all images of a folder and its subfolders.

    Hidden files and folders are left out, and so are files that are no images. Links are followed.

    Args:
        folder: an existing folder.

    Returns:
        The path of each image by its id: its POSIX path relative to the folder, without extension. Not empty,
        unordered.

    Raises:
        InputError: no image; two images with the same id; a DICOM file without an image of the same id; a name that is
            not UTF-8 or holds a backslash; a link that leads nowhere or in a circle; a folder that cannot be read.
    """
    images: dict[str, Path] = {}
    dicoms: dict[str, Path] = {}
    for entry, prefix in _walk(folder):
        stem, suffix = split_suffix(entry.name)
        if suffix not in ID_SUFFIXES:
            continue
        image_id = prefix + stem
        path = Path(entry.path)
        _check_file(entry, image_id, path)
        if suffix == DICOM_SUFFIX:
            dicoms[image_id] = path
        elif image_id in images:
            first, second = sorted((images[image_id], path))
            raise InputError(
                f"{first} and {second} have the same id, {image_id!r}. Keep one of them, or rename one (and its id)."
            )
        else:
            images[image_id] = path
    orphans = sorted(dicoms.keys() - images.keys())
    if orphans:
        raise InputError(
            f"{folder} holds {len(orphans)} DICOM file(s) without an image of the same id "
            f"(first: {dicoms[orphans[0]]}). "
            "DICOM is not supported yet. Convert them to PNG in the window that you want."
        )
    if not images:
        raise InputError(
            f"{folder} holds no image. Put images there ({', '.join(IMAGE_SUFFIXES)}), or remove the folder."
        )
    return images


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
            raise InputError(f"{where} cannot be read: {error.strerror}. Mend its permissions, or remove it.") from None


def _check_file(entry: os.DirEntry[str], image_id: str, path: Path) -> None:
    """Refuse a file that cannot be opened as an image, or that no CSV could name."""
    if not entry.is_file():
        raise InputError(f"{path} is no file, or a link that leads nowhere. Replace it by the image, or remove it.")
    if not image_id.isascii():
        try:
            image_id.encode()
        except UnicodeEncodeError:
            raise InputError(f"the name of {str(path)!r} is not UTF-8. Rename the file or folder.") from None
    if "\\" in image_id:
        raise InputError(f"the name of {path} holds a backslash. Rename the file or folder.")
