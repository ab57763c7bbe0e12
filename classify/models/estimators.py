"""The estimators of baselines: one binary classifier of scikit-learn per label, and the share of positives."""

import numpy as np
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from classify.models.trained_head import Linearised
from features.common.arrays import Features, Labels, Probabilities


class OneVsRest(BaseEstimator):
    """One binary classifier per label, on features standardised, and optionally reduced, by the rows of `fit`.

    A label with too few rows of either value gets a constant probability, (positives + 1) / (rows + 2): Laplace's rule
    of succession, never 0 or 1, so that a surprise in the held-out rows costs a finite log loss.

    Args:
        classifier: unfitted, with `predict_proba`.
        components: principal components to keep, at most; None to keep the features.
        least: the fewest rows of either value that the classifier can learn from.

    Attributes:
        classifiers_: per label the fitted classifier, or the constant probability.
        converged_: whether every iterative solver reached its tolerance; True for classifiers without one.
    """

    def __init__(self, classifier: ClassifierMixin, components: int | None = None, least: int = 1) -> None:
        self.classifier = classifier
        self.components = components
        self.least = least

    def fit(self, X: Features, y: Labels) -> "OneVsRest":
        """Learn from rows of features and their labels."""
        self.scaler_ = StandardScaler().fit(X)
        self.reducer_, self.converged_ = None, True
        seen = self.scaler_.transform(X)
        if self.components is not None:
            self.reducer_ = PCA(min(self.components, *X.shape), random_state=0).fit(seen)
            seen = self.reducer_.transform(seen)
        self.classifiers_: list[ClassifierMixin | float] = []
        for truth in y.T:
            positives = int(truth.sum())
            if min(positives, len(truth) - positives) < self.least:
                self.classifiers_.append((positives + 1) / (len(truth) + 2))
            else:
                fitted = clone(self.classifier).fit(seen, truth)
                self.converged_ &= _has_converged(fitted)
                self.classifiers_.append(fitted)
        return self

    def predict_proba(self, X: Features) -> Probabilities:
        """Give the probability of each label."""
        seen = self.scaler_.transform(X)
        if self.reducer_ is not None:
            seen = self.reducer_.transform(seen)
        if isinstance(self.classifier, LogisticRegression):
            coefficients, intercepts = (line.astype(np.float32) for line in self._lines(seen.shape[1]))
            return expit(seen @ coefficients + intercepts)  # one product for all labels
        columns = [
            np.full(len(X), known) if isinstance(known, float) else known.predict_proba(seen)[:, 1]
            for known in self.classifiers_
        ]
        return np.column_stack(columns).astype(np.float32)

    @property
    def has_gradient(self) -> bool:
        """Whether it can be linearised: logistic regression and linear SVMs can."""
        return isinstance(self.classifier, LogisticRegression | CalibratedClassifierCV) and self.reducer_ is None

    def linearise(self, X: Features) -> Linearised:
        """Carry the lines on standardised features over to the features themselves; they are equal in all rows."""
        coefficients, intercepts = self._lines(X.shape[1])
        gradients = (coefficients / self.scaler_.scale_[:, np.newaxis]).T
        shifted = intercepts - gradients @ self.scaler_.mean_
        return Linearised(
            np.broadcast_to(gradients.astype(np.float32), (len(X), *gradients.shape)),
            np.broadcast_to(shifted.astype(np.float32), (len(X), len(shifted))),
        )

    def _lines(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The logits of all labels on standardised features: float64 coefficients (D, L), intercepts (L,)."""
        coefficients, intercepts = zip(*(_line(known, width) for known in self.classifiers_), strict=True)
        return np.column_stack(coefficients).astype(np.float64), np.array(intercepts)


def _line(classifier: ClassifierMixin | float, width: int) -> tuple[np.ndarray, float]:
    """The logit of a constant, a logistic regression or a calibrated linear SVM, as coefficients and intercept."""
    if isinstance(classifier, float):
        return np.zeros(width), float(logit(classifier))
    if isinstance(classifier, LogisticRegression):
        return classifier.coef_[0], float(classifier.intercept_[0])
    calibrated = classifier.calibrated_classifiers_[0]
    sigmoid, machine = calibrated.calibrators[0], calibrated.estimator
    # Platt's probability is 1 / (1 + exp(a * decision + b)).
    return -sigmoid.a_ * machine.coef_[0], float(-sigmoid.a_ * machine.intercept_[0] - sigmoid.b_)


def _has_converged(fitted: ClassifierMixin) -> bool:
    """Tell whether a logistic regression, or the linear SVM within a calibrated one, stopped by itself."""
    machine = fitted.calibrated_classifiers_[0].estimator if isinstance(fitted, CalibratedClassifierCV) else fitted
    if isinstance(fitted, CalibratedClassifierCV | LogisticRegression):
        return bool(np.max(machine.n_iter_) < machine.max_iter)
    return True


class Prior(BaseEstimator):
    """The share of positives among the rows of `fit`, for every image: the floor that a model has to beat.

    Attributes:
        shares_: float32 array (L,), (positives + 1) / (rows + 2).
    """

    has_gradient = False

    def fit(self, X: Features, y: Labels) -> "Prior":
        """Count the positives; X is not read."""
        self.shares_ = ((y.sum(axis=0) + 1) / (len(y) + 2)).astype(np.float32)
        self.converged_ = True
        return self

    def predict_proba(self, X: Features) -> Probabilities:
        """Give the same probabilities for every row."""
        return np.tile(self.shares_, (len(X), 1))
