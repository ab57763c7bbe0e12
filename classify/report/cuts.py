"""Count, for every position of the page's slider, how many images a threshold finds."""

import numpy as np

#: The slider's positions: steps of 0.001, and ten times finer near the ends, where the cuts of rare labels lie.
POSITIONS = np.r_[np.arange(100) / 1e4, np.arange(10, 990) / 1e3, np.arange(9900, 10001) / 1e4]


def positions(threshold: float) -> np.ndarray:
    """List the slider's positions, with the run's own threshold among them.

    Args:
        threshold: the run's; infinite where a label has no positive.

    Returns:
        float64 array (P,), ascending, all different, 0-1.
    """
    return np.unique(np.append(POSITIONS, threshold)) if 0 <= threshold <= 1 else POSITIONS


def count_from(truth: np.ndarray, probability: np.ndarray, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the images that are positive from each cut on.

    Counts, and not the scores themselves, go into the page: they are exact at every position, they take the same few
    kilobytes for any number of images, and they tell nothing of a single one.

    Args:
        truth: uint8 array (N,), 0 or 1.
        probability: float32 array (N,), 0-1.
        cuts: float64 array (P,).

    Returns:
        Two int64 arrays (P,): true positives, false positives.
    """
    hits = np.sort(probability[truth == 1].astype(np.float64))
    alarms = np.sort(probability[truth == 0].astype(np.float64))
    return len(hits) - np.searchsorted(hits, cuts), len(alarms) - np.searchsorted(alarms, cuts)
