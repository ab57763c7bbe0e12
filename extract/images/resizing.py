"""Bring decoded pixels to the size that a backbone takes, or that a person looks at."""

from typing import NamedTuple

import cv2
import numpy as np

from extract.images.memory import naming_memory

#: How an image gets its size, in words by fit: part of the cache's fingerprint.
RESIZING = {
    "squash": "squashed to the input size (2 x 2 means while twice as large, then bilinear)",
    "pad": "longer side to the input size (2 x 2 means while twice as large, then bilinear), padded with black",
    "crop": "cut to the square in its middle, to the input size (2 x 2 means while twice as large, then bilinear)",
}
#: What OpenCV calls the interpolations that a sidecar may name.
INTERPOLATIONS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
#: Longer side of a thumbnail, in pixels.
THUMBNAIL = 256


class Edges(NamedTuple):
    """Where the edges of an image lie in the square that a backbone sees, 0 to 1; beyond it where it is cropped."""

    top: float
    bottom: float
    left: float
    right: float


#: Of an image that is seen as a whole and fills the square.
WHOLE = Edges(0, 1, 0, 1)


def edges_of(fit: str, shape: tuple[int, ...], size: int) -> Edges:
    """Say where the edges of an image lie in a backbone's input, as `resize` makes it.

    Args:
        fit: `squash`, `pad` or `crop`.
        shape: height and width of the image, first.
        size: height and width of the input.
    """
    height, width = shape[:2]
    if fit == "pad":
        rows, columns = _padded(height, width, size)
        top, left = (size - rows) // 2, (size - columns) // 2
        return Edges(top / size, (top + rows) / size, left / size, (left + columns) / size)
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return Edges(-top / side, (height - top) / side, -left / side, (width - left) / side)
    return WHOLE


@naming_memory()
def resize(pixels: np.ndarray, size: int, fit: str = "squash", interpolation: str = "bilinear") -> np.ndarray:
    """Bring an image to a backbone's input size.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
        size: height and width wanted.
        fit: how it becomes square: `squash` it, `pad` it with black, or `crop` the square in its middle; where the
            pixels left over are odd, the one more is at the bottom or on the right.
        interpolation: `bilinear` or `bicubic`, after the halving.

    Returns:
        uint8 (size, size, 3); grey is repeated over the channels (after resizing: a third of the work).
    """
    pixels, shape = fit_square(pixels, size, fit)
    if pixels.shape[:2] != shape:
        pixels = cv2.resize(pixels, shape[::-1], interpolation=INTERPOLATIONS[interpolation])
    # Padded at the end: a square around a long image may be larger than the memory.
    rows, columns = size - shape[0], size - shape[1]
    if rows or columns:
        bars = rows // 2, rows - rows // 2, columns // 2, columns - columns // 2
        pixels = cv2.copyMakeBorder(pixels, *bars, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if pixels.ndim == 2 else pixels


def fit_square(pixels: np.ndarray, size: int, fit: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Crop an image as a fit says, and halve it while it is twice as large as it becomes.

    Returns:
        uint8 (h, w) or (h, w, 3); and the height and width that it takes in the middle of the square of `size`.
    """
    shape = (size, size)
    if fit == "crop":
        height, width = pixels.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    elif fit == "pad":
        shape = _padded(pixels.shape[0], pixels.shape[1], size)
    # Halving first keeps bilinear interpolation from skipping pixels (docs/decisions.md).
    while any(have >= 2 * wanted for have, wanted in zip(pixels.shape, shape, strict=False)):
        height, width = (
            have // 2 if have >= 2 * wanted else have for have, wanted in zip(pixels.shape, shape, strict=False)
        )
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return pixels, shape


def _padded(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width that an image has within the square of `pad`: its own aspect, but at least a pixel."""
    side = max(height, width)
    return max(1, round(height * size / side)), max(1, round(width * size / side))


def draw_thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Draw an image small, for people to look at: `shrink` until its longer side is THUMBNAIL."""
    return shrink(pixels, THUMBNAIL)


def shrink(pixels: np.ndarray, longest: int) -> np.ndarray:
    """Draw an image small, as grey or colour as it is.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
        longest: side in pixels.

    Returns:
        uint8 (h, w, 3), RGB, of the image's aspect: as it is, or shrunk until its longer side is `longest`.
    """
    scale = min(1.0, longest / max(pixels.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    small = pixels if scale == 1 else cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return small if small.ndim == 3 else cv2.cvtColor(small, cv2.COLOR_GRAY2RGB)
