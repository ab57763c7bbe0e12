"""Ridge regression in closed form: every penalty at once, and what each group would get without its own rows."""

from collections.abc import Iterator

import numpy as np

from features.common.arrays import Features, Groups

#: Rows at a time that become float64: 84 MB of 2,560 features.
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


class RidgePath:
    """Least squares on centred and scaled features with L2 penalties, all by one eigendecomposition.

    It is of the products of features, or of rows, whichever are fewer: beside the rows' own it needs no copy of the
    features, and a tenth of the time of their singular value decomposition. The products lose digits of directions
    without variance, whose penalty is far above that rounding.

    Args:
        X: features (N, D).
        truth: float64 (N, L).
        penalties: P of them.
        scale: float64 (D,), what the features are divided by.

    Attributes:
        mean: float64 (D,), of the features.
        intercept: float64 (L,).
    """

    def __init__(self, X: Features, truth: np.ndarray, penalties: np.ndarray, scale: np.ndarray) -> None:
        self._X, self._truth, self._scale = X, truth, scale
        self.mean = X.mean(axis=0, dtype=np.float64)
        self.intercept = truth.mean(axis=0)
        rows, width = X.shape
        if rows > width:
            products, fitted = np.zeros((width, width)), np.zeros((width, truth.shape[1]))
            for start in range(0, rows, _ROWS):
                block = slice(start, start + _ROWS)
                seen = self._see(block)
                products += seen.T @ seen
                fitted += seen.T @ truth[block]
            squares, self._basis = np.linalg.eigh(products)
            self._turned = self._basis.T @ fitted
            self._scores = None
        else:
            seen = self._see(slice(None))
            squares, left = np.linalg.eigh(seen @ seen.T)
            self._scores = left * np.sqrt(np.maximum(squares, 0))
            self._basis, self._turned = seen.T @ left, left.T @ truth
        self._squares = np.maximum(squares, 0)
        self._shrunk = 1 / (self._squares[:, None] + penalties)

    def coefficients(self, penalty: np.ndarray) -> np.ndarray:
        """Give those on the scaled features, float64 (D, L), for a penalty per label, (L,)."""
        return self._basis @ (self._turned / (self._squares[:, None] + penalty))

    def scores_alone(self, groups: Groups | None) -> np.ndarray:
        """Give each row the score of a fit without its group, or without itself: float64 (P, N, L).

        With the hat matrix H of all rows, the intercept's part in it, the residuals of a group g are (I - H_gg)^-1
        times its fitted residuals (Cook and Weisberg 1982, section 3.2, of rows).
        """
        rows = len(self._truth)
        turned = self._turned if self._scores is None else np.sqrt(self._squares)[:, None] * self._turned
        alone = np.empty((self._shrunk.shape[1], *self._truth.shape))
        for members in _batches(np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]):
            batch = np.concatenate(members)
            scores = self._see(batch) @ self._basis if self._scores is None else self._scores[batch]
            ends = np.cumsum([len(group) for group in members])
            for out, shrunk in zip(alone, self._shrunk.T, strict=True):
                residual = self._truth[batch] - self.intercept - scores @ (shrunk[:, None] * turned)
                if len(members) == len(batch):
                    residual /= 1 - 1 / rows - (scores**2 @ shrunk)[:, None]
                else:
                    for end, group in zip(ends, members, strict=True):
                        part = slice(end - len(group), end)
                        hat = 1 / rows + (scores[part] * shrunk) @ scores[part].T
                        residual[part] = np.linalg.solve(np.eye(len(group)) - hat, residual[part])
                out[batch] = self._truth[batch] - residual
        return alone

    def _see(self, rows: np.ndarray | slice) -> np.ndarray:
        """Centre and scale some rows: float64."""
        return (self._X[rows] - self.mean) / self._scale


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
