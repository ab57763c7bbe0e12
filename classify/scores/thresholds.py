"""Choose, per label, the probability from which on a prediction is positive."""

import numpy as np

from classify.crossfit.plan import Folds
from classify.scores.metrics import ThresholdRule
from features.common.arrays import Decisions, Labels, Probabilities, Thresholds


def fit_thresholds(labels: Labels, probabilities: Probabilities, rule: ThresholdRule) -> Thresholds:
    """Choose a threshold per label; infinite where it has no positives: no cut would be right.

    Only cuts between two different probabilities, and below all of them, are tried; a cut lies in the middle. Of equal
    cuts the highest is taken, so that fewer rows are positive. `sensitivity` takes the highest cut that reaches it.
    """
    return np.array([_fit_label(*columns, rule) for columns in zip(labels.T, probabilities.T, strict=True)])


def cross_fit_binary(labels: Labels, out_of_fold: Probabilities, rule: ThresholdRule, folds: Folds) -> Decisions:
    """Decide each training row by thresholds that its own fold had no part in, so that the decisions can be scored."""
    binary = np.empty(labels.shape, dtype=np.uint8)
    for learnt, held_out in folds.split():
        thresholds = fit_thresholds(labels[learnt], out_of_fold[learnt], rule)
        binary[held_out] = to_binary(out_of_fold[held_out], thresholds)
    return binary


def measure_cost(labels: Labels, out_of_fold: Probabilities, binary: Decisions) -> np.ndarray:
    """Measure F1, sensitivity and specificity of decisions, then of a threshold of 0.5: float64 (L, 6).

    Every label has both values; the decisions are those that `cross_fit_binary` made of the probabilities.
    """
    at_half = to_binary(out_of_fold, np.full(labels.shape[1], 0.5))
    return np.hstack([_measure(labels, binary), _measure(labels, at_half)])


def to_binary(probabilities: Probabilities, thresholds: Thresholds) -> Decisions:
    """Decide: 1 from the threshold on, else 0."""
    return (probabilities >= thresholds).astype(np.uint8)


def _fit_label(truth: np.ndarray, probability: np.ndarray, rule: ThresholdRule) -> float:
    """Choose the threshold of one label; arrays (N,)."""
    positives = int(truth.sum())
    if not positives:
        return np.inf
    order = np.argsort(-probability, kind="stable")
    ranked = probability[order].astype(np.float64)
    last_of_level = np.append(ranked[1:] != ranked[:-1], True)
    tp = np.cumsum(truth[order], dtype=np.float64)[last_of_level]
    predicted = np.flatnonzero(last_of_level) + 1.0
    levels = ranked[last_of_level]
    cuts = np.append((levels[:-1] + levels[1:]) / 2, 0.0)  # in float64 the middle of two float32 is exact
    reached = rule.aim.objective(tp, predicted, positives, len(truth) - positives, rule.value)
    return float(cuts[np.argmax(reached >= reached.max() - 1e-12)])  # equal cuts may differ by rounding


def _measure(labels: Labels, binary: Decisions) -> np.ndarray:
    """Give F1, sensitivity and specificity, float64 (L, 3); every label has both values."""
    positives = labels.sum(axis=0, dtype=np.float64)
    found = (labels & binary).sum(axis=0, dtype=np.float64)
    predicted = binary.sum(axis=0, dtype=np.float64)
    specificity = 1 - (predicted - found) / (len(labels) - positives)
    return np.column_stack([2 * found / (positives + predicted), found / positives, specificity])
