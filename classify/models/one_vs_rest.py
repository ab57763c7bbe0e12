"""Wrap a binary classifier of scikit-learn: one per label, on scaled and at will fewer features."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler


class OneVsRest(BaseEstimator):
    """One binary classifier per label, on features standardised, and reduced if asked for, by the rows of `fit`.

    A label of too few rows of either value gets a constant probability, (positives + 1) / (rows + 2), as in
    `OneVsRestLogistic`.

    Args:
        classifier: unfitted, with `predict_proba`.
        components: principal components to keep, at most; None to keep the features.
        least: the fewest rows of either value that the classifier can learn from.

    Attributes:
        scaler_: the fitted StandardScaler.
        reducer_: the fitted PCA; None without `components`.
        classifiers_: per label the fitted classifier, or the constant probability.
        converged_: whether every linear SVM reached its tolerance; the others have nothing to reach.
    """

    def __init__(self, classifier: ClassifierMixin, components: int | None = None, least: int = 1) -> None:
        self.classifier = classifier
        self.components = components
        self.least = least

    def fit(self, X: np.ndarray, y: np.ndarray) -> "OneVsRest":
        """Learn from float32 features (N, D), finite, and uint8 labels (N, L)."""
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

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give float32 probabilities (N, L) for float32 features (N, D)."""
        seen = self.scaler_.transform(X)
        if self.reducer_ is not None:
            seen = self.reducer_.transform(seen)
        columns = [
            np.full(len(X), known) if isinstance(known, float) else known.predict_proba(seen)[:, 1]
            for known in self.classifiers_
        ]
        return np.column_stack(columns).astype(np.float32)


def _has_converged(fitted: ClassifierMixin) -> bool:
    """Tell whether the linear SVM within a calibrated one stopped by itself; True for other classifiers."""
    if not isinstance(fitted, CalibratedClassifierCV):
        return True
    machine = fitted.calibrated_classifiers_[0].estimator
    return bool(machine.n_iter_ < machine.max_iter)


class Prior(BaseEstimator):
    """The share of positives among the rows of `fit`, for every image: the floor that a model has to pass.

    Attributes:
        shares_: float32 array (L,), (positives + 1) / (rows + 2).
        converged_: True.
    """

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Prior":
        """Count the positives of uint8 labels (N, L); X is not read."""
        self.shares_ = ((y.sum(axis=0) + 1) / (len(y) + 2)).astype(np.float32)
        self.converged_ = True
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give float32 (N, L), the same in every row."""
        return np.tile(self.shares_, (len(X), 1))
