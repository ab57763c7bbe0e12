"""Plan the fits of a run: folds, by group where groups are known, and the rows that each model learns and predicts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.crossfit.stratify import stratify, take_share
from classify.inputs import Inputs, refuse_few
from classify.models.files import SavedEstimator
from classify.models.trained_head import TrainedHead
from features.common.arrays import UNKNOWN, Groups, Labels, Probabilities, RowIndices
from features.common.text import count_things

#: The fit on all training rows.
REFIT = "refit"
#: Draws of the stratifier, of which the most even is kept: groups cannot be cut, so one draw can be lopsided. Twenty
#: take 0.5 s; figures: docs/decisions.md.
GROUP_DRAWS = 20
#: Parts of which a share is taken, at most; of a small share more, but never more than these.
_PARTS, _MOST_PARTS = 20, 200
#: Units times choices of parts from which a share is sought: of few units several are needed. Figures:
#: docs/decisions.md.
_SOUGHT = 20_000


@dataclass(frozen=True)
class Folds:
    """Which fold holds each training row out.

    Attributes:
        fold_of_row: int64 array (N,), 0 to `count` - 1, in the order of the training rows.
        group_count: how many groups the rows belong to; None where no groups are known.
        warnings: what a reader of the scores has to know about these folds.
    """

    fold_of_row: np.ndarray
    count: int
    group_count: int | None
    warnings: tuple[str, ...]

    def split(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield per fold two int64 arrays, both ascending: the rows to train on, the rows held out."""
        for fold in range(self.count):
            held_out = self.fold_of_row == fold
            yield np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def describe(self) -> str:
        """Say in one line how the folds were made."""
        sizes = np.bincount(self.fold_of_row, minlength=self.count)
        rows = f"{self.count} folds of {sizes.min()} to {sizes.max()} rows"
        if self.group_count is None:
            unknown = "no groups known: images of one group may be on both sides of a split"
            return f"{rows}; {unknown} (--group-column, --group-from, --groups)"
        return f"{rows}; {self.group_count} groups, none of them in two folds"


def make_folds(
    labels: Labels,
    groups: Groups | None,
    label_names: tuple[str, ...],
    count: int,
    seed: int,
    draws: int | None = None,
) -> Folds:
    """Split rows into folds with like shares of every label and pair of labels; the rows of a group stay together.

    Pairs are second-order traits (Szymanski and Kajdanowicz 2017): without them a fold may hold its share of each label
    but no row that has two at once.

    Args:
        labels: the truth; every label has both values.
        groups: of the rows; None where no groups are known.
        label_names: of the L labels.
        count: of the folds, none of which is empty; at least 2.
        seed: 0 to 2**32 - 1. The same arguments give the same folds.
        draws: of whole groups, of which the most even is kept; None: `GROUP_DRAWS`.

    Raises:
        InputError: there are fewer rows, or fewer groups, than folds.
    """
    refuse_few(len(labels), groups, count)
    fold_of_row = _stratify_rows(labels, groups, count, seed, draws or GROUP_DRAWS)
    warnings = _uneven_folds(fold_of_row, labels, label_names, groups, count)
    return Folds(fold_of_row, count, None if groups is None else len(np.unique(groups)), warnings)


def draw_part(labels: Labels, groups: Groups | None, share: float, seed: int) -> np.ndarray:
    """Choose the rows, of whole groups, that come nearest to a share of all rows and of each value of each label.

    What is chosen among are folds, one or more together, and what single groups more or less make of them; of at most
    16 groups all choices.

    Args:
        labels: the truth; every label has both values.
        groups: of the rows; None where no groups are known.
        share: above 0 and below 1.
        seed: 0 to 2**32 - 1. The same arguments choose the same rows.

    Returns:
        bool array (N,): the rows chosen.

    Raises:
        InputError: there is one row alone, or one group.
    """
    refuse_few(len(labels), groups, 2)
    unit_of_row = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    units, first = np.unique(unit_of_row, return_index=True)
    columns = [np.ones(len(labels)), *(labels == 1).T, *(labels == 0).T]
    counts = np.column_stack([np.bincount(unit_of_row, weights=column) for column in columns]).astype(np.int64)
    most = min(max(_PARTS, round(1 / min(share, 1 - share))), _MOST_PARTS)
    part = Fraction(share).limit_denominator(min(most, len(units)))
    parts, together = max(part.denominator, 2), min(max(part.numerator, 1), max(part.denominator, 2) - 1)
    fold_of_unit = _stratify_rows(labels, groups, parts, seed, draws=1)[first]
    turns = min(parts, max(_SOUGHT // len(units), 1))
    starts = [(fold_of_unit - turn) % parts < together for turn in range(turns)]
    return take_share(counts, share, starts, seed)[unit_of_row]


def _label_pairs(labels: Labels) -> np.ndarray:
    """Tell which rows have two labels at once: bool (N, P), a column for each pair of labels that some row has."""
    pairs = [first & second for first, second in combinations((labels == 1).T, 2)]
    return np.array([pair for pair in pairs if pair.any()], dtype=bool).reshape(-1, len(labels)).T


def _spread(labels: Labels) -> np.ndarray:
    """Tell what is to be spread over the folds: bool (N, T), positives, then negatives of labels with unknown rows.

    Where a label is known of all rows, the negatives are spread as the rows are.
    """
    partial = (labels == UNKNOWN).any(axis=0)
    return np.column_stack([labels == 1, labels[:, partial] == 0])


def _stratify_rows(labels: Labels, groups: Groups | None, count: int, seed: int, draws: int) -> np.ndarray:
    """Split rows or, of several draws, whole groups where they are known: int64 (N,), the fold of each row."""
    if groups is not None:
        return _stratify_groups(labels, groups, count, seed, draws)
    every = np.ones(len(labels), bool)  # a trait of all rows: those of no label are spread, too
    return stratify(np.column_stack([_spread(labels), _label_pairs(labels), every]), count, seed)


def _stratify_groups(labels: Labels, groups: Groups, count: int, seed: int, draws: int) -> np.ndarray:
    """Split whole groups; of several draws keep the one whose folds are most alike in rows and in labels."""
    group_of_row = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(group_of_row)
    wanted = np.column_stack([np.bincount(group_of_row, weights=column) for column in _spread(labels).T])
    pairs = [np.bincount(group_of_row, weights=pair) > 0 for pair in _label_pairs(labels).T]
    traits = np.column_stack([_group_traits(sizes, wanted), *pairs, np.ones(len(sizes), bool)])

    shares = np.column_stack([sizes, wanted]) / np.append(len(labels), wanted.sum(axis=0))
    best, best_unevenness = np.empty(0, dtype=np.int64), (np.inf, np.inf)
    for draw_seed in np.random.SeedSequence(seed).generate_state(draws):
        fold_of_group = stratify(traits, count, int(draw_seed))
        fold_shares = np.column_stack([np.bincount(fold_of_group, weights=s, minlength=count) for s in shares.T])
        unevenness = (float((fold_shares == 0).sum()), float(((fold_shares - 1 / count) ** 2).sum()))
        if unevenness < best_unevenness:
            best, best_unevenness = fold_of_group, unevenness
    return best[group_of_row]


def _group_traits(sizes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Traits, bool (G, 2 T + 4), that spread the rows (G,) and what is wanted (G, T) if they are spread evenly."""
    some = wanted > 0
    medians = np.array([np.median(column[column > 0]) for column in wanted.T])
    quartile = np.searchsorted(np.quantile(sizes, [0.25, 0.5, 0.75]), sizes)
    return np.column_stack([some, wanted > medians, np.eye(4, dtype=bool)[quartile]])


def _uneven_folds(
    fold_of_row: np.ndarray, labels: Labels, label_names: tuple[str, ...], groups: Groups | None, count: int
) -> tuple[str, ...]:
    """Say which labels are missing in some fold, and what the models of such folds do: at most a sentence a label."""
    warnings = []
    for column, name in zip(labels.T, label_names, strict=True):
        cells = {"positive": column == 1, "negative": column == 0}  # positive first, which wins a tie
        holders = {value: len(np.unique(fold_of_row[rows])) for value, rows in cells.items()}
        scarce = min(holders, key=lambda value: holders[value])
        without = count - holders[scarce]
        if not without:
            continue
        spread = count_things(int(cells[scarce].sum()), f"{scarce} row")
        if groups is not None:
            spread += f" in {count_things(len(np.unique(groups[cells[scarce]])), 'group')}"
        warning = f"{name}: {spread}; none in {without} of {count} folds"
        lone = sum(held_by == 1 for held_by in holders.values())
        if lone:  # what one fold holds all of, its models cannot learn from
            warning += (
                f"; the models of {count_things(lone, 'fold')} learn from rows of one value: there a baseline gives "
                "every image the constant probability (positives + 1) / (rows + 2), and a head learns that value alone"
            )
        warnings.append(warning)
    return tuple(warnings)


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
