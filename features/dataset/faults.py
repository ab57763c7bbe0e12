"""What is wrong with a data set, what was understood of it, and how messages write its cells and names."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.common.errors import InputError
from features.common.text import first_few

_SHOWN_CHARACTERS = 60
_SHOWN_NAMES = 20
_SHOWN_FAULTS = 10
KEPT_FAULTS = 1000


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a data set.

    Attributes:
        kind: `table`, `image`, `id`, `label` or `group`: what cannot be read.
        path: the file or folder.
        what: what was received.
        remedy: what to do, as sentences.
        line: 1-based; None if the fault is not of one row.
        column: the column's name; None if the fault is not of one column.
    """

    kind: str
    path: Path
    what: str
    remedy: str
    line: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        """The place, what was received, and what to do."""
        line = "" if self.line is None else f", line {self.line}"
        column = "" if self.column is None else f", column {listed([self.column])}"
        return f"{self.path}{line}{column}: {self.what}. {self.remedy}"


@dataclass
class Faults:
    """The faults of a data set, as a reader finds them.

    Attributes:
        kept: the first thousand.
        count: how many there are.
        warnings: what is not a fault, but ignored, left out or guessed.
        notes: what was understood, where it might have been otherwise; printed, but not a warning.
    """

    kept: list[Fault] = field(default_factory=list)
    count: int = 0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *first: Fault, count: int | None = None) -> None:
        """Add faults; where these are only the first of them, `count` says how many there are."""
        self.kept += first[: KEPT_FAULTS - len(self.kept)]
        self.count += len(first) if count is None else count

    def refuse(self, hint: str = "") -> None:
        """Stop if there is any fault.

        Raises:
            InputError: there is one; the message shows the first ten, how many more there are, and the hint.
        """
        if self.count == 1:
            raise InputError(str(self.kept[0]))
        if self.count:
            lines = [f"{self.count:,} faults:", *map(str, self.kept[:_SHOWN_FAULTS])]
            if self.count > _SHOWN_FAULTS:
                lines.append(f"and {self.count - _SHOWN_FAULTS:,} more{hint}")
            raise InputError("\n  ".join(lines))


def shown(value: str) -> str:
    """Write a cell for a message: quoted, and cut if it is long."""
    if not value:
        return "a blank cell"
    return repr(value if len(value) <= _SHOWN_CHARACTERS else value[: _SHOWN_CHARACTERS - 3] + "...")


def listed(names: Sequence[str]) -> str:
    """Write names for a message: separated by commas, and cut if there are many."""
    written = [shown(name) if "," in name else shown(name)[1:-1] for name in names]
    return first_few(written, _SHOWN_NAMES) or "none"


def cell_fault(kind: str, path: Path, line: int, column: str, cell: str, remedy: str) -> Fault:
    """Make the fault of one cell; the remedy may begin with what is wrong."""
    return Fault(kind, path, f"received {shown(cell)}", remedy, line, column)
