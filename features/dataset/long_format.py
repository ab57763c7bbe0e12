"""Read the long format of RSNA 2019: one row for each image and label (`ID_xxx_subtype,Label`)."""

import logging
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from features.common.errors import InputError
from features.dataset.image_id import read_id, to_image_id
from features.dataset.labels import LABELS, NOT_A_LABEL, not_a_label
from features.dataset.table import cell_error, listed, named, read_rows, shown

logger = logging.getLogger(__name__)

_HEADER = ("ID", "Label")
# The label columns of the RSNA 2019 Intracranial Hemorrhage Detection challenge.
_RSNA_SUBTYPES = frozenset(("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any"))


@dataclass(frozen=True)
class LongTable:
    """The cells of one CSV file in long format, M rows, as numbers.

    Attributes:
        path: the file.
        header: column names.
        image_ids: N ids in the order of their first row.
        lines: N line numbers, 1-based: the first row of each id.
        names: L subtypes in the order of their first row.
        row_images: int32 (M,), index into image_ids.
        row_names: int32 (M,), index into names.
        row_labels: uint8 (M,): 0, 1, or NOT_A_LABEL.
        row_lines: int64 (M,), line numbers.
        refused: the first line and cell of each subtype where the cell is not a label.
    """

    path: Path
    header: tuple[str, ...]
    image_ids: tuple[str, ...]
    lines: Sequence[int]
    names: tuple[str, ...]
    row_images: np.ndarray
    row_names: np.ndarray
    row_labels: np.ndarray
    row_lines: np.ndarray
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)

    def check_header(self) -> None:
        """Accept the header: a file is long only if its header is."""

    def binary_names(self) -> tuple[str, ...]:
        """Give the subtypes that hold nothing but 0 and 1."""
        return tuple(name for name in self.names if name not in self.refused)

    def find_labels(self) -> tuple[str, ...]:
        """Give all subtypes, or none if no cell is 0 or 1 (a sample submission)."""
        return self.names if self.is_labelled(self.names) else ()

    def is_labelled(self, names: Sequence[str]) -> bool:
        """Tell whether any cell of these subtypes is 0 or 1."""
        wanted = np.isin(self.row_names, [self.names.index(name) for name in names])
        return bool(np.any(self.row_labels[wanted] != NOT_A_LABEL))

    def describe(self) -> str:
        """Say what the subtypes hold that is not a label."""
        return "; ".join(
            f"{listed([name])} (line {line}: {shown(cell)})" for name, (line, cell) in self.refused.items()
        )

    def ignored(self, names: Sequence[str]) -> tuple[str, ...]:
        """Give the subtypes that are not among these names."""
        return tuple(name for name in self.names if name not in names)

    def read_labels(self, names: Sequence[str]) -> np.ndarray:
        """Turn rows into a table of labels.

        Args:
            names: subtypes, in the order wanted.

        Returns:
            uint8 (N, len(names)), 0 or 1.

        Raises:
            InputError: a cell is not a label; an id lacks a subtype; two rows of the same id and subtype disagree.
        """
        for name in names:
            if name in self.refused:
                raise not_a_label(self.path, self.refused[name][0], "Label", self.refused[name][1])
        places = np.full(len(self.names), -1, dtype=np.int64)
        places[[self.names.index(name) for name in names]] = np.arange(len(names))
        rows = np.flatnonzero(places[self.row_names] >= 0)
        keys = self.row_images[rows] * np.int64(len(names)) + places[self.row_names[rows]]
        # A stable sort brings the rows of one id and subtype together, in the order of the file.
        order = np.argsort(keys, kind="stable")
        keys, rows = keys[order], rows[order]
        repeated = np.flatnonzero(keys[1:] == keys[:-1]) + 1
        self._check_repeated(rows[repeated - 1], rows[repeated])
        keys, rows = np.delete(keys, repeated), np.delete(rows, repeated)
        self._check_complete(names, keys)
        return self.row_labels[rows].reshape(len(self.image_ids), len(names))

    def _check_repeated(self, earlier: np.ndarray, later: np.ndarray) -> None:
        """Refuse rows (M',) that contradict an earlier row of the same id and subtype; note the others."""
        conflicts = np.flatnonzero(self.row_labels[earlier] != self.row_labels[later])
        if conflicts.size:
            first = conflicts[np.argmin(self.row_lines[later[conflicts]])]
            row, other = later[first], earlier[first]
            raise cell_error(
                self.path,
                int(self.row_lines[row]),
                "Label",
                str(self.row_labels[row]),
                f"Line {self.row_lines[other]} has {str(self.row_labels[other])!r} for the same id and label "
                f"({self.image_ids[self.row_images[row]]}, {self.names[self.row_names[row]]}). Remove the wrong row.",
            )
        if later.size:
            # The file of the competition itself has some: each twice with the same label.
            logger.warning(
                "%s: %d row(s) repeat an earlier row with the same label (first: line %d); they are counted once.",
                self.path,
                later.size,
                self.row_lines[later].min(),
            )

    def _check_complete(self, names: Sequence[str], keys: np.ndarray) -> None:
        """Refuse ids that lack a subtype. `keys` are int64 (M',), unique: id index * L + label index."""
        counts = np.bincount(keys // len(names), minlength=len(self.image_ids))
        short = np.flatnonzero(counts < len(names))
        if short.size:
            first = int(short[0])
            present = set((keys[keys // len(names) == first] % len(names)).tolist())
            lacking = [name for place, name in enumerate(names) if place not in present]
            raise InputError(
                f"{self.path}, line {self.lines[first]}: the id {shown(self.image_ids[first])} has no row for "
                f"{listed(lacking)} ({short.size} of {len(self.image_ids)} ids lack a label). Add the rows, or remove "
                "all rows of such ids."
            )


def is_long(path: Path, images: Mapping[str, Path], id_column: str | None) -> bool:
    """Tell whether a CSV file is in long format.

    A file with one label that happens to be called "Label" has the same header; the images tell which it is.

    Args:
        path: the CSV file.
        images: path of each image by its id.
        id_column: name of the id column; None if not asked for.

    Returns:
        True if the header is ID,Label and the ids name images once their last part ("_epidural") is taken away.

    Raises:
        InputError: see `read_rows`.
    """
    rows = read_rows(path)
    _, header = next(rows)
    if named(header) != _HEADER or id_column not in (None, _HEADER[0]):
        return False
    column = header.index(_HEADER[0])
    subtype = ""
    for _, cells in rows:
        cell = cells[column]
        if to_image_id(cell) in images:
            return False
        image, _, last = cell.rpartition("_")
        if to_image_id(image) in images:
            return True
        subtype = subtype or last
    return subtype in _RSNA_SUBTYPES  # no row has an image: the error will be about that, and should count right


def read_long(path: Path) -> LongTable:
    """Read a CSV file in long format, a row at a time: the competition's has 4.5 million.

    Args:
        path: the CSV file, of which `is_long` holds.

    Returns:
        Its rows as numbers. No label was checked.

    Raises:
        InputError: see `read_rows`; an id has no subtype, is blank or leads outside the data set.
    """
    rows = read_rows(path)
    _, header = next(rows)
    id_column, label_column = (header.index(name) for name in _HEADER)
    image_rows: dict[str, int] = {}  # by id
    cell_rows: dict[str, int] = {}  # by the id as written, which spares reading it again
    name_rows: dict[str, int] = {}
    lines = array("q")
    row_images, row_names, row_lines, row_labels = array("i"), array("i"), array("q"), bytearray()
    refused: dict[str, tuple[int, str]] = {}
    for line, cells in rows:
        cell, _, name = cells[id_column].rpartition("_")
        if not cell or not name:
            remedy = "In the long format an id ends in its label: write ID_label, such as ID_63eb1e259_epidural."
            raise cell_error(path, line, _HEADER[0], cells[id_column], remedy)
        image_row = cell_rows.get(cell)
        if image_row is None:
            image_row = image_rows.setdefault(read_id(path, line, _HEADER[0], cell), len(image_rows))
            cell_rows[cell] = image_row
            if image_row == len(lines):
                lines.append(line)
        label = LABELS.get(cells[label_column], NOT_A_LABEL)
        if label == NOT_A_LABEL:
            refused.setdefault(name, (line, cells[label_column]))
        row_images.append(image_row)
        row_names.append(name_rows.setdefault(name, len(name_rows)))
        row_lines.append(line)
        row_labels.append(label)
    return LongTable(
        path=path,
        header=tuple(header),
        image_ids=tuple(image_rows),
        lines=lines,
        names=tuple(name_rows),
        row_images=np.frombuffer(row_images, dtype=np.int32),
        row_names=np.frombuffer(row_names, dtype=np.int32),
        row_labels=np.frombuffer(row_labels, dtype=np.uint8),
        row_lines=np.frombuffer(row_lines, dtype=np.int64),
        refused=refused,
    )
