"""Decide which columns of a data set's CSV files are labels, and read them."""

from collections.abc import Mapping, Sequence

import numpy as np

from features.common.arrays import UNKNOWN
from features.common.errors import InputError
from features.common.text import first_few
from features.dataset.formats import Listing
from features.dataset.table import Fault, Faults, cell_fault, listed, shown

_SHOWN_COLUMNS = 12


def read_labels(
    listings: Mapping[str, Listing], wanted: Sequence[str] | None, faults: Faults
) -> tuple[tuple[str, ...], dict[str, np.ndarray | None]]:
    """Read the labels of a data set.

    Args:
        listings: train.csv, test.csv or both, by split, in that order; their columns without the groups.
        wanted: different names; None takes every column that is likely a label.
        faults: gets cells that are not labels, a train.csv without labels, a test.csv with others, and a warning of the
            columns that are ignored.

    Returns:
        L label names; by split uint8 (N, L), 0, 1, or UNKNOWN, or None if it is not labelled.

    Raises:
        InputError: a name asked for is missing.
    """
    names: tuple[str, ...] = ()
    labels: dict[str, np.ndarray | None] = {}
    for split, listing in listings.items():
        if names:
            labels[split] = _read_shared(listing, wanted, listings["train"], names, faults)
        else:
            names = _choose(listing, wanted)
            labels[split] = _read(listing, names, faults, found=wanted is None) if names else None
            if not names and split == "train":
                what = f"no label column: none holds only 0 and 1. Columns: {_describe(listing)}"
                remedy = "Write labels as 0 and 1, or name the label columns with --labels."
                faults.add(Fault("label", listing.csv, what, remedy))
        read = () if labels[split] is None else names
        ignored = [*(name for name in listing.columns if name not in read), *listing.unnamed]
        if wanted is None and ignored:
            faults.warnings.append(f"{listing.csv}: ignored the columns that are not labels: {listed(ignored)}")
    return names, labels


def _choose(listing: Listing, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Choose the columns asked for, or else those that are likely labels, maybe none."""
    if wanted is None:
        return tuple(name for name, column in listing.columns.items() if column.likely)
    absent = [name for name in wanted if name not in listing.columns]
    if absent:
        raise InputError(
            f"--labels names {listed(absent)}, which {listing.csv} does not have. Its columns beside ids and groups: "
            f"{listed(tuple(listing.columns))}. Name some of these with --labels."
        )
    return tuple(wanted)


def _describe(listing: Listing) -> str:
    """Name the columns, each with a cell that is neither 0 nor 1."""
    parts = [
        listed([name]) + "".join(f" (line {line}: {shown(cell)})" for line, cell in column.first_refused[:1])
        for name, column in listing.columns.items()
    ]
    return first_few(parts, _SHOWN_COLUMNS, "; ") or "none beside the ids and groups"


def _read_shared(
    test: Listing, wanted: Sequence[str] | None, train: Listing, names: tuple[str, ...], faults: Faults
) -> np.ndarray | None:
    """Read the labels of train.csv that test.csv has, too; None if it gives only ids."""
    shared = [name for name in test.columns if name in names]
    if all((test.columns[name].values == UNKNOWN).all() for name in shared):
        return None
    if wanted is not None:  # labels asked for by name are joined by name
        present = tuple(name for name in names if name in shared)
    else:
        # A column that train.csv has, too, is not a label if it is not one there ("fold": 0 to 4 there, only 0 here).
        new = {name for name, column in test.columns.items() if UNKNOWN not in column.values} - set(train.columns)
        present = tuple(name for name in test.columns if name in shared or name in new)
    if present != names:
        what = f"received the labels {listed(present)}, but {train.csv} has {listed(names)}"
        remedy = (
            "Give both the same label columns in the same order, remove all of them from the test file, or name the "
            "ones to use with --labels."
        )
        faults.add(Fault("label", test.csv, what, remedy))
    return _read(test, names, faults, found=False)


def _read(listing: Listing, names: Sequence[str], faults: Faults, *, found: bool) -> np.ndarray:
    """Read labels, unknown where the file has no such column: uint8 (N, L), 0, 1, or UNKNOWN."""
    values = np.full((len(listing.image_ids), len(names)), UNKNOWN, np.uint8)
    repeats: list[int] = []
    remedy = "A label is 0 or 1: correct the cell, or name the label columns with --labels."
    for place, name in enumerate(names):
        if name not in listing.columns:
            continue
        column = listing.columns[name]
        values[:, place] = column.values
        repeats += column.repeats
        faults.add(*column.faults)
        cells, count = column.first_refused, column.refused
        if found and not listing.are_labels:  # by what it holds, so one fault stands for all cells of the column
            cells, count = cells[:1], min(count, 1)
            remedy = (
                f"{len(column.values) - column.refused} of the {len(column.values)} cells of this column are 0 or 1, "
                "so it may be a label or not. Correct the cell, or name the label columns with --labels."
            )
        own = [cell_fault("label", listing.csv, line, column.column, cell, remedy) for line, cell in cells]
        faults.add(*own, count=count)
    if repeats:  # the file of the RSNA 2019 competition has some
        what = f"{len(repeats)} row(s) repeat an earlier row with the same label (first: line {min(repeats)})"
        faults.warnings.append(f"{listing.csv}: {what}; they are counted once.")
    return values
