"""What learns from probabilities never sees the label of a row that it is scored on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator

import classify
from classify.crossfit.plan import Prediction
from classify.crossfit.store import FitKeys, FitStore
from classify.ensembles.crossfit import COMBINING, Combined, calibrate, combine, cross_fit_second_level
from classify.ensembles.ensembles import CALIBRATIONS, ENSEMBLES, SecondLevel
from classify.ensembles.estimators import Mean
from classify.inputs import Inputs, SplitInputs
from features.folds.folds import Folds

ROOM = Path(classify.__file__).parent
FOLDS = Folds(np.arange(60) % 3, 3, None, ())


def inputs_of(labels: np.ndarray) -> Inputs:
    """Inputs of such labels, and of features that no ensemble sees."""
    ids = tuple(f"i{row}" for row in range(len(labels)))
    split = SplitInputs(ids, np.ones(len(ids), bool), np.zeros((len(ids), 1), np.float32), None, None, {})
    return Inputs(("a", "b"), {"alpha": slice(0, 1)}, split, labels, None)


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
        return combine([name], predictions, truth, [FOLDS], 1, lambda: None)[name].prediction

    first, other = run(labels), run(turned)
    np.testing.assert_array_equal(first.out_of_fold[FOLDS.fold_of_row == 1], other.out_of_fold[FOLDS.fold_of_row == 1])
    learns = name in CALIBRATIONS or not isinstance(ENSEMBLES[name].make(), Mean)
    assert (first.out_of_fold != other.out_of_fold).any() == learns


def test_ensembles_name_their_members_shares_and_backbones(members):
    predictions, labels = members
    ticks = []
    combined = combine(["mean", "greedy", "stacking"], predictions, labels, [FOLDS], 2, lambda: ticks.append(1))
    assert list(combined) == ["mean", "greedy", "stacking"]
    made = {name: own.prediction for name, own in combined.items()}
    assert made["mean"].shares == pytest.approx({"m0": 1 / 3, "m1": 1 / 3, "m2": 1 / 3})
    assert made["stacking"].shares == {}
    assert made["stacking"].backbones == ("alpha", "beta")
    greedy = made["greedy"]
    assert 0 < len(greedy.shares) <= 3
    assert min(greedy.shares.values()) > 0
    assert set(greedy.backbones) == {b for member in greedy.shares for b in predictions[member].backbones}
    assert len(ticks) == 3


@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_ensemble_of_the_same_is_recalled_bit_for_bit(name, members, tmp_path, monkeypatch):
    predictions, labels = members
    ticks: list[int] = []

    def run() -> Combined:
        store, keys = FitStore(tmp_path, 10**9), FitKeys(inputs_of(labels))
        found = combine([name], predictions, labels, [FOLDS], 1, lambda: ticks.append(1), store, keys)[name]
        assert (store.reused, store.made) == (0, 0)  # fits are counted, not these
        return found

    first = run()
    assert list(tmp_path.iterdir()) == []
    content = first.fitted.content
    monkeypatch.setattr(type(ENSEMBLES[name].make()), "fit", None)
    second = run()
    assert len(ticks) == 2
    assert second.fitted.content == content
    np.testing.assert_array_equal(first.prediction.by_repeat, second.prediction.by_repeat)
    np.testing.assert_array_equal(first.prediction.test_by_fit, second.prediction.test_by_fit)
    for what in ("seconds", "backbones", "shares", "converged"):
        assert getattr(first.prediction, what) == getattr(second.prediction, what)
    rows = np.random.default_rng(2).random((5, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(first.fitted.predict_proba(rows), second.fitted.predict_proba(rows))


def test_an_ensemble_of_anything_else_is_made_again(members, tmp_path, monkeypatch):
    predictions, labels = members

    def count(members=predictions, labels=labels, folds=FOLDS) -> int:
        keys = FitKeys(inputs_of(labels))
        assert combine(["mean"], members, labels, [folds], 1, lambda: None, store, keys)["mean"].fitted.content
        return len(list(tmp_path.iterdir()))

    store = FitStore(tmp_path, 10**9)
    assert [count(), count()] == [1, 1]
    m0 = predictions["m0"]
    changed = [np.nextafter(p, np.float32(2)) for p in (m0.by_repeat, m0.test_by_fit)]
    others = [
        replace(m0, by_repeat=changed[0]), replace(m0, test_by_fit=changed[1]), replace(m0, backbones=("gamma",)),
    ]  # fmt: skip
    assert [count({**predictions, "m0": other}) for other in others] == [2, 3, 4]
    assert count({"renamed": m0, **predictions}) == 5
    assert count({name: replace(p, test_by_fit=None) for name, p in predictions.items()}) == 6
    assert count(labels=labels ^ 1) == 7
    assert count(folds=replace(FOLDS, fold_of_row=FOLDS.fold_of_row[::-1].copy())) == 8
    for number, params in enumerate(({}, {"bags": 3})):
        monkeypatch.setitem(ENSEMBLES, "mean", SecondLevel("", "GreedySelection", params))
        assert count() == 9 + number
    read = Path.read_bytes
    for number, module in enumerate(COMBINING):
        path = ROOM / f"{module.replace('.', '/')}.py"
        monkeypatch.setattr(Path, "read_bytes", lambda self, path=path: read(self) + b"#" * (self == path))
        assert count() == 11 + number


def test_no_ensemble_asked_for_is_none_made(members):
    predictions, labels = members
    assert combine([], predictions, labels, [FOLDS], 1, lambda: None) == {}


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
        made, fitted = combine([name], of_fits, labels, [FOLDS], 1, lambda: None)[name]
        alone = [fitted.predict_proba(fit) for fit in fits]
    np.testing.assert_array_equal(made.test_by_fit, alone)
    np.testing.assert_allclose(made.test, np.mean(alone, axis=0), rtol=1e-6)
    together = fits[:, :, :, 0] if name in CALIBRATIONS else fits
    of_mean = fitted.predict_proba(together.mean(axis=0))
    assert np.abs(made.test - of_mean).max() > 1e-4


def test_without_test_rows_there_are_no_test_probabilities(members):
    predictions, labels = members
    lone = {name: Prediction(p.by_repeat, None) for name, p in predictions.items()}
    assert combine(["weights"], lone, labels, [FOLDS], 1, lambda: None)["weights"].prediction.test is None
    assert calibrate("platt", lone["m0"], labels, [FOLDS])[0].test is None
