"""Labels that were flipped on purpose are enriched at the top, and duplicates with other labels are found."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from classify.scores.label_errors import (
    DISAGREEMENT,
    NEAR_DUPLICATE,
    NEAR_ROWS,
    SAME_FEATURES,
    Duplicates,
    find_duplicates,
    find_label_errors,
)

COLUMNS = {"alpha": slice(0, 12), "beta": slice(12, 32)}


def learnable(seed: int, rows: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that know a frequent and a rare label well, the truth, and the truth with 3 % of its cells flipped."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(rows, 2))
    truth = (signal + 0.2 * rng.normal(size=signal.shape) > (0.2, 1.4)).astype(np.uint8)
    features = (signal @ rng.normal(size=(2, 32)) + 0.5 * rng.normal(size=(rows, 32))).astype(np.float32)
    flipped = rng.permutation(truth.size)[: round(0.03 * truth.size)]
    given = truth.copy()
    given.ravel()[flipped] ^= 1
    return features, truth, given


def out_of_fold(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities of models that did not learn from the row."""
    model = LogisticRegression(C=0.1)
    columns = [cross_val_predict(model, features, truth, method="predict_proba")[:, 1] for truth in labels.T]
    return np.column_stack(columns).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_the_likeliest_errors_most_are_labels_that_were_flipped(seed):
    features, truth, given = learnable(seed)
    errors = find_label_errors(given, out_of_fold(features, given))
    wrong = [truth[error.row, error.label] != error.given for error in errors]
    flipped = int((truth != given).sum())
    assert flipped == 36
    assert np.mean(wrong[:18]) >= 0.9  # by chance 0.03
    assert sum(wrong) >= 0.6 * flipped
    assert np.mean(wrong) < np.mean(wrong[:18])  # the likelier come first
    rare = [flag for flag, error in zip(wrong, errors, strict=True) if error.label == 1]
    assert np.mean(rare) >= 0.5


def test_thresholds_are_the_mean_self_confidence():
    labels = np.array([[1], [1], [1], [0], [0], [0]], np.uint8)
    probability = np.array([[0.9], [0.7], [0.05], [0.1], [0.2], [0.6]], np.float32)
    # Self-confidence: of 1 the mean of .9 .7 .05, 0.55; of 0 the mean of .9 .8 .4, 0.7.
    errors = find_label_errors(labels, probability)
    assert [(error.row, error.given, error.why) for error in errors] == [(2, 1, DISAGREEMENT), (5, 0, DISAGREEMENT)]
    np.testing.assert_allclose([e.self_confidence for e in errors], [0.05, 0.4], rtol=1e-6)
    np.testing.assert_allclose([e.probability for e in errors], [0.05, 0.6], rtol=1e-6)


def test_of_two_images_that_are_alike_the_one_that_the_models_doubt_is_suspected():
    labels = np.array([[1, 0], [0, 0], [0, 1], [1, 0]], np.uint8)
    probability = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.7, 0.1]], np.float32)
    alike = [Duplicates(0, 1, NEAR_DUPLICATE), Duplicates(0, 3, SAME_FEATURES)]  # the last two have the same labels
    errors = find_label_errors(labels, probability, alike)
    assert [(e.row, e.label, e.why, e.duplicate) for e in errors] == [(1, 0, NEAR_DUPLICATE, 0)]


def test_a_planted_near_duplicate_of_another_group_is_found_and_neighbours_within_a_group_are_not():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 32)).astype(np.float32)
    features[200] = features[10] + 0.01 * rng.normal(size=32)  # of another group
    features[21] = features[20] + 0.01 * rng.normal(size=32)  # of the same
    features[250] = features[30]
    groups = np.array([f"p{row // 10}" for row in range(300)])
    found = find_duplicates(features, COLUMNS, groups)
    assert set(found) == {Duplicates(10, 200, NEAR_DUPLICATE), Duplicates(30, 250, SAME_FEATURES)}
    assert Duplicates(20, 21, NEAR_DUPLICATE) in find_duplicates(features, COLUMNS, None)
    labels = rng.integers(0, 2, (300, 1)).astype(np.uint8)
    labels[[10, 30]], labels[[200, 250]] = 1, 0
    first, second, *_ = find_label_errors(labels, np.full((300, 1), 0.5, np.float32) - 0.1 * labels, found)
    assert {first.row, second.row} == {10, 30}  # probabilities are lower where the label is given
    assert (first.why, second.why) == (SAME_FEATURES, NEAR_DUPLICATE)


def test_columns_of_no_backbone_are_not_compared():
    features = np.random.default_rng(0).normal(size=(120, 40)).astype(np.float32)
    features[100, :32] = features[7, :32]  # equal where a backbone is, far off beyond
    features[50] = features[40]
    equal = [Duplicates(40, 50, SAME_FEATURES), Duplicates(7, 100, SAME_FEATURES)]
    assert find_duplicates(features, COLUMNS, None) == equal
    assert find_duplicates(features, {}, None) == []


def test_of_many_or_few_images_equal_ones_alone_are_found():
    rng = np.random.default_rng(0)
    for rows in (50, NEAR_ROWS + 2):
        features = rng.normal(size=(rows, 32)).astype(np.float32)
        features[7] = features[3]
        features[9] = features[4] + 1e-3
        assert find_duplicates(features, COLUMNS, None) == [Duplicates(3, 7, SAME_FEATURES)]
