"""An image drawn by code, and the features that a backbone with its ImageNet weights gives of it."""

import numpy as np

from extract.images.resizing import resize

_SIDE = 480
_PROJECTIONS = 8
#: Largest difference from the recorded projections, in deviations of the features: engines differ by 1e-5, pixels one
#: level brighter by 0.011 and more, RGB taken for BGR by 0.31 and more.
CANARY_TOLERANCE = 0.01
#: By backbone: the projections that `project` gives of the canary's features, and the deviation of these features.
RECORDED: dict[str, tuple[tuple[float, ...], float]] = {
    "efficientnet_lite0": ((0.356487, 0.037056, 0.615739, 0.572294, -0.242016, 0.729873, 0.616461, 0.455001), 0.434231),
    "efficientnet_lite1": (
        (0.097282, -0.421336, 0.207644, 0.354076, 0.057189, -0.455067, 0.254948, -0.150761),
        0.388657,
    ),
    "efficientnet_lite2": (
        (-0.274564, 0.181573, -0.212529, 0.026028, -0.036545, -0.149817, 0.259729, -0.353051),
        0.327901,
    ),
}


def draw_canary(size: int) -> np.ndarray:
    """Draw three discs over three gradients, and bring them to a backbone's size: uint8 (size, size, 3), RGB."""
    y, x = np.mgrid[:_SIDE, :_SIDE]
    image = np.stack([x * 255 // (_SIDE - 1), y * 255 // (_SIDE - 1), (x + y) * 255 // (2 * _SIDE - 2)], axis=-1)
    for centre_y, centre_x, radius, colour in (
        (160, 160, 96, (230, 40, 20)),
        (320, 240, 68, (20, 60, 220)),
        (240, 384, 53, (250, 250, 240)),
    ):
        image[(y - centre_y) ** 2 + (x - centre_x) ** 2 <= radius**2] = colour
    return resize(image.astype(np.uint8), size)


def project(features: np.ndarray) -> np.ndarray:
    """Project features (D,) on cosines of eight frequencies: (8,), each as large as one feature."""
    frequencies = np.outer(np.arange(1, _PROJECTIONS + 1), np.arange(len(features)))
    return np.cos(frequencies) @ features.astype(np.float64) / np.sqrt(len(features) / 2)


def deviation_of_canary(name: str, features: np.ndarray) -> float:
    """How far features (D,) of the canary are from those recorded, in deviations of the recorded ones."""
    projections, deviation = RECORDED[name]
    return float(np.abs(project(features) - projections).max() / deviation)
