"""Turn feature maps into heat maps and boxes: class-activation maps (Zhou et al. 2016) by a model's gradients.

A linear head on pooled features is linear in every position of the feature map, so its logit is the mean over the
positions of what the head makes of each, and the bias. That map of logits is the heat map. With hidden layers the head
is linear around the image's pooled features, and its gradient there takes the place of its weights.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.interpolate import make_interp_spline

#: A position is hot if its heat is above this share of the way from the image's median heat to its highest. Of 0.3 to
#: 0.7, with the median or the lowest heat for a start, 0.6 and 0.7 from the median did best on 200 phantom slices with
#: one bleed each: three quarters of the hottest boxes overlap the bleed's (intersection over union above 0.1). 0.6 cuts
#: less off.
HOT_SHARE = 0.6


@dataclass(frozen=True)
class Region:
    """One connected region of hot positions.

    Attributes:
        box: x0, y0, x1, y1 on the heat map; x1 and y1 are the first column and row past it.
        heat: its highest heat above the median of the map, in logits.
    """

    box: tuple[int, int, int, int]
    heat: float


def heat_maps(maps: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Project feature maps onto a model's gradients.

    Args:
        maps: float array (N, h, w, C): one backbone's last feature maps.
        gradients: float32 array (N, L, C): of the logits with respect to that backbone's pooled features.

    Returns:
        float32 array (N, L, h, w). The mean over h and w, summed over all backbones that a model sees, is its logit
        less its intercept.
    """
    positions = maps.reshape(len(maps), -1, maps.shape[-1]).astype(np.float32)
    return (gradients @ positions.transpose(0, 2, 1)).reshape(*gradients.shape[:2], *maps.shape[1:3])


def enlarge(heats: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Bring the heat maps of several backbones to one size, and add them up.

    Each position is a tile of the image, with its heat in the middle; between middles it follows a cubic spline, and
    beyond the outermost it stays. (The middles of the receptive fields, which padding moves by up to half a tile, were
    tried in place of the tiles': the hottest point then fell beside more of the bleeds of phantom slices.)

    Args:
        heats: float32 arrays (h, w), of different shapes; at least one.
        shape: height and width wanted.

    Returns:
        float32 array of that shape.
    """
    total = np.zeros(shape)
    for heat in heats:
        rows, columns = (_spline(count, wanted) for count, wanted in zip(heat.shape, shape, strict=True))
        total += rows @ heat @ columns.T
    return total.astype(np.float32)


@functools.cache
def _spline(count: int, wanted: int) -> np.ndarray:
    """The matrix (wanted, count) that interpolates values in the middle of `count` tiles."""
    middles = (np.arange(count) + 0.5) / count
    places = np.clip((np.arange(wanted) + 0.5) / wanted, middles[0], middles[-1])
    return make_interp_spline(middles, np.eye(count), k=min(3, count - 1))(places)


def find_regions(heat: np.ndarray) -> list[Region]:
    """Find the hot regions of a heat map, the hottest first.

    Args:
        heat: float32 array (H, W).

    Returns:
        Regions connected over edges, not corners; none where the heat is the same everywhere.
    """
    median = float(np.median(heat))
    highest = float(heat.max())
    if highest <= median:
        return []
    labelled, count = ndimage.label(heat > median + HOT_SHARE * (highest - median))
    peaks = ndimage.maximum(heat, labelled, np.arange(1, count + 1))
    regions = [
        Region((columns.start, rows.start, columns.stop, rows.stop), float(peak) - median)
        for (rows, columns), peak in zip(ndimage.find_objects(labelled), peaks, strict=True)
    ]
    return sorted(regions, key=lambda region: -region.heat)


def scale_box(
    box: tuple[int, int, int, int], shape: tuple[int, int], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Carry a box from a heat map over to the image: the least box of whole pixels that holds it.

    Args:
        box: x0, y0, x1, y1 on the heat map.
        shape: height and width of the heat map.
        size: height and width of the image in pixels.
    """
    (height, width), (rows, columns) = size, shape
    x0, y0, x1, y1 = box
    # In whole numbers, so that no rounding moves an edge; -(-a // b) rounds up.
    return x0 * width // columns, y0 * height // rows, -(-x1 * width // columns), -(-y1 * height // rows)
