"""Set a share of the training images aside to test on, by group and with like shares of the labels."""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from classify.crossfit.plan import make_folds
from classify.inputs import Inputs, SplitInputs
from features.common.arrays import UNKNOWN
from features.common.errors import InputError
from features.common.text import first_few

#: Parts into which the training images are split at most: a share is taken as so many of them.
_MOST_PARTS = 20


def hold_out(inputs: Inputs, share: float, seed: int) -> tuple[Inputs, str]:
    """Set training images aside: a whole number of folds that keep groups together and hold like shares of the labels.

    Args:
        inputs: what a run learns from and predicts; its test images are not labelled; they stay in test.
        share: of the training images, above 0 and below 1.
        seed: of the folds. The same inputs, share and seed set the same images aside.

    Returns:
        The inputs without the images in `train` and with them in `test`, and what was set aside, in words.

    Raises:
        InputError: test images are labelled already, two images have one id, or there are too few rows or groups.
    """
    train, test = inputs.train, inputs.test
    if test is not None and test.labels is not None:
        raise InputError("--holdout: there are labelled test images already, so nothing is set aside. Leave it out.")
    clashes = sorted({*train.image_ids} & {*(test.image_ids if test else ())})
    if clashes:
        raise InputError(
            f"--holdout: {len(clashes)} ids are of a training and of a test image ({first_few(clashes, 3)}), so "
            "that the predictions could not tell them apart. Rename one of each pair."
        )
    if not 0 < share < 1:
        raise InputError(f"--holdout {share:g} is not a share. Give a number between 0 and 1, such as 0.2.")
    part = Fraction(share).limit_denominator(_MOST_PARTS)
    folds = make_folds(inputs.train_labels, train.groups, inputs.label_names, part.denominator, seed)
    held = folds.fold_of_row < part.numerator
    if not 0 < held.sum() < len(held):
        raise InputError(f"--holdout {share:g} sets {held.sum()} of {len(held)} images aside. Choose another share.")
    said = f"test: {held.sum():,} of {len(held):,} training images set aside (--holdout {share:g}"
    if train.groups is not None:
        said += f"; {len(np.unique(train.groups[held])):,} of {len(np.unique(train.groups)):,} groups"
    kept, aside = inputs.select(np.flatnonzero(~held)), train.take(np.flatnonzero(held))
    rejected = train.rejected_ids  # they stay with the images to learn from, which report them
    learnt = replace(
        kept.train,
        image_ids=(*kept.train.image_ids, *rejected),
        has_features=np.concatenate([kept.train.has_features, np.zeros(len(rejected), bool)]),
    )
    return replace(kept, train=learnt, test=aside if test is None else _join(test, aside)), f"{said})"


def _join(test: SplitInputs, aside: SplitInputs) -> SplitInputs:
    """Put images set aside behind test images without labels."""
    assert aside.labels is not None
    unknown = np.full((len(test.used_ids), aside.labels.shape[1]), UNKNOWN, np.uint8)
    groups = None
    if aside.groups is not None:
        # An image without a known group is one of its own.
        of_test = np.array(test.used_ids, np.str_) if test.groups is None else test.groups
        groups = np.concatenate([of_test, aside.groups])
    ids = (len(test.used_ids), len(aside.used_ids))
    stored = [np.full(ids[0], "test") if test.stored is None else test.stored]
    stored.append(np.full(ids[1], "train") if aside.stored is None else aside.stored)
    columns = {
        name: np.concatenate([test.columns.get(name, np.full(ids[0], "")), cells])
        for name, cells in aside.columns.items()
    }
    return replace(
        test,
        image_ids=(*test.image_ids, *aside.image_ids),
        has_features=np.concatenate([test.has_features, aside.has_features]),
        features=np.concatenate([test.features, aside.features]),
        labels=np.concatenate([unknown, aside.labels]),
        groups=groups,
        columns=columns,
        stored=np.concatenate(stored),
    )
