"""The power law finds the curve that scores were made from, and says where it cannot tell."""

import numpy as np

from classify.rundir.learning_curve import describe_curve
from classify.scores.learning import REACH, make_curve

GROUPS = np.array([20.0, 35, 50, 70, 100])


def curve_of(noise: float, floor: float = 0.1, slope: float = 1.5, exponent: float = 0.8, seed: int = 0):
    rng = np.random.default_rng(seed)
    true = 1 - floor - slope * GROUPS**-exponent
    return make_curve(GROUPS, true[:, None] + noise * rng.normal(size=(5, 501)))


def test_without_noise_the_law_is_found():
    curve = curve_of(1e-6)
    for point in curve.law:
        assert abs(point.value - (0.9 - 1.5 * point.groups**-0.8)) < 2e-3
    assert curve.law[-1].groups == REACH * 100
    gain = 1.5 * (100**-0.8 - 200**-0.8)
    assert abs(curve.gain.value - gain) < 2e-3
    assert abs(curve.rise.value - 1.5 * (50**-0.8 - 100**-0.8)) < 1e-4
    assert not curve.says_nothing


def test_with_much_noise_it_says_that_it_cannot_tell():
    curve = curve_of(0.1)
    assert curve.says_nothing
    assert curve.doubts_rise
    said = f"beside an error of {1 - curve.measured[-1].value:.3f} the band of that rise is too wide"
    assert said in describe_curve(curve, "patient")[-1]
    assert curve.gain.low <= 1.5 * (100**-0.8 - 200**-0.8) <= curve.gain.high


def test_a_flat_curve_promises_nothing():
    curve = curve_of(1e-4, slope=0.0)
    assert curve.gain.value < 1e-3
    assert curve.gain.high < 2e-3


def test_draws_without_a_value_are_left_out():
    draws = np.tile(0.9 - 1.5 * GROUPS[:, None] ** -0.8, (1, 5))
    draws[2, 3] = np.nan
    curve = make_curve(GROUPS, draws)
    assert curve.measured[2].low == curve.measured[2].value
