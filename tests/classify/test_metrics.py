"""Metrics agree with scikit-learn over all labels at once, and with closed forms."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, log_loss, roc_auc_score

from classify.metrics import MACRO, METRICS, score


def table(labels, probabilities, label_names, threshold=0.5):
    binary = (probabilities >= threshold).astype(np.uint8)
    return {(s.label, s.metric): s for s in score(labels, probabilities, binary, label_names)}


@pytest.fixture
def example() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 3)) < (0.1, 0.4, 0.6)).astype(np.uint8)
    probabilities = np.clip(0.3 * labels + 0.7 * rng.random(labels.shape), 0, 1).astype(np.float32)
    return labels, probabilities


def test_macro_agrees_with_scikit_learns_multilabel_averages(example):
    labels, probabilities = example
    scores = table(labels, probabilities, ("a", "b", "c"))
    binary = probabilities >= 0.5
    expected = {
        "roc_auc": roc_auc_score(labels, probabilities, average="macro"),
        "average_precision": average_precision_score(labels, probabilities, average="macro"),
        "f1": f1_score(labels, binary, average="macro"),
        "log_loss": np.mean([log_loss(labels[:, k], probabilities[:, k]) for k in range(3)]),
        "brier": np.mean((probabilities.astype(np.float64) - labels) ** 2),
        "accuracy": np.mean(binary == labels),
        "all_negative_accuracy": 1 - labels.mean(),
    }
    assert set(expected) == set(METRICS)
    for metric, value in expected.items():
        assert scores[MACRO, metric].value == pytest.approx(value, rel=1e-6)
        assert scores[MACRO, metric].reason == ""


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
    assert scores["a", "all_negative_accuracy"].value == pytest.approx((truth == 0).mean())


def test_order_is_labels_then_macro_and_within_the_metrics(example):
    labels, probabilities = example
    scores = score(labels, probabilities, labels, ("a", "b", "c"))
    assert [(s.label, s.metric) for s in scores] == [(lab, m) for lab in ("a", "b", "c", MACRO) for m in METRICS]


def test_an_undefined_value_is_none_with_a_reason_and_left_out_of_the_mean():
    labels = np.array([[0, 0], [1, 0], [0, 0]], np.uint8)
    probabilities = np.array([[0.2, 0.1], [0.7, 0.1], [0.8, 0.2]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = table(labels, probabilities, ("a", "b"))
    assert scores["b", "roc_auc"].value is None
    assert scores["b", "roc_auc"].reason == "all 3 rows have the value 0"
    assert scores["b", "average_precision"].reason == "none of 3 rows is positive"
    assert scores["b", "f1"].reason == "none of 3 rows is positive or predicted positive"
    assert scores[MACRO, "roc_auc"].value == pytest.approx(0.5)
    assert scores[MACRO, "roc_auc"].reason == "undefined for b"
    assert scores["b", "log_loss"].value == pytest.approx(-np.log([0.9, 0.9, 0.8]).mean())
    assert scores["b", "accuracy"].value == 1


def test_no_label_with_both_values_leaves_the_mean_undefined():
    scores = table(np.ones((4, 2), np.uint8), np.full((4, 2), 0.9, np.float32), ("a", "b"))
    assert scores[MACRO, "roc_auc"].value is None
    assert scores[MACRO, "roc_auc"].reason == "undefined for a, b"
    assert scores[MACRO, "average_precision"].value == 1


def test_f1_of_false_alarms_only_is_zero_not_undefined():
    scores = table(np.zeros((2, 1), np.uint8), np.array([[0.9], [0.1]], np.float32), ("a",))
    assert scores["a", "f1"].value == 0


def test_a_certain_and_wrong_probability_costs_a_finite_log_loss():
    scores = table(np.array([[0], [1]], np.uint8), np.array([[1], [1]], np.float32), ("a",))
    eps = np.finfo(np.float32).eps
    assert scores["a", "log_loss"].value == pytest.approx(-np.log(eps) / 2, rel=1e-3)
