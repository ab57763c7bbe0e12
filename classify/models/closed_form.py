"""Ridge regression in closed form, and what each group would get without its own rows."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri

from features.common.arrays import Groups
from features.store.mapped import BLOCK, AnyFeatures, in_blocks

#: A feature of a lower deviation is a constant: a line through it would leave the range of float32.
_CONSTANT = 1e-30


def measure_scale(X: AnyFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Measure mean and standard deviation of each feature, float64 (D,) each; of one below `_CONSTANT` it is 1.

    Block by block, as a float64 copy of all features would be twice as large as they are.
    """
    mean = measure_mean(X)
    squares = np.zeros_like(mean)
    for rows in in_blocks(len(X)):
        squares += ((X[rows] - mean) ** 2).sum(axis=0)
    scale = np.sqrt(squares / len(X))
    return mean, np.where(scale < _CONSTANT, 1.0, scale)


def measure_mean(X: AnyFeatures) -> np.ndarray:
    """Measure the mean of each feature: float64 (D,)."""
    total = np.zeros(X.shape[1])
    for rows in in_blocks(len(X)):
        total += X[rows].sum(axis=0, dtype=np.float64)
    return total / len(X)


class RidgeSolver:
    """Least squares on centred and scaled features with an L2 penalty, and what each group gets of a fit without it.

    By a Cholesky decomposition of the products of features, or of rows, whichever are fewer. An eigendecomposition
    would serve all penalties, and takes as long as six of these (2,278 rows).

    Args:
        X: features (N, D).
        truth: float64 (N, L).
        scale: float64 (D,), what the features are divided by.
        groups: (N,), or None. One that has all rows counts as none.
    """

    def __init__(self, X: AnyFeatures, truth: np.ndarray, scale: np.ndarray, groups: Groups | None) -> None:
        if len(X) <= X.shape[1]:
            X = np.asarray(X)  # products of rows are of all columns
        self._truth, self._intercept = truth, truth.mean(axis=0)
        self._scaled = _Scaled(X, measure_mean(X), scale)
        self._products = self._scaled.multiply()
        self._of_rows = len(self._products) == len(X)
        units = np.arange(len(X)) if groups is None else np.unique(groups, return_inverse=True)[1]
        # Without its only group nothing is left to learn from.
        self._batches = list(_batches(units if units.any() else np.arange(len(X))))

    def solve(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Solve with a penalty on the squares of the coefficients.

        With the hat matrix H of all rows, the intercept's part in it, the residuals of a group g without it are
        (I - H_gg)^-1 times its fitted residuals (Cook and Weisberg 1982, section 3.2, of rows).

        Returns:
            Coefficients on the scaled features, float64 (D, L), and the score of each row by a fit without its group,
            or without itself, float64 (N, L).

        Raises:
            np.linalg.LinAlgError: the penalty is lost in the rounding of the products, as that of collinear features.
        """
        centred = self._truth - self._intercept
        given = centred if self._of_rows else self._scaled.weigh(centred)
        shifted = self._products.copy(order="F")
        shifted[np.diag_indices(len(shifted))] += penalty
        factor, failed_at = dpotrf(shifted, lower=1, overwrite_a=1)
        if failed_at:
            raise np.linalg.LinAlgError(
                f"ridge regression: with a penalty of {penalty:g} the products of features are not positive definite "
                f"(row {failed_at} of {len(factor)}). Use a larger penalty."
            )
        weights = cho_solve((factor, True), given)
        coefficients = self._scaled.weigh(weights) if self._of_rows else weights
        inverse = dpotri(factor, lower=1, overwrite_c=1)[0] if self._of_rows else factor
        alone = np.empty_like(self._truth)
        for members in self._batches:
            batch = np.concatenate(members)
            if self._of_rows:
                residual = penalty * weights[batch]
            else:
                seen = self._scaled.see(batch)
                residual = centred[batch] - seen @ weights
                turned = solve_triangular(factor, seen.T, lower=True)
            start = 0
            for group in members:
                part = slice(start, start := start + len(group))
                if self._of_rows:
                    lower = penalty * np.tril(inverse[np.ix_(group, group)])
                    kept = lower + np.tril(lower, -1).T
                else:
                    kept = np.eye(len(group)) - turned[:, part].T @ turned[:, part]
                residual[part] = np.linalg.solve(kept - 1 / len(self._truth), residual[part])
            alone[batch] = self._truth[batch] - residual
        return coefficients, alone


class _Scaled(NamedTuple):
    """Features (N, D), centred and scaled some rows at a time: a copy of all would be as large as they are."""

    X: AnyFeatures
    mean: np.ndarray
    scale: np.ndarray

    def see(self, rows: np.ndarray | slice) -> np.ndarray:
        """Centre and scale some rows: float32 (n, D)."""
        return ((self.X[rows] - self.mean) / self.scale).astype(np.float32)

    def multiply(self) -> np.ndarray:
        """Multiply features (D, D) or rows (N, N), whichever are fewer: float64 sums of float32 products."""
        rows, width = self.X.shape
        products = np.zeros((min(rows, width), min(rows, width)))
        if rows > width:
            for part in in_blocks(rows):
                block = self.see(part)
                products += block.T @ block
            return products
        for start in range(0, width, BLOCK):
            columns = slice(start, start + BLOCK)
            block = ((self.X[:, columns] - self.mean[columns]) / self.scale[columns]).astype(np.float32)
            products += block @ block.T
        return products

    def weigh(self, weights: np.ndarray) -> np.ndarray:
        """Add up the rows by weights (N, L): float64 (D, L)."""
        total = np.zeros((self.X.shape[1], weights.shape[1]))
        for rows in in_blocks(len(self.X)):
            total += self.see(rows).T @ weights[rows]
        return total


def _batches(group_of_row: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yield the rows of each group, some groups at a time: some thousand rows, or one larger group."""
    batch: list[np.ndarray] = []
    count = 0
    for group in np.split(np.argsort(group_of_row, kind="stable"), np.cumsum(np.bincount(group_of_row))[:-1]):
        if batch and count + len(group) > BLOCK:
            yield batch
            batch, count = [], 0
        batch.append(group)
        count += len(group)
    yield batch
