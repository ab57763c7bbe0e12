"""The draws of a resampling in one piece, as tests look at them."""

import numpy as np

from classify.scores.resampling import Resampling


def weights_of(resampling: Resampling) -> np.ndarray:
    """Ones, then how often each unit is in each draw: float64 array (1 + draws, U)."""
    return np.concatenate([np.ones((1, resampling.unit_count)), *(block.T for block in resampling.blocks)])
