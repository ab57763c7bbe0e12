"""Read the feature cache: CACHE/{split}/{backbone}.h5 in, one matrix in the order of the ids asked for out."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from features.common.errors import InputError
from features.store.chunks import Selection, read_selections
from features.store.opening import naming, open_file, opening
from features.store.recipe import SCHEMA_VERSION, Recipe
from features.store.rejections import Rejection, read_rejections

_RENEW = "Remove the file and extract again."


@dataclass(frozen=True)
class CacheFile:
    """What a cache file says of itself, without its features.

    Attributes:
        path: the file.
        recipe: the settings that decide the values.
        fingerprint: digest of the recipe, as it stands in the file.
        rows: number of images N.
        views: number of views V.
        width: channels D.
        dtype: `float32` or `float16`.
        keras_version: version of Keras that computed the features.
        keras_backend: `tensorflow`, `jax` or `torch`.
        device: what computed them.
        time: when the file was assembled, ISO 8601 in UTC.
        seconds_per_image: mean seconds of the device for an image, compilation and decoding left out; None in files of
            older versions.
    """

    path: Path
    recipe: Recipe
    fingerprint: str
    rows: int
    views: int
    width: int
    dtype: str
    keras_version: str
    keras_backend: str
    device: str
    time: str
    seconds_per_image: float | None


class FeatureCache:
    """The features of one data set.

    Args:
        root: the cache's folder.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise InputError(f"{root} is not there: no features have been extracted. Run: {self._remedy()}")

    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have cache files, sorted."""
        return tuple(sorted({path.parent.name for path in self.root.glob("[!.]*/[!.]*.h5")}))

    def backbones(self, split: str) -> tuple[str, ...]:
        """Names of the backbones cached for a split, sorted."""
        return tuple(sorted(path.stem for path in (self.root / split).glob("[!.]*.h5")))

    def unfinished(self) -> tuple[str, ...]:
        """Where an extraction was stopped before its end: `{split}/{backbone}`, sorted. Its rows wait in parts."""
        folders = {path.parents[1] for path in self.root.glob("[!.]*/[!.]*.parts/*/[!.]*.npz")}
        return tuple(sorted(f"{folder.parent.name}/{folder.stem}" for folder in folders))

    def path(self, split: str, backbone: str) -> Path:
        """Where the features of a split and backbone are kept."""
        return self.root / split / f"{backbone}.h5"

    def describe(self, split: str, backbone: str) -> CacheFile:
        """Read what a cache file says of itself.

        Raises:
            InputError: the file is missing, damaged, or of another schema.
        """
        path = self._existing(split, backbone)
        with opening(path) as file:
            return _describe(path, file)

    def _existing(self, split: str, backbone: str) -> Path:
        """Where the features of a split and backbone are kept; they must be there."""
        path = self.path(split, backbone)
        if not path.exists():
            have = ", ".join(self.backbones(split)) or "none"
            raise InputError(f"{path} is not there (cached for {split}: {have}). Run: {self._remedy(backbone)}")
        return path

    def fingerprint(self, split: str, backbone: str) -> str:
        """The fingerprint that a cache file carries: 32 hexadecimal digits."""
        return self.describe(split, backbone).fingerprint

    def rejected(self, split: str) -> dict[str, Rejection]:
        """The images of a split that stage 1 could not read, by id."""
        return {r.image_id: r for r in read_rejections(self.root) if r.path.startswith(f"{split}/")}

    def read(
        self, split: str, backbones: Sequence[str], image_ids: Sequence[str] | None = None
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Read the features (first view) of one or more backbones, side by side, joined by image id.

        Args:
            split: name of the split.
            backbones: names of the backbones, at least one; their columns stand in this order.
            image_ids: rows wanted, in this order. Without them: all rows, in the order of the first backbone's
                file, and every backbone must have the same images.

        Returns:
            The image ids (N,), and the features: float32 (N, sum of D).

        Raises:
            InputError: a file is missing or damaged, lacks rows, holds NaN or infinity in one of them, or has another
                fingerprint than the same backbone in another split.
        """
        if not backbones:
            raise InputError(f"no backbone was named to read from {self.root}. Name at least one.")
        with ExitStack() as files:
            wanted, opened = self._open(files, split, backbones, None if image_ids is None else tuple(image_ids))
            ends = np.cumsum([description.width for _, description, _ in opened])
            features = np.empty((len(wanted), ends[-1]), np.float32)
            selections = [
                Selection(description.path, file, rows, features[:, end - description.width : end])
                for (file, description, rows), end in zip(opened, ends, strict=True)
            ]
            for selection, not_finite in zip(selections, read_selections(selections), strict=True):
                if len(not_finite):
                    raise InputError(
                        f"{selection.path}: the features of image {wanted[not_finite[0]]} are not finite "
                        f"({len(not_finite)} of {len(wanted)} images have such features). {_RENEW}"
                    )
        return wanted, features

    def _open(
        self, files: ExitStack, split: str, backbones: Sequence[str], wanted: tuple[str, ...] | None
    ) -> tuple[tuple[str, ...], list[tuple[h5py.File, CacheFile, np.ndarray]]]:
        """Open the files of some backbones, to be closed by `files`; find the rows of the ids wanted (None: all).

        Returns:
            The ids wanted (N,), and of each backbone the file, what it says of itself and its rows, int64 (N,).
        """
        complete = wanted is None
        opened = []
        known: np.ndarray | None = None
        for backbone in backbones:
            path = self._existing(split, backbone)
            with naming(path):
                # An extraction may put a new file in this one's place at any time: all is read from one open file.
                file = files.enter_context(open_file(path))
                description = _describe(path, file)
                self._refuse_other_fingerprint(split, backbone, description)
                stored = file["image_ids"][:]
                # Most often all files have the same ids, which are then decoded and located once.
                if known is None or description.rows != len(known) or not np.array_equal(stored, known):
                    ids = _decode_image_ids(stored, description.rows)
                    wanted = tuple(ids) if wanted is None else wanted
                    rows = self._locate(description, ids, wanted, backbone)
                    if complete and len(ids) > len(wanted):
                        raise InputError(
                            f"{path} has {len(ids)} images, but {self.path(split, backbones[0])} has {len(wanted)}. "
                            f"Run: {self._remedy(*backbones)}"
                        )
                    known = stored
            opened.append((file, description, rows))
        assert wanted is not None
        return wanted, opened

    def _locate(self, file: CacheFile, ids: Sequence[str], wanted: Sequence[str], backbone: str) -> np.ndarray:
        """Find the file's row of every id wanted: int64 (N,)."""
        if tuple(ids) == tuple(wanted):
            return np.arange(len(ids))
        row_of = {image_id: row for row, image_id in enumerate(ids)}
        lacking = [image_id for image_id in wanted if image_id not in row_of]
        if lacking:
            raise InputError(
                f"{file.path} lacks {len(lacking)} of {len(wanted)} images (first: {lacking[0]}). "
                f"Run: {self._remedy(backbone)}"
            )
        return np.array([row_of[image_id] for image_id in wanted], np.int64)

    def _refuse_other_fingerprint(self, split: str, backbone: str, file: CacheFile) -> None:
        """Features of two recipes must never meet in one model."""
        for other in self.splits():
            if other != split and self.path(other, backbone).exists():
                theirs = self.describe(other, backbone)
                if theirs.fingerprint != file.fingerprint:
                    raise InputError(
                        f"{file.path} and {theirs.path} were extracted differently "
                        f"({theirs.recipe.differences(file.recipe)}): fingerprints {file.fingerprint[:8]} and "
                        f"{theirs.fingerprint[:8]}. Run with one set of options for both: {self._remedy(backbone)}"
                    )

    def _remedy(self, *backbones: str) -> str:
        """The command that brings missing features."""
        return f"scripts/extract.sh DATA --backbones {','.join(backbones) or 'NAMES'} --cache {self.root}"


def read_string(text: bytes | str) -> str:
    """A string as h5py hands it out, decoded."""
    return text.decode() if isinstance(text, bytes) else text


def _describe(path: Path, file: h5py.File) -> CacheFile:
    """Read attributes and shape of an open cache file."""
    stored = ((name, file.attrs[name]) for name in file.attrs)
    attributes = {name: int(value) if isinstance(value, np.integer) else read_string(value) for name, value in stored}
    version = attributes.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(f"its schema is {version}, but this Headbank reads {SCHEMA_VERSION}. {_RENEW}")
    try:
        recipe = Recipe.from_attributes(attributes)
    except InputError as error:
        raise InputError(f"{error}. {_RENEW}") from None
    rows, views, width = _shape(file)
    provenance = {}
    for name in ("fingerprint", "keras_version", "keras_backend", "device", "time"):
        if name not in attributes:
            raise InputError(f"the attribute {name!r} is missing. {_RENEW}")
        provenance[name] = str(attributes[name])
    seconds = attributes.get("seconds_per_image")
    return CacheFile(
        path=path,
        recipe=recipe,
        rows=rows,
        views=views,
        width=width,
        dtype=str(file["features"].dtype),
        seconds_per_image=None if seconds is None else float(seconds),
        **provenance,
    )


def _shape(file: h5py.File) -> tuple[int, int, int]:
    """Read the shape (N, V, D) of an open cache file's features."""
    features = file["features"]
    if not isinstance(features, h5py.Dataset) or features.ndim != 3 or 0 in features.shape[1:]:
        shape = getattr(features, "shape", "of a group")
        raise InputError(f"features has shape {shape}, not (rows, views, channels). {_RENEW}")
    return features.shape


def read_index(path: Path) -> dict[str, bytes]:
    """Read a cache file's images: id -> BLAKE2b-128 of the file's bytes, in the order of the rows."""
    with opening(path) as file:
        digests = (digest.tobytes() for digest in file["image_digests"][:])
        return dict(zip(read_image_ids(file), digests, strict=True))


def read_image_ids(file: h5py.File) -> list[str]:
    """Read the image ids of an open cache file, in the order of its rows.

    Raises:
        InputError: they do not name every row once: features would go to the wrong images.
    """
    return _decode_image_ids(file["image_ids"][:], len(file["features"]))


def _decode_image_ids(stored: np.ndarray, rows: int) -> list[str]:
    """Decode the image ids as h5py reads them, which must name every row once."""
    if stored.dtype.kind not in "SO":
        raise InputError(f"image_ids holds {stored.dtype}, not text. {_RENEW}")
    # All in one go, which is ten times as fast as one by one; HDF5's strings end where a NUL is.
    image_ids = b"\0".join(stored.tolist()).decode().split("\0") if len(stored) else []
    different = set(image_ids)
    if not rows == len(image_ids) == len(different):
        raise InputError(
            f"it has {rows} rows, but {len(image_ids)} image ids, {len(different)} of them different. {_RENEW}"
        )
    if "" in different:
        raise InputError(f"row {image_ids.index('')} has a blank image id. {_RENEW}")
    return image_ids
