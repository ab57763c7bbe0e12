"""Plan the fits of a run: which rows each model learns from, what it predicts, and the two put together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator

from classify.crossfit.folds import Folds, make_folds
from classify.inputs import Inputs
from classify.models.trained_head import TrainedHead
from features.common.arrays import Probabilities, RowIndices

#: The fit on all training rows.
REFIT = "refit"


class FitRows(NamedTuple):
    """What one fit of a model is about.

    Attributes:
        name: `fold0`, `fold1`, ... over all repeats, or `refit`; a fitted model is saved under it.
        learnt: the rows to learn from.
        held_out: the rows to predict; none for `refit`.
        predicts_test: whether its probabilities of the test rows count.
    """

    name: str
    learnt: RowIndices
    held_out: RowIndices
    predicts_test: bool


@dataclass(frozen=True)
class Fit:
    """A model fitted once, and what it predicts.

    Attributes:
        model: a fitted baseline, or a trained head.
        out_of_fold: of the rows held out.
        test: of the test rows; None without any, or where another fit predicts them.
        converged: whether its solver reached its tolerance, or its head had a finite validation loss.
        seconds: the time that it took.
    """

    model: BaseEstimator | TrainedHead
    out_of_fold: Probabilities
    test: Probabilities | None
    converged: bool
    seconds: float


@dataclass(frozen=True)
class Prediction:
    """The probabilities that a model gives.

    Attributes:
        out_of_fold: of each training row, by the model of the fold that held it out; of several repeats the mean.
        test: of the test rows: the mean over the models of all folds, or of the model that was refitted; None without
            test rows.
        converged: whether the solver of every fold and label reached its tolerance; True where there is no solver.
        seconds: the time that fitting and predicting took, summed over the fits; of an ensemble, without its members'.
        backbones: those whose features it sees, directly or through its members.
        shares: of an ensemble that is a weighted mean, the share of each member that has one; empty otherwise.
    """

    out_of_fold: Probabilities
    test: Probabilities | None
    converged: bool = True
    seconds: float = 0.0
    backbones: tuple[str, ...] = ()
    shares: dict[str, float] = field(default_factory=dict)


def mean_probabilities(members: Sequence[Probabilities]) -> Probabilities:
    """Average the probabilities that at least one model gives for the same rows; the sum is taken in float64."""
    return np.stack(members).mean(axis=0, dtype=np.float64).astype(np.float32)


@dataclass(frozen=True)
class FitPlan:
    """How every model of a run is fitted.

    Attributes:
        repeats: the folds of each repeat, at least one, all of the same rows and the same count.
        refit: whether each model is fitted on all rows too, and that one predicts test.
    """

    repeats: tuple[Folds, ...]
    refit: bool = False

    def fits(self) -> list[FitRows]:
        """List the fits of a model: fold by fold, repeat by repeat, then the one on all rows."""
        splits = [split for folds in self.repeats for split in folds.split()]
        fits = [FitRows(f"fold{index}", *split, not self.refit) for index, split in enumerate(splits)]
        if self.refit:
            every = np.arange(len(self.repeats[0].fold_of_row))
            fits.append(FitRows(REFIT, every, every[:0], True))
        return fits

    def gather(self, fits: Sequence[Fit], backbones: tuple[str, ...]) -> Prediction:
        """Put the probabilities of a model's fits together, given in the order of `fits()`."""
        total = np.zeros((len(self.repeats[0].fold_of_row), fits[0].out_of_fold.shape[1]))
        for rows, fit in zip(self.fits(), fits, strict=True):
            total[rows.held_out] += fit.out_of_fold
        of_test = [fit.test for fit in fits if fit.test is not None]
        return Prediction(
            (total / len(self.repeats)).astype(np.float32),
            mean_probabilities(of_test) if of_test else None,
            all(fit.converged for fit in fits),
            sum(fit.seconds for fit in fits),
            backbones,
        )


def make_repeats(inputs: Inputs, count: int, repeats: int, seed: int) -> tuple[Folds, ...]:
    """Make the folds of every repeat; the seed is that of the first, from which the others draw theirs.

    Raises:
        InputError: there are fewer rows, or fewer groups, than folds.
    """
    drawn = np.random.SeedSequence(seed).generate_state(repeats)[1:]
    return tuple(
        make_folds(inputs.train_labels, inputs.train.groups, inputs.label_names, count, own)
        for own in (seed, *map(int, drawn))
    )
