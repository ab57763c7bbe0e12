"""Gather what is audited: the images of all splits, their features, digests, labels, groups and folds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from features.common.errors import InputError
from features.dataset.dataset import Dataset, Split
from features.dataset.run_labels import RUN_LABELS, read_run_labels
from features.store.cache import FeatureCache
from features.store.images_table import FactsTable


@dataclass(frozen=True)
class AuditedImages:
    """The images of all splits, one split below the other: N rows.

    Attributes:
        label_names: L names.
        splits: str (N,), the split of each image.
        image_ids: N ids, each once within its split.
        digests: N digests of the files' bytes, 16 bytes each.
        labels: int8 (N, L), 0 or 1; -1 where the split is not labelled.
        groups: str (N,); "" where none is known.
        folds: int64 (N,), the fold that held a training image out; -1 where none is known.
        blank: bool (N,), whether all pixels are nearly the same; False where stage 1 did not record it.
        without_features: by split, the images of the data set that are not here, as stage 1 rejected them: by id, the
            group, "" where none is known.
    """

    label_names: tuple[str, ...]
    splits: np.ndarray
    image_ids: tuple[str, ...]
    digests: tuple[bytes, ...]
    labels: np.ndarray
    groups: np.ndarray
    folds: np.ndarray
    blank: np.ndarray
    without_features: dict[str, dict[str, str]]

    def rows(self, split: str) -> np.ndarray:
        """The rows of a split: int64."""
        return np.flatnonzero(self.splits == split)

    @property
    def split_names(self) -> tuple[str, ...]:
        """Those that have images here, in order."""
        return tuple(dict.fromkeys(self.splits.tolist()))


def gather(
    dataset: Dataset, cache: FeatureCache, folds: Mapping[str, int]
) -> tuple[AuditedImages, dict[str, np.ndarray], tuple[str, ...]]:
    """Join a data set with what the cache knows of its images, by id.

    Args:
        dataset: the data set.
        cache: its features. A split that it does not hold is left out.
        folds: the fold of training images by id; empty where none is known.

    Returns:
        The images; by backbone that all splits have, their features float32 (N, D); the splits left out.

    Raises:
        InputError: no split is cached, no backbone is cached for all of them, or rows are missing.
    """
    cached = [split for split in dataset.splits.values() if cache.backbones(split.name)]
    if not cached:
        raise InputError(
            f"{cache.root} holds no features of {' or '.join(dataset.splits)}. "
            f"Run: scripts/extract.sh {dataset.root} --cache {cache.root}"
        )
    backbones = [
        name for name in cache.backbones(cached[0].name) if all(name in cache.backbones(s.name) for s in cached)
    ]
    if not backbones:
        held = "; ".join(f"{split.name}: {', '.join(cache.backbones(split.name))}" for split in cached)
        raise InputError(
            f"{cache.root} holds no backbone for all splits ({held}), so they cannot be compared. "
            f"Run: scripts/extract.sh {dataset.root} --backbones NAMES --cache {cache.root}"
        )
    parts = [_gather_split(split, cache, backbones, dataset.label_names) for split in cached]
    image_ids = tuple(image_id for part in parts for image_id in part.image_ids)
    of_splits = np.concatenate([np.repeat(part.splits[:1], len(part.image_ids)) for part in parts])
    images = AuditedImages(
        dataset.label_names,
        of_splits,
        image_ids,
        tuple(digest for part in parts for digest in part.digests),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.groups for part in parts]),
        _folds_of(image_ids, of_splits, folds),
        np.concatenate([part.blank for part in parts]),
        {name: lacking for part in parts for name, lacking in part.without_features.items()},
    )
    features = {
        name: np.concatenate([cache.read(part.splits[0], [name], part.image_ids)[1] for part in parts])
        for name in backbones
    }
    return images, features, tuple(name for name in dataset.splits if name not in images.split_names)


def _gather_split(
    split: Split, cache: FeatureCache, backbones: list[str], label_names: tuple[str, ...]
) -> AuditedImages:
    """Gather one split, without the images that stage 1 rejected."""
    rejected = cache.rejected(split.name)
    kept = np.array([row for row, image_id in enumerate(split.image_ids) if image_id not in rejected], np.int64)
    if not len(kept):
        raise InputError(
            f"{cache.root / 'rejected.csv'} lists every image of the split {split.name} ({len(split.image_ids)}): none "
            "has features. Fix the images and extract again."
        )
    image_ids = tuple(split.image_ids[row] for row in kept)
    index = cache.open(split.name, backbones[0]).index
    lacking = [image_id for image_id in image_ids if image_id not in index]
    if lacking:
        raise InputError(
            f"{cache.path(split.name, backbones[0])} lacks {len(lacking)} of {len(image_ids)} images (first: "
            f"{lacking[0]}). Run: scripts/extract.sh DATA --backbones {','.join(backbones)} --cache {cache.root}"
        )
    facts = FactsTable.of_split(cache.root, split.name)
    count = len(image_ids)
    groups = np.full(len(split.image_ids), "") if split.groups is None else split.groups
    return AuditedImages(
        label_names,
        np.full(count, split.name),
        image_ids,
        tuple(index[image_id] for image_id in image_ids),
        np.full((count, len(label_names)), -1, np.int8) if split.labels is None else split.labels[kept].astype(np.int8),
        groups[kept],
        np.full(count, -1),
        np.array([facts.knows(i, index[i]) and facts[i].is_blank for i in image_ids], bool),
        {split.name: {i: group for i, group in zip(split.image_ids, groups.tolist(), strict=True) if i in rejected}},
    )


def _folds_of(image_ids: tuple[str, ...], splits: np.ndarray, folds: Mapping[str, int]) -> np.ndarray:
    """Give every training image its fold: int64 (N,), -1 where none is known."""
    of_images = [folds.get(i, -1) if s == "train" else -1 for i, s in zip(image_ids, splits, strict=True)]
    return np.array(of_images, np.int64)


def read_folds(run: Path) -> dict[str, int]:
    """Read which fold of a finished run held each training image out.

    Raises:
        InputError: the folder is not a run, or its table of labels is damaged.
    """
    train = read_run_labels(run / RUN_LABELS).get("train")
    return {} if train is None else dict(zip(train.image_ids, train.folds.tolist(), strict=True))


def add_groups(dataset: Dataset, run: Path) -> Dataset:
    """Give splits that know no groups those that a run knew, of the images that it had labels of.

    Args:
        dataset: the data set.
        run: folder of a finished run.

    Returns:
        The data set itself where the run knew no groups either.

    Raises:
        InputError: the folder is not a run, or its table of labels is damaged.
    """
    splits = dict(dataset.splits)
    for name, known in read_run_labels(run / RUN_LABELS).items():
        split = splits.get(name)
        if split is None or split.groups is not None or known.groups is None:
            continue
        groups = dict(zip(known.image_ids, known.groups.tolist(), strict=True))
        own = np.array([groups.get(image_id, "") for image_id in split.image_ids], np.str_)
        if (own != "").any():
            splits[name] = replace(split, groups=own)
    return replace(dataset, splits=splits)
