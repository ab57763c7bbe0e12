"""Look at the 16-bit images of a data set before the extraction: which of their values become black and white."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extract.images.decoding import decode_stored
from extract.images.header import Header
from extract.images.reading import UnreadableImage
from features.store.images_table import FactsTable, Stamp

#: Shares of all pixels that the range leaves out below and above: a hot pixel or a burnt-in mark spoils no other image.
TAIL = 1e-4
_LEVELS = 1 << 16
#: Values that are counted at a time.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class DeepImages:
    """The 16-bit images of a split.

    Attributes:
        count: how many.
        counts: int64 (65536,), their pixels (over all channels) by value.
    """

    count: int
    counts: np.ndarray

    @property
    def range(self) -> tuple[int, int]:
        """The values between which all but TAIL of the pixels lie on either side; never equal."""
        below = np.cumsum(self.counts)
        low, high = (int(np.searchsorted(below, share * below[-1], side="right")) for share in (TAIL, 1 - TAIL))
        high = min(high, _LEVELS - 1)
        return (low, high) if low < high else (min(low, _LEVELS - 2), min(low, _LEVELS - 2) + 1)


def survey_deep_images(
    images: Iterable[tuple[str, Path]],
    facts: FactsTable,
    max_pixels: int,
    workers: int,
    advance: Callable[[float], None],
    stop: Callable[[], bool],
) -> DeepImages:
    """Find the images that have more than 8 bits a channel, and count their values.

    Args:
        images: ids and files.
        facts: what is known of them: one that has 8 bits and has not changed is not opened.
        max_pixels: larger images are left out, as the extraction rejects them.
        workers: threads that read.
        advance: called with the number of images done.
        stop: asked before each image; true leaves out the rest.
    """

    def count_values(image: tuple[str, Path]) -> np.ndarray | None:
        """The pixels of a 16-bit image by value; None for any other."""
        image_id, path = image
        if stop():
            return None
        try:
            if facts.digest(image_id, Stamp.of(path)) is not None and facts[image_id].bit_depth == 8:
                return None
            with path.open("rb") as file:
                header = Header.read(file)
            if header is None or not header.is_deep or header.width * header.height > max_pixels:
                return None
            stored = decode_stored(path.read_bytes(), header)
        except (OSError, UnreadableImage, MemoryError):
            return None  # the extraction rejects it, and says why
        if stored.dtype != np.uint16:
            return None
        values = stored.ravel()
        # In blocks, for numpy counts 64-bit values: four times the image.
        blocks = (values[start : start + _BLOCK] for start in range(0, values.size, _BLOCK))
        return sum((np.bincount(block, minlength=_LEVELS) for block in blocks), np.zeros(_LEVELS, np.int64))

    total, found = np.zeros(_LEVELS, np.int64), 0
    with ThreadPoolExecutor(workers, "survey") as pool:
        for counts in pool.map(count_values, images):
            if counts is not None:
                total += counts
                found += 1
            advance(1)
    return DeepImages(found, total)
