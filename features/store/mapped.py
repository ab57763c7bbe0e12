"""Features that stay on the disk: rows become float32 in memory when they are asked for, some at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np

from features.common.arrays import Features
from features.store.cache_file import CacheFile, DamagedFile, Selection, as_slice, read_selections

#: Rows at a time: 42 MB of 2,560 features.
BLOCK = 4096
#: Cells of features, rows times columns, that are loaded: 1 GiB as float32. More stay on the disk.
MOST_LOADED = 1 << 28
#: What widens the exponent of float16, of 5 bits, to that of float32, of 8: 2 ** (127 - 15).
_WIDER = np.float32(2.0**112)


@dataclass(frozen=True, eq=False)
class MappedRows:
    """N rows of one backbone in cache files.

    Attributes:
        files: of one width.
        file_of: uint8 (N,), which of them each row is in.
        rows: int64 (N,), where it is there.
    """

    files: tuple[CacheFile, ...]
    file_of: np.ndarray
    rows: np.ndarray

    def take(self, rows: np.ndarray) -> "MappedRows":
        """Some of the N rows, int (n,)."""
        return replace(self, file_of=self.file_of[rows], rows=self.rows[rows])

    def read(self, tta: str, out: np.ndarray) -> None:
        """Write all N rows to `out`, float32 (N, D): of several views the mean, or by `tta` "none" the first."""
        for number in np.unique(self.file_of):
            own = np.flatnonzero(self.file_of == number)
            views = self.files[number].rows_unchecked(self.rows[own])
            if tta == "mean" and views.shape[1] > 1:
                out[as_slice(own)] = views.mean(axis=1, dtype=np.float32)
            elif len(own) == len(out):
                widen(views[:, 0], out)
            else:
                out[own] = views[:, 0]


@dataclass(frozen=True, eq=False)
class MappedFeatures:
    """Features of N images, backbones side by side, on the disk.

    Like an array it has a shape, a length, and `[rows]`, which reads them: float32 (n, D), a copy. A slice of columns
    has to begin and end where a backbone does.

    Attributes:
        count: N.
        backbones: of these images.
        tta: what is read of several views: the `mean`, or the first for `none`.
    """

    count: int
    backbones: tuple[MappedRows, ...]
    tta: str

    @classmethod
    def join(cls, parts: Sequence["MappedFeatures"]) -> "MappedFeatures":
        """Put features of the same backbones, at least one part, behind one another."""
        joined = []
        for pieces in zip(*(part.backbones for part in parts), strict=True):
            starts = np.cumsum([0, *(len(piece.files) for piece in pieces)])
            file_of = np.concatenate([piece.file_of + start for piece, start in zip(pieces, starts[:-1], strict=True)])
            files = tuple(file for piece in pieces for file in piece.files)
            joined.append(MappedRows(files, file_of.astype(np.uint8), np.concatenate([piece.rows for piece in pieces])))
        return cls(sum(map(len, parts)), tuple(joined), parts[0].tta)

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return len(self), sum(own.files[0].width for own in self.backbones)

    def __len__(self) -> int:
        """Number of images."""
        return self.count

    def __getitem__(self, key: Any) -> Any:
        """Read some rows, by a slice or by indices; or, by `[:, columns]`, leave out backbones and read nothing."""
        if isinstance(key, tuple):
            rows, columns = key
            assert rows == slice(None), "rows and columns of mapped features are chosen one after the other"
            return self._only(columns)
        taken = self.take(key)
        out, end = np.empty(taken.shape, np.float32), 0
        for own in taken.backbones:
            start, end = end, end + own.files[0].width
            own.read(self.tta, out[:, start:end])
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all rows, as numpy and scikit-learn ask for."""
        return np.asarray(self[:], dtype)

    def take(self, rows: np.ndarray | slice) -> "MappedFeatures":
        """Some of the images, int (n,) or bool (N,); nothing is read."""
        taken = np.arange(self.count)[rows]
        return replace(self, count=len(taken), backbones=tuple(own.take(taken) for own in self.backbones))

    def load(self) -> "AnyFeatures":
        """Read all features into memory, or leave them where they are if they are more than `MOST_LOADED` cells.

        Either way every block that has a row is compared with its digest.

        Raises:
            DamagedFile: a block is not what was written, or features are not finite; the message names file and rows,
                or an image.
        """
        loaded = np.empty(self.shape, np.float32) if self.shape[0] * self.shape[1] <= MOST_LOADED else None
        selections, places, end = [], [], 0
        for own in self.backbones:
            start, end = end, end + own.files[0].width
            for number, file in enumerate(own.files):
                place = np.flatnonzero(own.file_of == number)
                out = None if loaded is None else loaded[:, start:end]
                if out is not None and len(place) < len(self):
                    out = np.empty((len(place), file.width), np.float32)
                selections.append(Selection(file, own.rows[place], out, self.tta))
                places.append((place, slice(start, end)))
        for selection, not_finite in zip(selections, read_selections(selections), strict=True):
            if len(not_finite):
                refuse_not_finite(selection.file, selection.rows[not_finite], len(self))
        if loaded is None:
            return self
        for selection, (place, columns) in zip(selections, places, strict=True):
            if selection.out is not None and len(place) < len(self):
                loaded[place, columns] = selection.out
        return loaded

    def _only(self, columns: slice) -> "MappedFeatures":
        """The backbones whose columns lie in a slice."""
        start, stop, _ = columns.indices(self.shape[1])
        ends = [0, *accumulate(own.files[0].width for own in self.backbones)]
        assert {start, stop} <= {*ends}, "a slice of columns cuts a backbone"
        return replace(self, backbones=self.backbones[ends.index(start) : ends.index(stop)])


#: Features in memory, or on the disk.
AnyFeatures = Features | MappedFeatures


def refuse_not_finite(file: CacheFile, rows: np.ndarray, of: int) -> None:
    """Refuse rows of a file, int64 (n,), that hold NaN or infinity, of so many that are read.

    Raises:
        DamagedFile: always; the message names the first image.
    """
    raise DamagedFile(
        file.path,
        f"the features of image {file.image_ids[rows[0]]} are not finite, and {len(rows)} of {of} images have such "
        "features",
    )


def take_rows(features: AnyFeatures, rows: np.ndarray) -> AnyFeatures:
    """Some rows of features: a copy of those in memory, nothing is read of those on the disk."""
    return features.take(rows) if isinstance(features, MappedFeatures) else features[rows]


def join_rows(parts: Sequence[AnyFeatures]) -> AnyFeatures:
    """Put features of the same backbones, at least one part, behind one another."""
    mapped = [part for part in parts if isinstance(part, MappedFeatures)]
    return MappedFeatures.join(mapped) if len(mapped) == len(parts) else np.concatenate([part[:] for part in parts])


def in_blocks(rows: int) -> Iterator[slice]:
    """Yield slices of `BLOCK` rows, the last one shorter; of no rows none."""
    for start in range(0, rows, BLOCK):
        yield slice(start, min(start + BLOCK, rows))


def widen(values: np.ndarray, out: np.ndarray) -> None:
    """Write finite float16 or float32 to float32 `out` of the same shape, exactly.

    As numpy does it, but four times as fast: exponent and fraction are moved to where float32 has them, and a product
    with a power of two, which is exact, sets the exponent right, also of subnormal numbers.
    """
    if values.dtype != np.float16:
        out[:] = values
        return
    for start in range(0, len(out), 512):  # what fits into the cache of a core
        bits = out[start : start + 512].view(np.int32)
        np.copyto(bits, values[start : start + 512].view(np.int16))  # with its sign, in all higher bits
        bits <<= 13
        bits &= ~0x70000000  # of the copies of the sign one is left
        own = bits.view(np.float32)
        own *= _WIDER
