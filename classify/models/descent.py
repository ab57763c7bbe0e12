"""Minimise the penalised log losses of many logistic fits at once, in products of matrices, in memory or in blocks."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_solve
from scipy.sparse.linalg import LinearOperator
from scipy.special import expit, logit

from features.store.mapped import AnyFeatures, MappedFeatures, in_blocks

#: Directions of the features, those of the greatest variance, that the solver scales one by one.
_DIRECTIONS = 64


class Standardised(LinearOperator):
    """Features, centred and scaled, and a last column of ones: float32 (N, D + 1), read and made some rows at a time.

    What the solver asks of an array it gives too: a shape, `@`, and `.T @`.
    """

    def __init__(self, X: AnyFeatures, mean: np.ndarray, scale: np.ndarray) -> None:
        super().__init__(np.float32, (len(X), X.shape[1] + 1))
        self._X, self._mean, self._scale = X, mean.astype(np.float32), scale.astype(np.float32)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Some of its rows, int64 (n,)."""
        seen = np.ones((len(rows), self.shape[1]), np.float32)
        np.divide(self._centre(rows), self._scale, out=seen[:, :-1])
        return seen

    def _centre(self, rows: np.ndarray | slice) -> np.ndarray:
        """Some rows of the features, centred: float32 (n, D)."""
        features: np.ndarray = self._X[rows]
        # What is read from the disk is a copy.
        return np.subtract(features, self._mean, out=features if isinstance(self._X, MappedFeatures) else None)

    def _matmat(self, lines: np.ndarray) -> np.ndarray:
        """The products of all rows with lines (D + 1, B): float32 (N, B)."""
        products = np.empty((self.shape[0], lines.shape[1]), np.float32)
        scaled = lines[:-1] / self._scale[:, None]
        for rows in in_blocks(self.shape[0]):
            products[rows] = self._centre(rows) @ scaled
        products += lines[-1]
        return products

    def _rmatmat(self, values: np.ndarray) -> np.ndarray:
        """The sum of all rows by values (N, B): float32 (D + 1, B), added up in float64."""
        total = np.zeros((self.shape[1], values.shape[1]))
        for rows in in_blocks(self.shape[0]):
            total[:-1] += self._centre(rows).T @ values[rows]
        total[:-1] /= self._scale[:, None]
        total[-1] = values.sum(axis=0, dtype=np.float64)
        return total.astype(np.float32)


class Curvature(NamedTuple):
    """The sums of squares of features by direction: `values` (K,) along the columns of `basis` (D + 1, K), else `rest`.

    Directions are found by subspace iteration (Halko et al. 2011, algorithm 4.4) from a seeded start. The last column
    of the features is the intercept's, and no part of any direction.
    """

    basis: np.ndarray
    values: np.ndarray
    rest: float
    rows: int

    @classmethod
    def of(cls, seen: np.ndarray) -> "Curvature":
        """Measure it on features, float32 (N, D + 1)."""
        features = seen[:, :-1]
        rows, width = features.shape
        basis = np.random.default_rng(0).normal(size=(width, min(_DIRECTIONS, rows, width))).astype(np.float32)
        for _ in range(2):
            basis = np.linalg.qr(features.T @ (features @ basis))[0]
        projected = features @ basis
        values, turn = np.linalg.eigh(projected.T @ projected)
        left = max(width - basis.shape[1], 1)
        rest = max(float(np.vdot(features, features)) - float(values.sum()), 0.0) / left
        padded = np.vstack([basis @ turn, np.zeros((1, len(values)), np.float32)])
        return cls(padded, np.maximum(values, 0), rest, rows)

    def solve(self, gradient: np.ndarray, now: Mapping[str, np.ndarray]) -> np.ndarray:
        """Turn gradients (D + 1, B) into Newton's steps, by the curvature at the shares of positives."""
        scale = now["weight"] / self.rows
        flat = 1 / (scale * self.rest + now["penalty"])
        along = 1 / (scale * self.values[:, None] + now["penalty"])
        steps: np.ndarray = flat * gradient + self.basis @ ((along - flat) * (self.basis.T @ gradient))
        steps[-1] = gradient[-1] / now["weight"]
        return steps


class SampledCurvature(NamedTuple):
    """Of each fit the curvature of its loss, as a sample of the rows tells: Cholesky factors, float32 (D + 1, D + 1).

    Close to the solution it differs from that of all rows by a factor near 1 in every direction (Roosta-Khorasani and
    Mahoney 2019, lemma 1), so that a dozen steps over all of them are enough.
    """

    factors: Sequence[np.ndarray]

    @classmethod
    def of(
        cls, seen: Standardised, sample: np.ndarray, learnt: np.ndarray, lines: np.ndarray, penalty: np.ndarray
    ) -> "SampledCurvature":
        """Measure it at lines (D + 1, B) on a sample of the rows, int64 (n,); arrays as those of `descend`."""
        rows, width = seen.shape
        curvatures = np.zeros((len(penalty), width, width))
        for part in in_blocks(len(sample)):
            block = seen.read(sample[part])
            probability = expit(block @ lines)
            weights = np.sqrt(probability * (1 - probability) * learnt[sample[part]] * np.float32(rows / len(sample)))
            for curvature, weight in zip(curvatures, weights.T, strict=True):
                weighed = block * weight[:, None]
                curvature += weighed.T @ weighed
        diagonal = np.arange(width)
        curvatures[:, diagonal, diagonal] += penalty[:, None]  # to the intercept's, which has none, little
        return cls([np.linalg.cholesky(curvature).astype(np.float32) for curvature in curvatures])

    def solve(self, gradient: np.ndarray, now: Mapping[str, np.ndarray]) -> np.ndarray:
        """Turn gradients (D + 1, B) into Newton's steps."""
        own = zip(now["fit"], gradient.T, strict=True)
        return np.column_stack([cho_solve((self.factors[fit], True), of_fit) for fit, of_fit in own])


def start_lines(width: int, truth: np.ndarray, learnt: np.ndarray) -> np.ndarray:
    """Lines that give each fit its share of positives: float32 (width, B), the intercept in the last row."""
    line = np.zeros((width, truth.shape[1]), np.float32)
    line[-1] = logit((truth * learnt).sum(axis=0) / learnt.sum(axis=0))
    return line


def descend(
    seen: np.ndarray | Standardised,
    truth: np.ndarray,
    learnt: np.ndarray,
    penalty: np.ndarray,
    curvature: Curvature | SampledCurvature,
    max_iter: int,
    tolerance: float,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise the penalised log losses of B fits at once, which drop out as they are done.

    Args:
        seen: float32 (N, D + 1), centred features and a last column of ones.
        truth: float32 (N, B), 0 or 1; both among the rows that a fit learns from.
        learnt: float32 (N, B), 1 for the rows that a fit learns from, else 0.
        penalty: (B,), on half the squares of all coefficients but the last.
        curvature: of all the rows' features, of more rows than these, or of a sample.
        max_iter: steps at the most.
        tolerance: log loss a row that may be left to gain.
        start: where to begin, float32 (D + 1, B); None: at the shares of positives.

    Returns:
        float32 (D + 1, B) coefficients, and bool (B,), whether the tolerance was reached.
    """
    rows = learnt.sum(axis=0)
    share = (truth * learnt).sum(axis=0) / rows
    line = start_lines(seen.shape[1], truth, learnt) if start is None else start
    now = {  # columns are fits
        "fit": np.arange(len(rows)),
        "truth": truth,
        "learnt": learnt,
        "penalty": penalty.astype(np.float32),
        "rows": rows,
        "weight": share * (1 - share) * rows,
        "line": line,
        "logits": np.tile(line[-1], (seen.shape[0], 1)) if start is None else seen @ line,
        "step": np.zeros_like(line),
        "before": np.zeros_like(line),  # the gradient of the step before
        "size": np.ones_like(rows),  # and its length in the metric of the curvature
    }
    result, converged = line.copy(), np.zeros(len(rows), bool)
    for _ in range(max_iter):
        shrink = now["penalty"] * (np.arange(len(line)) < len(line) - 1)[:, None]
        gradient = seen.T @ ((expit(now["logits"]) - now["truth"]) * now["learnt"]) + shrink * now["line"]
        newton = curvature.solve(gradient, now)
        size = (gradient * newton).sum(axis=0)
        turn = np.maximum(0, (newton * (gradient - now["before"])).sum(axis=0) / now["size"])
        step = turn * now["step"] - newton
        uphill = (gradient * step).sum(axis=0) >= 0
        step[:, uphill] = -newton[:, uphill]
        now |= {"step": step, "before": gradient, "size": size}
        done = size < tolerance * now["rows"]
        if done.any():
            result[:, now["fit"][done]], converged[now["fit"][done]] = now["line"][:, done], True
            now = {name: array[..., ~done] for name, array in now.items()}
            if done.all():
                break
        change = seen @ now["step"]
        length = _search(now, change)
        now |= {"line": now["line"] + length * now["step"], "logits": now["logits"] + length * change}
    result[:, now["fit"]] = now["line"]
    return result, converged


def _search(now: dict[str, np.ndarray], change: np.ndarray) -> np.ndarray:
    """How far to go along a step that changes the logits by so much, float32 (N, B): three of Newton's steps, (B,)."""
    step, line = now["step"][:-1], now["line"][:-1]
    bend = now["penalty"] * (step * step).sum(axis=0)
    slope_at_0 = now["penalty"] * (line * step).sum(axis=0)
    own = change * now["learnt"]
    length, low, high = np.zeros_like(bend), np.zeros_like(bend), np.full_like(bend, np.inf)
    for _ in range(3):
        probability = expit(now["logits"] + length * change)
        slope = ((probability - now["truth"]) * own).sum(axis=0) + slope_at_0 + length * bend
        low, high = np.where(slope < 0, length, low), np.where(slope < 0, high, length)
        proposed = length - slope / ((probability * (1 - probability) * change * own).sum(axis=0) + bend)
        inside = (proposed > low) & (proposed < high)  # the slope rises, so that its zero lies between these
        length = np.where(inside, proposed, np.where(np.isinf(high), 2 * low, (low + high) / 2))
    return length
