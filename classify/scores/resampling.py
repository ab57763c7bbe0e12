"""Draw bootstrap resamples of groups, as weights; rank metrics of all of them at once; intervals."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from classify.ensembles.estimators import to_logit
from features.common.arrays import Groups

#: How many resamples an interval is made from.
DRAWS = 1000
#: The ends of an interval, in percent of the draws.
ENDS = (2.5, 97.5)
#: Resamples at a time: 32 rows of weights of 8,542 rows are 1 MB, which stays in a core's cache.
_BLOCK = 32
#: Steps of Newton's method, at most, and a step that only a fit without a solution takes.
_STEPS, _FAR = 50, 50.0


@dataclass(frozen=True)
class Resampling:
    """How often each unit is drawn in each resample; a unit is a group, or a row where no groups are known.

    Attributes:
        unit_of_row: int64 array (N,), 0 to U - 1.
        weights: float32 array (1 + draws, U) of whole numbers. The first row is all ones: the rows as they are.
            Each other row sums to U.
    """

    unit_of_row: np.ndarray
    weights: np.ndarray

    @property
    def unit_count(self) -> int:
        """The number of units, U."""
        return self.weights.shape[1]

    def sum(self, quantities: np.ndarray) -> np.ndarray:
        """Sum quantities of rows, float64 (N, K), over every resample: float64 (1 + draws, K)."""
        of_units = np.column_stack(
            [np.bincount(self.unit_of_row, weights=column, minlength=self.unit_count) for column in quantities.T]
        )
        return self.weights.astype(np.float64) @ of_units


def resample(rows: int, groups: Groups | None, seed: int, draws: int = DRAWS) -> Resampling:
    """Draw as many groups as there are, with replacement; rows where no groups are known.

    Images of one group are not independent evidence: an interval from resampled rows would be too narrow. The same
    arguments give the same draws.
    """
    unit_of_row = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(unit_of_row.max()) + 1
    drawn = np.random.default_rng(seed).integers(0, units, size=(draws, units))
    counts = np.bincount((drawn + units * np.arange(draws)[:, None]).ravel(), minlength=draws * units)
    weights = np.concatenate([np.ones((1, units)), counts.reshape(draws, units)]).astype(np.float32)
    return Resampling(unit_of_row, weights)


def percentile_interval(values: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """Give the ends of the 95 % interval of a figure; None where no draw has a value.

    Args:
        values: float64 array (1 + draws,): the figure on the rows as they are, then on each draw; NaN where it is not
            defined, which the interval leaves out.
    """
    drawn = values[1:][~np.isnan(values[1:])]
    if not len(drawn):
        return None, None
    low, high = np.percentile(drawn, ENDS)
    return float(low), float(high)


def rank_scores(truth: np.ndarray, scores: np.ndarray, resampling: Resampling) -> tuple[np.ndarray, np.ndarray]:
    """Compute ROC-AUC and average precision, with ties as scikit-learn treats them.

    Args:
        truth: uint8 array (N,), 0 or 1.
        scores: float array (N,); higher is more likely positive.
        resampling: of the same rows.

    Returns:
        Two float64 arrays (1 + draws,): ROC-AUC, average precision; NaN where a class that they need is missing.
    """
    lost, pairs, precision = _rank(truth, scores, resampling.unit_of_row, resampling.weights)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is promised
        return 1 - lost / pairs, precision


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
    lost, pairs = np.zeros((2, len(resampling.weights)))
    for scores, own in zip(by_repeat, fold_of_row, strict=True):
        for fold in np.unique(own):
            rows = np.flatnonzero(own == fold)
            found = _rank(truth[rows], scores[rows], resampling.unit_of_row[rows], resampling.weights)
            lost, pairs = lost + found[0], pairs + found[1]
    with np.errstate(invalid="ignore"):
        return 1 - lost / pairs


def _rank(
    truth: np.ndarray, scores: np.ndarray, unit_of_row: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the pairs of a positive and a negative in every resample, and those that are in the wrong order.

    The scores are sorted once. A resample is a weight per row, so its true positives and its rows down to each rank are
    cumulative sums of weights; of these only the ranks that hold a positive are needed:
    lost = sum(positives at the rank * negatives above it, ties counted half),
    AP = sum(positives at the rank * precision down to it) / positives.

    Returns:
        float64 arrays (1 + draws,): lost pairs, pairs, average precision; the last is NaN without a positive.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, units = scores[order], unit_of_row[order]
    starts_level = np.append(True, ranked[1:] != ranked[:-1])
    level_of_rank = np.cumsum(starts_level) - 1
    first = np.flatnonzero(starts_level)
    last = np.append(first[1:], len(ranked)) - 1

    positive = np.flatnonzero(truth[order] == 1)
    levels, first_of_level = np.unique(level_of_rank[positive], return_index=True)
    last_of_level = np.append(first_of_level[1:], len(positive)) - 1
    lost, pairs, precision = np.zeros((3, len(weights)))
    if not len(positive):
        return lost, pairs, np.full(len(weights), np.nan)
    for start in range(0, len(weights), _BLOCK):
        drawn = weights[start : start + _BLOCK, units]
        # Whole numbers below 2**24, so that float32 sums are exact in any order.
        rows_down_to = np.cumsum(drawn, axis=1)
        positives_down_to = np.cumsum(drawn[:, positive], axis=1)
        rows, positives = rows_down_to[:, -1].astype(np.float64), positives_down_to[:, -1].astype(np.float64)

        hits = positives_down_to[:, last_of_level].astype(np.float64)
        hits_above = np.concatenate([np.zeros((len(hits), 1)), hits[:, :-1]], axis=1)
        hits_here = hits - hits_above
        seen = rows_down_to[:, last[levels]].astype(np.float64)
        seen_above = np.where(first[levels] > 0, rows_down_to[:, first[levels] - 1], 0)
        wrong_above = ((seen - hits) + (seen_above - hits_above)) / 2  # the mean over the tie is its half
        block = slice(start, start + _BLOCK)
        lost[block] = (hits_here * wrong_above).sum(axis=1)
        pairs[block] = positives * (rows - positives)
        with np.errstate(invalid="ignore"):
            precision[block] = (hits_here * hits / np.maximum(seen, 1)).sum(axis=1) / positives
    return lost, pairs, precision


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
    every = Resampling(resampling.unit_of_row, resampling.weights[:1])
    found = np.zeros(width)
    unknown = np.full((len(resampling.weights), width), np.nan)
    for _ in range(_STEPS):
        step = _step(truth, columns, expit(columns @ found + offset), every)[0]
        if not np.abs(step).max() < _FAR:
            return unknown
        found = found + step
        if np.abs(step).max() < 1e-8:
            break
    else:
        return unknown
    return found + _step(truth, columns, expit(columns @ found + offset), resampling)


def _step(truth: np.ndarray, columns: np.ndarray, probability: np.ndarray, resampling: Resampling) -> np.ndarray:
    """One step of Newton's method in every resample: float64 (B, K), NaN where it is not defined."""
    width = columns.shape[1]
    spread = probability * (1 - probability)
    products = (columns[:, :, None] * columns[:, None] * spread[:, None, None]).reshape(len(truth), -1)
    sums = resampling.sum(np.column_stack([columns * (truth - probability)[:, None], products]))
    gradient, hessian = sums[:, :width], sums[:, width:].reshape(-1, width, width)
    singular = np.linalg.det(hessian) <= 1e-9 * hessian[:, 0, 0] ** width
    steps = np.linalg.solve(np.where(singular[:, None, None], np.eye(width), hessian), gradient[:, :, None])[:, :, 0]
    return np.where(singular[:, None], np.nan, steps)
