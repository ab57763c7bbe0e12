"""Run one split through all backbones: each file is read and decoded once, for every backbone without its row.

Three kinds of workers, as in img2dataset: readers (threads: bytes, digest, decoding, resizing), one thread that owns
the device, one thread that writes. The calling thread keeps the images in order, gathers batches, and hands them on.
Every queue between them is bounded, so memory does not grow with the data set.

Images stand in units of `UNIT_IMAGES`, by their place in the split. Within a unit rows are batched by their number
among the rows missing from the cache file; a batch ends where its unit ends, and a part where a batch ends. A run that
was killed and started again, and one that is divided among processes by units, therefore computes the same batches, and
ends with the same bytes: TensorFlow rounds a row by its place in the batch (docs/decisions.md). Batches of more images
than a unit has, as GPUs take them, run on over units.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from extract.images.decoding import UnreadableImage, decode
from extract.images.files import ImageFiles
from extract.images.reading import Reading
from extract.images.views import draw_views
from extract.report import Report
from features.common.errors import InputError
from features.store.cache_file import CacheFile
from features.store.images_table import FactsTable, ImageFacts, Rejection, Stamp
from features.store.parts import PartStore, Rows
from features.store.recipe import Recipe

#: Images of a unit, by which work is divided among processes; batches of no more images end where a unit ends.
UNIT_IMAGES = 64
#: Batches that wait for the device while it computes one.
_BATCHES_AHEAD = 2
#: A part is written when it has this many rows, or when its first row is this old: what a crash can lose.
PART_ROWS, PART_SECONDS = 1024, 5.0


class BatchFunction(Protocol):
    """What the pipeline asks of a compiled backbone: how many images it takes at a time, and what computes."""

    batch_size: int
    engine: str
    device: str

    def __call__(self, images: np.ndarray) -> Sequence[np.ndarray]:
        """Turn uint8 (n, S, S, 3) into float32 (n, D) for each of the backbone's rows."""


class Images(NamedTuple):
    """The images of one split, in the order of the data set."""

    split: str
    image_ids: Sequence[str]
    paths: Sequence[Path]


@dataclass(frozen=True)
class Loaded:
    """What a reader made of one image: its views by input size, for the jobs without its row; or why it could not.

    Views are uint8 (V, S, S, 3).

    Digest and stamp are missing where not even the bytes could be read.
    """

    index: int
    digest: bytes = b""
    stamp: Stamp | None = None
    facts: ImageFacts | None = None
    views: dict[tuple[int, str], np.ndarray] | None = None
    rejection: str = ""


@dataclass
class Found:
    """What is found out of the images of a split.

    Attributes:
        images: the images.
        digests: image id -> digest of the bytes, in the order of the data set; without the images whose bytes the
            disk did not give, for nothing is known of those.
        stamps: image id -> stamp of its file, taken before the bytes were read; of the images that have a digest.
        rejected: the images that could not be read or decoded.
        lost_facts: image id -> facts, where the rows are all there but images.csv does not have the facts.
    """

    images: Images
    digests: dict[str, bytes] = field(default_factory=dict)
    stamps: dict[str, Stamp] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)
    lost_facts: dict[str, ImageFacts] = field(default_factory=dict)


@dataclass
class Filling:
    """A cache file that is filled: which of its rows are there, and which are not on disk yet.

    Attributes:
        recipe: how its rows are made.
        previous: the cache file with rows of that recipe; None if there is none.
        parts: rows extracted by earlier runs that did not finish; new ones are added.
        parted: image id and digest of the rows in the parts; an image that changed has several.
        made_by: `device` and `engine` that computed rows in the parts; empty where there are none.
    """

    recipe: Recipe
    previous: CacheFile | None
    parts: PartStore
    parted: set[tuple[str, bytes]] = field(default_factory=set)
    made_by: dict[str, str] = field(default_factory=dict)
    _unwritten: list[Rows] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.recipe.backbone
        self.cached = self.previous.index if self.previous else {}
        for rows in self.parts:
            self._remember(rows)

    def lacks(self, image_id: str, digest: bytes) -> bool:
        """Whether there is no row of exactly these bytes yet."""
        return self.cached.get(image_id) != digest and (image_id, digest) not in self.parted

    def keep(self, rows: Rows) -> None:
        """Take computed rows, until they are written; not those that are there already."""
        if any(map(self.lacks, rows.image_ids, rows.digests)):
            self._unwritten.append(rows)

    def flush(self) -> None:
        """Write what was computed and is not on disk yet."""
        if self._unwritten:
            rows = Rows.join(self._unwritten)
            self.parts.add(rows)
            self._remember(rows)
            self._unwritten = []

    def _remember(self, rows: Rows) -> None:
        """Note which rows the parts hold."""
        self.parted.update(zip(rows.image_ids, rows.digests, strict=True))
        self.made_by = {"device": rows.device, "engine": rows.engine}


@dataclass
class Job:
    """One backbone's pass over one split, which fills one or more cache files; and which images wait for the device.

    Attributes:
        name: of the backbone.
        fillings: one for each array that the compiled backbone gives; of one input size.
        compile_extractor: compiles the backbone, given the first image that needs it, uint8 (1, S, S, 3).
        extractor: the compiled backbone.
        gathered: images for the next batch.
    """

    name: str
    fillings: Sequence[Filling]
    compile_extractor: Callable[[np.ndarray], BatchFunction]
    extractor: BatchFunction | None = None
    gathered: list[Loaded] = field(default_factory=list)
    _waiting: int = 0
    _oldest: float = 0.0

    def __post_init__(self) -> None:
        recipe = self.fillings[0].recipe
        self.target = (recipe.input_size, recipe.interpolation)

    def lacks(self, image_id: str, digest: bytes) -> bool:
        """Whether a row of exactly these bytes is missing."""
        return any(filling.lacks(image_id, digest) for filling in self.fillings)

    def views_of(self, loaded: Loaded) -> np.ndarray:
        """The views that it runs over, uint8 (V, S, S, 3)."""
        assert loaded.views is not None
        return loaded.views[self.target]

    def keep(self, rows: Sequence[Rows]) -> None:
        """Take the computed rows of a batch, for each filling; write parts when due. The writer's thread calls it."""
        if not self._waiting:
            self._oldest = time.monotonic()
        self._waiting += len(rows[0].image_ids)
        for filling, of_file in zip(self.fillings, rows, strict=True):
            filling.keep(of_file)
        if self._waiting >= PART_ROWS or time.monotonic() - self._oldest >= PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was computed and is not on disk yet."""
        self._waiting = 0
        for filling in self.fillings:
            filling.flush()


@dataclass
class Pipeline:
    """Runs the jobs of one split.

    Attributes:
        images: the images of the split.
        jobs: one per backbone.
        facts: what is known of the images.
        reading: how pixels are read; the recipes of all jobs say the same.
        workers: threads that read.
        report: where rows and seconds are counted.
        advance: called with a number of images done, fractions where some backbones are ahead.
        stop: asked between images; true ends the run early.
        device: a thread that computes for other pipelines, too; None for one of its own.
        found: what is found out of the images.
    """

    images: Images
    jobs: Sequence[Job]
    facts: FactsTable
    reading: Reading
    workers: int
    report: Report
    advance: Callable[[float], object]
    stop: Callable[[], bool]
    device: ThreadPoolExecutor | None = None

    def __post_init__(self) -> None:
        self.found = Found(self.images)
        self._files = ImageFiles(self.images.paths)
        self._readers = ThreadPoolExecutor(self.workers, "reader")
        self._device = self.device or ThreadPoolExecutor(1, "device")
        self._writer = ThreadPoolExecutor(1, "writer")
        self._computing: deque[tuple[Job, list[Loaded], Future[tuple[list[np.ndarray], float]]]] = deque()
        self._writing: deque[Future[None]] = deque()
        self._device_free = 0.0

    def run(self) -> bool:
        """Extract every missing row.

        Returns:
            Whether it finished; False after `stop`. Either way, what was computed is on disk.

        Raises:
            InputError: a row is not finite, the disk is full, or the device has too little memory. What was computed
                before is on disk.
        """
        try:
            for loaded in self._load_in_order():
                if self.stop():
                    break
                self._distribute(loaded)
                if (loaded.index + 1) % UNIT_IMAGES == 0:
                    self._end_unit()
            else:
                for job in self.jobs:
                    self._submit(job)
            while self._computing:
                self._collect()
            while self._writing:
                self._writing.popleft().result()
            return not self.stop()
        finally:
            self._readers.shutdown(cancel_futures=True)
            for _, _, future in self._computing:  # after an error
                future.cancel()
            if self.device is None:
                self._device.shutdown()
            self._writer.shutdown()
            for job in self.jobs:
                job.flush()

    def _load_in_order(self) -> Iterator[Loaded]:
        """Read images ahead in threads and yield them in the order of the data set."""
        indices = iter(range(len(self.images.image_ids)))
        ahead: deque[Future[Loaded]] = deque()
        while True:
            batches = [job.extractor.batch_size for job in self.jobs if job.extractor]
            window = (1 + _BATCHES_AHEAD) * max([32, *batches]) + self.workers
            for index in itertools.islice(indices, max(0, window - len(ahead))):
                ahead.append(self._readers.submit(self._load, index))
            if not ahead:
                return
            yield ahead.popleft().result()

    def _load(self, index: int) -> Loaded:
        """Read one image; decode and resize it only for the jobs without its row."""
        image_id, path = self.images.image_ids[index], self.images.paths[index]
        start = time.thread_time()
        decoded = start
        try:
            content, stamp = b"", None
            stamp, encoded, content = self._files.read(path)
            targets = {job.target for job in self.jobs if job.lacks(image_id, content)}
            fillings = (filling for job in self.jobs for filling in job.fillings)
            in_parts = any((image_id, content) in filling.parted for filling in fillings)
            if not targets and (in_parts or self.facts.knows(image_id, content)):
                return Loaded(index, content, stamp)
            pixels, facts = decode(encoded, image_id, self.reading)
            decoded = time.thread_time()
            views = {
                (size, interpolation): draw_views(pixels, size, self.reading, image_id, interpolation)
                for size, interpolation in targets
            }
            return Loaded(index, content, stamp, facts, views)
        except UnreadableImage as error:
            return Loaded(index, content, stamp, rejection=str(error))
        except MemoryError:
            reason = "there was not enough memory to decode it: the next extraction tries again"
            return Loaded(index, content, stamp if content else None, rejection=reason)
        except OSError as error:
            return Loaded(index, rejection=f"the file cannot be read: {error.strerror}")
        finally:
            end = time.thread_time()
            decoded = decoded if decoded > start else end
            self.report.spend("read+decode", decoded - start)
            self.report.spend("resize", end - decoded)

    def _distribute(self, loaded: Loaded) -> None:
        """Hand one image to every job without its row."""
        image_id = self.images.image_ids[loaded.index]
        self.report.images += 1
        if loaded.rejection:
            path = self.images.paths[loaded.index]
            within = f"{self.images.split}/{image_id}{path.suffix}"
            self.found.rejected.append(Rejection(image_id, within, loaded.rejection, loaded.digest.hex()))
            self.advance(1)
        if loaded.stamp is not None:
            self.found.digests[image_id] = loaded.digest
            self.found.stamps[image_id] = loaded.stamp
        if loaded.rejection:
            return
        if loaded.facts is not None:
            self.report.decoded += 1
            if not loaded.views:
                self.found.lost_facts[image_id] = loaded.facts
        for job in self.jobs:
            if loaded.views is not None and job.lacks(image_id, loaded.digest):
                job.gathered.append(loaded)
                if len(job.gathered) >= self._compiled(job).batch_size:
                    self._submit(job)
            else:
                self.report.backbones[job.name].kept += 1
                self.advance(1 / len(self.jobs))

    def _end_unit(self) -> None:
        """End the batches that do not run on into the next unit."""
        for job in self.jobs:
            if job.extractor and job.extractor.batch_size <= UNIT_IMAGES:
                self._submit(job)

    def _compiled(self, job: Job) -> BatchFunction:
        """The job's compiled backbone; compiled when it is first asked for, which is when it has an image."""
        if job.extractor is None:
            start = time.monotonic()
            job.extractor = job.compile_extractor(job.views_of(job.gathered[0])[:1])
            self.report.spend("compile", time.monotonic() - start)
        return job.extractor

    def _submit(self, job: Job) -> None:
        """Send the job's gathered images to the device; wait while enough batches are queued."""
        if not job.gathered:
            return
        extractor = self._compiled(job)
        batch, job.gathered = job.gathered, []
        views = [np.stack(images) for images in zip(*map(job.views_of, batch), strict=True)]
        self._computing.append((job, batch, self._device.submit(self._compute, job, extractor, views)))
        while len(self._computing) > _BATCHES_AHEAD:
            self._collect()

    def _compute(
        self, job: Job, extractor: BatchFunction, views: Sequence[np.ndarray]
    ) -> tuple[list[np.ndarray], float]:
        """Compute one batch, and count the seconds; the device's thread does one at a time.

        Args:
            job: whose batch it is.
            extractor: its compiled backbone.
            views: of the images, each uint8 (n, S, S, 3); one after the other, so that the first is computed as if it
                were alone.

        Returns:
            float32 (n, V, D) for each of the backbone's rows; the seconds.
        """
        start = time.monotonic()
        counted = self.report.backbones[job.name]
        # Before the first batch of a backbone the device waits for its compilation, not for images.
        if counted.images and self._device_free:
            self.report.waited += start - self._device_free
        features = [np.stack(of_row, axis=1) for of_row in zip(*map(extractor, views), strict=True)]
        self._device_free = time.monotonic()
        seconds = self._device_free - start
        counted.seconds += seconds
        counted.images += len(views[0])
        counted.widths = tuple(of_row.shape[2] for of_row in features)
        self.report.spend("compute", seconds)
        return features, seconds

    def _collect(self) -> None:
        """Take the oldest batch from the device and hand it to the writer."""
        job, batch, future = self._computing.popleft()
        computed, seconds = future.result()
        made_by = self._compiled(job).device, self._compiled(job).engine
        image_ids = tuple(self.images.image_ids[loaded.index] for loaded in batch)
        digests = tuple(loaded.digest for loaded in batch)
        facts = tuple(loaded.facts for loaded in batch if loaded.facts is not None)
        rows = [
            Rows(image_ids, digests, self._store(filling, features, batch), facts, seconds, *made_by)
            for filling, features in zip(job.fillings, computed, strict=True)
        ]
        self._writing.append(self._writer.submit(self._write, job, rows))
        self.advance(len(batch) / len(self.jobs))
        while len(self._writing) > _BATCHES_AHEAD:
            self._writing.popleft().result()

    def _store(self, filling: Filling, computed: np.ndarray, batch: Sequence[Loaded]) -> np.ndarray:
        """Give the features of a batch, float32 (n, V, D), the type of the cache."""
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is refused below by name
            features = computed.astype(filling.recipe.storage)
        finite = np.isfinite(features).all(axis=(1, 2))
        if not finite.all():
            worst = batch[int(np.argmin(finite))].index
            raise InputError(
                f"{filling.name} gives features that are not finite for {self.images.paths[worst]} "
                f"(and {np.count_nonzero(~finite) - 1} more of its batch). Check the weights, or run with "
                f"--precision float32 and --dtype float32."
            )
        return features

    def _write(self, job: Job, rows: Sequence[Rows]) -> None:
        """Keep one batch; the writer's thread."""
        start = time.monotonic()
        job.keep(rows)
        self.report.spend("write", time.monotonic() - start)
