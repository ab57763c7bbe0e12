"""Make folds, by group where groups are known, and set rows of a fold aside that decide when training stops."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

import numpy as np

from features.common.arrays import UNKNOWN, Groups, Labels, RowIndices, find_varied
from features.common.errors import InputError
from features.common.text import count_things
from features.folds.stratify import stratify, take_share

#: Draws of the stratifier, of which the most even is kept: groups cannot be cut, so one draw can be lopsided. Twenty
#: take 0.5 s; figures: docs/decisions.md.
GROUP_DRAWS = 20
#: Parts of which a share is taken, at most; of a small share more, but never more than these.
_PARTS, _MOST_PARTS = 20, 200
#: Units times choices of parts from which a share is sought: of few units several are needed. Figures:
#: docs/decisions.md.
_SOUGHT = 20_000
#: One of so many parts of a fold's training rows decides when its heads stop.
VALIDATION_PARTS = 5
#: Draws of these parts where groups are known: fewer than of folds, as only the best part counts.
_DRAWS = 4


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


def refuse_few(rows: int, groups: Groups | None, folds: int) -> None:
    """Refuse, by an `InputError`, to split fewer rows than folds or, where they are known, fewer groups (rows,)."""
    unit, units = (rows, "rows") if groups is None else (len(np.unique(groups)), "groups")
    if unit < folds:
        remedy = (
            f"Use --folds {unit} or fewer."
            if unit > 1
            else "Add data, or give other groups: --group-column, --group-from or --groups."
        )
        raise InputError(f"{folds} folds need at least {folds} {units}; there are {unit}. {remedy}")


class FoldRows(NamedTuple):
    """A fold's rows: to learn from, to decide when a head stops, to score.

    Attributes:
        lacking: labels of which the rows that decide, or those to learn from, have one value alone, though both exist.
    """

    train: RowIndices
    validation: RowIndices
    held_out: RowIndices
    lacking: tuple[str, ...] = ()


def split_rows(
    learnt: RowIndices,
    held_out: RowIndices,
    labels: Labels,
    groups: Groups | None,
    label_names: tuple[str, ...],
    seed: int,
) -> FoldRows | None:
    """Choose the rows of a fold that decide when its heads stop: whole groups, with like shares of every label.

    They are one of `VALIDATION_PARTS` parts, or of as many as there are groups, of the rows that are learnt from: the
    one that with the rest lacks the fewest labels, and of these the nearest to its share, as a large group makes parts
    uneven. None if there is only one group to learn from, or if no label has both values.
    """
    labels = labels[learnt]
    of_learnt = None if groups is None else groups[learnt]
    units = len(learnt) if of_learnt is None else len(np.unique(of_learnt))
    varied = find_varied(labels)  # a rare label may have one value here, and nothing to stratify
    if units < 2 or not varied.any():
        return None
    names = tuple(name for name, varies in zip(label_names, varied, strict=True) if varies)
    parts = make_folds(labels[:, varied], of_learnt, names, min(VALIDATION_PARTS, units), seed, _DRAWS)
    varying = labels[:, varied]

    def lacking(part: int) -> tuple[str, ...]:
        own = parts.fold_of_row == part
        constant = [~find_varied(varying[rows]) for rows in (own, ~own)]
        return tuple(name for name, lacks in zip(names, np.any(constant, axis=0), strict=True) if lacks)

    def unevenness(part: int) -> float:
        return abs(float((parts.fold_of_row == part).mean()) - 1 / parts.count)

    best = min(range(parts.count), key=lambda part: (len(lacking(part)), unevenness(part)))
    own = parts.fold_of_row == best
    return FoldRows(learnt[~own], learnt[own], held_out, lacking(best))
