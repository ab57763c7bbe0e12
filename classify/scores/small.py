"""Intervals of labels with few positives or negatives, or few groups of them, where the bootstrap's are too narrow.

With 2 positives the bootstrap's 95 % interval of an AUC holds the truth in 39 % of cases, with 4 in 78 %. How often
those of this module hold it: `scripts/benchmark.py honesty`.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

#: How an interval is made, as the tables of a run name it: where nothing else is said, then of labels with few groups.
BOOTSTRAP = "bootstrap"
HANLEY_MCNEIL, WILSON = "Hanley-McNeil, moderated by groups", "Wilson, by the design effect of groups"
#: Groups (rows, where none are known) of the positives, or of the negatives, below which a label has few.
FEW_UNITS = 30
#: Such groups below which no interval of the calibration slope holds: see docs/decisions.md.
_LEAST_UNITS = 10
#: Positives, as many as they count for, below which a share of them has no interval: none of 95 % exists.
_LEAST = 5
#: The normal deviate of a 95 % interval.
_Z = 1.96
#: Degrees of freedom that the model of the variance counts for beside the observed variance.
_MODEL_WEIGHT = 10


class Interval(NamedTuple):
    """The ends of a 95 % interval and how it was made; None, empty and the reason where there is none."""

    low: float | None
    high: float | None
    how: str
    reason: str = ""


def count_units(truth: np.ndarray, unit_of_row: np.ndarray) -> int:
    """Count the groups of the value that fewer have, of a label, uint8 (N,); the units are int64 (N,)."""
    return min(len(np.unique(unit_of_row[truth == value])) for value in (0, 1))


def few_units(truth: np.ndarray, unit_of_row: np.ndarray) -> bool:
    """Whether a label has few groups of either value; arrays as in `count_units`."""
    return count_units(truth, unit_of_row) < FEW_UNITS


def describe_other_intervals(made: Iterable[tuple[str, str]], unit: str) -> str:
    """Say in words which intervals are not the bootstrap's, and of which labels.

    Args:
        made: a metric and how its interval was made, of each figure; empty where it has none.
        unit: what is drawn: `group` or `row`.

    Returns:
        The words; "" where there is no other interval.
    """
    of_methods: dict[str, dict[str, None]] = {}
    for metric, how in made:
        if how not in ("", BOOTSTRAP):
            of_methods.setdefault(how, {})[metric] = None
    if not of_methods:
        return ""
    each = "; ".join(f"{', '.join(metrics)} by {how}" for how, metrics in of_methods.items())
    return f"of labels with fewer than {FEW_UNITS} {unit}s of positives or of negatives: {each}"


def auc_interval(
    auc: float, truth: np.ndarray, by_repeat: np.ndarray, fold_of_row: np.ndarray, unit_of_row: np.ndarray
) -> Interval:
    """Find the interval of an AUC over the pairs within folds, for rows in groups.

    It holds the values that the AUC found is within 1.96 standard errors of, by the standard error that the value
    itself would have (as Newcombe 2006, part 2). The variance is that of Hanley and McNeil (1982) for as many positives
    and negatives as the rows count for by their design effects, moderated by the observed variance between groups
    (Obuchowski 1997), which has as many degrees of freedom as there are groups with a positive, less one.

    Args:
        auc: of `auc_within_folds`.
        truth: uint8 array (N,), both values.
        by_repeat: as there.
        fold_of_row: as there.
        unit_of_row: int64 array (N,), the groups.
    """
    placements = _place(truth, by_repeat, fold_of_row)
    units = int(unit_of_row.max()) + 1
    counts, sums, groups = [], [], []
    for value in (1, 0):
        rows = np.flatnonzero((truth == value) & ~np.isnan(placements))
        own = placements[rows]
        counts.append(max(len(rows) / design_effect(own, unit_of_row[rows]), 1.0))
        sums.append(np.bincount(unit_of_row[rows], own - own.mean(), units) / len(rows))
        groups.append(len(np.unique(unit_of_row[rows])))
    positives, negatives = counts
    model = _hanley_mcneil(auc, positives, negatives)
    scale = 1.0
    if model > 0 and min(groups) > 1:
        parts = [k / (k - 1) * float(own @ own) for k, own in zip(groups, sums, strict=True)]
        observed = max(sum(parts) + 2 * units / (units - 1) * float(sums[0] @ sums[1]), 0.0)
        free = groups[0] - 1
        scale = (_MODEL_WEIGHT + free * observed / model) / (_MODEL_WEIGHT + free)

    def beyond(value: float) -> float:
        return (value - auc) ** 2 - _Z**2 * scale * _hanley_mcneil(value, positives, negatives)

    tiny = 1e-9
    low = brentq(beyond, tiny, auc - tiny) if auc > 2 * tiny and beyond(tiny) > 0 else 0.0
    high = brentq(beyond, auc + tiny, 1 - tiny) if auc < 1 - 2 * tiny and beyond(1 - tiny) > 0 else 1.0
    return Interval(float(low), float(high), HANLEY_MCNEIL)


def share_interval(hits: np.ndarray, unit_of_row: np.ndarray) -> Interval:
    """Find the interval of a share (Wilson 1927) of rows in groups, for as many rows as they count for.

    As the design effect is estimated, Student's t replaces the normal deviate. Its degrees of freedom lie midway
    between what the groups and what the rows that they count for would give: see docs/decisions.md.

    Args:
        hits: array (n,), 0 or 1: of the positives for sensitivity, of the negatives for specificity.
        unit_of_row: int64 array (n,): their groups.
    """
    count = len(hits) / design_effect(hits.astype(np.float64), unit_of_row)
    if count < _LEAST:
        return Interval(None, None, "", f"{len(hits)} rows that count for {count:.1f}: no interval holds")
    groups = len(np.unique(unit_of_row))
    free = (groups + max(groups, count)) / 2 - 1
    low, high = wilson(np.array(hits.mean()), np.array(count), float(stdtrit(free, 0.975)))
    return Interval(float(low), float(high), WILSON)


def refuse_slope(truth: np.ndarray, unit_of_row: np.ndarray) -> Interval | None:
    """Give the calibration slope no interval where the bootstrap's holds the truth too rarely; arrays as there."""
    units = count_units(truth, unit_of_row)
    if units >= _LEAST_UNITS:
        return None
    what = "rows" if len(np.unique(unit_of_row)) == len(truth) else "groups"
    return Interval(None, None, "", f"one value in {units} {what} only, fewer than {_LEAST_UNITS}: no interval holds")


def wilson(share: np.ndarray, count: np.ndarray, deviate: float = _Z) -> tuple[np.ndarray, np.ndarray]:
    """Give the ends of the 95 % intervals of shares (Wilson 1927), each of so many independent rows."""
    middle = (share + deviate**2 / (2 * count)) / (1 + deviate**2 / count)
    half = deviate / (1 + deviate**2 / count) * np.sqrt(share * (1 - share) / count + deviate**2 / (4 * count**2))
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)


def design_effect(values: np.ndarray, unit_of_row: np.ndarray) -> float:
    """Estimate how many rows of groups count for one (Kish 1965): 1 + (rows per group - 1) * correlation, at least 1.

    The correlation of rows of one group is by the analysis of variance, between 0 and 1; where all rows are of one
    group it is 1.
    """
    _, units, sizes = np.unique(unit_of_row, return_inverse=True, return_counts=True)
    rows, groups = len(values), len(sizes)
    if groups == rows:
        return 1.0
    if groups == 1:
        return float(rows)
    means = np.bincount(units, values) / sizes
    between = (sizes * (means - values.mean()) ** 2).sum() / (groups - 1)
    within = ((values - means[units]) ** 2).sum() / (rows - groups)
    typical = (rows - (sizes**2).sum() / rows) / (groups - 1)
    total = between + (typical - 1) * within
    correlation = min(max((between - within) / total, 0.0), 1.0) if total > 0 else 0.0
    return float(1 + ((sizes**2).sum() / rows - 1) * correlation)


def _place(truth: np.ndarray, by_repeat: np.ndarray, fold_of_row: np.ndarray) -> np.ndarray:
    """Give each row the share of the other value's rows in its fold that it is on the right side of: float64 (N,).

    Ties count half; of several repeats it is the mean; NaN where no fold of the row holds the other value.
    """
    total, known = np.zeros((2, len(truth)))
    for scores, folds in zip(by_repeat, fold_of_row, strict=True):
        for fold in np.unique(folds):
            rows = np.flatnonzero(folds == fold)
            own = truth[rows] == 1
            if not own.any() or own.all():
                continue
            for mine in (own, ~own):
                others = np.sort(scores[rows[~mine]])
                below = sum(np.searchsorted(others, scores[rows[mine]], side) for side in ("left", "right"))
                share = below / 2 / len(others)
                total[rows[mine]] += share if mine is own else 1 - share
                known[rows[mine]] += 1
    with np.errstate(invalid="ignore"):
        return total / np.where(known > 0, known, np.nan)


def _hanley_mcneil(auc: float, positives: float, negatives: float) -> float:
    """The variance of an AUC (Hanley and McNeil 1982, equation 1)."""
    two_positives, two_negatives = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (two_positives - auc**2) + (negatives - 1) * (two_negatives - auc**2)
    return spread / (positives * negatives)
