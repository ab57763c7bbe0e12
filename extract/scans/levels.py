"""Turn values, such as HU, into grey levels."""

from collections.abc import Sequence

import numpy as np

from extract.scans.windows import Window


def grey_levels_in(window: Window, values: np.ndarray) -> np.ndarray:
    """Show values through one window.

    The line runs from centre - width/2 to centre + width/2: DICOM PS3.3, C.11.2.1.3.2 (LINEAR_EXACT). The older
    LINEAR of C.11.2.1.2.1 shifts both ends by half a value, which depends on the unit of the values.

    Args:
        window: the window.
        values: array of any shape, integer or float.

    Returns:
        uint8 of the same shape: 0 at the lower end and below, and where a value is not a number, 255 at the upper end
        and above; rounded to the nearest level, halves to the even one.
    """
    share = (np.asarray(values, np.float64) - (window.centre - window.width / 2)) / window.width
    return np.rint(np.nan_to_num(np.clip(share, 0, 1)) * 255).astype(np.uint8)


def show(windows: Sequence[Window], values: np.ndarray) -> np.ndarray:
    """Show values through one window, or through three as the channels of a colour image.

    Args:
        windows: one, or those of red, green and blue.
        values: array of any shape.

    Returns:
        uint8, the shape of the values; with three windows one axis more, of three.
    """
    levels = [grey_levels_in(window, values) for window in windows]
    return levels[0] if len(levels) == 1 else np.stack(levels, axis=-1)
