"""Ensembles agree with closed forms, learn what they are meant to, and know no image but the one they predict."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from classify.crossfit.plan import mean_probabilities
from classify.ensembles.ensembles import ENSEMBLES
from classify.ensembles.estimators import NonNegativeWeights, RankMean, Stacking


@pytest.fixture
def members() -> tuple[np.ndarray, np.ndarray]:
    """Three models of two labels: one that knows, one that knows less, one that guesses."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, 2))
    labels = (rng.random(z.shape) < expit(2 * z)).astype(np.uint8)
    noise = rng.normal(size=(3, 600, 2))
    logits = np.stack([2 * z + 0.3 * noise[0], z + noise[1], noise[2]], axis=2)
    return expit(logits).astype(np.float32), labels


def test_mean_of_each_cell():
    first = np.array([[0.2, 1.0], [0.0, 0.5]], np.float32)
    second = np.array([[0.4, 0.0], [0.0, 0.75]], np.float32)
    mean = mean_probabilities([first, second])
    np.testing.assert_allclose(mean, [[0.3, 0.5], [0.0, 0.625]], rtol=1e-6)
    assert mean.dtype == np.float32


def test_one_member_is_its_own_mean():
    lone = np.random.default_rng(0).random((5, 3), dtype=np.float32)
    np.testing.assert_array_equal(mean_probabilities([lone]), lone)


def test_sums_in_double_precision():
    members = [np.full((1, 1), 0.1, np.float32)] * 10_000
    assert mean_probabilities(members)[0, 0] == np.float32(0.1)


def test_the_logit_mean_is_the_geometric_mean_of_the_odds(members):
    X, y = members
    combined = ENSEMBLES["logit_mean"].make().fit(X, y).predict_proba(X)
    odds = (X / (1 - X.astype(np.float64))).prod(axis=2) ** (1 / 3)
    np.testing.assert_allclose(combined, odds / (1 + odds), rtol=1e-5)


def test_the_rank_mean_orders_as_scipys_ranks_and_heeds_no_scale(members):
    X, y = members
    combined = RankMean().fit(X, y).predict_proba(X)
    for label in range(2):
        ranks = rankdata(X[:, label], axis=0).mean(axis=1)
        np.testing.assert_allclose(rankdata(combined[:, label]), rankdata(ranks), atol=1)
        assert (np.diff(combined[np.argsort(ranks), label]) >= 0).all()
    squared = RankMean().fit(X**2, y).predict_proba(X**2)
    np.testing.assert_array_equal(squared.argsort(axis=0, kind="stable"), combined.argsort(axis=0, kind="stable"))


def test_the_rank_mean_gives_a_tie_its_middle_rank(members):
    X, y = np.round(members[0], 1), members[1]
    combined = RankMean().fit(X, y).predict_proba(X)
    ranks = np.mean([rankdata(X[:, 0, model], method="average") for model in range(3)], axis=0)
    assert (np.diff(combined[np.argsort(ranks), 0]) >= 0).all()


def test_the_rank_mean_of_one_model_is_that_model(members):
    X, y = members
    lone = X[:, :, :1]
    np.testing.assert_allclose(RankMean().fit(lone, y).predict_proba(lone), lone[:, :, 0], rtol=1e-6)
    tied = np.round(lone, 1)
    np.testing.assert_allclose(RankMean().fit(tied, y).predict_proba(tied), tied[:, :, 0], rtol=1e-6)


def test_weights_have_the_least_log_loss_of_all_weights(members):
    X, y = members
    model = NonNegativeWeights(tolerance=1e-6, max_iter=20_000).fit(X, y)
    assert model.weights_.sum() == pytest.approx(1)
    assert model.gap_ < 1e-6

    def loss(weights):
        p = np.clip(X.astype(np.float64), 1e-7, 1 - 1e-7) @ weights
        return -np.log(np.where(y == 1, p, 1 - p)).mean()

    found = minimize(
        loss,
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-12},
    )
    assert loss(model.weights_) == pytest.approx(found.fun, abs=2e-6)
    np.testing.assert_allclose(model.weights_, found.x, atol=0.01)
    assert loss(model.weights_) < loss(np.full(3, 1 / 3)) - 0.01


def test_the_bound_on_what_weights_may_still_gain_holds(members):
    X, y = members
    best = NonNegativeWeights(tolerance=1e-7, max_iter=50_000).fit(X, y)
    for steps in (1, 5, 50):
        early = NonNegativeWeights(tolerance=0, max_iter=steps).fit(X, y)
        losses = [-np.log(np.where(y == 1, p, 1 - p)).mean() for p in (early.predict_proba(X), best.predict_proba(X))]
        assert 0 <= losses[0] - losses[1] <= early.gap_ + 1e-6


def test_stacking_without_penalty_is_a_logistic_regression_where_no_coefficient_is_negative(members):
    X, y = members
    model = Stacking(C=1e6).fit(X[:, :, :2], y)
    logits = logit(X[:, :, :2].astype(np.float64))
    for label in range(2):
        expected = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(logits[:, label], y[:, label])
        np.testing.assert_allclose(model.coef_[label], expected.coef_[0], atol=0.005)
        assert (expected.coef_ > 0).all()


def test_stacking_turns_no_model_round_and_leans_on_the_logit_mean(members):
    X, y = members
    against = np.concatenate([X, 1 - X[:, :, :1]], axis=2)
    assert (Stacking(C=1).fit(against, y).coef_ >= 0).all()
    assert (Stacking(C=1).fit(against, y).coef_[:, 3] == 0).all()
    leaning = Stacking(C=1e-9).fit(X, y)
    np.testing.assert_allclose(leaning.coef_, 1 / 3, atol=1e-4)
    mean = ENSEMBLES["logit_mean"].make().fit(X, y).predict_proba(X)
    np.testing.assert_allclose(leaning.predict_proba(X), mean, atol=1e-4)


def test_stacking_weighs_each_label_for_itself(members):
    X, y = members
    crossed = X.copy()
    crossed[:, 1] = X[:, 1, [2, 1, 0]]  # of the second label, it is the last model that knows
    coefficients = Stacking().fit(crossed, y).coef_
    assert coefficients[0].argmax() == 0
    assert coefficients[1].argmax() == 2


@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_image_is_predicted_alike_whatever_is_predicted_with_it(name, members):
    X, y = members
    fitted = ENSEMBLES[name].make().fit(X, y)
    together = fitted.predict_proba(X)
    assert together.dtype == np.float32
    assert together.shape == y.shape
    assert (together >= 0).all()
    assert (together <= 1).all()
    np.testing.assert_allclose(fitted.predict_proba(X[7:8]), together[7:8], rtol=1e-6)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_certain_probabilities_and_labels_of_one_value_end_in_numbers(name):
    X = np.random.default_rng(0).integers(0, 2, (30, 2, 3)).astype(np.float32)
    y = np.column_stack([np.zeros(30), np.arange(30) % 2]).astype(np.uint8)
    combined = ENSEMBLES[name].make().fit(X, y).predict_proba(X)
    assert np.isfinite(combined).all()
