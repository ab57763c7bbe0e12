"""Combine the probabilities of several models."""

from collections.abc import Sequence

import numpy as np


def mean_ensemble(members: Sequence[np.ndarray]) -> np.ndarray:
    """Average the probabilities of several models.

    Args:
        members: at least one float32 array (N, L), 0-1; the same rows and labels in all of them.

    Returns:
        float32 array (N, L), 0-1. The sum is taken in float64.
    """
    return np.stack(members).mean(axis=0, dtype=np.float64).astype(np.float32)
