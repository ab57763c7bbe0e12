"""Search for near images among very many: each is compared with those of the cells that are nearest to it."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from features.store.mapped import in_blocks

#: Cells that an image is searched in. Figures: docs/decisions.md.
PROBES = 8
#: Images whose means are the middles of cells, for each cell, and how often these are moved: more finds hardly more.
_PER_CELL, _ROUNDS = 40, 5
#: Rows of a cell at a time: of distances, and of the products that find the nearest cells.
_ROWS = 2048


@dataclass(frozen=True)
class Cells:
    """Where points lie.

    Attributes:
        of_point: int32 (N, P), the cells with the middles nearest to each point; it belongs to the first.
        count: of the cells.
    """

    of_point: np.ndarray
    count: int

    @classmethod
    def of(cls, points: np.ndarray) -> "Cells":
        """Sort points, float32 (N, K) of unit length, into some sqrt(N) cells, by the means of a seeded sample."""
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        rng, count = np.random.default_rng(0), max(PROBES, round(np.sqrt(len(points))))
        sample = points[np.sort(rng.permutation(len(points))[: _PER_CELL * count])]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # images that are all alike have fewer means
            means = KMeans(count, init="random", n_init=1, max_iter=_ROUNDS, random_state=0).fit(sample)
        middles = means.cluster_centers_.astype(np.float32)
        # The nearest by Euclid: |p - m|^2 without |p|^2, which is the same for all cells.
        half = np.square(middles).sum(axis=1) / 2
        nearest = np.empty((len(points), PROBES), np.int32)
        for rows in in_blocks(len(points)):
            away = half - points[rows] @ middles.T
            chosen = np.argpartition(away, PROBES - 1, axis=1)[:, :PROBES]
            order = np.argsort(np.take_along_axis(away, chosen, axis=1), axis=1)
            nearest[rows] = np.take_along_axis(chosen, order, axis=1)
        return cls(nearest, count)

    def nearest_of(
        self, points: np.ndarray, first: np.ndarray, second: np.ndarray, groups: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest of each image of `first` in `second`; arguments as those of `near_pairs`.

        Returns:
            The place in `second`, int64 (A,), and the distance, float32 (A,), infinite where none was found.
        """
        place, distance = np.zeros(len(first), np.int64), np.full(len(first), np.inf, np.float32)
        alone = np.array_equal(first, second)
        for asking, asked in self._visits(first, second):
            own, others = first[asking], second[asked]
            distances = cosine_distances(points[own], points[others])
            if alone:
                same = (groups[own][:, None] == groups[others]) & (groups[own][:, None] >= 0)
                distances[same | (own[:, None] == others)] = np.inf
            best = distances.argmin(axis=1)
            found = distances[np.arange(len(own)), best]
            nearer = found < distance[asking]
            place[asking[nearer]], distance[asking[nearer]] = asked[best[nearer]], found[nearer]
        return place, distance

    def nearest(
        self, points: np.ndarray, first: np.ndarray, second: np.ndarray, groups: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Find the nearest in both directions: what `nearest_of` gives of `first`, then of `second`."""
        there = self.nearest_of(points, first, second, groups)
        return *there, *(there if np.array_equal(first, second) else self.nearest_of(points, second, first, groups))

    def within(self, points: np.ndarray, distance: float) -> Iterator[np.ndarray]:
        """Yield the pairs that are nearer than a distance, cell by cell: int64 (P, 2), the first row before the second.

        Two images that are each in a cell of the other are yielded twice.
        """
        every = np.arange(len(points))
        for asking, asked in self._visits(every, every):
            near = np.argwhere(cosine_distances(points[asking], points[asked]) < distance)
            pairs = np.sort(np.column_stack([asking[near[:, 0]], asked[near[:, 1]]]), axis=1)
            yield pairs[pairs[:, 0] < pairs[:, 1]]

    def _visits(self, first: np.ndarray, second: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield places in `first` and in `second`, int64 (a,) and (b,), that are to be compared, cell by cell."""
        probes = self.of_point[first]
        asking = np.argsort(probes.ravel(), kind="stable")
        asked = np.argsort(self.of_point[second, 0], kind="stable")
        ends = np.searchsorted(probes.ravel()[asking], np.arange(self.count + 1))
        of_second = np.searchsorted(self.of_point[second[asked], 0], np.arange(self.count + 1))
        for cell in range(self.count):
            here = asked[of_second[cell] : of_second[cell + 1]]
            there = asking[ends[cell] : ends[cell + 1]] // PROBES
            for start in range(0, len(there) if len(here) else 0, _ROWS):
                for beginning in range(0, len(here), _ROWS):
                    yield there[start : start + _ROWS], here[beginning : beginning + _ROWS]


def cosine_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cosine distances of unit vectors: float32 (A, B), 0 to 2."""
    distances = first @ second.T
    np.subtract(1, distances, out=distances)
    return np.clip(distances, 0, 2, out=distances)
