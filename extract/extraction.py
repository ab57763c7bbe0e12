"""Extract a whole data set: every split, every backbone, into one cache."""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cv2

from extract.backbones.build import FrozenBackbone
from extract.backbones.folding import fold_batch_norms
from extract.pipeline import BatchFunction, Images, Job, Pipeline
from extract.progress import Progress
from extract.report import BackboneReport, Report
from extract.runtime import CPU_BATCH, GPU_BATCH, Extractor, batches_at_a_time, device_name
from features.common.files import hold
from features.common.keras_import import backend_name
from features.store.assembly import Provenance, assemble
from features.store.cache import FeatureCache
from features.store.cache_file import CacheFile
from features.store.images_table import FactsTable, SeenImage, replace_rejections
from features.store.parts import PartStore
from features.store.recipe import Recipe


@dataclass(frozen=True)
class ExtractionOptions:
    """How to extract.

    Attributes:
        cache: folder of the cache; made where it is missing.
        storage: dtype of the cache files, `float32` or `float16`.
        workers: threads that read and decode.
    """

    cache: Path
    storage: str
    workers: int


def extract(
    images: Sequence[Images],
    backbones: Sequence[FrozenBackbone],
    options: ExtractionOptions,
    compiled: "CompiledBackbones",
    say: Callable[[str], None],
    progress: Progress,
    stop: threading.Event,
) -> Report:
    """Bring the cache up to date: every image of every split gets a row for every backbone.

    Args:
        images: the images, split by split.
        backbones: the backbones to run.
        options: how.
        compiled: keeps the compiled backbones; the same one given to a second extraction saves the compilation.
        say: prints a line.
        progress: shown while it runs.
        stop: set it to end the run early, with everything computed on disk.

    Returns:
        What was done.

    Raises:
        InputError: another process extracts into the same cache file, an existing cache file is damaged, a row is not
            finite, or the disk is full. What was computed before is on disk: the same command goes on from there.
    """
    report = Report(backbones={backbone.name: BackboneReport() for backbone in backbones})
    cv2.setNumThreads(1)  # there is a thread for every core already
    with ExitStack() as locks:
        for split in images:
            for backbone in backbones:
                locks.enter_context(hold(options.cache / split.split / f"{backbone.name}.h5.lock"))
        progress.total = sum(len(split.image_ids) for split in images)
        with progress:
            for split in images:
                work = _SplitWork(split, backbones, options, compiled, say)
                pipeline = Pipeline(
                    split,
                    [work.job(backbone) for backbone in backbones],
                    work.facts,
                    options.workers,
                    report,
                    lambda count: progress.advance(count, f"device waits {report.waiting_share:.0%}"),
                    stop.is_set,
                )
                if not pipeline.run():
                    break
                work.finish(pipeline, report)
    report.device = compiled.device if report.rows else ""
    return report


class CompiledBackbones:
    """Compiles every backbone once, when the first image needs it, and keeps it.

    Args:
        batch_size: images a batch; None: chosen by the device.

    Attributes:
        device: name of the device; empty until a backbone is compiled.
    """

    def __init__(self, batch_size: int | None) -> None:
        self.device = ""
        self._batch_size = batch_size
        self._extractors: dict[str, BatchFunction] = {}

    def __call__(self, backbone: FrozenBackbone) -> BatchFunction:
        """Build and compile a backbone, or return it if that was done before."""
        if backbone.name not in self._extractors:
            self.device = device_name()
            batch_size = self._batch_size or default_batch_size(self.device)
            self._extractors[backbone.name] = Extractor(
                fold_batch_norms(backbone.build()), backbone.preprocessing, backbone.input_size, batch_size
            )
        return self._extractors[backbone.name]


def default_batch_size(device: str) -> int:
    """Images a batch on a device, named as `device_name` does."""
    return CPU_BATCH * batches_at_a_time() if device == "CPU" else GPU_BATCH


class _SplitWork:
    """What one split needs before and after its pipeline: the state of the cache, and its update."""

    def __init__(
        self,
        images: Images,
        backbones: Sequence[FrozenBackbone],
        options: ExtractionOptions,
        compiled: CompiledBackbones,
        say: Callable[[str], None],
    ) -> None:
        self._images = images
        self._folder = options.cache / images.split
        self._options = options
        self._compiled = compiled
        self._say = say
        self._recipes = {backbone.name: backbone.recipe(options.storage) for backbone in backbones}
        self._previous: dict[str, CacheFile | None] = {name: self._find_previous(name) for name in self._recipes}
        self._jobs: dict[str, Job] = {}
        self.facts = FactsTable.of_split(options.cache, images.split)

    def job(self, backbone: FrozenBackbone) -> Job:
        """The work of one backbone on this split."""
        previous = self._previous[backbone.name]
        recipe = self._recipes[backbone.name]
        self._jobs[backbone.name] = Job(
            backbone.name,
            backbone.input_size,
            self._options.storage,
            previous.index if previous else {},
            PartStore(self._folder / f"{backbone.name}.parts" / recipe.fingerprint),
            lambda: self._compiled(backbone),
        )
        return self._jobs[backbone.name]

    def finish(self, pipeline: Pipeline, report: Report) -> None:
        """Put images.csv, rejected.csv and the cache files in order.

        The facts come first: once a cache file has a row, its image is not decoded again.
        """
        facts = dict(pipeline.lost_facts)
        for job in self._jobs.values():
            for rows in job.parts:
                for image_id, digest, of_image in zip(rows.image_ids, rows.digests, rows.facts, strict=True):
                    if pipeline.digests.get(image_id) == digest:
                        facts[image_id] = of_image
        seen = {}
        for image_id, digest in pipeline.digests.items():
            if image_id not in facts and self.facts.knows(image_id, digest):
                facts[image_id] = self.facts[image_id]
            if image_id in facts:
                seen[image_id] = SeenImage(digest, pipeline.stamps[image_id], facts[image_id])
        self.facts.add(seen, self._images.image_ids)
        replace_rejections(self._options.cache, [self._images.split], pipeline.rejected)
        report.rejected.extend(pipeline.rejected)
        if len(pipeline.rejected) == len(self._images.image_ids):
            self._say(f"no image of {self._images.split} could be read: its cache files are left as they are.")
            return
        for name, job in self._jobs.items():
            self._assemble(name, job, pipeline.digests)

    def _assemble(self, name: str, job: Job, wanted: dict[str, bytes]) -> None:
        """Write one cache file again if anything changed; say which rows are replaced or dropped."""
        path = self._folder / f"{name}.h5"
        outdated = [image_id for image_id, digest in job.cached.items() if wanted.get(image_id, digest) != digest]
        if outdated:
            replaced = sum(job.parted.get(image_id) == wanted[image_id] for image_id in outdated)
            self._say(
                f"{path}: {len(outdated)} images have changed (first: {outdated[0]}): {replaced} rows are replaced, "
                f"{len(outdated) - replaced} dropped, because their images cannot be read any more."
            )
        if job.parted or outdated:
            device = self._compiled.device or self._device_before(name)
            provenance = Provenance(version("keras"), backend_name(), device)
            assemble(path, self._recipes[name], provenance, wanted, self._previous[name], job.parts)
        job.parts.remove()

    def _device_before(self, name: str) -> str:
        """The device in the present file; a run that only assembles parts of an earlier one has used none."""
        previous = self._previous[name]
        return previous.device if previous else "CPU"

    def _find_previous(self, name: str) -> CacheFile | None:
        """The present cache file, if its rows are of the same recipe; another recipe is another extraction."""
        path = self._folder / f"{name}.h5"
        if not path.exists():
            return None
        previous = FeatureCache(self._options.cache).open(self._images.split, name)
        recipe: Recipe = self._recipes[name]
        if previous.fingerprint == recipe.fingerprint:
            return previous
        self._say(
            f"{path} was extracted differently ({previous.recipe.differences(recipe)}): "
            f"its {previous.rows:,} rows are extracted again and replaced at the end."
        )
        return None
