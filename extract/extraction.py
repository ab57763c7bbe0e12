"""Extract a whole data set: every split, every backbone, into one cache."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console

from extract.backbones.build import FrozenBackbone
from extract.backbones.onnx_model import AnyBackbone
from extract.images.reading import Reading
from extract.pipeline import BatchFunction, Filling, Images, Job, Pipeline
from extract.report import BackboneReport, Report, show_progress
from extract.runtime import device_name, missing_gpu
from features.common.files import hold
from features.common.keras_import import backend_name
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
        InputError: another process extracts into the same cache file, an existing cache file is damaged, a row is not
            finite, or the disk is full. What was computed before is on disk: the same command goes on from there.
    """
    if options.reading.window != NO_WINDOW:
        options = replace(options, reading=replace(options.reading, salt=group_salt(options.cache)))
    report = Report(backbones={backbone.name: BackboneReport(backbone.rows) for backbone in backbones})
    cv2.setNumThreads(1)  # there is a thread for every core already
    with ExitStack() as locks:
        for split in images:
            for backbone in backbones:
                for name in backbone.rows:
                    locks.enter_context(hold(options.cache / split.split / f"{name}.h5.lock"))
        with show_progress(console, sum(len(split.image_ids) for split in images)) as advance:
            for split in images:
                pipeline = Pipeline(
                    split,
                    [_make_job(split.split, backbone, options, compiled, console.print) for backbone in backbones],
                    FactsTable.of_split(options.cache, split.split),
                    options.reading,
                    options.workers,
                    report,
                    lambda count: advance(count, f"device waits {report.waiting_share:.0%}"),
                    stop.is_set,
                )
                if not pipeline.run():
                    break
                report.rejected.extend(pipeline.rejected)
                _finish(pipeline, options.cache, compiled.device, console.print)
    report.device = compiled.device if report.rows else ""
    return report


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

    def __call__(self, backbone: AnyBackbone, sample: np.ndarray) -> BatchFunction:
        """Build and compile a backbone, or return it if that was done before.

        Args:
            backbone: what to compile.
            sample: uint8 (n, S, S, 3), some of its images, on which an engine proves itself.
        """
        if backbone.name not in self._extractors:
            of_keras = isinstance(backbone, FrozenBackbone)
            if not self.device and of_keras and device_name() == "CPU" and (reason := missing_gpu()):
                logger.warning("the CPU computes, which takes longer: %s", reason)
            compiled = backbone.compile(self._batch_size, self._engine, sample)
            self._extractors[backbone.name], self.device = compiled, compiled.device
        return self._extractors[backbone.name]


def _make_job(
    split: str,
    backbone: AnyBackbone,
    options: ExtractionOptions,
    compiled: CompiledBackbones,
    say: Callable[[str], None],
) -> Job:
    """Find the rows of a backbone that are there; those of another recipe do not count, and are replaced at the end."""
    recipes = backbone.recipes(options.storage, options.reading)
    fillings = [_make_filling(split, recipe, options.cache, say) for recipe in recipes]
    return Job(backbone.name, fillings, partial(compiled, backbone))


def _make_filling(split: str, recipe: Recipe, cache: Path, say: Callable[[str], None]) -> Filling:
    """Find the rows of one cache file."""
    path = cache / split / f"{recipe.backbone}.h5"
    previous = FeatureCache(cache).open(split, recipe.backbone) if path.exists() else None
    if previous and previous.fingerprint != recipe.fingerprint:
        say(
            f"{path} was extracted differently ({previous.recipe.differences(recipe)}): "
            f"its {previous.rows:,} rows are extracted again and replaced at the end."
        )
        previous = None
    return Filling(recipe, previous, PartStore(path.with_suffix(".parts") / recipe.fingerprint))


def _finish(pipeline: Pipeline, cache: Path, device: str, say: Callable[[str], None]) -> None:
    """Update images.csv, rejected.csv and the cache files of a split.

    The facts come first: once a cache file has a row, its image is not decoded again.
    """
    split, image_ids = pipeline.images.split, pipeline.images.image_ids
    facts = dict(pipeline.lost_facts)
    fillings = [filling for job in pipeline.jobs for filling in job.fillings]
    for rows in chain.from_iterable(filling.parts for filling in fillings):
        for image_id, digest, of_image in zip(rows.image_ids, rows.digests, rows.facts, strict=True):
            if pipeline.digests.get(image_id) == digest:
                facts[image_id] = of_image
    seen = {}
    for image_id, digest in pipeline.digests.items():
        if image_id not in facts and pipeline.facts.knows(image_id, digest):
            facts[image_id] = pipeline.facts[image_id]
        if image_id in facts:
            seen[image_id] = SeenImage(digest, pipeline.stamps[image_id], facts[image_id])
    pipeline.facts.add(seen, image_ids)
    pipeline.report.seen += len(seen)
    pipeline.report.blank += [f"{split}/{image_id}" for image_id in seen if seen[image_id].facts.is_blank]
    pipeline.report.repaired += [f"{split}/{image_id}" for image_id in seen if seen[image_id].facts.is_repaired]
    replace_rejections(cache, [split], pipeline.rejected)
    if len(pipeline.rejected) == len(image_ids):
        say(f"no image of {split} could be read: its cache files are left as they are.")
        return
    for job in pipeline.jobs:
        made_by = {"device": device, "engine": job.extractor.engine} if job.extractor else {}
        for filling in job.fillings:
            _assemble(cache / split / f"{filling.name}.h5", filling, pipeline.digests, made_by, say)


def _assemble(
    path: Path, filling: Filling, wanted: dict[str, bytes], made_by: dict[str, str], say: Callable[[str], None]
) -> None:
    """Write one cache file again if anything changed; say which rows are replaced or dropped."""
    outdated = [image_id for image_id, digest in filling.cached.items() if wanted.get(image_id, digest) != digest]
    if outdated:
        replaced = sum(filling.parted.get(image_id) == wanted[image_id] for image_id in outdated)
        say(
            f"{path}: {len(outdated)} images have changed (first: {outdated[0]}): {replaced} rows are replaced, "
            f"{len(outdated) - replaced} dropped, because their images cannot be read any more."
        )
    if filling.parted or outdated:
        # A run that only assembles the parts of an earlier one has computed nothing.
        earlier = {"device": "CPU", "engine": backend_name()}
        if filling.previous:
            earlier = {"device": filling.previous.device, "engine": filling.previous.engine}
        assemble(path, filling.recipe, made_by or earlier, wanted, filling.previous, filling.parts)
    filling.parts.remove()
