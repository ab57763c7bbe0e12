"""Choose, per label, the probability from which on a prediction is positive."""

import re
from dataclasses import dataclass

import numpy as np

from classify.crossfit.folds import Folds
from features.common.errors import InputError

_FORMS = "f1, f2 (or f0.5, any beta), youden, sensitivity=0.95 (or any share)"


@dataclass(frozen=True)
class ThresholdRule:
    """What a threshold is chosen for.

    Attributes:
        text: as given to `--threshold`.
        aim: `f`, `youden` or `sensitivity`.
        value: the beta of F-beta, or the share of positives to find; 0 for Youden's J.
    """

    text: str
    aim: str
    value: float

    @classmethod
    def parse(cls, text: str) -> "ThresholdRule":
        """Read a rule such as `f1`, `f0.5`, `youden`, `sensitivity=0.95`.

        Raises:
            InputError: it is none of these.
        """
        if text == "youden":
            return cls(text, "youden", 0.0)
        number = r"(\d+(?:\.\d+)?|\.\d+)"
        if (found := re.fullmatch(f"f{number}", text)) and 0 < float(found[1]) <= 100:
            return cls(text, "f", float(found[1]))
        if (found := re.fullmatch(f"sensitivity={number}", text)) and 0 < float(found[1]) <= 1:
            return cls(text, "sensitivity", float(found[1]))
        raise InputError(f"--threshold {text!r}: expected one of {_FORMS}.")


#: Rare labels have few positives to find: F1 weighs finding them against false alarms.
DEFAULT_RULE = ThresholdRule.parse("f1")


def fit_thresholds(labels: np.ndarray, probabilities: np.ndarray, rule: ThresholdRule) -> np.ndarray:
    """Choose a threshold per label.

    Only cuts between two different probabilities, and below all of them, are tried; a cut lies in the middle. Of equal
    cuts the highest is taken, so that fewer rows are positive. `sensitivity` takes the highest cut that reaches it.

    Args:
        labels: uint8 array (N, L), 0 or 1.
        probabilities: float32 array (N, L), 0-1.
        rule: what to choose for.

    Returns:
        float64 array (L,): positive from there on. Infinite for a label without positives: no cut would be right.
    """
    return np.array([_fit_label(*columns, rule) for columns in zip(labels.T, probabilities.T, strict=True)])


def cross_fit_binary(labels: np.ndarray, out_of_fold: np.ndarray, rule: ThresholdRule, folds: Folds) -> np.ndarray:
    """Decide each training row by thresholds that its own fold had no part in, so that the decisions can be scored.

    Args:
        labels: uint8 array (N, L), 0 or 1.
        out_of_fold: float32 array (N, L), 0-1.
        rule: what to choose for.
        folds: of the N rows.

    Returns:
        uint8 array (N, L), 0 or 1.
    """
    binary = np.empty(labels.shape, dtype=np.uint8)
    for learnt, held_out in folds.split():
        thresholds = fit_thresholds(labels[learnt], out_of_fold[learnt], rule)
        binary[held_out] = to_binary(out_of_fold[held_out], thresholds)
    return binary


def measure_cost(labels: np.ndarray, out_of_fold: np.ndarray, rule: ThresholdRule, folds: Folds) -> np.ndarray:
    """Measure what thresholds by a rule cost, beside a threshold of 0.5.

    Args:
        labels: uint8 array (N, L), 0 or 1; every label has both values.
        out_of_fold: float32 array (N, L), 0-1.
        rule: what to choose for.
        folds: of the N rows.

    Returns:
        float64 array (L, 6): F1, sensitivity and specificity of `cross_fit_binary`, then the same of 0.5.
    """
    at_half = to_binary(out_of_fold, np.full(labels.shape[1], 0.5))
    return np.hstack([_measure(labels, cross_fit_binary(labels, out_of_fold, rule, folds)), _measure(labels, at_half)])


def to_binary(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Decide.

    Args:
        probabilities: float32 array (N, L), 0-1.
        thresholds: float64 array (L,).

    Returns:
        uint8 array (N, L): 1 from the threshold on, else 0.
    """
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
    sensitivity = tp / positives
    if rule.aim == "sensitivity":
        return float(cuts[np.argmax(sensitivity >= rule.value)])
    if rule.aim == "youden":
        return float(cuts[np.argmax(sensitivity - (predicted - tp) / max(len(truth) - positives, 1))])
    squared = rule.value**2
    return float(cuts[np.argmax((1 + squared) * tp / (squared * positives + predicted))])


def _measure(labels: np.ndarray, binary: np.ndarray) -> np.ndarray:
    """Give F1, sensitivity and specificity, float64 (L, 3); every label has both values."""
    positives = labels.sum(axis=0, dtype=np.float64)
    found = (labels & binary).sum(axis=0, dtype=np.float64)
    predicted = binary.sum(axis=0, dtype=np.float64)
    specificity = 1 - (predicted - found) / (len(labels) - positives)
    return np.column_stack([2 * found / (positives + predicted), found / positives, specificity])
