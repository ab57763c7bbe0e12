"""Decode one slice of a NIfTI volume, as a radiologist looks at it."""

import gzip
import io
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from extract.images.memory import naming_damage
from extract.images.reading import UnreadableImage
from extract.scans.levels import show
from extract.scans.scan import Scan
from extract.scans.windows import Window
from features.common.errors import naming_packages

#: Volumes that stay decoded: readers work on neighbouring slices, at most of two volumes at a time.
_KEPT = 2
#: Bytes of the larger header, of NIfTI-2.
_HEADER = 540
#: Bytes that a file may hold beside its voxels: extensions of the header, and what is left over behind.
_MOST_BESIDE = 1 << 24
#: How many times longer than itself what comes out of Deflate may be (https://zlib.net/zlib_tech.html).
_MOST_DEFLATED = 1032
_DAMAGED = "the NIfTI file is damaged or cut off"
_CUT_OFF = f"{_DAMAGED}: its header names more voxels than it holds"


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
    is_compressed = encoded.startswith(b"\x1f\x8b")
    with naming_damage(_DAMAGED):
        stream: io.BufferedIOBase = gzip.GzipFile(fileobj=io.BytesIO(encoded)) if is_compressed else io.BytesIO(encoded)
        start = stream.read(_HEADER)
        kind = nibabel.nifti2.Nifti2Image if start.startswith(b"n+2\0", 4) else nibabel.nifti1.Nifti1Image
        header = kind.header_class(start[: kind.header_class.sizeof_hdr])
        shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
    _refuse_others(shape, dtype)
    needed = offset + math.prod(shape) * dtype.itemsize
    if needed > len(encoded) * (_MOST_DEFLATED if is_compressed else 1):
        raise UnreadableImage(_CUT_OFF)
    with naming_damage(_DAMAGED):
        content = start + stream.read(max(0, needed - len(start)))
        beside = stream.read(_MOST_BESIDE + 1)  # to the end, where the checksum is
    if len(content) < needed:
        raise UnreadableImage(_CUT_OFF)
    if max(offset, len(beside)) > _MOST_BESIDE:
        raise UnreadableImage("the NIfTI file is damaged: it holds far more than the voxels that its header names")
    with naming_damage(_DAMAGED):
        image = kind.from_bytes(content)
        proxy: Any = image.dataobj
        slope, intercept = proxy.slope, proxy.inter
        whole = kind(np.asarray(proxy.get_unscaled()).reshape(image.shape[:3]), image.affine)
        stored = np.asarray(nibabel.funcs.as_closest_canonical(whole).dataobj)
    low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
    return _Volume(stored, float(slope), float(intercept), (low, high) if low < high else None)


def _refuse_others(shape: Sequence[int], dtype: np.dtype) -> None:
    """Refuse what is not one volume of numbers."""
    if len(shape) < 3 or math.prod(shape[3:]) != 1:
        raise UnreadableImage(f"it is not one volume: its shape is {' x '.join(map(str, shape))}")
    if dtype.kind not in "iuf":
        raise UnreadableImage(f"its values are not plain numbers ({dtype})")
