"""Score probabilities and decisions: per label, over all labels, each figure with its bootstrap interval."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from classify.ensembles.estimators import PROBABILITY_EPSILON
from classify.scores.metrics import (
    BINS,
    CLASS_SELECTORS,
    MACRO,
    MACRO_SELECTORS,
    MAJORITY,
    METRICS,
    MICRO,
    OVERALL,
    Score,
    Sums,
)
from classify.scores.resampling import Resampling, auc_within_folds, fit_logits, percentile_interval, rank_scores
from classify.scores.small import BOOTSTRAP, Interval, auc_interval, few_units, refuse_slope, share_interval
from classify.scores.tables.classes import pick_classes, score_classes
from features.common.arrays import UNKNOWN, Decisions, Labels, Probabilities

#: Modules whose code decides what `rank_labels` and `choose_nested` give: an edit of one discards what is kept of it.
SCORING = (
    "ensembles.estimators",
    "scores.choice",
    "scores.metrics",
    "scores.resampling",
    "scores.scoring",
    "scores.small",
    "scores.tables.classes",
)
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


class SplitScores(NamedTuple):
    """The scores of a model on one split.

    Attributes:
        scores: by label in the order of the labels, then micro, then macro, each in the order of `METRICS`; then
            overall, in the order of `ROW_METRICS`, then of exclusive classes those that they have beside.
        draws: of each of `MACRO_SELECTORS` the mean over the labels, of exclusive classes each of `CLASS_SELECTORS`, on
            the rows as they are, then on each draw: float64 (1 + draws,).
    """

    scores: list[Score]
    draws: dict[str, np.ndarray]


def score(
    labels: Labels,
    probabilities: Probabilities,
    binary: Decisions,
    prior: Probabilities,
    label_names: tuple[str, ...],
    resampling: Resampling,
    by_fold: ByFold | None = None,
    left_out: Mapping[str, str] = MappingProxyType({}),
    ranked: np.ndarray | None = None,
    exclusive: bool = False,
) -> SplitScores:
    """Compute every metric with its percentile interval, over the known rows; see `METRICS` for what is not defined.

    Those of whole rows (`OVERALL`) are over the rows of which all labels are known.

    The weighted log loss is RSNA 2019's: `any` counts twice, every other label once. Where no label is called `any`, it
    is derived: positive where a label is, with the probability 1 - product of (1 - probability).

    Args:
        labels: the truth.
        probabilities: of the same rows.
        binary: what was decided of them.
        prior: the shares of positives that the models learnt from: what skill is measured against.
        label_names: the L labels.
        resampling: of the rows.
        by_fold: where several models predicted the rows; the ROC-AUC is then over the pairs of rows within a fold.
        left_out: the labels that have no part in the mean over the labels, and why.
        ranked: what `rank_labels` gives of the same, if it is known.
        exclusive: whether each row has exactly one label.
    """
    if ranked is None:
        ranked = rank_labels(labels, probabilities, resampling, by_fold)
    sums: list[np.ndarray] = []
    of_names: dict[str, dict[str, np.ndarray]] = {}
    for index, name in enumerate(label_names):
        sums.append(_sum(labels[:, index], probabilities[:, index], binary[:, index], prior[:, index], resampling))
        of_names[name] = _compute(sums[-1], *ranked[index])
    of_names[MICRO] = _compute(np.sum(sums, axis=0), *ranked[-1])

    scores: list[Score] = []
    alone = len(label_names) == 1
    for index, (name, metrics) in enumerate(of_names.items()):
        if name == MICRO and alone:  # all cells are the label's
            scores += [replace(one, label=MICRO) for one in scores]
            continue
        truth = labels if name == MICRO else labels[:, index]
        known = truth != UNKNOWN
        own = resampling.of(known.any(axis=1) if name == MICRO else known)
        of_why = truth[known], "cells" if name == MICRO else "rows"
        made = {metric: _make(name, metric, metrics[metric], own, _why(metric, *of_why)) for metric in METRICS}
        if name != MICRO and own.several and few_units(truth[known], own.unit_of_row):
            of_label = by_fold and ByFold(by_fold.by_repeat[:, known, index], by_fold.fold_of_row[:, known])
            made |= _few(made, truth[known], probabilities[known, index], binary[known, index], own, of_label)
        scores += made.values()
    macro = {metric: {name: of_names[name][metric] for name in label_names} for metric in METRICS}
    known_scores = {(one.label, one.metric): one for one in scores}
    scores += [_macro(metric, of_labels, known_scores, left_out, resampling) for metric, of_labels in macro.items()]
    whole = (labels != UNKNOWN).all(axis=1)
    own, why = resampling.of(whole), "" if whole.all() else f"of {whole.sum()} of {len(whole)} rows, all labels known"
    of_rows = _compute_rows(labels[whole], probabilities[whole], binary[whole], label_names, own)
    draws = {metric: mean_over_labels(macro[metric], left_out) for metric in MACRO_SELECTORS}
    if exclusive:
        truth = pick_classes(labels[whole])
        of_classes = score_classes(truth, pick_classes(probabilities[whole]), own)
        draws |= of_classes
        largest = np.full_like(truth, labels[whole].sum(axis=0).argmax())
        of_rows |= of_classes | {MAJORITY: score_classes(truth, largest, own)[CLASS_SELECTORS[0]]}
    scores += [replace(_make(OVERALL, metric, values, own, why), reason=why) for metric, values in of_rows.items()]
    return SplitScores(scores, draws)


def rank_labels(
    labels: Labels, probabilities: Probabilities, resampling: Resampling, by_fold: ByFold | None = None
) -> np.ndarray:
    """Compute what no decision has a part in, which is most of the work of `score`: arguments as there.

    Returns:
        float64 array (L + 1, 5, 1 + draws): the last fields of `Sums` of each label, then of all cells.
    """
    ranked = []
    for index, (truth, probability) in enumerate(zip(labels.T, probabilities.T, strict=True)):
        of_label = by_fold and ByFold(by_fold.by_repeat[:, :, index], by_fold.fold_of_row)
        ranked.append(_rank(truth, probability, resampling, of_label))
    count = labels.shape[1]
    cells = Resampling(np.repeat(resampling.unit_of_row, count), resampling.blocks)
    of_cells = by_fold and ByFold(
        by_fold.by_repeat.reshape(len(by_fold.by_repeat), -1), np.repeat(by_fold.fold_of_row, count, axis=1)
    )
    return np.array([*ranked, _rank(labels.ravel(), probabilities.ravel(), cells, of_cells)])


def _few(
    scores: Mapping[str, Score],
    truth: np.ndarray,
    probability: np.ndarray,
    binary: np.ndarray,
    resampling: Resampling,
    by_fold: ByFold | None,
) -> dict[str, Score]:
    """Give the scores of a label with few groups of positives or negatives intervals that hold, where there are any."""
    units = np.unique(resampling.unit_of_row, return_inverse=True)[1]
    one_model = ByFold(probability[None], np.zeros((1, len(truth)), int))
    made: dict[str, Interval] = {}
    if scores["roc_auc"].value is not None:
        made["roc_auc"] = auc_interval(scores["roc_auc"].value, truth, *(by_fold or one_model), units)
    for metric, value in (("sensitivity", 1), ("specificity", 0)):
        rows = truth == value
        if rows.any():
            made[metric] = share_interval(binary[rows] == value, units[rows])
    if scores["calibration_slope"].value is not None and (refused := refuse_slope(truth, units)):
        made["calibration_slope"] = refused
    return {
        metric: replace(scores[metric], low=low, high=high, interval_reason=reason, interval=how)
        for metric, (low, high, how, reason) in made.items()
    }


def score_label(
    metric: str, truth: np.ndarray, probability: np.ndarray, resampling: Resampling, by_fold: ByFold
) -> np.ndarray:
    """Compute a metric by which a model may be chosen, for one label: float64 (1 + draws,)."""
    # Most rules rank, and ranks are most of the work: what the rule does not read is not computed.
    if metric == "roc_auc":
        return auc_within_folds(truth, *by_fold, resampling)
    unknown = np.full((5, 1 + resampling.draws), np.nan)
    if metric == "average_precision":
        unknown[2] = rank_scores(truth, probability, resampling)[1]
    nothing = np.zeros(len(truth), np.uint8)
    return _compute(_sum(truth, probability, nothing, nothing, resampling), *unknown)[metric]


def mean_over_labels(of_labels: Mapping[str, np.ndarray], left_out: Collection[str]) -> np.ndarray:
    """Average a metric over the labels for which it is defined, without those left out: float64 (1 + draws,)."""
    kept = [values for name, values in of_labels.items() if name not in left_out and not np.isnan(values[0])]
    return np.mean(kept, axis=0) if kept else np.full_like(next(iter(of_labels.values())), np.nan)


def _rank(
    truth: np.ndarray, probability: np.ndarray, resampling: Resampling, by_fold: ByFold | None
) -> tuple[np.ndarray, ...]:
    """The last fields of `Sums`, for one label or for all cells."""
    pooled, precision = rank_scores(truth, probability, resampling)
    within = auc_within_folds(truth, *by_fold, resampling) if by_fold else pooled
    return within, pooled, precision, *fit_logits(truth, probability, resampling)


def _losses(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Compute the log loss of each cell; any shape, float64."""
    clipped = np.clip(probability.astype(np.float64), PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON)
    return -np.log(np.where(truth == 1, clipped, 1 - clipped))


def _sum(
    truth: np.ndarray, probability: np.ndarray, predicted: np.ndarray, prior: np.ndarray, resampling: Resampling
) -> np.ndarray:
    """Sum the first fields of `Sums`, for one label's known rows, over every resample: float64 (1 + draws, 8 + BINS).

    The bins, which have no interval, are those of the rows as they are; NaN in the draws.
    """
    known = truth != UNKNOWN
    truth, predicted, resampling = truth[known], predicted[known], resampling.of(known)
    probability, prior = probability[known].astype(np.float64), prior[known].astype(np.float64)
    outcomes = [(truth == value) & (predicted == decided) for value, decided in ((1, 1), (0, 1), (1, 0), (0, 0))]
    losses = [_losses(truth, probability), (truth - probability) ** 2, _losses(truth, prior), (truth - prior) ** 2]
    sums = np.full((1 + resampling.draws, 8 + BINS), np.nan)
    sums[:, :8] = resampling.sum(np.column_stack([*outcomes, *losses]))
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    sums[0, 8:] = np.bincount(bins, weights=truth - probability, minlength=BINS)
    return sums


def _compute(sums: np.ndarray, *of_scores: np.ndarray) -> dict[str, np.ndarray]:
    """Make the metrics of one label, or of all cells, from sums of `_sum`: float64 (B,), NaN where not defined."""
    of_rows = sums[:, :8].T.copy()
    of_rows[6:, of_rows[7] == 0] = np.nan  # beside a prior without error there is no skill; its log loss is clipped
    counts: Iterable[np.ndarray] = (*of_rows, sums[:, 8:], *of_scores)
    summed = Sums(*counts)
    one_value = not (summed.tp + summed.fn)[0] or not (summed.tn + summed.fp)[0]
    with np.errstate(invalid="ignore"):
        return {
            name: np.full(len(sums), np.nan) if one_value and not metric.one_value else metric.formula(summed)
            for name, metric in METRICS.items()
        }


def _compute_rows(
    labels: Labels,
    probabilities: Probabilities,
    binary: Decisions,
    label_names: tuple[str, ...],
    resampling: Resampling,
) -> dict[str, np.ndarray]:
    """Compute the metrics of whole rows, all labels known; arrays as in `score`, returns as `_compute`."""
    if ANY not in label_names:
        labels = np.column_stack([labels, labels.max(axis=1)])
        any_probability = 1 - np.prod(1 - probabilities.astype(np.float64), axis=1)
        probabilities = np.column_stack([probabilities, any_probability])
        label_names = (*label_names, ANY)
    shares = np.array([2.0 if name == ANY else 1.0 for name in label_names])
    exact = (binary == labels[:, : binary.shape[1]]).all(axis=1)
    weighted = _losses(labels, probabilities) @ (shares / shares.sum())
    sums = resampling.sum(np.column_stack([np.ones(len(labels)), exact, weighted]))
    with np.errstate(invalid="ignore"):
        return {"exact_match": sums[:, 1] / sums[:, 0], "weighted_log_loss": sums[:, 2] / sums[:, 0]}


def _why(metric: str, truth: np.ndarray, what: str) -> str:
    """Say why the metric is not defined for known cells (n,), `rows` of a label or `cells` of all, if it is not."""
    if not len(truth):
        return f"none of the {what} is known"
    if truth.min() == truth.max() and not METRICS[metric].one_value:
        return f"all {len(truth)} {what} have the value {truth[0]}"
    return METRICS[metric].undefined.format(cells=f"{len(truth)} {what}")


def _macro(
    metric: str,
    of_labels: Mapping[str, np.ndarray],
    scores: Mapping[tuple[str, str], Score],
    left_out: Mapping[str, str],
    resampling: Resampling,
) -> Score:
    """Average a metric over the labels for which it is defined, and say which have no part in it.

    The mean of one label is that label's score, with its interval; the scores are by label and metric.
    """
    kept = [name for name in of_labels if name not in left_out]
    undefined = [name for name in kept if np.isnan(of_labels[name][0])]
    counted = [name for name in kept if name not in undefined]
    reasons = [f"without {name} ({why})" for name, why in left_out.items()]
    reasons += [f"undefined for {', '.join(undefined)}"] * bool(undefined)
    if len(counted) == 1:
        mean = replace(scores[counted[0], metric], label=MACRO)
    else:
        mean = _make(MACRO, metric, mean_over_labels(of_labels, left_out), resampling, "")
    return replace(mean, reason="; ".join(reasons))


def _make(name: str, metric: str, values: np.ndarray, resampling: Resampling, why: str) -> Score:
    """Make a score from its value on the rows as they are, the first, and on the draws, the others."""
    if np.isnan(values[0]):
        return Score(name, metric, None, reason=why)
    value, drawn = float(values[0]), values[1:]
    if not resampling.several:
        return Score(name, metric, value, interval_reason="one group only: nothing to resample")
    if metric in METRICS and METRICS[metric].no_interval:
        return Score(name, metric, value, interval_reason=METRICS[metric].no_interval)
    low, high = percentile_interval(values)
    left_out = int(np.isnan(drawn).sum())
    reason = f"undefined in {left_out} of {len(drawn)} draws, which it leaves out" if left_out else ""
    if low is None:
        reason = f"undefined in all of {len(drawn)} draws"
        return Score(name, metric, value, interval_reason=reason)
    return Score(name, metric, value, low, high, interval_reason=reason, interval=BOOTSTRAP)
