"""Read rows of a cache file's features, chunk by chunk, on all cores, every checksum verified.

HDF5 reads on one core at a time, whoever asks: a lock guards all of it. So the chunks are fetched past it, from where
it says that they lie, and their checksums computed by numpy, which holds no lock. Whatever is not as `assemble` writes
it, and every chunk whose checksum fails, is read by HDF5 itself: what it says of damage is what the caller hears.
"""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np

#: Features are read and written this many bytes at a time, so that memory does not grow with the data set.
BLOCK_BYTES = 16 << 20
#: More threads than this only wait for the memory.
THREADS = 4
_CHECKSUM_BYTES = 4
#: What is read begins where a line of the CPU's cache does; there is room for the checksum behind it.
_LINE_BYTES = 64
#: So many words of 16 bits have a sum of 32 bits, whatever they are.
_TERMS = 1 << 16


def read_rows(features: h5py.Dataset, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Read the first view of some rows; a chunk is read once, and stays in the CPU's cache until it is done with.

    Args:
        features: float32 or float16 (M, V, D).
        rows: int64 (N,), rows of it, in any order.
        out: float32 (N, D), filled in.

    Returns:
        int64, ascending: the rows of `out` that hold NaN or infinity.

    Raises:
        OSError: a chunk is damaged.
    """
    step = features.chunks[0] if features.chunks else max(1, BLOCK_BYTES // (4 * out.shape[1]))
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.unique(ordered // step) * step
    raw = _RawChunks(features)

    def read(starts: np.ndarray) -> list[int]:
        """Read the rows of some chunks, in one thread; return the rows of `out` that are not finite."""
        scratch = np.empty((2, raw.content_bytes + _LINE_BYTES), np.uint8)
        flags = np.empty((step, out.shape[1]), bool)
        not_finite: list[int] = []
        for start in starts:
            chunk = raw.read(start, scratch)
            if chunk is None:
                with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told
                    chunk = features[start : start + step, 0].astype(np.float32, copy=False)
            first, last = np.searchsorted(ordered, (start, start + step))
            sources, targets = ordered[first:last] - start, order[first:last]
            finite = np.isfinite(chunk, out=flags[: len(chunk)])
            if not finite.all():
                not_finite += targets[~finite.all(axis=1)[sources]].tolist()
            out[_as_slice(targets)] = chunk[_as_slice(sources)]
        return not_finite

    threads = min(THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads, "chunks") as pool:
        found = pool.map(read, [starts[thread::threads] for thread in range(threads)])
        return np.array(sorted(itertools.chain.from_iterable(found)), np.int64)


def _as_slice(indices: np.ndarray) -> slice | np.ndarray:
    """Indices, at least one, as a slice where each is the next of the one before: numpy then makes no copy."""
    return slice(indices[0], indices[-1] + 1) if np.all(np.diff(indices) == 1) else indices


class _RawChunks:
    """The chunks of a data set as they lie in its file.

    Args:
        features: (M, V, D), of an open file.

    Attributes:
        content_bytes: of a chunk, without its checksum; 0 where no chunk can be read past HDF5.
    """

    def __init__(self, features: h5py.Dataset) -> None:
        self.content_bytes = 0
        self._offsets: dict[int, int] = {}
        if not _is_plain(features):
            return
        self._shape = features.chunks
        self._dtype = features.dtype
        self._rows = len(features)
        self.content_bytes = int(np.prod(self._shape)) * self._dtype.itemsize
        self._descriptor = features.file.id.get_vfd_handle()
        features.id.chunk_iter(self._remember)

    def _remember(self, chunk: h5py.h5d.StoreInfo) -> None:
        """Note where a chunk lies, if its checksum is behind it."""
        if chunk.filter_mask == 0 and chunk.size == self.content_bytes + _CHECKSUM_BYTES:
            self._offsets[chunk.chunk_offset[0]] = chunk.byte_offset

    def read(self, start: int, scratch: np.ndarray) -> np.ndarray | None:
        """Read one chunk and verify its checksum.

        Args:
            start: its first row.
            scratch: uint8 (2, at least content_bytes and 4), overwritten.

        Returns:
            The first view of its rows, in `scratch`; None if HDF5 has to read it.
        """
        if start not in self._offsets:
            return None
        content, spare = scratch[0, : self.content_bytes], scratch[1, : self.content_bytes]
        stored = scratch[0, self.content_bytes :][:_CHECKSUM_BYTES]
        if os.preadv(self._descriptor, [content.data, stored.data], self._offsets[start]) != len(content) + len(stored):
            return None
        pairs, spare = (part.view("<u4").reshape(self._shape[0], -1) for part in (content, spare))
        if fletcher32(pairs, spare) != tuple(int(half) % 65535 for half in stored.view("<u2")):
            return None
        return content.view(self._dtype).reshape(self._shape)[: self._rows - start, 0]


def _is_plain(features: h5py.Dataset) -> bool:
    """Whether a data set is stored as `assemble` does it: small chunks of whole rows, checksums and nothing else."""
    if not features.chunks or features.chunks[1:] != features.shape[1:] or features.file.userblock_size:
        return False
    if features.dtype not in (np.dtype("<f4"), np.dtype("<f2")):
        return False
    bytes_per_row = int(np.prod(features.chunks[1:])) * features.dtype.itemsize
    filters = features.id.get_create_plist()
    return (
        filters.get_nfilters() == 1
        and filters.get_filter(0)[0] == h5py.h5z.FILTER_FLETCHER32
        and features.id.get_type() == h5py.h5t.py_create(features.dtype)
        and features.chunks[0] * bytes_per_row <= BLOCK_BYTES
        and features.chunks[0] <= _TERMS
        and bytes_per_row <= 4 * _TERMS
        and bytes_per_row % 4 == 0
    )


def fletcher32(pairs: np.ndarray, scratch: np.ndarray) -> tuple[int, int]:
    """Fletcher's checksum as HDF5 computes it (H5_checksum_fletcher32 in H5checksum.c).

    With n words w[i] of 16 bits, it is the sum of w[i] and the sum of (n - i) w[i], modulo 65535. HDF5 takes the words
    with the high byte first: each with its bytes exchanged, which modulo 65535 is a product with 256.

    Args:
        pairs: uint32 (R, C), both at most 2^16: two words each, the lower 16 bits first.
        scratch: uint32 (R, C), overwritten.

    Returns:
        Both sums, 0 to 65534. HDF5 writes 65535 for 0 where the words are not all zero.
    """
    second = np.right_shift(pairs, 16, out=scratch)

    def add(axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Add first and second words along an axis; numpy adds 32 bits four times as fast as it widens 16."""
        seconds = np.add.reduce(second, axis=axis, dtype=np.uint32)
        # What the sum of whole pairs loses at the top are parts of the second words only: at most 2^16 fit 32 bits.
        firsts = np.add.reduce(pairs, axis=axis, dtype=np.uint32) - (seconds << np.uint32(16))
        return firsts.astype(np.int64), seconds.astype(np.int64)

    (firsts_of_row, seconds_of_row), (firsts_of_column, seconds_of_column) = add(1), add(0)
    of_row, of_column = firsts_of_row + seconds_of_row, firsts_of_column + seconds_of_column
    total = int(of_row.sum())
    # Pair (r, c) is number C r + c, and i is twice that, and one more for its second word. All factors are below 2^16.
    numbers_of_rows = np.arange(len(of_row)) * len(of_column) % 65535
    numbers = int(of_row % 65535 @ numbers_of_rows) + int(of_column % 65535 @ np.arange(len(of_column)))
    weighted = 2 * pairs.size * total - 2 * numbers - int(seconds_of_row.sum())
    return total * 256 % 65535, weighted * 256 % 65535
