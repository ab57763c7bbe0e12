"""Accuracy and the confusion matrix of exclusive classes, against scikit-learn on the rows and on draws of them."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from classify.scores.resampling import resample
from classify.scores.small import share_interval
from classify.scores.tables.classes import count_confusions, pick_classes, score_classes, tabulate_confusions

DRAWS = 7


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39), st.integers(0, 4)), min_size=2, max_size=80),
    st.booleans(),
)
def test_scores_are_those_of_scikit_learn_on_the_rows_and_on_every_draw(rows, grouped):
    truth, predicted, group = np.array(rows).T
    resampling = resample(len(truth), group.astype(str) if grouped else None, 0, DRAWS)
    found = score_classes(truth, predicted, resampling)
    weights = np.concatenate(resampling.blocks, axis=1)[resampling.unit_of_row]
    for draw in range(1 + DRAWS):
        drawn = np.repeat(np.arange(len(truth)), 1 if not draw else weights[:, draw - 1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class is predicted that no row has
            balanced = balanced_accuracy_score(truth[drawn], predicted[drawn])
        assert found["top1_accuracy"][draw] == pytest.approx(accuracy_score(truth[drawn], predicted[drawn]))
        assert found["balanced_accuracy"][draw] == pytest.approx(balanced)
    expected = confusion_matrix(truth, predicted, labels=range(40))
    np.testing.assert_array_equal(count_confusions(truth, predicted, 40), expected)


def test_the_class_is_the_first_of_the_most_probable():
    assert pick_classes(np.array([[0.2, 0.7, 0.7], [0.9, 0.1, 0.2]], np.float32)).tolist() == [1, 0]


def test_a_table_has_a_cell_per_pair_of_classes_with_the_share_of_the_row():
    rng = np.random.default_rng(0)
    truth, groups = rng.integers(0, 3, 200), np.repeat(np.arange(50), 4)
    labels = np.eye(4, dtype=np.uint8)[truth]  # of the last class there is no image
    probabilities = (labels + rng.normal(0, 0.5, labels.shape)).astype(np.float32)
    predicted = probabilities.argmax(axis=1)
    figures = tabulate_confusions("test", ("a", "b", "c", "d"), labels, probabilities, groups)
    counts = np.array([figure.images for figure in figures]).reshape(4, 4)
    np.testing.assert_array_equal(counts, confusion_matrix(truth, predicted, labels=range(4)))
    assert [(f.split, f.truth, f.predicted) for f in figures[:5]] == [
        *(("test", "a", name) for name in "abcd"),
        ("test", "b", "a"),
    ]
    for figure in figures[:12]:
        rows = truth == "abcd".index(figure.truth)
        assert figure.share == pytest.approx(figure.images / rows.sum())
        low, high, how, _ = share_interval(predicted[rows] == "abcd".index(figure.predicted), groups[rows])
        assert (figure.low, figure.high, figure.interval) == (low, high, how)
        assert figure.low <= figure.share <= figure.high
    assert {figure[4:] for figure in figures[12:]} == {(None, None, None, "")}
