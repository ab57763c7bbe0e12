"""Say which images one file holds: the frames of a DICOM file, the slices of a NIfTI volume. Only headers are read."""

import logging
import math
import warnings
import zlib
from pathlib import Path

from features.common.errors import naming_packages

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
#: Bytes of a DICOM file in which its header mostly ends; a longer header is parsed.
_HEAD = 32 * 1024
# NumberOfFrames (0028,0008) and Pixel Data (7FE0,0010), in little and in big endian.
_FRAMES_TAG = (b"\x28\x00\x08\x00", b"\x00\x28\x00\x08")
_PIXELS_TAG = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
# Deflated Explicit VR Little Endian: the header is compressed.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
#: More frames than any file holds: a header that names more is damaged.
_MOST_FRAMES = 100_000


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM by what it holds: DICM at byte 128, after the preamble (DICOM PS3.10, 7.1).

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_scan_file(path: Path) -> bool:
    """Whether a file that was found as an image is a scan by its name: DICOM files may have no ending."""
    return (
        not path.suffix or path.suffix[1:].isdigit() or path.name.lower().endswith((*DICOM_SUFFIXES, *NIFTI_SUFFIXES))
    )


def frame_suffixes(path: Path) -> tuple[str, ...]:
    """List what the ids of a file's images end in, after the id of the file itself.

    Args:
        path: a DICOM or NIfTI file.

    Returns:
        ("#0001", "#0002", ...) for a DICOM file of several frames; ("#z000", "#z001", ...) for the slices of a NIfTI
        volume, from the feet to the head; ("",) for a DICOM file of one image, and for a file whose header cannot be
        read or that holds no volume: the extraction says what is wrong with it.
    """
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        return _numbered("#z", 3, range(_slices(path)))
    frames = _frames(path)
    return _numbered("#", 4, range(1, frames + 1)) if frames > 1 else ("",)


def _numbered(mark: str, digits: int, numbers: range) -> tuple[str, ...]:
    """Write numbers with as many digits as the largest one needs, so that ids sort as the frames lie."""
    if not 0 < len(numbers) <= _MOST_FRAMES:
        return ("",)
    digits = max(digits, len(str(numbers[-1])))
    return tuple(f"{mark}{number:0{digits}d}" for number in numbers)


def _frames(path: Path) -> int:
    """Read the number of frames of a DICOM file; 0 where the header cannot be read or does not say."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        names_frames = any(tag in head for tag in _FRAMES_TAG)
        is_whole = any(tag in head for tag in _PIXELS_TAG) and _DEFLATED not in head
        if is_whole and not names_frames:  # so most files of one frame need no parsing, which costs far more
            return 0
    except OSError:
        return 0
    found = read_elements(path, "NumberOfFrames")
    return int(found[0]) if found and found[0].isdecimal() else 0


def read_elements(path: Path, *keywords: str) -> list[str]:
    """Read elements of a DICOM header, by keyword: texts, "" where one is missing; [] where it cannot be read."""
    with naming_packages():
        import pydicom
        from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(keywords))
            return [str(header.get(keyword) or "").strip() for keyword in keywords]
    except (BytesLengthException, InvalidDicomError, EOFError, NotImplementedError, OSError, zlib.error):
        return []
    except (AttributeError, KeyError, TypeError, ValueError):  # what pydicom raises on values that are no numbers
        return []


def _slices(path: Path) -> int:
    """Read the number of slices of a NIfTI volume along the body; 0 where it cannot be read or holds no volume."""
    with naming_packages():
        import nibabel
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
        from nibabel.wrapstruct import WrapStructError

    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # else each oddity of a header is a line on stderr
    try:
        kind = nibabel.nifti2 if nibabel.nifti2.Nifti2Image.path_maybe_image(path)[0] else nibabel.nifti1
        image = kind.load(path)
        axes = nibabel.orientations.io_orientation(image.affine)[:, 0].tolist()
        return int(image.shape[axes.index(2)]) if math.prod(image.shape[3:]) == 1 else 0
    except (ImageFileError, HeaderDataError, WrapStructError, EOFError, IndexError, OSError, ValueError, zlib.error):
        return 0
