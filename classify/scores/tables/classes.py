"""Score exclusive classes: the class of an image is the one of the highest probability, of equal ones the first."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from classify.scores.resampling import Resampling
from classify.scores.small import share_interval
from features.common.arrays import UNKNOWN, Labels, Probabilities

#: Classes whose rows are counted in all draws at once: of 100,000 rows they take 51 MB.
_AT_ONCE = 32


class ConfusionFigure(NamedTuple):
    """One cell of the confusion matrix of a split.

    Attributes:
        truth: the class of the images.
        predicted: what they are taken for.
        images: how many.
        share: of the images of that class; on the diagonal it is the class's recall. None where there are none.
        interval: how the 95 % interval was made; empty where there is none.
    """

    split: str
    truth: str
    predicted: str
    images: int
    share: float | None
    low: float | None
    high: float | None
    interval: str


def pick_classes(values: np.ndarray) -> np.ndarray:
    """Give the class of each row by number, int64 (N,), from probabilities or the truth, (N, L)."""
    return np.argmax(values, axis=1)


def score_classes(truth: np.ndarray, predicted: np.ndarray, resampling: Resampling) -> dict[str, np.ndarray]:
    """Compute top-1 and balanced accuracy on the rows as they are, then on each draw: float64 (1 + draws,) each.

    Args:
        truth: int (N,), the class of each row by number.
        predicted: int (N,), likewise.
        resampling: of the rows.

    Returns:
        By metric: the share of the rows that are right, and the mean of that share over the classes that have rows.
    """
    right = truth == predicted
    sums = resampling.sum(np.column_stack([np.ones(len(truth)), right]).astype(np.float64))
    recalls = []
    for some in np.split(np.unique(truth), range(_AT_ONCE, len(np.unique(truth)), _AT_ONCE)):
        own = truth[:, np.newaxis] == some
        counted = resampling.sum(np.column_stack([own, own & right[:, np.newaxis]]).astype(np.float64))
        with np.errstate(invalid="ignore"):  # a draw without a class has no recall of it
            recalls.append(counted[:, len(some) :] / counted[:, : len(some)])
    return {"top1_accuracy": sums[:, 1] / sums[:, 0], "balanced_accuracy": np.nanmean(np.hstack(recalls), axis=1)}


def count_confusions(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count the rows, int (N,) both, by class and by what they are taken for: int64 (L, L)."""
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def tabulate_confusions(
    split: str, label_names: Sequence[str], labels: Labels, probabilities: Probabilities, unit_of_row: np.ndarray
) -> list[ConfusionFigure]:
    """Tabulate the confusion matrix of a split, class by class, each cell's share with its interval.

    Args:
        split: `oof` or `test`.
        label_names: the L classes.
        labels: the truth, one class a row; rows of which no label is known have no part.
        probabilities: of the same rows.
        unit_of_row: int64 (N,), their groups.
    """
    known = (labels != UNKNOWN).all(axis=1)
    truth, predicted, unit_of_row = pick_classes(labels[known]), pick_classes(probabilities[known]), unit_of_row[known]
    counts = count_confusions(truth, predicted, len(label_names))
    figures = []
    for own, name in enumerate(label_names):
        rows = truth == own
        taken_for, units = predicted[rows], unit_of_row[rows]
        never = share_interval(np.zeros(len(units)), units) if len(units) else None  # once for all, as most cells are 0
        for other, taken in enumerate(label_names):
            images, share = int(counts[own, other]), None
            low = high = None
            how = ""
            if never is not None:
                share = images / len(units)
                low, high, how, _ = share_interval(taken_for == other, units) if images else never
            figures.append(ConfusionFigure(split, name, taken, images, share, low, high, how))
    return figures
