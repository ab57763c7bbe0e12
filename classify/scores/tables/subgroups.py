"""Score the final model on subgroups of the images, by columns of the data set, each beside the rest."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from classify.scores.choice import LEAST_POSITIVES
from classify.scores.metrics import MACRO
from classify.scores.resampling import auc_within_folds, percentile_interval, rank_scores
from classify.scores.scoring import mean_over_labels
from classify.scores.small import BOOTSTRAP, Interval, auc_interval, few_units, share_interval
from classify.scores.tables.columns import name_subgroups
from classify.scores.tables.splits import SplitReading
from features.common.arrays import UNKNOWN

#: Images below which a subgroup is named, but not scored.
LEAST_SUBGROUP = 20
#: The metrics of subgroups.
SUBGROUP_METRICS = ("roc_auc", "average_precision", "sensitivity", "specificity")


class SubgroupFigure(NamedTuple):
    """One figure of one label, or of `MACRO`, on a subgroup of a split's images; None where it is not defined.

    Attributes:
        column: of the data set's CSV file.
        subgroup: a value of it, a range of values, or `MISSING`.
        positives: images that have the label; None of `MACRO`. Figures are of the images whose label is known.
        metric: one of `SUBGROUP_METRICS`; of `MACRO` the mean over the labels that have `LEAST_POSITIVES` positives,
            and the figure, in the subgroup and in the rest.
        interval: how the 95 % interval was made; empty where there is none.
        rest: the same figure on all other images.
        difference: from the rest; its interval is by the same draws, or of both intervals where a label has few groups.
    """

    split: str
    column: str
    subgroup: str
    label: str
    images: int
    positives: int | None
    metric: str
    value: float | None
    low: float | None
    high: float | None
    interval: str
    rest: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None


def score_subgroups(
    label_names: Sequence[str], splits: Sequence[SplitReading], columns: Mapping[str, Mapping[str, np.ndarray]]
) -> list[SubgroupFigure]:
    """Score each subgroup of each split.

    Args:
        label_names: the L labels.
        splits: `oof` first.
        columns: by name and split the cells, str (N,).
    """
    figures: list[SubgroupFigure] = []
    for column, of_splits in columns.items():
        named = name_subgroups(column, of_splits)
        for split in splits:
            for subgroup in np.unique(named[split.name]).tolist() if split.name in named else ():
                own = named[split.name] == subgroup
                figures += _score(split, column, subgroup, own, label_names)
    return figures


def list_small(figures: Sequence[SubgroupFigure]) -> list[str]:
    """Name the subgroups that are too small to be scored, with their images."""
    small = {f"{f.column} {f.subgroup} ({f.split}, {f.images})": None for f in figures if f.images < LEAST_SUBGROUP}
    return list(small)


def _score(
    split: SplitReading, column: str, subgroup: str, own: np.ndarray, label_names: Sequence[str]
) -> list[SubgroupFigure]:
    """Score one subgroup, bool (N,), beside the rest."""
    images = int(own.sum())
    enough = images >= LEAST_SUBGROUP
    parts = [np.flatnonzero(own), np.flatnonzero(~own)]
    figures: list[SubgroupFigure] = []
    counted: list[str] = []
    drawn: list[dict[str, dict[str, np.ndarray]]] = [{metric: {} for metric in SUBGROUP_METRICS} for _ in parts]
    for index, label in enumerate(label_names):
        positives = int((split.labels[own, index] == 1).sum())
        known = [rows[split.labels[rows, index] != UNKNOWN] for rows in parts]
        sides = [_draw(split, rows, index) if enough and len(rows) >= LEAST_SUBGROUP else {} for rows in known]
        intervals = [_intervals(split, rows, index, side) for rows, side in zip(known, sides, strict=True)]
        for metric in SUBGROUP_METRICS:
            ends = [found.get(metric) for found in intervals]
            compared = _compare([side.get(metric) for side in sides], ends, split.resampling.unit_count > 1)
            figures.append(SubgroupFigure(split.name, column, subgroup, label, images, positives, metric, *compared))
        if all(sides) and all((split.labels[rows, index] == 1).sum() >= LEAST_POSITIVES for rows in known):
            counted.append(label)
            for metric in SUBGROUP_METRICS:
                if np.isnan([side[metric][0] for side in sides]).any():
                    continue  # a mean of other labels than the rest's would be no comparison
                for side, of_metrics in zip(sides, drawn, strict=True):
                    of_metrics[metric][label] = side[metric]
    if len(counted) == 1:  # the mean of one label is that label, with its intervals
        return figures + [f._replace(label=MACRO, positives=None) for f in figures if f.label == counted[0]]
    for metric in SUBGROUP_METRICS:
        means = [mean_over_labels(side[metric], ()) if side[metric] else None for side in drawn]
        compared = _compare(means, [None, None], split.resampling.unit_count > 1)
        figures.append(SubgroupFigure(split.name, column, subgroup, MACRO, images, None, metric, *compared))
    return figures


def _draw(split: SplitReading, rows: np.ndarray, label: int) -> dict[str, np.ndarray]:
    """Compute `SUBGROUP_METRICS` of some known rows, as they are and on each draw: float64 (1 + draws,) each."""
    drawn = split.resampling.of(rows)
    truth, probability, binary = (array[rows, label] for array in (split.labels, split.probabilities, split.binary))
    auc, precision = rank_scores(truth, probability, drawn)
    if split.by_fold is not None:
        auc = auc_within_folds(truth, *_of_rows(split, rows, label), drawn)
    cells = [truth, truth * binary, 1 - truth, (1 - truth) * (1 - binary)]
    positives, found, negatives, passed = drawn.sum(np.column_stack(cells).astype(np.float64)).T
    with np.errstate(invalid="ignore"):
        return dict(zip(SUBGROUP_METRICS, (auc, precision, found / positives, passed / negatives), strict=True))


def _of_rows(split: SplitReading, rows: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities by repeat, and the folds, of some rows; of one model all rows are of one fold."""
    if split.by_fold is None:
        return split.probabilities[rows, label][None], np.zeros((1, len(rows)), np.int64)
    return split.by_fold.by_repeat[:, rows, label], split.by_fold.fold_of_row[:, rows]


def _intervals(
    split: SplitReading, rows: np.ndarray, label: int, side: Mapping[str, np.ndarray]
) -> dict[str, Interval]:
    """Give the intervals of a label with few groups of positives or negatives among some rows; else none."""
    truth = split.labels[rows, label]
    units = np.unique(split.unit_of_row[rows], return_inverse=True)[1]
    if not side or split.resampling.unit_count < 2 or not few_units(truth, units):
        return {}
    found = {}
    if not np.isnan(side["roc_auc"][0]):
        found["roc_auc"] = auc_interval(float(side["roc_auc"][0]), truth, *_of_rows(split, rows, label), units)
    for metric, value in (("sensitivity", 1), ("specificity", 0)):
        if (own := truth == value).any():
            found[metric] = share_interval(split.binary[rows, label][own] == value, units[own])
    return found


def _compare(
    sides: Sequence[np.ndarray | None], intervals: Sequence[Interval | None], several: bool
) -> tuple[float | None, float | None, float | None, str, float | None, float | None, float | None, float | None]:
    """Give value, low, high and how; the rest's value; the difference, its low and high.

    Args:
        sides: of the subgroup and of the rest: float64 (1 + draws,); None where there is nothing to score.
        intervals: of both, where those of the draws are too narrow.
        several: whether there are several groups to draw.
    """
    own, rest = (None if side is None or np.isnan(side[0]) else side for side in sides)
    ends = [_ends(side, given, several) for side, given in zip((own, rest), intervals, strict=True)]
    value, of_rest = (None if side is None else float(side[0]) for side in (own, rest))
    if own is None or rest is None:
        return value, *ends[0], of_rest, None, None, None
    difference = float(own[0] - rest[0])
    if not several:
        return value, *ends[0], of_rest, difference, None, None
    low, high = percentile_interval(own - rest)
    if any(intervals):  # the difference of two estimates, from the interval of each (Newcombe 1998, method 10)
        (a_low, a_high, _), (b_low, b_high, _) = ends
        low = high = None
        if a_low is not None and a_high is not None and b_low is not None and b_high is not None:
            low = difference - math.hypot(own[0] - a_low, b_high - rest[0])
            high = difference + math.hypot(a_high - own[0], rest[0] - b_low)
    return value, *ends[0], of_rest, difference, low, high


def _ends(side: np.ndarray | None, given: Interval | None, several: bool) -> tuple[float | None, float | None, str]:
    """The interval of one side, and how it was made."""
    if side is None or not several:
        return None, None, ""
    if given is not None:
        return given.low, given.high, given.how
    low, high = percentile_interval(side)
    return low, high, "" if low is None else BOOTSTRAP
