"""Greedy selection: what each step takes is the best that it could take."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from classify.greedy import GreedySelection, macro_auc


def make_members(seed: int, noises: tuple[float, ...], rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (rows, 2)).astype(np.uint8)
    z = [2.0 * labels - 1 + noise * rng.normal(size=labels.shape) for noise in noises]
    return (1 / (1 + np.exp(-np.stack(z, axis=2)))).astype(np.float32), labels


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 30), levels=st.sampled_from([3, 1000]))
def test_macro_auc_is_scikit_learns(seed, rows, levels):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (rows, 2)).astype(np.uint8)
    labels[0], labels[1] = 0, 1
    scores = rng.integers(0, levels, (rows, 2)) / levels
    assert macro_auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores, average="macro"))


def test_macro_auc_leaves_out_labels_of_one_value():
    labels, scores = np.array([[0, 1], [1, 1]], np.uint8), np.array([[0.1, 0.2], [0.3, 0.1]])
    assert macro_auc(scores, labels) == 1
    assert macro_auc(scores, np.ones((2, 2), np.uint8)) == 0.5


def test_each_step_takes_the_best_model_given_those_taken():
    X, y = make_members(0, (2.0, 2.0, 2.2, 4.0))
    model = GreedySelection().fit(X, y)
    assert len(model.selection_) > 2
    for step, taken in enumerate(model.selection_):
        before = list(model.selection_[:step])
        values = [roc_auc_score(y, X[:, :, [*before, member]].astype(float).mean(axis=2)) for member in range(4)]
        assert values[taken] == pytest.approx(max(values), abs=1e-9)
    shares = np.bincount(model.selection_, minlength=4) / len(model.selection_)
    np.testing.assert_array_equal(model.weights_, shares)
    np.testing.assert_allclose(model.predict_proba(X), X[:, :, model.selection_].mean(axis=2), rtol=1e-5)


def test_the_selection_is_no_worse_than_its_best_member_and_better_where_they_err_apart():
    X, y = make_members(1, (2.0, 2.0, 2.0))
    lone = max(roc_auc_score(y, X[:, :, member]) for member in range(3))
    assert roc_auc_score(y, GreedySelection().fit(X, y).predict_proba(X)) > lone + 0.02


def test_a_model_that_nothing_improves_stays_alone_and_the_first_of_equals_is_taken():
    X, y = make_members(2, (0.1, 5.0))
    np.testing.assert_array_equal(GreedySelection().fit(X, y).selection_, [0])
    np.testing.assert_array_equal(GreedySelection().fit(X[:, :, [0, 0, 0]], y).weights_, [1, 0, 0])


def test_it_passes_over_a_plateau_but_not_for_ever():
    X, y = make_members(4, (2.0, 2.0, 2.0, 2.0, 2.0))
    long, short = (GreedySelection(patience=patience).fit(X, y) for patience in (8, 1))
    assert macro_auc(long.predict_proba(X), y) > macro_auc(short.predict_proba(X), y) + 0.002
    assert len(long.selection_) > len(short.selection_)
    assert len(GreedySelection(steps=2).fit(X, y).selection_) <= 2
