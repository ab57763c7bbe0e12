"""What learns from probabilities never sees the label of a row that it is scored on."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from classify.crossfit.plan import Folds, Prediction
from classify.ensembles.ensembles import CALIBRATIONS, ENSEMBLES
from classify.ensembles.estimators import Mean, calibrate, combine, cross_fit_second_level

FOLDS = Folds(np.arange(60) % 3, 3, None, ())


class Memory(BaseEstimator):
    """Gives 1 to the rows of `fit`, told by their first probability, and elsewhere the number of rows seen / 100."""

    def fit(self, X, y):
        self.seen_, self.rows_ = set(X[:, 0].ravel().tolist()), len(y)
        return self

    def predict_proba(self, X):
        known = [value in self.seen_ for value in X[:, 0].ravel().tolist()]
        return np.where(known, 1, self.rows_ / 100)[:, None].astype(np.float32)


@pytest.fixture
def members() -> tuple[dict[str, Prediction], np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, 2)).astype(np.uint8)
    train, test = (rng.random((rows, 2, 3)).astype(np.float32) for rows in (60, 8))
    backbones = [("alpha",), ("beta",), ("alpha", "beta")]
    return {
        f"m{index}": Prediction(train[None, :, :, index], test[None, :, :, index], backbones=backbones[index])
        for index in range(3)
    }, labels


def test_rows_held_out_are_new_and_test_is_by_all_rows():
    rows = np.random.default_rng(0).random((68, 1)).astype(np.float32)
    labels = np.zeros((60, 1), np.uint8)
    prediction, fitted = cross_fit_second_level(Memory(), rows[None, :60], labels, [FOLDS], rows[None, 60:])
    np.testing.assert_allclose(prediction.out_of_fold, 0.4)
    np.testing.assert_allclose(prediction.test, 0.6)
    assert fitted.rows_ == 60
    assert cross_fit_second_level(Memory(), rows[None, :60], labels, [FOLDS], None)[0].test is None


@pytest.mark.parametrize("name", [*ENSEMBLES, *CALIBRATIONS])
def test_the_labels_of_a_fold_have_no_part_in_its_own_probabilities(name, members):
    predictions, labels = members
    turned = labels.copy()
    turned[FOLDS.fold_of_row == 1] ^= 1

    def run(truth):
        if name in CALIBRATIONS:
            return calibrate(name, predictions["m0"], truth, [FOLDS])[0]
        return combine([name], predictions, truth, [FOLDS], 1, lambda: None)[0][name]

    first, other = run(labels), run(turned)
    np.testing.assert_array_equal(first.out_of_fold[FOLDS.fold_of_row == 1], other.out_of_fold[FOLDS.fold_of_row == 1])
    learns = name in CALIBRATIONS or not isinstance(ENSEMBLES[name].make(), Mean)
    assert (first.out_of_fold != other.out_of_fold).any() == learns


def test_ensembles_name_their_members_shares_and_backbones(members):
    predictions, labels = members
    ticks = []
    made, fitted = combine(["mean", "greedy", "stacking"], predictions, labels, [FOLDS], 2, lambda: ticks.append(1))
    assert list(made) == list(fitted) == ["mean", "greedy", "stacking"]
    assert made["mean"].shares == pytest.approx({"m0": 1 / 3, "m1": 1 / 3, "m2": 1 / 3})
    assert made["stacking"].shares == {}
    assert made["stacking"].backbones == ("alpha", "beta")
    greedy = made["greedy"]
    assert 0 < len(greedy.shares) <= 3
    assert min(greedy.shares.values()) > 0
    assert set(greedy.backbones) == {b for member in greedy.shares for b in predictions[member].backbones}
    assert len(ticks) == 3


def test_no_ensemble_asked_for_is_none_made(members):
    predictions, labels = members
    assert combine([], predictions, labels, [FOLDS], 1, lambda: None) == ({}, {})


@pytest.mark.parametrize("name", ["rank_mean", "stacking", "platt", "isotonic"])
def test_each_fit_is_combined_and_calibrated_by_itself_and_the_mean_is_taken_last(name, members):
    predictions, labels = members
    fits = np.random.default_rng(1).random((4, 8, 2, 3)).astype(np.float32)
    of_fits = {
        model: replace(prediction, test_by_fit=fits[:, :, :, index])
        for index, (model, prediction) in enumerate(predictions.items())
    }
    if name in CALIBRATIONS:
        made, fitted = calibrate(name, of_fits["m0"], labels, [FOLDS])
        alone = [fitted.predict_proba(fit[:, :, 0]) for fit in fits]
    else:
        found, models = combine([name], of_fits, labels, [FOLDS], 1, lambda: None)
        made, alone = found[name], [models[name].predict_proba(fit) for fit in fits]
    np.testing.assert_array_equal(made.test_by_fit, alone)
    np.testing.assert_allclose(made.test, np.mean(alone, axis=0), rtol=1e-6)
    together = fits[:, :, :, 0] if name in CALIBRATIONS else fits
    of_mean = (fitted if name in CALIBRATIONS else models[name]).predict_proba(together.mean(axis=0))
    assert np.abs(made.test - of_mean).max() > 1e-4


def test_without_test_rows_there_are_no_test_probabilities(members):
    predictions, labels = members
    lone = {name: Prediction(p.by_repeat, None) for name, p in predictions.items()}
    assert combine(["weights"], lone, labels, [FOLDS], 1, lambda: None)[0]["weights"].test is None
    assert calibrate("platt", lone["m0"], labels, [FOLDS])[0].test is None
