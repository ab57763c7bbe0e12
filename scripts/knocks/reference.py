"""Read images and scans by other programs than the product's, and by the rules of its manual.

Pillow reads plain images, pydicom's or Pillow's decoders those of DICOM where there are such, numpy NIfTI.
"""

import gzip
import io
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

Image.MAX_IMAGE_PIXELS = None
_Given = TypeVar("_Given")
#: Other decoders than the product's, by transfer syntax; GDCM alone reads lossless JPEG.
_PLUGINS = {
    "1.2.840.10008.1.2.5": "pydicom",
    "1.2.840.10008.1.2.4.50": "pillow",
    "1.2.840.10008.1.2.4.80": "gdcm",
    "1.2.840.10008.1.2.4.90": "gdcm",
    "1.2.840.10008.1.2.4.70": "gdcm",
    "1.2.840.10008.1.2.4.57": "gdcm",
}
#: The brain window in HU: black up to the first, white from the second on.
BRAIN = (0.0, 80.0)


def guarded(read: Callable[[], _Given]) -> _Given | None:
    """Read in a process of its own, as a foreign decoder may end it; None where it cannot be read."""
    with tempfile.TemporaryFile() as result:
        process = os.fork()
        if process == 0:
            try:
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, 1)
                os.dup2(nothing, 2)
                warnings.simplefilter("ignore")
                pickle.dump(read(), result)
                result.flush()
            finally:
                os._exit(0)
        os.waitpid(process, 0)
        result.seek(0)
        try:
            return pickle.load(result)
        except EOFError:
            return None


def read_image(content: bytes, side: int) -> np.ndarray:
    """Read a plain image by Pillow: uint8 (side, side, 3), transparency dropped, upright, the upper 8 of 16 bits."""
    if content[4:8] == b"ftyp":
        import pi_heif  # type: ignore[import-untyped]

        pi_heif.register_heif_opener()
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        upright = image if image.format == "HEIF" else ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode == "I":
        pixels = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
    elif upright.mode in ("L", "LA", "1"):
        pixels = np.asarray(upright.convert("LA" if upright.mode == "LA" else "L"))
        pixels = pixels[..., 0] if pixels.ndim == 3 else pixels
    else:
        pixels = np.asarray(upright.convert("RGBA" if upright.mode in ("RGBA", "PA") else "RGB"))[..., :3]
    return fit(pixels, side)


def read_dicom(content: bytes, side: int, index: int) -> np.ndarray:
    """Read a frame of a DICOM file of CT by pydicom, in the brain window: uint8 (side, side, 3)."""
    import pydicom
    from pydicom.pixels import pixel_array

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    header = pydicom.dcmread(io.BytesIO(content))
    plugin = _PLUGINS.get(str(header.file_meta.TransferSyntaxUID), "")
    stored = pixel_array(header, index=index, decoding_plugin=plugin)
    if stored.ndim == 3:
        return fit(stored if stored.dtype == np.uint8 else (stored >> (header.BitsStored - 8)).astype(np.uint8), side)
    is_hu = header.get("Modality") == "CT" or header.get("RescaleType") == "HU"
    if header.BitsStored <= 8 and not is_hu:
        bottom, top = (-128, 127) if stored.dtype == np.int8 else (0, 2**header.BitsStored - 1)
        share = (stored.astype(np.float64) - bottom) / (top - bottom)
    else:
        values = stored.astype(np.float64)
        slope, intercept = _number(header.get("RescaleSlope"), 1.0), _number(header.get("RescaleIntercept"), 0.0)
        if is_hu and header.BitsStored == 12 and stored.dtype == np.uint16 and intercept > -100:  # it wrapped around
            values = np.where(values > 3071, values - 4096, values)
        share = (values * slope + intercept - BRAIN[0]) / (BRAIN[1] - BRAIN[0])
    levels = np.rint(np.nan_to_num(share.clip(0, 1)) * 255).astype(np.uint8)
    return fit(255 - levels if header.get("PhotometricInterpretation") == "MONOCHROME1" else levels, side)


def _number(value: object, default: float) -> float:
    """The first number of an element, where there is a finite one."""
    first = value[0] if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else value  # type: ignore[index]
    try:
        number = float(first)  # type: ignore[arg-type]
    except (TypeError, ValueError, IndexError):
        return default
    return number if np.isfinite(number) else default


def read_nifti(content: bytes, side: int, index: int) -> np.ndarray:
    """Read a slice of a NIfTI-1 volume of int16 by its layout.

    Returns:
        uint8 (8, side, side, 3): as a volume whose axes run to the right, front and head is shown; then as it would
        be if its header turned or mirrored the slice.
    """
    raw = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    order = "<" if np.frombuffer(raw[:4], "<i4")[0] == 348 else ">"
    axes = np.frombuffer(raw[40:56], f"{order}i2").astype(int)
    kind, offset = np.frombuffer(raw[70:72], f"{order}i2")[0], int(np.frombuffer(raw[108:112], f"{order}f4")[0])
    slope, intercept = np.frombuffer(raw[112:120], f"{order}f4").astype(float)
    if kind != 4 or not raw[344:348] == b"n+1\0" or axes[0] < 3:
        raise ValueError("not the kind that is written here")
    if not np.isfinite(slope) or slope == 0:
        slope, intercept = 1.0, 0.0
    shape = axes[1:4]
    volume = np.frombuffer(raw, f"{order}i2", int(shape.prod()), offset).reshape(shape, order="F")
    values = volume[::-1, ::-1, index].T * slope + intercept
    share = (values - BRAIN[0]) / (BRAIN[1] - BRAIN[0])
    levels = np.rint(np.nan_to_num(share.clip(0, 1)) * 255).astype(np.uint8)
    turned = [np.rot90(start, turns) for start in (levels, levels.T) for turns in range(4)]
    return np.stack([fit(np.ascontiguousarray(one), side) for one in turned])


def fit(pixels: np.ndarray, side: int) -> np.ndarray:
    """Squash as the manual says: 2 x 2 means while twice as large, then bilinear; grey over three channels."""
    import cv2

    while any(have >= 2 * side for have in pixels.shape[:2]):
        height, width = (have // 2 if have >= 2 * side else have for have in pixels.shape[:2])
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    if pixels.shape[:2] != (side, side):
        pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
