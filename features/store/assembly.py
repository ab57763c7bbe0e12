"""Assemble one cache file from the rows of its predecessor and the parts extracted since.

HDF5 crashes the interpreter when it meets a full disk (docs/decisions.md). So it writes only the frame, which is all
but the rows, and that into memory; plain I/O does the rest, on space that the disk gave before.
"""

import io
import itertools
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
from xxhash import xxh3_128_digest

from features.common.errors import InputError, cause_of
from features.common.files import DIGEST_BYTES, replacing
from features.common.keras_import import backend_name
from features.common.text import size
from features.store.cache_file import BLOCK_ROWS, CacheFile, index_digest
from features.store.parts import PartStore
from features.store.recipe import Recipe

#: Where datasets start: a multiple of a line of the CPU's cache.
_ALIGNMENT = 64


def assemble(
    path: Path,
    recipe: Recipe,
    made_by: Mapping[str, str],
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
        made_by: `device` and `engine` that computed them.
        wanted: image id -> digest of the bytes, in the order of the data set. Ids without a row are left out.
        previous: the present cache file, if its fingerprint is the recipe's.
        parts: rows extracted since.

    Returns:
        Number of rows of the new file. 0: no row is left, so the file is removed.

    Raises:
        InputError: the disk is full, a source is damaged, or rows have different shapes.
    """
    digests, row_shape, seconds_per_image = _plan(wanted, previous, parts)
    if not digests:
        path.unlink(missing_ok=True)
        return 0
    attributes = {
        **recipe.attributes(),
        "keras_version": version("keras"),
        "keras_backend": backend_name(),
        **made_by,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": recipe.fingerprint,
        **({} if seconds_per_image is None else {"seconds_per_image": seconds_per_image}),
    }
    dtype = np.dtype(recipe.storage)
    frame, block_digests_at, rows_at = _build_frame(digests, row_shape, dtype, attributes)
    row_bytes = int(np.prod(row_shape)) * dtype.itemsize
    rows_end = rows_at + len(digests) * row_bytes
    place = {image_id: rows_at + row * row_bytes for row, image_id in enumerate(digests)}
    missing = dict(digests)
    with replacing(path) as temporary, temporary.open("r+b") as file:
        _reserve(file, path, max(len(frame), rows_end))
        file.write(frame)
        for image_id, image_digest, row in _rows(previous, parts):
            if missing.get(image_id) == image_digest:
                file.seek(place[image_id])
                file.write(np.ascontiguousarray(row).data)
                del missing[image_id]
        if missing:
            raise InputError(
                f"{path.name}: {len(missing)} rows vanished while the file was put together "
                f"(first: {next(iter(missing))}). Run the same command again."
            )
        file.seek(rows_at)
        block_digests = b"".join(_digest_blocks(file, rows_end, BLOCK_ROWS * row_bytes))
        file.seek(block_digests_at)
        file.write(block_digests)
    return len(digests)


def _plan(
    wanted: Mapping[str, bytes], previous: CacheFile | None, parts: PartStore
) -> tuple[dict[str, bytes], tuple[int, ...], float | None]:
    """Look through the sources.

    Returns:
        Image id -> digest of the image's bytes, in the order of the new file's rows; the shape of a row (V, D); the
        mean seconds of an image over the rows of which they are known, None where there are none.
    """
    digests: dict[str, bytes] = {}
    row_shape: tuple[int, ...] = ()
    timed, seconds = 0, 0.0
    if previous:
        digests = {i: digest for i, digest in previous.index.items() if wanted.get(i, digest) == digest}
        row_shape = (previous.views, previous.width)
        if previous.seconds_per_image is not None:
            timed, seconds = len(digests), len(digests) * previous.seconds_per_image
    for part in parts:
        if row_shape not in ((), part.features.shape[1:]):
            raise InputError(
                f"{parts.folder} holds rows of {part.features.shape[1:]} views and channels, but others of the same "
                f"recipe have {row_shape}. Move the folder away, and run again."
            )
        row_shape = part.features.shape[1:]
        rows = zip(part.image_ids, part.digests, strict=True)
        new = {i: digest for i, digest in rows if i not in digests and wanted.get(i) == digest}
        digests |= new
        if part.seconds is not None:
            timed += len(new)
            seconds += len(new) * part.seconds / len(part.image_ids)
    ordered = [image_id for image_id in wanted if image_id in digests]
    ordered += [image_id for image_id in digests if image_id not in wanted]
    return {i: digests[i] for i in ordered}, row_shape, seconds / timed if timed else None


def _build_frame(
    digests: Mapping[str, bytes],
    row_shape: tuple[int, ...],
    dtype: np.dtype,
    attributes: Mapping[str, str | int | float],
) -> tuple[bytes, int, int]:
    """Let HDF5 write a file without its rows into memory.

    Superblock version 3 (HDF5 1.10) has checksums over the metadata: a flipped byte is found there too. Strings have a
    fixed length: variable ones lie in a heap without checksums, where a flipped byte reads as another value, or keeps
    HDF5 1.14 in an endless loop.

    Returns:
        The bytes, in which all digests of blocks are 0; the offsets of these and of the rows.
    """
    encoded = [image_id.encode() for image_id in digests]
    ids = np.array(encoded, h5py.string_dtype("utf-8", max(map(len, encoded))))
    image_digests = np.frombuffer(b"".join(digests.values()), np.uint8).reshape(-1, DIGEST_BYTES)
    shape = (len(ids), *row_shape)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="v110", alignment_threshold=_ALIGNMENT, alignment_interval=_ALIGNMENT) as file:
        written = {**attributes, "index_digest": index_digest(attributes, shape, ids, image_digests)}
        for name, value in written.items():
            text = value.encode() if isinstance(value, str) else None
            kind = None if text is None else h5py.string_dtype("utf-8", max(1, len(text)))
            file.attrs.create(name, value if text is None else text, dtype=kind)
        blocks = np.zeros((-(-len(ids) // BLOCK_ROWS), DIGEST_BYTES), np.uint8)
        file.create_dataset("image_ids", data=ids)
        file.create_dataset("image_digests", data=image_digests)
        block_digests_at = file.create_dataset("block_digests", data=blocks).id.get_offset()
        features = file.create_dataset("features", shape, dtype, fill_time="never")
        file.flush()  # all metadata have their place now
        features[0, 0, 0] = 0  # and the rows get theirs: behind them, or in a gap where they are few
        rows_at = features.id.get_offset()
    return buffer.getvalue(), block_digests_at, rows_at


def _reserve(file: BinaryIO, path: Path, needed: int) -> None:
    """Take the space of a whole file from the disk, or refuse before the first byte."""
    try:
        os.posix_fallocate(file.fileno(), 0, needed)
    except OSError as error:
        raise InputError(
            f"{path} needs {size(needed)}, which its disk does not give: {cause_of(error)} Nothing is lost: "
            "the same command goes on from there, and --cache names another folder."
        ) from error


def _rows(previous: CacheFile | None, parts: PartStore) -> Iterator[tuple[str, bytes, np.ndarray]]:
    """Yield image id, digest and features (V, D) of every row of every source."""
    if previous:
        blocks = map(previous.block, range(previous.blocks))
        rows = itertools.chain.from_iterable(blocks)
        yield from zip(previous.image_ids, previous.index.values(), rows, strict=True)
    for part in parts:
        yield from zip(part.image_ids, part.digests, part.features, strict=True)


def _digest_blocks(file: BinaryIO, end: int, block_bytes: int) -> Iterator[bytes]:
    """Read the rows again, which came from many sources, and digest them block by block."""
    while content := file.read(min(block_bytes, end - file.tell())):
        yield xxh3_128_digest(content)
