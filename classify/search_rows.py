"""Part the rows for a search: in every fold some to learn from, some to decide when to stop, some to score."""

from dataclasses import dataclass

import numpy as np

from classify.folds import Folds, make_folds
from classify.inputs import Inputs
from features.errors import InputError

#: One of so many parts of a fold's training rows decides when its heads stop.
STOPPING_PARTS = 5


@dataclass(frozen=True)
class SearchFold:
    """What the rows are for in one fold: int64 arrays, ascending, without a row in common.

    Attributes:
        train: to learn from.
        stopping: to decide when a head stops; whole groups of the fold's training rows.
        held_out: to score.
    """

    train: np.ndarray
    stopping: np.ndarray
    held_out: np.ndarray


def make_search_folds(inputs: Inputs, count: int, seed: int) -> tuple[Folds, list[SearchFold]]:
    """Part the training rows.

    Args:
        inputs: whose rows.
        count: the number of folds, at least 2.
        seed: of the choice, 0 to 2**32 - 1.

    Returns:
        The folds, and the rows of each.

    Raises:
        InputError: there are fewer rows or groups than folds, or too few to set some apart for early stopping.
    """
    folds = make_folds(inputs.train_labels, inputs.train.groups, inputs.label_names, count, seed)
    parts = []
    for learnt, held_out in folds.split():
        stopping = _stopping_rows(learnt, inputs, seed)
        parts.append(SearchFold(np.setdiff1d(learnt, stopping), stopping, held_out))
    return folds, parts


def _stopping_rows(learnt: np.ndarray, inputs: Inputs, seed: int) -> np.ndarray:
    """Choose the rows of a fold that decide when its heads stop: whole groups, with like shares of every label.

    Args:
        learnt: int64 array (T,), ascending: the fold's training rows.
        inputs: what they are rows of.
        seed: of the choice.

    Returns:
        int64 array, ascending.
    """
    labels = inputs.train_labels[learnt]
    groups = None if inputs.train.groups is None else inputs.train.groups[learnt]
    unit, units = ("rows", len(learnt)) if groups is None else ("groups", len(np.unique(groups)))
    varied = np.ptp(labels, axis=0) > 0  # a rare label may have one value here: nothing to stratify by
    if units < 2 or not varied.any():
        raise InputError(
            f"a fold is left with {units} {unit} to train on, and with {int(varied.sum())} labels of both values: too "
            "little to learn from and to decide when to stop. Add data, or use more --folds."
        )
    names = tuple(name for name, varies in zip(inputs.label_names, varied, strict=True) if varies)
    parts = make_folds(labels[:, varied], groups, names, min(STOPPING_PARTS, units), seed)
    return learnt[parts.fold_of_row == 0]
