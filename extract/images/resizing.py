"""Bring decoded pixels to the size that a backbone takes, or that a person looks at."""

import cv2
import numpy as np

#: How an image gets its size, in words: part of the cache's fingerprint.
RESIZING = "squashed to the input size (2 x 2 means while twice as large, then bilinear)"
#: Longer side of a thumbnail, in pixels.
THUMBNAIL = 256


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
