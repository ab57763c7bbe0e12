"""One image of a DICOM file or a NIfTI volume: which format it is, and which frame an id names."""

import re
from dataclasses import dataclass

import numpy as np

from extract.images.reading import UnreadableImage
from extract.scans.windows import WINDOW_CHOICES, parse_windows
from features.store.recipe import NO_WINDOW

_FRAME = re.compile(r"#z?(\d+)\Z")
_GZIP = b"\x1f\x8b"
#: The marks of NIfTI-1 and NIfTI-2 in one file, and where they stand.
_NIFTI_MARKS = ((344, b"n+1\0"), (4, b"n+2\0"))


@dataclass(frozen=True)
class Scan:
    """One image of a scan.

    Attributes:
        pixels: uint8 (H, W) grey, or (H, W, 3) RGB.
        owner: whom it is of: the patient's id, else the study's, else "". Never written down.
        position: where it lies along the body, in mm or as the number of the slice; None where that is unknown.
        repaired: whether its values had wrapped around, and were brought back.
    """

    pixels: np.ndarray
    owner: str = ""
    position: float | None = None
    repaired: bool = False


def is_scan(encoded: bytes) -> bool:
    """Whether a file's bytes are DICOM or NIfTI."""
    return _is_dicom(encoded) or is_nifti(encoded)


def is_nifti(encoded: bytes) -> bool:
    """Whether a file's bytes are a NIfTI volume, perhaps compressed: no image format begins as gzip does."""
    return encoded.startswith(_GZIP) or any(encoded.startswith(mark, place) for place, mark in _NIFTI_MARKS)


def read_scan(encoded: bytes, image_id: str, window: str, max_pixels: int) -> Scan:
    """Decode the image of a scan that an id names.

    Args:
        encoded: content of a DICOM file or of a NIfTI volume.
        image_id: its id; of several frames it ends in "#0007", of slices in "#z017".
        window: what `--window` says, in the form of `window_words`.
        max_pixels: rows x columns above which it is not decoded.

    Raises:
        UnreadableImage: it is damaged, not an image, not supported, too large, or its values do not suit the window.
    """
    if window == NO_WINDOW:
        raise UnreadableImage(f"it is a scan, and no window is given. Give --window {WINDOW_CHOICES}")
    windows = parse_windows(window)
    named = _FRAME.search(image_id)
    frame = int(named[1]) if named else None
    if _is_dicom(encoded):
        from extract.scans.dicom import read_dicom

        return read_dicom(encoded, frame, windows, max_pixels)
    from extract.scans.nifti import read_nifti

    return read_nifti(encoded, frame, windows, max_pixels)


def _is_dicom(encoded: bytes) -> bool:
    """DICOM has DICM after 128 bytes of preamble (DICOM PS3.10, 7.1)."""
    return encoded.startswith(b"DICM", 128)
