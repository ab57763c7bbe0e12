"""What the final model says of the images of a split: what the tables of readings are made of."""

from dataclasses import dataclass

import numpy as np

from classify.scores.resampling import Resampling
from classify.scores.scoring import ByFold
from features.common.arrays import Decisions, Groups, Labels, Probabilities


@dataclass(frozen=True)
class SplitReading:
    """The labelled images of a split, N of them.

    Attributes:
        name: `oof` or `test`.
        binary: decisions by the run's rule: cross-fitted, or by its thresholds on test.
        groups: None where no groups are known.
        resampling: the draws of the split.
        by_fold: of `oof`, what each fold's model gave; None on test.
    """

    name: str
    labels: Labels
    probabilities: Probabilities
    binary: Decisions
    groups: Groups | None
    resampling: Resampling
    by_fold: ByFold | None

    @property
    def unit_of_row(self) -> np.ndarray:
        """The group of each image, or itself: int64 (N,)."""
        return self.resampling.unit_of_row
