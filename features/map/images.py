"""The images of a cache, and what a data set or a run knows of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.audit.comparable import choose_comparable
from features.common.arrays import UNKNOWN, Groups, Labels
from features.common.cli import choose_names
from features.common.errors import InputError
from features.common.text import count_things, first_few
from features.dataset.dataset import read_dataset
from features.options import KnownOptions
from features.store.cache import FeatureCache
from features.store.mapped import AnyFeatures, MappedFeatures
from features.store.run_labels import (
    OUT_OF_FOLD,
    RunLabels,
    find_run_file,
    find_run_labels,
    read_final_model,
    read_held_out,
    read_run_labels,
)
from features.store.scan_groups import with_scan_groups


@dataclass(frozen=True, eq=False)
class CachedImages:
    """N images of a cache.

    Attributes:
        stored: object (N,), the folder of the cache that keeps each image's features.
        image_ids: object (N,), each once within its folder.
        splits: object (N,), the split of each image: as the run or the data set says, or its folder.
        label_names: the L labels; () where none is known.
        labels: `UNKNOWN` where a label is not known.
        groups: "" where none is known.
        errors: float32 (N, L), how far the out-of-fold probability of the run's final model lies from the truth, 0 to
            1; NaN where it held the image not out, or the label is not known.
        final_model: the run's; "" without a run.
        understood: what was understood, a line each.
    """

    stored: np.ndarray
    image_ids: np.ndarray
    splits: np.ndarray
    label_names: tuple[str, ...]
    labels: Labels
    groups: Groups
    errors: np.ndarray
    final_model: str
    understood: tuple[str, ...]

    def __len__(self) -> int:
        """N."""
        return len(self.image_ids)

    def take(self, rows: np.ndarray) -> "CachedImages":
        """Some of the images, by row: int64 (n,)."""
        arrays = ("stored", "image_ids", "splits", "labels", "groups", "errors")
        return replace(self, **{name: getattr(self, name)[rows] for name in arrays})

    def features(self, cache: FeatureCache, backbones: Sequence[str]) -> list[AnyFeatures]:
        """Their features per backbone, (N, D): checked, in memory or on the disk; `InputError` says what is wrong."""
        folders = dict.fromkeys(self.stored.tolist())
        order = np.concatenate([np.flatnonzero(self.stored == folder) for folder in folders])
        ids = {folder: self.image_ids[self.stored == folder].tolist() for folder in folders}
        found = []
        for name in backbones:
            mapped = MappedFeatures.join([cache.map(folder, [name], own) for folder, own in ids.items()])
            found.append(mapped.take(np.argsort(order)).load())
        return found

    def say_labels(self, row: int) -> str:
        """Say the labels of one image: the positive ones, `none`, or `not known`."""
        labels = self.labels[row]
        positive = [name for name, value in zip(self.label_names, labels, strict=True) if value == 1]
        return " + ".join(positive) or ("not known" if (labels == UNKNOWN).all() else "none")

    def describe(self, row: int) -> str:
        """Say what is known of one image: split, group and labels."""
        group = [f"group {self.groups[row]}"] if self.groups[row] else []
        labels = [f"labels {self.say_labels(row)}"] if self.label_names else []
        return "; ".join([str(self.splits[row]), *group, *labels])


class _Part(NamedTuple):
    """What is known of n images of one folder of the cache."""

    split: str
    stored: str
    image_ids: Sequence[str]
    labels: Labels | None
    groups: Groups | None


def find_cached(cache: FeatureCache, options: KnownOptions) -> tuple[CachedImages, tuple[str, ...]]:
    """Find the images of a cache that are asked for, and the backbones to compare them by.

    Returns:
        The images, in the order of the cache's files; and names of backbones that all their folders have.

    Raises:
        InputError: the cache holds none of what is asked for, or DATA or RUN is not what the cache is of.
    """
    folders = cache.splits()
    if not folders:
        raise InputError(f"{cache.root} holds no cache file ({{split}}/{{backbone}}.h5). Run: {cache.remedy()}")
    if options.split is not None:
        folders = choose_names(options.split, "--split", "a split of the cache", folders)
    backbones, left_out = choose_comparable(cache, folders, options.backbones, "Choose one with --split.")
    names, parts, understood, final_model = _read_known(cache, options)
    ids = {folder: cache.open(folder, backbones[0]).image_ids for folder in folders}
    total = sum(map(len, ids.values()))
    images = CachedImages(
        np.repeat(np.array(folders, object), [len(own) for own in ids.values()]),
        np.array([image_id for own in ids.values() for image_id in own], object),
        np.repeat(np.array(folders, object), [len(own) for own in ids.values()]),
        names,
        np.full((total, len(names)), UNKNOWN, np.uint8),
        np.full(total, "", object),
        np.full((total, len(names)), np.nan, np.float32),
        final_model,
        understood,
    )
    start_of = dict(zip(folders, np.cumsum([0, *map(len, ids.values())]), strict=False))
    known, missing = 0, list[str]()
    for part in parts:
        if part.stored not in start_of:
            missing += part.image_ids if options.split is None else []
            continue
        row_of = cache.open(part.stored, backbones[0]).row_of
        found = np.array([row_of.get(image_id, -1) for image_id in part.image_ids], np.int64)
        missing += [part.image_ids[place] for place in np.flatnonzero(found < 0).tolist()]
        rows, own = found[found >= 0] + start_of[part.stored], found >= 0
        known += len(rows)
        images.splits[rows] = part.split
        if part.labels is not None:
            images.labels[rows] = part.labels[own]
        if part.groups is not None:
            images.groups[rows] = part.groups[own]
    source = options.run or options.data
    if source:
        refuse_unknown(cache, known, source)
    if options.run is not None:
        _read_errors(options.run, images, parts)
    lines = [*understood, *([left_out] if left_out else [])]
    if missing:
        lines.append(f"{count_things(len(missing), 'image')} of {source} not in the cache: {first_few(missing, 3)}")
    if source and known < total:
        lines.append(f"{total - known:,} of {count_things(total, 'image')} of the cache not in {source}: no labels")
    return replace(images, understood=tuple(lines)), backbones


def refuse_unknown(cache: FeatureCache, known: int, source: Path) -> None:
    """Refuse, by an `InputError`, a data set or a run of which no image is in a cache."""
    if not known:
        raise InputError(f"{cache.root} holds no image of {source}. Name the data set or the run that it is of.")


def _read_known(
    cache: FeatureCache, options: KnownOptions
) -> tuple[tuple[str, ...], list[_Part], tuple[str, ...], str]:
    """Read labels and groups of a run or a data set: names of labels, the parts, what was understood, final model."""
    if options.run is not None and options.data is not None:
        raise InputError(f"--data {options.data} and --run {options.run}: a run knows its labels. Give one of them.")
    if options.run is not None:
        splits = read_run_labels(find_run_labels(options.run))
        model, names = read_final_model(options.run)
        return names, list(_parts_of_run(splits)), (f"labels and groups: {options.run}, final model {model}",), model
    if options.data is None:
        return (), [], ("labels and groups: none (--data or --run names where they are)",), ""
    dataset, said = with_scan_groups(read_dataset(options.data, options), cache.root)
    parts = [
        _Part(
            split.name,
            stored,
            [split.image_ids[row] for row in rows],
            None if split.labels is None else split.labels[rows],
            None if split.groups is None else split.groups[rows],
        )
        for split in dataset.splits.values()
        for stored, rows in split.parts()
    ]
    return dataset.label_names, parts, (*dataset.understood, *([said] if said else [])), ""


def _parts_of_run(splits: Mapping[str, RunLabels]) -> Iterator[_Part]:
    """The images of a run by the folder of the cache that keeps them."""
    for name, of_split in splits.items():
        where = of_split.stored if of_split.stored is not None else np.full(len(of_split.image_ids), name)
        for stored in dict.fromkeys(where.tolist()):
            rows = np.flatnonzero(where == stored)
            groups = None if of_split.groups is None else of_split.groups[rows]
            yield _Part(name, stored, [of_split.image_ids[row] for row in rows], of_split.labels[rows], groups)


def _read_errors(run: Path, images: CachedImages, parts: Sequence[_Part]) -> None:
    """Fill in the errors of the run's final model on the training images that are there."""
    ids = {image_id for part in parts if part.split == "train" for image_id in part.image_ids}
    rows = np.array([r for r in np.flatnonzero(images.splits == "train") if images.image_ids[r] in ids], np.int64)
    path = find_run_file(run, OUT_OF_FOLD)
    found = read_held_out(path, images.label_names, [images.final_model], images.image_ids[rows].tolist())
    if found is None:
        raise InputError(f"{path} misses images of the run. Put the original back, or make the run again.")
    labels = images.labels[rows]
    errors = np.abs(found[images.final_model] - labels)
    images.errors[rows] = np.where(labels == UNKNOWN, np.nan, errors)
