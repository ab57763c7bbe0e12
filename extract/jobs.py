"""One backbone's work on one split: which rows it lacks, which wait for the device, which are not on disk yet."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from features.store.images_table import ImageFacts, Stamp
from features.store.parts import PartStore, Rows

#: A part is written when it has this many rows, or when its first row is this old: what a crash can lose.
PART_ROWS, PART_SECONDS = 1024, 5.0


class Extractor(Protocol):
    """What the pipeline asks of a compiled backbone."""

    batch_size: int

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Turn uint8 (n, S, S, 3) into float32 (n, D)."""


@dataclass(frozen=True)
class Images:
    """The images of one split.

    Attributes:
        split: its name.
        image_ids: ids, in the order of the data set.
        paths: their files.
    """

    split: str
    image_ids: Sequence[str]
    paths: Sequence[Path]


@dataclass(frozen=True)
class Loaded:
    """What a reader made of one image: pixels by input size, for the jobs that lack it; or the reason it could not.

    Digest and stamp are missing where not even the bytes could be read.
    """

    index: int
    digest: bytes = b""
    stamp: Stamp | None = None
    facts: ImageFacts | None = None
    pixels: dict[int, np.ndarray] | None = None
    rejection: str = ""


class Job:
    """One backbone's work on one split.

    Args:
        name: of the backbone.
        input_size: height and width of its input.
        storage: dtype of the cache file.
        cached: image id -> digest of the rows in the cache file.
        parts: rows extracted by earlier runs that did not get to the end; new ones are added.
        compile_extractor: compiles the backbone when the first image needs it.
    """

    def __init__(
        self,
        name: str,
        input_size: int,
        storage: str,
        cached: dict[str, bytes],
        parts: PartStore,
        compile_extractor: Callable[[], Extractor],
    ) -> None:
        self.name = name
        self.input_size = input_size
        self.storage = storage
        self.cached = cached
        self.parts = parts
        self.compile_extractor = compile_extractor
        self.parted: dict[str, bytes] = {}
        for rows in parts:
            self._remember(rows)
        self.gathered: list[Loaded] = []
        self._unwritten: list[Rows] = []
        self._oldest = 0.0

    def lacks(self, image_id: str, digest: bytes) -> bool:
        """Whether no row of exactly these bytes is there yet."""
        return self.cached.get(image_id) != digest and self.parted.get(image_id) != digest

    def keep(self, rows: Rows) -> None:
        """Take computed rows; write a part when it is due. The writing thread calls it."""
        if not self._unwritten:
            self._oldest = time.monotonic()
        self._unwritten.append(rows)
        waiting = sum(len(rows.image_ids) for rows in self._unwritten)
        if waiting >= PART_ROWS or time.monotonic() - self._oldest >= PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was computed and is not on disk yet."""
        if self._unwritten:
            rows = Rows.join(self._unwritten)
            self.parts.add(rows)
            self._remember(rows)
            self._unwritten = []

    def _remember(self, rows: Rows) -> None:
        """Note which rows the parts hold."""
        self.parted |= dict(zip(rows.image_ids, rows.digests, strict=True))
