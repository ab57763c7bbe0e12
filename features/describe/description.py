"""Describe a data set in numbers: groups, labels, what is missing, and what stage 1 recorded of the images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from features.dataset.survey import SurveyedSplit
from features.store.cache import FeatureCache
from features.store.images_table import FactsTable, ImageFacts

#: An image is an outlier if its mean or standard deviation, on the scale of its bit depth, lies further than this many
#: interquartile ranges below the lower or above the upper quartile of its split: "far out", Tukey 1977, section 2D.
FENCE = 3.0
#: A size, bit depth or number of channels that fewer images than this share have is rare.
RARE_SHARE = 0.01


@dataclass(frozen=True)
class LabelCount:
    """One label of one split.

    Attributes:
        name: the label.
        positive, negative, missing: images; they add up to all of the split. Missing: the cell is blank or no label, or
            the image has no row.
        groups: how many groups have a positive image; None where no groups are known.
    """

    name: str
    positive: int
    negative: int
    missing: int
    groups: int | None

    @property
    def prevalence(self) -> float | None:
        """The share of positives among the images that have the label, 0-1; None where none has it."""
        known = self.positive + self.negative
        return self.positive / known if known else None


@dataclass(frozen=True)
class ImageSummary:
    """What stage 1 recorded of the images of a split.

    Attributes:
        known: images that have a record.
        unknown: images that have none and were not rejected: not extracted yet.
        rejected: ids and reasons of images that could not be read.
        sizes: how many images have a size (`512 x 512`, height first), most frequent first; so are the next two.
        bit_depths: `8 bit`, `16 bit`.
        channels: `grey`, `colour`, `colour with transparency`.
        brightness: quartiles of the images' means, 0-1 of the scale: least, lower, median, upper, greatest.
        blank: ids of images all of whose pixels are nearly the same.
        outliers: by id, why it stands out.
    """

    known: int
    unknown: int
    rejected: dict[str, str]
    sizes: dict[str, int] = field(default_factory=dict)
    bit_depths: dict[str, int] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)
    brightness: tuple[float, ...] = ()
    blank: tuple[str, ...] = ()
    outliers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """One split in numbers.

    Attributes:
        name: `train` or `test`.
        images: ids that have an image.
        groups: how many groups there are; None where none is known.
        images_per_group: least, median and greatest number of images of a group; () where none is known.
        without_group: images that have none, where others have.
        labels: of each label.
        together: int64 (L, L): images positive in both labels; the diagonal has the positives.
        combinations: by labels that occur together, joined by ` + ` (`none` for no label), how many images; most
            frequent first.
        unlabelled, without_image, without_row: as in `SurveyedSplit`.
        summary: of the images; None where no cache was given.
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


def describe(split: SurveyedSplit, cache: FeatureCache | None) -> Description:
    """Describe a split. All counts are of images that are there; rows without one are listed.

    Args:
        split: as it is on disk.
        cache: where stage 1 recorded the images; None for none.
    """
    lost = set(split.without_image)
    there = np.array([image_id not in lost for image_id in split.image_ids], bool)
    labels, groups = split.labels[there], split.groups[there]
    known = groups[groups != ""]
    sizes = np.unique(known, return_counts=True)[1]
    positive = (labels == 1).astype(np.int64)
    complete = labels[(labels >= 0).all(axis=1)] if split.label_names else labels[:0]
    combinations = Counter(
        " + ".join(name for name, on in zip(split.label_names, row, strict=True) if on) or "none" for row in complete
    )
    image_ids = [*(image_id for image_id in split.image_ids if image_id not in lost), *split.without_row]
    return Description(
        split.name,
        len(image_ids),
        len(sizes) if len(sizes) else None,
        (float(sizes.min()), float(np.median(sizes)), float(sizes.max())) if len(sizes) else (),
        len(image_ids) - len(known) if len(known) else 0,
        tuple(
            LabelCount(
                name,
                int((column == 1).sum()),
                int((column == 0).sum()),
                int((column < 0).sum()) + len(split.without_row),
                len(set(groups[(column == 1) & (groups != "")].tolist())) if len(known) else None,
            )
            for name, column in zip(split.label_names, labels.T, strict=True)
        ),
        positive.T @ positive,
        dict(combinations.most_common()),
        split.unlabelled if split.label_names else (),
        split.without_image,
        split.without_row,
        None if cache is None else summarise_images(split.name, image_ids, cache),
    )


def summarise_images(split: str, image_ids: Sequence[str], cache: FeatureCache) -> ImageSummary:
    """Sum up CACHE/{split}/images.csv for the images of a data set.

    Raises:
        InputError: that file, or rejected.csv, is no such table.
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
    kinds = {"size": _sizes(facts), "bit depth": _depths(facts), "channels": _channels(facts)}
    outliers: dict[str, list[str]] = {}
    for name, values in (("brightness", means), ("contrast", spreads)):
        for place in _far(values):
            image_id = list(facts)[place]
            if image_id not in blank:
                typical = float(np.median(values))
                outliers.setdefault(image_id, []).append(f"{name} {values[place]:.3f}, typically {typical:.3f}")
    for name, of_images in kinds.items():
        counts = Counter(of_images)
        for image_id, kind in zip(facts, of_images, strict=True):
            if counts[kind] < RARE_SHARE * len(facts):
                outliers.setdefault(image_id, []).append(f"{name} {kind}")
    return ImageSummary(
        len(facts),
        unknown,
        rejected,
        sizes=dict(Counter(kinds["size"]).most_common()),
        bit_depths=dict(Counter(kinds["bit depth"]).most_common()),
        channels=dict(Counter(kinds["channels"]).most_common()),
        brightness=tuple(float(value) for value in np.percentile(means, (0, 25, 50, 75, 100))),
        blank=blank,
        outliers={image_id: "; ".join(reasons) for image_id, reasons in outliers.items()},
    )


def _far(values: np.ndarray) -> np.ndarray:
    """The places of values (N,) that lie far from the others: int64."""
    lower, upper = np.percentile(values, (25, 75))
    reach = FENCE * max(upper - lower, 1e-3)
    return np.flatnonzero((values < lower - reach) | (values > upper + reach))


def _sizes(facts: dict[str, ImageFacts]) -> list[str]:
    """Name the size of each image."""
    return [f"{own.height} x {own.width}" for own in facts.values()]


def _depths(facts: dict[str, ImageFacts]) -> list[str]:
    """Name the bit depth of each image."""
    return [f"{own.bit_depth} bit" for own in facts.values()]


def _channels(facts: dict[str, ImageFacts]) -> list[str]:
    """Name the channels of each image."""
    names = {1: "grey", 3: "colour", 4: "colour with transparency"}
    return [names.get(own.channels, f"{own.channels} channels") for own in facts.values()]
