"""Draw some of many images by a seed, so that no label and no split vanishes."""

import numpy as np

from features.map.images import CachedImages


def draw_sample(images: CachedImages, most: int, seed: int = 0) -> np.ndarray:
    """Draw at most so many images: int64 (n,), ascending; all where there are no more.

    Half of the places are dealt out in equal shares, one to the positives of each label and one to each split, to the
    rarest first; the others are drawn from all.
    """
    count = len(images)
    if count <= most:
        return np.arange(count)
    order = np.random.default_rng(seed).permutation(count)
    members = [images.labels[order, label] == 1 for label in range(len(images.label_names))]
    members += [images.splits[order] == name for name in dict.fromkeys(images.splits.tolist())]
    share = max(1, most // (2 * len(members)))
    taken = np.zeros(count, bool)  # places in the order
    for member in sorted(members, key=lambda own: int(own.sum())):
        missing = min(share - int(taken[member].sum()), most - int(taken.sum()))
        free = np.flatnonzero(member & ~taken)
        taken[free[: max(missing, 0)]] = True
    free = np.flatnonzero(~taken)
    taken[free[: most - int(taken.sum())]] = True
    return np.sort(order[taken])
