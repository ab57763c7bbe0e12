"""Part the rows for a search: in every fold some to learn from, some to decide when to stop, some to score."""

import numpy as np

from classify.crossfit.folds import Folds, make_folds
from classify.crossfit.heads import FoldRows, choose_validation
from classify.inputs import Inputs
from features.common.errors import InputError


def make_search_folds(inputs: Inputs, count: int, seed: int) -> tuple[Folds, list[FoldRows]]:
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
        validation = choose_validation(learnt, inputs, seed)
        if validation is None:
            raise InputError(
                f"a fold is left with {len(learnt)} rows to train on, all of one group or of one value in every label: "
                "too few to learn from and to decide when to stop. Add data, or use more --folds."
            )
        parts.append(FoldRows(np.setdiff1d(learnt, validation), validation, held_out))
    return folds, parts
