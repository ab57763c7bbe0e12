"""Labels that are words: a column of classes, one or several a cell, or the folder that an image is in."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from features.common.arrays import UNKNOWN
from features.dataset.faults import KEPT_FAULTS, listed
from features.dataset.formats import Column, is_unknown
from features.dataset.table import words_of

#: What may stand between the classes of one cell, in the order in which it is recognised.
_SEPARATORS = ("|", ";", ",")
#: Classes that mean that there is none, without case, blanks, `_` and `-`.
_NONE = frozenset(
    re.findall(
        r"\w+",
        "nofinding nofindings normal healthy none negative ob obefund ohnebefund unauffällig normalbefund gesund keine",
    )
)
#: Words of columns that hold classes.
_OF_CLASSES = frozenset(
    re.findall(
        r"\w+",
        "label labels class classes category categories diagnosis diagnoses finding findings target targets dx tag "
        "tags genre genres pathology disease condition species",
    )
)
#: A column of whole numbers holds classes if it holds no more different ones.
_MOST_GRADES = 20
#: Rows of a table that are too few to tell a slip of the pen from a rare class.
_FEW_ROWS = 10
#: A list as Python writes it is no longer than this.
_LONGEST_LIST = 10_000


@dataclass(frozen=True)
class ClassColumn:
    """A column whose cells name classes: N cells.

    Attributes:
        name: of the column; "" for the folders that images are in.
        parts: the classes of each cell, N of them; None where the cell is not known.
        separator: what stands between the classes of a cell; "" if a cell holds one, `[]` if it holds a list.
        none: the classes that mean none of the others, as they are never beside another.
        respelt: classes as they are written, by how most write them: what differs in case alone is one class.
    """

    name: str
    parts: Sequence[tuple[str, ...] | None]
    separator: str
    none: tuple[str, ...] = ()
    respelt: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def counts(self) -> Counter[str]:
        """How many rows each class has, by its name, sorted."""
        counts = Counter(one for row in self.parts for one in row or ())
        return Counter(dict(sorted(counts.items())))

    @property
    def holds_several(self) -> bool:
        """Whether a cell may hold another number of classes than one."""
        return any(row is not None and len(row) != 1 for row in self.parts)

    @property
    def is_numeric(self) -> bool:
        """Whether all classes are numbers."""
        return all(re.fullmatch(r"[-+]?[\d.,]+", one) for one in self.counts)

    @property
    def counts_grades(self) -> bool:
        """Whether all classes are whole numbers, and few; a number that one row alone has may be a slip of the pen."""
        if not 3 <= len(self.counts) <= _MOST_GRADES or not all(one.isdigit() for one in self.counts):
            return False
        return self.counts.total() < _FEW_ROWS or min(self.counts.values()) > 1

    @property
    def is_likely(self) -> bool:
        """Whether these are classes rather than names or numbers: few, and most of them in several rows."""
        known = sum(row is not None for row in self.parts)
        if len(self.counts) < 2 or (self.is_numeric and not self.is_named):
            return False
        return 2 * len(self.counts) <= known or (known < 10 and len(self.counts) < known)

    @property
    def is_named(self) -> bool:
        """Whether the column's name says that it holds classes."""
        return bool(_OF_CLASSES & words_of(self.name))

    def columns(self, classes: Sequence[str], lines: Sequence[int], *, others: bool) -> dict[str, Column]:
        """Write classes as a label each, uint8 (N,); without `others`, a cell that names another class is refused."""
        known = {*classes, *self.none}
        strange = [
            row
            for row, parts in enumerate(self.parts)
            if parts is not None and not others and not known.issuperset(parts)
        ]
        unknown = [row for row, parts in enumerate(self.parts) if parts is None]
        columns = {}
        for place, name in enumerate(classes):
            values = np.array([parts is not None and name in parts for parts in self.parts], np.uint8)
            values[unknown + strange] = UNKNOWN
            mine = place == 0  # one fault for a cell, not one for each class
            columns[name] = Column(
                self.name,
                values,
                True,
                len(strange) * mine,
                [(lines[row], " ".join(self.parts[row] or ())) for row in strange[: KEPT_FAULTS * mine]],
                [(lines[row], "") for row in unknown[: KEPT_FAULTS * mine]],
                remedy=f"The classes are {listed(classes)}. Correct the cell, or name the classes with --labels.",
            )
        return columns


def read_classes(
    name: str, cells: Sequence[str], separator: str | None, learnt: Sequence[str] | None = None
) -> ClassColumn:
    """Read the classes of N cells.

    Args:
        name: of the column.
        cells: texts, without blanks around.
        separator: what stands between the classes of a cell; None recognises it.
        learnt: the cells of all that is learnt from: they show the separator, the spellings, and what means none; None:
            the N cells.
    """
    shown = [cell for cell in (cells if learnt is None else learnt) if not is_unknown(cell)]
    if separator is None:
        lists = all(cell.startswith("[") and cell.endswith("]") and _read_list(cell) is not None for cell in {*shown})
        separator = "[]" if shown and lists else _recognise_separator({*shown})
    read = _read_list if separator == "[]" else partial(_split, separator=separator)
    return _join_spellings(
        name, [None if is_unknown(cell) else read(cell) for cell in cells], map(read, shown), separator
    )


def read_folders(folders: Sequence[str], learnt: Sequence[str] | None = None) -> ClassColumn:
    """Read the folders that N images are in as classes, whatever they are called; "" is none. `learnt` as above."""
    parts = [(folder.strip(),) if folder else None for folder in folders]
    shown = parts if learnt is None else [(folder.strip(),) for folder in learnt if folder]
    return _join_spellings("", parts, shown, "")


def _join_spellings(
    name: str,
    parts: Sequence[tuple[str, ...] | None],
    learnt: Iterable[tuple[str, ...] | None],
    separator: str,
) -> ClassColumn:
    """Give the classes of cells the spelling that most have of what is learnt from."""
    rows = [row for row in learnt if row]
    counts = Counter(one for row in rows for one in row)
    usual: dict[str, str] = {}
    for one in sorted(counts, key=lambda one: (-counts[one], one)):
        usual.setdefault(one.casefold(), one)
    beside = {one.casefold() for row in rows if len(row) > 1 for one in row}
    none = [one for key, one in usual.items() if re.sub(r"[\W_]", "", key) in _NONE and key not in beside]
    written = {one for row in parts for one in row or ()}
    respelt = {one: own for one in sorted(written) if (own := usual.get(one.casefold(), one)) != one}
    read = [None if row is None else tuple(dict.fromkeys(respelt.get(one, one) for one in row)) for row in parts]
    return ClassColumn(name, read, separator, tuple(sorted(none)), respelt)


def _split(cell: str, separator: str) -> tuple[str, ...]:
    """Split a cell; classes without blanks around, each once."""
    parts = cell.split(separator) if separator else [cell]
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _read_list(cell: str) -> tuple[str, ...] | None:
    """Read a list of texts as Python or JSON writes it; None where it is none."""
    try:
        values = ast.literal_eval(cell) if len(cell) <= _LONGEST_LIST else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(values, list) or not all(isinstance(value, str | int) for value in values):
        return None
    return tuple(dict.fromkeys(str(value).strip() for value in values if str(value).strip()))


def _recognise_separator(cells: set[str]) -> str:
    """Find what stands between classes, a comma only if it splits cells into parts that recur; "" if nothing does."""
    for separator in _SEPARATORS:
        several = [_split(cell, separator) for cell in cells if separator in cell]
        if not several:
            continue
        if separator != ",":
            return separator
        counts = Counter(part for cell in cells for part in _split(cell, separator))
        # "pneumonia, viral" is one class: its parts are nowhere else.
        recurring = sum(all(counts[part] > 1 for part in parts) for parts in several)
        if 2 * recurring >= len(several):
            return separator
    return ""
