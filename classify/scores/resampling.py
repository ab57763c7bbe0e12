"""Draw bootstrap resamples of groups, as weights; rank metrics of all of them at once; intervals."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import expit

from classify.ensembles.estimators import to_logit
from features.common.arrays import UNKNOWN, Groups

#: How many resamples an interval is made from.
DRAWS = 1000
#: The ends of an interval, in percent of the draws.
ENDS = (2.5, 97.5)
#: Resamples at a time, at least, and weights of units in them: as float32, those of 100,000 units are 26 MB.
_BLOCK, _WEIGHTS = 64, 1_000_000
#: Units at a time whose weights become float64: 1 MB, which stays in a core's cache.
_UNITS = 2048
#: Units that are counted at a time as they are drawn: 400 kB.
_COUNTED = 50_000
#: Ranks that draws are counted by. Of more positives the nearest share a rank, which moves no interval: see
#: docs/decisions.md.
_LEVELS = 4096
#: Rows that one product sums down.
_ROWS = 8
#: Rows of a draw up to which float32 sums of them are exact in any order: whole numbers below 2**24, with a margin.
_EXACT = 2**23
#: Steps of Newton's method, at most, and a step that only a fit without a solution takes.
_STEPS, _FAR = 50, 50.0


@dataclass(frozen=True)
class Resampling:
    """How often each unit is drawn in each resample; a unit is a group, or a row where no groups are known.

    Attributes:
        unit_of_row: int64 array (N,), 0 to U - 1.
        blocks: uint8 arrays (U, some draws) of whole numbers, each column of which sums to U.
    """

    unit_of_row: np.ndarray
    blocks: tuple[np.ndarray, ...]

    @property
    def unit_count(self) -> int:
        """The number of units, U."""
        return len(self.blocks[0])

    @property
    def draws(self) -> int:
        """The number of resamples."""
        return sum(block.shape[1] for block in self.blocks)

    @property
    def several(self) -> bool:
        """Whether the rows are of several units."""
        return len(self.unit_of_row) > 0 and bool(self.unit_of_row.min() < self.unit_of_row.max())

    def of(self, rows: np.ndarray) -> "Resampling":
        """The same draws, of some of the rows: int64 or bool array."""
        return replace(self, unit_of_row=self.unit_of_row[rows])

    def sum(self, quantities: np.ndarray) -> np.ndarray:
        """Sum quantities of rows, float64 (N, K), over them as they are, then over every draw: (1 + draws, K)."""
        of_units = np.column_stack(
            [np.bincount(self.unit_of_row, weights=column, minlength=self.unit_count) for column in quantities.T]
        )
        drawn = []
        for block in self.blocks:
            sums = np.zeros((block.shape[1], of_units.shape[1]))
            for start in range(0, len(block), _UNITS):
                some = slice(start, start + _UNITS)
                sums += block[some].T.astype(np.float64) @ of_units[some]
            drawn.append(sums)
        return np.concatenate([of_units.sum(axis=0)[np.newaxis], *drawn])


def resample(rows: int, groups: Groups | None, seed: int, draws: int = DRAWS) -> Resampling:
    """Draw as many groups as there are, with replacement; rows where no groups are known.

    Images of one group are not independent evidence: an interval from resampled rows would be too narrow. The same
    arguments give the same draws; of fewer draws they are the first.
    """
    unit_of_row = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(unit_of_row.max()) + 1
    random, blocks = np.random.default_rng(seed), []
    at_once, step = max(_BLOCK, _WEIGHTS // units), max(1, _COUNTED // units)
    for start in range(0, draws, at_once):
        block = np.empty((min(at_once, draws - start), units), np.uint8)  # none of 256 units or more is drawn so often
        for some in np.split(block, range(step, len(block), step)):
            drawn = random.integers(0, units, size=some.shape) + units * np.arange(len(some))[:, np.newaxis]
            some[:] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        blocks.append(np.ascontiguousarray(block.T))
    return Resampling(unit_of_row, tuple(blocks))


def percentile_interval(values: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """Give the ends of the 95 % interval of a figure; None where no draw has a value.

    Args:
        values: float64 array (1 + draws,): the figure on the rows as they are, then on each draw; NaN where it is not
            defined, which the interval leaves out.
    """
    drawn = np.sort(values[1:])  # NaN last
    drawn = drawn[: np.count_nonzero(~np.isnan(drawn))]
    if not len(drawn):
        return None, None
    low, high = (_between(drawn, end / 100 * (len(drawn) - 1)) for end in ENDS)
    return low, high


def _between(ascending: np.ndarray, place: float) -> float:
    """Interpolate at a place, from 0, of some values: as `numpy.percentile`, which takes five times as long."""
    first = math.floor(place)
    below, above = float(ascending[first]), float(ascending[min(first + 1, len(ascending) - 1)])
    part = place - first
    return below + (above - below) * part if part < 0.5 else above - (above - below) * (1 - part)


def rank_scores(truth: np.ndarray, scores: np.ndarray, resampling: Resampling) -> tuple[np.ndarray, np.ndarray]:
    """Compute ROC-AUC and average precision, with ties as scikit-learn treats them.

    Args:
        truth: uint8 array (N,), 0, 1 or `UNKNOWN`: such rows have no part.
        scores: float array (N,); higher is more likely positive.
        resampling: of the same rows.

    Returns:
        Two float64 arrays (1 + draws,): ROC-AUC, average precision; NaN where a class that they need is missing.
    """
    ranks = _rank(truth, scores, np.zeros(len(truth), np.int64))
    auc, precision = _count(ranks, resampling, (_auc, _average_precision))
    return auc, np.minimum(precision, 1)


def auc_within_folds(
    truth: np.ndarray, by_repeat: np.ndarray, fold_of_row: np.ndarray, resampling: Resampling
) -> np.ndarray:
    """Compute the ROC-AUC over the pairs of rows that one model predicted: those that one fold held out.

    Models of different folds have different scale, and the more positives a fold holds, the fewer its models learnt
    from: over pairs of all folds a model that knows nothing, such as the share of positives, has less than 0.5.

    Args:
        truth: uint8 array (N,), 0, 1 or `UNKNOWN`: such rows have no part.
        by_repeat: float array (R, N); higher is more likely positive.
        fold_of_row: int array (R, N).
        resampling: of the same rows.

    Returns:
        float64 array (1 + draws,): all pairs count the same; NaN where no fold has both values.
    """
    repeats = len(by_repeat)
    parts = fold_of_row + (int(fold_of_row.max()) + 1) * np.arange(repeats)[:, None]
    units = np.tile(resampling.unit_of_row, repeats)
    ranks = _rank(np.tile(truth, repeats), by_repeat.ravel(), parts.ravel())
    return _count(ranks, Resampling(units, resampling.blocks), (_auc,))[0]


class _Ranks(NamedTuple):
    """Known rows by falling score, part by part: a level is what one score has, a slot a level that holds a positive.

    The levels above a slot that hold none belong to it, too; those below the last positive of a part are a slot alone.

    Attributes:
        order: int64 (n,), the rows.
        kind: int64 (n,), of the ordered rows: 0 a negative above the slot's positives, 1 one tied with them, 2 one.
        slot: int64 (n,), of the ordered rows, ascending.
        starts: int64 (P,), the first slot of each part.
        slots: how many there are.
    """

    order: np.ndarray
    kind: np.ndarray
    slot: np.ndarray
    starts: np.ndarray
    slots: int

    def merge(self, most: int) -> "_Ranks":
        """Let neighbouring slots be one, some `most` in all; a part's slots are shared out evenly."""
        if self.slots <= most:
            return self
        sizes = np.diff(np.append(self.starts, self.slots)) - 1  # without the slot below the last positive
        new_sizes = np.ceil(sizes * (most / self.slots)).astype(np.int64)
        new_starts = np.cumsum(new_sizes + 1) - new_sizes - 1
        part = np.repeat(np.arange(len(sizes)), sizes + 1)
        place = np.arange(self.slots) - self.starts[part]
        new = new_starts[part] + place * new_sizes[part] // np.maximum(sizes[part], 1)
        leads = np.append(True, new[1:] != new[:-1])
        kind = np.where((self.kind == 0) & ~leads[self.slot], 1, self.kind)
        return _Ranks(self.order, kind, new[self.slot], new_starts, int(new_sizes.sum()) + len(sizes))


def _rank(truth: np.ndarray, scores: np.ndarray, part: np.ndarray) -> _Ranks:
    """Sort the known rows once: truth, 0, 1 or `UNKNOWN`, scores and part, int, all (N,)."""
    rows = np.flatnonzero(truth != UNKNOWN)
    if not len(rows):
        return _Ranks(rows, rows, rows, np.zeros(1, np.int64), 1)
    order = rows[np.lexsort((-scores[rows], part[rows]))]
    ranked, own_part, positive = scores[order], part[order], truth[order] == 1
    new_part = np.append(True, own_part[1:] != own_part[:-1])
    level = np.cumsum(new_part | np.append(True, ranked[1:] != ranked[:-1])) - 1
    holds = np.zeros(int(level[-1]) + 1, bool)
    holds[level[positive]] = True
    slot = (np.cumsum(holds) - holds)[level] + np.cumsum(new_part) - 1
    kind = np.where(positive, 2, holds[level].astype(np.int64))
    parts = int(new_part.sum())
    starts = slot[new_part]
    return _Ranks(order, kind, slot, starts, int(holds.sum()) + parts)


class _Counts(NamedTuple):
    """How many rows each slot has in some draws: whole numbers that their type holds exactly.

    Attributes:
        positives: float32 or float64 (slots, B).
        passed: the same type (slots, B), the negatives above its positives or tied with them, down to each slot.
        tied: the same type (T, B), the negatives that are tied with positives, of the slots that have any.
        slot_of_tied: int64 (T,).
        starts: int64 (P,), the first slot of each part.
    """

    positives: np.ndarray
    passed: np.ndarray
    tied: np.ndarray
    slot_of_tied: np.ndarray
    starts: np.ndarray


def _auc(counts: _Counts) -> np.ndarray:
    """1 - lost pairs / pairs, within parts; ties count half; float64 (B,), NaN without a pair.

    All sums are of whole numbers and halves: exact, whatever their order.
    """
    of_parts = np.add.reduceat(counts.positives, counts.starts, axis=0)
    negatives = counts.passed[np.append(counts.starts[1:], len(counts.passed)) - 1]
    before = negatives[:-1].copy()
    negatives[1:] -= before
    lost = _dot(counts.positives, counts.passed) - _dot(of_parts[1:], before)
    lost -= _dot(counts.positives[counts.slot_of_tied], counts.tied) / 2
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is promised
        return 1 - lost / _dot(of_parts, negatives)


def _average_precision(counts: _Counts) -> np.ndarray:
    """sum(positives at the slot * precision down to it) / positives: float64 (B,), NaN without both values.

    Without a negative it would be 1 whatever the scores.
    """
    found = _accumulate(counts.positives)
    with np.errstate(invalid="ignore"):
        precision = np.divide(found, np.maximum(counts.passed + found, 1), dtype=np.float64)
        value = _dot(counts.positives, precision) / found[-1]
    return np.where(counts.passed[-1] > 0, value, np.nan)


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The product of each column with one of another array, (S, B) both: float64 (B,)."""
    product: np.ndarray = np.einsum("sb,sb->b", first, second, dtype=np.float64)
    return product


class _Counting:
    """Counts the rows of ranks in draws, by one product of a sparse matrix with the weights of units."""

    def __init__(self, ranks: _Ranks, resampling: Resampling) -> None:
        self._ranks, units, ties = ranks, resampling.unit_of_row[ranks.order], ranks.kind == 1
        self._slot_of_tied, place = np.unique(ranks.slot[ties], return_inverse=True)
        cells = np.append((ranks.kind == 2) * ranks.slots + ranks.slot, 2 * ranks.slots + place)
        shape = 2 * ranks.slots + len(self._slot_of_tied), resampling.unit_count
        ones = np.ones(len(cells), np.float32)
        self._summing = csr_matrix((ones, (cells, np.append(units, units[ties]))), shape)

    def count(self, weights: np.ndarray) -> _Counts:
        """Count the rows of draws, from weights of the units, float (U, B)."""
        negatives, positives, tied = np.split(self._summing @ weights, (self._ranks.slots, 2 * self._ranks.slots))
        return _Counts(positives, _accumulate(negatives), tied, self._slot_of_tied, self._ranks.starts)


def _accumulate(counts: np.ndarray) -> np.ndarray:
    """Sum down the rows, (S, B), of whole numbers: `np.cumsum` in a fraction of its time."""
    rows, columns = counts.shape
    parts = np.zeros((-(-rows // _ROWS), _ROWS, columns), counts.dtype)
    parts.reshape(-1, columns)[:rows] = counts
    down_to = np.tri(_ROWS, dtype=counts.dtype) @ parts
    down_to[1:] += np.cumsum(down_to[:-1, -1:], axis=0)
    return down_to.reshape(-1, columns)[:rows]


def _count(
    ranks: _Ranks, resampling: Resampling, metrics: tuple[Callable[[_Counts], np.ndarray], ...]
) -> list[np.ndarray]:
    """Compute metrics of the rows as they are, then of every draw: float64 (1 + draws,) each.

    Where slots were merged, every draw is moved by what that changes for the rows as they are.
    """
    every = np.ones((resampling.unit_count, 1))
    merged = ranks.merge(_LEVELS)
    counting = _Counting(merged, resampling)
    rough = counting.count(every)
    exact = rough if merged is ranks else _Counting(ranks, resampling).count(every)
    values = [metric(exact) for metric in metrics]
    moved = [value - metric(rough) for value, metric in zip(values, metrics, strict=True)]
    sizes = np.bincount(resampling.unit_of_row, minlength=resampling.unit_count).astype(np.float32)
    drawn = []
    for block in resampling.blocks:
        weights = block.astype(np.float32)
        if (sizes @ weights).max() > _EXACT:
            weights = block.astype(np.float64)
        counts = counting.count(weights)
        drawn.append([metric(counts) for metric in metrics])
    of_metrics = zip(values, moved, zip(*drawn, strict=True), strict=True)
    return [np.concatenate([value, np.concatenate(draws) + move]) for value, move, draws in of_metrics]


def fit_logits(truth: np.ndarray, probability: np.ndarray, resampling: Resampling) -> tuple[np.ndarray, np.ndarray]:
    """Fit the truth by a line of the logits: what the probabilities lack to be calibrated (Cox 1958).

    The line of a draw is one step of Newton's method from that of all rows, as the one-step bootstrap has it (Moulton
    and Zeger 1991, section 3): sums of weights, where a whole fit would take as long as a thousand fits.

    Args:
        truth: uint8 array (N,), 0, 1 or `UNKNOWN`: such rows have no part.
        probability: float array (N,).
        resampling: of the same rows.

    Returns:
        Two float64 arrays (1 + draws,): the slope of the line, 1 where the probabilities are neither too sure nor too
        unsure; and the intercept of a line of slope 1, 0 where they are neither too high nor too low on average. NaN
        where there is no such line; see `Sums`.
    """
    known = truth != UNKNOWN
    truth, probability, resampling = truth[known], probability[known], resampling.of(known)
    logits = to_logit(probability)
    line = _newton(truth, np.column_stack([np.ones(len(truth)), logits]), np.zeros(len(truth)), resampling)
    shift = _newton(truth, np.ones((len(truth), 1)), logits, resampling)
    return line[:, 1], shift[:, 0]


def _newton(truth: np.ndarray, columns: np.ndarray, offset: np.ndarray, resampling: Resampling) -> np.ndarray:
    """Logistic regression of the truth on columns (N, K): float64 (1 + draws, K), NaN where it does not converge."""
    width = columns.shape[1]
    found = np.zeros(width)
    unknown = np.full((1 + resampling.draws, width), np.nan)
    for _ in range(_STEPS):
        probability = expit(columns @ found + offset)
        spread = columns * (probability * (1 - probability))[:, None]
        step = _solve((columns.T @ (truth - probability))[None], (spread.T @ columns)[None])[0]
        if not np.abs(step).max() < _FAR:
            return unknown
        found = found + step
        if np.abs(step).max() < 1e-8:
            break
    else:
        return unknown
    probability = expit(columns @ found + offset)
    spread = columns * (probability * (1 - probability))[:, None]
    first, second = np.triu_indices(width)
    sums = resampling.sum(
        np.column_stack([columns * (truth - probability)[:, None], spread[:, first] * columns[:, second]])
    )
    hessian = np.empty((len(sums), width, width))
    hessian[:, first, second] = hessian[:, second, first] = sums[:, width:]
    return found + _solve(sums[:, :width], hessian)


def _solve(gradient: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Steps of Newton's method, of gradients (B, K) and (B, K, K): float64 (B, K), NaN where they are not defined."""
    width = gradient.shape[1]
    singular = np.linalg.det(hessian) <= 1e-9 * hessian[:, 0, 0] ** width
    steps = np.linalg.solve(np.where(singular[:, None, None], np.eye(width), hessian), gradient[:, :, None])[:, :, 0]
    return np.where(singular[:, None], np.nan, steps)
