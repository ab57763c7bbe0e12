"""Write a file of maps, CACHE/{split}/{backbone}.maps.h5, whole or not at all."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from features.common.errors import InputError
from features.common.files import replacing
from features.common.text import size
from features.store.assembly import Provenance
from features.store.maps import CHUNK_BYTES, DATASETS, MAPS_SCHEMA_VERSION, RENEW, MapRows
from features.store.recipe import Recipe


class MapsWriter:
    """Writes one file of maps, whole or not at all: a context manager that takes rows block by block.

    The file takes its place when the block ends without an error; without any row no file is made or replaced.

    Args:
        path: CACHE/{split}/{backbone}.maps.h5.
        recipe: how the features are extracted.
        provenance: what computed the maps.
    """

    def __init__(self, path: Path, recipe: Recipe, provenance: Provenance) -> None:
        self._path = path
        self._recipe = recipe
        self._provenance = provenance
        self._stack = ExitStack()
        self._file: h5py.File | None = None
        self._digests: dict[str, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def append(self, rows: MapRows) -> None:
        """Add rows.

        Args:
            rows: of images that were not added yet.

        Raises:
            InputError: the disk is full, the maps have another shape than those added before, or a map is not finite;
                the message names the image.
        """
        if self._file is not None and rows.maps.shape[1:] != self._file["maps"].shape[1:]:
            raise InputError(
                f"{self._path} holds maps of shape {self._file['maps'].shape[1:]}, but {self._recipe.backbone} makes "
                f"{rows.maps.shape[1:]}. {RENEW}"
            )
        finite = np.isfinite(rows.maps).all(axis=(1, 2, 3))
        if not finite.all():
            raise InputError(
                f"{self._recipe.backbone} gives maps that are not finite in float16 for the image "
                f"{rows.image_ids[int(np.argmin(finite))]}. Check the weights."
            )
        refuse_full_disk(self._path, rows.maps.nbytes + rows.thumbnails.nbytes)
        if self._file is None:
            self._file = self._open(rows)
        for name in DATASETS:
            dataset = self._file[name]
            dataset.resize(len(dataset) + len(rows.image_ids), axis=0)
            dataset[-len(rows.image_ids) :] = getattr(rows, name)
        self._digests |= dict(zip(rows.image_ids, rows.digests, strict=True))

    def _open(self, rows: MapRows) -> h5py.File:
        """Make the temporary file and its empty datasets, with checksums over all of it (superblock version 3)."""
        temporary = self._stack.enter_context(replacing(self._path))
        file = self._stack.enter_context(h5py.File(temporary, "w", libver="v110", locking=False))
        for name in DATASETS:
            row = getattr(rows, name)[0]
            chunk = max(1, min(16, CHUNK_BYTES // row.nbytes))
            file.create_dataset(
                name,
                shape=(0, *row.shape),
                maxshape=(None, *row.shape),
                dtype=getattr(rows, name).dtype,
                chunks=(chunk, *row.shape),
                shuffle=True,  # after a ReLU most of a map is 0
                compression="gzip",
                compression_opts=1,
                fletcher32=True,
            )
        return file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._file is not None:
                write_index(self._file, list(self._digests), self._digests)
                write_attributes(
                    self._file,
                    {
                        **self._recipe.attributes(),
                        **asdict(self._provenance),
                        "time": datetime.now(UTC).isoformat(timespec="seconds"),
                        "fingerprint": self._recipe.fingerprint,
                        "maps_schema_version": MAPS_SCHEMA_VERSION,
                    },
                )
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)


def refuse_full_disk(path: Path, needed: int) -> None:
    """Refuse before the first byte: a file that HDF5 cannot close can crash the interpreter when it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise InputError(
            f"{path} needs {size(needed)}, but its disk has {size(free)} left. Make room or choose another folder with "
            f"--cache, and run again."
        )


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
