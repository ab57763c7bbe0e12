"""Turn feature maps into heat maps, boxes and pictures: class-activation maps (Zhou et al. 2016) by gradients.

A linear head on pooled features is linear in every position of the feature map, so its logit is the mean over the
positions of what the head makes of each, and the bias. That map of logits is the heat map. With hidden layers the head
is linear around the image's pooled features, and its gradient there takes the place of its weights.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from extract.images.resizing import Edges
from features.store.recipe import MID_POOLING

#: A position is hot if its heat is above this share of the way from the image's median heat to its highest; chosen on
#: phantom slices (docs/decisions.md).
HOT_SHARE = 0.6
#: Colours and opacity (RGBA, 0-255) from cold to hot, in equal steps: they stand out on black, grey and white, for
#: red-green blind eyes too, and what lies below shows through. Cold haze, a fifth of the way, is left out.
_RAMP = (
    (120, 28, 109, 0),
    (120, 28, 109, 0),
    (188, 55, 84, 80),
    (237, 105, 37, 120),
    (251, 180, 26, 140),
    (252, 255, 164, 150),
)
_LEVELS = 64
_BOX_COLOUR = (64, 224, 255)
#: Of JPEG, 0-100.
_QUALITY = 80


#: x0, y0, x1, y1: x1 and y1 are the first column and row past the box.
Box = tuple[int, int, int, int]


class Region(NamedTuple):
    """One connected region of hot positions: its box, and its highest heat above the map's median, in logits."""

    box: Box
    heat: float


def weigh_maps(maps: Sequence[np.ndarray], vector: np.ndarray, pooling: str) -> list[np.ndarray]:
    """Turn the maps of one image into heat maps, whose means add up to the product of its features and a gradient.

    Of an average each position has the map's value. Of a maximum, the position of the maximum has all of it. Of a
    standard deviation s over n positions, each has its gradient, (x - mean) / (n s), times its distance from the mean:
    these add up to s (Euler's theorem for homogeneous functions).

    Args:
        maps: float32 (h, w, C) each: one, or those of the two layers of mid-level features.
        vector: float (D,), the gradient of the logit with respect to the features.
        pooling: as in the recipe of the features.

    Returns:
        float64 (h, w) for each map, in logits.
    """
    if pooling != MID_POOLING:
        return [of_layer.astype(np.float64) @ vector for of_layer in maps]
    heats, start = [], 0
    for of_layer in maps:
        height, width, channels = of_layer.shape
        values = of_layer.reshape(-1, channels).astype(np.float64)
        average, largest, deviation = vector[start : start + 3 * channels].astype(np.float64).reshape(3, channels)
        start += 3 * channels
        heat = values @ average
        top = values.argmax(axis=0)
        np.add.at(heat, top, len(values) * values[top, np.arange(channels)] * largest)
        squares = (values - values.mean(axis=0)) ** 2
        spread = np.sqrt(squares.mean(axis=0))
        heat += squares @ np.divide(deviation, spread, out=np.zeros(channels), where=spread > 0)
        heats.append(heat.reshape(height, width))
    return heats


def enlarge(heats: Sequence[np.ndarray], shape: tuple[int, int], edges: Sequence[Edges]) -> np.ndarray:
    """Lay heat maps, of several backbones or layers, over an image, and add them up.

    Each position is a tile of what the backbone saw, with its heat in the middle; between middles it follows a cubic
    spline, and beyond the outermost it stays (docs/decisions.md). What was cropped away is neither hot nor cold: it has
    the median heat of what was seen.

    Args:
        heats: float32 arrays (h, w), of different shapes; at least one.
        shape: height and width wanted.
        edges: where the edges of the image lie in each map.

    Returns:
        float32 array of that shape.
    """
    total = np.zeros(shape)
    for heat, (top, bottom, left, right) in zip(heats, edges, strict=True):
        rows, down = _spline(heat.shape[0], shape[0], top, bottom)
        columns, across = _spline(heat.shape[1], shape[1], left, right)
        of_image = rows @ heat @ columns.T
        seen = np.outer(down, across)
        of_image[~seen] = np.median(of_image[seen] if seen.any() else heat)
        total += of_image
    return total.astype(np.float32)


@functools.lru_cache(256)
def _spline(count: int, wanted: int, start: float, stop: float) -> tuple[np.ndarray, np.ndarray]:
    """The matrix (wanted, count) that interpolates values in the middle of `count` tiles, and which places have one.

    The tiles reach from 0 to 1, the places wanted from `start` to `stop`.
    """
    middles = (np.arange(count) + 0.5) / count
    places = start + (stop - start) * (np.arange(wanted) + 0.5) / wanted
    seen = (places >= 0) & (places <= 1)
    places = np.clip(places, middles[0], middles[-1])
    return make_interp_spline(middles, np.eye(count), k=min(3, count - 1))(places), seen


def find_regions(heat: np.ndarray) -> list[Region]:
    """Find the hot regions of a heat map, the hottest first.

    Args:
        heat: float32 array (H, W).

    Returns:
        Regions connected over edges, not corners; none where the heat is the same everywhere.
    """
    median, highest = float(np.median(heat)), float(heat.max())
    if highest <= median:
        return []
    labelled, count = ndimage.label(heat > median + HOT_SHARE * (highest - median))
    peaks = ndimage.maximum(heat, labelled, np.arange(1, count + 1))
    regions = [
        Region((columns.start, rows.start, columns.stop, rows.stop), float(peak) - median)
        for (rows, columns), peak in zip(ndimage.find_objects(labelled), peaks, strict=True)
    ]
    return sorted(regions, key=lambda region: -region.heat)


def scale_box(box: Box, shape: tuple[int, int], size: tuple[int, int]) -> Box:
    """Carry a box from a heat map over to the image: the smallest box of whole pixels that holds it.

    Args:
        box: on the heat map.
        shape: height and width of the heat map.
        size: height and width of the image in pixels.
    """
    (height, width), (rows, columns) = size, shape
    x0, y0, x1, y1 = box
    # In whole numbers, so that no rounding moves an edge; -(-a // b) rounds up.
    return x0 * width // columns, y0 * height // rows, -(-x1 * width // columns), -(-y1 * height // rows)


def palette() -> np.ndarray:
    """The colours of the heat from cold to hot: uint8 (64, 4), RGBA."""
    places = np.linspace(0, 1, len(_RAMP))
    wanted = np.linspace(0, 1, _LEVELS)
    channels = [np.interp(wanted, places, channel) for channel in zip(*_RAMP, strict=True)]
    return np.column_stack(channels).astype(np.uint8)


def peak(heat: np.ndarray) -> float:
    """The highest heat above the median of a map."""
    return float(heat.max() - np.median(heat))


def to_levels(heat: np.ndarray, full: float) -> np.ndarray:
    """Say which colour of the palette each position has.

    Args:
        heat: float32 array (H, W).
        full: the heat above the map's median that has the hottest colour, above 0.

    Returns:
        uint8 array (H, W), 0 at and below the median.
    """
    share = np.clip((heat - np.median(heat)) / full, 0, 1)
    return np.round(share * (_LEVELS - 1)).astype(np.uint8)


def save_heat(levels: np.ndarray, path: Path) -> None:
    """Write uint8 levels (H, W) as PNG with the palette's colours and opacity: a tenth of the bytes of RGBA."""
    colours = palette()
    image = Image.fromarray(levels, "L")
    image.putpalette(colours[:, :3].tobytes())
    image.save(path, transparency=colours[:, 3].tobytes(), optimize=True)


def save_thumbnail(thumbnail: np.ndarray, path: Path) -> None:
    """Write uint8 RGB (H, W, 3) as JPEG, with one channel where it is grey."""
    grey = (thumbnail == thumbnail[..., :1]).all()
    Image.fromarray(thumbnail[..., 0] if grey else thumbnail).save(path, quality=_QUALITY)


def save_overlay(thumbnail: np.ndarray, levels: np.ndarray, boxes: Sequence[Box], path: Path) -> None:
    """Write an image with its heat and boxes as JPEG.

    Args:
        thumbnail: uint8 array (H, W, 3), RGB.
        levels: uint8 array (H, W), of `to_levels`.
        boxes: on the thumbnail.
        path: the file.
    """
    colours = palette()[levels].astype(np.float32)
    opacity = colours[..., 3:] / 255
    image = Image.fromarray(np.round(thumbnail * (1 - opacity) + colours[..., :3] * opacity).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for x0, y0, x1, y1 in boxes:
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=_BOX_COLOUR)
    image.save(path, quality=_QUALITY)
