"""Ensembles of K models and calibrations of one: estimators that learn from probabilities.

An ensemble learns from float32 probabilities (N, L, K). Its `weights_`, float64 array (K,), at least 0 and of sum 1,
say what share each model has; a `Stacking` has coefficients per label instead. A calibration learns from (N, L). All
learn from the cells whose truth is known.
"""

import math

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.base import BaseEstimator
from sklearn.isotonic import IsotonicRegression

from classify.bank.auc import mean_auc
from classify.crossfit.plan import mean_probabilities
from classify.models.estimators import fit_line
from features.common.arrays import UNKNOWN, Labels, MemberProbabilities, Probabilities

#: Probabilities of candidates that a step of the greedy selection compares at once, at most: 80 MB.
_CANDIDATES = 20_000_000
#: Probabilities are clipped by this much before a logarithm, as scikit-learn does with float32.
PROBABILITY_EPSILON = float(np.finfo(np.float32).eps)


def to_logit(probabilities: np.ndarray) -> np.ndarray:
    """Turn probabilities of any shape into float64 logits, -16 to 16."""
    return logit(np.clip(probabilities.astype(np.float64), PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON))


class Mean(BaseEstimator):
    """The mean of the probabilities."""

    def fit(self, X: MemberProbabilities, y: Labels) -> "Mean":
        """Note the number of models; y is not read."""
        self.weights_ = np.full(X.shape[2], 1 / X.shape[2])
        return self

    def predict_proba(self, X: MemberProbabilities) -> Probabilities:
        """Combine the probabilities of K models."""
        return mean_probabilities(list(np.moveaxis(X, 2, 0)))


class LogitMean(Mean):
    """The mean of the logits: the geometric mean of the odds."""

    def predict_proba(self, X: MemberProbabilities) -> Probabilities:
        """Combine the probabilities of K models."""
        return expit(to_logit(X).mean(axis=2)).astype(np.float32)


class RankMean(Mean):
    """The mean of the ranks, for models whose probabilities are of different scale.

    A rank is a probability's place among those that `fit` saw, so that no image depends on those predicted with it. The
    mean rank becomes a probability again by the mean of the models' own quantiles at that rank. Labels play no part in
    this, so that the folds of a rare label do not drift apart, as they do with a fitted scale.

    Attributes:
        reference_: float32 array (N, L, K), sorted along N.
    """

    def fit(self, X: MemberProbabilities, y: Labels) -> "RankMean":
        """Learn the places; y is not read."""
        self.reference_ = np.sort(X, axis=0)
        return super().fit(X, y)

    def predict_proba(self, X: MemberProbabilities) -> Probabilities:
        """Combine the probabilities of K models."""
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


class _WeightedMean(BaseEstimator):
    """The mean of the probabilities by learnt `weights_`."""

    def predict_proba(self, X: MemberProbabilities) -> Probabilities:
        """Combine the probabilities of K models."""
        return (X @ self.weights_).astype(np.float32)


class NonNegativeWeights(_WeightedMean):
    """A weighted mean of the probabilities with the least log loss over all labels; weights at least 0, of sum 1.

    That is the likelihood of a mixture with known components, so expectation-maximisation climbs to its only maximum.
    There, no model's mean ratio of its own likelihood to the mixture's is above 1; that ratio less 1 is the stopping
    rule.

    Args:
        tolerance: the log loss that may be left to gain.
        max_iter: steps at most.

    Attributes:
        gap_: a bound on the log loss that is left to gain.
    """

    def __init__(self, tolerance: float = 1e-4, max_iter: int = 2000) -> None:
        self.tolerance = tolerance
        self.max_iter = max_iter

    def fit(self, X: MemberProbabilities, y: Labels) -> "NonNegativeWeights":
        """Learn from the probabilities of K models and the truth."""
        p = np.clip(X.astype(np.float64), 1e-7, 1 - 1e-7)
        likelihood = np.where(y[:, :, None] == 1, p, 1 - p)[y != UNKNOWN]
        self.weights_ = np.full(X.shape[2], 1 / X.shape[2])
        for _ in range(self.max_iter):
            ratios = (1 / (likelihood @ self.weights_)) @ likelihood / max(len(likelihood), 1)
            self.gap_ = float(ratios.max() - 1)
            if self.gap_ < self.tolerance:
                break
            self.weights_ = self.weights_ * ratios
        return self


class Stacking(BaseEstimator):
    """A logistic regression per label on the logits of that label, with coefficients of at least 0 and no intercept.

    The L2 penalty draws the coefficients to those of the logit mean, 1 / K, not to 0. They may not be negative (Breiman
    1996): free ones reverse a model that looks wrong by chance, which lifts labels without any signal above an AUC of
    0.5; see docs/decisions.md. An intercept would set the folds of a rare label against each other.

    Args:
        C: the inverse of the strength of the penalty, above 0; the default is measured, see docs/decisions.md.

    Attributes:
        coef_: float64 array (L, K), at least 0.
    """

    def __init__(self, C: float = 0.1) -> None:
        self.C = C

    def fit(self, X: MemberProbabilities, y: Labels) -> "Stacking":
        """Learn from the probabilities of K models and the truth."""
        logits = to_logit(X)
        start = np.full(X.shape[2], 1 / X.shape[2])
        coefficients = []
        for label, known in enumerate((y != UNKNOWN).T):
            z, truth = logits[known, label], y[known, label]

            def loss(w: np.ndarray, z: np.ndarray = z, truth: np.ndarray = truth) -> tuple[float, np.ndarray]:
                combined, away = z @ w, w - start
                value = np.sum(np.logaddexp(0, combined) - truth * combined) + away @ away / (2 * self.C)
                return value, (expit(combined) - truth) @ z + away / self.C

            coefficients.append(minimize(loss, start, jac=True, bounds=[(0, None)] * len(start)).x)
        self.coef_ = np.array(coefficients)
        return self

    def predict_proba(self, X: MemberProbabilities) -> Probabilities:
        """Combine the probabilities of K models."""
        return expit(np.einsum("nlk,lk->nl", to_logit(X), self.coef_)).astype(np.float32)


class GreedySelection(_WeightedMean):
    """The mean over bags, each a random share of the models, of the mean that a greedy selection makes of the bag.

    Within a bag, models are added one by one, each time the one that raises the macro ROC-AUC of the mean the most. A
    model may be added again, which gives it a greater share. Of equal candidates the first is taken, and of equal
    selections the shortest. The search goes on for `patience` steps without a gain, as a plateau may end.

    The bags (Caruana et al. 2006, "Getting the most out of ensemble selection", section 3.3) are there because a single
    selection among all models depends on chance: the folds select different models, of different scale, and an AUC of
    all folds together then compares what cannot be compared. Measurements: docs/decisions.md.

    Args:
        bags: how many, drawn by the seed.
        share: of the models that a bag holds, above 0 to 1; at least two models, as one leaves nothing to select.
        steps: models in the selection of a bag at most, repeats counted.
        patience: steps without a gain before the search stops.

    Attributes:
        selections_: per bag an int64 array, the models in the order in which they were added; `weights_` are the mean
            of a model's shares in them.
    """

    def __init__(self, bags: int = 20, share: float = 0.5, steps: int = 25, patience: int = 3, seed: int = 0) -> None:
        self.bags = bags
        self.share = share
        self.steps = steps
        self.patience = patience
        self.seed = seed

    def fit(self, X: MemberProbabilities, y: Labels, fold_of_row: np.ndarray | None = None) -> "GreedySelection":
        """Learn from the probabilities of K models and the truth; labels of one value in every fold do not count.

        Only rows of one fold, int (N,), are compared: the folds are those that the probabilities come from.
        """
        models = X.shape[2]
        size = min(models, max(2, math.ceil(self.share * models)))
        rng = np.random.default_rng(self.seed)
        # Bags that hold the same models make the same selection.
        drawn = [tuple(np.sort(rng.choice(models, size, replace=False)).tolist()) for _ in range(self.bags)]
        bags = list(dict.fromkeys(drawn))
        at_once = max(1, _CANDIDATES // (X[:, :, 0].size * size))
        found: dict[tuple[int, ...], np.ndarray] = {}
        for start in range(0, len(bags), at_once):
            some = bags[start : start + at_once]
            found |= dict(zip(some, self._select(X, np.array(some), y, fold_of_row), strict=True))
        self.selections_ = [found[bag] for bag in drawn]
        shares = [np.bincount(selection, minlength=models) / len(selection) for selection in self.selections_]
        self.weights_ = np.mean(shares, axis=0)
        return self

    def _select(
        self, X: MemberProbabilities, bags: np.ndarray, y: Labels, fold_of_row: np.ndarray | None
    ) -> list[np.ndarray]:
        """Select from the models of each bag, int64 (G, k), all bags a step at a time; gives the models as added."""
        total = np.zeros((*y.shape, len(bags)), dtype=np.float32)
        best, kept = np.full(len(bags), -np.inf), np.ones(len(bags), int)
        added: list[list[int]] = [[] for _ in bags]
        left = np.arange(len(bags))
        for step in range(1, self.steps + 1):
            candidates = total[:, :, left, None] + X[:, :, bags[left]]
            of_candidates = mean_auc(candidates.reshape(*y.shape, -1), y, fold_of_row).reshape(len(left), -1)
            values = np.nan_to_num(of_candidates, nan=0.5)
            for bag, place, value in zip(left, values.argmax(axis=1), values.max(axis=1), strict=True):
                added[bag].append(int(bags[bag, place]))
                # Rounding in the sums of equal members must not look like a gain.
                if value > best[bag] + 1e-6:
                    best[bag], kept[bag] = value, step
            total[:, :, left] += X[:, :, [added[bag][-1] for bag in left]]
            left = left[step - kept[left] < self.patience]
            if not len(left):
                break
        return [np.array(models[:count]) for models, count in zip(added, kept, strict=True)]


class SigmoidCalibration(BaseEstimator):
    """A straight line on the logit, per label: probability = sigmoid(slope * logit + intercept).

    With an intercept it is Platt scaling; without one it is temperature scaling, whose temperature is 1 / slope
    (Guo et al. 2017). See `fit_line`.

    Args:
        intercept: whether there is one.

    Attributes:
        slope_: float64 array (L,), above 0.
        intercept_: float64 array (L,).
    """

    def __init__(self, intercept: bool = True) -> None:
        self.intercept = intercept

    def fit(self, X: Probabilities, y: Labels) -> "SigmoidCalibration":
        """Minimise the log loss."""
        columns = zip(to_logit(X).T, y.T, (y != UNKNOWN).T, strict=True)
        lines = [fit_line(x[known], truth[known], self.intercept) for x, truth, known in columns]
        self.slope_, self.intercept_ = np.array(lines).T
        return self

    def predict_proba(self, X: Probabilities) -> Probabilities:
        """Give calibrated probabilities."""
        return expit(to_logit(X) * self.slope_ + self.intercept_).astype(np.float32)


class IsotonicCalibration(BaseEstimator):
    """A rising step function of the probability, per label.

    Its ends are kept from 0 and 1 by Laplace's rule, 1 / (N + 2): a first surprise costs a finite log loss.

    Attributes:
        steps_: one fitted `IsotonicRegression` per label.
    """

    def fit(self, X: Probabilities, y: Labels) -> "IsotonicCalibration":
        """Learn from the probabilities of a model and the truth."""
        self.steps_ = []
        for x, truth, known in zip(X.T, y.T, (y != UNKNOWN).T, strict=True):
            floor = 1 / (int(known.sum()) + 2)
            steps = IsotonicRegression(y_min=floor, y_max=1 - floor, out_of_bounds="clip")
            learnt = (x[known], truth[known]) if known.any() else ([0.5], [0.5])  # of nothing known
            self.steps_.append(steps.fit(*learnt))
        return self

    def predict_proba(self, X: Probabilities) -> Probabilities:
        """Give calibrated probabilities."""
        columns = [steps.predict(x) for steps, x in zip(self.steps_, X.T, strict=True)]
        return np.column_stack(columns).astype(np.float32)
