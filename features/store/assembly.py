"""Assemble one cache file from the rows of its predecessor and the parts extracted since.

HDF5 crashes the interpreter when it meets a full disk. So it writes only the frame, all but the rows, and that into
memory; the disk gives its space before the first byte is written, and everything is written by plain I/O.
"""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
from xxhash import xxh3_128_digest

from features.common.errors import InputError
from features.common.files import DIGEST_BYTES, replacing
from features.common.text import size
from features.store.cache_file import BLOCK_ROWS, CacheFile, index_digest
from features.store.parts import PartStore
from features.store.recipe import Recipe

#: The place of a row that is not wanted. Not -1, which would be the neighbour of row 0.
_NOWHERE = -2
#: Where datasets start: a multiple of a line of the CPU's cache.
_ALIGNMENT = 64


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
    nothing extracted is lost. At no time is more than a block or a part in memory.

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
    plan = _plan(wanted, previous, parts)
    if not plan.digests:
        path.unlink(missing_ok=True)
        return 0
    attributes = {
        **recipe.attributes(),
        **asdict(provenance),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": recipe.fingerprint,
        **({} if plan.seconds_per_image is None else {"seconds_per_image": plan.seconds_per_image}),
    }
    frame = _Frame.build(plan.digests, plan.row_shape, np.dtype(recipe.storage), attributes)
    row_bytes = int(np.prod(plan.row_shape)) * np.dtype(recipe.storage).itemsize
    place = {image_id: row for row, image_id in enumerate(plan.digests)}
    with replacing(path) as temporary, temporary.open("r+b") as file:
        _reserve(file, path, frame.end)
        file.write(frame.content)
        missing = dict(plan.digests)
        for image_ids, digests, block in _sources(previous, parts):
            known = [missing.get(i) == digest for i, digest in zip(image_ids, digests, strict=True)]
            targets = [place[i] if has else _NOWHERE for i, has in zip(image_ids, known, strict=True)]
            _scatter(file, frame.rows_at, np.array(targets, np.int64), block)
            for image_id, has in zip(image_ids, known, strict=True):
                if has:
                    del missing[image_id]
        if missing:
            raise InputError(
                f"{path.name}: {len(missing)} rows vanished while the file was put together "
                f"(first: {next(iter(missing))}). Run the same command again."
            )
        block_digests = list(_digest_blocks(file, frame.rows_at, len(place), row_bytes))
        file.seek(frame.block_digests_at)
        file.write(b"".join(block_digests))
    return len(place)


@dataclass(frozen=True)
class _Plan:
    """What the new file holds.

    Attributes:
        digests: image id -> digest of the image's bytes, in the order of the rows.
        row_shape: views and channels (V, D).
        seconds_per_image: mean over the rows of which it is known; None where it is known of none.
    """

    digests: dict[str, bytes]
    row_shape: tuple[int, ...]
    seconds_per_image: float | None


def _plan(wanted: Mapping[str, bytes], previous: CacheFile | None, parts: PartStore) -> _Plan:
    """Look through the sources; see `_Plan`."""
    digests: dict[str, bytes] = {}
    row_shape: tuple[int, ...] = ()
    timed, seconds = 0, 0.0
    if previous:
        digests = {i: digest for i, digest in previous.index.items() if wanted.get(i, digest) == digest}
        row_shape = (previous.views, previous.width)
        if previous.seconds_per_image is not None:
            timed, seconds = len(digests), len(digests) * previous.seconds_per_image
    for part in parts:
        row_shape = part.features.shape[1:]
        rows = zip(part.image_ids, part.digests, strict=True)
        new = {i: digest for i, digest in rows if i not in digests and wanted.get(i) == digest}
        digests |= new
        if part.seconds is not None:
            timed += len(new)
            seconds += len(new) * part.seconds / len(part.image_ids)
    ordered = [image_id for image_id in wanted if image_id in digests]
    ordered += [image_id for image_id in digests if image_id not in wanted]
    return _Plan({i: digests[i] for i in ordered}, row_shape, seconds / timed if timed else None)


@dataclass(frozen=True)
class _Frame:
    """A cache file without its rows.

    Attributes:
        content: the bytes; all digests of blocks are 0.
        block_digests_at: where these have to be written.
        rows_at: where the rows have to be written.
        end: size of the whole file.
    """

    content: bytes
    block_digests_at: int
    rows_at: int
    end: int

    @classmethod
    def build(
        cls,
        digests: Mapping[str, bytes],
        row_shape: Sequence[int],
        dtype: np.dtype,
        attributes: Mapping[str, str | int | float],
    ) -> "_Frame":
        """Let HDF5 write the frame of a file into memory.

        Superblock version 3 (HDF5 1.10) has checksums over the metadata: a flipped byte is found there too. Strings
        have a fixed length: variable ones lie in a heap without checksums, where a flipped byte reads as another
        value, or keeps HDF5 1.14 in an endless loop.
        """
        encoded = [image_id.encode() for image_id in digests]
        ids = np.array(encoded, h5py.string_dtype("utf-8", max(map(len, encoded))))
        image_digests = np.frombuffer(b"".join(digests.values()), np.uint8).reshape(-1, DIGEST_BYTES)
        shape = (len(ids), *row_shape)
        buffer = io.BytesIO()
        with h5py.File(
            buffer, "w", libver="v110", alignment_threshold=_ALIGNMENT, alignment_interval=_ALIGNMENT
        ) as file:
            written = {**attributes, "index_digest": index_digest(attributes, shape, ids, image_digests)}
            for name, value in written.items():
                if isinstance(value, str):
                    text = value.encode()
                    file.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))
                else:
                    file.attrs[name] = value
            blocks = np.zeros((-(-len(ids) // BLOCK_ROWS), DIGEST_BYTES), np.uint8)
            file.create_dataset("image_ids", data=ids)
            file.create_dataset("image_digests", data=image_digests)
            block_digests_at = file.create_dataset("block_digests", data=blocks).id.get_offset()
            features = file.create_dataset("features", shape, dtype, fill_time="never")
            file.flush()  # all metadata have their place now
            features[0, 0, 0] = 0  # and the rows get theirs: behind them, or in a gap where they are few
            rows_at = features.id.get_offset()
            rows_end = rows_at + features.nbytes
        content = buffer.getvalue()
        return cls(content, block_digests_at, rows_at, max(len(content), rows_end))


def _reserve(file: BinaryIO, path: Path, needed: int) -> None:
    """Take the space of a whole file from the disk, or refuse before the first byte."""
    try:
        os.posix_fallocate(file.fileno(), 0, needed)
    except OSError as error:
        raise InputError(
            f"{path} needs {size(needed)}, which its disk does not give: {error.strerror}. Nothing is lost. Make room "
            "or choose another folder with --cache, and run again."
        ) from error


def _sources(
    previous: CacheFile | None, parts: PartStore
) -> Iterator[tuple[Sequence[str], Sequence[bytes], np.ndarray]]:
    """Yield image ids, digests and features (R, V, D) of every source, block by block."""
    if previous:
        digests = tuple(previous.index.values())
        for number in range(previous.blocks):
            rows = slice(number * BLOCK_ROWS, (number + 1) * BLOCK_ROWS)
            yield previous.image_ids[rows], digests[rows], previous.block(number)
    for part in parts:
        yield part.image_ids, part.digests, part.features


def _scatter(file: BinaryIO, rows_at: int, targets: np.ndarray, block: np.ndarray) -> None:
    """Write the rows of a block to their places (or nowhere), one write for every run of neighbours."""
    block = np.ascontiguousarray(block)
    breaks = np.flatnonzero(np.diff(targets) != 1) + 1
    for run in np.split(np.arange(len(targets)), breaks):
        if targets[run[0]] != _NOWHERE:
            file.seek(rows_at + int(targets[run[0]]) * block[0].nbytes)
            file.write(block[run[0] : run[-1] + 1].data)


def _digest_blocks(file: BinaryIO, rows_at: int, rows: int, row_bytes: int) -> Iterator[bytes]:
    """Read the rows again, which came from many sources, and digest them block by block."""
    file.seek(rows_at)
    for start in range(0, rows, BLOCK_ROWS):
        yield xxh3_128_digest(file.read(min(BLOCK_ROWS, rows - start) * row_bytes))
