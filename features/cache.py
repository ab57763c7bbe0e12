"""Read the feature cache: CACHE/{split}/{backbone}.h5 in, one matrix in the order of the ids asked for out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from features.disk import replacing
from features.errors import InputError
from features.recipe import SCHEMA_VERSION, Recipe
from features.rejections import Rejection, read_rejections

#: Features are read and written this many bytes at a time, so that memory does not grow with the data set.
BLOCK_BYTES = 16 << 20
#: How the name of a file of feature maps ends (`features.maps`); they lie beside the features and are none.
MAPS_SUFFIX = ".maps.h5"
_RENEW = "Remove the file and extract again."


#: In a default cache: the path of the data set that it belongs to.
_OWNER = "dataset.txt"


def default_cache(root: Path) -> Path:
    """The cache's folder of a data set for which none was named: features/cache/{name of DATA}.

    Raises:
        InputError: the folder belongs to another data set of the same name.
    """
    cache = Path(__file__).parent / "cache" / root.resolve().name
    owner = cache / _OWNER
    if owner.exists() and owner.read_text(encoding="utf-8") != str(root.resolve()):
        raise InputError(
            f"{cache} holds the features of {owner.read_text(encoding='utf-8')}, not of {root.resolve()}. "
            f"Name another folder with --cache. If the data set has moved, remove {owner} and run again."
        )
    return cache


def claim_default_cache(root: Path) -> Path:
    """Make the default cache of a data set and note whose it is.

    Raises:
        InputError: the folder belongs to another data set of the same name, or cannot be written.
    """
    cache = default_cache(root)
    with replacing(cache / _OWNER) as temporary:
        temporary.write_text(str(root.resolve()), encoding="utf-8")
    return cache


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
        return tuple(sorted({path.parent.name for path in self.root.glob("[!.]*/[!.]*.h5") if _is_features(path)}))

    def backbones(self, split: str) -> tuple[str, ...]:
        """Names of the backbones cached for a split, sorted."""
        return tuple(sorted(path.stem for path in (self.root / split).glob("[!.]*.h5") if _is_features(path)))

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
        with self._opening(split, backbone) as (_, description):
            return description

    @contextmanager
    def _opening(self, split: str, backbone: str) -> Iterator[tuple[h5py.File, CacheFile]]:
        """Open a cache file and read what it says of itself."""
        path = self.path(split, backbone)
        if not path.exists():
            have = ", ".join(self.backbones(split)) or "none"
            raise InputError(f"{path} is not there (cached for {split}: {have}). Run: {self._remedy(backbone)}")
        with opening(path) as file:
            yield file, _describe(path, file)

    def fingerprint(self, split: str, backbone: str) -> str:
        """The fingerprint that a cache file carries: 32 hexadecimal digits."""
        return self.describe(split, backbone).fingerprint

    def rejected(self) -> list[Rejection]:
        """The images that stage 1 could not read."""
        return read_rejections(self.root)

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
            InputError: a file is missing or damaged, lacks rows, or has another fingerprint than the same backbone
                in another split.
        """
        if not backbones:
            raise InputError(f"no backbone was named to read from {self.root}. Name at least one.")
        wanted = None if image_ids is None else tuple(image_ids)
        ends = np.cumsum([self.describe(split, backbone).width for backbone in backbones])
        features = np.empty((0, ends[-1]), np.float32)
        for backbone, end in zip(backbones, ends, strict=True):
            # An extraction may put a new file in this one's place at any time: all is read from one open file.
            with self._opening(split, backbone) as (file, description):
                self._refuse_other_fingerprint(split, backbone, description)
                stored = read_image_ids(file)
                wanted = tuple(stored) if wanted is None else wanted
                features = features if len(features) else np.empty((len(wanted), ends[-1]), np.float32)
                rows = self._locate(description, stored, wanted, backbone)
                if image_ids is None and len(stored) > len(wanted):
                    raise InputError(
                        f"{description.path} has {len(stored)} images, but {self.path(split, backbones[0])} has "
                        f"{len(wanted)}. Run: {self._remedy(*backbones)}"
                    )
                _read_rows(file["features"], rows, features[:, end - description.width : end])
        assert wanted is not None
        return wanted, features

    def _locate(self, file: CacheFile, ids: Sequence[str], wanted: Sequence[str], backbone: str) -> np.ndarray:
        """Find the file's row of every id wanted: int64 (N,)."""
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


def _is_features(path: Path) -> bool:
    """Whether a file of a cache's folder holds features, not maps."""
    return not path.name.endswith(MAPS_SUFFIX)


@contextmanager
def opening(path: Path) -> Iterator[h5py.File]:
    """Open a cache file for reading; what h5py reports of damage becomes an InputError naming the file."""
    try:
        with h5py.File(path, "r", rdcc_nbytes=0) as file:
            yield file
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} is damaged ({reason}). Run: python -m features verify {path.parent.parent}"
        ) from error


def read_string(text: bytes | str) -> str:
    """A string as h5py hands it out, decoded."""
    return text.decode() if isinstance(text, bytes) else text


def _describe(path: Path, file: h5py.File) -> CacheFile:
    """Read attributes and shape of an open cache file."""
    attributes = {
        name: int(value) if isinstance(value, np.integer) else read_string(value) for name, value in file.attrs.items()
    }
    version = attributes.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(f"its schema is {version}, but this Headbank reads {SCHEMA_VERSION}. {_RENEW}")
    try:
        recipe = Recipe.from_attributes(attributes)
    except InputError as error:
        raise InputError(f"{error}. {_RENEW}") from None
    features = file["features"]
    if not isinstance(features, h5py.Dataset) or features.ndim != 3:
        shape = getattr(features, "shape", "of a group")
        raise InputError(f"features has shape {shape}, not (rows, views, channels). {_RENEW}")
    rows, views, width = features.shape
    provenance = {}
    for name in ("fingerprint", "keras_version", "keras_backend", "device", "time"):
        if name not in attributes:
            raise InputError(f"the attribute {name!r} is missing. {_RENEW}")
        provenance[name] = str(attributes[name])
    return CacheFile(
        path=path, recipe=recipe, rows=rows, views=views, width=width, dtype=str(features.dtype), **provenance
    )


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
    stored = file["image_ids"][:]
    if stored.dtype.kind not in "SO":
        raise InputError(f"image_ids holds {stored.dtype}, not text. {_RENEW}")
    image_ids = [read_string(image_id) for image_id in stored]
    rows, different = len(file["features"]), len(set(image_ids))
    if not rows == len(image_ids) == different:
        raise InputError(f"it has {rows} rows, but {len(image_ids)} image ids, {different} of them different. {_RENEW}")
    if "" in image_ids:
        raise InputError(f"row {image_ids.index('')} has a blank image id. {_RENEW}")
    return image_ids


def _read_rows(features: h5py.Dataset, rows: np.ndarray, out: np.ndarray) -> None:
    """Read the first view of some rows, chunk by chunk in the order of the file: a chunk stays in the CPU's cache.

    Args:
        features: float32 or float16 (M, V, D).
        rows: int64 (N,), rows of it.
        out: float32 (N, D), filled in.
    """
    block = features.chunks[0] if features.chunks else max(1, BLOCK_BYTES // (4 * out.shape[1]))
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    for start in range(0, len(features), block):
        first, last = np.searchsorted(ordered, (start, start + block))
        if first < last:
            chunk = features[start : start + block, 0]
            sources, targets = ordered[first:last] - start, order[first:last]
            if np.all(np.diff(sources) == 1) and np.all(np.diff(targets) == 1):
                out[targets[0] : targets[0] + len(targets)] = chunk[sources[0] : sources[0] + len(sources)]
            else:
                out[targets] = chunk[sources]
