"""Compute the ROC-AUC of many heads, or of any other scores, and the accuracy of heads, at once."""

import numpy as np

from features.common.arrays import UNKNOWN, Labels


def mean_auc(logits: np.ndarray, y: Labels, fold_of_row: np.ndarray | None = None) -> np.ndarray:
    """Compute the ROC-AUC of many heads at once, ties counted as half, also of scores that differ in the last bit only.

    Args:
        logits: float32 array (N, L, H), any monotonic score.
        y: the truth.
        fold_of_row: int array (N,), if only rows of one fold are to be compared; see `auc_within_folds`.

    Returns:
        float32 array (H,), 0-1: the mean over the labels whose known rows have both values (in some fold), NaN if none
        has.
    """
    every = np.arange(len(y))
    folds = [every] if fold_of_row is None else [every[fold_of_row == fold] for fold in np.unique(fold_of_row)]
    of_labels = []
    for label in range(y.shape[1]):
        won, pairs = np.zeros(logits.shape[2]), 0
        for of_fold in folds:
            rows = of_fold[y[of_fold, label] != UNKNOWN]
            truth = y[rows, label]
            positives = int(truth.sum())
            if 0 < positives < len(truth):
                own = positives * (len(truth) - positives)
                won += own * _auc(logits[rows, label], truth, positives)
                pairs += own
        if pairs:
            of_labels.append(won / pairs)
    return np.mean(of_labels, axis=0).astype(np.float32) if of_labels else np.full(logits.shape[2], np.nan, np.float32)


def mean_accuracy(logits: np.ndarray, y: Labels, exclusive: np.ndarray) -> np.ndarray:
    """Compute the accuracy of many heads at once.

    Args:
        logits: float32 array (N, L, H).
        y: the truth.
        exclusive: bool array (H,), the heads whose labels are classes; then every label is known.

    Returns:
        float32 array (H,), 0-1: the share of known labels whose probability is on the right side of 0.5, which itself
        is negative, as Keras' BinaryAccuracy has it; of exclusive ones that of the rows whose class is the likeliest.
        NaN where no label is known.
    """
    found = np.empty(logits.shape[2], np.float32)
    if exclusive.any():
        found[exclusive] = (logits[:, :, exclusive].argmax(axis=1) == y.argmax(axis=1)[:, np.newaxis]).mean(axis=0)
    if not exclusive.all():
        known = y != UNKNOWN
        right = (logits[:, :, ~exclusive] > 0) == (y == 1)[:, :, np.newaxis]
        counts = (right & known[:, :, np.newaxis]).sum(axis=(0, 1))
        found[~exclusive] = counts / known.sum() if known.any() else np.nan
    return found


def _auc(scores: np.ndarray, truth: np.ndarray, positives: int) -> np.ndarray:
    """ROC-AUC of (N, H) scores of one label as float64 (H,)."""
    # -0.0 becomes 0.0, which it equals though its bits differ.
    bits = (np.ascontiguousarray(scores.T, dtype=np.float32) + np.float32(0)).view(np.uint32)
    # After this flip, bits of floats sort as the floats do; the truth is kept in the last bit, and one plain sort
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
