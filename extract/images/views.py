"""The views of an image that a backbone sees: the plain one first, and others drawn from the same decoded pixels."""

import math

import cv2
import numpy as np

from extract.images.memory import naming_memory
from extract.images.reading import MIRROR, Ranges, Reading
from extract.images.resizing import INTERPOLATIONS, fit_square, resize
from features.common.files import digest


@naming_memory()
def draw_views(
    pixels: np.ndarray, size: int, reading: Reading, image_id: str, interpolation: str = "bilinear"
) -> np.ndarray:
    """Draw the views of an image.

    Args:
        pixels: uint8 (H, W) or (H, W, 3), as decoded.
        size: height and width of the views.
        reading: its fit, views and ranges.
        image_id: seeds the random views, together with their names: the same image has the same views wherever and
            whenever it is extracted.
        interpolation: as `resize` takes it.

    Returns:
        uint8 (V, size, size, 3), RGB; the first is what `resize` gives.
    """
    plain = resize(pixels, size, reading.fit, interpolation)
    views = [plain]
    if len(reading.views) > 1:
        square, shape = fit_square(pixels, size, reading.fit)
    for name in reading.views[1:]:
        if name == MIRROR:
            views.append(plain[:, ::-1])
            continue
        random = np.random.default_rng(int.from_bytes(digest(f"{image_id}\0{name}".encode())))
        views.append(_warp(square, shape, size, Ranges.parse(reading.ranges), random, INTERPOLATIONS[interpolation]))
    return np.stack(views)


def _warp(
    pixels: np.ndarray,
    shape: tuple[int, int],
    size: int,
    ranges: Ranges,
    random: np.random.Generator,
    interpolation: int,
) -> np.ndarray:
    """Draw one random view, uint8 (size, size, 3), of pixels that take `shape` in the middle of the square.

    What lies beyond the image is its reflection, or black where the image does not fill the square.
    """
    hflip, vflip, *rest = random.uniform(size=7)
    limits = ranges.rotate, ranges.scale, ranges.shift, ranges.shift, ranges.brightness
    angle, scale, right, down, brighter = (2 * np.array(rest) - 1) * limits
    (height, width), (top, left) = shape, ((size - side) // 2 for side in shape)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn = np.array([[cosine, sine], [-sine, cosine]]) / (1 + scale)
    turn = turn * [-1 if hflip < ranges.hflip else 1, -1 if vflip < ranges.vflip else 1]
    # From a place in the view to one in the pixels, both from the centre of the first pixel.
    per_pixel = np.array([pixels.shape[1] / width, pixels.shape[0] / height])
    middle = np.array([size / 2, size / 2])
    moved = middle + size * np.array([right, down])
    matrix = per_pixel[:, None] * turn
    offset = per_pixel * (middle - turn @ moved - [left, top])
    offset = offset + matrix @ [0.5, 0.5] - 0.5
    border = cv2.BORDER_REFLECT_101 if (height, width) == (size, size) else cv2.BORDER_CONSTANT
    flags = interpolation | cv2.WARP_INVERSE_MAP
    view = cv2.warpAffine(pixels, np.column_stack([matrix, offset]), (size, size), flags=flags, borderMode=border)
    view = cv2.convertScaleAbs(view, alpha=1 + brighter)
    return cv2.cvtColor(view, cv2.COLOR_GRAY2RGB) if view.ndim == 2 else view
