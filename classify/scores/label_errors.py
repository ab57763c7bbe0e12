"""Find labels that are probably wrong: confident disagreement out-of-fold, and duplicates with other labels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from features.audit.near import LEAST_IMAGES, choose_threshold, near_pairs, whiten
from features.common.arrays import UNKNOWN, Groups, Labels, Probabilities
from features.common.files import digest
from features.store.mapped import AnyFeatures, in_blocks

#: Rows up to which near duplicates are searched: whitening 8,542 rows of 2,048 channels takes 14 s of a core.
NEAR_ROWS = 2000
#: Why a label is suspected; of several reasons the first counts.
SAME_FEATURES, NEAR_DUPLICATE, DISAGREEMENT = "equal features", "near duplicate", "confident disagreement"
_REASONS = (SAME_FEATURES, NEAR_DUPLICATE, DISAGREEMENT)


class LabelError(NamedTuple):
    """A label that is probably wrong.

    Attributes:
        row, label: the image, and the column of the label.
        given: its value, 0 or 1.
        probability: of the label, out-of-fold.
        self_confidence: the probability of the value given.
        why: a reason of this module.
        duplicate: the row that is alike and has the other value; None where there is none.
    """

    row: int
    label: int
    given: int
    probability: float
    self_confidence: float
    why: str
    duplicate: int | None = None


class Duplicates(NamedTuple):
    """Two images that are alike: their rows, and which of the first two reasons says so."""

    first: int
    second: int
    why: str


def find_label_errors(
    labels: Labels, out_of_fold: Probabilities, duplicates: Sequence[Duplicates] = ()
) -> list[LabelError]:
    """List the labels that are probably wrong, the likeliest first.

    A label disagrees confidently (confident learning: Northcutt, Jiang and Chuang 2021, section 3.1) where the
    probability of the other value reaches the mean that images of that value have, its mean self-confidence, and the
    probability of the value given does not reach its own, or is the lower one. They are ranked by self-confidence (the
    same, section 3.2): margins of probabilities minus their thresholds rank flipped labels worse. Of two images that
    are alike and differ in a label, the one is suspected whose value has the lower probability; they come first, as one
    of the two is wrong whatever the models say.

    Args:
        labels: every label has both values; an unknown one is no error.
        out_of_fold: of the same rows.
        duplicates: rows that are alike.
    """
    positive = out_of_fold.astype(np.float64)
    of_one = np.array([column[truth == 1].mean() for column, truth in zip(positive.T, labels.T, strict=True)])
    of_zero = np.array([1 - column[truth == 0].mean() for column, truth in zip(positive.T, labels.T, strict=True)])
    given = np.where(labels == 1, positive, 1 - positive)
    own, others = np.where(labels == 1, of_one, of_zero), np.where(labels == 1, of_zero, of_one)
    known = labels != UNKNOWN
    disagrees = known & (1 - given >= others) & ((given < own) | (given < 1 - given))

    def suspect(row: int, label: int, why: str, duplicate: int | None = None) -> LabelError:
        cell = row, label
        return LabelError(row, label, int(labels[cell]), float(positive[cell]), float(given[cell]), why, duplicate)

    found: dict[tuple[int, int], LabelError] = {}
    for one, other, why in sorted(duplicates, key=lambda pair: _REASONS.index(pair.why)):
        for label in np.flatnonzero((labels[one] != labels[other]) & known[one] & known[other]).tolist():
            row, alike = (one, other) if given[one, label] <= given[other, label] else (other, one)
            found.setdefault((row, label), suspect(row, label, why, alike))
    for row, label in np.argwhere(disagrees).tolist():
        found.setdefault((row, label), suspect(row, label, DISAGREEMENT))
    return sorted(found.values(), key=lambda one: (_REASONS.index(one.why), one.self_confidence, one.row, one.label))


def find_duplicates(features: AnyFeatures, columns: Mapping[str, slice], groups: Groups | None) -> list[Duplicates]:
    """List images that are alike by their features: equal ones, and near ones of other groups.

    Near ones, as an audit finds them (`features.audit.near`), are searched among `LEAST_IMAGES` to `NEAR_ROWS` images.
    Within a group neighbouring slices are near and may well differ in a label.

    Args:
        features: of N images, the backbones side by side.
        columns: which of them are each backbone's; those of no backbone are not compared.
        groups: None where no groups are known.
    """
    if not columns:
        return []
    first_of: dict[bytes, int] = {}
    blocks = (features[part] for part in in_blocks(len(features)))
    rows = (row for block in blocks for row in np.hstack([block[:, own] for own in columns.values()]))
    originals = np.array([first_of.setdefault(digest(own.tobytes()), row) for row, own in enumerate(rows)])
    return [*_equal(originals), *_near(features, columns, groups, np.unique(originals))]


def _equal(originals: np.ndarray) -> Iterator[Duplicates]:
    """Pair each copy with the first of its like; int64 (N,)."""
    for row in np.flatnonzero(originals != np.arange(len(originals))).tolist():
        yield Duplicates(int(originals[row]), row, SAME_FEATURES)


def _near(
    features: AnyFeatures, columns: Mapping[str, slice], groups: Groups | None, rows: np.ndarray
) -> Iterator[Duplicates]:
    """Pair each of some rows with its nearest, if that is near."""
    if not LEAST_IMAGES <= len(rows) <= NEAR_ROWS:
        return
    codes = np.full(len(rows), -1) if groups is None else np.unique(groups[rows], return_inverse=True)[1]
    seen = features[rows]
    points = whiten([seen[:, own] for own in columns.values()])
    every = np.arange(len(rows))
    pairs, _, _ = near_pairs(points, every, every, codes, choose_threshold(points).distance)
    for one, other in rows[pairs].tolist():
        yield Duplicates(one, other, NEAR_DUPLICATE)
