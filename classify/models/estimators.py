"""The estimators of baselines: one binary classifier of scikit-learn per label, and the share of positives."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.validation import has_fit_parameter

from classify.models.files import why_not_kept
from classify.models.trained_head import Linearised
from features.common.arrays import UNKNOWN, Features, Groups, Labels, Probabilities, count_values
from features.common.errors import InputError
from features.store.mapped import AnyFeatures, in_blocks

#: The least slope of a fitted line: above 0, so that calibration never turns a ranking round.
_LEAST_SLOPE = 0.01
#: How far from 0 and 1 a probability of somebody's own estimator may be: float32 rounds by 6e-8.
_ROUNDING = 1e-6


class OneVsRest(BaseEstimator):
    """One binary classifier per label, on features standardised, and optionally reduced, by the rows of `fit`.

    Each learns from the rows whose label is known; features are standardised and reduced by all rows. A label with too
    few rows of either value gets a constant probability, (positives + 1) / (known rows + 2): Laplace's rule
    of succession, never 0 or 1, so that a surprise in the held-out rows costs a finite log loss.

    Args:
        classifier: unfitted, with `predict_proba`; its `fit` is given the groups if it takes them.
        components: principal components to keep, at most; None to keep the features.
        least: the fewest rows of either value that the classifier can learn from.
        standardise: whether features are standardised; else the classifier sees them as they are.

    Attributes:
        classifiers_: per label the fitted classifier, or the constant probability.
        converged_: whether every iterative solver reached its tolerance; True for classifiers without one.
    """

    def __init__(
        self, classifier: ClassifierMixin, components: int | None = None, least: int = 1, standardise: bool = True
    ) -> None:
        self.classifier = classifier
        self.components = components
        self.least = least
        self.standardise = standardise

    def fit(self, X: AnyFeatures, y: Labels, groups: Groups | None = None) -> "OneVsRest":
        """Learn from rows of features and their labels; the groups are of the rows, None where none are known."""
        X = np.asarray(X)  # scikit-learn has no estimator that reads from the disk
        self.scaler_ = StandardScaler(with_mean=self.standardise, with_std=self.standardise)
        for rows in in_blocks(len(X)):  # at once it takes float64 copies of all features
            self.scaler_.partial_fit(X[rows])
        self.reducer_, self.converged_ = None, True
        seen = self.scaler_.transform(X)
        if self.components is not None:
            self.reducer_ = PCA(min(self.components, *X.shape), random_state=0).fit(seen)
            seen = self.reducer_.transform(seen)
        self.classifiers_: list[ClassifierMixin | float] = []
        for truth in y.T:
            positives, known = int((truth == 1).sum()), truth != UNKNOWN
            if min(positives, known.sum() - positives) < self.least:
                self.classifiers_.append((positives + 1) / (int(known.sum()) + 2))
            else:
                grouped = {}
                if has_fit_parameter(self.classifier, "groups"):
                    grouped["groups"] = None if groups is None else groups[known]
                fitted = self._fit_one(seen if known.all() else seen[known], truth[known], **grouped)
                self.converged_ &= _has_converged(fitted)
                self.classifiers_.append(fitted)
        return self

    def predict_proba(self, X: Features) -> Probabilities:
        """Give the probability of each label."""
        seen = self.scaler_.transform(X)
        if self.reducer_ is not None:
            seen = self.reducer_.transform(seen)
        columns = [
            np.full(len(X), known) if isinstance(known, float) else self._predict_one(known, seen)
            for known in self.classifiers_
        ]
        return np.column_stack(columns).astype(np.float32)

    def _fit_one(self, X: np.ndarray, y: np.ndarray, **grouped: Groups | None) -> ClassifierMixin:
        """Fit a classifier to features (n, D) and the truth (n,)."""
        return clone(self.classifier, safe=False).fit(X, y, **grouped)

    def _predict_one(self, fitted: ClassifierMixin, X: np.ndarray) -> np.ndarray:
        """Give the probability of 1, (n,)."""
        positive: np.ndarray = fitted.predict_proba(X)[:, 1]
        return positive

    @property
    def has_gradient(self) -> bool:
        """Whether it can be linearised: linear SVMs can."""
        return isinstance(self.classifier, PlattScaledSVM) and self.reducer_ is None and self.scaler_.with_std

    def linearise(self, X: Features) -> Linearised:
        """Carry the lines on standardised features over to the features themselves; they are equal in all rows."""
        coefficients, intercepts = (line.astype(np.float32) for line in self.lines())
        return Linearised(
            np.broadcast_to(coefficients.T, (len(X), *coefficients.T.shape)),
            np.broadcast_to(intercepts, (len(X), len(intercepts))),
        )

    @property
    def mean_(self) -> np.ndarray:
        """Mean of the features that it learnt from, float64 (D,)."""
        return self.scaler_.mean_

    def lines(self) -> tuple[np.ndarray, np.ndarray]:
        """The logits of all labels on the features themselves: float64 coefficients (D, L), intercepts (L,)."""
        width = len(self.mean_)
        columns, intercepts = zip(*(_line(known, width) for known in self.classifiers_), strict=True)
        coefficients = np.column_stack(columns).astype(np.float64) / self.scaler_.scale_[:, np.newaxis]
        return coefficients, np.array(intercepts) - self.mean_ @ coefficients


class OfOnesOwn(OneVsRest):
    """A person's own classifier per label, on features as they are. What it gives is checked, as nobody else does.

    Args:
        classifier: as that of `OneVsRest`.
        name: of the baseline, for messages.
    """

    def __init__(self, classifier: ClassifierMixin, name: str) -> None:
        super().__init__(classifier, standardise=False)
        self.name = name

    def _fit_one(self, X: np.ndarray, y: np.ndarray, **grouped: Groups | None) -> ClassifierMixin:
        fitted = super()._fit_one(X, y, **grouped)
        if not hasattr(fitted, "predict_proba"):
            raise self._error(f"fit gave {type(fitted).__name__}, expected the estimator: let it return self")
        if why := why_not_kept(fitted):
            raise self._error(f"what fit has learnt cannot be kept in a run ({why}); store no functions, say")
        return fitted

    def _predict_one(self, fitted: ClassifierMixin, X: np.ndarray) -> np.ndarray:
        given = fitted.predict_proba(X)
        try:
            found = np.asarray(given, np.float64)
        except (TypeError, ValueError):
            raise self._error(f"predict_proba gave {type(given).__name__}, expected an array of numbers") from None
        if found.shape != (len(X), 2):
            raise self._error(f"predict_proba gave shape {found.shape}, expected {(len(X), 2)}")
        if not ((found >= -_ROUNDING) & (found <= 1 + _ROUNDING)).all():
            finite = np.isfinite(found).all()
            what = f"values from {found.min():g} to {found.max():g}" if finite else "NaN or infinity"
            raise self._error(f"predict_proba gave {what}, expected numbers from 0 to 1")
        classes = np.asarray(getattr(fitted, "classes_", (0, 1))).tolist()
        if classes not in ([0, 1], [1, 0]):
            raise self._error(f"classes_ is {classes}, expected [0, 1]")
        return np.clip(found[:, classes.index(1)], 0, 1)

    def _error(self, fault: str) -> InputError:
        return InputError(f"baselines: {self.name}: {fault}.")


def _line(classifier: ClassifierMixin | float, width: int) -> tuple[np.ndarray, float]:
    """The logit of a constant or of a calibrated linear SVM, as coefficients and intercept."""
    if isinstance(classifier, float):
        return np.zeros(width), float(logit(classifier))
    machine, slope = classifier.machine_, classifier.slope_
    return slope * machine.coef_[0], float(slope * machine.intercept_[0] + classifier.intercept_)


def _has_converged(fitted: ClassifierMixin) -> bool:
    """Tell whether a linear SVM stopped by itself; classifiers without an iterative solver have."""
    return not isinstance(fitted, PlattScaledSVM) or bool(np.max(fitted.machine_.n_iter_) < fitted.max_iter)


class PlattScaledSVM(ClassifierMixin, BaseEstimator):
    """A linear support vector machine, whose decisions become probabilities by Platt's scaling (1999).

    The line is fitted to decisions about rows that the machine did not learn from, in parts that cut no group, and its
    slope is above 0. By parts that cut groups, and with a free slope, 5 of 15 machines on 355 slices were reversed.

    Args:
        C: the inverse of the strength of the L2 penalty.
        parts: that the rows are split into for the line.
        max_iter: of the solver.

    Attributes:
        machine_: the machine, fitted on all rows.
        slope_, intercept_: of the line. Where all positives, or all negatives, are of one group, no part can be learnt
            from: then the slope is next to none, and the probability next to Laplace's rule, (P + 1) / (N + 2).
    """

    def __init__(self, C: float = 1e-4, parts: int = 3, max_iter: int = 1000) -> None:
        self.C = C
        self.parts = parts
        self.max_iter = max_iter

    def fit(self, X: np.ndarray, y: np.ndarray, groups: Groups | None = None) -> "PlattScaledSVM":
        """Learn from features (N, D) and the truth (N,), with at least `parts` rows of either value."""
        machine = LinearSVC(C=self.C, max_iter=self.max_iter, random_state=0)
        splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
        decisions = np.full(len(y), np.nan)
        for learnt, held_out in splitter(self.parts).split(X, y, groups):
            if len(held_out) and np.ptp(y[learnt]):
                decisions[held_out] = clone(machine).fit(X[learnt], y[learnt]).decision_function(X[held_out])
        known = ~np.isnan(decisions)
        self.machine_ = machine.fit(X, y)
        self.classes_ = machine.classes_
        if known.any() and np.ptp(y[known]):
            self.slope_, self.intercept_ = fit_line(decisions[known], y[known])
        else:
            self.slope_, self.intercept_ = _LEAST_SLOPE, float(logit((y.sum() + 1) / (len(y) + 2)))
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give the probabilities of both values, float64 (N, 2)."""
        positive = expit(self.slope_ * self.machine_.decision_function(X) + self.intercept_)
        return np.column_stack([1 - positive, positive])


def fit_line(scores: np.ndarray, truth: np.ndarray, intercept: bool = True) -> tuple[float, float]:
    """Fit sigmoid(slope * score + intercept) to the truth by the least log loss; the slope is above 0.

    The targets are Platt's (1999): (P + 1) / (P + 2) for P positives, 1 / (N + 2) for N negatives, so that labels that
    a score separates, or of one value only, get no probability of 0 or 1.

    Args:
        scores: float64 array (N,).
        truth: array (N,), 0 or 1.
        intercept: whether there is one; it is 0 otherwise.

    Returns:
        The slope and the intercept; 1 and 0 without rows.
    """
    if not len(truth):
        return 1.0, 0.0
    positives = int(truth.sum())
    target = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (len(truth) - positives + 2))

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        z = line[0] * scores + line[1]
        residual = expit(z) - target
        return np.mean(np.logaddexp(0, z) - target * z), np.array([np.mean(residual * scores), np.mean(residual)])

    bounds = [(_LEAST_SLOPE, None), (None, None) if intercept else (0.0, 0.0)]
    slope, shift = minimize(loss, [1.0, 0.0], jac=True, bounds=bounds, options={"ftol": 1e-12}).x
    return float(slope), float(shift)


def expect_shares(y: Labels) -> np.ndarray:
    """Give each label the share of positives by Laplace's rule: float64 (L,), (positives + 1) / (known rows + 2)."""
    positives, negatives = count_values(y)
    shares: np.ndarray = (positives + 1) / (positives + negatives + 2)
    return shares


class Prior(BaseEstimator):
    """The share of positives among the rows of `fit`, for every image: the floor that a model has to beat.

    Attributes:
        shares_: float32 array (L,), (positives + 1) / (known rows + 2).
    """

    has_gradient = False

    def fit(self, X: AnyFeatures, y: Labels, groups: Groups | None = None) -> "Prior":
        """Count the positives; neither X nor the groups are read."""
        self.shares_ = expect_shares(y).astype(np.float32)
        self.converged_ = True
        return self

    def predict_proba(self, X: Features) -> Probabilities:
        """Give the same probabilities for every row."""
        return np.tile(self.shares_, (len(X), 1))
