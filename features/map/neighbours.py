"""Find the images nearest to each one, or to one, by the cosine of whitened features, as the audit does."""

from collections.abc import Sequence

import numpy as np

from features.audit.near import LEAST_IMAGES, Whitening
from features.store.mapped import AnyFeatures, in_blocks, take_rows

#: Images that the whitening is learnt from, at most; of more, so many are drawn by a seed.
LEARNT_FROM = 20_000
#: Rows of distances at a time.
_ROWS = 512


def learn_points(features: Sequence[AnyFeatures]) -> Whitening:
    """Learn how features, per backbone (N, D), become points: from all of them, or a seeded sample of many.

    Of fewer than `LEAST_IMAGES` the directions keep their own spread: they are too few to whiten by.
    """
    count = len(features[0])
    if count < LEAST_IMAGES:
        means, directions = zip(*map(_rotate, features), strict=True)
        return Whitening(means, directions)
    if count > LEARNT_FROM:
        rows = np.sort(np.random.default_rng(0).choice(count, LEARNT_FROM, replace=False))
        features = [take_rows(own, rows) for own in features]
    return Whitening.of(features)


def find_neighbours(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest images of each, nearest first.

    Args:
        points: float32 (N, K), unit length.
        count: how many; all others where there are no more.

    Returns:
        Their rows, int64 (N, count), and the cosines, float32 (N, count).
    """
    count = min(count, len(points) - 1)
    rows, cosines = np.empty((len(points), count), np.int64), np.empty((len(points), count), np.float32)
    for start in range(0, len(points), _ROWS):
        part = slice(start, start + _ROWS)
        alike = points[part] @ points.T
        own = np.arange(len(alike))
        alike[own, start + own] = -np.inf
        rows[part] = _largest(alike, count)
        cosines[part] = np.take_along_axis(alike, rows[part], axis=1)
    return rows, cosines


def find_nearest(features: Sequence[AnyFeatures], row: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the images nearest to one of N, nearest first: rows, int64 (count,), and cosines, float32 (count,).

    Args:
        features: per backbone (N, D), which are read some at a time.
        row: of the image.
        count: how many; all others where there are no more.
    """
    whitening = learn_points(features)
    (own,) = whitening.points([part[row : row + 1] for part in features])
    alike = np.empty(len(features[0]), np.float32)
    for block in in_blocks(len(alike)):
        alike[block] = whitening.points([part[block] for part in features]) @ own
    alike[row] = -np.inf
    (rows,) = _largest(alike[None], min(count, len(alike) - 1))
    return rows, alike[rows]


def _rotate(features: AnyFeatures) -> tuple[np.ndarray, np.ndarray]:
    """The mean of features (n, D), and the directions in which they differ: float64 (D,) and (D, K), orthonormal."""
    rows = features[:].astype(np.float64)
    mean = rows.mean(axis=0)
    _, spread, directions = np.linalg.svd(rows - mean, full_matrices=False)
    return mean, directions[spread > max(1e-6 * np.linalg.norm(rows), 1e-12)].T


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Where the largest values of each row are, the largest first; of equal ones the first."""
    if count < 1:
        return np.empty((len(values), 0), np.int64)
    place = np.argpartition(-values, count - 1, axis=1)[:, :count]
    place.sort(axis=1)
    return np.take_along_axis(place, np.argsort(-np.take_along_axis(values, place, axis=1), axis=1, kind="stable"), 1)
