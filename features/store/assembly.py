"""Assemble one cache file from the rows of its predecessor and the parts extracted since."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np

from features.common.errors import InputError
from features.common.files import replacing
from features.common.text import size
from features.store.cache import CacheFile, read_index
from features.store.chunks import BLOCK_BYTES, DIGESTS, digest_chunks
from features.store.opening import opening
from features.store.parts import PartStore
from features.store.recipe import Recipe

#: A chunk is what a checksum and a digest cover and what one read brings: about a MiB of rows.
CHUNK_BYTES = 1 << 20
#: The place of a row that is not wanted. Not -1, which would be the neighbour of row 0.
_NOWHERE = -2


@dataclass(frozen=True)
class Provenance:
    """What computed the features: kept for people, not part of the fingerprint.

    Attributes:
        keras_version: version of Keras.
        keras_backend: `tensorflow`, `jax` or `torch`.
        device: name of the device.
    """

    keras_version: str
    keras_backend: str
    device: str


def assemble(
    path: Path,
    recipe: Recipe,
    provenance: Provenance,
    wanted: Mapping[str, bytes],
    previous: CacheFile | None,
    parts: PartStore,
) -> int:
    """Write the cache file that holds every row known, and replace its predecessor in one step.

    Rows stand in the order of `wanted`; rows of the predecessor that the data set no longer names follow, so that
    nothing extracted is lost. At no time is more than a block of rows in memory.

    Args:
        path: CACHE/{split}/{backbone}.h5.
        recipe: how the rows were made.
        provenance: what made them.
        wanted: image id -> digest of the bytes, in the order of the data set. Ids without a row are left out.
        previous: the present cache file, if its fingerprint is the recipe's.
        parts: rows extracted since.

    Returns:
        Number of rows of the new file. 0: no row is left, so that there is no file any more.

    Raises:
        InputError: the disk is full, or a source is damaged.
    """
    kept = read_index(previous.path) if previous else {}
    digests = {image_id: digest for image_id, digest in kept.items() if wanted.get(image_id, digest) == digest}
    shape: tuple[int, ...] = (0, previous.views, previous.width) if previous else ()
    dtype = np.dtype(previous.dtype if previous else np.float32)
    for rows in parts:
        digests |= {i: d for i, d in zip(rows.image_ids, rows.digests, strict=True) if wanted.get(i) == d}
        shape, dtype = rows.features.shape, rows.features.dtype
    ordered = [image_id for image_id in wanted if image_id in digests]
    ordered += [image_id for image_id in digests if image_id not in wanted]
    if not ordered:
        path.unlink(missing_ok=True)
        return 0
    refuse_full_disk(path, len(ordered) * int(np.prod(shape[1:])) * dtype.itemsize)
    place = {image_id: row for row, image_id in enumerate(ordered)}

    # Superblock version 3 (HDF5 1.10) has checksums over the metadata too: a flipped byte is found wherever it is.
    with replacing(path) as temporary, h5py.File(temporary, "w", libver="v110", locking=False) as file:
        write_index(file, ordered, digests)
        features = file.create_dataset(
            "features",
            shape=(len(ordered), *shape[1:]),
            dtype=dtype,
            chunks=(_rows_per_chunk(shape, dtype, len(ordered)), *shape[1:]),
            fletcher32=True,
        )
        written = np.zeros(len(ordered), bool)
        cost = _Cost()
        for image_ids, row_digests, block, seconds in _sources(previous, kept, parts):
            targets = np.array(
                [
                    place[image_id] if digests.get(image_id) == digest and not written[place[image_id]] else _NOWHERE
                    for image_id, digest in zip(image_ids, row_digests, strict=True)
                ],
                np.int64,
            )
            _scatter(features, targets, block)
            written[targets[targets != _NOWHERE]] = True
            cost.add(int(np.count_nonzero(targets != _NOWHERE)), seconds)
        if not written.all():
            raise InputError(
                f"{path.name}: {np.count_nonzero(~written)} rows vanished while the file was put together "
                f"(first: {ordered[int(np.argmin(written))]}). Run the same command again."
            )
        # Read again: the rows of a chunk may have come from many blocks.
        chunk_digests = digest_chunks(features)
        file.create_dataset(DIGESTS, data=chunk_digests, chunks=chunk_digests.shape, fletcher32=True)
        write_attributes(
            file,
            {
                **recipe.attributes(),
                **asdict(provenance),
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "fingerprint": recipe.fingerprint,
                **cost.attributes(),
            },
        )
    return len(ordered)


class _Cost:
    """What the rows of a file cost, as far as it is known.

    Files and parts of older versions do not say it: their rows count for nothing, and the mean is over the others.
    """

    def __init__(self) -> None:
        self._rows, self._seconds = 0, 0.0

    def add(self, rows: int, seconds: float | None) -> None:
        """Count rows that took so many seconds each; None where nobody knows."""
        if seconds is not None:
            self._rows += rows
            self._seconds += rows * seconds

    def attributes(self) -> dict[str, float]:
        """What the file says of it: `seconds_per_image`, or nothing."""
        return {"seconds_per_image": self._seconds / self._rows} if self._rows else {}


def refuse_full_disk(path: Path, needed: int) -> None:
    """Refuse before the first byte: a file that HDF5 cannot close can crash the interpreter when it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise InputError(
            f"{path} needs {size(needed)}, but its disk has {size(free)} left. Make room or choose another folder with "
            f"--cache, and run again."
        )


def _rows_per_chunk(shape: Sequence[int], dtype: np.dtype, rows: int) -> int:
    """Rows of one chunk: as many as CHUNK_BYTES hold, at least one, at most all."""
    return max(1, min(rows, CHUNK_BYTES // int(np.prod(shape[1:]) * dtype.itemsize)))


def write_index(file: h5py.File, ordered: Sequence[str], digests: Mapping[str, bytes]) -> None:
    """Write ids and digests. Strings of fixed length, for the checksum does not reach into variable ones."""
    encoded = [image_id.encode() for image_id in ordered]
    length = max(len(text) for text in encoded)
    image_ids = np.array(encoded, h5py.string_dtype("utf-8", length))
    file.create_dataset("image_ids", data=image_ids, chunks=image_ids.shape, fletcher32=True)
    rows = np.frombuffer(b"".join(digests[image_id] for image_id in ordered), np.uint8).reshape(-1, 16)
    file.create_dataset("image_digests", data=rows, chunks=rows.shape, fletcher32=True)


def write_attributes(file: h5py.File, attributes: Mapping[str, str | int | float]) -> None:
    """Write attributes. Strings of fixed length: variable ones lie in a heap without checksums.

    A flipped byte in that heap reads as another value, or keeps HDF5 1.14 in an endless loop.
    """
    for name, value in attributes.items():
        if isinstance(value, str):
            text = value.encode()
            file.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))
        else:
            file.attrs[name] = value


def _sources(
    previous: CacheFile | None, kept: Mapping[str, bytes], parts: PartStore
) -> Iterator[tuple[tuple[str, ...], tuple[bytes, ...], np.ndarray, float | None]]:
    """Yield (image ids, digests, features, seconds of the device for one row) of every source, block by block."""
    if previous:
        image_ids, row_digests = tuple(kept), tuple(kept.values())
        rows_per_block = max(1, BLOCK_BYTES // (4 * previous.views * previous.width))
        with opening(previous.path) as file:
            for start in range(0, previous.rows, rows_per_block):
                rows = slice(start, start + rows_per_block)
                yield image_ids[rows], row_digests[rows], file["features"][rows], previous.seconds_per_image
    for part in parts:
        seconds = None if part.seconds is None else part.seconds / len(part.image_ids)
        yield part.image_ids, part.digests, part.features, seconds


def _scatter(features: h5py.Dataset, targets: np.ndarray, block: np.ndarray) -> None:
    """Write the rows of a block to their places (or nowhere), one write for every run of neighbours."""
    if not len(targets):
        return
    breaks = np.flatnonzero(np.diff(targets) != 1) + 1
    for run in np.split(np.arange(len(targets)), breaks):
        if targets[run[0]] != _NOWHERE:
            features[targets[run[0]] : targets[run[0]] + len(run)] = block[run[0] : run[-1] + 1]
