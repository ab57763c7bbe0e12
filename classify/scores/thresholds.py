"""Choose, per label, the probability from which on a prediction is positive."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import beta, nct, norm, rankdata
from scipy.stats import t as student
from sklearn.base import BaseEstimator, clone

from classify.ensembles.estimators import to_logit
from classify.scores.choice import LEAST_POSITIVES
from classify.scores.metrics import ThresholdRule
from classify.scores.small import design_effect
from features.common.arrays import UNKNOWN, Decisions, Groups, Labels, Probabilities, Thresholds, count_values
from features.common.text import count_things
from features.folds.folds import Folds

#: How a threshold keeps a promise; see `make_promise`.
BOUND, TOLERANCE, EVERYTHING = (
    "Clopper-Pearson bound, by the design effect of groups",
    "normal tolerance limit of the positives' logits",
    "every image is positive",
)


class Promise(NamedTuple):
    """A threshold that a sensitivity is promised for, of one label.

    Attributes:
        threshold: positive from there on.
        positives: that it is fitted on.
        counts_for: as many independent positives these count for.
        needed: from so many on, a cut between the probabilities of the positives can promise it.
        how: what the promise rests on: `BOUND`, `TOLERANCE` or `EVERYTHING`.
    """

    threshold: float
    positives: int
    counts_for: float
    needed: int
    how: str

    def describe(self) -> str:
        """Say in a sentence what the promise rests on."""
        counted = f"{self.positives} positives count for {self.counts_for:.1f} independent ones"
        if self.how == BOUND:
            return f"{BOUND}: {counted}"
        return f"{self.how}: {counted}, and a bound without assumptions takes {self.needed}"


def fit_thresholds(
    labels: Labels, probabilities: Probabilities, rule: ThresholdRule, groups: Groups | None = None
) -> Thresholds:
    """Choose a threshold per label by its known rows; infinite where it has no positives: no cut would be right.

    Only cuts between two different probabilities, and below all of them, are tried; a cut lies in the middle, the
    lowest between 0 and all. Of equal cuts the highest is taken, so that fewer rows are positive. `sensitivity` takes
    the highest cut that reaches it; with a confidence, `make_promise`.
    """
    if rule.confidence:
        return np.array([promise.threshold for promise in make_promises(labels, probabilities, rule, groups)])
    return np.array([_fit_label(*columns, rule) for columns in zip(labels.T, probabilities.T, strict=True)])


def make_promises(
    labels: Labels, probabilities: Probabilities, rule: ThresholdRule, groups: Groups | None
) -> list[Promise]:
    """Make the promise of each label, by a rule with a confidence; a row is a group where none are known."""
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    return [make_promise(*columns, rule, units) for columns in zip(labels.T, probabilities.T, strict=True)]


def make_promise(truth: np.ndarray, probability: np.ndarray, rule: ThresholdRule, unit_of_row: np.ndarray) -> Promise:
    """Find the highest threshold of which a sensitivity can be promised with a confidence.

    - `BOUND`: the lower end of a one-sided interval (Clopper and Pearson 1934) reaches the sensitivity. The positives
      are as many as they count for by the design effect of their ranks and, of few groups, by Student's t (Korn and
      Graubard 1998). By itself this is the order statistic of Wilks (1941), which holds for any distribution.
    - `TOLERANCE`: positives that count for fewer than log(1 - confidence) / log(sensitivity) leave no such cut. Then
      the lower tolerance limit of normal logits (Hahn and Meeker 1991, section 4.6) is taken, or the cut below all
      positives if that is lower. It holds as far as the logits of the positives are normal.
    - `EVERYTHING`: they count for fewer than 2, and have no spread to go by.

    Args:
        truth: uint8 array (N,), 0, 1 or `UNKNOWN`.
        probability: float32 array (N,).
        rule: one with a confidence.
        unit_of_row: int64 array (N,), the groups.
    """
    rows = np.flatnonzero(truth == 1)
    needed = math.ceil(math.log(1 - rule.confidence) / math.log(rule.value))
    if not len(rows):
        return Promise(np.inf, 0, 0.0, needed, EVERYTHING)
    own, units = probability[rows], unit_of_row[rows]
    count = len(rows) / design_effect(rankdata(own), units)
    groups = len(np.unique(units))
    if 1 < groups < len(rows):
        by_rows, by_groups = student.ppf(rule.confidence, [len(rows) - 1, groups - 1])
        count = count * (by_rows / by_groups) ** 2
    hits = np.arange(1, len(rows) + 1) / len(rows) * count
    reached = np.flatnonzero(beta.ppf(1 - rule.confidence, hits, count - hits + 1) >= rule.value)
    share = (reached[0] + 1) / len(rows) if len(reached) else 1.0
    cut = _fit_label(truth, probability, ThresholdRule(rule.text, rule.aim, share))
    if len(reached):
        return Promise(cut, len(rows), count, needed, BOUND)
    if count < 2:
        return Promise(0.0, len(rows), count, needed, EVERYTHING)
    logits = to_logit(own)
    factor = nct.ppf(rule.confidence, count - 1, norm.ppf(rule.value) * math.sqrt(count)) / math.sqrt(count)
    limit = float(expit(logits.mean() - factor * logits.std(ddof=1)))
    return Promise(min(limit, cut), len(rows), count, needed, TOLERANCE)


def warn_few_positives(label_names: Sequence[str], labels: Labels) -> list[str]:
    """Name the labels whose threshold is fitted on fewer than `LEAST_POSITIVES` positives; a sentence each."""
    positives, _ = count_values(labels)
    return [
        f"{name}: its threshold is fitted on {count_things(count, 'positive')}, fewer than {LEAST_POSITIVES}, so that "
        "it may mark nearly every new image, or none; go by the probabilities"
        for name, count in zip(label_names, positives.tolist(), strict=True)
        if count < LEAST_POSITIVES
    ]


def put_on_scale(before: Probabilities, calibration: BaseEstimator | None) -> Probabilities:
    """Put out-of-fold probabilities on the one scale that new images get, on which thresholds are fitted."""
    return before if calibration is None else calibration.predict_proba(before)


def cross_fit_binary(
    labels: Labels,
    out_of_fold: Probabilities,
    rule: ThresholdRule,
    folds: Folds,
    groups: Groups | None = None,
    calibration: BaseEstimator | None = None,
) -> Decisions:
    """Decide each training row by thresholds that its own fold had no part in, so that the decisions can be scored.

    With a calibration, the probabilities are those before it: thresholds are of the scale that it gives all rows once
    it is fitted without the fold. On the scales of different folds, positives of a rare label that their own fold's
    scale never saw would all lie at the bottom.
    """
    binary = np.empty(labels.shape, dtype=np.uint8)
    for learnt, held_out in folds.split():
        scaled = out_of_fold
        if calibration is not None:
            scaled = clone(calibration).fit(out_of_fold[learnt], labels[learnt]).predict_proba(out_of_fold)
        thresholds = fit_thresholds(labels[learnt], scaled[learnt], rule, None if groups is None else groups[learnt])
        binary[held_out] = to_binary(scaled[held_out], thresholds)
    return binary


def measure_cost(labels: Labels, out_of_fold: Probabilities, binary: Decisions) -> np.ndarray:
    """Measure F1, sensitivity and specificity of decisions, then of a threshold of 0.5, on known rows: float64 (L, 6).

    Every label has both values; the decisions are those that `cross_fit_binary` made of the probabilities.
    """
    at_half = to_binary(out_of_fold, np.full(labels.shape[1], 0.5))
    return np.hstack([_measure(labels, binary), _measure(labels, at_half)])


def to_binary(probabilities: Probabilities, thresholds: Thresholds) -> Decisions:
    """Decide: 1 from the threshold on, else 0."""
    return (probabilities >= thresholds).astype(np.uint8)


def _fit_label(truth: np.ndarray, probability: np.ndarray, rule: ThresholdRule) -> float:
    """Choose the threshold of one label by its known rows; arrays (N,)."""
    known = truth != UNKNOWN
    truth, probability = truth[known], probability[known]
    positives = int(truth.sum())
    if not positives:
        return np.inf
    order = np.argsort(-probability, kind="stable")
    ranked = probability[order].astype(np.float64)
    last_of_level = np.append(ranked[1:] != ranked[:-1], True)
    tp = np.cumsum(truth[order], dtype=np.float64)[last_of_level]
    predicted = np.flatnonzero(last_of_level) + 1.0
    levels = ranked[last_of_level]
    cuts = (levels + np.append(levels[1:], 0.0)) / 2  # in float64 the middle of two float32 is exact
    reached = rule.aim.objective(tp, predicted, positives, len(truth) - positives, rule.value)
    return float(cuts[np.argmax(reached >= reached.max() - 1e-12)])  # equal cuts may differ by rounding


def _measure(labels: Labels, binary: Decisions) -> np.ndarray:
    """Give F1, sensitivity and specificity, float64 (L, 3); every label has both values."""
    positives, negatives = (counts.astype(np.float64) for counts in count_values(labels))
    found, alarms = (((labels == value) & (binary == 1)).sum(axis=0, dtype=np.float64) for value in (1, 0))
    return np.column_stack([2 * found / (positives + found + alarms), found / positives, 1 - alarms / negatives])
