"""Thresholds are the best of all cuts, and never see the rows that they are scored on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binom, norm
from sklearn.metrics import fbeta_score, recall_score

from classify.crossfit.plan import Prediction
from classify.ensembles.crossfit import calibrate
from classify.ensembles.ensembles import CALIBRATIONS
from classify.scores.metrics import ThresholdRule
from classify.scores.thresholds import (
    BOUND,
    EVERYTHING,
    TOLERANCE,
    cross_fit_binary,
    fit_thresholds,
    make_promise,
    make_promises,
    measure_cost,
    to_binary,
    warn_few_positives,
)
from features.common.errors import InputError
from features.folds.folds import Folds


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
    assert fit_thresholds(1 - truth, p, ThresholdRule.parse("sensitivity=1")) == [0.125]


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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.5",
        "f",
        "f0",
        "f-1",
        "fx",
        "J",
        "sensitivity",
        "sensitivity=1.1",
        "f1 ",
        "sensitivity>=1@95",
        "sensitivity>=0.9@100",
        "sensitivity>=0.9",
    ],
)
def test_a_rule_that_is_none_is_an_input_error_that_lists_them(text):
    with pytest.raises(InputError, match=r"--threshold .*: expected one of f1, f2 .* youden, sensitivity=0\.95"):
        ThresholdRule.parse(text)


PROMISED = ThresholdRule.parse("sensitivity>=0.95@95")


def kept(positives: int, patients: int, seed: int) -> tuple[bool, bool, str]:
    """Whether the population's sensitivity is 0.95 by the promise, by `sensitivity=0.95`; and what that rests on."""
    rng = np.random.default_rng([positives, patients, seed])
    patient = np.arange(positives) % patients
    alike = 0.5 if patients < positives else 0.0
    scores = np.sqrt(alike) * rng.normal(size=patients)[patient] + np.sqrt(1 - alike) * rng.normal(size=positives)
    truth = np.repeat([1, 0], [positives, 200]).astype(np.uint8)
    p = expit(np.append(scores, rng.normal(size=200) - 2)).astype(np.float32)
    promise = make_promise(truth, p, PROMISED, np.append(patient, patients + np.arange(200)))
    (aimed,) = fit_thresholds(truth[:, None], p[:, None], ThresholdRule.parse("sensitivity=0.95"))
    lowest = norm.ppf(0.05)
    return logit(promise.threshold) <= lowest, logit(aimed) <= lowest, promise.how


@pytest.mark.parametrize(
    ("positives", "patients", "how", "least", "most"),
    [
        (24, 24, TOLERANCE, 0.93, 0.98),
        (24, 8, TOLERANCE, 0.93, 1.0),
        (120, 120, BOUND, 0.94, 1.0),
        (240, 40, BOUND, 0.94, 1.0),
    ],
)
def test_the_sensitivity_of_the_population_is_as_promised_in_95_of_100_runs(positives, patients, how, least, most):
    found = [kept(positives, patients, seed) for seed in range(400)]
    promised, aimed, ways = zip(*found, strict=True)
    assert least <= np.mean(promised) <= most
    assert np.mean(aimed) < 0.5  # the rule without a confidence breaks it more often than not
    assert max(set(ways), key=ways.count) == how


def test_independent_positives_give_the_order_statistic_of_wilks():
    rng = np.random.default_rng(0)
    truth = np.repeat([1, 0], [150, 50]).astype(np.uint8)
    p = rng.permutation(np.linspace(0.01, 0.99, 200)).astype(np.float32)
    promise = make_promise(truth, p, PROMISED, np.arange(200))
    misses = max(k for k in range(150) if binom.cdf(k, 150, 0.05) <= 0.05)
    assert misses == 2
    assert (p[truth == 1] < promise.threshold).sum() == misses
    assert promise[1:] == (150, 150.0, 59, BOUND)
    assert promise.describe() == f"{BOUND}: 150 positives count for 150.0 independent ones"


def test_positives_of_one_patient_promise_nothing_short_of_every_image():
    labels = np.repeat([[1, 0], [1, 1], [0, 1], [0, 0]], 20, axis=0).astype(np.uint8)
    p = np.random.default_rng(0).random((80, 2)).astype(np.float32)
    groups = np.where(labels[:, 0] == 1, "one", np.arange(80).astype(str))
    first, second = make_promises(labels, p, PROMISED, groups)
    assert (first.how, first.threshold, first.counts_for) == (EVERYTHING, 0.0, 1.0)
    assert first.describe() == (
        "every image is positive: 40 positives count for 1.0 independent ones, and a bound without assumptions takes 59"
    )
    assert second.how == TOLERANCE
    np.testing.assert_array_equal(fit_thresholds(labels, p, PROMISED, groups), [0.0, second.threshold])


@pytest.mark.parametrize("name", CALIBRATIONS)
@pytest.mark.parametrize("text", ["f1", "youden"])
def test_a_calibration_moves_the_threshold_of_a_rare_label_and_no_decision(name, text):
    """Thresholds of cross-fitted probabilities would mark all of the new images in 12 of 100 such cases."""
    rng, rule, moved = np.random.default_rng(0), ThresholdRule.parse(text), []
    for _ in range(5):
        truth = rng.permutation(np.repeat([1, 0], [3, 57])).astype(np.uint8)[:, None]
        p, test = (expit(rng.normal(size=n) - 3).astype(np.float32)[:, None] for n in (60, 40))
        p[truth == 1] = expit(logit(p[truth == 1]) + 1)
        folds = Folds(rng.permutation(np.arange(60) % 5), 5, None, ())
        prediction, fitted = calibrate(name, Prediction(p[None], test[None]), truth, (folds,))
        threshold = fit_thresholds(truth, fitted.predict_proba(p), rule)
        assert threshold > 0
        plain = fit_thresholds(truth, p, rule)
        np.testing.assert_array_equal(to_binary(fitted.predict_proba(p), threshold), to_binary(p, plain))
        crossed = cross_fit_binary(truth, p, rule, folds, None, fitted)
        # Only rows between the two that a cut lies between may be decided otherwise.
        moved.append(np.mean(to_binary(prediction.test, threshold) != to_binary(test, plain)))
        moved.append(np.mean(crossed != cross_fit_binary(truth, p, rule, folds)))
    assert np.mean(moved) < 0.05


def test_a_label_of_few_positives_is_named_with_their_count():
    labels = np.zeros((30, 2), np.uint8)
    labels[:10, 0] = labels[:9, 1] = 1
    (warning,) = warn_few_positives(("many", "rare"), labels)
    assert warning.startswith("rare: its threshold is fitted on 9 positives, fewer than 10,")
