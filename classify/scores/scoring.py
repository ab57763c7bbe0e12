"""Score probabilities and decisions: per label, over all labels, each figure with its bootstrap interval."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from classify.ensembles.estimators import PROBABILITY_EPSILON
from classify.scores.metrics import BINS, MACRO, METRICS, MICRO, OVERALL, ROW_METRICS, Score, Sums
from classify.scores.resampling import Resampling, auc_within_folds, percentile_interval, rank_scores
from features.common.arrays import Decisions, Labels, Probabilities

#: The label of RSNA 2019 that is positive where any other is.
ANY = "any"


class ByFold(NamedTuple):
    """What each fold's model gave the rows that it held out, in every repeat.

    Attributes:
        by_repeat: float32 array (R, N, L), or (R, N) of one label.
        fold_of_row: int64 array (R, N).
    """

    by_repeat: np.ndarray
    fold_of_row: np.ndarray


def score(
    labels: Labels,
    probabilities: Probabilities,
    binary: Decisions,
    label_names: tuple[str, ...],
    resampling: Resampling,
    by_fold: ByFold | None = None,
) -> list[Score]:
    """Compute every metric with its percentile interval; see `METRICS` for what is not defined.

    The ROC-AUC is that of the pairs within `by_fold`, if it is given, where several models predicted the rows.

    The weighted log loss is RSNA 2019's: `any` counts twice, every other label once. Where no label is called `any`, it
    is derived: positive where a label is, with the probability 1 - product of (1 - probability).

    Returns:
        The scores by label in the order of `label_names`, then micro, then macro, each in the order of `METRICS`; then
        overall, in the order of `ROW_METRICS`.
    """
    sums = np.stack([_sum(*columns, resampling) for columns in zip(labels.T, probabilities.T, binary.T, strict=True)])
    of_names: dict[str, dict[str, np.ndarray]] = {}
    for index, name in enumerate(label_names):
        of_label = by_fold and ByFold(by_fold.by_repeat[:, :, index], by_fold.fold_of_row)
        ranks = _rank(labels[:, index], probabilities[:, index], resampling, of_label)
        of_names[name] = _compute(sums[index], *ranks)
    count = len(label_names)
    cells = Resampling(np.repeat(resampling.unit_of_row, count), resampling.weights)
    of_cells = by_fold and ByFold(
        by_fold.by_repeat.reshape(len(by_fold.by_repeat), -1), np.repeat(by_fold.fold_of_row, count, axis=1)
    )
    of_names[MICRO] = _compute(sums.sum(axis=0), *_rank(labels.ravel(), probabilities.ravel(), cells, of_cells))

    enough = resampling.unit_count > 1
    scores = []
    for name, metrics in of_names.items():
        column = labels if name == MICRO else labels[:, label_names.index(name)]
        scores += [_make(name, metric, metrics[metric], enough, _why(metric, column)) for metric in METRICS]
    scores += [_macro(metric, {name: of_names[name][metric] for name in label_names}, enough) for metric in METRICS]
    of_rows = _compute_rows(labels, probabilities, binary, label_names, resampling)
    return scores + [_make(OVERALL, metric, of_rows[metric], enough, "") for metric in ROW_METRICS]


def _rank(
    truth: np.ndarray, probability: np.ndarray, resampling: Resampling, by_fold: ByFold | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The last fields of `Sums` for one label, or for all cells."""
    pooled, precision = rank_scores(truth, probability, resampling)
    return auc_within_folds(truth, *by_fold, resampling) if by_fold else pooled, pooled, precision


def _losses(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Compute the log loss of each cell; any shape, float64."""
    clipped = np.clip(probability.astype(np.float64), PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON)
    return -np.log(np.where(truth == 1, clipped, 1 - clipped))


def _sum(truth: np.ndarray, probability: np.ndarray, predicted: np.ndarray, resampling: Resampling) -> np.ndarray:
    """Sum the first fields of `Sums`, for one label, over every resample: float64 (B, 6 + BINS)."""
    probability = probability.astype(np.float64)
    outcome = np.eye(4)[2 * (1 - predicted.astype(int)) + (predicted != truth)][:, [0, 1, 3, 2]]
    error = truth - probability
    bins = np.eye(BINS)[np.minimum((probability * BINS).astype(int), BINS - 1)]
    return resampling.sum(np.column_stack([outcome, _losses(truth, probability), error**2, bins * error[:, None]]))


def _compute(sums: np.ndarray, *ranks: np.ndarray) -> dict[str, np.ndarray]:
    """Make the metrics of one label, or of all cells, from sums of `_sum`: float64 (B,), NaN where not defined."""
    tp, fp, fn, tn, log_loss, squared_error = sums[:, :6].T
    summed = Sums(tp, fp, fn, tn, log_loss, squared_error, sums[:, 6:], *ranks)
    with np.errstate(invalid="ignore"):
        return {name: metric.formula(summed) for name, metric in METRICS.items()}


def _compute_rows(
    labels: Labels,
    probabilities: Probabilities,
    binary: Decisions,
    label_names: tuple[str, ...],
    resampling: Resampling,
) -> dict[str, np.ndarray]:
    """Compute the metrics of whole rows; arrays as in `score`, returns as `_compute`."""
    if ANY not in label_names:
        labels = np.column_stack([labels, labels.max(axis=1)])
        any_probability = 1 - np.prod(1 - probabilities.astype(np.float64), axis=1)
        probabilities = np.column_stack([probabilities, any_probability])
        label_names = (*label_names, ANY)
    shares = np.array([2.0 if name == ANY else 1.0 for name in label_names])
    exact = (binary == labels[:, : binary.shape[1]]).all(axis=1)
    weighted = _losses(labels, probabilities) @ (shares / shares.sum())
    sums = resampling.sum(np.column_stack([np.ones(len(labels)), exact, weighted]))
    return {"exact_match": sums[:, 1] / sums[:, 0], "weighted_log_loss": sums[:, 2] / sums[:, 0]}


def _why(metric: str, truth: np.ndarray) -> str:
    """Say why the metric is not defined for these labels, of any shape, if it is not."""
    cells = f"{truth.size} cells" if truth.ndim > 1 else f"{len(truth)} rows"
    return METRICS[metric].undefined.format(cells=cells, value=truth.flat[0])


def _macro(metric: str, of_labels: Mapping[str, np.ndarray], enough: bool) -> Score:
    """Average a metric over the labels for which it is defined."""
    defined = [values for values in of_labels.values() if not np.isnan(values[0])]
    left_out = [name for name, values in of_labels.items() if np.isnan(values[0])]
    reason = f"undefined for {', '.join(left_out)}" if left_out else ""
    if not defined:
        return Score(MACRO, metric, None, reason=reason)
    return replace(_make(MACRO, metric, np.mean(defined, axis=0), enough, ""), reason=reason)


def _make(name: str, metric: str, values: np.ndarray, enough: bool, why: str) -> Score:
    """Make a score from its value on the rows as they are, the first, and on the draws, the others."""
    if np.isnan(values[0]):
        return Score(name, metric, None, reason=why)
    value, drawn = float(values[0]), values[1:]
    if not enough:
        return Score(name, metric, value, interval_reason="one group only: nothing to resample")
    low, high = percentile_interval(values)
    left_out = int(np.isnan(drawn).sum())
    reason = f"undefined in {left_out} of {len(drawn)} draws, which it leaves out" if left_out else ""
    if low is None:
        reason = f"undefined in all of {len(drawn)} draws"
    return Score(name, metric, value, low, high, interval_reason=reason)
