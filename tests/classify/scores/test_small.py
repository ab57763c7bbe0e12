"""Intervals of labels with few positives hold the truth as often as they say."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from classify.scores.metrics import MACRO, METRICS, MICRO
from classify.scores.resampling import resample
from classify.scores.scoring import score
from classify.scores.small import (
    BOOTSTRAP,
    FEW_UNITS,
    HANLEY_MCNEIL,
    WILSON,
    _hanley_mcneil,
    _place,
    auc_interval,
    describe_other_intervals,
    design_effect,
    few_units,
    share_interval,
    wilson,
)


def make_slices(rng, patients, positives, per_patient, correlation=0.4, distance=1.2):
    """Ten slices a patient, some positive; scores of slices of one patient are alike. Truth, scores, patients."""
    truth, patient = np.zeros(10 * patients, np.uint8), np.repeat(np.arange(patients), 10)
    with_blood = rng.permutation(patients)[: -(-positives // per_patient)]
    rows = (with_blood[:, None] * 10 + np.arange(per_patient)).ravel()[:positives]
    truth[rows] = 1
    own = rng.normal(size=patients)[patient]
    scores = distance * truth + np.sqrt(correlation) * own + np.sqrt(1 - correlation) * rng.normal(size=len(truth))
    return truth, scores, patient


@pytest.mark.parametrize(
    ("patients", "positives", "per_patient"), [(20, 3, 1), (20, 10, 2), (60, 30, 3), (120, 100, 5)]
)
def test_intervals_of_few_positives_in_groups_hold_the_truth(patients, positives, per_patient):
    rng, cut = np.random.default_rng(0), 1.2 - norm.ppf(0.8)
    held, shares = [], []
    for _ in range(150):
        truth, scores, patient = make_slices(rng, patients, positives, per_patient)
        fold_of_row = (patient % 5)[None]
        value = roc_auc_score(truth, scores)
        low, high, _, _ = auc_interval(value, truth, scores[None], np.zeros_like(fold_of_row), patient)
        held.append(low <= norm.cdf(1.2 / np.sqrt(2)) <= high)
        share = share_interval(scores[truth == 1] >= cut, patient[truth == 1])
        shares.append(share.low is None or share.low <= 0.8 <= share.high)
    # 150 cases of 95 %: 0.95 - 3 * 0.018.
    assert np.mean(held) > 0.895
    assert np.mean(shares) > 0.87


def test_the_variance_is_that_of_the_paper():
    # Hanley and McNeil 1982: 51 abnormal and 58 normal images, an area of 0.893, a standard error of 0.032.
    assert np.sqrt(_hanley_mcneil(0.893, 51, 58)) == pytest.approx(0.032, abs=0.001)


def test_placements_average_to_the_auc_and_never_cross_a_fold():
    rng = np.random.default_rng(0)
    truth, scores, folds = rng.integers(0, 2, 80), rng.integers(0, 9, 80) / 8, np.arange(80) % 3
    one = _place(truth, scores[None], np.zeros((1, 80), int))
    assert one[truth == 1].mean() == pytest.approx(roc_auc_score(truth, scores))
    assert one[truth == 0].mean() == pytest.approx(roc_auc_score(truth, scores))
    moved = scores + 10 * folds
    np.testing.assert_allclose(_place(truth, scores[None], folds[None]), _place(truth, moved[None], folds[None]))


def test_rows_count_for_as_many_as_they_are_or_for_their_groups():
    rng = np.random.default_rng(0)
    assert design_effect(rng.normal(size=50), np.arange(50)) == 1
    assert design_effect(rng.normal(size=50), np.zeros(50, int)) == 50
    groups = np.repeat(np.arange(200), 5)
    assert design_effect(rng.normal(size=200)[groups], groups) == pytest.approx(5)
    assert design_effect(rng.normal(size=1000), groups) == pytest.approx(1, abs=0.2)
    half = rng.normal(size=200)[groups] + rng.normal(size=1000)  # a correlation of 1/2: 1 + 4 / 2
    assert design_effect(half, groups) == pytest.approx(3, rel=0.15)
    assert design_effect(np.ones(10), np.repeat([0, 1], 5)) == 1


def test_the_ends_of_wilsons_interval_are_where_the_share_is_a_normal_deviate_away():
    for share, count in ((0.0, 8), (0.25, 40), (1.0, 12)):
        for end in wilson(np.array(share), np.array(count)):
            if 0 < end < 1 and end != share:
                assert abs(share - end) == pytest.approx(1.96 * np.sqrt(end * (1 - end) / count))


def test_perfect_and_worthless_scores_have_intervals_within_0_and_1():
    truth = (np.arange(40) < 4).astype(np.uint8)
    for scores, value in ((truth, 1.0), (1 - truth, 0.0), (np.zeros(40), 0.5)):
        low, high, how, _ = auc_interval(
            value, truth, scores[None].astype(float), np.zeros((1, 40), int), np.arange(40)
        )
        assert 0 <= low <= value <= high <= 1
        assert high - low > 0.15
        assert "Hanley" in how


def test_the_calibration_slope_of_fewer_than_ten_groups_has_no_interval():
    rng = np.random.default_rng(0)
    positives = {"nine": np.arange(400) < 9, "ten": np.arange(400) < 10, "grouped": np.arange(400) < 36}
    rare = np.column_stack(list(positives.values())).astype(np.uint8)
    labels = np.column_stack([rare, 1 - rare[:, 0]])
    p = np.clip(0.2 * labels + 0.7 * rng.random(labels.shape) + 0.05, 0, 1).astype(np.float32)
    names = (*positives, "few negatives")

    def slopes(groups):
        scores = score(labels, p, labels, p, names, resample(400, groups, 0, 40)).scores
        assert all(s.low is not None for s in scores if s.metric == "calibration_intercept")
        return {s.label: s for s in scores if s.metric == "calibration_slope"}

    alone, in_fours = slopes(None), slopes((np.arange(400) // 4).astype(str))
    for slope, units in (
        (alone["nine"], "9 rows"),
        (alone["few negatives"], "9 rows"),
        (in_fours["grouped"], "9 groups"),
    ):
        assert (slope.low, slope.high, slope.interval) == (None, None, "")
        assert slope.interval_reason == f"one value in {units} only, fewer than 10: no interval holds"
        assert slope.value is not None
    for slope in (alone["ten"], alone["grouped"], alone[MICRO]):
        assert slope.low < slope.value < slope.high
        assert slope.interval == BOOTSTRAP


def test_a_table_of_scores_says_how_each_interval_was_made():
    rng = np.random.default_rng(0)
    labels = np.column_stack([np.arange(200) < 8, np.arange(200) % 2, np.arange(200) < 3]).astype(np.uint8)
    p = np.clip(0.3 * labels + 0.7 * rng.random(labels.shape), 0, 1).astype(np.float32)
    scores = score(
        labels, p, (p > 0.5).astype(np.uint8), p, ("rare", "common", "lone"), resample(200, None, 0, 20)
    ).scores
    found = {(s.label, s.metric): s for s in scores}
    assert few_units(labels[:, 0], np.arange(200))
    assert FEW_UNITS <= 100
    assert found["rare", "roc_auc"].interval.startswith("Hanley-McNeil")
    assert found["rare", "sensitivity"].interval.startswith("Wilson")
    assert found["rare", "log_loss"].interval == BOOTSTRAP
    assert {found[label, "roc_auc"].interval for label in ("common", MICRO)} == {BOOTSTRAP}
    lone = found["lone", "sensitivity"]
    assert (lone.low, lone.interval, lone.interval_reason) == (None, "", "3 rows that count for 3.0: no interval holds")
    assert lone.value is not None


@pytest.mark.parametrize("left_out", [{}, {"common": "not asked for"}])
def test_the_mean_of_one_label_is_that_label_with_its_intervals(left_out):
    rng = np.random.default_rng(0)
    labels = np.column_stack([np.arange(200) < 8, np.arange(200) % 2]).astype(np.uint8)[:, : 1 + bool(left_out)]
    p = np.clip(0.3 * labels + 0.7 * rng.random(labels.shape), 0, 1).astype(np.float32)
    names, draws = ("rare", "common")[: labels.shape[1]], resample(200, None, 0, 40)
    scores = score(labels, p, (p > 0.5).astype(np.uint8), p, names, draws, left_out=left_out).scores
    found = {(s.label, s.metric): s for s in scores}
    assert found["rare", "roc_auc"].interval.startswith("Hanley")
    for metric in METRICS:
        rare, mean = found["rare", metric], found[MACRO, metric]
        assert (mean.value, mean.low, mean.high, mean.interval) == (rare.value, rare.low, rare.high, rare.interval)
        if not left_out:  # and all cells are its cells
            assert found[MICRO, metric] == replace(rare, label=MICRO)


def test_which_intervals_are_not_the_bootstraps_is_said_by_the_words_of_the_tables():
    said = describe_other_intervals(
        [("roc_auc", HANLEY_MCNEIL), ("log_loss", BOOTSTRAP), ("sensitivity", WILSON), ("f1", ""), ("roc_auc", WILSON)],
        "row",
    )
    assert said == (
        "of labels with fewer than 30 rows of positives or of negatives: roc_auc by Hanley-McNeil, moderated by "
        "groups; sensitivity, roc_auc by Wilson, by the design effect of groups"
    )
    assert describe_other_intervals([("roc_auc", BOOTSTRAP), ("calibration_error", "")], "group") == ""
