"""What `python -m extract finetune` does: read labels, make folds, train a backbone without each, extract by all."""

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from extract.backbones.build import FrozenBackbone
from extract.backbones.table import backbone_named
from extract.backbones.weights import find_weights
from extract.choices import choose_reading, choose_window, kept_reading, say_plain_images
from extract.extraction import CompiledBackbones, ExtractionOptions, extract
from extract.finetune.backbones import LowerPart, save_tuned
from extract.finetune.blocks import find_cut
from extract.finetune.training import Trained, TuningSettings, train_upper
from extract.images.decoding import decode
from extract.images.files import ImageFiles
from extract.images.reading import Ranges, Reading
from extract.images.views import draw_views
from extract.options import ExtractOptions, FinetuneOptions
from extract.pipeline import Images
from extract.report import print_images
from extract.runtime import cores
from features.common.arrays import Groups, Labels, RowIndices, find_varied
from features.common.cli import EXIT_REJECTED, choose_names
from features.common.errors import InputError
from features.common.files import digest, hold
from features.common.text import count_things, duration, first_few, make_console, progress_bar, size
from features.dataset.dataset import Dataset, Split, read_dataset
from features.folds.folds import FoldRows, Folds, make_folds, refuse_few, split_rows
from features.folds.tuning import OF_ALL, Tuning, folder_of, read_member, tuned_row
from features.options import OF_IMAGES
from features.store.assembly import assemble
from features.store.cache import FeatureCache, claim_default_cache, default_cache
from features.store.images_table import FactsTable
from features.store.mapped import MappedFeatures
from features.store.parts import PartStore, Rows
from features.store.recipe import FEATURES, IDENTITY, Recipe
from features.store.scan_groups import with_scan_groups


@dataclass(frozen=True)
class LabelledRows:
    """The N training rows that have maps.

    Attributes:
        image_ids: theirs.
        paths: their files.
        labels: uint8 (N, L).
        groups: None where no groups are known.
        label_names: L names.
    """

    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: Labels
    groups: Groups | None
    label_names: tuple[str, ...]


def run_finetuning(options: FinetuneOptions) -> int:
    """Run the command.

    Returns:
        The exit code: 0 done, 3 done but some images could not be read.

    Raises:
        InputError: bad options or bad input.
    """
    console, start = make_console(), time.monotonic()
    features = _check_options(options)
    row = backbone_named(options.backbone)
    dataset = read_dataset(options.data, options)
    for line in dataset.understood:
        console.print(f"understood: {line}")
    train = _find_train(dataset)
    _refuse_unlearnable(dataset, train)
    # Groups that were guessed, or are not known yet, may be others once the scans are read.
    refuse_few(len(train.image_ids), None if dataset.groups_guessed else train.groups, options.folds)
    frozen = FrozenBackbone.of_table(row, find_weights(row, options.weights, options.weights_dir), "float32", features)
    cut = find_cut(frozen.build_whole(), options.unfreeze).output
    cache = options.cache or default_cache(options.data)
    if options.cache is None:
        claim_default_cache(options.data)
    images = [Images(name, split.image_ids, split.paths) for name, split in dataset.splits.items()]
    name = f"{row.name}.tuned"
    with hold(folder_of(cache, name) / ".tuning.lock"):
        reading = _choose_reading(options, cache, frozen, images, console)
        how = ExtractionOptions(cache, "float32", options.workers or cores(), reading)
        work = partial(extract, options=how, console=console, stop=threading.Event())
        lower = LowerPart.of(frozen, options.unfreeze)
        count, a_map = len(train.image_ids), 2 * math.prod(cut.shape[1:])
        console.print(
            f"maps of {count:,} images before {options.unfreeze}: {size(a_map)} each, {size(a_map * count)} in "
            f"{cache / 'train' / lower.name}.h5, which may be removed afterwards"
        )
        compiled = CompiledBackbones(None)
        report = work(images[:1], [lower], compiled=compiled)
        dataset, said = with_scan_groups(dataset, cache)
        if said:
            console.print(f"understood: {said}")
        rows = _read_rows(dataset, cache)
        folds = make_folds(rows.labels, rows.groups, rows.label_names, options.folds, options.seed)
        console.print(f"fine-tuning by {folds.describe()}")
        tuning = _describe(options, name, frozen, reading, rows, folds, cache, lower)
        splits = _split_folds(rows, folds, options.seed)
        if changes := tuning.replaces(cache):
            console.print(
                f"warning: this replaces the earlier fine-tuning of {name} in {cache}, which differs in: {changes}. To "
                "keep it, stop now, and give another --cache."
            )
        maps = _Maps(cache, lower, rows, reading, options, compiled)
        _train_all(options, tuning, frozen, maps, rows, splits, cache, console)
        tuning.write(cache)  # only now, so that features of an earlier one serve until there is another
        files = {source: folder_of(cache, name) / f"{source}.keras" for source in tuning.sources}
        backbones = [
            FrozenBackbone.of_tuned(tuned_row(name, source), path, tuning, features) for source, path in files.items()
        ]
        work(images[:1], backbones, compiled=CompiledBackbones(None))
        for_test = replace(backbones[-1], name=name)
        if images[1:]:
            of_test = work(images[1:], [for_test], compiled=CompiledBackbones(None))
            of_test.rejected, of_test.blank = report.rejected + of_test.rejected, report.blank + of_test.blank
            of_test.repaired, of_test.seen = report.repaired + of_test.repaired, report.seen + of_test.seen
            report = of_test
        for recipe in for_test.recipes("float32", reading):
            _assemble_unseen(cache, tuning, recipe)
    names = ", ".join(for_test.rows)
    console.print(f"{names} in {cache}: fine-tuned and extracted in {duration(time.monotonic() - start)}")
    return EXIT_REJECTED if print_images(report, cache, console) else 0


def _check_options(options: FinetuneOptions) -> tuple[str, ...]:
    """Refuse by an `InputError` what no data make right; give the kinds of features."""
    if not (math.isfinite(options.lr) and options.lr > 0):
        raise InputError(f"--lr {options.lr:g} is not a learning rate. Give a number above 0, such as 1e-5.")
    if options.ranges is not None:
        if not options.augment:
            raise InputError(f"--ranges {options.ranges}: only random views have ranges. Add --augment.")
        Ranges.parse(options.ranges)
    return choose_names(options.features, "--features", "a kind of features", FEATURES)


def _find_train(dataset: Dataset) -> Split:
    """Find the images to learn from.

    Raises:
        InputError: there are none, they have no labels, or images are used otherwise than their folders say.
    """
    train = dataset.splits.get("train")
    if train is None or train.labels is None:
        what = "has no images to learn from" if train is None else "has no labels of the images to learn from"
        raise InputError(
            f"{dataset.root} {what}, so there is nothing to fine-tune on. Give a table that names each image and its "
            "labels (train.csv: ID,label_a,label_b)."
        )
    for name, split in dataset.splits.items():
        if other := sorted({*split.stored.tolist()} - {name}):
            raise InputError(
                f"{dataset.root}: images of {name} are in the folder {other[0]}, and fine-tuning reads train/ alone. "
                "Move them to where they belong."
            )
    return train


def _refuse_unlearnable(dataset: Dataset, train: Split) -> None:
    """Refuse labels of which the training images have one value alone.

    Raises:
        InputError: there are such labels.
    """
    assert train.labels is not None
    varied = find_varied(train.labels)
    if not varied.all():
        names = [name for name, both in zip(dataset.label_names, varied, strict=True) if not both]
        raise InputError(
            f"{dataset.root}: there is one value alone of {first_few(names)}, so nothing can be learnt of it. Name the "
            "other labels with --labels."
        )


def _choose_reading(
    options: FinetuneOptions, cache: Path, frozen: FrozenBackbone, images: Sequence[Images], console: Console
) -> Reading:
    """Choose how images are read: as other rows of the cache, one view each."""
    given = {name: getattr(options, name) for name in OF_IMAGES}
    as_extracted = ExtractOptions(data=options.data, cache=cache, workers=options.workers, views="1", **given)
    window = choose_window(options.window, images, cache, console.print)
    say_plain_images(images, window, console.print)
    kept = kept_reading(as_extracted, cache, [frozen], images, console.print)
    stop = threading.Event()
    reading = choose_reading(as_extracted, kept, cache, images, console, stop.is_set)
    return replace(reading, window=window, views=(IDENTITY,), ranges="")


def _read_rows(dataset: Dataset, cache: Path) -> LabelledRows:
    """Take the training images that could be read, with their labels and groups.

    Raises:
        InputError: a label has one value alone, or all images were rejected.
    """
    train = dataset.splits["train"]
    assert train.labels is not None
    used = np.flatnonzero(FeatureCache(cache).has_features("train", train.image_ids))
    train = train.take(used)
    assert train.labels is not None
    _refuse_unlearnable(dataset, train)
    return LabelledRows(train.image_ids, train.paths, train.labels, train.groups, dataset.label_names)


def _describe(
    options: FinetuneOptions,
    name: str,
    frozen: FrozenBackbone,
    reading: Reading,
    rows: LabelledRows,
    folds: Folds,
    cache: Path,
    lower: LowerPart,
) -> Tuning:
    """Put down what decides the backbones, and which rows each of them does not see."""
    settings = {
        "name": name,
        "backbone": options.backbone,
        "weights": frozen.weights.kind,
        "weights_digest": frozen.weights.digest,
        "input_size": frozen.input_size,
        "preprocessing": frozen.preprocessing,
        "taps": list(frozen.taps),
        "labels": list(rows.label_names),
        "folds": options.folds,
        "seed": options.seed,
        "unfreeze": options.unfreeze,
        "learning_rate": options.lr,
        "epochs": options.epochs,
        "patience": options.patience,
        "batch_size": options.batch_size,
        "ranges": str(Ranges.parse(options.ranges) if options.ranges else Ranges()) if options.augment else "",
        "precision": options.precision,
        "reading": {name: str(value) for name, value in reading.settings().items()},
        "truth": digest(rows.labels.tobytes()).hex(),
    }
    index = FeatureCache(cache).open("train", lower.name).index
    digests = tuple(index[image_id].hex() for image_id in rows.image_ids)
    return Tuning(settings, rows.image_ids, digests, folds.fold_of_row)


def _split_folds(rows: LabelledRows, folds: Folds, seed: int) -> list[FoldRows]:
    """Set rows of each fold aside that decide when training ends; the last split learns from all rows, and sets none.

    Raises:
        InputError: the training rows of a fold are of one group.
    """
    splits = []
    for fold, (learnt, held_out) in enumerate(folds.split()):
        split = split_rows(learnt, held_out, rows.labels, rows.groups, rows.label_names, seed)
        if split is None:
            raise InputError(
                f"fold{fold}: its training rows are of one group, so none can be set aside to decide when training "
                "ends. Add data, or give other groups: --group-column, --group-from or --groups."
            )
        splits.append(split)
    every = np.arange(len(rows.image_ids))
    return [*splits, FoldRows(every, every[:0], every[:0])]


class _Maps:
    """Maps of the training rows at the cut: kept ones, or of a random view of each image in each epoch."""

    def __init__(
        self,
        cache: Path,
        lower: LowerPart,
        rows: LabelledRows,
        reading: Reading,
        options: FinetuneOptions,
        compiled: CompiledBackbones,
    ) -> None:
        self._kept: MappedFeatures = FeatureCache(cache).map("train", [lower.name], rows.image_ids)
        self._kept.load()  # compares each block with its digest
        self._lower, self._rows, self._compiled = lower, rows, compiled
        self._augment, self._ranges = options.augment, options.ranges or str(Ranges())
        self._reading = reading
        self._files = ImageFiles(rows.paths)
        self._readers = ThreadPoolExecutor(options.workers or cores(), "reader")

    def __call__(self, rows: RowIndices, epoch: int) -> np.ndarray:
        """Maps float32 (n, H W C)."""
        if not (self._augment and epoch):
            kept: np.ndarray = self._kept[rows]
            return kept
        reading = replace(self._reading, views=(IDENTITY, f"random{epoch}"), ranges=self._ranges)
        views = np.stack(list(self._readers.map(lambda row: self._draw(row, reading), rows.tolist())))
        extractor = self._compiled(self._lower, views[:1])
        parts = [views[start : start + extractor.batch_size] for start in range(0, len(views), extractor.batch_size)]
        return np.concatenate([extractor(part)[0] for part in parts])

    def _draw(self, row: int, reading: Reading) -> np.ndarray:
        """The random view of one image: uint8 (S, S, 3)."""
        image_id = self._rows.image_ids[row]
        pixels, _ = decode(self._files.read(self._rows.paths[row])[1], image_id, reading)
        return draw_views(pixels, self._lower.input_size, reading, image_id)[1]


def _train_all(
    options: FinetuneOptions,
    tuning: Tuning,
    frozen: FrozenBackbone,
    maps: _Maps,
    rows: LabelledRows,
    splits: Sequence[FoldRows],
    cache: Path,
    console: Console,
) -> None:
    """Train the backbone of each fold and the one of all rows, and save each; those of an earlier try are kept.

    The one of all rows trains for the median of the folds' best epochs.
    """
    settings = TuningSettings(
        options.unfreeze, options.lr, options.epochs, options.patience, options.batch_size, options.seed
    )
    best_epochs: list[int] = []
    for source, split in zip(tuning.sources, splits, strict=True):
        path = folder_of(cache, tuning.name) / f"{source}.keras"
        found = read_member(path)
        if found and found[0].digest == tuning.digest and found[1]["source"] == source:
            console.print(f"{source}: kept, of epoch {found[1]['best_epoch']}")
            best_epochs.append(found[1]["best_epoch"])
            continue
        own = replace(settings, epochs=int(np.median(best_epochs))) if source == OF_ALL else settings
        started = time.monotonic()
        whole = replace(frozen, precision=options.precision).build_whole()
        with progress_bar(f"training {source}", own.epochs) as advance:
            trained = train_upper(whole, maps, rows.labels, split.train, split.validation, own, advance)
        if options.precision != "float32":
            weights, whole = whole.get_weights(), frozen.build_whole()
            whole.set_weights(weights)
        facts = {"best_epoch": trained.best_epoch, "losses": trained.losses.tolist()}
        save_tuned(whole, path, tuning, source, facts)
        best_epochs.append(trained.best_epoch)
        console.print(_say_trained(source, trained, time.monotonic() - started))


def _say_trained(source: str, trained: Trained, seconds: float) -> str:
    """Say in a line what came of a training."""
    if not len(trained.losses):
        return f"{source}: {count_things(trained.best_epoch, 'epoch')} on all rows ({duration(seconds)})"
    first, best = trained.losses[0], trained.losses[trained.best_epoch]
    gain = "the frozen backbone is kept" if trained.best_epoch == 0 else f"loss {first:.4f} -> {best:.4f}"
    return f"{source}: epoch {trained.best_epoch} of {len(trained.losses) - 1} is best, {gain} ({duration(seconds)})"


def _assemble_unseen(cache: Path, tuning: Tuning, recipe: Recipe) -> None:
    """Put together the rows of the training images, each by the backbone that has not seen it."""
    path = cache / "train" / f"{recipe.backbone}.h5"
    files, facts = FeatureCache(cache), FactsTable.of_split(cache, "train")
    parts = PartStore(path.with_suffix(".parts") / recipe.fingerprint)
    for fold, source in enumerate(tuning.sources[:-1]):
        held_out = np.flatnonzero(tuning.fold_of_row == fold)
        ids = tuple(tuning.image_ids[row] for row in held_out.tolist())
        file = files.open("train", tuned_row(recipe.backbone, source))
        digests = tuple(file.index[image_id] for image_id in ids)
        features = files.map("train", [tuned_row(recipe.backbone, source)], ids)[:]
        of_images = tuple(facts[image_id] for image_id in ids)
        parts.add(Rows(ids, digests, features[:, np.newaxis], of_images, None, file.device, file.engine))
    wanted = {i: bytes.fromhex(own) for i, own in zip(tuning.image_ids, tuning.image_digests, strict=True)}
    assemble(path, recipe, {"device": file.device, "engine": file.engine}, wanted, None, parts)
    parts.remove()
