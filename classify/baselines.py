"""Baselines: scikit-learn classifiers of pooled features, one per label."""

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler


class OneVsRestLogistic(BaseEstimator):
    """Logistic regression on standardised features, one per label.

    A label that has one value only in the rows of `fit` gets a constant probability, (positives + 1) / (rows + 2):
    Laplace's rule of succession, never 0 or 1, so a surprise in the rows held out costs a finite log loss.

    Args:
        C: the inverse of the strength of the L2 penalty, above 0. The default is chosen by measurement: of 0.0001 to
            0.1, with patients held apart, it is within 0.01 of the best macro ROC-AUC on 355 slices with 3840 features,
            and 0.01 and above cost twice its log loss. Folds that cut patients in two would favour 0.1.
        max_iter: the steps that L-BFGS may take per label.

    Attributes:
        scaler_: the StandardScaler; features that never vary become 0.
        coef_: float32 array (D, L), of standardised features; 0 for a constant label.
        intercept_: float32 array (L,).
        converged_: whether every label's solver reached its tolerance.
    """

    def __init__(self, C: float = 0.001, max_iter: int = 1000) -> None:
        self.C = C
        self.max_iter = max_iter

    def fit(self, X: np.ndarray, y: np.ndarray) -> "OneVsRestLogistic":
        """Learn from rows of features.

        Args:
            X: float32 array (N, D), finite.
            y: uint8 array (N, L), 0 or 1.

        Returns:
            This estimator.
        """
        self.scaler_ = StandardScaler().fit(X)
        standardised = self.scaler_.transform(X)
        self.coef_ = np.zeros((X.shape[1], y.shape[1]), dtype=np.float32)
        self.intercept_ = np.zeros(y.shape[1], dtype=np.float32)
        self.converged_ = True
        for label, truth in enumerate(y.T):
            positives = int(truth.sum())
            if positives in (0, len(truth)):
                self.intercept_[label] = np.log((positives + 1) / (len(truth) - positives + 1))
                continue
            model = LogisticRegression(C=self.C, max_iter=self.max_iter).fit(standardised, truth)
            self.coef_[:, label] = model.coef_[0]
            self.intercept_[label] = model.intercept_[0]
            self.converged_ &= bool(model.n_iter_[0] < self.max_iter)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give the probability of each label.

        Args:
            X: float32 array (N, D), finite.

        Returns:
            float32 array (N, L), 0-1.
        """
        return expit(self.scaler_.transform(X) @ self.coef_ + self.intercept_)
