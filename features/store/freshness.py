"""Refuse features of images that have changed since they were extracted."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from features.common.errors import InputError
from features.common.files import digest_file
from features.store.cache import FeatureCache, read_index


def refuse_changed(
    cache: FeatureCache, split: str, backbones: Sequence[str], image_ids: Sequence[str], paths: Sequence[Path]
) -> None:
    """Compare the image files with the digests in the cache.

    Only files that were written after the cache file are read again, so that thousands of images cost milliseconds.
    A file that was moved over another one and kept its old time passes unseen; the next extraction finds it.

    Args:
        cache: the cache.
        split: name of the split.
        backbones: names of the backbones in use.
        image_ids: ids of the images.
        paths: their files.

    Raises:
        InputError: the bytes of an image are others than those that were extracted.
    """
    written = [path.stat().st_mtime for path in paths]
    for backbone in backbones:
        extracted = _moment(cache.describe(split, backbone).time)
        suspects = [index for index, moment in enumerate(written) if moment > extracted]
        if not suspects:
            continue
        known = read_index(cache.path(split, backbone))
        changed = [
            image_ids[index]
            for index in suspects
            if image_ids[index] in known and known[image_ids[index]] != digest_file(paths[index])
        ]
        if changed:
            raise InputError(
                f"{len(changed)} images of {split} have changed since {cache.path(split, backbone)} was extracted "
                f"(first: {changed[0]}). Run: scripts/extract.sh DATA --backbones {backbone} --cache {cache.root}"
            )


def _moment(text: str) -> float:
    """An ISO 8601 moment as seconds since 1970; 0, so that every file counts as newer, where it is no such moment."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
