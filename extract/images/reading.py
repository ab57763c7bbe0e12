"""How the bytes of an image file become the pixels that a backbone sees: what options and recipes say of it."""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from features.common.errors import InputError
from features.store.recipe import IDENTITY, NO_WINDOW, Recipe

#: Pixels that an image may have, by default: its decoding takes up to 6 bytes each beside the file's own, and more
#: where the format's decoder itself does (docs/decisions.md).
MAX_PIXELS = 100_000_000

#: The mirror image; others are `random1`, `random2`, ...
MIRROR = "hflip"
#: Views of an image at most: each is a pass of every backbone.
MAX_VIEWS = 64


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
        views: names of the views that backbones see, as `extract.images.views.name_views` gives them.
        ranges: how far random views may be from the plain one, in the words of `Ranges`; "" where there are none.
        max_pixels: height x width above which an image is rejected, before it is decoded.
        salt: with what the owners of scans are hashed.
    """

    fit: str = "squash"
    intensity_range: tuple[int, int] = (0, 65_535)
    orientation: str = "exif"
    window: str = NO_WINDOW
    views: tuple[str, ...] = (IDENTITY,)
    ranges: str = ""
    max_pixels: int = MAX_PIXELS
    salt: bytes = b""

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Say how the pixels of a recipe were read, without a limit: its images have been read before."""
        low, high = map(int, recipe.intensity_range.split(","))
        views = recipe.views, recipe.ranges
        return cls(recipe.fit, (low, high), recipe.orientation, recipe.window, *views, sys.maxsize)

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


@dataclass(frozen=True)
class Ranges:
    """How far a random view may be from the plain one. All are drawn uniformly.

    Attributes:
        hflip, vflip: the chance of a mirror image, left and right, or up and down: 0 to 1.
        rotate: degrees, to either side: 0 to 180.
        scale: by what share it is larger or smaller: 0 to 0.9.
        shift: share of the side by which it moves, across and down: 0 to 0.9.
        brightness: by what share it is brighter or darker: 0 to 0.9.
    """

    hflip: float = 0.5
    vflip: float = 0.0
    rotate: float = 15.0
    scale: float = 0.1
    shift: float = 0.05
    brightness: float = 0.1

    def __str__(self) -> str:
        """As `parse` reads it, all fields."""
        return ",".join(f"{field.name}={getattr(self, field.name):g}" for field in fields(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the value of --ranges, such as `rotate=30,vflip=0.5`; what is not named has its default.

        Raises:
            InputError: a name is not known or duplicated, or a value is not a number in its range.
        """
        most = dict(zip((field.name for field in fields(cls)), (1.0, 1.0, 180.0, 0.9, 0.9, 0.9), strict=True))
        values: dict[str, float] = {}
        for part in text.split(","):
            name, _, value = part.partition("=")
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if name not in most or name in values or not 0 <= number <= most[name]:
                known = ", ".join(f"{field} (0 to {limit:g})" for field, limit in most.items())
                raise InputError(f"--ranges {text!r}: {part!r} is not NAME=VALUE, each once, of {known}.")
            values[name] = number
        return cls(**values)


def name_views(choice: str) -> tuple[str, ...]:
    """Read the value of --views: the names of the views, the plain one first.

    Raises:
        InputError: it is neither a number from 1 to `MAX_VIEWS` nor `hflip`.
    """
    if choice == MIRROR:
        return IDENTITY, MIRROR
    if not choice.isascii() or not choice.isdigit() or len(choice) > 9 or not 1 <= int(choice) <= MAX_VIEWS:
        raise InputError(f"--views {choice!r}: expected a number from 1 to {MAX_VIEWS}, or {MIRROR}.")
    return (IDENTITY, *(f"random{number}" for number in range(1, int(choice))))


def are_random(views: Sequence[str]) -> bool:
    """Whether one of the views is random, so that `Ranges` say how far it is from the plain one."""
    return any(name not in (IDENTITY, MIRROR) for name in views)
