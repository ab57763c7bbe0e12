"""Whether a model gets its pixels in the scale that it was trained with, as far as its features can tell.

Measured on EfficientNet-Lite0, 1 and 2 (docs/decisions.md): colour order cannot be told from features alone, nor
can a model that is not trained always be told from one whose pixels have the wrong scale.
"""

from collections.abc import Callable

import numpy as np

from extract.check.photographs import crop_photographs

#: Below this, features hardly differ between photographs: 0.02 to 0.04 with pixels divided by 255 twice, 1.1 at the
#: right scale; of random weights 0.24 and 0.40.
_SPREAD = 0.06
#: Below this, half the contrast hardly matters beside the negative: 0.12 to 0.33 with pixels 58 to 255 times too large,
#: 0.74 and more at the right scale.
_CONTRAST = 0.5
#: Share of the crops that are known again, from which on a model is taken for a trained one.
_KNOWN = 0.8


def doubt_scale(features_of: Callable[[np.ndarray], np.ndarray], size: int) -> tuple[bool | None, str]:
    """Judge the scale of the pixels that a model gets.

    Args:
        features_of: from uint8 (n, S, S, 3), RGB, 0-255, to (n, D).
        size: S.

    Returns:
        Whether it is wrong, None where nothing can be said of it; and why.
    """
    crops, views = crop_photographs(size)
    features, again = (features_of(images).astype(np.float64) for images in (crops, views))
    if not (np.isfinite(features).all() and np.isfinite(again).all()):
        return True, "its features of photographs are not finite numbers"
    mean = np.concatenate([features, again]).mean(axis=0)
    size_of_mean = float(np.sqrt((mean**2).mean()))
    spread = float(np.sqrt(((features - mean) ** 2).mean())) / size_of_mean if size_of_mean else 0.0
    if spread < _SPREAD:
        return True, (
            f"its features hardly differ between photographs (spread {spread:.3f} of their mean): its pixels are too "
            "small, as those divided by 255 twice, or it is not trained"
        )
    known = float((_cosines(features - mean, again - mean).argmax(axis=1) == np.arange(len(crops))).mean())
    halved, negative = (_distance(features, features_of(images)) for images in (crops // 2, 255 - crops))
    contrast = halved / negative if negative else 0.0
    if known < _KNOWN:
        return None, (
            f"nothing can be said of its scale: it knows {known:.0%} of photographs again in a mirror, as a model does "
            "that was not trained on photographs"
        )
    if contrast < _CONTRAST:
        return True, (
            f"half the contrast changes its features {contrast:.2f} times as much as the negative does: its pixels are "
            "too large, as those of 0 to 255 for a model that takes 0 to 1, or it is not trained"
        )
    return False, f"its scale is plausible (contrast {contrast:.2f}); colour order cannot be told from features"


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines between the rows of (n, D) and (n, D): (n, n)."""
    norms = np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(second, axis=1)
    return first @ second.T / np.maximum(norms, np.finfo(float).tiny)


def _distance(features: np.ndarray, changed: np.ndarray) -> float:
    """Root mean square of the differences."""
    return float(np.sqrt(((features - changed) ** 2).mean()))
