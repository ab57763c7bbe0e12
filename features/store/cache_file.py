"""One file of the cache: opened once, its rows mapped into memory, each block of them checked whenever it is read.

HDF5 says only where the datasets lie and what the attributes are; it parses the mapped bytes, so that it meets neither
locks nor the disk. Rows are taken from the mapping.
"""

import json
import mmap
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from xxhash import xxh3_128_digest

from features.common.cluster import say_unseen
from features.common.commands import write_command
from features.common.errors import InputError, cause_of
from features.common.files import DIGEST_BYTES, digest
from features.store.recipe import SCHEMA_VERSION, Recipe

#: Rows that one digest covers.
BLOCK_ROWS = 128
#: More threads than this only wait for the memory.
THREADS = 4
#: Bytes of a file that are read before its pages are let go; and what Linux maps at a time.
_HELD, _AROUND = 1 << 28, 1 << 16
#: The types that each dataset may have, as numpy writes them.
_TYPES = {"features": ("<f4", "<f2"), "block_digests": ("|u1",), "image_ids": ("|S",), "image_digests": ("|u1",)}
#: What h5py raises where the bytes of a file are not what HDF5 wrote.
HDF5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError)


class DamagedFile(InputError):
    """A cache file does not hold what was written; `reason` says what was found, and where."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged ({reason}). Run: {write_command('features verify', path.parents[1])}")
        self.reason = reason


class _Mapping(mmap.mmap):
    """A file in memory, of which the pages that were read are let go now and then: the system keeps what it can.

    Otherwise a process that has read a file once holds all of it.
    """

    _touched = 0

    def touch(self, count: int) -> None:
        """Note that so many bytes are about to be read."""
        self._touched += count
        if self._touched > _HELD:
            self._touched = 0
            self.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True, eq=False)
class CacheFile:
    """The features of one split by one backbone.

    Attributes:
        path: the file.
        recipe: the settings that decide the values.
        image_ids: ids (N,), without extension.
        image_digests: uint8 (N, 16), BLAKE2b-128 of each image's bytes.
        keras_version, keras_backend, device, engine: what computed the features; early files have no engine, but that
            of Keras.
        time: when the file was assembled, ISO 8601 in UTC.
        seconds_per_image: mean seconds of the device for an image, compilation and decoding left out, if measured.
    """

    path: Path
    recipe: Recipe
    image_ids: tuple[str, ...]
    image_digests: np.ndarray
    keras_version: str
    keras_backend: str
    device: str
    engine: str
    time: str
    seconds_per_image: float | None
    _features: np.ndarray
    _block_digests: np.ndarray

    @classmethod
    def open(cls, path: Path) -> "CacheFile":
        """Open a file and check all but its rows.

        Raises:
            DamagedFile: it is not what was written.
            InputError: it cannot be read, or has another schema.
        """
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    raise DamagedFile(path, "it is empty")
                mapped = _Mapping(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {cause_of(error)} Its features may be whole.") from None
        try:
            with h5py.File(mapped, "r") as file:
                attributes = {name: _plain(value) for name, value in file.attrs.items()}
                if (version := attributes.get("schema_version")) != SCHEMA_VERSION:
                    raise InputError(
                        f"{path} has schema {version}, but this Headbank reads {SCHEMA_VERSION}: its features have to "
                        f"be extracted again. Move the folder {path.parents[1]} away, and run again what extracted it."
                    )
                arrays = {name: _mapped(path, mapped, file, name) for name in _TYPES}
        except HDF5_ERRORS as error:
            raise DamagedFile(path, str(error).partition("\n")[0] or type(error).__name__) from error
        features, ids, image_digests = arrays["features"], arrays["image_ids"], arrays["image_digests"]
        if attributes.pop("index_digest", "") != index_digest(attributes, features.shape, ids, image_digests):
            raise DamagedFile(path, "its attributes, shape, image ids or image digests are not those that were written")
        if arrays["block_digests"].shape != (-(-len(features) // BLOCK_ROWS), DIGEST_BYTES):
            raise DamagedFile(path, f"block_digests has shape {arrays['block_digests'].shape}")
        seconds = attributes.get("seconds_per_image")
        return cls(
            path=path,
            recipe=Recipe.from_attributes(attributes),
            # All in one go, which is ten times as fast as one by one; HDF5's strings end where a NUL is.
            image_ids=tuple(b"\0".join(ids.tolist()).decode().split("\0")),
            image_digests=image_digests,
            engine=str(attributes.get("engine", attributes["keras_backend"])),
            seconds_per_image=None if seconds is None else float(seconds),
            **{name: str(attributes[name]) for name in ("keras_version", "keras_backend", "device", "time")},
            _features=features,
            _block_digests=arrays["block_digests"],
        )

    def __reduce__(self) -> Any:
        """Travel to another process as a path and a digest: it maps the file itself."""
        return _open_again, (self.path.absolute(), xxh3_128_digest(self._block_digests.data))

    @property
    def fingerprint(self) -> str:
        """The recipe's."""
        return self.recipe.fingerprint

    @property
    def rows(self) -> int:
        """Number of images N."""
        return len(self._features)

    @property
    def views(self) -> int:
        """Number of views V."""
        return self._features.shape[1]

    @property
    def width(self) -> int:
        """Channels D."""
        return self._features.shape[2]

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each image."""
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    @cached_property
    def index(self) -> dict[str, bytes]:
        """Image id -> BLAKE2b-128 of the image's bytes, in the order of the rows."""
        return dict(zip(self.image_ids, map(bytes, self.image_digests), strict=True))

    @property
    def blocks(self) -> int:
        """Number of blocks of BLOCK_ROWS rows; the last one may have fewer."""
        return len(self._block_digests)

    def rows_unchecked(self, rows: np.ndarray) -> np.ndarray:
        """Give some rows, int64 (n,), of blocks that were checked before: float32 or float16 (n, V, D), read-only."""
        if len(rows):
            # Of rows here and there the system maps what is around them, too.
            self._touch(min((int(np.ptp(rows)) + 1) * self._features[:1].nbytes, len(rows) * _AROUND))
        return self._features[as_slice(rows)]

    def block(self, number: int) -> np.ndarray:
        """Give the rows of one block, mapped, after comparing them with their digest.

        Returns:
            float32 or float16 (R, V, D), read-only.

        Raises:
            DamagedFile: they are not what was written; the message names the rows.
        """
        start = number * BLOCK_ROWS
        rows = self._features[start : start + BLOCK_ROWS]
        self._touch(rows.nbytes)
        if xxh3_128_digest(rows.data) != self._block_digests[number].tobytes():
            last = start + len(rows) - 1
            raise DamagedFile(
                self.path,
                f"rows {start} to {last} (images {self.image_ids[start]} to {self.image_ids[last]}) "
                "are not those that were written",
            )
        return rows

    def _touch(self, count: int) -> None:
        """Note that so many bytes of the rows are about to be read."""
        assert isinstance(self._features.base, _Mapping)
        self._features.base.touch(count)


def _open_again(path: Path, digest_of_blocks: bytes) -> CacheFile:
    """Open a file in another process, maybe on another machine.

    Raises:
        InputError: it is not there, or another one.
    """
    if path.exists() and xxh3_128_digest((file := CacheFile.open(path))._block_digests.data) == digest_of_blocks:
        return file
    raise InputError(say_unseen(path))


def index_digest(
    attributes: Mapping[str, str | int | float],
    shape: tuple[int, ...],
    image_ids: np.ndarray,
    image_digests: np.ndarray,
) -> str:
    """Digest all of a file but its rows (and this digest): BLAKE2b-128, as 32 hexadecimal digits."""
    text = json.dumps([attributes, shape, image_ids.itemsize], sort_keys=True)
    return digest(text.encode() + image_ids.tobytes() + image_digests.tobytes()).hex()


def _mapped(path: Path, mapped: mmap.mmap, file: h5py.File, name: str) -> np.ndarray:
    """Give a dataset as an array on the mapping, if it is one block of a plain type within the file."""
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise DamagedFile(path, f"{name} is missing")
    dtype, settings = dataset.dtype, dataset.id.get_create_plist()
    if not dtype.str.startswith(_TYPES[name]) or dataset.id.get_type() != h5py.h5t.py_create(dtype, logical=True):
        raise DamagedFile(path, f"{name} holds {dtype.str}, not {' or '.join(_TYPES[name])}")
    offset = dataset.id.get_offset()
    if settings.get_layout() != h5py.h5d.CONTIGUOUS or settings.get_external_count() or offset is None:
        raise DamagedFile(path, f"{name} is not one contiguous block in the file")
    if offset + dataset.size * dtype.itemsize > len(mapped):
        raise DamagedFile(path, f"{name} ends beyond the end of the file")
    return np.ndarray(dataset.shape, dtype, mapped, offset)


def _plain(value: object) -> str | int | float:
    """An attribute as h5py gives it, as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else str(value)


class Selection(NamedTuple):
    """Rows of one cache file, int64 (N,) in any order, and where they go, float32.

    Attributes:
        out: (N, D); of all views (N, V, D), into which a single view is repeated; None where they are only checked.
        tta: what goes there: the `mean` of the views, the first for `none`, or `all`.
    """

    file: CacheFile
    rows: np.ndarray
    out: np.ndarray | None
    tta: str


def read_selections(selections: Sequence[Selection]) -> list[np.ndarray]:
    """Read rows of one or more files in threads; a block is read once, and stays in the CPU's cache until it is done.

    The files take turns, so that what is side by side in memory is also filled in at about the same time.

    Returns:
        Of each selection int64, ascending: the rows of its `out` that hold NaN or infinity.

    Raises:
        DamagedFile: a block is not what was written; the message names file and rows.
    """
    orders = [np.argsort(selection.rows, kind="stable") for selection in selections]
    turns = []
    for number, (selection, order) in enumerate(zip(selections, orders, strict=True)):
        ends = np.searchsorted(selection.rows[order], BLOCK_ROWS * np.arange(selection.file.blocks + 1))
        wanted = np.flatnonzero(np.diff(ends))
        turns += [(block, number, slice(*ends[block : block + 2])) for block in wanted.tolist()]
    # One iterator for all threads, which takes each block once: none waits for another that the machine keeps busy.
    blocks = iter(sorted(turns, key=lambda turn: turn[:2]))
    not_finite: list[list[int]] = [[] for _ in selections]

    def read(_: int) -> None:
        """Read blocks until there are no more."""
        flags = np.empty(BLOCK_ROWS * max(one.file.width * one.file.views for one in selections), bool)
        for block, number, part in blocks:
            selection, targets = selections[number], orders[number][part]
            sources = selection.rows[targets] - block * BLOCK_ROWS
            views = selection.file.block(block)
            rows = views if selection.tta == "all" else views[:, 0]
            if selection.tta == "mean" and views.shape[1] > 1:
                rows = views.mean(axis=1, dtype=np.float32)
            finite = np.isfinite(rows, out=flags[: rows.size].reshape(rows.shape))
            if not finite.all():
                whole = finite.reshape(len(rows), -1).all(axis=1)
                not_finite[number] += targets[~whole[sources]].tolist()
            if selection.out is not None:
                # Neighbours are copied as a slice: of single rows numpy makes a copy first.
                selection.out[as_slice(targets)] = rows[as_slice(sources)]

    threads = min(THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads, "blocks") as pool:
        list(pool.map(read, range(threads)))
    return [np.array(sorted(places), np.int64) for places in not_finite]


def as_slice(indices: np.ndarray) -> np.ndarray | slice:
    """Give indices, int64 (n,), as a slice where each is one more than the one before."""
    return slice(indices[0], indices[-1] + 1) if len(indices) and (np.diff(indices) == 1).all() else indices
