"""Join a data set with its cached features, by image id."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, compress

import numpy as np

from features.common.arrays import Features, Groups, Labels, count_values
from features.common.errors import InputError
from features.common.text import first_few
from features.dataset.dataset import Dataset, Split
from features.folds.tuning import TunedFeatures, Tuning, tuned_name, tuned_row
from features.store.cache import FeatureCache
from features.store.mapped import AnyFeatures, MappedFeatures, in_blocks, take_rows
from features.store.recipe import ALL_VIEWS, FEATURES, Recipe, backbone_of, features_of, row_and_kind, size_name
from features.store.scan_groups import with_scan_groups

logger = logging.getLogger(__name__)

#: Names that a label cannot have: they are columns, or all labels together, in the files of a run.
RESERVED_LABELS = frozenset({"ID", "model", "fold", "split", "group", "stored", "micro", "macro", "overall"})

#: What kinds of features are, in words.
_KINDS = {"last": "averages of the last maps", "mid": "mid-level features"}


@dataclass(frozen=True)
class SplitInputs:
    """The images of one split, in the data set's order. N of them, of which M have features.

    Attributes:
        image_ids: of all N images.
        has_features: bool array (N,); False for the images that stage 1 rejected.
        features: of the M images, the backbones side by side; on the disk where they are large.
        labels: of the M images; None where the split is not labelled.
        groups: of the M images; None where no groups are known.
        fingerprints: of each backbone's cache file.
        columns: str (M,) by name: cells of the columns to split the images by; those that the split has.
        stored: str (M,): the folder of the cache that keeps the features of each, "train" or "test"; None where it is
            that of the split.
        views: float32 (M, V, D), all views of the features, for heads that draw one in each epoch; None for others.
        tuned: of fine-tuned backbones the features by the backbone of each fold; `features` hold of each row those by
            the one that has not seen it.
        cache_bytes: the size of each backbone's cache file.
        extraction_seconds: what each backbone took for the M images; None where its cache file does not say.
    """

    image_ids: tuple[str, ...]
    has_features: np.ndarray
    features: AnyFeatures
    labels: Labels | None
    groups: Groups | None
    fingerprints: dict[str, str]
    cache_bytes: dict[str, int] = field(default_factory=dict)
    extraction_seconds: dict[str, float | None] = field(default_factory=dict)
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    stored: np.ndarray | None = None
    views: Features | None = None
    tuned: Mapping[str, TunedFeatures] = field(default_factory=dict)

    @property
    def used_ids(self) -> tuple[str, ...]:
        """The ids of the M images that have features."""
        return tuple(compress(self.image_ids, self.has_features))

    @property
    def rejected_ids(self) -> tuple[str, ...]:
        """The ids of the N - M images that stage 1 rejected."""
        return tuple(compress(self.image_ids, ~self.has_features))

    def take(self, rows: np.ndarray) -> "SplitInputs":
        """Some of the M images, by row: int array (n,)."""
        return replace(
            self,
            image_ids=tuple(np.array(self.used_ids, dtype=object)[rows]),
            has_features=np.ones(len(rows), dtype=bool),
            features=take_rows(self.features, rows),
            labels=None if self.labels is None else self.labels[rows],
            groups=None if self.groups is None else self.groups[rows],
            columns={name: cells[rows] for name, cells in self.columns.items()},
            stored=None if self.stored is None else self.stored[rows],
            views=None if self.views is None else self.views[rows],
            tuned={name: own.take(rows) for name, own in self.tuned.items()},
        )


@dataclass(frozen=True)
class Inputs:
    """All that stage 2 learns from and predicts.

    Attributes:
        columns: which of the D columns of the features are each backbone's.
        train_labels: of the M training images; every label has both values.
        test: the images to predict; None where the data set has no such split.
        recipes: how each backbone's features were extracted.
        tta: what was read of several views of an image, of `TTA`.
    """

    label_names: tuple[str, ...]
    columns: dict[str, slice]
    train: SplitInputs
    train_labels: Labels
    test: SplitInputs | None
    recipes: dict[str, Recipe] = field(default_factory=dict)
    tta: str = "none"

    def select(self, rows: np.ndarray, test_rows: np.ndarray | None = None) -> "Inputs":
        """Learn from some of the training images alone, and predict others of them, or none: int arrays (n,)."""
        test = None if test_rows is None else self.train.take(test_rows)
        return replace(self, train=self.train.take(rows), train_labels=self.train_labels[rows], test=test)


def choose_features(
    cache: FeatureCache, backbones: Sequence[str] | None, kinds: Sequence[str] | None, of_last: Sequence[str]
) -> tuple[tuple[str, ...] | None, str]:
    """Choose which cached rows of each backbone to learn from: mid-level features where there are any.

    Args:
        cache: what was extracted.
        backbones: names of backbones at all input sizes, such as `resnet50`, or at one, `resnet50.native`; or of single
            rows, `resnet50.mid`; None for all that are cached for `train`.
        kinds: of `FEATURES`; None where nobody chose.
        of_last: the presets asked for whose figures are of the average of the last map: with them it is taken.

    Returns:
        The names of rows for `read_inputs`, None for all; and a line that says what was chosen, where nobody did.

    Raises:
        InputError: a kind asked for is missing, or is not that of a row which is named.
    """
    passes: dict[str, dict[str, str]] = {}  # of a backbone, at an input size: its rows by kind
    for name in cache.backbones("train"):
        kind = features_of(name)
        passes.setdefault(name.removesuffix(FEATURES[kind]), {})[kind] = name
    preferred = ("last", "mid") if of_last else ("mid", "last")
    named = passes if backbones is None else backbones
    found = {wanted: [name for name in passes if wanted in (backbone_of(name), size_name(name))] for wanted in named}
    if kinds:
        cached = cache.backbones("train")
        single = [name for name, of_name in found.items() if not of_name and row_and_kind(name)[0] in cached]
        _refuse_lacking(cache, kinds, {name: passes[name] for names in found.values() for name in names}, single)
    chosen: list[str] = []
    taken: dict[str, str] = {}  # by pass, the kind of which nobody said that it is wanted
    for wanted, of_wanted in found.items():
        for name in of_wanted:
            own = kinds or [next(kind for kind in preferred if kind in passes[name])]
            chosen += [passes[name][kind] for kind in own]
            taken[name] = own[0]
        if not of_wanted:  # a single row; or one that is missing, which `read_inputs` says
            row, kind = row_and_kind(wanted)
            if kind and kinds and kind not in kinds:
                raise InputError(
                    f"--backbones {wanted} names {kind} features, not those of --features {','.join(kinds)}. Leave one "
                    "out."
                )
            chosen.append(row)
    names = tuple(dict.fromkeys(chosen)) or None
    both = any(len(passes[name]) > 1 for name in taken)
    if kinds or not (both or len(set(taken.values())) > 1):
        return names, ""
    said = "; ".join(
        f"{kind} of {first_few([name for name in taken if taken[name] == kind])}"
        for kind in dict.fromkeys(taken.values())
    )
    why = f", as {of_last[0]} learns from those" if of_last else ""
    other = f" (--features {preferred[1]} takes {_KINDS[preferred[1]]})" if both else ""
    return names, f"features: {said}{why}{other}"


def _refuse_lacking(
    cache: FeatureCache, kinds: Sequence[str], passes: Mapping[str, Mapping[str, str]], single: Sequence[str]
) -> None:
    """Refuse by an `InputError` kinds of features that a pass does not have.

    Args:
        cache: what was extracted.
        kinds: those asked for.
        passes: by name, the rows of each by kind.
        single: names of single rows that are asked for beside them, and are there.
    """
    lacking = {kind: [name for name, rows in passes.items() if kind not in rows] for kind in kinds}
    missing = [name + FEATURES[kind] for kind, names in lacking.items() for name in names]
    if not missing:
        return
    said = " and ".join(f"{kind} features of {first_few(names)}" for kind, names in lacking.items() if names)
    remedies = ["Leave --features out"]
    if whole := [size_name(name) for name, rows in passes.items() if rows.keys() >= {*kinds}] + [*single]:
        remedies.append(f"or name the others: --backbones {','.join(whole)}")
    if all(cache.remedy(row, split="train") for row in missing):
        remedies.append(f"or run: {cache.remedy(*missing, split='train')}")
    raise InputError(f"--features {','.join(kinds)}: {cache.root} holds no {said}. {'; '.join(remedies)}")


def describe_views(recipes: Mapping[str, Recipe], tta: str, augment: bool = False) -> str:
    """Say in a line what is read of the views of an image, by `TTA`, of all rows; "" where there is one view alone."""
    of_views: dict[str, list[str]] = {}
    for name, recipe in recipes.items():
        of_views.setdefault(recipe.describe_views(tta), []).append(name)
    if all(len(recipe.views) == 1 for recipe in recipes.values()):
        return ""
    said = "; ".join(f"{views} of {first_few(names)}" for views, names in of_views.items())
    return f"views: {said}" + (ALL_VIEWS if augment else "")


def read_inputs(
    dataset: Dataset,
    cache: FeatureCache,
    backbones: Sequence[str] | None,
    tta: str = "mean",
    augment: bool = False,
) -> Inputs:
    """Read the features of a data set's images, of these cached rows, in this order; None for all cached for `train`.

    Of several views of an image the mean is read, or by `tta` "none" the first. With `augment` all those of train are
    read beside it, for heads to learn from.

    Raises:
        InputError: features are missing or all constant, `train` is not labelled, or a label cannot be learnt from it.
    """
    dataset, said = with_scan_groups(dataset, cache.root)
    if said:
        logger.warning("%s", said)
    clashes = sorted(RESERVED_LABELS & set(dataset.label_names))
    if clashes:
        raise InputError(
            f"{dataset.root}: a label cannot be called {clashes[0]}: that name has a meaning in the files of a run. "
            "Rename the column, or leave it out with --labels."
        )
    names = tuple(cache.backbones("train") if backbones is None else backbones)
    if not names and "train" in dataset.splits:
        for stored, rows in dataset.splits["train"].parts():  # refuses a split of rejected images
            cache.has_features(stored, [dataset.splits["train"].image_ids[row] for row in rows])
    if not names:
        raise InputError(f"{cache.root} holds no features of the split train. Run: {cache.remedy()}")
    if "train" not in dataset.splits:
        raise InputError(
            f"{dataset.root} has no images to learn from. Add a folder train and its table, or say with "
            "--split-column which images are to learn from."
        )
    if dataset.splits["train"].labels is None:
        raise InputError(
            f"{dataset.root}: no label is known for the training images, so there is nothing to learn from. Write a "
            "table that names each image and its labels (train.csv: ID,label_a,label_b), or make a folder for each "
            "class."
        )
    train = _read_split(dataset.splits["train"], cache, names, tta)
    labels = train.labels
    assert labels is not None
    _check_labels(labels, dataset)
    files = {name: cache.open("train", name) for name in names}
    if augment:
        if all(file.views == 1 for file in files.values()):
            raise InputError(
                f"--augment: {cache.root} holds one view of each image, so there is none to draw. Extract with "
                "--views 8, or leave --augment out."
            )
        train = replace(train, views=_read_views(dataset.splits["train"], cache, names, train))
    columns = columns_of({name: file.width for name, file in files.items()})
    _check_features(train.features, columns, cache)
    test = _read_split(dataset.splits["test"], cache, names, tta) if "test" in dataset.splits else None
    if test is not None and "test" in dataset.splits["test"].stored:
        _check_widths(columns, cache)
    recipes = {name: file.recipe for name, file in files.items()}
    tuned = [name for name, recipe in recipes.items() if recipe.tuned]
    if tuned and augment:
        raise InputError(f"--augment: {first_few(tuned)} is fine-tuned, and has one view of an image. Leave one out.")
    train = replace(train, tuned={name: _read_tuned(name, dataset, cache, train) for name in tuned})
    for name in tuned:
        if test is not None:
            _refuse_seen(train.tuned[name].tuning, dataset.splits["test"], cache, name, test)
    return Inputs(dataset.label_names, columns, train, labels, test, recipes, tta)


def refuse_tuned(inputs: Inputs, what: str) -> None:
    """Refuse by an `InputError` what would score a fine-tuned backbone on rows that it has seen."""
    if inputs.train.tuned:
        others = ",".join(name for name in inputs.columns if name not in inputs.train.tuned)
        raise InputError(
            f"{what}: {first_few(list(inputs.train.tuned))} was fine-tuned on rows that would be held out, so the "
            "scores would be too good. Leave it out"
            + (f": --backbones {others}" if others else ", and name other --backbones.")
        )


def _read_tuned(name: str, dataset: Dataset, cache: FeatureCache, train: SplitInputs) -> TunedFeatures:
    """Find the features of the training rows by each backbone of a fine-tuning, and check what is stored of them."""
    tuning = read_tuning(cache, "train", name)
    stored = "train" if train.stored is None else str(train.stored[0])
    wanted = cache.open(stored, name).index
    by_source = []
    for source in tuning.sources:
        row = tuned_row(name, source)
        found = cache.map(stored, [row], train.used_ids)
        found.load()  # compares each block with its digest
        by_source.append(found)
        own = cache.open(stored, row).index
        if other := [image_id for image_id in train.used_ids if own[image_id] != wanted[image_id]]:
            raise InputError(
                f"{cache.path(stored, row)} has rows of other images than {cache.path(stored, name)} (first: "
                f"{other[0]}). Run extract finetune again."
            )
    return TunedFeatures(tuning, train.used_ids, tuple(by_source))


def read_tuning(cache: FeatureCache, split: str, name: str) -> Tuning:
    """Read what a fine-tuned backbone has seen, by its rows in a cache.

    Raises:
        InputError: the cache does not say it, or says it of another fine-tuning.
    """
    tuning = Tuning.read(cache.root, tuned_name(name))
    sources = [tuned_row(name, source) for source in tuning.sources] if split == "train" else []
    recipes = {row: cache.open(split, row).recipe for row in (name, *sources)}
    other = [row for row, recipe in recipes.items() if recipe.tuned != tuning.digest]
    if sources and recipes[sources[-1]].weights_digest != recipes[name].weights_digest:
        other.append(sources[-1])  # it was stopped between the one and the other
    if other:
        raise InputError(
            f"{cache.path(split, other[0])} is of another fine-tuning than {tuning.name} in {cache.root}, so nobody "
            "knows which images it has seen. Run extract finetune again."
        )
    return tuning


def _refuse_seen(tuning: Tuning, split: Split, cache: FeatureCache, name: str, read: SplitInputs) -> None:
    """Refuse test images whose bytes a fine-tuned backbone has learnt from."""
    for stored, rows in split.parts():
        wanted = [split.image_ids[row] for row in rows if read.has_features[row]]
        index = cache.open(stored, name).index
        tuning.refuse_seen(wanted, [index[image_id] for image_id in wanted], f"{split.name} images")


def columns_of(widths: Mapping[str, int]) -> dict[str, slice]:
    """Say which columns are each backbone's, of backbones side by side in this order."""
    ends = list(accumulate(widths.values()))
    return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}


def feature_sets(columns: Mapping[str, slice]) -> dict[str, slice]:
    """List what a kind of model is fitted on: each backbone's columns and, of several, those of `all` side by side."""
    # Of one backbone, all would be the same model twice.
    width = max(own.stop for own in columns.values())
    return {**columns, "all": slice(0, width)} if len(columns) > 1 else dict(columns)


def list_fitted(kinds: Iterable[str], columns: Mapping[str, slice]) -> list[str]:
    """List the models of some kinds by name, such as `logistic/resnet50`: one for each set of features."""
    return [f"{kind}/{seen}" for kind in kinds for seen in feature_sets(columns)]


def _read_split(split: Split, cache: FeatureCache, backbones: Sequence[str], tta: str) -> SplitInputs:
    """Read the features of a split's images, without those that stage 1 rejected."""
    has_features = np.zeros(len(split.image_ids), bool)
    parts = list(split.parts())
    for stored, rows in parts:
        has_features[rows] = cache.has_features(stored, [split.image_ids[row] for row in rows])
    found = []
    bytes_of, seconds_of = dict.fromkeys(backbones, 0), dict[str, float | None](dict.fromkeys(backbones, 0.0))
    for stored, all_rows in parts:
        rows = all_rows[has_features[all_rows]]
        wanted = [split.image_ids[row] for row in rows]
        found.append(cache.map(stored, backbones, wanted, tta))
        of_part = [(split.image_ids[row], split.paths[row]) for row in all_rows]
        cache.refuse_changed(stored, backbones, *zip(*of_part, strict=True))
        for name in backbones:
            file, seconds = cache.open(stored, name), seconds_of[name]
            bytes_of[name] += file.path.stat().st_size
            own = file.seconds_per_image
            seconds_of[name] = None if own is None or seconds is None else seconds + own * len(wanted)
    order = np.argsort(np.concatenate([rows[has_features[rows]] for _, rows in parts]))
    features = MappedFeatures.join(found).take(order).load()
    return SplitInputs(
        image_ids=split.image_ids,
        has_features=has_features,
        features=features,
        labels=None if split.labels is None else split.labels[has_features],
        groups=None if split.groups is None else split.groups[has_features],
        fingerprints={name: cache.open(parts[0][0], name).fingerprint for name in backbones},
        cache_bytes=bytes_of,
        extraction_seconds=seconds_of,
        columns={name: cells[has_features] for name, cells in split.columns.items()},
        stored=split.stored[has_features],
    )


def _read_views(split: Split, cache: FeatureCache, backbones: Sequence[str], read: SplitInputs) -> Features:
    """Read all views of the M images of a split that have features: float32 (M, V, D)."""
    row_of = {image_id: row for row, image_id in enumerate(read.used_ids)}
    views = None
    for stored, rows in split.parts():
        wanted = [split.image_ids[row] for row in rows if read.has_features[row]]
        _, found = cache.read(stored, backbones, wanted, "all")
        views = np.empty((len(row_of), *found.shape[1:]), np.float32) if views is None else views
        views[[row_of[image_id] for image_id in wanted]] = found
    assert views is not None
    return views


def _check_features(features: AnyFeatures, columns: dict[str, slice], cache: FeatureCache) -> None:
    """Refuse a backbone whose features are all constant; single ones are ordinary: channels that ReLU never opens."""
    constant, first = list(columns), features[:1]
    for rows in in_blocks(len(features)):
        if not constant:
            return
        block = features[rows]
        constant = [name for name in constant if (block[:, columns[name]] == first[:, columns[name]]).all()]
    if constant:
        rest = ",".join(name for name in columns if name not in constant)
        raise InputError(
            f"{cache.path('train', constant[0])}: all features are the same for each of {len(features)} images, so "
            f"{constant[0]} can tell none apart. Look at the images, remove the file and extract again"
            + (f"; or leave it out: --backbones {rest}" if rest else ".")
        )


def _check_widths(columns: dict[str, slice], cache: FeatureCache) -> None:
    """Refuse a backbone whose number of features differs between train and test."""
    for name, own in columns.items():
        width = cache.open("test", name).width
        if width != own.stop - own.start:
            raise InputError(
                f"{cache.path('test', name)} has {width} features an image, but {cache.path('train', name)} has "
                f"{own.stop - own.start}. Remove both files and extract again."
            )


def _check_labels(labels: Labels, dataset: Dataset) -> None:
    """Refuse labels of which only one value is known."""
    counts = dict(zip(dataset.label_names, zip(*count_values(labels), strict=True), strict=True))
    constant = [name for name, of_values in counts.items() if not all(of_values)]
    if constant:
        rest = ",".join(name for name in dataset.label_names if name not in constant)
        said = ", ".join(
            f"{name} is positive in {counts[name][0]}"
            + (f" of {sum(counts[name])} known" if sum(counts[name]) < len(labels) else "")
            for name in constant
        )
        raise InputError(
            f"{dataset.root}: {said} of {len(labels)} images with features, so there is nothing to "
            "tell apart. "
            + (f"Leave {'it' if len(constant) == 1 else 'them'} out: --labels {rest}" if rest else "Add other images.")
        )


def warn_shared_groups(train: Groups | None, test: Groups | None) -> list[str]:
    """Say, in one sentence, which groups are in train and in test, as that flatters the scores of test; or nothing."""
    if train is None or test is None:
        return []
    shared = sorted({*train.tolist()} & {*test.tolist()} - {""})
    if not shared:
        return []
    who = "1 group is" if len(shared) == 1 else f"{len(shared)} groups are"
    return [f"{who} in train and in test, so that the figures of test are too good: {first_few(shared)}."]
