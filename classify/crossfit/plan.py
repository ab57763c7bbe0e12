"""Plan the fits of a run: folds, by group where groups are known, and the rows that each model learns and predicts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.inputs import Inputs
from classify.models.files import SavedEstimator
from classify.models.trained_head import TrainedHead
from features.common.arrays import Probabilities, RowIndices
from features.folds.folds import Folds, make_folds

#: The fit on all training rows.
REFIT = "refit"


class FitRows(NamedTuple):
    """The rows that one fit of a model learns from and predicts; `REFIT` holds none out.

    Attributes:
        name: `fold0`, `fold1`, ... over all repeats, or `refit`; a fitted model is saved under it.
        predicts_test: whether its probabilities of the test rows count.
    """

    name: str
    learnt: RowIndices
    held_out: RowIndices
    predicts_test: bool


@dataclass(frozen=True)
class Fit:
    """A baseline or a head fitted once, and what it predicts of the rows held out and of test, or None.

    Attributes:
        converged: whether its solver reached its tolerance, or its head had a finite validation loss.
    """

    model: SavedEstimator | TrainedHead
    out_of_fold: Probabilities
    test: Probabilities | None
    converged: bool
    seconds: float


@dataclass(frozen=True)
class Prediction:
    """The probabilities that a model gives.

    Attributes:
        by_repeat: float32 array (R, N, L), 0-1: of each training row, by the model of the fold that held it out, in
            every repeat.
        test_by_fit: float32 array (F, M, L), 0-1: of the test rows by the model of each fold of every repeat, or by the
            one that was refitted; None without test rows.
        converged: whether every fit has.
        seconds: the time that fitting and predicting took, summed over the fits; of an ensemble, without its members'.
        backbones: those whose features it sees, directly or through its members.
        shares: of an ensemble that is a weighted mean, the share of each member that has one.
    """

    by_repeat: np.ndarray
    test_by_fit: np.ndarray | None
    converged: bool = True
    seconds: float = 0.0
    backbones: tuple[str, ...] = ()
    shares: dict[str, float] = field(default_factory=dict)

    @cached_property
    def out_of_fold(self) -> Probabilities:
        """The mean over the repeats."""
        return mean_probabilities(list(self.by_repeat))

    @cached_property
    def test(self) -> Probabilities | None:
        """The mean over the fits, of the test rows."""
        return None if self.test_by_fit is None else mean_probabilities(list(self.test_by_fit))


def in_threads(jobs: int, act: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Call a function with each of some tuples of arguments, so many at a time, in threads, which share the features.

    Each has one BLAS thread: how a product is cut between threads changes its last bits, and so would `jobs`. If a call
    fails, its error is raised once no other is at work: Python must not end while a thread is in C++ code.
    """
    failed: list[Exception] = []

    def guarded(*call: Any) -> Any:
        try:
            return None if failed else act(*call)
        except Exception as error:  # noqa: BLE001 - raised below
            failed.append(error)

    calls = list(calls)
    with threadpool_limits(1, user_api="blas"):
        pool = Parallel(n_jobs=min(jobs, len(calls) or 1), backend="threading")
        results = pool(delayed(guarded)(*call) for call in calls)
    if failed:
        raise failed[0]
    return results


def mean_probabilities(members: Sequence[Probabilities]) -> Probabilities:
    """Average the probabilities that at least one model gives for the same rows; the sum is taken in float64."""
    return np.stack(members).mean(axis=0, dtype=np.float64).astype(np.float32)


@dataclass(frozen=True)
class FitPlan:
    """How every model of a run is fitted: by the folds of each repeat; to predict test, if asked, on all rows too."""

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

    @property
    def fold_of_row(self) -> np.ndarray:
        """Which fold holds each training row out, in every repeat: int64 (R, N)."""
        return np.stack([folds.fold_of_row for folds in self.repeats])

    def gather(self, fits: Sequence[Fit], backbones: tuple[str, ...]) -> Prediction:
        """Put the probabilities of a model's fits together, given in the order of `fits()`."""
        by_repeat = np.empty((*self.fold_of_row.shape, fits[0].out_of_fold.shape[1]), np.float32)
        for number, (rows, fit) in enumerate(zip(self.fits(), fits, strict=True)):
            if len(rows.held_out):
                by_repeat[number // self.repeats[0].count, rows.held_out] = fit.out_of_fold
        of_test = [fit.test for fit in fits if fit.test is not None]
        return Prediction(
            by_repeat,
            np.stack(of_test) if of_test else None,
            all(fit.converged for fit in fits),
            sum(fit.seconds for fit in fits),
            backbones,
        )


def make_repeats(inputs: Inputs, count: int, repeats: int, seed: int) -> tuple[Folds, ...]:
    """Make the folds of every repeat, as `make_folds`; the seed is that of the first, which the others draw from."""
    drawn = np.random.SeedSequence(seed).generate_state(repeats)[1:]
    return tuple(
        make_folds(inputs.train_labels, inputs.train.groups, inputs.label_names, count, own)
        for own in (seed, *map(int, drawn))
    )
