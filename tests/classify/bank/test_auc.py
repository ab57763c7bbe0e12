"""The AUC and the accuracy of many heads at once."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from classify.bank.auc import mean_accuracy, mean_auc
from classify.scores.resampling import auc_within_folds, resample
from features.common.arrays import UNKNOWN


def test_the_auc_of_many_heads_is_scikit_learns():
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((200, 2, 5)).astype(np.float32) * 10
    logits[..., 3] = np.round(logits[..., 3])  # many ties
    logits[..., 4] = 0.5  # nothing but ties
    y = (generator.random((200, 2)) < 0.3).astype(np.uint8)
    expected = [np.mean([roc_auc_score(y[:, label], logits[:, label, head]) for label in (0, 1)]) for head in range(5)]
    np.testing.assert_allclose(mean_auc(logits, y), expected, atol=1e-6)
    assert expected[4] == 0.5


def test_labels_of_one_value_have_no_auc():
    logits = np.array([[[0.0], [1.0]], [[1.0], [0.0]]], dtype=np.float32)
    assert mean_auc(logits, np.array([[0, 1], [1, 1]], dtype=np.uint8)).tolist() == [1.0]
    assert np.isnan(mean_auc(logits, np.array([[0, 1], [0, 1]], dtype=np.uint8))).all()


def test_over_the_pairs_within_folds_each_fold_has_its_own_order():
    rng = np.random.default_rng(2)
    logits, y, folds = rng.normal(size=(90, 2, 4)).astype(np.float32), rng.integers(0, 2, (90, 2)), np.arange(90) % 4
    y[folds == 3, 1] = 1  # a fold without pairs
    drawn = resample(90, None, seed=0, draws=1)
    expected = [
        np.mean(
            [auc_within_folds(y[:, label], logits[None, :, label, head], folds[None], drawn)[0] for label in (0, 1)]
        )
        for head in range(4)
    ]
    np.testing.assert_allclose(mean_auc(logits, y.astype(np.uint8), folds), expected, rtol=1e-6)


def test_unknown_cells_have_no_part():
    rng = np.random.default_rng(3)
    logits, y, folds = rng.normal(size=(90, 2, 4)).astype(np.float32), rng.integers(0, 2, (90, 2)), np.arange(90) % 4
    known = rng.random(y.shape) < 0.6
    y = np.where(known, y, UNKNOWN).astype(np.uint8)
    of_labels = [
        [roc_auc_score(y[own, label], logits[own, label, head]) for head in range(4)]
        for label, own in enumerate(known.T)
    ]
    np.testing.assert_allclose(mean_auc(logits, y), np.mean(of_labels, axis=0), atol=1e-6)
    other = np.where(known[:, :, None], logits, -logits)
    np.testing.assert_array_equal(mean_auc(logits, y, folds), mean_auc(other, y, folds))


def test_the_accuracy_of_many_heads_is_that_of_counting():
    logits = np.float32([[[1, -1], [0, 2]], [[-3, 2], [4, -1]], [[2, 2], [-1, -1]]])  # 3 rows, 2 labels, 2 heads
    y = np.array([[1, 0], [0, UNKNOWN], [0, 1]], np.uint8)
    sigmoid = np.array([False, False])
    assert mean_accuracy(logits, y, sigmoid).tolist() == pytest.approx([3 / 5, 0])  # 0, which is 0.5, is negative
    classes = np.array([[1, 0], [0, 1], [0, 1]], np.uint8)
    assert mean_accuracy(logits, classes, np.array([True, False])).tolist() == pytest.approx([2 / 3, 0])
    assert np.isnan(mean_accuracy(logits, np.full((3, 2), UNKNOWN, np.uint8), sigmoid)).all()
