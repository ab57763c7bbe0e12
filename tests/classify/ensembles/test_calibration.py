"""Calibrators recover what was done to probabilities, and keep their order."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from classify.ensembles.ensembles import CALIBRATIONS
from classify.ensembles.estimators import SigmoidCalibration


@pytest.fixture
def bent() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too sure by a factor of 2 and, of the second label, too high by 1 on the logit."""
    rng = np.random.default_rng(0)
    p = expit(rng.normal(size=(4000, 2)))
    labels = (rng.random(p.shape) < p).astype(np.uint8)
    return expit(2 * logit(p) + [0, 1]).astype(np.float32), labels


def test_platt_undoes_slope_and_shift(bent):
    model = SigmoidCalibration().fit(*bent)
    np.testing.assert_allclose(model.slope_, 0.5, atol=0.05)
    np.testing.assert_allclose(model.intercept_, [0, -0.5], atol=0.1)


def test_platt_agrees_with_an_unpenalised_logistic_regression(bent):
    p, labels = bent
    model = SigmoidCalibration().fit(p, labels)
    for label in range(2):
        x = logit(p[:, [label]].astype(np.float64))
        expected = LogisticRegression(C=np.inf, tol=1e-10).fit(x, labels[:, label])
        # Platt's targets differ from 0 and 1 by 1 / 2000 or so.
        np.testing.assert_allclose([model.slope_[label]], expected.coef_[0], rtol=0.005)
        np.testing.assert_allclose(
            model.predict_proba(p)[:, label], expected.predict_proba(x)[:, 1], atol=0.002, rtol=0
        )


def test_platts_targets_are_met_on_average(bent):
    p, labels = bent
    calibrated = SigmoidCalibration().fit(p, labels).predict_proba(p)
    n1, n0 = labels.sum(axis=0), (1 - labels).sum(axis=0)
    targets = (n1 * (n1 + 1) / (n1 + 2) + n0 / (n0 + 2)) / len(labels)
    np.testing.assert_allclose(calibrated.mean(axis=0), targets, atol=1e-5)


def test_temperature_has_no_shift(bent):
    model = CALIBRATIONS["temperature"].make().fit(*bent)
    assert model.slope_[0] == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(model.intercept_, 0)
    half = np.full((1, 2), 0.5, np.float32)
    np.testing.assert_allclose(model.predict_proba(half), 0.5)


def test_isotonic_is_scikit_learns_but_never_0_or_1(bent):
    p, labels = bent
    model = CALIBRATIONS["isotonic"].make().fit(p, labels)
    for label in range(2):
        expected = IsotonicRegression(out_of_bounds="clip").fit(p[:, label], labels[:, label]).predict(p[:, label])
        got = model.predict_proba(p)[:, label]
        np.testing.assert_allclose(got, np.clip(expected, 1 / 4002, 4001 / 4002), atol=1e-6)
    outside = model.predict_proba(np.array([[0.0, 1.0]], np.float32))
    assert ((outside > 0) & (outside < 1)).all()


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_the_order_of_probabilities_is_kept_even_where_labels_go_against_it(name, bent):
    p, labels = bent
    fitted = CALIBRATIONS[name].make().fit(p, 1 - labels)
    grid = np.linspace(0, 1, 50, dtype=np.float32)[:, None].repeat(2, axis=1)
    steps = np.diff(fitted.predict_proba(grid), axis=0)
    assert (steps >= 0).all()
    assert name == "isotonic" or (steps > 0).all()


@pytest.mark.parametrize("name", CALIBRATIONS)
@pytest.mark.parametrize("value", [0, 1])
def test_a_label_of_one_value_gets_neither_0_nor_1(name, value):
    p = np.random.default_rng(0).random((50, 1)).astype(np.float32)
    calibrated = CALIBRATIONS[name].make().fit(p, np.full((50, 1), value, np.uint8)).predict_proba(p)
    assert calibrated.dtype == np.float32
    assert ((calibrated > 0) & (calibrated < 1)).all()
