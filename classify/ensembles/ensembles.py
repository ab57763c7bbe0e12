"""Combine the probabilities of several models, whatever they are: means, weights, stacking.

Each ensemble is an estimator whose features are float32 probabilities (N, L, K) of K models. Its `weights_`, float64
array (K,), at least 0 and of sum 1, say what share each model has; a `Stacking` has coefficients per label instead.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.base import BaseEstimator

from classify.ensembles.calibration import to_logit
from classify.ensembles.greedy import GreedySelection
from features.common.errors import InputError


def mean_ensemble(members: Sequence[np.ndarray]) -> np.ndarray:
    """Average the probabilities of several models.

    Args:
        members: at least one float32 array (N, L), 0-1; the same rows and labels in all of them.

    Returns:
        float32 array (N, L), 0-1. The sum is taken in float64.
    """
    return np.stack(members).mean(axis=0, dtype=np.float64).astype(np.float32)


class Mean(BaseEstimator):
    """The mean of the probabilities."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Mean":
        """Note the number of models; X (N, L, K), y (N, L)."""
        self.weights_ = np.full(X.shape[2], 1 / X.shape[2])
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give float32 (N, L) for X (N, L, K)."""
        return mean_ensemble(list(np.moveaxis(X, 2, 0)))


class LogitMean(Mean):
    """The mean of the logits: the geometric mean of the odds."""

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give float32 (N, L) for X (N, L, K)."""
        return expit(to_logit(X).mean(axis=2)).astype(np.float32)


class RankMean(Mean):
    """The mean of the ranks, for models whose probabilities are of different scale.

    A rank is a probability's place among those that `fit` saw, so that the prediction of an image does not hang on the
    other images that are predicted with it. The mean rank becomes a probability again by the mean of the models' own
    quantiles at that rank. No label has a part in this, so that the folds of a rare label do not drift apart, as they
    do with a fitted scale.

    Attributes:
        reference_: float32 array (N, L, K), sorted along N.
    """

    def fit(self, X: np.ndarray, y: np.ndarray) -> "RankMean":
        """Learn the places from X (N, L, K), 0-1; y (N, L) is not read."""
        self.reference_ = np.sort(X, axis=0)
        return super().fit(X, y)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give float32 (N, L) for X (N, L, K)."""
        rows, labels, models = self.reference_.shape
        places = np.empty(X.shape)
        for label, model in np.ndindex(labels, models):
            reference, column = self.reference_[:, label, model], X[:, label, model]
            below, up_to = (np.searchsorted(reference, column, side) for side in ("left", "right"))
            places[:, label, model] = (below + up_to - 1) / 2  # the middle of a tie; 0 is the lowest row's own place
        mean_place = places.mean(axis=2)
        quantiles = self.reference_.mean(axis=2, dtype=np.float64)
        columns = [np.interp(mean_place[:, label], np.arange(rows), quantiles[:, label]) for label in range(labels)]
        return np.column_stack(columns).astype(np.float32)


class NonNegativeWeights(BaseEstimator):
    """A weighted mean of the probabilities with the least log loss over all labels; weights at least 0, of sum 1.

    That is the likelihood of a mixture with known components, so expectation-maximisation climbs to its only maximum.
    There, no model's mean ratio of its own likelihood to the mixture's is above 1; and that ratio less 1 bounds what is
    still to be gained, so it is the stopping rule.

    Args:
        tolerance: the log loss that may be left to gain.
        max_iter: steps at most.

    Attributes:
        weights_: float64 array (K,).
        gap_: a bound on the log loss that is left to gain.
    """

    def __init__(self, tolerance: float = 1e-4, max_iter: int = 2000) -> None:
        self.tolerance = tolerance
        self.max_iter = max_iter

    def fit(self, X: np.ndarray, y: np.ndarray) -> "NonNegativeWeights":
        """Learn from X (N, L, K), 0-1, and y (N, L)."""
        p = np.clip(X.astype(np.float64), 1e-7, 1 - 1e-7)
        likelihood = np.ascontiguousarray(np.where(y[:, :, None] == 1, p, 1 - p).reshape(-1, X.shape[2]))
        self.weights_ = np.full(X.shape[2], 1 / X.shape[2])
        for _ in range(self.max_iter):
            ratios = (1 / (likelihood @ self.weights_)) @ likelihood / len(likelihood)
            self.gap_ = float(ratios.max() - 1)
            if self.gap_ < self.tolerance:
                break
            self.weights_ = self.weights_ * ratios
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give float32 (N, L) for X (N, L, K)."""
        return (X @ self.weights_).astype(np.float32)


class Stacking(BaseEstimator):
    """A logistic regression per label on the logits of that label, with coefficients of at least 0 and no intercept.

    The L2 penalty draws the coefficients to those of the logit mean, 1 / K, not to 0. They may not be negative (Breiman
    1996): free ones turn a model round that chance made look wrong, and as out-of-fold probabilities of different folds
    are not independent, that lifts labels without any signal to a cross-fitted macro AUC of 0.53 (mean of 100
    permutations of 500 rows); these do not. An intercept would set the folds of a rare label against each other.

    Args:
        C: the inverse of the strength of the penalty, above 0. The default is chosen by measurement: of 0.0001 to 1, it
            is within 0.002 of the best macro ROC-AUC of 600 phantom slices, at two seeds of the folds.

    Attributes:
        coef_: float64 array (L, K), at least 0.
    """

    def __init__(self, C: float = 0.1) -> None:
        self.C = C

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Stacking":
        """Learn from X (N, L, K), 0-1, and y (N, L)."""
        logits = to_logit(X)
        start = np.full(X.shape[2], 1 / X.shape[2])
        coefficients = []
        for label, truth in enumerate(y.T):
            z = np.ascontiguousarray(logits[:, label])

            def loss(w: np.ndarray, z: np.ndarray = z, truth: np.ndarray = truth) -> tuple[float, np.ndarray]:
                combined, away = z @ w, w - start
                value = np.sum(np.logaddexp(0, combined) - truth * combined) + away @ away / (2 * self.C)
                return value, (expit(combined) - truth) @ z + away / self.C

            coefficients.append(minimize(loss, start, jac=True, bounds=[(0, None)] * len(start)).x)
        self.coef_ = np.array(coefficients)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give float32 (N, L) for X (N, L, K)."""
        return expit(np.einsum("nlk,lk->nl", to_logit(X), self.coef_)).astype(np.float32)


#: By name, from the simplest to the least simple: a tie in the selection goes to the first.
ENSEMBLES: dict[str, BaseEstimator] = {
    "mean": Mean(),
    "logit_mean": LogitMean(),
    "rank_mean": RankMean(),
    "weights": NonNegativeWeights(),
    "greedy": GreedySelection(),
    "stacking": Stacking(),
}


def choose_ensembles(names: Sequence[str] | None) -> tuple[str, ...]:
    """Put the ensembles asked for into the order of `ENSEMBLES`.

    Args:
        names: as given to `--ensemble`; None for all; `none` alone for none.

    Raises:
        InputError: a name is not known; the message lists the known ones.
    """
    if names is None:
        return tuple(ENSEMBLES)
    if tuple(names) == ("none",):
        return ()
    unknown = [name for name in names if name not in ENSEMBLES]
    if unknown:
        raise InputError(
            f"--ensemble {','.join(names)!r}: {unknown[0]} is no ensemble. Expected {', '.join(ENSEMBLES)}; or none."
        )
    return tuple(name for name in ENSEMBLES if name in names)
