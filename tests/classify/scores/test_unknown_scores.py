"""Every metric, and every table, is of the known rows alone: as if the others were not there."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    fbeta_score,
    log_loss,
    recall_score,
    roc_auc_score,
)

from classify.scores.choice import macro_labels
from classify.scores.label_errors import SAME_FEATURES, Duplicates, find_label_errors
from classify.scores.metrics import MACRO, METRICS, MICRO, OVERALL, ThresholdRule
from classify.scores.resampling import resample
from classify.scores.scoring import score
from classify.scores.tables.groups import reduce_labels
from classify.scores.tables.operating_points import list_operating_points, measure_point
from classify.scores.tables.splits import SplitReading
from classify.scores.tables.subgroups import score_subgroups
from classify.scores.thresholds import fit_thresholds, make_promises, measure_cost
from features.common.arrays import UNKNOWN

ROWS, NAMES = 160, ("a", "b", "c")


@pytest.fixture(scope="module")
def rows():
    """Labels, the truth under them, probabilities and decisions."""
    rng = np.random.default_rng(7)
    truth = rng.integers(0, 2, (ROWS, 3)).astype(np.uint8)
    probabilities = np.clip(rng.normal(0.35 + 0.3 * truth, 0.25), 0.01, 0.99).astype(np.float32)
    labels = np.where(rng.random(truth.shape) < (0.2, 0.5, 0), UNKNOWN, truth).astype(np.uint8)
    return labels, truth, probabilities, (probabilities >= 0.4).astype(np.uint8)


def score_all(labels, probabilities, binary, groups=None, names=NAMES):
    prior = np.full(labels.shape, 0.45, np.float32)
    found = score(labels, probabilities, binary, prior, names, resample(len(labels), groups, 0, 60))
    return {(one.label, one.metric): one for one in found.scores}


REFERENCES = {
    "roc_auc": lambda y, p, d: roc_auc_score(y, p),
    "pooled_roc_auc": lambda y, p, d: roc_auc_score(y, p),
    "average_precision": lambda y, p, d: average_precision_score(y, p),
    "log_loss": lambda y, p, d: log_loss(y, p.astype(np.float64)),
    "brier": lambda y, p, d: brier_score_loss(y, p),
    "f1": lambda y, p, d: f1_score(y, d),
    "f2": lambda y, p, d: fbeta_score(y, d, beta=2),
    "sensitivity": lambda y, p, d: recall_score(y, d),
    "specificity": lambda y, p, d: recall_score(y, d, pos_label=0),
    "accuracy": lambda y, p, d: np.mean(y == d),
}


def test_metrics_are_those_of_scikit_learn_on_the_known_rows(rows):
    labels, _, probabilities, binary = rows
    found = score_all(labels, probabilities, binary)
    for index, name in enumerate(NAMES):
        own = labels[:, index] != UNKNOWN
        for metric, reference in REFERENCES.items():
            expected = reference(labels[own, index], probabilities[own, index], binary[own, index])
            assert found[name, metric].value == pytest.approx(expected, abs=1e-6)
    own = labels != UNKNOWN
    for metric, reference in REFERENCES.items():
        assert found[MICRO, metric].value == pytest.approx(
            reference(labels[own], probabilities[own], binary[own]), abs=1e-6
        )
    whole = own.all(axis=1)
    assert found[OVERALL, "exact_match"].value == pytest.approx(np.mean((labels == binary)[whole].all(axis=1)))
    assert found[OVERALL, "exact_match"].reason == f"of {whole.sum()} of {ROWS} rows, all labels known"


def test_a_label_is_scored_as_if_its_unknown_rows_were_not_there(rows):
    """Where all labels are known of the same rows, whose groups are theirs alone, each figure with its interval."""
    _, truth, probabilities, binary = rows
    groups = np.array([f"g{row // 4}" for row in range(ROWS)])
    known = groups < "g25"
    labels = np.where(known[:, None], truth, np.uint8(UNKNOWN))
    masked = score_all(labels, probabilities, binary, groups)
    alone = score_all(truth[known], probabilities[known], binary[known], groups[known])
    for key, one in alone.items():
        assert masked[key].value == pytest.approx(one.value, abs=1e-12)
        assert masked[key].interval == one.interval
    some = alone["a", "sensitivity"]  # of few groups: by a formula, not by the draws
    assert "Wilson" in some.interval
    assert (masked["a", "sensitivity"].low, masked["a", "sensitivity"].high) == pytest.approx((some.low, some.high))


def test_a_label_that_is_not_known_of_any_row_has_no_figure_and_no_part_in_means(rows):
    labels, truth, probabilities, binary = rows
    nothing = labels.copy()
    nothing[:, 1] = UNKNOWN
    found = score_all(nothing, probabilities, binary)
    assert {found["b", metric].value for metric in METRICS} == {None}
    assert found["b", "accuracy"].reason == "none of the rows is known"
    assert found[OVERALL, "exact_match"].value is None
    assert found[OVERALL, "exact_match"].reason == f"of 0 of {ROWS} rows, all labels known"
    expected = np.mean([found[name, "roc_auc"].value for name in "ac"])
    assert found[MACRO, "roc_auc"].value == pytest.approx(expected)
    assert macro_labels(NAMES, truth, nothing) == {"b": "not known of any test image"}


def test_means_leave_out_labels_with_few_known_positives_or_negatives(rows):
    _, truth, *_ = rows
    labels = truth.copy()
    labels[np.flatnonzero(truth[:, 0] == 1)[9:], 0] = UNKNOWN
    labels[np.flatnonzero(truth[:, 1] == 0)[3:], 1] = UNKNOWN
    assert macro_labels(NAMES, labels, None) == {"a": "9 positives in train", "b": "3 negatives in train"}


def test_thresholds_promises_and_costs_are_those_of_the_known_rows(rows):
    labels, _, probabilities, binary = rows
    groups = np.array([f"g{row // 2}" for row in range(ROWS)])
    cost = measure_cost(labels, probabilities, binary)
    for index in range(3):
        own = labels[:, index] != UNKNOWN
        known = labels[own, index][:, None], probabilities[own, index][:, None]
        for text in ("f1", "youden", "sensitivity=0.9"):
            rule = ThresholdRule.parse(text)
            assert fit_thresholds(labels, probabilities, rule)[index] == fit_thresholds(*known, rule)[0]
        rule = ThresholdRule.parse("sensitivity>=0.9@90")
        promised = make_promises(labels, probabilities, rule, groups)[index]
        assert promised == make_promises(*known, rule, groups[own])[0]
        np.testing.assert_array_equal(cost[index], measure_cost(*known, binary[own, index][:, None])[0])


def test_operating_points_and_subgroups_are_of_the_known_rows(rows):
    labels, _, probabilities, binary = rows
    drawn = resample(ROWS, None, 0, 60)
    split = SplitReading("test", labels, probabilities, binary, None, drawn, None)
    rule, cuts = ThresholdRule.parse("f1"), np.full(3, 0.4)
    points = list_operating_points(NAMES, [split], rule, cuts, lambda rule: (cuts, binary), {})
    own = labels[:, 1] != UNKNOWN
    expected = measure_point(labels[own, 1], binary[own, 1], np.flatnonzero(own), float(labels[own, 1].mean()))
    found = {point.figure: point[6:] for point in points if (point.label, point.at) == ("b", "f1")}
    assert found == expected

    sides = np.where(np.arange(ROWS) < 90, "left", "right")
    figures = score_subgroups(NAMES, [split], {"side": {"test": sides}})
    own &= sides == "left"
    [auc] = [f for f in figures if (f.label, f.subgroup, f.metric) == ("b", "left", "roc_auc")]
    assert auc.images == 90
    assert auc.positives == (labels[own, 1] == 1).sum()
    assert auc.value == pytest.approx(roc_auc_score(labels[own, 1], probabilities[own, 1]))


def test_a_group_is_negative_only_where_all_its_images_are_known():
    labels = np.array([[1, 0], [UNKNOWN, 0], [0, UNKNOWN], [UNKNOWN, 0], [0, 0]], np.uint8)
    found = reduce_labels(labels, np.array([0, 0, 1, 1, 2]))
    assert found.tolist() == [[1, 0], [UNKNOWN, UNKNOWN], [0, 0]]


def test_an_unknown_label_is_no_error():
    labels = np.array([[1], [0], [UNKNOWN], [1], [0], [UNKNOWN]], np.uint8)
    out_of_fold = np.array([[0.9], [0.1], [0.99], [0.05], [0.2], [0.01]], np.float32)
    found = find_label_errors(labels, out_of_fold, [Duplicates(0, 2, SAME_FEATURES), Duplicates(1, 3, SAME_FEATURES)])
    assert [(error.row, error.why) for error in found] == [(3, SAME_FEATURES)]
