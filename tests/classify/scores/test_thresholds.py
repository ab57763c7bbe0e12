"""Thresholds are the best of all cuts, and never see the rows that they are scored on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import fbeta_score, recall_score

from classify.crossfit.plan import Folds
from classify.scores.metrics import ThresholdRule
from classify.scores.thresholds import cross_fit_binary, fit_thresholds, measure_cost, to_binary
from features.common.errors import InputError


def value(truth, binary, rule):
    sensitivity = recall_score(truth, binary, zero_division=0)
    if rule.text.startswith("f"):
        return fbeta_score(truth, binary, beta=rule.value, zero_division=0)
    specificity = recall_score(truth, binary, pos_label=0, zero_division=0)
    return sensitivity + specificity - 1 if rule.text == "youden" else sensitivity


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 25),
    levels=st.sampled_from([2, 5, 1000]),
    text=st.sampled_from(["f1", "f2", "f0.5", "youden", "sensitivity=0.8", "sensitivity=1"]),
)
def test_no_other_cut_is_better_and_of_equal_cuts_it_is_the_highest(seed, rows, levels, text):
    rng, rule = np.random.default_rng(seed), ThresholdRule.parse(text)
    truth = (rng.random(rows) < 0.5).astype(np.uint8)
    truth[:2] = 0, 1
    p = (rng.integers(0, levels + 1, rows) / levels).astype(np.float32)
    threshold = fit_thresholds(truth[:, None], p[:, None], rule)
    got = to_binary(p[:, None], threshold)[:, 0]

    cuts = {float(cut): (p >= cut).astype(np.uint8) for cut in p}
    if rule.text.startswith("sensitivity"):
        reaching = [cut for cut, binary in cuts.items() if value(truth, binary, rule) >= rule.value - 1e-12]
        np.testing.assert_array_equal(got, cuts[max(reaching)])
        return
    best = max(value(truth, binary, rule) for binary in cuts.values())
    assert value(truth, got, rule) == pytest.approx(best)
    equal = [cut for cut, binary in cuts.items() if value(truth, binary, rule) == pytest.approx(best, abs=1e-9)]
    np.testing.assert_array_equal(got, cuts[max(equal)])


def test_cuts_that_differ_by_rounding_alone_are_equal():
    # Youden's index is 1/3 - 0 after two positives of six, 1 - 2/3 after all six and two negatives of three.
    truth = np.array([1, 1, 0, 1, 1, 0, 1, 1, 0], np.uint8)
    assert 1 / 3 != 1 - 2 / 3
    p = np.linspace(0.9, 0.1, 9).astype(np.float32)
    (threshold,) = fit_thresholds(truth[:, None], p[:, None], ThresholdRule.parse("youden"))
    assert p[1] > threshold > p[2]


def test_equal_cuts_whose_index_ends_in_half_a_decimal_are_equal():
    # 1369/8192 after 4,107 positives and no negative, and after 12,299 positives and one negative of three.
    truth = np.repeat([1, 0, 1, 0, 1], [4107, 1, 8192, 2, 12277]).astype(np.uint8)
    p = np.linspace(1, 0, len(truth)).astype(np.float32)
    (threshold,) = fit_thresholds(truth[:, None], p[:, None], ThresholdRule.parse("youden"))
    assert (p >= threshold).sum() == 4107


def test_a_cut_lies_in_the_middle_and_the_lowest_takes_all():
    truth, p = np.array([[0], [1], [1]], np.uint8), np.array([[0.25], [0.5], [0.75]], np.float32)
    assert fit_thresholds(truth, p, ThresholdRule.parse("f1")) == [0.375]
    assert fit_thresholds(1 - truth, p, ThresholdRule.parse("sensitivity=1")) == [0.0]


def test_neighbouring_floats_are_told_apart():
    low = np.float32(0.3)
    p = np.array([[low], [np.nextafter(low, np.float32(1))]], np.float32)
    threshold = fit_thresholds(np.array([[0], [1]], np.uint8), p, ThresholdRule.parse("f1"))
    np.testing.assert_array_equal(to_binary(p, threshold), [[0], [1]])


def test_a_label_without_positives_is_never_predicted():
    labels, p = np.array([[1, 0], [0, 0]], np.uint8), np.array([[0.9, 1.0], [0.1, 0.2]], np.float32)
    thresholds = fit_thresholds(labels, p, ThresholdRule.parse("f1"))
    assert thresholds[1] == np.inf
    np.testing.assert_array_equal(to_binary(p, thresholds), [[1, 0], [0, 0]])


def test_a_rows_own_label_has_no_part_in_its_decision():
    rng = np.random.default_rng(0)
    labels, p = rng.integers(0, 2, (60, 2)).astype(np.uint8), rng.random((60, 2)).astype(np.float32)
    folds, rule = Folds(np.arange(60) % 3, 3, None, ()), ThresholdRule.parse("f1")
    binary = cross_fit_binary(labels, p, rule, folds)
    for learnt, held_out in folds.split():
        expected = to_binary(p[held_out], fit_thresholds(labels[learnt], p[learnt], rule))
        np.testing.assert_array_equal(binary[held_out], expected)
        turned = labels.copy()
        turned[held_out] ^= 1
        np.testing.assert_array_equal(cross_fit_binary(turned, p, rule, folds)[held_out], binary[held_out])


def test_the_cost_is_scikit_learns_beside_half():
    rng = np.random.default_rng(1)
    labels, p = rng.integers(0, 2, (90, 2)).astype(np.uint8), rng.random((90, 2)).astype(np.float32)
    folds, rule = Folds(np.arange(90) % 3, 3, None, ()), ThresholdRule.parse("sensitivity=0.9")
    cost = measure_cost(labels, p, cross_fit_binary(labels, p, rule, folds))
    for index in range(2):
        decisions = cross_fit_binary(labels, p, rule, folds)[:, index], p[:, index] >= 0.5
        expected = [
            function(labels[:, index], binary)
            for binary in decisions
            for function in (
                lambda t, b: fbeta_score(t, b, beta=1),
                recall_score,
                lambda t, b: recall_score(t, b, pos_label=0),
            )
        ]
        np.testing.assert_allclose(cost[index], expected)


@pytest.mark.parametrize("text", ["", "0.5", "f", "f0", "f-1", "fx", "J", "sensitivity", "sensitivity=1.1", "f1 "])
def test_a_rule_that_is_none_is_an_input_error_that_lists_them(text):
    with pytest.raises(InputError, match=r"--threshold .*: expected one of f1, f2 .* youden, sensitivity=0\.95"):
        ThresholdRule.parse(text)
