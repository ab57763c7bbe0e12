"""Select models for a mean one by one, with replacement (Caruana et al. 2004)."""

import numpy as np
from sklearn.base import BaseEstimator


class GreedySelection(BaseEstimator):
    """The mean of the models that, added one by one, raise the macro ROC-AUC of the mean the most.

    A model may be added again, which gives it a greater share. Of equal candidates the first is taken, and of equal
    selections the shortest. The search goes on for `patience` steps without a gain, as a plateau may end.

    Args:
        steps: models in the selection at most, repeats counted.
        patience: steps without a gain before the search stops.

    Attributes:
        weights_: float64 array (K,), the share of each model.
        selection_: int64 array, the models in the order in which they were added.
    """

    def __init__(self, steps: int = 25, patience: int = 3) -> None:
        self.steps = steps
        self.patience = patience

    def fit(self, X: np.ndarray, y: np.ndarray) -> "GreedySelection":
        """Learn from X (N, L, K), 0-1, and y (N, L). Labels of one value only have no say."""
        members = np.moveaxis(X.astype(np.float64), 2, 0)
        total = np.zeros(members.shape[1:])
        selection: list[int] = []
        best, kept = -np.inf, 1
        while len(selection) < self.steps and len(selection) - kept < self.patience:
            values = np.array([macro_auc(total + member, y) for member in members])
            selection.append(int(values.argmax()))
            total = total + members[selection[-1]]
            # Rounding in the sums of equal members must not look like a gain.
            if values.max() > best + 1e-9:
                best, kept = values.max(), len(selection)
        self.selection_ = np.array(selection[:kept])
        self.weights_ = np.bincount(self.selection_, minlength=X.shape[2]) / kept
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give float32 (N, L) for X (N, L, K)."""
        return (X @ self.weights_).astype(np.float32)


def macro_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average ROC-AUC over the labels that have both values; 0.5 if none has.

    Args:
        scores: float array (N, L); higher is more likely positive.
        labels: uint8 array (N, L), 0 or 1.
    """
    values = []
    for column, truth in zip(scores.T, labels.T, strict=True):
        negatives, positives = np.sort(column[truth == 0]), np.sort(column[truth == 1])
        if len(negatives) and len(positives):
            below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
            values.append(below.sum() / (2 * len(negatives) * len(positives)))
    return float(np.mean(values)) if values else 0.5
