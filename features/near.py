"""Find near duplicates: images that lie nearer in feature space than chance explains."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh  # numpy's finds all directions, at several times the cost

#: Directions kept per backbone, and how many images there are at least for each of them: with as many directions as
#: images, whitening puts all images equally far apart. Of 2 to 8 images, 6 and more found no false pair among 355 real
#: slices (ich355), and 6 and less all 50 copies among 1,000 phantom slices of another seed than the one reported.
DIRECTIONS, IMAGES_PER_DIRECTION = 256, 6
#: Fewer images than this are too few to tell what chance does.
LEAST_IMAGES = 100
#: What chance does is read off where every image has this many others nearer: beyond the slices of its own patient.
RANKS = (10, 40)
#: How many pairs chance may explain below the threshold.
EXPECTED_BY_CHANCE = 0.1
_BLOCK = 1024
_BINS = 8192
#: Cosine distances of unit vectors end here.
_FARTHEST = 2.0
#: No threshold is finer than float32 products.
_NEAREST = 1e-5


def whiten(features: Sequence[np.ndarray]) -> np.ndarray:
    """Give every image a point: principal directions of each backbone, scaled to equal spread.

    What most images share, and what varies most (the size of the head, the level of the slice), would else decide all
    distances; whitened, a slice and its mirror image are nearer than two slices of one patient.

    Args:
        features: per backbone float32 (N, D), rows of the same N images, at least `IMAGES_PER_DIRECTION`.

    Returns:
        float32 (N, K), unit length: a product of two rows is the mean over backbones of their cosine similarity.
    """
    points = []
    for own in features:
        centred = own.astype(np.float64) - own.mean(axis=0, dtype=np.float64)
        rows, width = centred.shape
        # The smaller of the two products has the same spectrum.
        tall = rows >= width
        product = centred.T @ centred if tall else centred @ centred.T
        count = min(DIRECTIONS, rows // IMAGES_PER_DIRECTION, width)
        values, vectors = eigh(product, subset_by_index=(len(product) - count, len(product) - 1), overwrite_a=True)
        kept = np.flatnonzero(values > 1e-9 * max(values[-1], 1e-300))
        scaled = centred @ vectors[:, kept] / np.sqrt(values[kept]) if tall else vectors[:, kept]
        lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
        points.append(scaled / np.maximum(lengths, 1e-12))
    return (np.hstack(points) / np.sqrt(len(points))).astype(np.float32)


@dataclass(frozen=True)
class Threshold:
    """Below which distance two images are near duplicates.

    Attributes:
        distance: cosine distance of whitened features, 0 to 2.
        exponent: as chance has it, the number of pairs nearer than d grows as d to this power.
        expected: how many pairs chance explains below `distance`.
    """

    distance: float
    exponent: float
    expected: float = EXPECTED_BY_CHANCE

    def distance_for(self, expected: float) -> float:
        """The distance below which chance explains so many pairs."""
        return self.distance * (expected / self.expected) ** (1 / self.exponent)


def choose_threshold(points: np.ndarray) -> Threshold:
    """Read off the data how near images come to one another by chance.

    The number of pairs nearer than d is counted where it is `RANKS` per image. There it is a power of d, nearly, of
    images that are unrelated, mostly: copies and slices of one patient are few beside them. The power is followed down
    to where it leaves `EXPECTED_BY_CHANCE` of a pair; nearer pairs need another explanation.

    Args:
        points: float32 (N, K) of `whiten`, N at least `LEAST_IMAGES`.
    """
    counts = np.zeros(_BINS, np.int64)
    for _, distances in _distances_once(points):
        places = (distances * (_BINS / _FARTHEST)).astype(np.int32).ravel()
        counts += np.bincount(np.minimum(places, _BINS - 1, out=places), minlength=_BINS)
    below = np.cumsum(counts)
    ends = np.linspace(0, _FARTHEST, _BINS + 1)[1:]
    wanted = np.geomspace(len(points) * RANKS[0] / 2, len(points) * RANKS[1] / 2, 30)
    at = np.maximum(np.interp(wanted, below, ends), _NEAREST)
    if at[0] == at[-1]:  # nearly all images are alike
        return Threshold(_NEAREST, float("inf"))
    exponent, offset = np.polyfit(np.log(at), np.log(wanted), 1)
    distance = np.exp((np.log(EXPECTED_BY_CHANCE) - offset) / exponent)
    return Threshold(float(max(distance, _NEAREST)), float(exponent))


def mutual_pairs(
    points: np.ndarray, first: np.ndarray, second: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs of images that are each other's nearest.

    Args:
        points: float32 (N, K) of `whiten`.
        first: int64 (A,), rows of the points.
        second: int64 (B,), rows of the points: the same as `first`, or none of them.
        groups: int64 (N,); images of one group are no pair. Negative: in no group.

    Returns:
        int64 (P, 2), a row of `first` and one of `second`, each pair once, nearest first; and float32 (P,), their
        distances.
    """
    if not len(first) or not len(second):
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)
    nearest = np.empty(len(first), np.int64)
    distance = np.empty(len(first), np.float32)
    back, back_distance = np.zeros(len(second), np.int64), np.full(len(second), np.inf, np.float32)
    columns = np.arange(len(second))
    for start, distances in _distances(points[first], points[second]):
        rows = first[start : start + len(distances)]
        same_group = (groups[rows][:, None] == groups[second]) & (groups[rows][:, None] >= 0)
        distances[same_group | (rows[:, None] == second)] = np.inf
        nearest[start : start + len(rows)] = distances.argmin(axis=1)
        distance[start : start + len(rows)] = distances.min(axis=1)
        of_block = distances.argmin(axis=0)
        nearer = distances[of_block, columns] < back_distance
        back[nearer] = start + of_block[nearer]
        back_distance[nearer] = distances[of_block, columns][nearer]
    mutual = np.flatnonzero((back[nearest] == np.arange(len(first))) & np.isfinite(distance))
    if np.array_equal(first, second):
        mutual = mutual[mutual < nearest[mutual]]
    mutual = mutual[np.argsort(distance[mutual], kind="stable")]
    return np.column_stack([first[mutual], second[nearest[mutual]]]), distance[mutual]


def pairs_within(points: np.ndarray, distance: float) -> np.ndarray:
    """List all pairs that are nearer than a distance, mutual or not: int64 (P, 2), the first row before the second."""
    found = [np.empty((0, 2), np.int64)]
    for start, distances in _distances_once(points):
        found.append(np.argwhere(distances < distance) + start)
    return np.concatenate(found)


def _distances(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the cosine distances, float32 (up to _BLOCK, B), of a block of rows, and where the block starts.

    All of them, by matrix products: an index of neighbours would be no quicker in some hundred dimensions.
    """
    for start in range(0, len(first), _BLOCK):
        yield start, _cosine_distances(first[start : start + _BLOCK], second)


def _distances_once(points: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the cosine distances of a block of rows to itself and the rows behind it, and where the block starts.

    Where a pair would be met twice, or is of an image with itself, the distance is as far as can be.
    """
    for start in range(0, len(points), _BLOCK):
        distances = _cosine_distances(points[start : start + _BLOCK], points[start:])
        rows = len(distances)
        distances[:, :rows][np.tri(rows, dtype=bool)] = _FARTHEST
        yield start, distances


def _cosine_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cosine distances of unit vectors: float32 (A, B)."""
    distances = first @ second.T
    np.subtract(1, distances, out=distances)
    return np.clip(distances, 0, _FARTHEST, out=distances)
