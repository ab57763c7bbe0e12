"""Describe a data set in numbers, on a terminal and as one page, describe.html, that needs nothing else."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from features.common.arrays import UNKNOWN
from features.common.commands import option_words, write_command
from features.common.errors import InputError
from features.common.files import replacing
from features.common.text import count_things, first_few, make_console, render
from features.dataset.dataset import Split, read_with_faults
from features.dataset.faults import Faults
from features.options import OF_DATASET, DatasetOptions, DescribeOptions
from features.store.cache import FeatureCache, default_cache
from features.store.images_table import FactsTable, ImageFacts
from features.store.scan_groups import with_scan_groups

PAGE = "describe.html"
#: An image stands out if its mean or standard deviation, on the scale of its bit depth, lies more than this many
#: interquartile ranges below the lower or above the upper quartile of its split: "far out", Tukey 1977, section 2D.
FENCE = 3.0
#: A size, bit depth or number of channels is rare if a smaller share of the images than this has it.
RARE_SHARE = 0.01
_CHANNELS = {1: "grey", 3: "colour", 4: "colour with transparency"}
_SHOWN = 8
#: Kinds, such as sizes, that a table of the page shows; lists of images are whole.
_KINDS_ON_PAGE = 200
#: Lists of no more entries than this are open from the start.
_OPEN_ENTRIES = 10
_DEFAULTS = DatasetOptions()


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
        split: what is described.
        images: how many images there are, with and without a row in the CSV file.
        groups: how many groups are known.
        images_per_group: least, median and greatest number of images of a group; () if none is known.
        without_group: images that have no group, if others have one.
        labels: of each label.
        together: int64 (L, L): images positive in both labels; the diagonal has the positives.
        combinations: by labels that occur together, joined by ` + ` (`none` for no label), how many images; most
            frequent first.
        unlabelled: images with a row, of which a label is not known, by id; () if the split has no labels.
        summary: of the images; None if there is no cache.
    """

    split: Split
    images: int
    groups: int
    images_per_group: tuple[float, ...]
    without_group: int
    labels: tuple[LabelCount, ...]
    together: np.ndarray
    combinations: dict[str, int]
    unlabelled: tuple[str, ...]
    summary: ImageSummary | None


def describe_split(split: Split, label_names: tuple[str, ...], cache: FeatureCache | None) -> Description:
    """Describe a split, as far as it can be read. Counts are of images that are there; rows without one are listed."""
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
    return Description(
        split,
        count,
        len(sizes),
        tuple(np.quantile(sizes, (0, 0.5, 1)).tolist()) if len(sizes) else (),
        count - len(known) if len(known) else 0,
        tuple(
            LabelCount(
                label,
                int((column == 1).sum()),
                int((column == 0).sum()),
                int((column == UNKNOWN).sum()),
                len(set(groups[(column == 1) & (groups != "")].tolist())) if len(known) else None,
            )
            for label, column in zip(label_names, labels.T, strict=True)
        ),
        positive.T @ positive,
        dict(combinations.most_common()),
        tuple(sorted({split.image_ids[row] for row in np.flatnonzero(~complete)} - {*split.without_row})),
        None if cache is None else summarise_images(split, cache),
    )


def summarise_images(split: Split, cache: FeatureCache) -> ImageSummary:
    """Sum up what stage 1 recorded of the images of a split; InputError if the cache's tables are damaged."""
    facts, rejected = dict[str, ImageFacts](), dict[str, str]()
    for stored, rows in split.parts():
        table, reasons_of = FactsTable.of_split(cache.root, stored), cache.rejected(stored)
        image_ids = [split.image_ids[row] for row in rows]
        rejected |= {i: reasons_of[i].reason for i in image_ids if i in reasons_of}
        facts |= {i: table[i] for i in image_ids if i in table}
    unknown = sum(i not in facts and i not in rejected for i in split.image_ids)
    if not facts:
        return ImageSummary(0, unknown, rejected)
    known = list(facts.values())
    means = np.array([own.mean for own in known]) / 255
    spreads = np.array([own.std for own in known]) / 255
    blank = tuple(image_id for image_id, own in facts.items() if own.is_blank)
    kinds = {
        "size": [f"{own.height} x {own.width}" for own in known],
        "bit depth": [f"{own.bit_depth} bit" for own in known],
        "channels": [_CHANNELS.get(own.channels, f"{own.channels} channels") for own in known],
    }
    counts = {name: Counter(of_images) for name, of_images in kinds.items()}
    outliers: dict[str, list[str]] = {}
    for name, values in (("brightness", means), ("contrast", spreads)):
        lower, typical, upper = np.percentile(values, (25, 50, 75))
        reach = FENCE * max(upper - lower, 1e-3)
        for image_id, value in zip(facts, values, strict=True):
            if not lower - reach <= value <= upper + reach and image_id not in blank:
                outliers.setdefault(image_id, []).append(f"{name} {value:.3f}, typically {typical:.3f}")
    for name, of_images in kinds.items():
        for image_id, kind in zip(facts, of_images, strict=True):
            if counts[name][kind] < RARE_SHARE * len(facts):
                outliers.setdefault(image_id, []).append(f"{name} {kind}")
    return ImageSummary(
        len(facts),
        unknown,
        rejected,
        kinds={name: dict(own.most_common()) for name, own in counts.items()},
        brightness=tuple(np.percentile(means, (0, 25, 50, 75, 100)).tolist()),
        blank=blank,
        outliers={image_id: "; ".join(reasons) for image_id, reasons in outliers.items()},
    )


def describe_dataset(options: DescribeOptions) -> None:
    """Print the description of a data set, and write it as a page, but not where neither a folder nor a cache is known.

    Raises:
        InputError: bad input, or a cache that has recorded images, but none of the data set.
    """
    data, named = options.data, options.cache
    dataset, faults = read_with_faults(data, options)
    cache = named
    if named is None:
        with suppress(InputError):  # another data set may have taken the name of the default cache
            own = default_cache(data)
            cache = own if own.is_dir() else None
    feature_cache, said = None if cache is None else FeatureCache(cache, data), ""
    if cache is not None:
        dataset, said = with_scan_groups(dataset, cache)
    descriptions = [describe_split(split, dataset.label_names, feature_cache) for split in dataset.splits.values()]
    if named and not any(split.summary and split.summary.known for split in descriptions):
        for table in FactsTable.of_cache(named):
            if len(table):
                raise InputError(
                    f"{named} holds no image of {data}, but others ({table.path}). Name the cache of this data set "
                    "with --cache."
                )
    console = make_console()
    for line in dataset.understood:
        console.print(f"understood: {line}")
    if said:
        console.print(f"understood: {said}")
    for warning in faults.warnings:
        console.print(f"warning: {warning}")
    for description in descriptions:
        _print_split(console, description)
    folder = options.out or (cache and cache / "describe")
    if faults.count:
        _print_faults(console, faults, f"{PAGE} lists them" if folder else f"{PAGE} lists them, with --out")
    if cache is None:
        console.print("what the images are like is not known: name their cache with --cache, once they are extracted")
    if folder is None:
        console.print(f"no page is written: name a folder for {PAGE} with --out")
        return
    given = {name: getattr(options, name) for name in OF_DATASET if getattr(options, name) != getattr(_DEFAULTS, name)}
    words = option_words({"cache": cache, **given})
    values = {
        "title": data.resolve().name,
        "command": write_command("features describe", data, *words),
        "descriptions": descriptions,
        "faults": faults,
        "understood": dataset.understood,
        "shown": _KINDS_ON_PAGE,
        "shown_open": _OPEN_ENTRIES,
    }
    with replacing(folder / PAGE) as temporary:
        temporary.write_text(render(Path(__file__).with_name(PAGE), values), encoding="utf-8")
    console.print(f"written: {folder / PAGE}")


def _print_split(console: Console, described: Description) -> None:
    """Print one split."""
    groups = "groups not known"
    if described.groups:
        least, median, greatest = described.images_per_group
        groups = f"{count_things(described.groups, 'group')} of {least:g} to {greatest:g} images (median {median:g})"
    console.print(f"{described.split.name}: {count_things(described.images, 'image')}; {groups}")
    if described.without_group:
        console.print(f"  {count_things(described.without_group, 'image')} without a group")
    if described.labels:
        _print_labels(console, described)
    else:
        console.print("  no labels")
    for thing, what, image_ids in (
        ("row", "without an image", described.split.without_image),
        ("image", "without a row in a table", described.split.without_row),
        ("image", "with a row, but a missing label", described.unlabelled),
    ):
        if image_ids:
            console.print(f"  {count_things(len(image_ids), thing)} {what}{_colon(image_ids)}")
    if described.summary is not None:
        _print_images(console, described.summary)


def _print_labels(console: Console, described: Description) -> None:
    """Print prevalence, labels together, and combinations."""
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 2))
    table.add_column("label", overflow="fold")
    several = len(described.labels) > 1
    # The names of many labels would not fit beside each other: the page has them.
    beside = described.labels if several and len(described.labels) <= _SHOWN else ()
    headings = ["positive", "prevalence", "negative", "missing", *(["groups"] if described.groups else [])]
    for heading in (*headings, *(f"with {label.name}" for label in beside)):
        table.add_column(heading, justify="right", overflow="fold")
    for row, label in enumerate(described.labels):
        share = "-" if label.prevalence is None else f"{label.prevalence:.1%}"
        cells = [f"{label.positive:,}", share, f"{label.negative:,}", f"{label.missing:,}"]
        cells += [] if label.groups is None else [f"{label.groups:,}"]
        cells += ["" if row == place else f"{described.together[row, place]:,}" for place in range(len(beside))]
        table.add_row(label.name, *cells)
    console.print(table)
    if several:
        console.print(f"  combinations: {_counts(described.combinations)}")


def _print_images(console: Console, summary: ImageSummary) -> None:
    """Print what stage 1 recorded."""
    if summary.unknown:
        console.print(f"  {count_things(summary.unknown, 'image')} without a record: not extracted yet")
    if summary.known:
        console.print(f"  images: {'; '.join(_counts(of) for of in summary.kinds.values())}")
        least, lower, median, upper, greatest = summary.brightness
        console.print(
            f"  brightness (mean of an image, 0 to 1): {least:.3f} to {greatest:.3f}, median {median:.3f}, half of "
            f"them from {lower:.3f} to {upper:.3f}"
        )
        console.print(f"  blank or nearly so: {len(summary.blank) or 'none'}{_colon(summary.blank)}")
        console.print(f"  standing out: {len(summary.outliers) or 'none'}")
        for image_id in list(summary.outliers)[:_SHOWN]:
            console.print(f"    {image_id}: {summary.outliers[image_id]}")
        if len(summary.outliers) > _SHOWN:
            console.print(f"    and {len(summary.outliers) - _SHOWN:,} more")
    if summary.rejected:
        console.print(f"  could not be read: {len(summary.rejected):,}{_colon(list(summary.rejected))}")


def _print_faults(console: Console, faults: Faults, where: str) -> None:
    """Print what `classify run` refuses; `where` says what lists the rest."""
    kinds = Counter(fault.kind for fault in faults.kept)
    console.print(f"{count_things(faults.count, 'fault')} that classify run refuses, of these kinds: {_counts(kinds)}")
    for fault in faults.kept[:_SHOWN]:
        console.print(f"  {fault}")
    if faults.count > _SHOWN:
        console.print(f"  and {faults.count - _SHOWN:,} more: {where}")


def _colon(names: Sequence[str]) -> str:
    """List names behind a colon; nothing if there are none."""
    return f": {first_few(names, _SHOWN)}" if names else ""


def _counts(of: Mapping[str, int]) -> str:
    """List kinds with their counts."""
    return first_few([f"{kind} {count:,}" for kind, count in of.items()], _SHOWN)
