"""Greedy selection: the best that each step could take, in bags that let one fold's chance not decide."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from classify.ensembles.crossfit import cross_fit_second_level
from classify.ensembles.estimators import GreedySelection
from features.folds.folds import make_folds


def make_members(seed: int, noises: tuple[float, ...], rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (rows, 2)).astype(np.uint8)
    z = [2.0 * labels - 1 + noise * rng.normal(size=labels.shape) for noise in noises]
    return (1 / (1 + np.exp(-np.stack(z, axis=2)))).astype(np.float32), labels


def lone_bag(**choices) -> GreedySelection:
    """The selection of 2004: one among all models."""
    return GreedySelection(bags=1, share=1.0, **choices)


def mean_auc_of(X, y, selection) -> float:
    """By scikit-learn, the macro ROC-AUC of the mean of the models of a selection, repeats counted."""
    return roc_auc_score(y, X[:, :, list(selection)].astype(float).mean(axis=2), average="macro")


def brute_force(X: np.ndarray, y: np.ndarray, steps: int, patience: int) -> list[int]:
    """Select as the docstring says, by scikit-learn's AUC of every candidate."""
    selection: list[int] = []
    values: list[float] = []
    while len(selection) < steps and len(selection) - (int(np.argmax(values)) + 1 if values else 1) < patience:
        candidates = [round(mean_auc_of(X, y, [*selection, member]), 6) for member in range(X.shape[2])]
        selection.append(int(np.argmax(candidates)))
        values.append(max(candidates))
    return selection[: int(np.argmax(values)) + 1]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(8, 30), models=st.integers(1, 5), patience=st.integers(1, 3))
def test_one_bag_of_all_models_is_brute_force(seed, rows, models, patience):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, (rows, 2)).astype(np.uint8)
    y[0], y[1] = 0, 1
    X = rng.permuted(np.tile(np.arange(rows)[:, None, None], (1, 2, models)), axis=0).astype(np.float32) / 32
    expected = brute_force(X, y, 6, patience)
    np.testing.assert_array_equal(lone_bag(steps=6, patience=patience).fit(X, y).selections_[0], expected)


def test_every_bag_is_the_selection_of_its_own_models_and_the_weights_are_their_mean():
    X, y = make_members(0, (2.0, 2.0, 2.2, 3.0, 4.0))
    model = GreedySelection(bags=30).fit(X, y)
    possible = {}  # a bag holds 3 of 5 models
    for bag in itertools.combinations(range(5), 3):
        possible[tuple(np.array(bag)[brute_force(X[:, :, bag], y, 25, 3)])] = bag
    found = [tuple(selection) for selection in model.selections_]
    assert len(found) == 30
    assert set(found) <= set(possible)
    assert len(set(found)) >= 5
    shares = [[selection.count(member) / len(selection) for member in range(5)] for selection in found]
    np.testing.assert_allclose(model.weights_, np.mean(shares, axis=0), rtol=1e-12)
    assert model.weights_.sum() == pytest.approx(1)
    np.testing.assert_allclose(model.predict_proba(X), X.astype(float) @ model.weights_, rtol=1e-5)


def test_the_selection_is_better_than_its_best_member_where_they_err_apart():
    X, y = make_members(1, (2.0, 2.0, 2.0))
    lone = max(mean_auc_of(X, y, [member]) for member in range(3))
    for model in (GreedySelection(), lone_bag()):
        assert roc_auc_score(y, model.fit(X, y).predict_proba(X)) > lone + 0.02


def test_a_model_that_nothing_improves_stays_alone_and_the_first_of_equals_is_taken():
    X, y = make_members(2, (0.1, 5.0))
    np.testing.assert_array_equal(GreedySelection().fit(X, y).weights_, [1, 0])  # of two models every bag holds both
    np.testing.assert_array_equal(lone_bag().fit(X[:, :, [0, 0, 0]], y).weights_, [1, 0, 0])


def test_it_passes_over_a_plateau_but_not_for_ever():
    X, y = make_members(4, (2.0, 2.0, 2.0, 2.0, 2.0))
    long, short = (lone_bag(patience=patience).fit(X, y).selections_[0] for patience in (8, 1))
    assert mean_auc_of(X, y, long) > mean_auc_of(X, y, short) + 0.002
    assert len(long) > len(short)
    assert len(lone_bag(steps=2).fit(X, y).selections_[0]) <= 2


def test_labels_of_one_value_have_no_say():
    X, y = make_members(5, (3.0, 2.0, 1.0))
    constant = np.column_stack([y, np.zeros(len(y), np.uint8)])
    longer = np.concatenate([X, X[::-1, :1]], axis=1)
    np.testing.assert_array_equal(
        GreedySelection().fit(longer, constant).weights_, GreedySelection().fit(X, y).weights_
    )
    assert GreedySelection().fit(X, np.ones_like(y)).weights_.sum() == pytest.approx(1)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    X, y = make_members(6, tuple(np.linspace(2, 3, 8)))
    first, again, other = (GreedySelection(seed=seed).fit(X, y).weights_ for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_bags_keep_the_folds_of_a_rare_label_comparable_where_one_selection_does_not():
    # Models of like quality and of scales that differ tenfold; a label with few positives, so that chance selects.
    bagged, single, mean = [], [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y = (rng.random((400, 1)) < 0.06).astype(np.uint8)
        z = 1.5 * y[:, :, None] + rng.normal(size=(400, 1, 12))
        X = (1 / (1 + np.exp(3 - z * rng.choice([0.3, 1, 3], 12)))).astype(np.float32)
        folds = make_folds(y, None, ("rare",), 5, seed)
        for model, aucs in ((GreedySelection(), bagged), (lone_bag(), single)):
            aucs.append(roc_auc_score(y, cross_fit_second_level(model, X[None], y, [folds], None)[0].out_of_fold))
        mean.append(np.mean([roc_auc_score(y, X[:, 0, member]) for member in range(12)]))
    assert np.mean(bagged) > np.mean(single) + 0.03  # 0.996 and 0.944
    assert np.mean(bagged) > np.mean(mean) + 0.1
