"""Read the labels and groups of a CSV file with one row for each image and one column for each label."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.common.text import first_few
from features.dataset.labels import LABELS, NOT_A_LABEL, not_a_label
from features.dataset.table import Table, cell_error, is_unnamed, listed, shown

_DESCRIBED = 12


@dataclass(frozen=True)
class WideTable:
    """A table of N rows, some of whose columns are labels.

    Attributes:
        table: the cells.
        taken: index of the columns that hold ids or groups.
    """

    table: Table
    taken: frozenset[int]

    @property
    def path(self) -> Path:
        """The file."""
        return self.table.path

    @property
    def names(self) -> tuple[str, ...]:
        """The named columns without ids and groups, in the order of the file."""
        return tuple(
            name for index, name in enumerate(self.table.header) if index not in self.taken and not is_unnamed(name)
        )

    def _parse(self, name: str) -> np.ndarray:
        """Turn a column into uint8 (N,): 0, 1, or NOT_A_LABEL."""
        cells = self.table.columns[self.table.find(name)]
        return np.fromiter((LABELS.get(cell, NOT_A_LABEL) for cell in cells), dtype=np.uint8, count=len(cells))

    def _first_refused(self, name: str) -> tuple[int, str] | None:
        """Give line and cell of the first cell that is not a label, None if all are."""
        refused = np.flatnonzero(self._parse(name) == NOT_A_LABEL)
        if not refused.size:
            return None
        row = int(refused[0])
        return self.table.lines[row], self.table.columns[self.table.find(name)][row]

    def binary_names(self) -> tuple[str, ...]:
        """Give the columns that hold nothing but 0 and 1."""
        return tuple(name for name in self.names if self._first_refused(name) is None)

    def find_labels(self) -> tuple[str, ...]:
        """Give the columns that hold nothing but 0 and 1.

        Returns:
            Names in the order of the file, maybe none.

        Raises:
            InputError: a column is ambiguous: at least half of its cells, but not all, are 0 or 1.
        """
        found = []
        for name in self.names:
            refused = self._first_refused(name)
            if refused is None:
                found.append(name)
                continue
            binary = int(np.count_nonzero(self._parse(name) != NOT_A_LABEL))
            # Half of the cells that are filled: a label that few rows have yet is not to be dropped as no label.
            filled = sum(map(bool, self.table.columns[self.table.find(name)]))
            if binary and 2 * binary >= filled:
                line, cell = refused
                raise cell_error(
                    self.path,
                    line,
                    name,
                    cell,
                    f"{binary} of the {len(self.table.lines)} cells of this column are 0 or 1, so it may be a label or "
                    "not. Correct the cell, or name the label columns with --labels.",
                )
        return tuple(found)

    def is_labelled(self, names: Sequence[str]) -> bool:
        """Tell whether any cell of these columns is 0 or 1."""
        return any(bool(np.any(self._parse(name) != NOT_A_LABEL)) for name in names)

    def describe(self) -> str:
        """Say of each column which cell is neither 0 nor 1."""
        parts = []
        for name in self.names:
            refused = self._first_refused(name)
            parts.append(listed([name]) + (f" (line {refused[0]}: {shown(refused[1])})" if refused else ""))
        return first_few(parts, _DESCRIBED, "; ")

    def ignored(self, names: Sequence[str]) -> tuple[str, ...]:
        """Give the columns that are no ids, groups or labels. An unnamed first column is an index: no word of it."""
        columns = enumerate(zip(self.table.header, self.table.columns, strict=True))
        return tuple(
            f"column {index + 1} (no name)" if is_unnamed(name) else name
            for index, (name, cells) in columns
            if index not in self.taken
            and name not in names
            and not (is_unnamed(name) and (index == 0 or not any(cells)))
        )

    def read_labels(self, names: Sequence[str]) -> np.ndarray:
        """Read label columns.

        Args:
            names: columns, in the order wanted; at least one.

        Returns:
            uint8 (N, len(names)), 0 or 1.

        Raises:
            InputError: a cell is not 0 or 1.
        """
        for name in names:
            refused = self._first_refused(name)
            if refused is not None:
                raise not_a_label(self.path, refused[0], name, refused[1])
        return np.column_stack([self._parse(name) for name in names])


def read_groups(table: Table, column: int) -> np.ndarray:
    """Read the group column.

    Args:
        table: the cells.
        column: the column's index.

    Returns:
        str array (N,), no cell blank.

    Raises:
        InputError: a cell is blank.
    """
    cells = table.columns[column]
    if not all(cells):
        row = cells.index("")
        raise cell_error(
            table.path,
            table.lines[row],
            table.header[column],
            "",
            "Every row needs a group, such as its patient: write it, or take another column with --group-column.",
        )
    return np.array(cells, dtype=np.str_)
