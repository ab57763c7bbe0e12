"""Name the subgroup of each image by the cells of a column; light, so that a wrong column is refused at once."""

import math
import re
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from features.common.errors import InputError
from features.common.text import first_few

#: Values of a column that are subgroups of their own; of more, numbers are cut at their quartiles.
MOST_VALUES = 12
#: The subgroup of images whose cell is blank.
MISSING = "(missing)"
#: Read as in labels: a comma is never one of thousands.
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+|[+-]?\d+,")


def name_subgroups(column: str, of_splits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name the subgroup of each image by the cells of a column, str (N,) by split, the first of which makes the rule.

    Each value is a subgroup, a blank cell is `MISSING`. Numbers of more than `MOST_VALUES` values are cut at their
    quartiles.

    Raises:
        InputError: the column has many values, of which some are not numbers.
    """
    first = next(iter(of_splits.values()))
    values = sorted({*first.tolist()} - {""})
    if len(values) <= MOST_VALUES:
        return {split: np.where(cells == "", MISSING, cells) for split, cells in of_splits.items()}
    numbers = {split: np.array([_to_number(cell) for cell in cells.tolist()]) for split, cells in of_splits.items()}
    words = sorted({cell for split, cells in of_splits.items() for cell in cells[np.isnan(numbers[split])].tolist()})
    words = [word for word in words if word]
    if words:
        raise InputError(
            f"--by {column}: the column has {len(values)} different values, of which some are not numbers "
            f"({first_few(words, 3)}). Name a column of at most {MOST_VALUES} values, or of numbers."
        )
    known = next(iter(numbers.values()))
    cuts = np.unique(np.quantile(known[~np.isnan(known)], [0.25, 0.5, 0.75]))
    ends = [f"{cut:g}" for cut in cuts]
    between = [f"{low} to below {high}" for low, high in pairwise(ends)]
    names = np.array([f"below {ends[0]}", *between, f"{ends[-1]} or more"])
    return {
        split: np.where(np.isnan(own), MISSING, names[np.searchsorted(cuts, own, side="right")])
        for split, own in numbers.items()
    }


def _to_number(cell: str) -> float:
    """Read a number, with a decimal point or comma; NaN where it is none."""
    try:
        number = float(cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
