"""The loss of heads whose labels are exclusive classes, compiled."""

import numpy as np

from classify.bank.compiled import compiled

_ZERO, _ONE = np.float32(0), np.float32(1)


@compiled
def softmax_entropy(
    logits: np.ndarray, truth: np.ndarray, weights: np.ndarray, smoothing: np.float32, gradient: np.ndarray
) -> np.float32:
    """Categorical cross-entropy of the logits (L, B) of a head, the mean over the rows; its gradient (L, B) is written.

    Truth is uint8 (B, L), of each row exactly one is 1; the weights of the classes' rows are float32 (L,).
    """
    classes, rows = logits.shape
    total, share, spread = _ZERO, _ONE / np.float32(rows), smoothing / np.float32(classes)
    for row in range(rows):
        highest, own = logits[0, row], 0
        for label in range(classes):
            if logits[label, row] > highest:
                highest = logits[label, row]
            if truth[row, label] == 1:
                own = label
        summed = _ZERO
        for label in range(classes):
            gradient[label, row] = np.exp(logits[label, row] - highest)
            summed += gradient[label, row]
        normaliser, weight = highest + np.log(summed), weights[own] * share
        for label in range(classes):
            target = spread + (_ONE - smoothing if label == own else _ZERO)
            total += weight * target * (normaliser - logits[label, row])
            gradient[label, row] = weight * (gradient[label, row] / summed - target)
    return total
