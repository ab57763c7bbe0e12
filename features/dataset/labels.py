"""Decide which columns of a data set's CSV files are labels, and read them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from features.common.errors import InputError
from features.common.text import first_few
from features.dataset.formats import UNKNOWN, Listing
from features.dataset.table import Fault, Faults, cell_fault, listed, shown

_SHOWN_COLUMNS = 12


class Candidates:
    """The columns of one CSV file that may be labels.

    Args:
        path: the file.
        listing: its ids and cells.
        group: name of its group column; None if it has none.
    """

    def __init__(self, path: Path, listing: Listing, group: str | None) -> None:
        self.path = path
        self.columns = {column.name: column for column in listing.read_columns() if column.name != group}
        self._listing = listing

    def find(self) -> tuple[str, ...]:
        """Give the columns that are likely labels, maybe none."""
        return tuple(name for name, column in self.columns.items() if column.likely)

    def check(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """Give the labels that a person asked for.

        Raises:
            InputError: there is none, one is missing, or one is named twice.
        """
        absent = [name for name in wanted if name not in self.columns]
        if absent or not wanted:
            raise InputError(
                f"--labels names {listed(absent or ['no label'])}, which {self.path} does not have. Its columns beside "
                f"ids and groups: {listed(tuple(self.columns))}. Name some of these with --labels."
            )
        duplicates = sorted({name for name in wanted if wanted.count(name) > 1})
        if duplicates:
            raise InputError(f"--labels names {listed(duplicates)} more than once. Name each label once.")
        return wanted

    def are_known(self, names: tuple[str, ...]) -> bool:
        """Whether any cell of these columns is 0 or 1."""
        return any(value in self.columns[name].values for name in names for value in (0, 1))

    def describe(self) -> str:
        """Name the columns, each with a cell that is neither 0 nor 1."""
        parts = [
            listed([name]) + "".join(f" (line {line}: {shown(cell)})" for line, cell in column.first_refused[:1])
            for name, column in self.columns.items()
        ]
        return first_few(parts, _SHOWN_COLUMNS, "; ") or "none beside the ids and groups"

    def note_ignored(self, names: tuple[str, ...]) -> list[str]:
        """Say which columns are ignored if these are the labels."""
        ignored = [*(name for name in self.columns if name not in names), *self._listing.unnamed]
        return [f"{self.path}: ignored the columns that are not labels: {listed(ignored)}"] if ignored else []

    def read(self, names: tuple[str, ...], faults: Faults, *, found: bool) -> np.ndarray:
        """Read labels.

        Args:
            names: columns in the order wanted, at least one; those that are not here are not known.
            faults: gets the cells that are neither 0 nor 1.
            found: whether these columns were taken for labels because of what they hold.

        Returns:
            uint8 (N, len(names)): 0, 1, or UNKNOWN.
        """
        values = np.full((len(self._listing.image_ids), len(names)), UNKNOWN, np.uint8)
        for place, name in enumerate(names):
            if name in self.columns:
                values[:, place] = np.frombuffer(self.columns[name].values, np.uint8)
                self._add_faults(name, faults, found=found and not self._listing.are_labels)
        repeats = [line for name in names if name in self.columns for line in self.columns[name].repeats]
        if repeats:  # the file of the RSNA 2019 competition has some
            what = f"{len(repeats)} row(s) repeat an earlier row with the same label (first: line {min(repeats)})"
            faults.warnings.append(f"{self.path}: {what}; they are counted once.")
        return values

    def _add_faults(self, name: str, faults: Faults, *, found: bool) -> None:
        """Add the faults of a column; where it may not be a label at all, one for all its cells."""
        column = self.columns[name]
        faults.add(*column.faults)
        remedy = "A label is 0 or 1: correct the cell, or name the label columns with --labels."
        if found:
            remedy = (
                f"{len(column.values) - column.refused} of the {len(column.values)} cells of this column are 0 or 1, "
                "so it may be a label or not. Correct the cell, or name the label columns with --labels."
            )
        cells = column.first_refused[:1] if found else column.first_refused
        own = [cell_fault("label", self.path, line, column.column, cell, remedy) for line, cell in cells]
        faults.add(*own, count=len(own) if found else column.refused)


def read_labels(
    files: Mapping[str, Candidates], wanted: tuple[str, ...] | None, faults: Faults
) -> tuple[tuple[str, ...], dict[str, np.ndarray | None]]:
    """Read the labels of a data set.

    Args:
        files: the columns of train.csv, test.csv or both, by split, in that order.
        wanted: names asked for; None takes every column that is likely a label.
        faults: gets cells that are not labels, a train.csv without labels, a test.csv with others, and a warning of the
            columns that are ignored.

    Returns:
        L label names; by split uint8 (N, L), 0, 1, or UNKNOWN, or None if it is not labelled.

    Raises:
        InputError: a name asked for is missing, or named twice.
    """
    names: tuple[str, ...] = ()
    labels: dict[str, np.ndarray | None] = {}
    for split, file in files.items():
        if names:
            labels[split] = _read_shared(file, wanted, files["train"], names, faults)
        else:
            names = file.find() if wanted is None else file.check(wanted)
            labels[split] = file.read(names, faults, found=wanted is None) if names else None
            if not names and split == "train":
                what = f"no label column: none holds only 0 and 1. Columns: {file.describe()}"
                remedy = "Write labels as 0 and 1, or name the label columns with --labels."
                faults.add(Fault("label", file.path, what, remedy))
        if wanted is None:
            faults.warnings += file.note_ignored(() if labels[split] is None else names)
    return names, labels


def _read_shared(
    test: Candidates, wanted: tuple[str, ...] | None, train: Candidates, names: tuple[str, ...], faults: Faults
) -> np.ndarray | None:
    """Read the labels of train.csv that test.csv has, too; None if it gives only ids."""
    shared = tuple(name for name in test.columns if name in names)
    if not test.are_known(shared):
        return None
    if wanted is not None:  # labels asked for by name are joined by name
        present = tuple(name for name in names if name in shared)
    else:
        # A column that train.csv has, too, is no label if it is none there ("fold": 0 to 4 there, only 0 here).
        new = {name for name, column in test.columns.items() if UNKNOWN not in column.values} - set(train.columns)
        present = tuple(name for name in test.columns if name in shared or name in new)
    if present != names:
        what = f"received the labels {listed(present)}, but {train.path} has {listed(names)}"
        remedy = (
            "Give both the same label columns in the same order, remove all of them from the test file, or name the "
            "ones to use with --labels."
        )
        faults.add(Fault("label", test.path, what, remedy))
    return test.read(names, faults, found=False)
