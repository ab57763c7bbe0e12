"""Score probabilities and decisions: per label, over all labels, each figure with its bootstrap interval."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from classify.scores.bootstrap import Resampling
from classify.scores.ranking import rank_scores

#: Of each label, of all cells together (`MICRO`), and as the mean over the labels (`MACRO`).
METRICS = (
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
    "calibration_error",
    "f1",
    "f2",
    "sensitivity",
    "specificity",
    "accuracy",
    "all_negative_accuracy",
)
#: Of whole rows (`OVERALL`).
ROW_METRICS = ("exact_match", "weighted_log_loss")
MICRO, MACRO, OVERALL = "micro", "macro", "overall"
#: The label of RSNA 2019 that is positive where any other is.
ANY = "any"
#: Bins of equal width of the expected calibration error: Guo et al. 2017, section 5.
BINS = 15
#: An interval's ends, in percent of the draws.
ENDS = (2.5, 97.5)
#: Probabilities are clipped by this much before a logarithm, as scikit-learn does with float32.
EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Score:
    """One figure.

    Attributes:
        label: the label, `MICRO`, `MACRO` for the mean over the labels that have a value, or `OVERALL`.
        metric: one of `METRICS` or `ROW_METRICS`.
        value: the figure; None where it is not defined.
        low, high: the ends of the 95 % interval; None without one.
        reason: why it is not defined, or which labels the mean leaves out; empty otherwise.
        interval_reason: why there is no interval, or which draws it leaves out; empty otherwise.
    """

    label: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    interval_reason: str = ""


def score(
    labels: np.ndarray,
    probabilities: np.ndarray,
    binary: np.ndarray,
    label_names: tuple[str, ...],
    resampling: Resampling,
) -> list[Score]:
    """Compute every metric with its percentile interval.

    ROC-AUC needs both classes, average precision and sensitivity a positive, specificity a negative, F1 and F2 a
    positive label or prediction; where that lacks, the value is None. A draw that lacks it is left out of the interval.

    The weighted log loss is RSNA 2019's: `any` counts twice, every other label once. Where no label is called `any`, it
    is derived: positive where a label is, with the probability 1 - product of (1 - probability).

    Args:
        labels: uint8 array (N, L), 0 or 1, N at least 1.
        probabilities: float32 array (N, L), 0-1.
        binary: uint8 array (N, L), 0 or 1: the decisions.
        label_names: the names of the L labels.
        resampling: of the N rows.

    Returns:
        The scores by label in the order of `label_names`, then micro, then macro, each in the order of `METRICS`; then
        overall, in the order of `ROW_METRICS`.
    """
    sums = np.stack([_sum(*columns, resampling) for columns in zip(labels.T, probabilities.T, binary.T, strict=True)])
    of_names: dict[str, dict[str, np.ndarray]] = {}
    for index, name in enumerate(label_names):
        ranks = rank_scores(labels[:, index], probabilities[:, index], resampling)
        of_names[name] = _compute(sums[index], *ranks)
    cells = Resampling(np.repeat(resampling.unit_of_row, len(label_names)), resampling.weights)
    of_names[MICRO] = _compute(sums.sum(axis=0), *rank_scores(labels.ravel(), probabilities.ravel(), cells))

    enough = resampling.unit_count > 1
    scores = []
    for name, metrics in of_names.items():
        column = labels if name == MICRO else labels[:, label_names.index(name)]
        scores += [_make(name, metric, metrics[metric], enough, _why(metric, column)) for metric in METRICS]
    scores += [_macro(metric, {name: of_names[name][metric] for name in label_names}, enough) for metric in METRICS]
    of_rows = _compute_rows(labels, probabilities, binary, label_names, resampling)
    return scores + [_make(OVERALL, metric, of_rows[metric], enough, "") for metric in ROW_METRICS]


def _losses(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Compute the log loss of each cell; any shape, float64."""
    clipped = np.clip(probability.astype(np.float64), EPSILON, 1 - EPSILON)
    return -np.log(np.where(truth == 1, clipped, 1 - clipped))


def _sum(truth: np.ndarray, probability: np.ndarray, predicted: np.ndarray, resampling: Resampling) -> np.ndarray:
    """Sum what the metrics of one label are ratios of, over every resample.

    Args:
        truth: uint8 array (N,), 0 or 1.
        probability: float32 array (N,), 0-1.
        predicted: uint8 array (N,), 0 or 1.
        resampling: of the N rows, with B rows of weights.

    Returns:
        float64 array (B, 6 + BINS): true positives, false positives, false negatives, true negatives, log loss, squared
        error, and per bin the sum of truth - probability. They add up over labels.
    """
    probability = probability.astype(np.float64)
    outcome = np.eye(4)[2 * (1 - predicted.astype(int)) + (predicted != truth)][:, [0, 1, 3, 2]]
    error = truth - probability
    bins = np.eye(BINS)[np.minimum((probability * BINS).astype(int), BINS - 1)]
    return resampling.sum(np.column_stack([outcome, _losses(truth, probability), error**2, bins * error[:, None]]))


def _compute(sums: np.ndarray, auc: np.ndarray, precision: np.ndarray) -> dict[str, np.ndarray]:
    """Make the metrics of one label, or of all cells, from sums as `_sum` returns them.

    Returns:
        By metric, float64 array (B,); NaN where it is not defined.
    """
    tp, fp, fn, tn = sums[:, :4].T
    count = tp + fp + fn + tn
    with np.errstate(invalid="ignore"):
        return {
            "roc_auc": auc,
            "average_precision": precision,
            "log_loss": sums[:, 4] / count,
            "brier": sums[:, 5] / count,
            "calibration_error": np.abs(sums[:, 6:]).sum(axis=1) / count,
            "f1": 2 * tp / (2 * tp + fp + fn),
            "f2": 5 * tp / (5 * tp + fp + 4 * fn),
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "accuracy": (tp + tn) / count,
            "all_negative_accuracy": (tn + fp) / count,
        }


def _compute_rows(
    labels: np.ndarray,
    probabilities: np.ndarray,
    binary: np.ndarray,
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
    """Say what the metric lacks if it is not defined for these labels, of any shape."""
    cells = f"{truth.size} cells" if truth.ndim > 1 else f"{len(truth)} rows"
    if metric == "roc_auc":
        return f"all {cells} have the value {truth.flat[0]}"
    if metric == "specificity":
        return f"none of {cells} is negative"
    return f"none of {cells} is positive" + (" or predicted positive" if metric in ("f1", "f2") else "")


def _macro(metric: str, of_labels: Mapping[str, np.ndarray], enough: bool) -> Score:
    """Average a metric over the labels for which it is defined."""
    defined = [values for values in of_labels.values() if not np.isnan(values[0])]
    left_out = [name for name, values in of_labels.items() if np.isnan(values[0])]
    reason = f"undefined for {', '.join(left_out)}" if left_out else ""
    if not defined:
        return Score(MACRO, metric, None, reason=reason)
    mean = _make(MACRO, metric, np.mean(defined, axis=0), enough, "")
    return Score(MACRO, metric, mean.value, mean.low, mean.high, reason, mean.interval_reason)


def _make(name: str, metric: str, values: np.ndarray, enough: bool, why: str) -> Score:
    """Make a score from its value on the rows as they are, the first, and on the draws, the others."""
    if np.isnan(values[0]):
        return Score(name, metric, None, reason=why)
    value, drawn = float(values[0]), values[1:]
    if not enough:
        return Score(name, metric, value, interval_reason="one group only: nothing to resample")
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return Score(name, metric, value, interval_reason=f"undefined in all of {len(drawn)} draws")
    low, high = (float(end) for end in np.percentile(defined, ENDS))
    left_out = len(drawn) - len(defined)
    partly = f"undefined in {left_out} of {len(drawn)} draws, which it leaves out" if left_out else ""
    return Score(name, metric, value, low, high, interval_reason=partly)
