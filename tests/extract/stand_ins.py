"""Small data sets, and backbones of a few lines of numpy, for tests that need no Keras."""

import hashlib
import io
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from extract.backbones.build import FrozenBackbone
from extract.backbones.onnx_model import AnyBackbone
from extract.backbones.weights import Weights
from extract.extraction import CompiledBackbones, ExtractionOptions, Watch, Work, extract
from extract.images.reading import Reading
from extract.pipeline import Images
from extract.report import Report
from extract.shards.records import Shard, plan_run
from extract.shards.shard import extract_shard
from features.dataset.dataset import read_images
from features.shards import ShardRecords

WIDTH = 6
READING = Reading()


def write_images(folder: Path, count: int, side: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    """Write noisy PNGs a000, a001, ... into a folder: id -> uint8 (side, side, 3) RGB."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    images = {}
    for number in range(count):
        image_id = f"a{number:03d}"
        images[image_id] = random.integers(0, 256, (side, side, 3), np.uint8)
        cv2.imwrite(str(folder / f"{image_id}.png"), images[image_id][..., ::-1])
    return images


def backbone(
    name: str = "tiny", input_size: int = 20, digest: str = "0" * 32, features: tuple[str, ...] = ("last",)
) -> FrozenBackbone:
    """A backbone for `StandIns`."""
    weights = Weights("random", "random", digest, None)
    return FrozenBackbone(name, input_size, "model", weights, "float32", None, features, ("a", "b"))


class StandIn:
    """Stands in for a compiled backbone: row features that depend on every pixel and channel."""

    def __init__(self, rows: tuple[str, ...], batch_size: int, seconds: float) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.engine = self.device = "numpy"
        self.seconds = seconds
        self.batches: list[int] = []

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute float32 (n, WIDTH), for each of the backbone's rows."""
        assert images.dtype == np.uint8
        time.sleep(self.seconds)
        self.batches.append(len(images))
        return tuple(np.stack([features_of(image, name) for image in images]) for name in self.rows)


def features_of(image: np.ndarray, name: str) -> np.ndarray:
    """What a stand-in makes of uint8 (S, S, 3): float32 (WIDTH,)."""
    digest = hashlib.blake2b(name.encode() + image.tobytes(), digest_size=2 * WIDTH).digest()
    return np.frombuffer(digest, np.uint16).astype(np.float32)


class StandIns(CompiledBackbones):
    """Compiles nothing."""

    def __init__(self, batch_size: int = 4, seconds: float = 0.0) -> None:
        super().__init__(batch_size)
        self.device = "numpy"
        self.made: dict[str, StandIn] = {}
        self._size = batch_size
        self._seconds = seconds

    def __call__(self, backbone: AnyBackbone, sample: np.ndarray) -> StandIn:
        """Return the stand-in of a backbone."""
        return self.made.setdefault(backbone.name, StandIn(backbone.rows, self._size, self._seconds))


def run_shard(data: Path, cache: Path, shard: str, *backbones: FrozenBackbone, **how: Any) -> Report:
    """Extract a shard of a data set with stand-ins; `how` is as of `run`."""
    work = work_of(data, cache, *backbones, **how)
    which = Shard.parse(shard)
    plan = plan_run(work, which.count, [str(data), "--cache", str(cache)])
    ShardRecords(cache).begin(plan)
    stop = how.get("stop") or threading.Event()
    return extract_shard(work, plan, which, how.get("compiled") or StandIns(), Watch(_ignore, stop.is_set, _ignore))


def work_of(data: Path, cache: Path, *backbones: FrozenBackbone, **how: Any) -> Work:
    """What the extraction of a data set with stand-ins is; `how` is as of `run`."""
    return Work(_images_of(data), backbones or (backbone(),), _options(cache, **how)).with_salt()


def _images_of(data: Path) -> list[Images]:
    return [Images(split, ids, paths) for split, (ids, paths) in read_images(data).items()]


def _options(cache: Path, storage: str = "float32", reading: Reading = READING, **_: Any) -> ExtractionOptions:
    return ExtractionOptions(cache, storage, 2, reading)


def _ignore(*_: object) -> None:
    pass


def run(
    data: Path,
    cache: Path,
    *backbones: FrozenBackbone,
    compiled: CompiledBackbones | None = None,
    stop: threading.Event | None = None,
    said: list[str] | None = None,
    storage: str = "float32",
    reading: Reading = READING,
) -> Report:
    """Extract a data set with stand-ins."""
    output = io.StringIO()
    try:
        return extract(
            _images_of(data),
            backbones or (backbone(),),
            _options(cache, storage, reading),
            compiled or StandIns(),
            Console(file=output, width=10_000, highlight=False, markup=False),
            stop or threading.Event(),
        )
    finally:
        if said is not None:
            said += output.getvalue().splitlines()
