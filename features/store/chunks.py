"""Read rows of a cache file's features, chunk by chunk, on all cores, every chunk compared with its digest.

HDF5 reads on one core at a time, whoever asks: a lock guards all of it, and its checksum costs more than the reading.
So the chunks are fetched past it, from where it says that they lie, and compared with the digests that `assemble` keeps
beside them. Whatever has no digest, or not that one, is read by HDF5 itself, with its own checksum: what it says of
damage is what the caller hears.
"""

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from xxhash import xxh3_128_digest

from features.store.opening import naming

#: Features are read and written this many bytes at a time, so that memory does not grow with the data set.
BLOCK_BYTES = 16 << 20
#: The data set of digests, beside `features`.
DIGESTS = "chunk_digests"
#: More threads than this only wait for the memory.
THREADS = 4


def digest(rows: np.ndarray) -> bytes:
    """The digest of a chunk: XXH3-128 of its rows as they are stored, in 16 bytes (big-endian, XXH's canonical form).

    Against accidents, not a seal: it costs half of what fetching the chunk from memory does, while the digests of
    hashlib would cost more than all the rest.

    Args:
        rows: float32 or float16 (R, V, D), contiguous.
    """
    return xxh3_128_digest(rows.data)


def digest_chunks(features: h5py.Dataset) -> np.ndarray:
    """Read features again and digest them: uint8 (chunks, 16), in the order of the rows."""
    step = features.chunks[0]
    digests = b"".join(digest(features[start : start + step]) for start in range(0, len(features), step))
    return np.frombuffer(digests, np.uint8).reshape(-1, 16)


def are_digests(digests: h5py.Dataset, features: h5py.Dataset) -> bool:
    """Whether a data set can be the digests of some features: uint8 (chunks, 16)."""
    return digests.dtype == np.uint8 and digests.shape == (-(-len(features) // features.chunks[0]), 16)


@dataclass(frozen=True)
class Selection:
    """Rows of one cache file, and where their first views go.

    Attributes:
        path: the file's.
        file: the same, open; holds `features`, (M, V, D) of a float type, and perhaps the digests of its chunks.
        rows: int64 (N,), rows of it, in any order.
        out: float32 (N, D), to be filled in.
    """

    path: Path
    file: h5py.File
    rows: np.ndarray
    out: np.ndarray


def read_selections(selections: Sequence[Selection]) -> list[np.ndarray]:
    """Read rows of one or more files; a chunk is read once, and stays in the CPU's cache until it is done with.

    The files take turns, so that what is side by side in memory is also filled in at about the same time.

    Args:
        selections: at least one.

    Returns:
        Of each selection int64, ascending: the rows of its `out` that hold NaN or infinity.

    Raises:
        InputError: a chunk is damaged; the message names the file.
    """
    readers = []
    for selection in selections:
        with naming(selection.path):
            readers.append(_Reader(selection))
    turns = [(start, number) for number, reader in enumerate(readers) for start in reader.starts]
    # One iterator for all threads, which takes each chunk once: none waits for another that the machine keeps busy.
    chunks = iter(sorted(turns))

    def read(_: int) -> None:
        """Read chunks until there are no more."""
        scratch = np.empty(max(reader.scratch_bytes for reader in readers), np.uint8)
        for start, number in chunks:
            with naming(selections[number].path):
                readers[number].read(start, scratch)

    threads = min(THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads, "chunks") as pool:
        list(pool.map(read, range(threads)))
    return [np.array(sorted(reader.not_finite), np.int64) for reader in readers]


class _Reader:
    """Reads the chunks of one selection, on several threads.

    Args:
        selection: the rows wanted.

    Attributes:
        starts: the first rows of the chunks to be read.
        scratch_bytes: what `read` needs to work in.
        not_finite: rows of `out` that hold NaN or infinity, in the order of reading.
    """

    def __init__(self, selection: Selection) -> None:
        self._features = selection.file["features"]
        self._out = selection.out
        chunks = self._features.chunks
        self._step = chunks[0] if chunks else max(1, BLOCK_BYTES // (4 * self._out.shape[1]))
        self._order = np.argsort(selection.rows, kind="stable")
        self._ordered = selection.rows[self._order]
        chunk_of = self._ordered // self._step
        firsts = np.flatnonzero(np.diff(chunk_of, prepend=-1))
        self.starts: list[int] = (chunk_of[firsts] * self._step).tolist()
        ends = itertools.pairwise([*firsts.tolist(), len(chunk_of)])
        self._ends = dict(zip(self.starts, ends, strict=True))
        self._source_runs, self._target_runs = _runs(self._ordered), _runs(self._order)
        self._raw = _RawChunks(selection.file)
        self.scratch_bytes = self._raw.bytes + self._step * self._out.shape[1]
        self.not_finite: list[int] = []

    def read(self, start: int, scratch: np.ndarray) -> None:
        """Read one chunk and bring its rows to their places.

        Args:
            start: its first row.
            scratch: uint8, at least scratch_bytes, overwritten.
        """
        chunk = self._raw.read(start, scratch)
        if chunk is None:
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told
                chunk = self._features[start : start + self._step, 0].astype(np.float32, copy=False)
        first, last = self._ends[start]
        sources, targets = self._ordered[first:last] - start, self._order[first:last]
        flags = scratch[self._raw.bytes :][: chunk.size].view(bool).reshape(chunk.shape)
        finite = np.isfinite(chunk, out=flags)
        if not finite.all():
            self.not_finite += targets[~finite.all(axis=1)[sources]].tolist()
        # Neighbours are copied as a slice: of single rows numpy makes a copy before.
        source = _as_slice(sources, self._source_runs[first:last])
        self._out[_as_slice(targets, self._target_runs[first:last])] = chunk[source]


def _as_slice(indices: np.ndarray, runs: np.ndarray) -> np.ndarray | slice:
    """Give indices that are one run as a slice."""
    return slice(indices[0], indices[-1] + 1) if runs[0] == runs[-1] else indices


def _runs(indices: np.ndarray) -> np.ndarray:
    """Number the runs in which each index is one more than the one before: int64, as many as indices."""
    return np.cumsum(np.diff(indices, prepend=indices[:1]) != 1)


class _RawChunks:
    """The chunks of the features as they lie in a file.

    Args:
        file: holds `features`, and perhaps the digests of its chunks.

    Attributes:
        bytes: of a chunk without its checksum; 0 where no chunk can be read past HDF5.
    """

    def __init__(self, file: h5py.File) -> None:
        self.bytes = 0
        self._offsets: dict[int, int] = {}
        features = file["features"]
        digests = file.get(DIGESTS)
        if not (isinstance(digests, h5py.Dataset) and _is_plain(features) and are_digests(digests, features)):
            return
        self._digests = digests[:]
        self._shape = features.chunks
        self._dtype = features.dtype
        self._rows = len(features)
        self._bytes_per_row = int(np.prod(self._shape[1:])) * self._dtype.itemsize
        self.bytes = self._shape[0] * self._bytes_per_row
        self._descriptor = file.id.get_vfd_handle()
        features.id.chunk_iter(self._remember)

    def _remember(self, chunk: h5py.h5d.StoreInfo) -> None:
        """Note where a chunk lies."""
        self._offsets[chunk.chunk_offset[0]] = chunk.byte_offset

    def read(self, start: int, scratch: np.ndarray) -> np.ndarray | None:
        """Read one chunk and compare it with its digest.

        Args:
            start: its first row.
            scratch: uint8, at least `bytes`, overwritten.

        Returns:
            The first view of its rows, in `scratch`; None if HDF5 has to read it.
        """
        if start not in self._offsets:
            return None
        # The last chunk is stored filled up; the digest is of the rows alone.
        content = scratch[: min(self._shape[0], self._rows - start) * self._bytes_per_row]
        if os.preadv(self._descriptor, [content.data], self._offsets[start]) != len(content):
            return None
        if digest(content) != self._digests[start // self._shape[0]].tobytes():
            return None
        return content.view(self._dtype).reshape(-1, *self._shape[1:])[:, 0]


def _is_plain(features: h5py.Dataset) -> bool:
    """Whether the bytes of chunks can be rows as `assemble` stores them; whether they are, the digest decides."""
    return (
        features.chunks is not None
        and features.chunks[1:] == features.shape[1:]
        and features.dtype in (np.dtype("<f4"), np.dtype("<f2"))
        and features.id.get_type() == h5py.h5t.py_create(features.dtype)
        and int(np.prod(features.chunks)) * features.dtype.itemsize <= BLOCK_BYTES
    )
