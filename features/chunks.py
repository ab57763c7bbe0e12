"""Read rows of a cache file's features, chunk by chunk, on all cores, every chunk compared with its digest.

HDF5 reads on one core at a time, whoever asks: a lock guards all of it, and its checksum costs more than the reading.
So the chunks are fetched past it, from where it says that they lie, and compared with the digests that `assemble` keeps
beside them. Whatever has no digest, or not that one, is read by HDF5 itself, with its own checksum: what it says of
damage is what the caller hears.
"""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
from xxhash import xxh3_128_digest

#: Features are read and written this many bytes at a time, so that memory does not grow with the data set.
BLOCK_BYTES = 16 << 20
#: The data set of digests, beside `features`.
DIGESTS = "chunk_digests"
#: More threads than this only wait for the memory.
THREADS = 4


def digest(rows: np.ndarray) -> bytes:
    """The digest of a chunk: XXH3-128 of its rows as they are stored, in 16 bytes (big-endian, XXH's canonical form).

    A checksum against accidents, not a seal. A chunk in the CPU's cache is digested ten times as fast as it is read;
    BLAKE2b and SHA-256 would cost more than all the rest.

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


def read_rows(file: h5py.File, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Read the first view of some rows; a chunk is read once, and stays in the CPU's cache until it is done with.

    Args:
        file: holds `features`, (M, V, D) of a float type, and perhaps the digests of its chunks.
        rows: int64 (N,), rows of it, in any order.
        out: float32 (N, D), filled in.

    Returns:
        int64, ascending: the rows of `out` that hold NaN or infinity.

    Raises:
        OSError: a chunk is damaged.
    """
    features = file["features"]
    step = features.chunks[0] if features.chunks else max(1, BLOCK_BYTES // (4 * out.shape[1]))
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.unique(ordered // step) * step
    ends = np.searchsorted(ordered, [starts, starts + step]).T.tolist()
    source_runs, target_runs = _runs(ordered), _runs(order)
    raw = _RawChunks(file)

    def read(thread: int) -> list[int]:
        """Read one thread's share of the chunks; return the rows of `out` that are not finite."""
        scratch = np.empty(raw.bytes, np.uint8)
        flags = np.empty((step, out.shape[1]), bool)
        not_finite: list[int] = []
        for start, (first, last) in zip(starts[thread::threads].tolist(), ends[thread::threads], strict=True):
            chunk = raw.read(start, scratch)
            if chunk is None:
                with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told
                    chunk = features[start : start + step, 0].astype(np.float32, copy=False)
            sources, targets = ordered[first:last] - start, order[first:last]
            finite = np.isfinite(chunk, out=flags[: len(chunk)])
            if not finite.all():
                not_finite += targets[~finite.all(axis=1)[sources]].tolist()
            # Neighbours are copied as a slice: of single rows numpy makes a copy before.
            source = slice(sources[0], sources[-1] + 1) if source_runs[first] == source_runs[last - 1] else sources
            target = slice(targets[0], targets[-1] + 1) if target_runs[first] == target_runs[last - 1] else targets
            out[target] = chunk[source]
        return not_finite

    threads = min(THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads, "chunks") as pool:
        return np.array(sorted(itertools.chain.from_iterable(pool.map(read, range(threads)))), np.int64)


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
            scratch: uint8 (bytes,), overwritten.

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
