"""Read rows of a cache file's features, chunk by chunk, on all cores, every checksum verified.

HDF5 reads on one core at a time, whoever asks: a lock guards all of it. So the chunks are fetched past it, from where
it says that they lie, and their checksums computed by numpy, which holds no lock. Whatever is not as `assemble` writes
it, and every chunk whose checksum fails, is read by HDF5 itself: what it says of damage is what the caller hears.
"""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import h5py
import numpy as np

#: Features are read and written this many bytes at a time, so that memory does not grow with the data set.
BLOCK_BYTES = 16 << 20
#: More threads than this only wait for the memory.
THREADS = 4
_CHECKSUM_BYTES = 4
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
    ends = np.searchsorted(ordered, [starts, starts + step]).T.tolist()
    source_runs, target_runs = _runs(ordered), _runs(order)
    raw = _RawChunks(features)

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
    """The chunks of a data set as they lie in its file.

    Args:
        features: (M, V, D), of an open file.

    Attributes:
        bytes: of a chunk with its checksum; 0 where no chunk can be read past HDF5.
    """

    def __init__(self, features: h5py.Dataset) -> None:
        self.bytes = 0
        self._offsets: dict[int, int] = {}
        if not _is_plain(features):
            return
        self._shape = features.chunks
        self._dtype = features.dtype
        self._rows = len(features)
        self.bytes = int(np.prod(self._shape)) * self._dtype.itemsize + _CHECKSUM_BYTES
        self._descriptor = features.file.id.get_vfd_handle()
        features.id.chunk_iter(self._remember)

    def _remember(self, chunk: h5py.h5d.StoreInfo) -> None:
        """Note where a chunk lies, if its checksum is behind it."""
        if chunk.filter_mask == 0 and chunk.size == self.bytes:
            self._offsets[chunk.chunk_offset[0]] = chunk.byte_offset

    def read(self, start: int, scratch: np.ndarray) -> np.ndarray | None:
        """Read one chunk and verify its checksum.

        Args:
            start: its first row.
            scratch: uint8 (bytes,), overwritten.

        Returns:
            The first view of its rows, in `scratch`; None if HDF5 has to read it.
        """
        if start not in self._offsets:
            return None
        if os.preadv(self._descriptor, [scratch.data], self._offsets[start]) != len(scratch):
            return None
        content = scratch[:-_CHECKSUM_BYTES]
        first, second = scratch[-_CHECKSUM_BYTES:].view("<u2").tolist()
        if fletcher32(content.view("<u2").reshape(self._shape[0], -1)) != (first % 65535, second % 65535):
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
        and bytes_per_row <= 2 * _TERMS
    )


def fletcher32(words: np.ndarray) -> tuple[int, int]:
    """Fletcher's checksum as HDF5 computes it (H5_checksum_fletcher32 in H5checksum.c).

    With n words w[i], it is the sum of w[i] and the sum of (n - i) w[i], modulo 65535. HDF5 takes the words with the
    high byte first: each with its bytes exchanged, which modulo 65535 is a product with 256.

    Args:
        words: uint16 (R, C), both at most 2^16.

    Returns:
        Both sums, 0 to 65534. HDF5 writes 65535 for 0 where the words are not all zero.
    """
    of_row = np.add.reduce(words, axis=1, dtype=np.uint32)
    of_column = np.add.reduce(words, axis=0, dtype=np.uint32)
    total = int(of_row.sum(dtype=np.uint64))
    # Word (r, c) is number C r + c. At most 2^16 sums below 2^32, with factors below 2^16: 64 bits hold them.
    row_numbers, column_numbers = _numbers(*words.shape)
    numbers = int(of_row @ row_numbers) + int(of_column @ column_numbers)
    return total * 256 % 65535, (words.size * total - numbers) * 256 % 65535


@lru_cache(maxsize=4)
def _numbers(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """What a word's row and column add to its number, modulo 65535: uint64 (rows,) and (columns,)."""
    return np.arange(rows, dtype=np.uint64) * np.uint64(columns) % np.uint64(65535), np.arange(columns, dtype=np.uint64)
