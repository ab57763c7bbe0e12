"""Draw bootstrap resamples of groups, as weights."""

from dataclasses import dataclass

import numpy as np

#: How many resamples an interval is made from.
DRAWS = 1000


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
        """Sum quantities of rows over every resample.

        Args:
            quantities: float64 array (N, K).

        Returns:
            float64 array (1 + draws, K).
        """
        of_units = np.column_stack(
            [np.bincount(self.unit_of_row, weights=column, minlength=self.unit_count) for column in quantities.T]
        )
        return self.weights.astype(np.float64) @ of_units


def resample(rows: int, groups: np.ndarray | None, seed: int, draws: int = DRAWS) -> Resampling:
    """Draw as many groups as there are, with replacement; rows where no groups are known.

    Slices of one patient are no independent evidence: an interval from resampled rows would be too narrow.

    Args:
        rows: N, at least 1.
        groups: array (N,) of str, or None.
        seed: the seed of the draws. The same arguments give the same draws.
        draws: the number of resamples.
    """
    unit_of_row = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(unit_of_row.max()) + 1
    drawn = np.random.default_rng(seed).integers(0, units, size=(draws, units))
    counts = np.bincount((drawn + units * np.arange(draws)[:, None]).ravel(), minlength=draws * units)
    weights = np.concatenate([np.ones((1, units)), counts.reshape(draws, units)]).astype(np.float32)
    return Resampling(unit_of_row, weights)
