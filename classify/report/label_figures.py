"""Draw what one label's probabilities look like: ROC, precision and recall, calibration, histogram."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from classify.report.plotting import FIRST, GRID, MUTED, SECOND, add_legend, new_figure, unit_axes
from classify.scores.metrics import BINS
from classify.scores.thresholds import to_binary

#: Points of a curve at the most: more than a screen can show.
_POINTS = 300
_BARS = 40
#: The normal deviate of a 95 % interval.
_Z = 1.96


@dataclass(frozen=True)
class Scored:
    """The rows of one split that one label is measured on.

    Attributes:
        name: what the legend calls them.
        truth: uint8 array (N,), 0 or 1, both values.
        probability: float32 array (N,), 0-1.
    """

    name: str
    truth: np.ndarray
    probability: np.ndarray


def draw_roc(splits: Sequence[Scored], threshold: float) -> Figure:
    """Draw sensitivity against the share of false alarms; a dot at the threshold."""
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    for split, colour in zip(splits, (FIRST, SECOND), strict=False):
        false_alarms, found, _ = roc_curve(split.truth, split.probability)
        axes.plot(*thin(false_alarms, found), color=colour, label=split.name)
        decided = decide(split, threshold)
        axes.plot(decided[split.truth == 0].mean(), decided[split.truth == 1].mean(), "o", color=colour, markersize=6)
    unit_axes(axes, "1 - specificity", "sensitivity")
    add_legend(figure)
    return figure


def draw_precision_recall(splits: Sequence[Scored], threshold: float) -> Figure:
    """Draw precision against sensitivity; a dot at the threshold, a broken line at the share of positives."""
    figure, axes = new_figure()
    for split, colour in zip(splits, (FIRST, SECOND), strict=False):
        precision, recall, _ = precision_recall_curve(split.truth, split.probability)
        axes.step(*thin(recall, precision), color=colour, label=split.name, where="post")
        axes.axhline(split.truth.mean(), color=colour, linewidth=0.8, linestyle=(0, (3, 3)))
        decided = decide(split, threshold)
        if decided.any():
            axes.plot(decided[split.truth == 1].mean(), split.truth[decided].mean(), "o", color=colour, markersize=6)
    unit_axes(axes, "sensitivity (recall)", "precision (PPV)")
    add_legend(figure)
    return figure


def draw_calibration(splits: Sequence[Scored]) -> Figure:
    """Draw the share of positives against the mean probability, in bins of equal width, with 95 % intervals."""
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    for split, colour in zip(splits, (FIRST, SECOND), strict=False):
        mean, share, low, high = bin_calibration(split.truth, split.probability)
        axes.errorbar(
            mean, share, [share - low, high - share], color=colour, label=split.name,
            marker="o", markersize=3.5, linewidth=1.2, elinewidth=0.8,
        )  # fmt: skip
    unit_axes(axes, "mean probability", "share of positives")
    add_legend(figure)
    return figure


def draw_histogram(split: Scored, threshold: float) -> Figure:
    """Draw how many negatives and positives have which probability, on a logarithmic scale."""
    figure, axes = new_figure()
    edges = np.linspace(0, 1, _BARS + 1).tolist()
    negatives, positives = (split.probability[split.truth == value] for value in (0, 1))
    axes.hist(negatives, edges, color=MUTED, alpha=0.45, label=f"negative ({len(negatives):,})")
    axes.hist(positives, edges, color=FIRST, histtype="step", linewidth=1.6, label=f"positive ({len(positives):,})")
    if np.isfinite(threshold):
        axes.axvline(threshold, color=SECOND, linestyle=(0, (4, 2)), linewidth=1.2, label=f"threshold {threshold:.3f}")
    axes.set_yscale("log")
    axes.set(xlim=(0, 1), xlabel="probability", ylabel="images (logarithmic)")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(visible=False, axis="x")
    axes.grid(color=GRID, axis="y")
    add_legend(figure)
    return figure


def decide(split: Scored, threshold: float) -> np.ndarray:
    """Tell which rows are positive from the threshold on, as the run does: bool (N,)."""
    return to_binary(split.probability[:, None], np.array([threshold]))[:, 0].astype(bool)


def bin_calibration(truth: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compare probabilities with what came true, in the bins of the expected calibration error.

    Args:
        truth: uint8 array (N,), 0 or 1.
        probability: float32 array (N,), 0-1.

    Returns:
        Four float64 arrays, a value per bin that holds rows: mean probability, share of positives, and the ends of its
        95 % interval (Wilson 1927), which is not 0 to 0 where a bin has no positive.
    """
    exact = probability.astype(np.float64)
    bins = np.minimum((exact * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS).astype(float)
    filled = count > 0
    mean = (np.bincount(bins, exact, BINS)[filled]) / count[filled]
    share = (np.bincount(bins, truth, BINS)[filled]) / count[filled]
    n = count[filled]
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return mean, share, np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep at most some `_POINTS` points of a curve, the first and the last among them."""
    if len(x) <= _POINTS:
        return x, y
    # Even along the curve, not along the rows: few rows make the steep part.
    along = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], _POINTS)))
    return x[kept], y[kept]
