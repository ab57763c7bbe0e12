"""Plan the fits of a run: which rows each model learns from, and what it predicts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from classify.crossfit.folds import Folds, make_folds
from classify.crossfit.prediction import Fit, Prediction
from classify.crossfit.resume import FinishedFits
from classify.ensembles.ensembles import mean_ensemble
from classify.inputs import Inputs

#: The fit on all training rows.
REFIT = "refit"


class FitRows(NamedTuple):
    """What one fit of a model is about.

    Attributes:
        name: `fold0`, `fold1`, ... over all repeats, or `refit`; a fitted model is saved under it.
        learnt: int64 array, ascending: the rows to learn from.
        held_out: int64 array, ascending: the rows to predict; none for `refit`.
        predicts_test: whether its probabilities of the test rows count.
    """

    name: str
    learnt: np.ndarray
    held_out: np.ndarray
    predicts_test: bool


@dataclass(frozen=True)
class FitPlan:
    """How every model of a run is fitted.

    Attributes:
        repeats: the folds of each repeat, at least one, all of the same rows and the same count.
        refit: whether each model is fitted on all rows too, and that one predicts test.
        finished: fits of an earlier, interrupted run.
    """

    repeats: tuple[Folds, ...]
    refit: bool = False
    finished: FinishedFits = field(default_factory=FinishedFits)

    def fits(self) -> list[FitRows]:
        """List the fits of a model: fold by fold, repeat by repeat, then the one on all rows."""
        splits = [split for folds in self.repeats for split in folds.split()]
        fits = [FitRows(f"fold{index}", *split, not self.refit) for index, split in enumerate(splits)]
        if self.refit:
            every = np.arange(len(self.repeats[0].fold_of_row))
            fits.append(FitRows(REFIT, every, every[:0], True))
        return fits

    def gather(self, fits: Sequence[Fit], backbones: tuple[str, ...]) -> Prediction:
        """Put the probabilities of a model's fits together.

        Args:
            fits: one for each of `fits()`, in that order.
            backbones: whose features the model sees.
        """
        total = np.zeros((len(self.repeats[0].fold_of_row), fits[0].out_of_fold.shape[1]))
        for rows, fit in zip(self.fits(), fits, strict=True):
            total[rows.held_out] += fit.out_of_fold
        of_test = [fit.test for fit in fits if fit.test is not None]
        return Prediction(
            (total / len(self.repeats)).astype(np.float32),
            mean_ensemble(of_test) if of_test else None,
            all(fit.converged for fit in fits),
            sum(fit.seconds for fit in fits),
            backbones,
        )


def make_repeats(inputs: Inputs, count: int, repeats: int, seed: int) -> tuple[Folds, ...]:
    """Make the folds of every repeat.

    Args:
        inputs: whose training rows.
        count: the number of folds, at least 2.
        repeats: at least 1.
        seed: 0 to 2**32 - 1: that of the first repeat, from which the others draw theirs.

    Raises:
        InputError: there are fewer rows, or fewer groups, than folds.
    """
    drawn = np.random.SeedSequence(seed).generate_state(repeats)[1:]
    return tuple(
        make_folds(inputs.train_labels, inputs.train.groups, inputs.label_names, count, own)
        for own in (seed, *map(int, drawn))
    )
