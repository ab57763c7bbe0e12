"""Keep the last feature maps of some images: CACHE/{split}/{backbone}.maps.h5, to show where a model looks.

One file holds, row by row: `image_ids`, `image_digests` as in the cache of features, `maps` (float16), `thumbnails`
(uint8) and `sizes`; the attributes are those of the features and `maps_schema_version`. The mean of a map over its
positions is the image's pooled feature.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from features.common.errors import InputError
from features.store.cache import MAPS_SUFFIX, FeatureCache
from features.store.recipe import Recipe

#: A chunk is what a checksum covers and what one read brings.
CHUNK_BYTES = 1 << 20
#: Version of the file's layout; the fingerprint is that of the features and leaves it out.
MAPS_SCHEMA_VERSION = 1
#: Height and width of a thumbnail's canvas, in pixels.
THUMBNAIL = 256
#: Datasets with a row per image, beside ids and digests.
DATASETS = ("maps", "thumbnails", "sizes")
_TYPES = {"maps": "float16", "thumbnails": "uint8", "sizes": "int32", "image_digests": "uint8"}
#: What to do about a file that is no good.
RENEW = "Remove the file and run python -m extract maps again."


@dataclass(frozen=True)
class MapRows:
    """Some images of one backbone.

    Attributes:
        image_ids: ids, one a row.
        digests: BLAKE2b-128 of each file's bytes, 16 bytes a row.
        maps: float16 (n, h, w, C), finite.
        thumbnails: uint8 (n, THUMBNAIL, THUMBNAIL, 3), RGB: the image in the upper left corner, as large as
            `thumbnail_shape` says, and 0 beyond it.
        sizes: int32 (n, 2), height and width of the image in pixels.
    """

    image_ids: tuple[str, ...]
    digests: tuple[bytes, ...]
    maps: np.ndarray
    thumbnails: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True)
class MapsFile:
    """What a file of maps says of itself.

    Attributes:
        path: the file.
        recipe: how its features were extracted.
        fingerprint: of the recipe, as it stands in the file.
        shape: h, w and C of a map.
        digests: image id -> BLAKE2b-128 of the file's bytes, in the order of the rows.
    """

    path: Path
    recipe: Recipe
    fingerprint: str
    shape: tuple[int, int, int]
    digests: Mapping[str, bytes]


def maps_path(cache: Path, split: str, backbone: str) -> Path:
    """Say where the maps of a split and backbone are kept."""
    return cache / split / f"{backbone}{MAPS_SUFFIX}"


def maps_files(cache: Path) -> list[Path]:
    """List the files of maps of a cache, sorted."""
    return sorted(cache.glob(f"[!.]*/[!.]*{MAPS_SUFFIX}"))


def thumbnail_shape(height: int, width: int) -> tuple[int, int]:
    """Say how large an image is on its thumbnail: as it is, or shrunk until its longer side is THUMBNAIL.

    Args:
        height: of the image, in pixels; at least 1.
        width: of the image, in pixels; at least 1.

    Returns:
        Height and width in pixels, 1 to THUMBNAIL, of the image's aspect.
    """
    scale = min(1.0, THUMBNAIL / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def describe_maps(path: Path) -> MapsFile:
    """Read what a file of maps says of itself.

    Raises:
        InputError: it is missing, damaged, or of another schema.
    """
    if not path.exists():
        raise InputError(
            f"{path} is not there: no maps were extracted. Run: python -m extract maps DATA --cache {path.parents[1]}"
        )
    with opening(path) as file:
        attributes = {
            name: int(value) if isinstance(value, np.integer) else read_string(value)
            for name, value in file.attrs.items()
        }
        version = attributes.get("maps_schema_version")
        if version != MAPS_SCHEMA_VERSION:
            raise InputError(f"its schema of maps is {version}, but this Headbank reads {MAPS_SCHEMA_VERSION}. {RENEW}")
        recipe = Recipe.from_attributes(attributes)
        if recipe.fingerprint != attributes.get("fingerprint"):
            raise InputError(
                f"its attributes make the fingerprint {recipe.fingerprint}, but it carries another. {RENEW}"
            )
        ids = [read_string(image_id) for image_id in file["image_ids"][:]]
        digests = [digest.tobytes() for digest in file["image_digests"][:]]
        shape = _check_datasets(file, ids)
        return MapsFile(path, recipe, recipe.fingerprint, shape, dict(zip(ids, digests, strict=True)))


def _check_datasets(file: h5py.File, ids: Sequence[str]) -> tuple[int, int, int]:
    """Refuse datasets of other types or shapes than those of the schema; give h, w and C of a map."""
    if file["image_ids"].dtype.kind not in "SO":
        raise InputError(f"image_ids holds {file['image_ids'].dtype}, not text. {RENEW}")
    types = {name: str(file[name].dtype) for name in _TYPES}
    if types != _TYPES:
        name = next(name for name in _TYPES if types[name] != _TYPES[name])
        raise InputError(f"{name} holds {types[name]}, not {_TYPES[name]}. {RENEW}")
    shapes = {name: file[name].shape for name in _TYPES}
    rows, maps = len(ids), shapes["maps"]
    expected = {
        "maps": (rows, *maps[1:]),
        "thumbnails": (rows, THUMBNAIL, THUMBNAIL, 3),
        "sizes": (rows, 2),
        "image_digests": (rows, 16),
    }
    if len(maps) != 4 or 0 in maps[1:] or shapes != expected or len(set(ids)) != rows or "" in ids:
        raise InputError(f"its datasets do not fit together ({shapes}, {rows} image ids). {RENEW}")
    return int(maps[1]), int(maps[2]), int(maps[3])


def check_width(file: MapsFile, width: int) -> None:
    """Refuse maps of more or fewer channels than their backbone has features.

    Raises:
        InputError: the message says how many of each.
    """
    if file.shape[2] != width:
        raise InputError(f"{file.path}: its maps have {file.shape[2]} channels, but the features {width}. {RENEW}")


def read_maps(file: MapsFile, image_ids: Sequence[str]) -> np.ndarray:
    """Read the maps of some images: float16 (n, h, w, C); see `read_blocks` for arguments and errors."""
    return _read(file, image_ids, "maps")[0]


def read_thumbnails(file: MapsFile, image_ids: Sequence[str]) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """Read what some images look like.

    Args:
        file: what `describe_maps` returned.
        image_ids: ids wanted, in this order; all of them are in the file.

    Returns:
        Of each image the thumbnail, uint8 RGB of the shape that `thumbnail_shape` gives, and its own height and width.

    Raises:
        InputError: the file is damaged, or was replaced meanwhile.
    """
    pictures = []
    for canvas, (height, width) in zip(*_read(file, image_ids, "thumbnails", "sizes"), strict=True):
        if min(height, width) < 1:
            raise InputError(f"{file.path}: an image is {height} pixels high and {width} wide. {RENEW}")
        rows, columns = thumbnail_shape(int(height), int(width))
        pictures.append((canvas[:rows, :columns], (int(height), int(width))))
    return pictures


def read_blocks(file: MapsFile, image_ids: Sequence[str]) -> Iterator[MapRows]:
    """Read all of some images, at most some 16 MiB of maps at a time.

    Args:
        file: what `describe_maps` returned.
        image_ids: ids wanted, in this order; all of them are in the file.

    Raises:
        InputError: the file is damaged, was replaced meanwhile, or holds a map with NaN or infinity.
    """
    step = max(1, 16 * CHUNK_BYTES // (2 * int(np.prod(file.shape))))
    for start in range(0, len(image_ids), step):
        block = tuple(image_ids[start : start + step])
        yield MapRows(block, tuple(file.digests[i] for i in block), *_read(file, block, *DATASETS))


def _read(file: MapsFile, image_ids: Sequence[str], *names: str) -> list[np.ndarray]:
    """Read some images' rows of some datasets.

    Raises:
        InputError: the file is damaged, was replaced meanwhile, or holds a map with NaN or infinity.
    """
    place = {image_id: row for row, image_id in enumerate(file.digests)}
    rows = np.array([place[image_id] for image_id in image_ids], np.int64)
    order = np.argsort(rows, kind="stable")  # HDF5 takes rows in ascending order only
    back = np.argsort(order, kind="stable")
    with opening(file.path) as opened:
        if [read_string(image_id) for image_id in opened["image_ids"][:]] != list(file.digests):
            raise InputError("it was replaced while it was read. Run the same command again.")
        read = {name: opened[name][rows[order]][back] for name in names}
        if "maps" in read and not (finite := np.isfinite(read["maps"]).all(axis=(1, 2, 3))).all():
            raise InputError(f"the map of {image_ids[int(np.argmin(finite))]} is not finite. {RENEW}")
        return list(read.values())


def check_maps(path: Path) -> int:
    """Read every chunk of a file of maps again, and compare it with the features beside it.

    Returns:
        Number of its rows.

    Raises:
        InputError: the first damage found.
    """
    file = describe_maps(path)
    backbone = path.name.removesuffix(MAPS_SUFFIX)
    if file.recipe.backbone != backbone:
        raise InputError(f"it holds maps of {file.recipe.backbone}")
    width = file.shape[2]
    with suppress(InputError):  # features that are missing or damaged are no fault of the maps
        width = FeatureCache(path.parents[1]).open(path.parent.name, backbone).width
    check_width(file, width)
    for rows in read_blocks(file, list(file.digests)):
        if (rows.sizes < 1).any():
            raise InputError(f"a size of the images {rows.image_ids[0]} to {rows.image_ids[-1]} is none")
    return len(file.digests)


@contextmanager
def opening(path: Path) -> Iterator[h5py.File]:
    """Open a file of maps for reading.

    Raises:
        InputError: it is damaged, or what is done with it raises an error that does not name it.
    """
    try:
        with h5py.File(path, "r", rdcc_nbytes=0, locking=False) as file:
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
