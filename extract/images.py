"""Turn the bytes of one image file into RGB pixels of the size that a backbone takes."""

import functools
import logging
import os

os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # a damaged file is reported by us, with its name

import cv2
import numpy as np

from features.store.images_table import ImageFacts

#: How an image gets its size, in words: part of the cache's fingerprint.
RESIZING = "squashed to the input size (2 x 2 means while twice as large, then bilinear)"
#: Longer side of a thumbnail, in pixels.
THUMBNAIL = 256
#: A 16-bit image without values above 12 bits keeps fewer than 16 grey levels.
_DIM_16_BIT = 1 << 12
logger = logging.getLogger(__name__)


class UnreadableImage(Exception):
    """A file that exists but does not decode; the message is the reason."""


def decode(encoded: bytes) -> tuple[np.ndarray, ImageFacts]:
    """Decode one image.

    Args:
        encoded: content of a PNG, JPEG, TIFF, BMP or WebP file. Of a file with several pages: the first.

    Returns:
        Pixels, uint8 0-255: (H, W) where the image is grey, else (H, W, 3) RGB; transparency is dropped, 16 bits a
        channel are cut to the upper 8. Orientation tags are not followed. And the facts of the image as it was
        stored.

    Raises:
        UnreadableImage: the content does not decode, or is cut off. A damaged byte within is noticed in PNG files,
            which have checksums; not in every JPEG, TIFF or WebP file.
    """
    if not encoded:
        raise UnreadableImage("the file is empty")
    _refuse_truncated(encoded)
    try:
        stored = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnreadableImage(f"OpenCV cannot decode it: {error.err}") from None
    if stored is None:
        raise UnreadableImage("OpenCV cannot decode it: it is damaged, or not a PNG, JPEG, TIFF, BMP or WebP file")
    if stored.dtype not in (np.uint8, np.uint16):
        raise UnreadableImage(f"its pixels are {stored.dtype}; 8 or 16 bits a channel are read")
    channels = 1 if stored.ndim == 2 else stored.shape[2]
    if channels not in (1, 3, 4):
        raise UnreadableImage(f"it has {channels} channels; 1, 3 or 4 are read")
    colour = stored.reshape(*stored.shape[:2], channels)[..., :3]
    means, deviations = cv2.meanStdDev(colour)
    mean = float(means.mean())
    facts = ImageFacts(
        height=stored.shape[0],
        width=stored.shape[1],
        channels=channels,
        bit_depth=8 * stored.dtype.itemsize,
        mean=mean,
        std=float(np.sqrt(max(0.0, float((deviations**2 + means**2).mean()) - mean**2))),
    )
    if stored.dtype == np.uint16 and 0 < stored.max() < _DIM_16_BIT:
        _warn_of_dim_images()
    pixels = colour if stored.dtype == np.uint8 else np.right_shift(colour.astype(np.uint16), 8).astype(np.uint8)
    # OpenCV stores colours as BGR.
    return (pixels[..., 0] if channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)), facts


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bring an image to a backbone's input size.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
        size: height and width wanted.

    Returns:
        uint8 (size, size, 3); grey is repeated over the channels (after resizing: a third of the work).
    """
    # Halving first keeps bilinear interpolation from skipping pixels (docs/decisions.md).
    while max(pixels.shape[:2]) >= 2 * size:
        height, width = (side // 2 if side >= 2 * size else side for side in pixels.shape[:2])
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    if pixels.shape[:2] != (size, size):
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if pixels.ndim == 2 else pixels


def draw_thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Draw an image small, for people to look at.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).

    Returns:
        uint8 (h, w, 3), RGB, of the image's aspect: as it is, or shrunk until its longer side is THUMBNAIL.
    """
    scale = min(1.0, THUMBNAIL / max(pixels.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    small = pixels if scale == 1 else cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return small if small.ndim == 3 else cv2.cvtColor(small, cv2.COLOR_GRAY2RGB)


@functools.cache
def _warn_of_dim_images() -> None:
    """Warn once of 16-bit images that use a small part of their range."""
    logger.warning(
        "there are 16-bit images with no value above %d: of 16 bits the upper 8 are kept, so they turn almost black. "
        "Convert them to 8 bits in the window that you want",
        _DIM_16_BIT - 1,
    )


def _refuse_truncated(encoded: bytes) -> None:
    """Refuse a file without its end: OpenCV would fill the missing rows with grey and say nothing."""
    if encoded.startswith(b"\xff\xd8") and encoded.rfind(b"\xff\xd9") < encoded.rfind(b"\xff\xda"):
        raise UnreadableImage("the JPEG file is cut off: its end marker is missing")
    if encoded.startswith(b"\x89PNG") and encoded.rfind(b"IEND") < 0:
        raise UnreadableImage("the PNG file is cut off: its end chunk is missing")
