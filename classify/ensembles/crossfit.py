"""Cross-fit what learns from other models' probabilities: ensembles and calibrators."""

from typing import Protocol, Self

import numpy as np
from sklearn.base import BaseEstimator, clone

from classify.crossfit.folds import Folds


class SecondLevel(Protocol):
    """An estimator whose features are probabilities, rows first."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Learn from probabilities (N, L) of one model or (N, L, K) of K models, and labels (N, L)."""

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give float32 probabilities (N, L)."""


def cross_fit_second_level(
    estimator: BaseEstimator, out_of_fold: np.ndarray, labels: np.ndarray, folds: Folds, test: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, SecondLevel]:
    """Fit on the rows of all folds but one, predict that one, in turn; then fit on all rows and predict test.

    So a row's own label never reaches its own second-level probability, and the score of the result is not in-sample.

    Args:
        estimator: unfitted; see `SecondLevel`.
        out_of_fold: float32 array (N, L) or (N, L, K), 0-1: the training rows, by models that never saw their fold.
        labels: uint8 array (N, L), 0 or 1.
        folds: those that `out_of_fold` comes from.
        test: float32 array (M, L) or (M, L, K), 0-1, by the same models; None without test rows.

    Returns:
        The cross-fitted probabilities, float32 (N, L); those of test, float32 (M, L) or None; the estimator fitted on
        all rows, which gave the latter.
    """
    crossed = np.empty(labels.shape, dtype=np.float32)
    for learnt, held_out in folds.split():
        model = clone(estimator).fit(out_of_fold[learnt], labels[learnt])
        crossed[held_out] = model.predict_proba(out_of_fold[held_out])
    fitted = clone(estimator).fit(out_of_fold, labels)
    return crossed, None if test is None else fitted.predict_proba(test), fitted
