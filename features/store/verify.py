"""Read a whole cache again and name what is damaged."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.common.errors import InputError
from features.store.cache import FeatureCache
from features.store.cache_file import BLOCK_ROWS, CacheFile, DamagedFile


@dataclass(frozen=True)
class Finding:
    """What is wrong with one cache file.

    Attributes:
        damaged: whether it is not what was written; if not, it could not be looked at, and may be whole.
        reason: what was found, and where.
        remedy: the commands that make it whole; empty for a file that may be whole.
    """

    damaged: bool
    reason: str
    remedy: str


def verify(cache: FeatureCache) -> Iterator[tuple[Path, int, Finding | None]]:
    """Check every file: metadata, attributes, ids, the digests of all blocks, finiteness, fingerprint.

    Args:
        cache: the cache.

    Yields:
        Path, number of rows, and what was found first (None: the file is whole), file by file.
    """
    for split in cache.splits():
        for backbone in cache.backbones(split):
            path = cache.path(split, backbone)
            try:
                file = cache.open(split, backbone)
                _check(file)
                yield path, file.rows, None
            except DamagedFile as damage:
                remedy = f"rm {shlex.quote(str(path))} && {cache.remedy(backbone)}"
                yield path, 0, Finding(True, damage.reason, remedy)
            except InputError as error:
                yield path, 0, Finding(False, str(error).removeprefix(f"{path} "), "")


def _check(file: CacheFile) -> None:
    """Check one file.

    Raises:
        DamagedFile: the message names the first block that is damaged, and how many are.
    """
    if file.recipe.backbone != file.path.stem:
        raise DamagedFile(file.path, f"it holds features of {file.recipe.backbone}")
    first: DamagedFile | None = None
    damaged = 0
    for number in range(file.blocks):
        try:
            finite = np.isfinite(file.block(number)).all(axis=(1, 2))
        except DamagedFile as damage:
            first, damaged = first or damage, damaged + 1
            continue
        if not finite.all():
            image_id = file.image_ids[number * BLOCK_ROWS + int(np.argmin(finite))]
            raise DamagedFile(file.path, f"the features of image {image_id} are not finite")
    if first:
        raise DamagedFile(file.path, first.reason + (f"; so are {damaged - 1} other blocks" if damaged > 1 else ""))
