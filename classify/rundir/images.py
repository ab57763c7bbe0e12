"""gallery.csv and label_errors.csv: images of a run worth looking at, and labels that may be wrong."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from classify.inputs import Inputs, SplitInputs
from classify.rundir.folder import GALLERY, LABEL_ERRORS
from classify.rundir.tables import write_table
from classify.scores.gallery import choose_gallery, show_label_errors
from classify.scores.label_errors import LabelError
from features.common.arrays import Labels, Probabilities, Thresholds

_OF_GALLERY = ("split", "ID", "label", "outcome", "rank")
_OF_ERRORS = ("rank", "ID", "label", "given", "probability", "self_confidence", "why", "duplicate_of", "group")


def write_gallery(
    folder: Path,
    label_names: Sequence[str],
    thresholds: Thresholds,
    splits: Iterable[tuple[str, SplitInputs, Labels, Probabilities]],
    errors: Sequence[LabelError],
) -> None:
    """Write the images worth looking at, by the final model, and the likeliest errors of each label.

    `split`, `ID`, `label`, `outcome`, `rank`. The thresholds and probabilities are the final model's; the errors are of
    `train`, which the splits begin with.
    """
    rows = []
    for split, images, labels, probabilities in splits:
        choices = choose_gallery(labels, probabilities, thresholds, images.groups)
        choices += show_label_errors(errors) if split == "train" else []
        ids = images.used_ids  # made of all images each time
        rows += [(split, ids[c.row], label_names[c.label], c.outcome, c.rank) for c in choices]
    write_table(pd.DataFrame(rows, columns=list(_OF_GALLERY)), folder / GALLERY)


def write_label_errors(folder: Path, inputs: Inputs, errors: Sequence[LabelError]) -> None:
    """Write a row per suspected label, the likeliest first; cells that say nothing are empty."""
    ids, groups = inputs.train.used_ids, inputs.train.groups
    rows = [
        (
            rank,
            ids[error.row],
            inputs.label_names[error.label],
            error.given,
            round(error.probability, 6),
            round(error.self_confidence, 6),
            error.why,
            "" if error.duplicate is None else ids[error.duplicate],
            "" if groups is None else groups[error.row],
        )
        for rank, error in enumerate(errors, start=1)
    ]
    write_table(pd.DataFrame(rows, columns=list(_OF_ERRORS)), folder / LABEL_ERRORS)
