"""Resamples are of whole groups, as many as there are, and the same for the same seed."""

import numpy as np
import pytest

from classify.scores.resampling import resample


def test_first_the_rows_as_they_are_then_draws_of_as_many_units():
    drawn = resample(7, None, seed=1, draws=50)
    assert drawn.weights.shape == (51, 7)
    assert (drawn.weights[0] == 1).all()
    np.testing.assert_array_equal(drawn.weights.sum(axis=1), 7)
    assert len(np.unique(drawn.weights, axis=0)) > 40


def test_a_unit_is_drawn_as_often_as_another():
    counts = resample(20, None, seed=2, draws=5000).weights[1:]
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=5 * np.sqrt((1 - 1 / 20) / 5000))
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 20) ** 20, abs=0.01)  # the share that a bootstrap leaves out


def test_rows_of_a_group_come_and_go_together():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    drawn = resample(6, groups, seed=0, draws=30)
    assert drawn.unit_count == 3
    weights = drawn.weights[:, drawn.unit_of_row]
    for name in "abc":
        assert (np.ptp(weights[:, groups == name], axis=1) == 0).all()
    assert {float(total) for total in weights.sum(axis=1)} > {6.0}  # groups differ in size, so draws do


def test_sums_are_those_of_explicit_rows():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    quantities = np.random.default_rng(0).normal(size=(6, 2))
    drawn = resample(6, groups, seed=3, draws=9)
    for weights, sums in zip(drawn.weights, drawn.sum(quantities), strict=True):
        rows = np.repeat(np.arange(6), weights[drawn.unit_of_row].astype(int))
        np.testing.assert_allclose(sums, quantities[rows].sum(axis=0))


def test_equal_seeds_give_equal_draws_and_others_others():
    first, again, other = (resample(9, None, seed, 5).weights for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
