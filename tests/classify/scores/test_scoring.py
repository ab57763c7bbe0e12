"""Metrics agree with scikit-learn over all labels at once, and with closed forms."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    fbeta_score,
    hamming_loss,
    log_loss,
    recall_score,
    roc_auc_score,
)

from classify.ensembles.estimators import to_logit
from classify.scores.metrics import MACRO, METRICS, MICRO, OVERALL, ROW_METRICS
from classify.scores.resampling import Resampling, resample
from classify.scores.scoring import score
from tests.classify.scores.draws import weights_of

#: The shares of positives that the models are thought to have learnt from.
PRIOR = 0.3


def table(labels, probabilities, label_names, threshold=0.5, resampling=None):
    binary = (probabilities >= threshold).astype(np.uint8)
    resampling = resampling or resample(len(labels), None, 0, draws=20)
    prior = np.full(labels.shape, PRIOR, np.float32)
    return {(s.label, s.metric): s for s in score(labels, probabilities, binary, prior, label_names, resampling).scores}


def reference(labels, probabilities, binary):
    """Compute every metric of one label, or of all cells, with scikit-learn or by its definition."""
    p = probabilities.astype(np.float64)
    positive, predicted = calibration_curve(labels, p, n_bins=15)  # of the bins that hold a cell, in order
    in_bin = np.histogram(p, np.linspace(0, 1, 16))[0]
    gaps = in_bin[in_bin > 0] / len(p) * abs(positive - predicted)
    logits, prior = to_logit(probabilities), np.full(len(p), np.float32(PRIOR), float)
    return {
        "roc_auc": roc_auc_score(labels, probabilities),
        "pooled_roc_auc": roc_auc_score(labels, probabilities),
        "average_precision": average_precision_score(labels, probabilities),
        "log_loss": log_loss(labels, probabilities),
        "brier": brier_score_loss(labels, p),
        "log_loss_skill": 1 - log_loss(labels, probabilities) / log_loss(labels, prior),
        "brier_skill": 1 - brier_score_loss(labels, p) / brier_score_loss(labels, prior),
        "calibration_slope": LogisticRegression(C=np.inf, tol=1e-8).fit(logits[:, None], labels).coef_[0, 0],
        "calibration_intercept": brentq(lambda shift: (expit(logits + shift) - labels).sum(), -20, 20),
        "calibration_error": gaps.sum(),
        "f1": f1_score(labels, binary),
        "f2": fbeta_score(labels, binary, beta=2),
        "sensitivity": recall_score(labels, binary),
        "specificity": recall_score(labels, binary, pos_label=0),
        "accuracy": accuracy_score(labels, binary),
        "constant_accuracy": max(accuracy_score(labels, np.full_like(labels, value)) for value in (0, 1)),
    }


@pytest.fixture
def example() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 3)) < (0.1, 0.4, 0.6)).astype(np.uint8)
    probabilities = np.clip(0.3 * labels + 0.7 * rng.random(labels.shape), 0, 1).astype(np.float32)
    return labels, probabilities


def test_labels_micro_and_macro_agree_with_scikit_learn(example):
    labels, probabilities = example
    scores = table(labels, probabilities, ("a", "b", "c"), threshold=0.4)
    binary = (probabilities >= 0.4).astype(np.uint8)
    of_labels = [reference(labels[:, k], probabilities[:, k], binary[:, k]) for k in range(3)]
    expected = dict(zip("abc", of_labels, strict=True))
    expected[MICRO] = reference(labels.ravel(), probabilities.ravel(), binary.ravel())
    expected[MACRO] = {metric: np.mean([values[metric] for values in of_labels]) for metric in METRICS}
    assert set(expected[MICRO]) == set(METRICS)
    for name, values in expected.items():
        for metric, value in values.items():
            assert scores[name, metric].value == pytest.approx(value, rel=1e-6), (name, metric)
            assert scores[name, metric].reason == ""


def test_averages_and_exact_match_are_scikit_learns_own(example):
    labels, probabilities = example
    scores = table(labels, probabilities, ("a", "b", "c"), threshold=0.4)
    binary = (probabilities >= 0.4).astype(np.uint8)
    for name in (MICRO, MACRO):
        expected = {
            "roc_auc": roc_auc_score(labels, probabilities, average=name),
            "pooled_roc_auc": roc_auc_score(labels, probabilities, average=name),
            "average_precision": average_precision_score(labels, probabilities, average=name),
            "f1": f1_score(labels, binary, average=name),
            "f2": fbeta_score(labels, binary, beta=2, average=name),
            "sensitivity": recall_score(labels, binary, average=name),
            "specificity": recall_score(1 - labels, 1 - binary, average=name),
            "accuracy": 1 - hamming_loss(labels, binary),
        }
        for metric, value in expected.items():
            assert scores[name, metric].value == pytest.approx(value, rel=1e-6), (name, metric)
    assert scores[OVERALL, "exact_match"].value == pytest.approx(accuracy_score(labels, binary))


def test_intervals_are_percentiles_of_scikit_learns_values_on_explicit_resamples(example):
    labels, probabilities = example
    groups = np.array([f"p{index}" for index in np.random.default_rng(1).integers(0, 40, 200)])
    drawn = resample(200, groups, seed=5, draws=24)
    scores = table(labels, probabilities, ("a", "b", "c"), resampling=drawn)
    draws = []
    for weights in weights_of(drawn)[1:]:
        rows = np.repeat(np.arange(200), weights[drawn.unit_of_row].astype(int))
        y, p = labels[rows], probabilities[rows]
        binary = (p >= 0.5).astype(np.uint8)
        of_labels = [reference(y[:, k], p[:, k], binary[:, k]) for k in range(3)]
        values = {("c", metric): of_labels[2][metric] for metric in METRICS}
        values |= {(MICRO, metric): value for metric, value in reference(y.ravel(), p.ravel(), binary.ravel()).items()}
        values |= {(MACRO, metric): np.mean([of[metric] for of in of_labels]) for metric in METRICS}
        values[OVERALL, "exact_match"] = (y == binary).all(axis=1).mean()
        draws.append(values)
    # A line of a draw is one step of Newton's method from that of all rows: near it where positives are not few.
    rough = {(MACRO, "calibration_slope"), *((name, "calibration_error") for name in ("c", MICRO, MACRO))}
    for key in draws[0].keys() - rough:
        ends = np.percentile([values[key] for values in draws], [2.5, 97.5])
        near = (
            {"rtol": 0.03, "atol": 0.03} if "slope" in key[1] or "intercept" in key[1] else {"rtol": 1e-6, "atol": 1e-7}
        )
        np.testing.assert_allclose([scores[key].low, scores[key].high], ends, err_msg=str(key), **near)
        assert scores[key].low < scores[key].value < scores[key].high
        assert scores[key].interval_reason == ""


def test_an_interval_of_groups_is_wider_than_one_of_their_rows():
    rng = np.random.default_rng(2)
    truth, p = rng.integers(0, 2, (100, 1)).astype(np.uint8), rng.random((100, 1)).astype(np.float32)
    copies = np.repeat(np.arange(100), 9)
    widths = []
    for groups in (np.array([f"p{row}" for row in copies]), None):
        score = table(truth[copies], p[copies], ("a",), resampling=resample(900, groups, 0))["a", "roc_auc"]
        widths.append(score.high - score.low)
    assert widths[0] / widths[1] == pytest.approx(3, rel=0.2)  # sqrt(9): 9 copies tell no more than one


def test_the_interval_of_a_share_is_binomial():
    truth = (np.arange(400) < 300).astype(np.uint8)[:, None]
    score = table(truth, np.ones((400, 1), np.float32), ("a",), resampling=resample(400, None, 0))["a", "accuracy"]
    half_width = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert (score.low, score.high) == pytest.approx((0.75 - half_width, 0.75 + half_width), abs=0.006)


def test_weighted_log_loss_is_rsnas_with_any_given_or_derived(example):
    labels, probabilities = example
    loss = [log_loss(labels[:, k], probabilities[:, k]) for k in range(3)]
    given = table(labels, probabilities, ("a", "any", "b"))[OVERALL, "weighted_log_loss"].value
    assert given == pytest.approx((loss[0] + 2 * loss[1] + loss[2]) / 4, rel=1e-6)

    any_probability = 1 - (1 - probabilities.astype(np.float64)).prod(axis=1)
    derived = log_loss(labels.any(axis=1), np.clip(any_probability, 0, 1 - np.finfo(np.float32).eps))
    scores = table(labels, probabilities, ("a", "b", "c"))
    assert scores[OVERALL, "weighted_log_loss"].value == pytest.approx((sum(loss) + 2 * derived) / 5, rel=1e-6)


def test_weighted_log_loss_of_rsnas_six_labels_is_scikit_learns_with_any_weighted_twice():
    # The competition's score: the weighted mean over all rows of its long format, `any` with weight 2.
    rng = np.random.default_rng(3)
    names = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
    labels = (rng.random((150, 6)) < (0.02, 0.2, 0.1, 0.2, 0.3, 0)).astype(np.uint8)
    labels[:, 5] = labels.max(axis=1)
    p = np.clip(0.4 * labels + 0.6 * rng.random(labels.shape), 0, 1).astype(np.float32)
    p[0, 5], p[1, 2] = 1, 0  # certain, rightly or wrongly
    weights = np.tile([1, 1, 1, 1, 1, 2], 150)
    groups = np.array([f"p{row // 3}" for row in range(150)])
    drawn = resample(150, groups, seed=1, draws=40)

    score = table(labels, p, names, resampling=drawn)[OVERALL, "weighted_log_loss"]

    assert score.value == pytest.approx(log_loss(labels.ravel(), p.ravel(), sample_weight=weights), rel=1e-6)
    draws = [
        log_loss(labels.ravel(), p.ravel(), sample_weight=weights * np.repeat(counts[drawn.unit_of_row], 6))
        for counts in weights_of(drawn)[1:]
    ]
    assert (score.low, score.high) == pytest.approx(tuple(np.percentile(draws, (2.5, 97.5))), rel=1e-6)
    half = table(labels, np.full_like(p, 0.5), names)[OVERALL, "weighted_log_loss"]
    assert half.value == pytest.approx(np.log(2))


def test_the_calibration_error_is_of_15_bins_and_its_signs_do_not_cancel():
    labels, p = np.array([[1], [0], [0]], np.uint8), np.array([[0.9], [0.95], [1.0]], np.float32)
    error = table(labels, p, ("a",))["a", "calibration_error"]
    assert error.value == pytest.approx((0.1 + (0.95 + 1.0)) / 3)  # 0.9 is in the last bin but one, 13/15 to 14/15
    assert (error.low, error.high) == (None, None)
    assert "chance alone lifts" in error.interval_reason


def test_exact_match_is_of_whole_rows(example):
    labels, probabilities = example
    expected = np.mean([(row == (p >= 0.5)).all() for row, p in zip(labels, probabilities, strict=True)])
    for names in (("a", "b", "c"), ("a", "any", "c")):
        assert table(labels, probabilities, names)[OVERALL, "exact_match"].value == pytest.approx(expected)


def test_draws_that_lack_the_class_are_left_out_and_counted():
    labels, p = np.zeros((6, 1), np.uint8), np.linspace(0, 1, 6, dtype=np.float32)[:, None]
    labels[5] = 1
    drawn = resample(6, None, seed=0, draws=200)
    without = int((weights_of(drawn)[1:, 5] == 0).sum())
    score = table(labels, p, ("a",), resampling=drawn)["a", "average_precision"]
    assert (score.value, score.low, score.high) == (1, 1, 1)
    assert score.interval_reason == f"undefined in {without} of 200 draws, which it leaves out"
    assert 40 < without < 100


def test_one_group_has_values_but_no_intervals(example):
    labels, probabilities = example
    drawn = resample(200, np.full(200, "p"), seed=0, draws=10)
    scores = table(labels, probabilities, ("a", "b", "c"), resampling=drawn).values()
    assert {(s.low, s.high, s.interval_reason) for s in scores} == {(None, None, "one group only: nothing to resample")}
    assert all(s.value is not None for s in scores)


def test_the_line_of_the_logits_says_how_probabilities_were_distorted():
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 1.5, size=(20_000, 1))
    labels = (rng.random(logits.shape) < expit(logits)).astype(np.uint8)
    too_sure = table(labels, expit(2 * logits).astype(np.float32), ("a",))
    assert too_sure["a", "calibration_slope"].value == pytest.approx(0.5, abs=0.03)
    too_low = table(labels, expit(logits - 1).astype(np.float32), ("a",))
    assert too_low["a", "calibration_slope"].value == pytest.approx(1, abs=0.05)
    assert too_low["a", "calibration_intercept"].value == pytest.approx(1, abs=0.06)
    for scores in (too_sure, too_low):
        assert scores["a", "calibration_slope"].low < scores["a", "calibration_slope"].high


def test_one_probability_and_probabilities_without_an_error_have_no_line():
    labels = (np.arange(20) < 8).astype(np.uint8)[:, None]
    for p in (np.full((20, 1), 0.3, np.float32), np.linspace(0.9, 0.1, 20, dtype=np.float32)[:, None]):
        slope = table(labels, p, ("a",))["a", "calibration_slope"]
        assert (slope.value, slope.low) == (None, None)
        assert "one probability, or are told apart" in slope.reason
    assert table(labels, np.full((20, 1), 0.4, np.float32), ("a",))[
        "a", "calibration_intercept"
    ].value == pytest.approx(0, abs=1e-6)


def test_no_draw_with_the_class_leaves_the_interval_out():
    never = Resampling(np.arange(2), (np.array([[2, 2], [0, 0]], np.uint8),))
    score = table(np.array([[0], [1]], np.uint8), np.zeros((2, 1), np.float32), ("a",), resampling=never)[
        "a", "average_precision"
    ]
    assert (score.value, score.low, score.interval_reason) == (0.5, None, "undefined in all of 2 draws")


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 40), levels=st.integers(2, 8))
def test_each_label_agrees_with_closed_forms(seed, rows, levels):
    rng = np.random.default_rng(seed)
    truth = (rng.random(rows) < 0.5).astype(np.uint8)
    truth[0], truth[-1] = 0, 1
    p = (rng.integers(1, levels + 1, rows) / (levels + 1)).astype(np.float32)  # coarse: there are ties
    scores = table(truth[:, None], p[:, None], ("a",))

    difference = p[truth == 1][:, None] - p[truth == 0][None]
    assert scores["a", "roc_auc"].value == pytest.approx(np.mean((difference > 0) + 0.5 * (difference == 0)))
    precision = {t: truth[p >= t].mean() for t in p}
    recalls = [(truth[p >= t].sum() / truth.sum(), precision[t]) for t in sorted(set(p), reverse=True)]
    steps = np.diff([0.0, *(recall for recall, _ in recalls)])
    assert scores["a", "average_precision"].value == pytest.approx(np.sum(steps * [q for _, q in recalls]))
    p64 = p.astype(np.float64)
    assert scores["a", "log_loss"].value == pytest.approx(-np.log(np.where(truth, p64, 1 - p64)).mean(), rel=1e-5)
    assert scores["a", "brier"].value == pytest.approx(((p64 - truth) ** 2).mean(), rel=1e-6)
    hit, wrong = np.sum((p >= 0.5) & (truth == 1)), np.sum((p >= 0.5) != (truth == 1))
    assert scores["a", "f1"].value == pytest.approx(2 * hit / (2 * hit + wrong))
    assert scores["a", "accuracy"].value == pytest.approx(1 - wrong / rows)
    assert scores["a", "constant_accuracy"].value == pytest.approx(max(truth.mean(), 1 - truth.mean()))


def test_order_is_labels_then_macro_and_within_the_metrics(example):
    labels, probabilities = example
    scores, _ = score(labels, probabilities, labels, probabilities, ("a", "b", "c"), resample(200, None, 0, draws=2))
    expected = [(label, metric) for label in ("a", "b", "c", MICRO, MACRO) for metric in METRICS]
    assert [(s.label, s.metric) for s in scores] == expected + [(OVERALL, metric) for metric in ROW_METRICS]


def test_an_undefined_value_is_none_with_a_reason_and_left_out_of_the_mean():
    labels = np.array([[0, 0], [1, 0], [0, 0]], np.uint8)
    probabilities = np.array([[0.2, 0.1], [0.7, 0.1], [0.8, 0.2]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = table(labels, probabilities, ("a", "b"))
    assert scores["b", "roc_auc"].value is None
    for metric in ("roc_auc", "average_precision", "f1"):
        assert (scores["b", metric].value, scores["b", metric].reason) == (None, "all 3 rows have the value 0")
    assert scores[MACRO, "roc_auc"].value == pytest.approx(0.5)
    assert scores[MACRO, "roc_auc"].reason == "undefined for b"
    assert scores["b", "log_loss"].value == pytest.approx(-np.log([0.9, 0.9, 0.8]).mean())
    assert scores["b", "accuracy"].value == 1
    assert scores["b", "sensitivity"].reason == "none of 3 rows is positive"
    assert scores["b", "specificity"].value == 1
    assert scores[MICRO, "sensitivity"].value == 1


@pytest.mark.parametrize("p", [0.0, 0.2])
def test_beside_a_prior_without_error_there_is_no_skill(p):
    labels = np.array([[0, 0], [1, 1], [0, 0], [0, 1]], np.uint8)
    probabilities, prior = np.tile(np.float32([p, 0.4]), (4, 1)), np.full((4, 2), 0.5, np.float32)
    prior[:, 0] = labels[:, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score(labels, probabilities, labels, prior, ("never", "b"), resample(4, None, 0, draws=20)).scores
    scores = {(s.label, s.metric): s for s in found}
    for metric in ("log_loss_skill", "brier_skill"):
        never = scores["never", metric]
        assert (never.value, never.low, never.high) == (None, None, None)
        assert never.reason == "the prior makes no error on 4 rows"
        assert scores[MACRO, metric].value == scores["b", metric].value
        assert scores[MACRO, metric].reason == "undefined for never"
    assert scores["b", "brier_skill"].value == pytest.approx(1 - (0.36 + 0.16) / 0.5)


def test_no_label_with_both_values_leaves_the_mean_undefined():
    scores = table(np.ones((4, 2), np.uint8), np.full((4, 2), 0.9, np.float32), ("a", "b"))
    assert scores[MACRO, "roc_auc"].value is None
    assert scores[MACRO, "roc_auc"].reason == "undefined for a, b"
    assert scores["a", "sensitivity"].value == 1
    assert scores["a", "specificity"].reason == "none of 4 rows is negative"
    assert scores[MICRO, "roc_auc"].reason == "all 8 cells have the value 1"


@pytest.mark.parametrize("value", [0, 1])
def test_of_rows_of_one_value_a_figure_that_needs_both_is_undefined_and_in_no_mean(value):
    labels = np.column_stack([np.full(60, value), np.arange(60) % 3 == 0]).astype(np.uint8)
    p = np.random.default_rng(0).random((60, 2)).astype(np.float32)
    prior = np.full((60, 2), 0.4, np.float32)
    binary = (p > 0.5).astype(np.uint8)
    found = score(labels, p, binary, prior, ("one", "both"), resample(60, None, 0, draws=20)).scores
    scores = {(s.label, s.metric): s for s in found}
    share = "sensitivity" if value else "specificity"
    defined = {metric for metric in METRICS if scores["one", metric].value is not None}
    assert defined == {"log_loss", "brier", "calibration_error", "accuracy", "constant_accuracy", share}
    for metric in ("average_precision", "brier_skill", "f1", "f2"):
        assert scores["one", metric].reason == f"all 60 rows have the value {value}"
        assert (scores["one", metric].low, scores["one", metric].interval) == (None, "")
        assert scores[MACRO, metric].value == scores["both", metric].value


def test_a_draw_without_a_negative_has_no_average_precision():
    truth, p = np.array([1, 1, 0], np.uint8), np.array([0.9, 0.2, 0.5], np.float32)
    drawn = Resampling(np.arange(3), (np.array([[1, 2], [2, 0], [0, 1]], np.uint8),))
    own = table(truth[:, None], p[:, None], ("a",), resampling=drawn)["a", "average_precision"]
    assert own.value == pytest.approx((1 + 2 / 3) / 2)
    assert (own.low, own.high, own.interval_reason) == (1, 1, "undefined in 1 of 2 draws, which it leaves out")


def test_a_certain_and_wrong_probability_costs_a_finite_log_loss():
    scores = table(np.array([[0], [1]], np.uint8), np.array([[1], [1]], np.float32), ("a",))
    eps = np.finfo(np.float32).eps
    assert scores["a", "log_loss"].value == pytest.approx(-np.log(eps) / 2, rel=1e-3)
