"""Score the final model by group: what a reader of patients, not of images, acts on."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from classify.models.estimators import expect_shares
from classify.scores.metrics import MACRO, Score, ThresholdRule
from classify.scores.resampling import Resampling
from classify.scores.scoring import ByFold, score
from classify.scores.tables.splits import SplitReading
from classify.scores.thresholds import cross_fit_binary, fit_thresholds, to_binary
from features.common.arrays import UNKNOWN, Labels, Probabilities, count_values
from features.folds.folds import Folds

#: Images of a group of which the mean is taken: a finding is on a few neighbouring slices, a false alarm often on one.
HIGHEST = 3
#: How the probabilities of a group's images become one, and of how many of the highest it is the mean.
SUMMARIES = {"maximum": 1, f"mean of the {HIGHEST} highest": HIGHEST}
#: The metrics of groups.
GROUP_METRICS = ("roc_auc", "average_precision", "sensitivity", "specificity")


class GroupFigure(NamedTuple):
    """One figure of one label, or of `MACRO`, over the groups of a split; None where it is not defined.

    Attributes:
        summary: one of `SUMMARIES`.
        groups: of which a label is known.
        positives: groups that are positive: that have a positive image.
        threshold: of the group's probability, fitted on all training groups; None of `MACRO`.
        metric: one of `GROUP_METRICS`; decisions on training groups are by cross-fitted thresholds.
        interval: how the 95 % interval was made; empty where there is none.
    """

    split: str
    label: str
    summary: str
    groups: int
    positives: int | None
    threshold: float | None
    metric: str
    value: float | None
    low: float | None
    high: float | None
    interval: str


def score_groups(
    label_names: tuple[str, ...],
    splits: Sequence[SplitReading],
    scaled: Probabilities,
    rule: ThresholdRule,
    folds: Folds,
    left_out: Mapping[str, str],
) -> list[GroupFigure]:
    """Score by group each split whose groups are known and hold several images; a group is positive if an image is.

    A group without a positive image is negative if the label of all its images is known, and else is not known.

    Groups are never cut by a fold, so the AUC of training groups is over the pairs of groups that one model predicted.

    Args:
        label_names: the L labels.
        splits: `oof` first.
        scaled: of the training images, on the one scale that new images get: what thresholds are fitted on.
        rule: what thresholds are fitted for.
        folds: of the first repeat.
        left_out: the labels that have no part in means over labels by image, and why: they have none in those by group.
            Where another label has no figure by group, neither has the mean, which would be of other labels.
    """
    known = {split.name: split for split in splits if split.groups is not None and _several(split.unit_of_row)}
    if "oof" not in known:
        return []
    truths = {name: reduce_labels(split.labels, split.unit_of_row) for name, split in known.items()}
    units, first = np.unique(known["oof"].unit_of_row, return_index=True)
    by_group = Folds(folds.fold_of_row[first], folds.count, len(units), ())
    figures = []
    for summary, count in SUMMARIES.items():
        learnt = reduce_groups(scaled, known["oof"].unit_of_row, count)
        thresholds = fit_thresholds(truths["oof"], learnt, rule)
        cuts = dict(zip(label_names, thresholds.tolist(), strict=True))
        for name, split in known.items():
            truth, probabilities = truths[name], reduce_groups(split.probabilities, split.unit_of_row, count)
            by_fold, binary = None, to_binary(probabilities, thresholds)
            if split.by_fold is not None:
                of_repeats = [reduce_groups(own, split.unit_of_row, count) for own in split.by_fold.by_repeat]
                by_fold = ByFold(np.stack(of_repeats), split.by_fold.fold_of_row[:, first])
                binary = cross_fit_binary(truth, learnt, rule, by_group)
            prior = np.broadcast_to(expect_shares(truth), truth.shape)  # of no group metric
            drawn = Resampling(np.arange(len(truth)), split.resampling.blocks)  # the draws that images have, too
            scores = score(truth, probabilities, binary, prior, label_names, drawn, by_fold, left_out).scores
            labelled = int((truth != UNKNOWN).any(axis=1).sum())
            positives = dict(zip(label_names, count_values(truth)[0].tolist(), strict=True))
            figures += [
                GroupFigure(
                    name, own.label, summary, labelled, positives.get(own.label), cuts.get(own.label),
                    own.metric, own.value, own.low, own.high, own.interval,
                )
                for own in _drop_means(scores, set(label_names) - set(left_out))
                if own.metric in GROUP_METRICS and own.label in (*label_names, MACRO)
            ]  # fmt: skip
    return figures


def _drop_means(scores: Sequence[Score], counted: Collection[str]) -> list[Score]:
    """Take the value from each mean over labels for which one of the counted labels has no figure."""
    lacking = {score.metric for score in scores if score.label in counted and score.value is None}
    return [Score(MACRO, s.metric, None) if s.label == MACRO and s.metric in lacking else s for s in scores]


def reduce_labels(labels: Labels, unit_of_row: np.ndarray) -> Labels:
    """Give each group its labels: 1 if an image has it, else 0 if it is known of all; the units are 0 to G - 1."""
    positive, unknown = (
        reduce_groups(labels == value, unit_of_row, 1) > 0 for value in (1, UNKNOWN)
    )  # of booleans the highest
    return np.where(positive, 1, np.where(unknown, UNKNOWN, 0)).astype(np.uint8)


def reduce_groups(values: np.ndarray, unit_of_row: np.ndarray, count: int) -> np.ndarray:
    """Give each group the mean of its highest values, of all where it has fewer.

    Args:
        values: array (N, L).
        unit_of_row: int64 array (N,), 0 to G - 1.
        count: of how many.

    Returns:
        float32 array (G, L).
    """
    sizes = np.bincount(unit_of_row)
    starts = np.cumsum(sizes) - sizes
    columns = []
    for column in values.T.astype(np.float64):
        order = np.lexsort((-column, unit_of_row))
        units = unit_of_row[order]
        kept = np.arange(len(order)) - starts[units] < count
        columns.append(np.bincount(units[kept], column[order][kept]) / np.minimum(sizes, count))
    return np.column_stack(columns).astype(np.float32)


def _several(unit_of_row: np.ndarray) -> bool:
    """Whether a group holds several images."""
    return len(np.unique(unit_of_row)) < len(unit_of_row)
