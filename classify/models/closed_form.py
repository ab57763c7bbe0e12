"""Ridge regression in closed form: every penalty at once, and what each group would get without its own rows."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from features.common.arrays import Features, Groups

#: Rows, or features, at a time that become float64: 84 MB of 2,560 features.
_ROWS = 4096
#: A feature of a lower deviation is a constant: a line through it would leave the range of float32.
_CONSTANT = 1e-30


def measure_scale(X: Features) -> tuple[np.ndarray, np.ndarray]:
    """Measure mean and standard deviation of each feature, float64 (D,) each; of one below `_CONSTANT` it is 1.

    Block by block, as a float64 copy of all features would be twice as large as they are.
    """
    mean = X.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for start in range(0, len(X), _ROWS):
        squares += ((X[start : start + _ROWS] - mean) ** 2).sum(axis=0)
    scale = np.sqrt(squares / len(X))
    return mean, np.where(scale < _CONSTANT, 1.0, scale)


def solve_ridge(X: Features, truth: np.ndarray, penalty: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Solve least squares on centred and scaled features with an L2 penalty, by a Cholesky decomposition.

    It is of the products of features, or of rows, whichever are fewer.

    Args:
        X: features (N, D).
        truth: float64 (N, L).
        penalty: of each label, (L,), on the squares of its coefficients.
        scale: float64 (D,), what the features are divided by.

    Returns:
        Coefficients on the scaled features, float64 (D, L).
    """
    scaled = _Scaled(X, X.mean(axis=0, dtype=np.float64), scale)
    products = scaled.multiply()
    of_rows = len(products) == len(X)
    solved = truth - truth.mean(axis=0)
    if not of_rows:
        solved = scaled.weigh(solved)
    for strength in np.unique(penalty):
        own = penalty == strength
        factor = cho_factor(products + strength * np.eye(len(products)), overwrite_a=True)
        solved[:, own] = cho_solve(factor, solved[:, own])
    return scaled.weigh(solved) if of_rows else solved


def score_groups_alone(
    X: Features, truth: np.ndarray, penalties: np.ndarray, scale: np.ndarray, groups: Groups | None
) -> np.ndarray:
    """Score each row by a least squares fit without its group, or without itself; all penalties by one decomposition.

    With the hat matrix H of all rows, the intercept's part in it, the residuals of a group g are (I - H_gg)^-1 times
    its fitted residuals (Cook and Weisberg 1982, section 3.2, of rows). The decomposition is of products, not of the
    features: a tenth of the time, and the digits that they lose are of directions without variance, whose penalty is
    far above that rounding.

    Args:
        X: features (N, D).
        truth: float64 (N, L).
        penalties: P of them, on the squares of the coefficients.
        scale: float64 (D,), what the features are divided by.
        groups: (N,), or None.

    Returns:
        float64 (P, N, L).
    """
    rows = len(X)
    scaled = _Scaled(X, X.mean(axis=0, dtype=np.float64), scale)
    products = scaled.multiply()
    squares, basis = np.linalg.eigh(products)
    squares = np.maximum(squares, 0)
    scores = basis * np.sqrt(squares) if len(products) == rows else scaled.turn(basis)
    turned, intercept = scores.T @ truth, truth.mean(axis=0)
    alone = np.empty((len(penalties), *truth.shape))
    for members in _batches(np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]):
        batch = np.concatenate(members)
        ends = np.cumsum([len(group) for group in members])
        for out, penalty in zip(alone, penalties, strict=True):
            shrunk = 1 / (squares + penalty)
            residual = truth[batch] - intercept - scores[batch] @ (shrunk[:, None] * turned)
            if len(members) == len(batch):
                residual /= 1 - 1 / rows - (scores[batch] ** 2 @ shrunk)[:, None]
            else:
                for end, group in zip(ends, members, strict=True):
                    part = slice(end - len(group), end)
                    hat = 1 / rows + (scores[group] * shrunk) @ scores[group].T
                    residual[part] = np.linalg.solve(np.eye(len(group)) - hat, residual[part])
            out[batch] = truth[batch] - residual
    return alone


class _Scaled(NamedTuple):
    """Features (N, D), centred and scaled block by block: a float32 copy of all would be as large as they are."""

    X: Features
    mean: np.ndarray
    scale: np.ndarray

    def multiply(self) -> np.ndarray:
        """Multiply features (D, D) or rows (N, N), whichever are fewer: float64 sums of float32 products."""
        rows, width = self.X.shape
        products = np.zeros((min(rows, width), min(rows, width)))
        if rows > width:
            for _, block in self._blocks():
                products += block.T @ block
            return products
        for start in range(0, width, _ROWS):
            columns = slice(start, start + _ROWS)
            block = ((self.X[:, columns] - self.mean[columns]) / self.scale[columns]).astype(np.float32)
            products += block @ block.T
        return products

    def weigh(self, weights: np.ndarray) -> np.ndarray:
        """Add up the rows by weights (N, L): float64 (D, L)."""
        total = np.zeros((self.X.shape[1], weights.shape[1]))
        for rows, block in self._blocks():
            total += block.T @ weights[rows]
        return total

    def turn(self, basis: np.ndarray) -> np.ndarray:
        """Project the rows on a basis (D, K): float64 (N, K)."""
        return np.concatenate([block @ basis for _, block in self._blocks()])

    def _blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield some rows at a time, and which they are: float32 (n, D)."""
        for start in range(0, len(self.X), _ROWS):
            rows = slice(start, start + _ROWS)
            yield rows, ((self.X[rows] - self.mean) / self.scale).astype(np.float32)


def _batches(group_of_row: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yield the rows of each group, some groups at a time: some thousand rows, or one larger group."""
    batch: list[np.ndarray] = []
    count = 0
    for group in np.split(np.argsort(group_of_row, kind="stable"), np.cumsum(np.bincount(group_of_row))[:-1]):
        if batch and count + len(group) > _ROWS:
            yield batch
            batch, count = [], 0
        batch.append(group)
        count += len(group)
    yield batch
