"""Read a whole cache again and name what is damaged."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.common.errors import InputError
from features.store.cache import CacheFile, FeatureCache, read_image_ids
from features.store.chunks import DIGESTS, are_digests, digest
from features.store.opening import opening


@dataclass(frozen=True)
class Damage:
    """What is wrong with one cache file.

    Attributes:
        path: the file.
        reason: what was found, and where.
        remedy: the commands that make it whole.
    """

    path: Path
    reason: str
    remedy: str


def verify(cache: FeatureCache) -> Iterator[tuple[Path, int, Damage | None]]:
    """Check every file of features: metadata, checksums, digests, ids, shapes, finiteness, fingerprint.

    A file that was changed through HDF5 has checksums that fit, but the digests that `assemble` wrote tell of it.

    Args:
        cache: the cache.

    Yields:
        Path, number of rows, and the first damage found (None: the file is whole), file by file.
    """
    for split in cache.splits():
        for backbone in cache.backbones(split):
            path = cache.path(split, backbone)
            try:
                rows = _check(cache.describe(split, backbone))
                yield path, rows, None
            except InputError as error:
                reason = _reason(path, error)
                remedy = f"rm {path} && scripts/extract.sh DATA --backbones {backbone} --cache {cache.root}"
                yield path, 0, Damage(path, reason, remedy)


def _reason(path: Path, error: InputError) -> str:
    """Cut what was found out of a message that also names the file and the remedy."""
    reason = str(error).removeprefix(f"{path}: ").split(". Run: python -m features verify")[0]
    reason = reason.split(". Remove the file")[0]
    inner = reason.removeprefix(f"{path} is damaged (")
    return reason if inner == reason else inner.removesuffix(")")


def _check(description: CacheFile) -> int:
    """Check one file.

    Returns:
        Number of its rows.

    Raises:
        InputError: the first damage found.
    """
    if description.recipe.fingerprint != description.fingerprint:
        raise InputError(
            f"its attributes make the fingerprint {description.recipe.fingerprint}, "
            f"but the one it carries is {description.fingerprint}"
        )
    if description.recipe.backbone != description.path.stem:
        raise InputError(f"it holds features of {description.recipe.backbone}")
    rows = description.rows
    with opening(description.path) as file:
        ids = read_image_ids(file)
        digests = file["image_digests"][:]
        if digests.shape != (rows, 16) or digests.dtype != np.uint8:
            raise InputError(
                f"image_digests has shape {digests.shape} and dtype {digests.dtype}, not ({rows}, 16) uint8"
            )
        features = file["features"]
        if features.dtype not in (np.float32, np.float16) or len(description.recipe.views) != description.views:
            raise InputError(f"features has shape {features.shape} and dtype {features.dtype}")
        if not features.fletcher32:
            raise InputError("features has no checksums")
        chunk_digests = file.get(DIGESTS)  # older files have none
        if chunk_digests is not None:
            if not are_digests(chunk_digests, features):
                raise InputError(f"{DIGESTS} has shape {chunk_digests.shape} and dtype {chunk_digests.dtype}")
            chunk_digests = chunk_digests[:]
        step = features.chunks[0]
        for start in range(0, rows, step):
            last = min(start + step, rows) - 1
            where = f"rows {start} to {last} (images {ids[start]} to {ids[last]})"
            try:
                block = features[start : start + step]
            except OSError:
                raise InputError(f"the checksum fails for {where}") from None
            finite = np.isfinite(block).all(axis=(1, 2))
            if not finite.all():
                raise InputError(f"the features of image {ids[start + int(np.argmin(finite))]} are not finite")
            if chunk_digests is not None and digest(block) != chunk_digests[start // step].tobytes():
                raise InputError(f"the digest differs for {where}: one of the two was changed after the extraction")
    return rows
