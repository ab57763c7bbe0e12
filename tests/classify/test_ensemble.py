"""The mean of probabilities."""

import numpy as np

from classify.ensemble import mean_ensemble


def test_mean_of_each_cell():
    first = np.array([[0.2, 1.0], [0.0, 0.5]], np.float32)
    second = np.array([[0.4, 0.0], [0.0, 0.75]], np.float32)
    mean = mean_ensemble([first, second])
    np.testing.assert_allclose(mean, [[0.3, 0.5], [0.0, 0.625]], rtol=1e-6)
    assert mean.dtype == np.float32


def test_one_member_is_its_own_mean():
    lone = np.random.default_rng(0).random((5, 3), dtype=np.float32)
    np.testing.assert_array_equal(mean_ensemble([lone]), lone)


def test_sums_in_double_precision():
    members = [np.full((1, 1), 0.1, np.float32)] * 10_000
    assert mean_ensemble(members)[0, 0] == np.float32(0.1)
