"""Draw heat maps: as a layer that is transparent where it is cold, and over the image, with boxes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

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


def palette() -> np.ndarray:
    """The colours of the heat from cold to hot: uint8 (64, 4), RGBA."""
    places = np.linspace(0, 1, len(_RAMP))
    wanted = np.linspace(0, 1, _LEVELS)
    return np.column_stack([np.interp(wanted, places, channel) for channel in zip(*_RAMP, strict=True)]).astype(
        np.uint8
    )


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


def save_thumbnail(thumbnail: np.ndarray, path: Path) -> None:
    """Write uint8 RGB (H, W, 3) as PNG, with one channel where it is grey."""
    grey = (thumbnail == thumbnail[..., :1]).all()
    Image.fromarray(thumbnail[..., 0] if grey else thumbnail).save(path)


def save_heat(levels: np.ndarray, path: Path) -> None:
    """Write uint8 levels (H, W) as PNG with the palette's colours and opacity: a tenth of the bytes of RGBA."""
    colours = palette()
    image = Image.fromarray(levels, "L")
    image.putpalette(colours[:, :3].tobytes())
    image.save(path, transparency=colours[:, 3].tobytes())


def save_overlay(
    thumbnail: np.ndarray, levels: np.ndarray, boxes: Sequence[tuple[int, int, int, int]], path: Path
) -> None:
    """Write an image with its heat and boxes as PNG.

    Args:
        thumbnail: uint8 array (H, W, 3), RGB.
        levels: uint8 array (H, W), of `to_levels`.
        boxes: x0, y0, x1, y1 on the thumbnail; x1 and y1 are the first column and row past it.
        path: the file.
    """
    colours = palette()[levels].astype(np.float32)
    opacity = colours[..., 3:] / 255
    image = Image.fromarray(np.round(thumbnail * (1 - opacity) + colours[..., :3] * opacity).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for x0, y0, x1, y1 in boxes:
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=_BOX_COLOUR)
    image.save(path)
