"""Look for leaks: duplicates within and between splits, groups on both sides, labels that contradict each other."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, compress, islice

import numpy as np
import pandas as pd

from features.audit.cells import Cells
from features.audit.comparable import choose_comparable
from features.audit.near import (
    FULL_SEARCH,
    LEAST_IMAGES,
    Threshold,
    choose_threshold,
    components_of,
    join_near,
    near_pairs,
    whiten,
)
from features.audit.report import EXACT, NEAR
from features.common.errors import InputError
from features.dataset.dataset import Dataset, Split
from features.store.cache import FeatureCache
from features.store.images_table import FactsTable
from features.store.mapped import AnyFeatures, MappedFeatures, take_rows
from features.store.run_labels import NO_FOLD, RunLabels

#: If no groups are given: how many images there are for each link that chance makes. At 100, 14 % of the pairs of one
#: phantom patient are joined, and 92 % of the joined pairs are of one patient; at 30, 21 % and 80 %.
IMAGES_PER_CHANCE_LINK = 100
#: Given groups that the name of a group which joins them says: of many that join, each row would have all names.
_NAMED = 8


@dataclass(frozen=True)
class AuditedImages:
    """The images of all splits, one split below the other: N rows.

    Attributes:
        label_names: L names.
        splits: str (N,), the split of each image.
        image_ids: str (N,), each once within its split.
        digests: object (N,), of the files' bytes, 16 bytes each.
        labels: int8 (N, L), 0 or 1; -1 where it is not known.
        groups: str (N,); "" if none is known.
        folds: int64 (N,), the fold that held a training image out; -1 if none is known.
        blank: bool (N,), whether all pixels are nearly the same; False if stage 1 did not record it.
        without_features: by split, the images of the data set that are not here, as stage 1 rejected them: by id, the
            group, "" if none is known.
    """

    label_names: tuple[str, ...]
    splits: np.ndarray
    image_ids: np.ndarray
    digests: np.ndarray
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
    dataset: Dataset, cache: FeatureCache, run: Mapping[str, RunLabels]
) -> tuple[AuditedImages, dict[str, AnyFeatures], tuple[str, ...], str]:
    """Join a data set with what the cache and a run know of its images, by id.

    Args:
        dataset: the data set.
        cache: its features. A split that it does not hold is left out.
        run: what a finished run keeps of its images, by split; empty if there is none. It gives the folds, and the
            groups of splits whose groups the data set does not give.

    Returns:
        The images; by backbone that they can be compared by, their features; the splits left out; and the backbones
        left out, in words, or "".

    Raises:
        InputError: no split is cached, images cannot be compared by any backbone, or rows are missing.
    """
    cached = [
        (part, stored, rows)
        for split in dataset.splits.values()
        for part in _as_run_split(split, run)
        for stored, rows in part.parts()
        if cache.backbones(stored)
    ]
    if not cached:
        raise InputError(f"{cache.root} holds no features of {' or '.join(dataset.splits)}. Run: {cache.remedy()}")
    backbones, note = choose_comparable(cache, tuple(dict.fromkeys(stored for _, stored, _ in cached)))
    parts = [
        _gather_part(split, stored, rows, cache, backbones, dataset.label_names, run.get(split.name))
        for split, stored, rows in cached
    ]
    without: dict[str, dict[str, str]] = {}
    for part in parts:
        for name, ids in part.without_features.items():
            without.setdefault(name, {}).update(ids)
    arrays = ("splits", "image_ids", "digests", "labels", "groups", "folds", "blank")
    images = AuditedImages(
        label_names=dataset.label_names,
        without_features=without,
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays},
    )
    features = {
        name: MappedFeatures.join(
            [
                cache.map(stored, [name], part.image_ids.tolist())
                for part, (_, stored, _) in zip(parts, cached, strict=True)
            ]
        )
        for name in backbones
    }
    return (
        images,
        {name: own.load() for name, own in features.items()},
        tuple(name for name in dataset.splits if name not in images.split_names),
        note,
    )


def _as_run_split(split: Split, run: Mapping[str, RunLabels]) -> list[Split]:
    """Split the images as a run did, which may have set some of the training images aside to test on."""
    aside: set[str] = set()
    if split.name == "train" and "test" in run and "train" in run:
        aside = {*run["test"].image_ids} - {*run["train"].image_ids}
    away = np.array([image_id in aside for image_id in split.image_ids], bool)
    if not away.any():
        return [split]
    return [split.take(np.flatnonzero(~away)), replace(split.take(np.flatnonzero(away)), name="test")]


def _gather_part(
    split: Split,
    stored: str,
    rows: np.ndarray,
    cache: FeatureCache,
    backbones: Sequence[str],
    label_names: tuple[str, ...],
    run: RunLabels | None,
) -> AuditedImages:
    """Gather the images of one split that the cache keeps together, without those that stage 1 rejected."""
    of_part = [split.image_ids[row] for row in rows]
    kept = cache.has_features(stored, of_part)
    image_ids, rejected = (list(compress(of_part, those)) for those in (kept, ~kept))
    known = split if split.groups is not None else run
    groups = dict.fromkeys(split.image_ids, "")
    if known is not None and known.groups is not None:
        groups |= zip(known.image_ids, known.groups.tolist(), strict=True)
    folds = {} if run is None else dict(zip(run.image_ids, run.folds.tolist(), strict=True))
    facts, index = FactsTable.of_split(cache.root, stored), cache.open(stored, backbones[0]).index
    digests = [index.get(image_id, b"") for image_id in image_ids]  # where one is missing, so are its features
    labels = np.full((len(kept), len(label_names)), -1) if split.labels is None else split.labels[rows]
    return AuditedImages(
        label_names,
        np.full(len(image_ids), split.name),
        np.array(image_ids, np.str_),
        np.array(digests, object),
        labels[kept].astype(np.int8),  # UNKNOWN becomes -1
        np.array([groups[image_id] for image_id in image_ids], np.str_),
        np.array([folds.get(image_id, NO_FOLD) for image_id in image_ids], np.int64),
        np.array([facts.knows(*seen) and facts[seen[0]].is_blank for seen in zip(image_ids, digests, strict=True)]),
        {split.name: {image_id: groups[image_id] for image_id in rejected}},
    )


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        images: what was audited, N rows.
        backbones: whose features near duplicates were searched by.
        pairs: one row per pair, exact ones first, then by distance: `kind` (`EXACT`: the same bytes; `NEAR`: an
            image and its nearest one, nearer than the threshold; see `near_pairs`), `scope` (`within train`, `between
            train and test`, ...), `first_split`, `first_ID`, `second_split`, `second_ID`, `distance` (0 for exact
            ones), `same_group` (boolean, missing where a group is not known), `across_folds` (likewise),
            `labels_differ` (names joined by ` + `; None where one is not labelled).
        threshold: of near duplicates; None if there are too few images to choose one.
        distances: by scope, the distances of all mutual nearest pairs, below the threshold or not, ascending.
        both_sides: the groups that have images in several splits, sorted.
        groups: the group proposed for every id, also for those without features: the given groups, joined if pairs
            below the threshold link them. If none is given, the images that pairs link, below a threshold that chance
            passes once per `IMAGES_PER_CHANCE_LINK` images: a wrong link costs little, a missing one leaks. An id that
            several splits have is in one group.
        largest_group: how many images the largest of them has.
    """

    images: AuditedImages
    backbones: tuple[str, ...]
    pairs: pd.DataFrame
    threshold: Threshold | None
    distances: dict[str, np.ndarray]
    both_sides: tuple[str, ...]
    groups: dict[str, str]
    largest_group: int


def find_leaks(images: AuditedImages, features: Mapping[str, AnyFeatures]) -> Audit:
    """Audit images by their digests and features.

    Near duplicates are searched among images that differ in their bytes and are not blank. Pairs of one group within
    one split are ignored: slices of a patient resemble each other, and folds keep them together.

    Args:
        images: N rows.
        features: by backbone, (N, D), D of any size.
    """
    group_codes = np.unique(images.groups, return_inverse=True)[1].astype(np.int64)
    group_codes[images.groups == ""] = -1
    _, first_row, digest_of_row = np.unique(images.digests, return_index=True, return_inverse=True)
    original = first_row[digest_of_row]
    copies = original != np.arange(len(original))
    links = [np.column_stack([original[copies], np.flatnonzero(copies)])]
    rows = np.flatnonzero(~copies & ~images.blank)
    found = [(EXACT, first, second, 0.0) for first, second in links[0]]
    threshold, distances = None, {}
    if len(rows) >= LEAST_IMAGES:
        points = whiten([take_rows(own, rows) for own in features.values()])
        threshold = choose_threshold(points)
        limit = threshold.distance
        if (images.groups == "").all():
            limit = threshold.distance_for(max(len(rows) / IMAGES_PER_CHANCE_LINK, threshold.expected))
        cells = Cells.of(points) if len(points) > FULL_SEARCH else None
        links.append(rows[join_near(points, limit, cells)])
        for one, other in combinations_with_replacement(images.split_names, 2):
            first, second = (np.flatnonzero(images.splits[rows] == name) for name in (one, other))
            pairs, near, mutual = near_pairs(points, first, second, group_codes[rows], threshold.distance, cells)
            distances[scope_of(one, other)] = mutual
            found += [(NEAR, *rows[pair], float(d)) for pair, d in zip(pairs, near, strict=True)]
    sides = pd.Series(images.splits).groupby(images.groups).nunique()
    groups, largest = _propose_groups(images, np.concatenate(links))
    return Audit(
        images,
        tuple(features),
        _describe_pairs(images, sorted(found, key=lambda pair: (pair[0], pair[3]))),
        threshold,
        distances,
        tuple(group for group in sides.index[sides > 1] if group),
        groups,
        largest,
    )


def scope_of(one: str, other: str) -> str:
    """Name the pairs of two splits, in their order."""
    return f"within {one}" if one == other else f"between {one} and {other}"


def _describe_pairs(images: AuditedImages, found: list[tuple[str, int, int, float]]) -> pd.DataFrame:
    """Say of each pair what it means."""
    sides = ["first_split", "first_ID", "second_split", "second_ID"]
    columns = ["kind", "scope", *sides, "distance", "same_group", "across_folds", "labels_differ"]
    rows = []
    for kind, first, second, distance in found:
        pair = [first, second]
        splits, groups = images.splits[pair], images.groups[pair]
        folds, labels = images.folds[pair], images.labels[pair]
        where = (splits[0], images.image_ids[first], splits[1], images.image_ids[second])
        same_group = groups[0] == groups[1] if (groups != "").all() else None
        across_folds = folds[0] != folds[1] if (folds >= 0).all() else None
        labels_differ = None
        known = (labels >= 0).all(axis=0)
        if known.any():
            differing = np.flatnonzero(known & (labels[0] != labels[1]))
            labels_differ = " + ".join(images.label_names[label] for label in differing)
        rows.append((kind, scope_of(*splits), *where, distance, same_group, across_folds, labels_differ))
    return pd.DataFrame(rows, columns=columns).astype({"same_group": "boolean", "across_folds": "boolean"})


def _propose_groups(images: AuditedImages, links: np.ndarray) -> tuple[dict[str, str], int]:
    """Join images by links (int64 (P, 2), pairs of rows), groups and ids: the group by id, and the largest's size."""
    rejected = [pair for of_split in images.without_features.values() for pair in of_split.items()]
    image_ids = np.array([*images.image_ids, *(image_id for image_id, _ in rejected)])
    given = np.array([*images.groups.tolist(), *(group for _, group in rejected)])
    edges = [links[~images.blank[links].any(axis=1)]]  # blank images are alike whatever they belong to
    for names in (given, image_ids):
        order = np.argsort(names, kind="stable")
        alike = (names[order][1:] == names[order][:-1]) & (names[order][1:] != "")
        edges.append(np.column_stack([order[:-1][alike], order[1:][alike]]))
    component = components_of(np.concatenate(edges), len(given))
    names_of: dict[int, dict[str, None]] = {}
    for own, name in zip(component.tolist(), given.tolist(), strict=True):
        names_of.setdefault(own, {}).update({name: None} if name else {})
    group_of = _name_groups(names_of)
    groups = {i: group_of[own] for i, own in zip(image_ids.tolist(), component.tolist(), strict=True)}
    return groups, int(np.bincount(component).max())


def _name_groups(names_of: Mapping[int, Collection[str]]) -> dict[int, str]:
    """Name each group after the given ones that it joins, the first few of many, or by number; all names differ."""
    taken = {name for names in names_of.values() for name in names}
    group_of = {}
    for number, (own, names) in enumerate(names_of.items()):
        more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
        name = "+".join([*islice(names, _NAMED), *more]) or f"proposed-{number:05d}"
        while len(names) != 1 and name in taken:  # a given group has that name
            name += "+"
        taken.add(name)
        group_of[own] = name
    return group_of
