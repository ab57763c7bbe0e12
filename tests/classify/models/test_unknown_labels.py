"""Baselines, ensembles and calibrations learn each label from the rows where it is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

from classify.ensembles.estimators import (
    GreedySelection,
    IsotonicCalibration,
    NonNegativeWeights,
    SigmoidCalibration,
    Stacking,
)
from classify.models.estimators import OneVsRest, PlattScaledSVM, Prior
from classify.models.linear import PenalisedLogistic, RidgeRegression
from features.common.arrays import UNKNOWN

ROWS, WIDTH = 120, 8


@pytest.fixture(scope="module")
def rows():
    """Features, and labels of which the first two are known of the same rows, the third of others, the last of all."""
    rng = np.random.default_rng(1)
    X = rng.normal(2, 3, size=(ROWS, WIDTH)).astype(np.float32)
    y = (X[:, :4] + rng.normal(0, 3, size=(ROWS, 4)) > 2).astype(np.uint8)
    y[rng.random(ROWS) < 0.4, :2] = UNKNOWN
    y[rng.random(ROWS) < 0.6, 2] = UNKNOWN
    return X, y, np.array([f"g{row}" for row in rng.integers(0, 30, ROWS)])


def known_rows(y):
    return enumerate((y != UNKNOWN).T)


@pytest.mark.parametrize("classifier", [KNeighborsClassifier(5), PlattScaledSVM(C=1e-2)])
def test_one_vs_rest_fits_the_known_rows(classifier, rows):
    X, y, groups = rows
    model = OneVsRest(classifier).fit(X, y, groups)
    seen = (X - model.scaler_.mean_) / model.scaler_.scale_
    for label, own in known_rows(y):
        grouped = {"groups": groups[own]} if isinstance(classifier, PlattScaledSVM) else {}
        alone = type(classifier)(**classifier.get_params()).fit(seen[own], y[own, label], **grouped)
        np.testing.assert_allclose(model.predict_proba(X)[:, label], alone.predict_proba(seen)[:, 1], atol=1e-6)


def test_too_few_known_rows_give_laplaces_probability(rows):
    X, y, _ = rows
    few = y.copy()
    few[np.flatnonzero(few[:, 2] == 0)[1:], 2] = UNKNOWN
    positives = (few[:, 2] == 1).sum()
    model = OneVsRest(KNeighborsClassifier(3), least=3).fit(X, few)
    assert model.classifiers_[2] == (positives + 1) / (positives + 1 + 2)
    np.testing.assert_allclose(Prior().fit(X, few).shares_[2], (positives + 1) / (positives + 1 + 2))


def test_logistic_regression_of_the_known_rows_is_that_of_scikit_learn(rows):
    X, y, groups = rows
    model = PenalisedLogistic().fit(X, y, groups)
    seen = (X - model.mean_) / model.scale_
    for label, own in known_rows(y):
        alone = LogisticRegression(C=model.C_, tol=1e-10, max_iter=5000).fit(seen[own], y[own, label])
        np.testing.assert_allclose(model.coef_[:, label], alone.coef_[0], atol=2e-3)
        np.testing.assert_allclose(model.predict_proba(X)[:, label], alone.predict_proba(seen)[:, 1], atol=1e-3)


def test_ridge_regression_of_the_known_rows_is_that_of_scikit_learn(rows):
    X, y, groups = rows
    model = RidgeRegression().fit(X, y, groups)
    seen = (X - model.mean_) / model.scale_
    for label, own in known_rows(y):
        alone = Ridge(alpha=model.penalty_[label]).fit(seen[own], y[own, label])
        np.testing.assert_allclose(model.coef_[:, label], alone.coef_, atol=1e-6)
        np.testing.assert_allclose(model.intercept_[label], alone.intercept_, atol=1e-6)


def test_a_label_that_is_not_known_of_any_row_has_a_probability_of_a_half(rows):
    X, y, groups = rows
    nothing = y.copy()
    nothing[:, 1] = UNKNOWN
    for model in (PenalisedLogistic(), RidgeRegression(), OneVsRest(KNeighborsClassifier(3)), Prior()):
        np.testing.assert_allclose(model.fit(X, nothing, groups).predict_proba(X)[:, 1], 0.5)
    p = np.full((ROWS, 4), 0.3, np.float32)
    assert SigmoidCalibration().fit(p, nothing).predict_proba(p)[0, 1] == pytest.approx(0.3)
    assert IsotonicCalibration().fit(p, nothing).predict_proba(p)[0, 1] == pytest.approx(0.5)


def test_ensembles_and_calibrations_learn_from_known_cells(rows):
    _, y, _ = rows
    rng = np.random.default_rng(2)
    members = np.clip(rng.normal(0.3 + 0.3 * (y == 1)[:, :, None], (0.2, 0.4, 0.6), (*y.shape, 3)), 0.01, 0.99)
    members = members.astype(np.float32)
    cells = y != UNKNOWN
    flat = members[cells][:, None], y[cells][:, None]
    weights = NonNegativeWeights().fit(members, y).weights_
    np.testing.assert_allclose(weights, NonNegativeWeights().fit(*flat).weights_, atol=1e-12)
    stacked = Stacking().fit(members, y)
    for label, own in known_rows(y):
        of_known = members[own, label][:, None], y[own, label][:, None]
        np.testing.assert_allclose(stacked.coef_[label], Stacking().fit(*of_known).coef_[0], atol=1e-6)
        for calibration in (SigmoidCalibration(), IsotonicCalibration()):
            together = calibration.fit(members[:, :, 0], y).predict_proba(members[:, :, 0])[:, label]
            alone = calibration.fit(of_known[0][:, :, 0], of_known[1]).predict_proba(members[:, label, :1])[:, 0]
            np.testing.assert_allclose(together, alone, atol=1e-7)
    swapped = np.where(cells[:, :, None], members, 1 - members)  # under the mask the best model is the worst
    assert (GreedySelection().fit(swapped, y).weights_ == GreedySelection().fit(members, y).weights_).all()
