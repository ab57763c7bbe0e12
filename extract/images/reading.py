"""How the bytes of an image file become the pixels that a backbone sees: what options and recipes say of it."""

import sys
from dataclasses import asdict, dataclass
from typing import Any, Self

from features.common.errors import InputError
from features.store.recipe import Recipe

#: Pixels that an image may have, by default: its decoding takes up to 6 bytes each beside the file's own, and more
#: where the format's decoder itself does (docs/decisions.md).
MAX_PIXELS = 100_000_000


class UnreadableImage(Exception):
    """A file that exists but does not decode; the message is the reason."""


@dataclass(frozen=True)
class Reading:
    """How pixels are read. All but the last two decides values, and is part of a recipe, under the same names.

    Attributes:
        fit: how an image gets the square shape of a backbone's input: `squash`, `pad` or `crop`.
        intensity_range: the stored values of 16-bit images that become black and white.
        orientation: `exif`: tags turn images upright; `stored`: only those of TIFF files do, as in early caches.
        window: the intensity window of scans; `none` for plain images.
        max_pixels: height x width above which an image is rejected, before it is decoded.
        salt: with what the owners of scans are hashed.
    """

    fit: str = "squash"
    intensity_range: tuple[int, int] = (0, 65_535)
    orientation: str = "exif"
    window: str = "none"
    max_pixels: int = MAX_PIXELS
    salt: bytes = b""

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Say how the pixels of a recipe were read, without a limit: its images have been read before."""
        low, high = map(int, recipe.intensity_range.split(","))
        return cls(recipe.fit, (low, high), recipe.orientation, recipe.window, sys.maxsize)

    def settings(self) -> dict[str, Any]:
        """The fields of a recipe."""
        settings = {**asdict(self), "intensity_range": ",".join(map(str, self.intensity_range))}
        del settings["max_pixels"], settings["salt"]
        return settings


def parse_range(text: str) -> tuple[int, int]:
    """Read the value of --range.

    Raises:
        InputError: it is not two different stored values of 16 bits, the lower first.
    """
    low, comma, high = text.partition(",")
    try:
        low_value, high_value = int(low), int(high)
    except ValueError:
        low_value, high_value = 0, -1
    if not comma or not 0 <= low_value < high_value <= 65_535:
        raise InputError(
            f"--range {text!r}: expected two values from 0 to 65535, the lower one first, such as --range 31744,35839."
        )
    return low_value, high_value
