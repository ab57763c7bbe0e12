"""Choose the images worth looking at: the surest hits and errors of the final model, and the nearest calls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from classify.scores.label_errors import LabelError
from classify.scores.thresholds import to_binary
from features.common.arrays import UNKNOWN, Groups, Labels, Probabilities, Thresholds

EXAMPLE = "example"  # an image of a label, whatever a model predicts
TRUE_POSITIVE, FALSE_POSITIVE = "true_positive", "false_positive"
FALSE_NEGATIVE, TRUE_NEGATIVE = "false_negative", "true_negative"
NEAR_THRESHOLD = "near_threshold"
#: Why an image is in the gallery, in the order of the rows.
OUTCOMES = (EXAMPLE, TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE, TRUE_NEGATIVE, NEAR_THRESHOLD)
#: Why an image is in the gallery beside its outcome: its label may be wrong.
LABEL_ERROR = "label_error"
#: Images per label and outcome: two rows of three on a page.
COUNT = 6


@dataclass(frozen=True)
class Choice:
    """One image of the gallery: its row, its label's column, one of `OUTCOMES` or `LABEL_ERROR`, its place, from 1."""

    row: int
    label: int
    outcome: str
    rank: int


def choose_gallery(
    labels: Labels, probabilities: Probabilities, thresholds: Thresholds, groups: Groups | None
) -> list[Choice]:
    """Choose up to `COUNT` images per label and outcome.

    The surest positives, true and false, are those of the highest probability, the surest negatives those of the
    lowest. Examples are positives spread evenly over the rows, of different groups where there are enough. Of equals
    the first row is taken, of an unknown label none. The choices are by label, then outcome, then rank; an image may be
    chosen several times.
    """
    decided = to_binary(probabilities, thresholds)
    return [
        Choice(int(row), label, outcome, rank)
        for label in range(labels.shape[1])
        for outcome, rows in _choose(
            labels[:, label], decided[:, label], probabilities[:, label], thresholds[label], groups
        )
        for rank, row in enumerate(rows, start=1)
    ]


def show_label_errors(errors: Sequence[LabelError]) -> list[Choice]:
    """Choose the likeliest errors of each label, up to `COUNT`."""
    shown: dict[int, int] = {}
    choices = []
    for error in errors:
        shown[error.label] = shown.get(error.label, 0) + 1
        if shown[error.label] <= COUNT:
            choices.append(Choice(error.row, error.label, LABEL_ERROR, shown[error.label]))
    return choices


def outcome_of(positive: bool, decided: bool) -> str:
    """Name the outcome of one decision."""
    if decided:
        return TRUE_POSITIVE if positive else FALSE_POSITIVE
    return FALSE_NEGATIVE if positive else TRUE_NEGATIVE


def _choose(
    truth: np.ndarray, decided: np.ndarray, probability: np.ndarray, threshold: float, groups: np.ndarray | None
) -> Iterator[tuple[str, Sequence[int]]]:
    """Yield each outcome of one label with its rows, best first; arrays (N,)."""
    yield EXAMPLE, _spread(np.flatnonzero(truth == 1), groups)
    surest = np.argsort(-probability, kind="stable")
    faintest = np.argsort(probability, kind="stable")
    for outcome, order, positive, decision in (
        (TRUE_POSITIVE, surest, 1, 1),
        (FALSE_POSITIVE, surest, 0, 1),
        (FALSE_NEGATIVE, faintest, 1, 0),
        (TRUE_NEGATIVE, faintest, 0, 0),
    ):
        yield outcome, order[(truth[order] == positive) & (decided[order] == decision)][:COUNT].tolist()
    # A threshold may be infinite, where a label has no positive: then no image is nearer than another.
    distance = np.abs(probability - threshold) if np.isfinite(threshold) else np.zeros(len(truth))
    nearest = np.argsort(distance, kind="stable")
    yield NEAR_THRESHOLD, nearest[truth[nearest] != UNKNOWN][:COUNT].tolist()


def _spread(rows: np.ndarray, groups: np.ndarray | None) -> list[int]:
    """Take up to `COUNT` rows at even distances, first of each group where there are enough groups."""
    if groups is not None and len(rows):
        _, first = np.unique(groups[rows], return_index=True)
        if len(first) >= COUNT:
            rows = rows[np.sort(first)]
    places = np.linspace(0, len(rows) - 1, num=min(COUNT, len(rows))).round().astype(int)
    return rows[places].tolist()
