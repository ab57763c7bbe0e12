"""Decode one slice of a NIfTI volume, as a radiologist looks at it."""

import gzip
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from extract.images.reading import UnreadableImage
from extract.scans.levels import show
from extract.scans.scan import Scan
from extract.scans.windows import Window
from features.common.errors import naming_packages

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

#: Volumes that stay decoded: readers work on neighbouring slices, at most of two volumes at a time.
_KEPT = 2


@dataclass(frozen=True)
class _Volume:
    """A decoded volume.

    Attributes:
        stored: (X, Y, Z) as stored, axes to the patient's right, to the front and to the head.
        slope, intercept: what turns stored values into values.
        shown: least and largest value to show, as the header says; None where it does not.
    """

    stored: np.ndarray
    slope: float
    intercept: float
    shown: tuple[float, float] | None


@dataclass
class _Entry:
    """A volume of the cache, decoded by the first thread that needs it while the others wait."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    volume: _Volume | None = None


_volumes: OrderedDict[bytes, _Entry] = OrderedDict()
_volumes_lock = threading.Lock()


def read_nifti(encoded: bytes, index: int | None, windows: Sequence[Window], max_pixels: int) -> Scan:
    """Decode one axial slice: the patient's right on the left of the image, the front at the top.

    Args:
        encoded: content of the file, compressed or not.
        index: number of the slice from the feet, from 0.
        windows: one, or three for the colour channels; none: the range that the header names.
        max_pixels: rows x columns above which it is not decoded.

    Raises:
        UnreadableImage: it is damaged, not a volume of numbers, too large, or has no such slice.
    """
    key = xxhash.xxh3_128_digest(encoded)
    volume = _decoded(key, encoded)
    columns, rows, slices = volume.stored.shape
    if index is None or index >= slices:
        raise UnreadableImage(f"the volume has {slices} slices, and the id names {'none' if index is None else index}")
    if rows * columns > max_pixels:
        raise UnreadableImage(f"it has {rows:,} x {columns:,} pixels, more than --max-pixels {max_pixels} allows")
    values = volume.stored[::-1, ::-1, index].T.astype(np.float64) * volume.slope + volume.intercept
    if not windows:
        if volume.shown is None:
            raise UnreadableImage("its header names no range to show (cal_min, cal_max). Give --window CENTRE/WIDTH")
        low, high = volume.shown
        windows = (Window((low + high) / 2, high - low),)
    return Scan(show(windows, values), owner=key.hex(), position=float(index))


def _decoded(key: bytes, encoded: bytes) -> _Volume:
    """Decode a volume, or take it from the last ones."""
    with _volumes_lock:
        entry = _volumes.setdefault(key, _Entry())
        _volumes.move_to_end(key)
        while len(_volumes) > _KEPT:
            _volumes.popitem(last=False)
    with entry.lock:
        if entry.volume is None:
            entry.volume = _decode(encoded)
        return entry.volume


def _decode(encoded: bytes) -> _Volume:
    """Decode a volume and turn its axes."""
    with naming_packages():
        import nibabel

    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # else each oddity of a header is a line on stderr
    try:
        content = gzip.decompress(encoded) if encoded.startswith(b"\x1f\x8b") else encoded
        kind = nibabel.nifti2.Nifti2Image if content.startswith(b"n+2\0", 4) else nibabel.nifti1.Nifti1Image
        image = kind.from_bytes(content)
    except Exception:  # noqa: BLE001 - damage can fail anywhere inside nibabel and gzip
        raise UnreadableImage("the NIfTI file is damaged or cut off") from None
    _refuse_others(image, len(content))
    try:
        proxy: Any = image.dataobj
        slope, intercept = proxy.slope, proxy.inter
        whole = kind(np.asarray(proxy.get_unscaled()).reshape(image.shape[:3]), image.affine)
        stored = np.asarray(nibabel.funcs.as_closest_canonical(whole).dataobj)
    except Exception:  # noqa: BLE001 - as above
        raise UnreadableImage("the NIfTI file is damaged or cut off") from None
    low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
    return _Volume(stored, float(slope), float(intercept), (low, high) if low < high else None)


def _refuse_others(image: "Nifti1Image", size: int) -> None:
    """Refuse what is not one volume of numbers."""
    shape, kind = image.shape, image.get_data_dtype()
    if len(shape) < 3 or math.prod(shape[3:]) != 1:
        raise UnreadableImage(f"it is not one volume: its shape is {' x '.join(map(str, shape))}")
    if kind.kind not in "iuf":
        raise UnreadableImage(f"its values are not plain numbers ({kind})")
    if math.prod(shape) * kind.itemsize > size:
        raise UnreadableImage("the NIfTI file is damaged or cut off: its header names more voxels than it holds")
