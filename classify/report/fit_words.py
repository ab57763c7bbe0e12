"""Say in words whether a head is over- or underfit, from its curves."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

#: Training minus validation AUC from which on a head counts as overfit.
GAP = 0.05
#: Training AUC below which a head counts as underfit.
LOW_AUC = 0.80
#: Share of the epochs allowed from which on a best epoch is one that more epochs might have bettered.
LATE = 0.98


@dataclass(frozen=True)
class FitVerdict:
    """What the curves of a head say.

    Attributes:
        word: `overfit`, `underfit`, `well fit` or `not judged`.
        sentence: why, with the figures.
    """

    word: str
    sentence: str


def judge_fit(curves: pd.DataFrame, best_epochs: list[int], epochs: int) -> FitVerdict:
    """Judge the epochs that a head was kept at, as the mean over its fits.

    Args:
        curves: rows of one head in `curves.csv`: `fold`, `epoch`, `auc`, `validation_auc`, `validation_loss`.
        best_epochs: the epoch of lowest validation loss of each fit, from 1; 0 where there was none.
        epochs: how many the head was allowed.
    """
    fits = [fit for _, fit in curves.groupby("fold")]
    best_epochs = best_epochs[: len(fits)]  # a head on all rows, which comes last, has no curves
    kept = [
        fit[fit["epoch"] == best].iloc[0]
        for fit, best in zip(fits, best_epochs, strict=True)
        if (fit["epoch"] == best).any()
    ]
    training = np.array([row["auc"] for row in kept], float)
    held_out = np.array([row["validation_auc"] for row in kept], float)
    known = ~(np.isnan(training) | np.isnan(held_out))
    if not known.any():
        return FitVerdict("not judged", "No epoch has an AUC on both sides, so nothing can be said.")
    a, b = float(training[known].mean()), float(held_out[known].mean())
    figures = f"At the epochs kept the AUC is {a:.3f} on the images learnt from and {b:.3f} on those that stop it"
    late = sum(best >= LATE * epochs for best in best_epochs)
    unfinished = f"{late} of {len(best_epochs)} fits were best at the very end of the {epochs} epochs allowed"
    if a - b > GAP:
        more = f" Yet {unfinished}: it has not settled." if 2 * late > len(best_epochs) else ""
        return FitVerdict(
            "overfit",
            f"{figures}: a gap of {a - b:.3f}, above {GAP:.2f}. Stronger L2, more dropout or more images may help."
            f"{more}",
        )
    if a < LOW_AUC:
        return FitVerdict(
            "underfit",
            f"{figures}: below {LOW_AUC:.2f} even where it learnt. A wider head, less L2 or dropout, or other features "
            "may help.",
        )
    if 2 * late > len(best_epochs):
        return FitVerdict("underfit", f"{figures}; {unfinished}. More epochs, or a higher learning rate, may help.")
    return FitVerdict("well fit", f"{figures}: high, and no more than {GAP:.2f} apart.")
