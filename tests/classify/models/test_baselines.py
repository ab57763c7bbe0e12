"""The logistic baseline agrees with scikit-learn's pipeline, and survives constants."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from classify.models.baselines import BASELINES
from classify.models.estimators import OneVsRest


def logistic(**params) -> OneVsRest:
    """The baseline, its classifier changed where that is asked for."""
    return BASELINES["logistic"].make().set_params(**{f"classifier__{name}": value for name, value in params.items()})


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(120, 10)) * np.logspace(-2, 2, 10) + 3).astype(np.float32)
    standardised = (X - X.mean(axis=0)) / X.std(axis=0)
    y = (standardised[:, :3] + rng.normal(size=(120, 3)) > (-0.5, 0, 1)).astype(np.uint8)
    return X, y


def test_agrees_with_a_pipeline_per_label(rows):
    X, y = rows
    probabilities = logistic(C=0.1).fit(X, y).predict_proba(X)
    for label in range(3):
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8, max_iter=5000))
        expected = pipeline.fit(X.astype(np.float64), y[:, label]).predict_proba(X.astype(np.float64))[:, 1]
        np.testing.assert_allclose(probabilities[:, label], expected, atol=1e-3)  # L-BFGS stops at 1e-4
    assert probabilities.dtype == np.float32


def test_the_gradient_of_the_penalised_loss_vanishes(rows):
    X, y = rows
    model = logistic(C=0.01).fit(X, y)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    coefficients = np.column_stack([fitted.coef_[0] for fitted in model.classifiers_])
    residual = model.predict_proba(X) - y
    np.testing.assert_allclose(Z.T @ residual + coefficients / 0.01, 0, atol=0.02)
    np.testing.assert_allclose(residual.sum(axis=0), 0, atol=0.02)


@pytest.mark.parametrize(("value", "expected"), [(0, 1 / 122), (1, 121 / 122)])
def test_a_constant_label_gets_laplaces_probability(rows, value, expected):
    X, y = rows
    labels = y.copy()
    labels[:, 2] = value
    with_constant = logistic().fit(X, labels).predict_proba(X)
    np.testing.assert_allclose(with_constant[:, 2], expected, rtol=1e-5)
    np.testing.assert_array_equal(with_constant[:, :2], logistic().fit(X, y).predict_proba(X)[:, :2])


def test_a_constant_feature_changes_nothing(rows):
    X, y = rows
    padded = np.column_stack([X, np.full(len(X), 0.1, np.float32)])
    expected = logistic().fit(X, y).predict_proba(X)
    np.testing.assert_allclose(logistic().fit(padded, y).predict_proba(padded), expected, atol=1e-6)


def test_a_solver_that_stops_early_is_not_called_converged(rows):
    X, y = rows
    assert logistic(C=1.0).fit(X, y).converged_
    with pytest.warns(UserWarning, match="failed to converge"):
        assert not logistic(C=1.0, max_iter=1).fit(X, y).converged_


def test_keeps_the_contract_of_an_estimator(rows):
    X, y = rows
    before = X.copy(), y.copy()
    model = clone(logistic(C=0.5, max_iter=77))
    assert (model.classifier.C, model.classifier.max_iter) == (0.5, 77)
    assert model.fit(X, y) is model
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])
