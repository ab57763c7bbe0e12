"""Decide which columns of a data set's CSV files are labels."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from features.common.errors import InputError
from features.dataset.table import cell_error, listed

logger = logging.getLogger(__name__)

LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
NOT_A_LABEL = 255


class LabelSource(Protocol):
    """A CSV file whose columns, or the subtypes of its long format, may be labels."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def names(self) -> tuple[str, ...]:
        """What may be a label, in the order of the file."""

    def binary_names(self) -> tuple[str, ...]:
        """Give the names that hold nothing but 0 and 1."""

    def find_labels(self) -> tuple[str, ...]:
        """Give the names that are labels, maybe none; refuse what is ambiguous."""

    def is_labelled(self, names: Sequence[str]) -> bool:
        """Tell whether any cell of these names is 0 or 1."""

    def describe(self) -> str:
        """Say why the names are no labels: for each a cell that is neither 0 nor 1."""

    def ignored(self, names: Sequence[str]) -> tuple[str, ...]:
        """Give the columns that are left out if these names are the labels."""

    def read_labels(self, names: Sequence[str]) -> np.ndarray:
        """Give uint8 (N, len(names)), 0 or 1; refuse every other cell."""


def not_a_label(path: Path, line: int, column: str, cell: str) -> InputError:
    """Make the error of a cell that should be 0 or 1."""
    remedy = "A label is 0 or 1: correct the cell, or name the label columns with --labels."
    return cell_error(path, line, column, cell, remedy)


def read_train_labels(source: LabelSource, wanted: tuple[str, ...] | None) -> tuple[tuple[str, ...], np.ndarray]:
    """Read the labels of train.csv.

    Args:
        source: the file.
        wanted: names asked for; None takes every column that holds only 0 and 1.

    Returns:
        L label names, and uint8 (N, L), 0 or 1.

    Raises:
        InputError: no label; a name that is not there or asked for twice; a cell that is not a label; an ambiguous
            column.
    """
    names = source.find_labels() if wanted is None else _check_wanted(source, wanted)
    if not names:
        seen = source.describe() or "none beside the ids and groups"
        raise InputError(
            f"{source.path} has no label column: none holds only 0 and 1. Columns: {seen}. "
            "Write labels as 0 and 1, or name the label columns with --labels."
        )
    labels = source.read_labels(names)
    _note_ignored(source, names, wanted)
    return names, labels


def read_test_labels(
    source: LabelSource, wanted: tuple[str, ...] | None, train: LabelSource | None, train_names: tuple[str, ...]
) -> tuple[tuple[str, ...], np.ndarray | None]:
    """Read the labels of test.csv, if it has any.

    Args:
        source: the file.
        wanted: names asked for; None goes by train.csv.
        train: train.csv; None if there is none.
        train_names: its labels.

    Returns:
        L label names and uint8 (N, L), 0 or 1; or () and None if the file gives only ids.

    Raises:
        InputError: the labels are not those of train.csv; otherwise as `read_train_labels`, but no label is no error.
    """
    if train is None:
        names = source.find_labels() if wanted is None else _check_wanted(source, wanted)
    else:
        names = _find_shared(source, wanted, train, train_names)
    labels = source.read_labels(names) if names else None
    _note_ignored(source, names, wanted)
    return names, labels


def _find_shared(
    source: LabelSource, wanted: tuple[str, ...] | None, train: LabelSource, train_names: tuple[str, ...]
) -> tuple[str, ...]:
    """Give the labels of train.csv if test.csv has them, () if it has none of them."""
    shared = tuple(name for name in source.names if name in train_names)
    if not shared or not source.is_labelled(shared):
        return ()
    if wanted is not None:  # labels asked for by name are joined by name
        present = tuple(name for name in train_names if name in shared)
    else:
        # A column that train.csv has, too, is no label if it is none there ("fold": 0 to 4 there, only 0 here).
        new = set(source.binary_names()) - set(train.names)
        present = tuple(name for name in source.names if name in shared or name in new)
    if present != train_names:
        raise InputError(
            f"{source.path} has the labels {listed(present)}, but {train.path} has {listed(train_names)}. "
            "Give both the same label columns in the same order, remove all of them from the test file, "
            "or name the ones to use with --labels."
        )
    return present


def _check_wanted(source: LabelSource, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse labels asked for that are not there, or twice."""
    absent = [name for name in wanted if name not in source.names]
    if absent or not wanted:
        raise InputError(
            f"--labels names {listed(absent or ['no label'])}, which {source.path} does not have. Its columns beside "
            f"ids and groups: {listed(source.names)}. Name some of these with --labels."
        )
    twice = sorted({name for name in wanted if wanted.count(name) > 1})
    if twice:
        raise InputError(f"--labels names {listed(twice)} more than once. Name each label once.")
    return wanted


def _note_ignored(source: LabelSource, names: Sequence[str], wanted: tuple[str, ...] | None) -> None:
    """Say once which columns are left out; quietly if the person named the labels."""
    ignored = source.ignored(names)
    if ignored:
        level = logging.WARNING if wanted is None else logging.INFO
        logger.log(level, "%s: ignored the columns that are no labels: %s", source.path, listed(ignored))
