"""Measure how fast cached features are read, against numpy reading the same bytes: `scripts/benchmark.py read`."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from features.common.text import make_console
from features.store.assembly import assemble
from features.store.cache import FeatureCache
from features.store.images_table import ImageFacts
from features.store.parts import PartStore, Rows
from features.store.recipe import Recipe

#: Five backbones over the challenge's train and test images (CONTEXT: 8,542 and 4,019), in one split.
BACKBONES, ROWS, WIDTH = 5, 12_561, 2048


def benchmark_read(rows: int, repeats: int) -> None:
    """Print the seconds of both ways, and their ratio with its range.

    Args:
        rows: of every backbone.
        repeats: of both ways, alternating; the first, which brings the files into memory, is not counted.
    """
    names = [f"backbone{number}" for number in range(BACKBONES)]
    with tempfile.TemporaryDirectory() as folder:
        image_ids = [f"ID_{number:06d}" for number in range(rows)]
        for number, name in enumerate(names):
            _write(Path(folder), name, image_ids, np.random.default_rng(number))
        cache = FeatureCache(folder)
        _, features = cache.read("train", names, image_ids)
        raw = Path(folder) / "raw"
        features.tofile(raw)
        gibibytes = features.nbytes / 2**30
        del features
        wanted = list(np.random.default_rng(0).permutation(image_ids))
        ways: dict[str, Callable[[], Any]] = {
            "numpy.fromfile": lambda: np.fromfile(raw, np.float32),
            "FeatureCache.read": lambda: cache.read("train", names, image_ids),
            "FeatureCache.read, rows shuffled": lambda: cache.read("train", names, wanted),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(repeats + 1):
            for way, read in ways.items():
                start = time.perf_counter()
                read()
                seconds[way].append(time.perf_counter() - start)
    console = make_console()
    console.print(
        f"{BACKBONES} backbones of ({rows:,}, {WIDTH:,}) float32, {gibibytes:.2f} GiB, from memory; medians of "
        f"{repeats} alternating repeats"
    )
    raw_seconds = seconds["numpy.fromfile"][1:]
    for way, spent in seconds.items():
        ratios = [own / raw for own, raw in zip(spent[1:], raw_seconds, strict=True)]
        console.print(
            f"{way}: {statistics.median(spent[1:]):.2f} s, {statistics.median(ratios):.2f} times numpy's "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


def _write(root: Path, name: str, image_ids: list[str], random: np.random.Generator) -> None:
    """Write one backbone's cache file as an extraction does, of random features."""
    recipe = Recipe(name, "random", "0" * 32, "none", 224)
    digests = tuple(bytes(16) for _ in image_ids)
    parts = PartStore(root / f"{name}.parts")
    features = random.standard_normal((len(image_ids), 1, WIDTH), np.float32)
    facts = (ImageFacts(1, 1, 1, 8, 0.0, 0.0),) * len(image_ids)
    parts.add(Rows(tuple(image_ids), digests, features, facts))
    wanted = dict(zip(image_ids, digests, strict=True))
    assemble(root / "train" / f"{name}.h5", recipe, {"device": "CPU", "engine": "none"}, wanted, None, parts)
