"""Find the images of a folder, and say what an image id is: how file names and CSV cells become one."""

import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from features.common.errors import InputError
from features.common.text import first_few
from features.dataset.faults import Fault, Faults
from features.dataset.frames import DICOM_SUFFIXES, NIFTI_SUFFIXES, frame_suffixes, is_dicom_file

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp"),
    *(".gif", ".jp2", ".avif", ".heic", ".heif"),
)
#: Of files that may hold several images, called `ID#0002` or `ID#z017`.
SCAN_SUFFIXES = (*DICOM_SUFFIXES, *NIFTI_SUFFIXES)
# An id in a table may carry any of these.
_ID_SUFFIXES = frozenset((*IMAGE_SUFFIXES, *SCAN_SUFFIXES))
#: Endings of images that are not read: such files are counted and named, where others are passed over.
_UNREAD_SUFFIXES = frozenset(
    re.findall(
        r"\S+",
        ".svg .tga .ico .psd .xcf .exr .hdr .raw .cr2 .nef .dng .jxl .jls .eps .mha .mhd .nrrd .img .mat .npy .npz "
        ".svs .ndpi .pbm .pgm .ppm",
    )
)
# What systems leave in folders: thumbnails of a NAS, the other half of an archive of macOS, the index of a DICOM disc.
_JUNK = frozenset(("@eadir", "__macosx", "$recycle.bin", "thumbs.db", "desktop.ini", "dicomdir"))
logger = logging.getLogger(__name__)
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


def has_image_suffix(cell: str) -> bool:
    """Whether what a table calls an image ends as a file of an image does."""
    return _split_suffix(cell)[1] in _ID_SUFFIXES


def scan_images(folder: Path) -> dict[str, Path]:
    """Find all images of a folder and its subfolders; see `collect_images`.

    Raises:
        InputError: there is no image, or any fault; or a folder cannot be read.
    """
    faults = Faults()
    images = collect_images(folder, faults)
    faults.refuse()
    for warning in faults.warnings:
        logger.warning("%s", warning)
    if not images:
        raise InputError(no_image(folder))
    return images


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden, or what systems leave behind."""
    return name.startswith((".", "~$")) or name.lower() in _JUNK  # "~$" locks what Office has open


def no_image(folder: Path) -> str:
    """Say that a folder has no image, and which are read."""
    return f"{folder} holds no image. Put images there ({', '.join((*IMAGE_SUFFIXES, *SCAN_SUFFIXES))}), or remove it."


def collect_images(folder: Path, faults: Faults) -> dict[str, Path]:
    """Find all images of a folder and its subfolders.

    Hidden files and folders are left out, what systems leave behind (`@eaDir`, `Thumbs.db`), and files that are not
    images; those of them that have an image's ending are warned of. Links are followed. A file without a known ending
    is an image if it begins as DICOM does; those beside such files that do not are warned of.

    Args:
        folder: an existing folder.
        faults: gets two images with the same id; a name that is not UTF-8 or holds a backslash; a link that leads
            nowhere.

    Returns:
        The path of each image by its id, unordered: its POSIX path relative to the folder, without extension; of a
        file with several images, that path once for each id (`sub/a#0002`). Empty if there is none.

    Raises:
        InputError: a folder cannot be read, or is a link to a folder that contains it.
    """
    images: dict[str, Path] = {}
    scans: dict[str, Path] = {}
    unread: dict[str, list[str]] = {}
    bare: dict[str, list[str]] = {}
    folders_of_bare_scans = set()
    for entry, prefix in _walk(folder):
        stem, suffix = _split_suffix(entry.name)
        path = Path(entry.path)
        if suffix in _UNREAD_SUFFIXES:
            unread.setdefault(suffix, []).append(entry.path)
        elif suffix not in _ID_SUFFIXES:
            if (suffix and not suffix[1:].isdigit()) or not entry.is_file():
                continue
            if not is_dicom_file(path):
                bare.setdefault(prefix, []).append(entry.path)
                continue
            folders_of_bare_scans.add(prefix)
            stem, suffix = entry.name, SCAN_SUFFIXES[0]
        if suffix not in _ID_SUFFIXES:
            continue
        if fault := _file_fault(entry, prefix + stem, path):
            faults.add(fault)
            continue
        found = scans if suffix in SCAN_SUFFIXES else images
        for frame in frame_suffixes(path) if found is scans else ("",):
            image_id = unicodedata.normalize("NFC", prefix + stem + frame)  # macOS takes letters and accents apart
            if found.setdefault(image_id, path) != path:
                first, second = sorted((found[image_id], path))
                what = f"{second.name} has the same id, {image_id!r}"
                faults.add(Fault("image", first, what, "Keep one of them, or rename one (and its id)."))
    both = sorted(scans.keys() & images.keys())
    if both:
        faults.warnings.append(
            f"{folder}: {len(both)} images are there as DICOM or NIfTI and as a plain image; the plain one is read "
            f"(first: {images[both[0]]})."
        )
    if damaged := sorted(path for prefix in folders_of_bare_scans for path in bare.get(prefix, ())):
        faults.warnings.append(
            f"{folder}: {len(damaged):,} files without an ending do not begin as DICOM, as others beside them do, and "
            f"are not read (first: {damaged[0]})."
        )
    if unread:
        count = Counter({suffix: len(paths) for suffix, paths in unread.items()})
        kinds = first_few([f"{suffix} {number:,}" for suffix, number in count.most_common()])
        faults.warnings.append(
            f"{folder}: {count.total():,} files with an image's ending are not read ({kinds}; first: "
            f"{min(min(paths) for paths in unread.values())}). Read are {', '.join((*IMAGE_SUFFIXES, *SCAN_SUFFIXES))}."
        )
    return scans | images


def _split_suffix(name: str) -> tuple[str, str]:
    """Split a name from its extension: "sub/a.PNG" into "sub/a" and ".png", "a" and ".png" into themselves and ""."""
    stem, dot, suffix = name.rpartition(".")
    if not dot or not stem or stem.endswith("/"):
        return name, ""
    suffix = f".{suffix.lower()}"
    if suffix == ".gz" and stem.lower().endswith(".nii") and len(stem) > len(".nii"):
        return stem[: -len(".nii")], ".nii.gz"
    return stem, suffix


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
                    if is_junk(entry.name):
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
