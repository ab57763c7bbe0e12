"""The labels of a run: four figures each, and the confusion matrix that the slider moves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from sklearn.metrics import precision_recall_curve, roc_curve

from classify.report import plotting
from classify.report.plotting import FIRST, GRID, MUTED, SECOND
from classify.report.run_files import LabelledSplit, RunFiles
from classify.report.tables import describe_points
from classify.rundir.files import COSTS
from classify.scores.metrics import BINS
from classify.scores.small import wilson
from classify.scores.thresholds import to_binary
from features.common.arrays import UNKNOWN, find_varied

#: Rows of the table of figures: metric and name; thresholds have no part in those before F1.
_METRICS = (
    ("roc_auc", "ROC-AUC"),
    ("average_precision", "average precision"),
    ("brier", "Brier score"),
    ("brier_skill", "Brier skill"),
    ("log_loss", "log loss"),
    ("log_loss_skill", "log loss skill"),
    ("calibration_slope", "calibration slope"),
    ("calibration_intercept", "calibration intercept"),
    ("calibration_error", "calibration error"),
    ("f1", "F1"),
    ("f2", "F2"),
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
    ("accuracy", "accuracy"),
    ("constant_accuracy", "accuracy of the more frequent value"),
)
#: The slider's positions: steps of 0.001, and ten times finer near the ends, where the cuts of rare labels lie.
POSITIONS = np.r_[np.arange(100) / 1e4, np.arange(10, 990) / 1e3, np.arange(9900, 10001) / 1e4]
#: Points of a curve at the most: more than a screen can show.
_POINTS = 300
_BARS = 40


def describe_labels(run: RunFiles, figures: Path) -> list[dict[str, Any]]:
    """Gather one section per label; the PNG files go to the folder `figures`."""
    splits, sections, points = run.splits.values(), [], describe_points(run)
    for index, (label, threshold) in enumerate(zip(run.label_names, run.cuts.tolist(), strict=True)):
        cuts = positions(threshold)
        sections.append(
            {
                "name": label,
                "number": index + 1,
                "threshold": threshold,
                "metrics": [
                    {"name": name, "values": [_score(run, split, label, metric) for split in splits]}
                    for metric, name in _METRICS
                ],
                "costs": {name: plotting.short(run.thresholds.loc[label, name]) for name in COSTS},
                "points": points.get(label, []),
                "pictures": _draw(run, index, threshold, figures),
                "cuts": np.round(cuts, 6).tolist(),
                "start": int(np.searchsorted(cuts, threshold)) if np.isfinite(threshold) else len(cuts) - 1,
                "half": int(np.searchsorted(cuts, 0.5)),
                "splits": [_count(split, index, cuts) for split in splits],
            }
        )
    return sections


def _score(run: RunFiles, split: LabelledSplit, label: str, metric: str) -> str:
    """Write a figure of the final model."""
    return plotting.with_interval(run.score(run.final_model, split.measured, label, metric))


def _count(split: LabelledSplit, index: int, cuts: np.ndarray) -> dict[str, Any]:
    """Count what each position of the slider finds in one split."""
    truth = split.labels[:, index]
    found, alarms = count_from(truth, split.probabilities[:, index], cuts)
    return {
        "title": split.title,
        "positives": int((truth == 1).sum()),
        "negatives": int((truth == 0).sum()),
        "unknown": int((truth == UNKNOWN).sum()),
        "tp": found.tolist(),
        "fp": alarms.tolist(),
    }


def _draw(run: RunFiles, index: int, threshold: float, figures: Path) -> list[plotting.Picture]:
    """Draw the four figures, of known rows; a split where the label has one value only has no curve."""
    label, stem = run.label_names[index], f"label_{plotting.file_stem(index, run.label_names[index])}"
    names = {"oof": "out-of-fold", "test": "test"}
    splits = []
    for split in run.splits.values():
        known = split.labels[:, index] != UNKNOWN
        if find_varied(split.labels)[index]:
            splits.append(Scored(names[split.measured], split.labels[known, index], split.probabilities[known, index]))

    def on_splits(metric: str) -> str:
        return ", ".join(f"{_score(run, split, label, metric)} on the {split.title}" for split in run.splits.values())

    prevalence = plotting.percent(float(splits[0].truth.mean()))
    drawn = {
        "roc": (
            draw_roc(splits, threshold),
            f"ROC curve of {label}. Area: {on_splits('roc_auc')}.",
            "ROC; dot: at the run's threshold; broken line: chance.",
        ),
        "precision_recall": (
            draw_precision_recall(splits, threshold),
            f"Precision-recall curve of {label}. Average precision: {on_splits('average_precision')}. "
            f"Chance: {prevalence} out-of-fold.",
            "Precision and recall; dot: at the run's threshold; broken line: chance.",
        ),
        "calibration": (
            draw_calibration(splits),
            f"Calibration of {label}. Slope of the logit: {on_splits('calibration_slope')}; intercept: "
            f"{on_splits('calibration_intercept')}.",
            "Calibration: on the broken line, 30 % mean 30 of 100; bars: 95 % intervals.",
        ),
        "histogram": (
            draw_histogram(splits[0], threshold),
            f"Out-of-fold probabilities of {label}: negatives and positives, and the threshold "
            f"{plotting.short(threshold)}.",
            "Out-of-fold probabilities of the negatives and the positives.",
        ),
    }
    return [
        plotting.to_picture(figure, f"{stem}_{kind}", alt, caption, figures)
        for kind, (figure, alt, caption) in drawn.items()
    ]


def positions(threshold: float) -> np.ndarray:
    """List the slider's positions, float64 (P,), ascending, all different, 0-1; the run's own threshold is among them.

    It is infinite where a label has no positive: then it is not.
    """
    return np.unique(np.append(POSITIONS, threshold)) if 0 <= threshold <= 1 else POSITIONS


def count_from(truth: np.ndarray, probability: np.ndarray, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the images that are positive from each cut on.

    Counts, and not the scores themselves, go into the page: they are exact at every position, they take the same few
    kilobytes for any number of images, and they tell nothing of a single one.

    Args:
        truth: uint8 array (N,), 0 or 1.
        probability: float32 array (N,), 0-1.
        cuts: float64 array (P,).

    Returns:
        Two int64 arrays (P,): true positives, false positives.
    """
    hits = np.sort(probability[truth == 1].astype(np.float64))
    alarms = np.sort(probability[truth == 0].astype(np.float64))
    return len(hits) - np.searchsorted(hits, cuts), len(alarms) - np.searchsorted(alarms, cuts)


class Scored(NamedTuple):
    """The rows of a split that a label is measured on, by their name in the legend."""

    name: str
    truth: np.ndarray  # uint8 (N,), 0 or 1, both values
    probability: np.ndarray  # float32 (N,), 0-1


def draw_roc(splits: Sequence[Scored], threshold: float) -> Figure:
    """Draw sensitivity against the share of false alarms; a dot at the threshold."""
    figure, axes = plotting.unit_figure("1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    for split, colour in zip(splits, (FIRST, SECOND), strict=False):
        false_alarms, found, _ = roc_curve(split.truth, split.probability)
        axes.plot(*thin(false_alarms, found), color=colour, label=split.name)
        decided = decide(split, threshold)
        axes.plot(decided[split.truth == 0].mean(), decided[split.truth == 1].mean(), "o", color=colour, markersize=6)
    plotting.add_legend(figure)
    return figure


def draw_precision_recall(splits: Sequence[Scored], threshold: float) -> Figure:
    """Draw precision against sensitivity; a dot at the threshold, a broken line at the share of positives."""
    figure, axes = plotting.unit_figure("sensitivity (recall)", "precision (PPV)")
    for split, colour in zip(splits, (FIRST, SECOND), strict=False):
        precision, recall, _ = precision_recall_curve(split.truth, split.probability)
        # Before the first positive there is no recall to draw a precision at: the curve begins with that of the first.
        begun = recall > 0
        precision, recall = np.append(precision[begun], precision[begun][-1]), np.append(recall[begun], 0)
        axes.step(*thin(recall, precision), color=colour, label=split.name, where="post")
        axes.axhline(split.truth.mean(), color=colour, linewidth=0.8, linestyle=(0, (3, 3)))
        decided = decide(split, threshold)
        if decided.any():
            axes.plot(decided[split.truth == 1].mean(), split.truth[decided].mean(), "o", color=colour, markersize=6)
    plotting.add_legend(figure)
    return figure


def draw_calibration(splits: Sequence[Scored]) -> Figure:
    """Draw the share of positives against the mean probability, in bins of equal width, with 95 % intervals."""
    figure, axes = plotting.unit_figure("mean probability", "share of positives")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    for split, colour in zip(splits, (FIRST, SECOND), strict=False):
        mean, share, low, high = bin_calibration(split.truth, split.probability)
        axes.errorbar(
            mean, share, [share - low, high - share], color=colour, label=split.name,
            marker="o", markersize=3.5, linewidth=1.2, elinewidth=0.8,
        )  # fmt: skip
    plotting.add_legend(figure)
    return figure


def draw_histogram(split: Scored, threshold: float) -> Figure:
    """Draw how many negatives and positives have which probability, on a logarithmic scale."""
    figure, axes = plotting.new_figure()
    edges = np.linspace(0, 1, _BARS + 1).tolist()
    negatives, positives = (split.probability[split.truth == value] for value in (0, 1))
    axes.hist(negatives, edges, color=MUTED, alpha=0.45, label=f"negative ({len(negatives):,})")
    axes.hist(positives, edges, color=FIRST, histtype="step", linewidth=1.6, label=f"positive ({len(positives):,})")
    if np.isfinite(threshold):
        axes.axvline(threshold, color=SECOND, linestyle=(0, (4, 2)), linewidth=1.2, label=f"threshold {threshold:.3f}")
    axes.set_yscale("log")
    axes.set(xlim=(0, 1), xlabel="probability", ylabel="images (logarithmic)")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter(NullFormatter())  # matplotlib's own writes powers of ten as raw mathematics
    axes.grid(visible=False, axis="x")
    axes.grid(color=GRID, axis="y")
    plotting.add_legend(figure)
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
    return mean, share, *wilson(share, n)


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep at most some `_POINTS` points of a curve, the first and the last among them."""
    if len(x) <= _POINTS:
        return x, y
    # Even along the curve, not along the rows: few rows make the steep part.
    along = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], _POINTS)))
    return x[kept], y[kept]
