"""Find near duplicates: images that lie nearer in feature space than chance explains."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import DisjointSet
from scipy.linalg import eigh  # numpy's finds all directions, at several times the cost
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from features.audit.cells import Cells, cosine_distances
from features.store.mapped import AnyFeatures, in_blocks

#: Directions kept per backbone, and how many images there are at least for each of them: with as many directions as
#: images, whitening puts all images equally far apart. Of 2 to 8 images, 6 and more found no false pair among 355 real
#: slices (ich355), and 6 and less all 50 copies among 1,000 phantom slices of another seed than the one reported.
DIRECTIONS, IMAGES_PER_DIRECTION = 256, 6
#: Fewer images than this are too few to estimate how near images come by chance.
LEAST_IMAGES = 100
#: Chance is estimated at the distances where every image has this many others nearer: beyond its own patient's slices.
RANKS = (10, 40)
#: Images up to which each is compared with all; of more, each with those of some cells, and chance is estimated by so
#: many of them.
FULL_SEARCH, _SAMPLED = 20_000, 2048
#: How many pairs chance may bring below the threshold.
EXPECTED_BY_CHANCE = 0.1
_BLOCK = 1024
#: Pairs that wait, at the most, until what they join is worked out: 64 MB.
_WAITING = 1 << 22
_BINS = 8192
#: The largest cosine distance.
_FARTHEST = 2.0
#: The smallest threshold: float32 products are no finer.
_NEAREST = 1e-5
#: The least share of the features' sum of squares that a direction has: (1e-6)**2, some units in the last place.
_LEAST_SPREAD = 1e-12


@dataclass(frozen=True, eq=False)
class Whitening:
    """How features become points: principal directions of each backbone, scaled to equal spread.

    Otherwise, what most images share and what varies most (the size of the head, the level of the slice) would decide
    all distances; whitened, a slice and its mirror image are nearer than two slices of one patient.

    Attributes:
        means: float64 (D,) of each backbone.
        directions: float64 (D, K) of each backbone; K is 0 where all images have the same features.
    """

    means: tuple[np.ndarray, ...]
    directions: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, features: Sequence[AnyFeatures]) -> "Whitening":
        """Learn from features per backbone (N, D), rows of the same N images, at least `IMAGES_PER_DIRECTION`."""
        means, directions = zip(*map(_find_directions, features), strict=True)
        return cls(means, directions)

    def points(self, features: Sequence[AnyFeatures]) -> np.ndarray:
        """Give images their points; features are read some at a time.

        Args:
            features: per backbone (n, D), rows of the same n images.

        Returns:
            float32 (n, K), unit length: a product of two rows is the mean over backbones of their cosine similarity.
        """
        widths = [max(own.shape[1], 1) for own in self.directions]
        points, end = np.empty((len(features[0]), sum(widths)), np.float32), 0
        for own, mean, directions, width in zip(features, self.means, self.directions, widths, strict=True):
            start, end = end, end + width
            for block in in_blocks(len(points)):
                scaled = (own[block] - mean) @ directions if directions.shape[1] else np.ones((len(own[block]), 1))
                length = np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)
                points[block, start:end] = scaled / (length * np.sqrt(len(features)))
        return points


def whiten(features: Sequence[AnyFeatures]) -> np.ndarray:
    """Give every image the point that a whitening by these same images gives it; see there."""
    return Whitening.of(features).points(features)


def _find_directions(features: AnyFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Find the mean of the features of one backbone, and its scaled directions: float64 (D,) and (D, K)."""
    rows, width = features.shape
    if rows < width:  # the smaller of the two products has the same spectrum
        features = np.asarray(features)
    mean, squares = np.zeros(width), 0.0
    for block in in_blocks(rows):
        own = features[block]
        mean += own.sum(axis=0, dtype=np.float64) / rows
        squares += float(np.square(own, dtype=np.float64).sum())
    if rows < width:
        centred = features - mean
        product = centred @ centred.T
    else:
        product = np.zeros((width, width))
        for block in in_blocks(rows):
            centred = features[block] - mean
            product += centred.T @ centred
    count = min(DIRECTIONS, rows // IMAGES_PER_DIRECTION, width)
    values, vectors = eigh(product, subset_by_index=(len(product) - count, len(product) - 1), overwrite_a=True)
    # What is below is rounding: of the products, and of float32 features.
    kept = np.flatnonzero(values > max(1e-9 * values[-1], _LEAST_SPREAD * squares))
    directions = vectors[:, kept] / np.sqrt(values[kept])
    return mean, centred.T @ directions / np.sqrt(values[kept]) if rows < width else directions


@dataclass(frozen=True)
class Threshold:
    """Below which distance two images are near duplicates.

    Attributes:
        distance: cosine distance of whitened features, 0 to 2.
        exponent: by chance, the number of pairs nearer than d grows as d to this power.
        expected: how many pairs chance brings below `distance`.
    """

    distance: float
    exponent: float
    expected: float = EXPECTED_BY_CHANCE

    def distance_for(self, expected: float) -> float:
        """The distance below which chance brings so many pairs."""
        return self.distance * (expected / self.expected) ** (1 / self.exponent)


def choose_threshold(points: np.ndarray) -> Threshold:
    """Estimate from the data how near images come to each other by chance.

    The number of pairs nearer than d is counted where it is `RANKS` per image. There it is nearly a power of d, and
    mostly of unrelated images: copies and slices of one patient are few in comparison. The power is extrapolated to the
    distance at which `EXPECTED_BY_CHANCE` pairs remain; nearer pairs need another explanation. Of more than
    `FULL_SEARCH` images a sample counts the pairs that it has with all.

    Args:
        points: float32 (N, K) of `whiten`, N at least `LEAST_IMAGES`.
    """
    counts = np.zeros(_BINS)
    for distances, weight in _sample_distances(points):
        places = (distances * (_BINS / _FARTHEST)).astype(np.int32).ravel()
        counts += weight * np.bincount(np.minimum(places, _BINS - 1, out=places), minlength=_BINS)
    below = np.cumsum(counts)
    ends = np.linspace(0, _FARTHEST, _BINS + 1)[1:]
    wanted = np.geomspace(len(points) * RANKS[0] / 2, len(points) * RANKS[1] / 2, 30)
    at = np.maximum(np.interp(wanted, below, ends), _NEAREST)
    if at[0] == at[-1]:  # nearly all images are alike
        return Threshold(_NEAREST, float("inf"))
    exponent, offset = np.polyfit(np.log(at), np.log(wanted), 1)
    distance = np.exp((np.log(EXPECTED_BY_CHANCE) - offset) / exponent)
    return Threshold(float(max(distance, _NEAREST)), float(exponent))


def near_pairs(
    points: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray,
    limit: float,
    cells: Cells | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pair each image with its nearest one if that is near, so that every image with a near duplicate is named.

    A second copy of an image is nearest to it, or to the first copy, but not the other way round. The same holds for a
    neighbouring slice of the original, which is not a copy: an image is left out if nearer pairs already link its
    nearest to the image's own group, and the two are neither identical nor each other's nearest.

    Args:
        points: float32 (N, K) of `whiten`.
        first: int64 (A,), rows of the points.
        second: int64 (B,), rows of the points: the same as `first`, or none of them.
        groups: int64 (N,). Negative: in no group. Within one set, images of one group are not paired.
        limit: pairs are near below this distance.
        cells: of the points, where the nearest is not searched among all of them.

    Returns:
        The pairs, int64 (P, 2), a row of the first set and one of the second, each pair once, nearest first; their
        distances, float32 (P,); the distances of all pairs that are each other's nearest, near or not, float32 (M,),
        ascending.
    """
    if not len(first) or not len(second):
        return np.empty((0, 2), np.int64), np.empty(0, np.float32), np.empty(0, np.float32)
    find = _nearest if cells is None else cells.nearest
    nearest, distance, back, back_distance = find(points, first, second, groups)
    mutual = (back[nearest] == np.arange(len(first))) & np.isfinite(distance)
    # Who asks, who is its nearest, how far, whether they are each other's.
    asked = [first, second[nearest], distance, mutual]
    alone = np.array_equal(first, second)
    if not alone:
        one_way = nearest[back] != np.arange(len(second))  # the mutual ones are there already
        others = [second, first[back], back_distance, np.zeros(len(second), bool)]
        asked = [np.concatenate([own, other[one_way]]) for own, other in zip(asked, others, strict=True)]
    pairs, distances = _link([column[asked[2] < limit] for column in asked], groups)
    swapped = pairs[:, 0] > pairs[:, 1] if alone else ~np.isin(pairs[:, 0], first)
    pairs[swapped] = pairs[swapped, ::-1]
    pairs, places = np.unique(pairs, axis=0, return_index=True)
    order = np.argsort(distances[places], kind="stable")
    counted = mutual & (np.arange(len(first)) < nearest) if alone else mutual
    return pairs[order], distances[places][order], np.sort(distance[counted])


def _link(asked: Sequence[np.ndarray], groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep the pairs that add information, nearest first: their rows, int64 (P, 2), and distances, float32 (P,).

    `asked` is, of each image that has a near one, its row, that of its nearest, their distance, and whether they are
    each other's nearest. Mutual pairs may be there in both directions.
    """
    linked = DisjointSet(np.unique(np.concatenate(asked[:2])).tolist())
    groups_of: dict[int, set[int]] = {row: set() for row in linked}
    kept = []
    for place in np.lexsort((~asked[3], asked[2])).tolist():
        row, nearest, distance, mutual = (column[place].item() for column in asked)
        if int(groups[row]) in groups_of[linked[nearest]] and not mutual and distance > _NEAREST:
            continue
        own = {int(groups[row]), int(groups[nearest])} - {-1}
        both = groups_of[linked[row]] | groups_of[linked[nearest]] | own
        linked.merge(row, nearest)
        groups_of[linked[row]] = both
        kept.append(place)
    return np.column_stack([column[kept] for column in asked[:2]]), asked[2][kept]


def _nearest(
    points: np.ndarray, first: np.ndarray, second: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find each image's nearest in the other set; see `near_pairs` for the arguments.

    Returns, of each image of `first`, the place in `second`, int64 (A,), and the distance, float32 (A,), infinite where
    it has none to be paired with; likewise (B,) of each image of `second`.
    """
    nearest = np.empty(len(first), np.int64)
    distance = np.empty(len(first), np.float32)
    back, back_distance = np.zeros(len(second), np.int64), np.full(len(second), np.inf, np.float32)
    columns, alone = np.arange(len(second)), np.array_equal(first, second)
    # Matrix products of blocks: in some hundred dimensions an index of neighbours is not faster.
    for start in range(0, len(first), _BLOCK):
        rows = first[start : start + _BLOCK]
        distances = cosine_distances(points[rows], points[second])
        if alone:
            same_group = (groups[rows][:, None] == groups[second]) & (groups[rows][:, None] >= 0)
            distances[same_group | (rows[:, None] == second)] = np.inf
        nearest[start : start + len(rows)] = distances.argmin(axis=1)
        distance[start : start + len(rows)] = distances.min(axis=1)
        of_block = distances.argmin(axis=0)
        nearer = distances[of_block, columns] < back_distance
        back[nearer] = start + of_block[nearer]
        back_distance[nearer] = distances[of_block, columns][nearer]
    return nearest, distance, back, back_distance


def pairs_within(points: np.ndarray, distance: float, cells: Cells | None = None) -> Iterator[np.ndarray]:
    """Yield all pairs that are nearer than a distance, mutual or not: int64 (P, 2), the first row before the second."""
    if cells is not None:
        yield from cells.within(points, distance)
        return
    for start, distances in _distances_once(points):
        yield np.argwhere(distances < distance) + start


def join_near(points: np.ndarray, distance: float, cells: Cells | None = None) -> np.ndarray:
    """Join the images of all pairs that are nearer than a distance: int64 (P, 2), at most N links that join the same.

    The pairs themselves may be N^2 of them, where many images are alike.
    """
    links, waiting = [np.empty((0, 2), np.int64)], 0
    for pairs in pairs_within(points, distance, cells):
        links.append(pairs)
        waiting += len(pairs)
        if waiting > max(_WAITING, len(points)):
            links, waiting = [_span(np.concatenate(links), len(points))], 0
    return _span(np.concatenate(links), len(points))


def _span(links: np.ndarray, count: int) -> np.ndarray:
    """Link each of so many images to the first of those that it is joined with, where it is another."""
    _, first, component = np.unique(components_of(links, count), return_index=True, return_inverse=True)
    joined = np.column_stack([first[component], np.arange(count)])
    return joined[joined[:, 0] != joined[:, 1]]


def components_of(links: np.ndarray, count: int) -> np.ndarray:
    """Number what links, int64 (P, 2), join of so many images: int32 (count,), equal for images that are joined."""
    graph = coo_array((np.ones(len(links), bool), tuple(links.T)), shape=(count, count))
    numbers: np.ndarray = connected_components(graph, directed=False)[1]
    return numbers


def _sample_distances(points: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Yield distances of pairs, each once, and how many pairs each stands for."""
    if len(points) <= FULL_SEARCH:
        for _, distances in _distances_once(points):
            yield distances, 1.0
        return
    sampled = np.random.default_rng(0).choice(len(points), _SAMPLED, replace=False)
    for part in in_blocks(len(points)):
        distances = cosine_distances(points[sampled], points[part])
        distances[sampled[:, None] == np.arange(part.start, part.stop)] = _FARTHEST
        yield distances, len(points) / (2 * _SAMPLED)


def _distances_once(points: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield where a block of rows starts, and its cosine distances to itself and to the rows after it."""
    for start in range(0, len(points), _BLOCK):
        distances = cosine_distances(points[start : start + _BLOCK], points[start:])
        rows = len(distances)
        distances[:, :rows][np.tri(rows, dtype=bool)] = _FARTHEST  # each pair once, and none with itself
        yield start, distances
