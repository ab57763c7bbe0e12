"""Score every head after every epoch: the learning curves."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curves:
    """What each epoch of one head came to; every array is float32 (E,), for the epochs that the head trained.

    The training values are those of the mini-batches as they were learnt from, dropout included, as in Keras' history.

    Attributes:
        loss: training loss with class weights, label smoothing and the L2 penalty.
        auc: training ROC-AUC, the mean over the labels that have both values; NaN without such a label.
        validation_loss: the same loss of the validation rows, with the weights that the epoch ended with.
        validation_auc: their ROC-AUC.
    """

    loss: np.ndarray
    auc: np.ndarray
    validation_loss: np.ndarray
    validation_auc: np.ndarray


def mean_auc(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute the ROC-AUC of many heads at once, ties counted as half.

    Scores that differ in the last bit of the mantissa only are taken for ties.

    Args:
        logits: float32 array (N, L, H), any monotonic score.
        y: uint8 array (N, L), 0 or 1.

    Returns:
        float32 array (H,), 0-1: the mean over the labels that have both values, NaN if none has.
    """
    of_labels = []
    for label, truth in enumerate(y.T):
        positives = int(truth.sum())
        if 0 < positives < len(truth):
            of_labels.append(_auc(logits[:, label], truth, positives))
    return np.mean(of_labels, axis=0).astype(np.float32) if of_labels else np.full(logits.shape[2], np.nan, np.float32)


def _auc(scores: np.ndarray, truth: np.ndarray, positives: int) -> np.ndarray:
    """ROC-AUC of (N, H) scores of one label as float64 (H,)."""
    # -0.0 becomes 0.0, which it equals though its bits differ.
    bits = (np.ascontiguousarray(scores.T, dtype=np.float32) + np.float32(0)).view(np.uint32)
    # Flipped so, the bits of floats order as the floats do; the truth then rides in the last bit, and one plain sort
    # of integers (vectorised in numpy) ranks scores and truth together, several times faster than argsort.
    negative = (bits.view(np.int32) >> 31).view(np.uint32)  # all bits 1 or all 0
    keys = (bits ^ (negative | np.uint32(0x80000000))) & np.uint32(0xFFFFFFFE)
    ordered = np.sort(keys | truth, axis=1)
    # Within a tie the sort puts the positives last: that is the highest AUC that the ties allow.
    highest = _auc_of_ranks(ordered & 1, positives)
    if not np.any((ordered[:, 1:] ^ ordered[:, :-1]) == 1):
        return highest
    lowest = _auc_of_ranks((np.sort(keys | (1 - truth), axis=1) & 1) ^ 1, positives)
    return (highest + lowest) / 2


def _auc_of_ranks(truth: np.ndarray, positives: int) -> np.ndarray:
    """Mann-Whitney: share of the pairs in which the positive comes later, of (H, N) truths in ascending order."""
    places = np.flatnonzero(truth.astype(bool)).reshape(len(truth), positives)  # of bools ten times as fast
    ranks = (places - np.arange(len(truth))[:, None] * truth.shape[1]).sum(axis=1)
    return (ranks - positives * (positives - 1) / 2) / (positives * (truth.shape[1] - positives))
