"""The table of intensity windows, and what `--window` may say. Importing this module loads no numpy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from features.common.errors import InputError
from features.dataset.frames import NIFTI_SUFFIXES, read_elements


@dataclass(frozen=True)
class Window:
    """Which values become black and white: those below and above it; between them grey rises in a straight line.

    Attributes:
        centre: value of the middle grey; HU where the window has a name.
        width: from black to white.
        name: its name in the table; "" where it was given by numbers.
    """

    centre: float
    width: float
    name: str = ""


#: Centre and width in HU. Brain, subdural and bone are the usual ones of head CT (docs/glossary.md). Stroke: Turner and
#: Holdsworth 2011, Br J Radiol 84:1061, "40 WW 40 WL".
WINDOWS = {
    name: Window(centre, width, name)
    for name, centre, width in (
        ("brain", 40, 80),
        ("subdural", 80, 200),
        ("bone", 600, 2800),
        ("stroke", 40, 40),
    )
}
#: The window of CT of the head.
HEAD_WINDOW = "brain"
# Words of Body Part Examined (0018,0015) that are of the head; defined terms and what scanners write.
_HEAD_WORDS = ("HEAD", "BRAIN", "SKULL", "CRANI", "CEREBR")
#: What `--window` says where each file's own window is to be taken.
OWN_WINDOW = "file"
#: How help and messages describe the value of `--window`.
WINDOW_CHOICES = f"{', '.join(WINDOWS)}, {OWN_WINDOW}, CENTRE/WIDTH, or three of them with commas"


def parse_windows(text: str) -> tuple[Window, ...]:
    """Read the value of `--window`, or the window of a recipe.

    Args:
        text: "brain", "40/80", "brain,subdural,bone", "file".

    Returns:
        One window, or three: those of the channels red, green, blue. () for each file's own.

    Raises:
        InputError: it is none of that.
    """
    names = [name.strip() for name in text.split(",")]
    if names == [OWN_WINDOW]:
        return ()
    if len(names) not in (1, 3):
        raise InputError(f"--window {text!r}: {len(names)} windows. Give one, or three for the colour channels.")
    return tuple(_parse(name, text) for name in names)


def window_words(windows: tuple[Window, ...]) -> str:
    """Write windows as `parse_windows` reads them, in one spelling each."""
    words = [window.name or f"{_digits(window.centre)}/{_digits(window.width)}" for window in windows]
    return ",".join(words) or OWN_WINDOW


def doubt_head(scans: Sequence[Path]) -> str:
    """Say why scans, at least one, may not be CT of the head by their headers; "" if they say CT and no other part.

    A header that says nothing counts only where all are so: the extraction rejects damaged files, and says why.
    """
    modality = ""
    for path in scans:
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            return f"{path} is NIfTI, which does not say what its values are"
        said, part = read_elements(path, "Modality", "BodyPartExamined") or ("", "")
        if said not in ("CT", ""):
            return f"{path} is not CT (modality {said})"
        if part and not any(word in part.upper() for word in _HEAD_WORDS):
            return f"{path} is not of the head (body part {part})"
        modality = modality or said
    return "" if modality else f"{scans[0]} does not say that it is CT"


def _digits(number: float) -> str:
    """Write a number so that it comes back: 40.0 as "40"."""
    return repr(float(number)).removesuffix(".0")


def _parse(name: str, text: str) -> Window:
    if name.lower() in WINDOWS:
        return WINDOWS[name.lower()]
    centre, _, width = name.partition("/")
    try:
        window = Window(float(centre), float(width))
    except ValueError:
        window = Window(math.nan, math.nan)
    if not (math.isfinite(window.centre) and math.isfinite(window.width) and window.width > 0):
        raise InputError(f"--window {text!r}: {name!r} is not a window. Give {WINDOW_CHOICES}.")
    return window
