"""Count what a data set holds: groups, labels, what is missing, and what stage 1 recorded of the images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from features.dataset.dataset import Split
from features.dataset.formats import UNKNOWN
from features.store.cache import FeatureCache
from features.store.images_table import FactsTable

#: An image stands out if its mean or standard deviation, on the scale of its bit depth, lies more than this many
#: interquartile ranges below the lower or above the upper quartile of its split: "far out", Tukey 1977, section 2D.
FENCE = 3.0
#: A size, bit depth or number of channels is rare if a smaller share of the images than this has it.
RARE_SHARE = 0.01
_CHANNELS = {1: "grey", 3: "colour", 4: "colour with transparency"}


@dataclass(frozen=True)
class LabelCount:
    """One label of one split.

    Attributes:
        name: the label.
        positive, negative, missing: images; they add up to all of the split. Missing: the cell is not 0 or 1, or the
            image has no row.
        groups: how many groups have a positive image; None if no groups are known.
    """

    name: str
    positive: int
    negative: int
    missing: int
    groups: int | None

    @property
    def prevalence(self) -> float | None:
        """The share of positives among the images whose label is known, 0-1; None if there are none."""
        known = self.positive + self.negative
        return self.positive / known if known else None


@dataclass(frozen=True)
class ImageSummary:
    """What stage 1 recorded of the images of a split.

    Attributes:
        known: images that have a record.
        unknown: images that have no record and were not rejected: they are not extracted yet.
        rejected: ids and reasons of images that could not be read.
        kinds: by `size` (`512 x 512`, height first), `bit depth` and `channels`, how many images are of each, most
            frequent first.
        brightness: quartiles of the images' means, 0-1 of the scale: least, lower, median, upper, greatest.
        blank: ids of images all of whose pixels are nearly the same.
        outliers: by id, why it stands out.
    """

    known: int
    unknown: int
    rejected: dict[str, str]
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)
    brightness: tuple[float, ...] = ()
    blank: tuple[str, ...] = ()
    outliers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """One split in numbers.

    Attributes:
        name: `train` or `test`.
        images: how many images there are, with and without a row in the CSV file.
        groups: how many groups there are; None if none is known.
        images_per_group: least, median and greatest number of images of a group; () if none is known.
        without_group: images that have no group, if others have one.
        labels: of each label.
        together: int64 (L, L): images positive in both labels; the diagonal has the positives.
        combinations: by labels that occur together, joined by ` + ` (`none` for no label), how many images; most
            frequent first.
        unlabelled: images with a row, of which a label is not known, by id; () if the split has no labels.
        without_image, without_row: as in `Split`.
        summary: of the images; None if there is no cache.
    """

    name: str
    images: int
    groups: int | None
    images_per_group: tuple[float, ...]
    without_group: int
    labels: tuple[LabelCount, ...]
    together: np.ndarray
    combinations: dict[str, int]
    unlabelled: tuple[str, ...]
    without_image: tuple[str, ...]
    without_row: tuple[str, ...]
    summary: ImageSummary | None


def describe_split(split: Split, label_names: tuple[str, ...], cache: FeatureCache | None) -> Description:
    """Describe a split. All counts are of images that are there; rows without an image are listed.

    Args:
        split: as far as it can be read.
        label_names: of the data set.
        cache: where stage 1 recorded the images; None for none.
    """
    count = len(split.image_ids)
    label_names = () if split.labels is None else label_names
    labels = np.empty((count, 0), np.uint8) if split.labels is None else split.labels
    groups = np.full(count, "") if split.groups is None else split.groups
    known = groups[groups != ""]
    sizes = np.unique(known, return_counts=True)[1]
    positive = (labels == 1).astype(np.int64)
    complete = (labels != UNKNOWN).all(axis=1)
    combinations = Counter(
        " + ".join(label for label, on in zip(label_names, row, strict=True) if on) or "none"
        for row in labels[complete if label_names else []]
    )
    image_ids = (*split.image_ids, *split.without_row)
    return Description(
        split.name,
        len(image_ids),
        len(sizes) if len(sizes) else None,
        (float(sizes.min()), float(np.median(sizes)), float(sizes.max())) if len(sizes) else (),
        len(image_ids) - len(known) if len(known) else 0,
        tuple(
            LabelCount(
                label,
                int((column == 1).sum()),
                int((column == 0).sum()),
                int((column == UNKNOWN).sum()) + len(split.without_row),
                len(set(groups[(column == 1) & (groups != "")].tolist())) if len(known) else None,
            )
            for label, column in zip(label_names, labels.T, strict=True)
        ),
        positive.T @ positive,
        dict(combinations.most_common()),
        tuple(split.image_ids[row] for row in np.flatnonzero(~complete)),
        split.without_image,
        split.without_row,
        None if cache is None else summarise_images(split.name, image_ids, cache),
    )


def summarise_images(split: str, image_ids: Sequence[str], cache: FeatureCache) -> ImageSummary:
    """Sum up CACHE/{split}/images.csv for the images of a data set.

    Raises:
        InputError: that file, or rejected.csv, is not such a table.
    """
    table = FactsTable.of_split(cache.root, split)
    reasons_of = cache.rejected(split)
    rejected = {i: reasons_of[i].reason for i in image_ids if i in reasons_of}
    facts = {i: table[i] for i in image_ids if i in table}
    unknown = sum(i not in facts and i not in rejected for i in image_ids)
    if not facts:
        return ImageSummary(0, unknown, rejected)
    scales = np.array([2.0**own.bit_depth - 1 for own in facts.values()])
    means = np.array([own.mean for own in facts.values()]) / scales
    spreads = np.array([own.std for own in facts.values()]) / scales
    blank = tuple(image_id for image_id, own in facts.items() if own.is_blank)
    kinds = {
        "size": [f"{own.height} x {own.width}" for own in facts.values()],
        "bit depth": [f"{own.bit_depth} bit" for own in facts.values()],
        "channels": [_CHANNELS.get(own.channels, f"{own.channels} channels") for own in facts.values()],
    }
    counts = {name: Counter(of_images) for name, of_images in kinds.items()}
    outliers: dict[str, list[str]] = {}
    for name, values in (("brightness", means), ("contrast", spreads)):
        for place in _far(values):
            image_id = list(facts)[place]
            if image_id not in blank:
                typical = float(np.median(values))
                outliers.setdefault(image_id, []).append(f"{name} {values[place]:.3f}, typically {typical:.3f}")
    for name, of_images in kinds.items():
        for image_id, kind in zip(facts, of_images, strict=True):
            if counts[name][kind] < RARE_SHARE * len(facts):
                outliers.setdefault(image_id, []).append(f"{name} {kind}")
    return ImageSummary(
        len(facts),
        unknown,
        rejected,
        kinds={name: dict(own.most_common()) for name, own in counts.items()},
        brightness=tuple(float(value) for value in np.percentile(means, (0, 25, 50, 75, 100))),
        blank=blank,
        outliers={image_id: "; ".join(reasons) for image_id, reasons in outliers.items()},
    )


def _far(values: np.ndarray) -> np.ndarray:
    """The places of values (N,) that lie far from the others: int64."""
    lower, upper = np.percentile(values, (25, 75))
    reach = FENCE * max(upper - lower, 1e-3)
    return np.flatnonzero((values < lower - reach) | (values > upper + reach))
