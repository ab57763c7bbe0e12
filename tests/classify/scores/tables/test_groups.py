"""Scores by group: a patient is positive if a slice is, and is scored by models that never saw it."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

from classify.scores.metrics import ThresholdRule
from classify.scores.resampling import resample
from classify.scores.scoring import ByFold
from classify.scores.tables.groups import SUMMARIES, reduce_groups, score_groups
from classify.scores.tables.splits import SplitReading
from features.common.arrays import UNKNOWN
from features.folds.folds import Folds

RULE = ThresholdRule.parse("youden")


def test_the_mean_of_the_highest_is_that_of_all_where_there_are_fewer():
    values = np.array([[0.1, 1], [0.9, 0], [0.5, 0], [0.7, 0], [0.2, 1]], np.float32)
    units = np.array([1, 0, 0, 0, 1])
    np.testing.assert_allclose(reduce_groups(values, units, 2), [[0.8, 0], [0.15, 1]])
    np.testing.assert_allclose(reduce_groups(values, units, 1), [[0.9, 0], [0.2, 1]])
    np.testing.assert_allclose(reduce_groups(values, units, 9), [[0.7, 0], [0.15, 1]], rtol=1e-6)


def make_split(name="oof", patients=120, slices=6, seed=0) -> tuple[SplitReading, Folds]:
    """Slices in no order; a bleed is on up to 3 slices of a patient."""
    rng = np.random.default_rng(seed)
    patient = rng.permutation(np.repeat(np.arange(patients), slices))
    truth = np.zeros((len(patient), 2), np.uint8)
    for label in range(2):
        for own in rng.choice(patients, patients // 3, replace=False):
            truth[rng.choice(np.flatnonzero(patient == own), min(slices, rng.integers(1, 4)), replace=False), label] = 1
    p = expit(2 * truth + rng.normal(size=truth.shape) - 1).astype(np.float32)
    groups = np.array([f"p{number:03d}" for number in patient])
    folds = Folds(patient % 4, 4, patients, ())
    by_fold = ByFold(p[None], folds.fold_of_row[None]) if name == "oof" else None
    binary = (p > 0.5).astype(np.uint8)
    return SplitReading(name, truth, p, binary, groups, resample(len(p), groups, 0, 200), by_fold), folds


def test_scores_are_scikit_learns_of_the_groups_within_folds():
    split, folds = make_split()
    found = score_groups(("a", "b"), [split], split.probabilities, RULE, folds, {})
    figures = {(f.summary, f.label, f.metric): f for f in found}
    units = split.unit_of_row
    truth = np.array([split.labels[units == unit].max(axis=0) for unit in range(120)])
    fold = np.array([folds.fold_of_row[units == unit][0] for unit in range(120)])
    for summary, count in SUMMARIES.items():
        reduced = np.array(
            [np.sort(split.probabilities[units == unit], axis=0)[-count:].mean(axis=0) for unit in range(120)]
        )
        aucs = []
        for index, label in enumerate("ab"):
            pairs, right = 0, 0.0
            for own in range(4):
                rows = fold == own
                count_of_pairs = truth[rows, index].sum() * (truth[rows, index] == 0).sum()
                right += count_of_pairs * roc_auc_score(truth[rows, index], reduced[rows, index])
                pairs += count_of_pairs
            auc = figures[summary, label, "roc_auc"]
            assert auc.value == pytest.approx(right / pairs)
            assert auc.low < auc.value < auc.high
            aucs.append(auc.value)
            precision = average_precision_score(truth[:, index], reduced[:, index])
            assert figures[summary, label, "average_precision"].value == pytest.approx(precision)
            assert (auc.groups, auc.positives) == (120, 40)
            decided = [figures[summary, label, metric].value for metric in ("sensitivity", "specificity")]
            fitted = reduced[:, index] >= auc.threshold
            in_sample = [fitted[truth[:, index] == 1].mean(), (~fitted)[truth[:, index] == 0].mean()]
            np.testing.assert_allclose(decided, in_sample, atol=0.2)
        assert figures[summary, "macro", "roc_auc"].value == pytest.approx(np.mean(aucs))


def test_test_groups_are_decided_by_the_thresholds_of_the_training_groups():
    train, folds = make_split()
    test, _ = make_split("test", patients=60, seed=1)
    found = score_groups(("a", "b"), [train, test], train.probabilities, RULE, folds, {})
    figures = {(f.split, f.label, f.metric): f for f in found if f.summary == "maximum"}
    cut = figures["oof", "a", "sensitivity"].threshold
    top = reduce_groups(test.probabilities, test.unit_of_row, 1)[:, 0]
    positive = reduce_groups(test.labels, test.unit_of_row, 1)[:, 0] == 1
    assert figures["test", "a", "sensitivity"].value == pytest.approx((top >= cut)[positive].mean())
    assert figures["test", "a", "roc_auc"].value == pytest.approx(roc_auc_score(positive, top))


def test_where_no_groups_are_known_or_each_is_one_image_there_is_no_table():
    split, folds = make_split(slices=1, patients=60)
    assert score_groups(("a", "b"), [split], split.probabilities, RULE, folds, {}) == []


def test_the_mean_is_over_the_labels_of_the_mean_by_image_or_there_is_none():
    split, folds = make_split()
    alone = score_groups(("a", "b"), [split], split.probabilities, RULE, folds, {"a": "few positives"})
    figures = {(f.label, f.metric): f for f in alone if f.summary == "maximum"}
    assert figures["macro", "roc_auc"].value == figures["b", "roc_auc"].value != figures["a", "roc_auc"].value
    split.labels[np.unique(split.unit_of_row, return_index=True)[1], 1] = 1  # every patient has it: no AUC of b
    without = score_groups(("a", "b"), [split], split.probabilities, RULE, folds, {})
    figures = {(f.label, f.metric): f for f in without if f.summary == "maximum"}
    assert figures["a", "roc_auc"].value is not None
    for metric in ("roc_auc", "specificity"):
        mean = figures["macro", metric]
        assert (mean.value, mean.low, mean.high, mean.interval) == (None, None, None, "")
    both = [figures[label, "sensitivity"].value for label in "ab"]
    assert figures["macro", "sensitivity"].value == pytest.approx(np.mean(both))


def test_a_label_of_which_only_positive_groups_are_known_has_sensitivity_alone():
    split, folds = make_split()
    negative = np.array([not split.labels[split.unit_of_row == unit, 1].any() for unit in range(120)])
    split.labels[negative[split.unit_of_row], 1] = UNKNOWN
    found = score_groups(("a", "b"), [split], split.probabilities, RULE, folds, {})
    for summary in SUMMARIES:
        own = {f.metric: f.value for f in found if (f.summary, f.label) == (summary, "b")}
        assert own["sensitivity"] == 1
        assert own["roc_auc"] is own["average_precision"] is own["specificity"] is None
        assert {
            f.value for f in found if (f.summary, f.label, f.metric) == (summary, "macro", "average_precision")
        } == {None}
