"""Extract a whole data set: every split, every backbone, into one cache."""

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console

from extract.backbones.build import FrozenBackbone
from extract.backbones.onnx_model import AnyBackbone
from extract.forecast import MEASURED, Forecast
from extract.images.reading import Reading
from extract.pipeline import BatchFunction, Filling, Found, Images, Job, Pipeline
from extract.report import Report, show_progress
from extract.runtime import device_name, missing_gpu
from features.common.text import count_things
from features.folds.tuning import keep_record
from features.shards import ShardRecords, hold_files
from features.store.assembly import assemble
from features.store.cache import FeatureCache
from features.store.images_table import FactsTable, SeenImage, group_salt, replace_rejections
from features.store.parts import PartStore
from features.store.recipe import NO_WINDOW, Recipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractionOptions:
    """How to extract.

    Attributes:
        cache: folder of the cache; made where it is missing.
        storage: dtype of the cache files, `float32` or `float16`.
        workers: threads that read and decode.
        reading: how pixels are read.
    """

    cache: Path
    storage: str
    workers: int
    reading: Reading


def extract(
    images: Sequence[Images],
    backbones: Sequence[AnyBackbone],
    options: ExtractionOptions,
    compiled: "CompiledBackbones",
    console: Console,
    stop: threading.Event,
) -> Report:
    """Bring the cache up to date: every image of every split gets a row for every backbone.

    Args:
        images: the images, split by split.
        backbones: the backbones to run.
        options: how.
        compiled: keeps the compiled backbones; the same one given to a second extraction saves the compilation.
        console: where progress and changes of the cache are shown.
        stop: set it to end the run early, with everything computed on disk.

    Returns:
        What was done.

    Raises:
        InputError: another process extracts into the same cache file, shards of it wait to be put together, an existing
            cache file is damaged, a row is not finite, or the disk is full. What was computed before is on disk: the
            same command goes on from there.
    """
    work = Work(images, backbones, options).with_salt()
    report, forecast = Report.of(work.backbones), Forecast(work)
    with work.held(), show_progress(console, forecast.images) as show:

        def advance(count: float, note: str) -> None:
            show(count, note)
            forecast.tell(report, console.print)

        for split in images:
            pipeline = make_pipeline(work, split, compiled, report, Watch(advance, stop.is_set, console.print))
            if not pipeline.run():
                break
            fillings = [filling for job in pipeline.jobs for filling in job.fillings]
            finish(options.cache, pipeline.found, pipeline.facts, fillings, report, console.print)
    report.device = compiled.device if report.rows else ""
    return report


def try_out(work: "Work", compiled: "CompiledBackbones", console: Console, stop: threading.Event) -> Report:
    """Extract some of the images, evenly spread over each split, into a folder that is removed."""
    total, sample = sum(len(split.image_ids) for split in work.images), []
    for name, image_ids, paths in work.images:
        count = -(-len(image_ids) * min(MEASURED, total) // max(total, 1))
        places = np.linspace(0, len(image_ids) - 1, count).round().astype(int).tolist()
        sample.append(Images(name, [image_ids[at] for at in places], [paths[at] for at in places]))
    with tempfile.TemporaryDirectory(prefix="headbank-dry-run-") as folder:
        return extract(sample, work.backbones, replace(work.options, cache=Path(folder)), compiled, console, stop)


@dataclass(frozen=True)
class Work:
    """What is extracted, and how.

    Attributes:
        images: split by split.
    """

    images: Sequence[Images]
    backbones: Sequence[AnyBackbone]
    options: ExtractionOptions

    def with_salt(self) -> "Work":
        """The same, with the salt of the cache where scans are read."""
        if self.options.reading.window == NO_WINDOW:
            return self
        reading = replace(self.options.reading, salt=group_salt(self.options.cache))
        return replace(self, options=replace(self.options, reading=reading))

    def recipes(self) -> list[Recipe]:
        """The recipes of all rows, which each split has."""
        options = self.options
        return [recipe for backbone in self.backbones for recipe in backbone.recipes(options.storage, options.reading)]

    @contextmanager
    def held(self, *, shared: bool = False) -> Iterator[None]:
        """Hold the locks of all cache files for the length of a `with` block; alone only where no shards wait.

        Raises:
            InputError: another process holds one of them, or shards of the same rows wait for the others.
        """
        splits, names = [split.split for split in self.images], [recipe.backbone for recipe in self.recipes()]
        with hold_files(self.options.cache, splits, names, shared=shared):
            if not shared:
                ShardRecords(self.options.cache).make_way(splits, names)
            yield


class CompiledBackbones:
    """Compiles every backbone once, when the first image needs it, and keeps it.

    Args:
        batch_size: images a batch; None: chosen by the device.
        engine: what computes, a name of `ENGINES`, or `auto`.

    Attributes:
        device: name of the device; empty until a backbone is compiled.
    """

    def __init__(self, batch_size: int | None, engine: str = "auto") -> None:
        self.device = ""
        self._batch_size = batch_size
        self._engine = engine
        self._extractors: dict[str, BatchFunction] = {}
        self._lock = threading.Lock()

    def __call__(self, backbone: AnyBackbone, sample: np.ndarray) -> BatchFunction:
        """Build and compile a backbone, or return it if that was done before.

        Args:
            backbone: what to compile.
            sample: uint8 (n, S, S, 3), some of its images, on which an engine proves itself.
        """
        with self._lock:
            if backbone.name not in self._extractors:
                of_keras = isinstance(backbone, FrozenBackbone)
                if not self.device and of_keras and device_name() == "CPU" and (reason := missing_gpu()):
                    logger.warning("the CPU computes, which takes longer: %s", reason)
                compiled = backbone.compile(self._batch_size, self._engine, sample)
                self._extractors[backbone.name], self.device = compiled, compiled.device
            return self._extractors[backbone.name]


@dataclass(frozen=True)
class Watch:
    """Who watches an extraction, and whose device it uses.

    Attributes:
        advance: called with images done, a fraction where some backbones are ahead, and a note.
        stop: asked between images; true ends it early.
        say: called with what changes in the cache.
        device: as in `Pipeline`.
    """

    advance: Callable[[float, str], object]
    stop: Callable[[], bool]
    say: Callable[[str], object]
    device: ThreadPoolExecutor | None = None


def make_pipeline(
    work: Work, split: Images, compiled: CompiledBackbones, report: Report, watch: Watch, owner: str = ""
) -> Pipeline:
    """Make what runs one split, or a share of it, through the backbones.

    Args:
        work: what is extracted; of its images only the split's count.
        split: the images.
        compiled: compiles the backbones.
        report: where rows and seconds are counted.
        watch: who watches.
        owner: of the parts, as in `PartStore`.
    """
    cv2.setNumThreads(1)  # there is a thread for every core already
    options = work.options
    jobs = []
    for backbone in work.backbones:
        recipes = backbone.recipes(options.storage, options.reading)
        fillings = [make_filling(options.cache, split.split, recipe, watch.say, owner) for recipe in recipes]
        jobs.append(Job(backbone.name, fillings, partial(compiled, backbone)))
    return Pipeline(
        split,
        jobs,
        FactsTable.of_split(options.cache, split.split),
        options.reading,
        options.workers,
        report,
        lambda count: watch.advance(count, f"device waits {report.waiting_share:.0%}"),
        watch.stop,
        watch.device,
    )


def make_filling(cache: Path, split: str, recipe: Recipe, say: Callable[[str], object], owner: str = "") -> Filling:
    """Find the rows of a cache file that are there; those of another recipe do not count, and are replaced at the end.

    Args:
        cache: the cache's folder.
        split: name of the split.
        recipe: of the rows.
        say: called where there are rows of another recipe.
        owner: of the parts that are read and written, as in `PartStore`.
    """
    path = cache / split / f"{recipe.backbone}.h5"
    previous = FeatureCache(cache).open(split, recipe.backbone) if path.exists() else None
    if previous and previous.fingerprint != recipe.fingerprint:
        say(
            f"{path} was extracted differently ({previous.recipe.differences(recipe)}): "
            f"its {previous.rows:,} rows are extracted again and replaced at the end."
        )
        previous = None
    return Filling(recipe, previous, PartStore(path.with_suffix(".parts") / recipe.fingerprint, owner))


def finish(
    cache: Path,
    found: Found,
    table: FactsTable,
    fillings: Sequence[Filling],
    report: Report,
    say: Callable[[str], object],
) -> None:
    """Update images.csv, rejected.csv and the cache files of a split.

    The facts come first: once a cache file has a row, its image is not decoded again.
    """
    split, image_ids, _ = found.images
    facts = dict(found.lost_facts)
    for rows in chain.from_iterable(filling.parts for filling in fillings):
        for image_id, digest, of_image in zip(rows.image_ids, rows.digests, rows.facts, strict=True):
            if found.digests.get(image_id) == digest:
                facts[image_id] = of_image
    seen = {}
    for image_id, digest in found.digests.items():
        if image_id not in facts and table.knows(image_id, digest):
            facts[image_id] = table[image_id]
        if image_id in facts:
            seen[image_id] = SeenImage(digest, found.stamps[image_id], facts[image_id])
    table.add(seen, image_ids)
    report.rejected += found.rejected
    report.seen += len(seen)
    report.blank += [f"{split}/{image_id}" for image_id in seen if seen[image_id].facts.is_blank]
    report.repaired += [f"{split}/{image_id}" for image_id in seen if seen[image_id].facts.is_repaired]
    replace_rejections(cache, [split], found.rejected)
    if len(found.rejected) == len(image_ids):
        say(f"no image of {split} could be read: its cache files are left as they are.")
        return
    for filling in fillings:
        keep_record(cache, filling.recipe)
        _assemble(cache / split / f"{filling.name}.h5", filling, found.digests, say)


def _assemble(path: Path, filling: Filling, wanted: dict[str, bytes], say: Callable[[str], object]) -> None:
    """Write one cache file again if anything changed; say which rows are replaced or dropped."""
    outdated = [image_id for image_id, digest in filling.cached.items() if wanted.get(image_id, digest) != digest]
    if outdated:
        replaced = sum((image_id, wanted[image_id]) in filling.parted for image_id in outdated)
        say(
            f"{path}: {count_things(len(outdated), 'image')} changed (first: {outdated[0]}): "
            f"{count_things(replaced, 'row')} replaced, {len(outdated) - replaced:,} dropped, because what they were "
            f"extracted from cannot be read any more."
        )
    if filling.parted or outdated:
        made_by = filling.made_by
        if filling.previous and not made_by:
            made_by = {"device": filling.previous.device, "engine": filling.previous.engine}
        assemble(path, filling.recipe, made_by, wanted, filling.previous, filling.parts)
    filling.parts.remove()
