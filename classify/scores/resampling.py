"""Draw bootstrap resamples of groups, as weights; rank metrics of all of them at once; intervals."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.special import expit

from classify.ensembles.estimators import to_logit
from features.common.arrays import Groups

#: How many resamples an interval is made from.
DRAWS = 1000
#: The ends of an interval, in percent of the draws.
ENDS = (2.5, 97.5)
#: Resamples at a time, at least, and weights of units in them: as float32, those of 100,000 units are 26 MB.
_BLOCK, _WEIGHTS = 64, 1_000_000
#: Units at a time whose weights become float64: 1 MB, which stays in a core's cache.
_UNITS = 2048
#: Ranks that draws are counted by. Of more positives the nearest share a rank, which moves no interval: see
#: docs/decisions.md.
_LEVELS = 4096
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
    at_once = max(_BLOCK, _WEIGHTS // units)
    for start in range(0, draws, at_once):
        block = np.empty((min(at_once, draws - start), units), np.uint8)  # none of 256 units or more is drawn so often
        for counts in block:
            counts[:] = np.bincount(random.integers(0, units, size=units), minlength=units)
        blocks.append(np.ascontiguousarray(block.T))
    return Resampling(unit_of_row, tuple(blocks))


def percentile_interval(values: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """Give the ends of the 95 % interval of a figure; None where no draw has a value.

    Args:
        values: float64 array (1 + draws,): the figure on the rows as they are, then on each draw; NaN where it is not
            defined, which the interval leaves out.
    """
    drawn = np.sort(values[1:][~np.isnan(values[1:])])
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
        truth: uint8 array (N,), 0 or 1.
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
        truth: uint8 array (N,), 0 or 1.
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
    """Rows by falling score, part by part: a level is what one score has, a slot a level that holds a positive.

    The levels above a slot that hold none belong to it, too; those below the last positive of a part are a slot alone.

    Attributes:
        order: int64 (N,), the rows.
        kind: int64 (N,), of the ordered rows: 0 a negative above the slot's positives, 1 one tied with them, 2 one.
        slot: int64 (N,), of the ordered rows, ascending.
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
    """Sort rows once: truth, 0 or 1, scores and part, int, all (N,)."""
    order = np.lexsort((-scores, part))
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
    """How many rows each slot has in some draws: negatives above its positives, negatives tied, positives.

    float64 arrays (slots, B), and the first slot of each part.
    """

    above: np.ndarray
    tied: np.ndarray
    positives: np.ndarray
    starts: np.ndarray


def _auc(counts: _Counts) -> np.ndarray:
    """1 - lost pairs / pairs, within parts; ties count half; float64 (B,), NaN without a pair."""
    above, tied, positives, starts = counts
    negatives = above + tied
    down_to = np.cumsum(negatives, axis=0)
    before = np.repeat(down_to[starts] - negatives[starts], np.diff(np.append(starts, len(tied))), axis=0)
    lost = np.einsum("sb,sb->b", positives, down_to - tied / 2 - before)
    of_parts = (np.add.reduceat(rows, starts, axis=0) for rows in (positives, negatives))
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is promised
        return 1 - lost / np.einsum("pb,pb->b", *of_parts)


def _average_precision(counts: _Counts) -> np.ndarray:
    """sum(positives at the slot * precision down to it) / positives: float64 (B,), NaN without a positive."""
    above, tied, positives, _ = counts
    found = np.cumsum(positives, axis=0)
    seen = np.cumsum(above + tied, axis=0) + found
    with np.errstate(invalid="ignore"):
        return np.einsum("sb,sb->b", positives, found / np.maximum(seen, 1)) / found[-1]


def _count_rows(ranks: _Ranks) -> _Counts:
    """Count the rows as they are: a single column."""
    cells = np.bincount(ranks.kind * ranks.slots + ranks.slot, minlength=3 * ranks.slots)
    above, tied, positives = cells.reshape(3, -1, 1).astype(np.float64)
    return _Counts(above, tied, positives, ranks.starts)


def _count(
    ranks: _Ranks, resampling: Resampling, metrics: tuple[Callable[[_Counts], np.ndarray], ...]
) -> list[np.ndarray]:
    """Compute metrics of the rows as they are, then of every draw: float64 (1 + draws,) each.

    The rows of each slot and kind are summed by one product of a sparse matrix with the weights. Where slots were
    merged, every draw is moved by what that changes for the rows as they are.
    """
    merged = ranks.merge(_LEVELS)
    exact, rough = _count_rows(ranks), _count_rows(merged)
    values = [metric(exact) for metric in metrics]
    moved = [value - metric(rough) for value, metric in zip(values, metrics, strict=True)]
    shape = (3 * merged.slots, resampling.unit_count)
    cells = merged.kind * merged.slots + merged.slot, resampling.unit_of_row[merged.order]
    summing = csr_matrix(coo_matrix((np.ones(len(merged.order), np.float32), cells), shape))
    sizes = np.bincount(resampling.unit_of_row, minlength=resampling.unit_count).astype(np.float32)
    drawn = []
    for block in resampling.blocks:
        weights = block.astype(np.float32)
        if (sizes @ weights).max() > _EXACT:
            weights = block.astype(np.float64)
        counts = (summing @ weights).reshape(3, merged.slots, -1).astype(np.float64)
        of_draws = _Counts(counts[0], counts[1], counts[2], merged.starts)
        drawn.append([metric(of_draws) for metric in metrics])
    of_metrics = zip(values, moved, zip(*drawn, strict=True), strict=True)
    return [np.concatenate([value, np.concatenate(draws) + move]) for value, move, draws in of_metrics]


def fit_logits(truth: np.ndarray, probability: np.ndarray, resampling: Resampling) -> tuple[np.ndarray, np.ndarray]:
    """Fit the truth by a line of the logits: what the probabilities lack to be calibrated (Cox 1958).

    The line of a draw is one step of Newton's method from that of all rows, as the one-step bootstrap has it (Moulton
    and Zeger 1991, section 3): sums of weights, where a whole fit would take as long as a thousand fits.

    Args:
        truth: uint8 array (N,), 0 or 1.
        probability: float array (N,).
        resampling: of the same rows.

    Returns:
        Two float64 arrays (1 + draws,): the slope of the line, 1 where the probabilities are neither too sure nor too
        unsure; and the intercept of a line of slope 1, 0 where they are neither too high nor too low on average. NaN
        where there is no such line; see `Sums`.
    """
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
