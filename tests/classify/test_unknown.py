"""Labels that are not known have no part in anything that is learnt, chosen or measured."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from classify.experiment import read_final
from classify.models.estimators import expect_shares
from classify.scores import gallery, label_errors
from classify.scores.resampling import auc_within_folds, percentile_interval, resample
from features.common.arrays import UNKNOWN
from tests.classify.test_experiment import make_inputs, run, with_test

ROWS, TEST_ROWS, LABELS = 90, 30, 3


@pytest.fixture
def inputs():
    """Three labels of which some rows are not known, of some rows none, one label of few groups only."""
    rng = np.random.default_rng(4)
    signal = rng.normal(size=(ROWS + TEST_ROWS, LABELS))
    features = np.column_stack([signal @ rng.normal(size=(LABELS, 6)), rng.normal(size=(len(signal), 4))])
    truth = (signal + rng.normal(size=signal.shape) > 0.3).astype(np.uint8)
    hidden = rng.random(truth.shape) < (0.2, 0.5, 0.0)
    hidden[::9] = True
    groups = np.array([f"g{row}" for row in np.arange(ROWS) // 3])
    hidden[:ROWS][groups > "g20", 0] = True
    truth[hidden] = UNKNOWN
    train = make_inputs(features[:ROWS], truth[:ROWS], groups, {"alpha": slice(0, 6), "beta": slice(6, 10)})
    return with_test(train, features[ROWS:], truth[ROWS:])


def find_everything(inputs, **choices):
    """All that a run finds, and the tables of its final model, as plain values."""
    found = run(inputs, baselines=("logistic", "ridge_regression", "svm", "knn", "prior"), folds=3, **choices)
    found = read_final(inputs, found)
    final = found.predictions[found.final_model]
    of_rows = inputs.train_labels, final.out_of_fold
    errors = label_errors.find_label_errors(*of_rows, [label_errors.Duplicates(0, 1, label_errors.SAME_FEATURES)])
    shown = gallery.choose_gallery(*of_rows, found.thresholds[found.final_model], inputs.train.groups)
    arrays = [array for p in found.predictions.values() for array in (p.by_repeat, p.test_by_fit)]
    arrays += [*found.thresholds.values(), *found.decisions.values(), found.plan.fold_of_row]
    numbers = found.scores, found.comparisons, found.nested, found.returns, found.gap, found.readings, errors, shown
    return [array.tobytes() for array in arrays], repr((*numbers, found.final_model, found.left_out))


def test_the_number_that_stands_for_unknown_has_no_part(inputs, monkeypatch):
    """It becomes 2: even, so that bits show, and small, as one large number outweighs all like another."""
    expected = find_everything(inputs, calibration="isotonic")
    assert "roc_auc" in expected[1]
    assert "nan" not in expected[1]
    other, test_labels = (
        np.where(labels == UNKNOWN, 2, labels).astype(np.uint8) for labels in (inputs.train_labels, inputs.test.labels)
    )
    for module in [module for module in list(sys.modules.values()) if getattr(module, "UNKNOWN", None) == UNKNOWN]:
        monkeypatch.setattr(module, "UNKNOWN", 2)  # but in what is compiled: heads are compared with Keras'
    renamed = replace(inputs, train_labels=other, test=replace(inputs.test, labels=test_labels))
    assert find_everything(renamed, calibration="isotonic") == expected


def test_the_prior_is_of_the_known_rows():
    labels = np.array([[1, UNKNOWN], [0, UNKNOWN], [UNKNOWN, UNKNOWN], [1, UNKNOWN]], np.uint8)
    assert expect_shares(labels).tolist() == [3 / 5, 1 / 2]


def test_labels_hidden_at_random_leave_the_auc_right_and_its_interval_holds():
    rng, draws = np.random.default_rng(0), resample(240, np.repeat(np.arange(60), 4).astype(str), 0, 200)
    folds, distance = np.repeat(np.arange(240) % 4, 1)[None], 1.0
    values, held = [], 0
    for _ in range(200):
        truth = (rng.random(240) < 0.4).astype(np.uint8)
        score = rng.normal(size=240) + distance * truth
        truth[rng.random(240) < 0.5] = UNKNOWN
        drawn = auc_within_folds(truth, score[None], folds, draws)
        low, high = percentile_interval(drawn)
        values.append(drawn[0])
        held += low <= 0.7602 <= high  # normal scores that lie 1 apart: the normal's share below 1 / sqrt(2)
    assert abs(np.mean(values) - 0.7602) < 3 * np.std(values) / np.sqrt(200)
    assert 0.91 <= held / 200 <= 0.99
