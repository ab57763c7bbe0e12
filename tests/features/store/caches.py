"""Write small caches through the real `assemble`; every feature follows from the image's digest alone."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from features.store.assembly import assemble
from features.store.images_table import ImageFacts
from features.store.parts import PartStore, Rows
from features.store.recipe import Recipe

MADE_BY = {"device": "CPU", "engine": "numpy"}
RECIPE = Recipe("net", "imagenet", "ab" * 16, "pixel / 127.5 - 1", 224)
#: A blank, a slash, no ASCII, 300 characters, digits with leading zeros.
ODD_IDS = ("a 17", "sub/a17", "Kopf-Größe-脳", "long" * 75, "007", "7")


def digest_of_image(image_id: str, version: int = 0) -> bytes:
    """Give 16 bytes that stand for the digest of the image's file."""
    return hashlib.blake2b(f"{version}:{image_id}".encode(), digest_size=16).digest()


def digests_of(image_ids: Iterable[str], version: int = 0) -> dict[str, bytes]:
    """Give the digest of every image."""
    return {image_id: digest_of_image(image_id, version) for image_id in image_ids}


def row_of(digest: bytes, views: int = 1, width: int = 3) -> np.ndarray:
    """Give float32 (V, D), the features of the image with this digest."""
    return np.random.default_rng(list(digest)).normal(size=(views, width)).astype(np.float32)


def matrix_of(digests: Iterable[bytes], width: int = 3) -> np.ndarray:
    """Give float32 (N, D), the features of one view."""
    return np.stack([row_of(digest, 1, width)[0] for digest in digests])


def facts_of(image_id: str) -> ImageFacts:
    """Give facts that differ from image to image."""
    return ImageFacts(100 + len(image_id), 128, 1, 8, 0.1 + len(image_id) % 200, 1 / 3)


def rows_of(digests: Mapping[str, bytes], views: int = 1, width: int = 3, dtype: str = "float32") -> Rows:
    """Give the rows that stage 1 would compute of these images."""
    features = np.stack([row_of(digest, views, width) for digest in digests.values()]).astype(dtype)
    return Rows(tuple(digests), tuple(digests.values()), features, tuple(facts_of(image_id) for image_id in digests))


def part_store(cache: Path, split: str = "train", recipe: Recipe = RECIPE) -> PartStore:
    """Give the store of parts where stage 1 keeps it."""
    return PartStore(cache / split / f"{recipe.backbone}.parts" / recipe.fingerprint)


def write_rows(cache: Path, rows: Rows, split: str = "train", recipe: Recipe = RECIPE) -> Path:
    """Write one cache file that holds these rows; return its path."""
    parts = part_store(cache, split, recipe)
    parts.add(rows)
    path = cache / split / f"{recipe.backbone}.h5"
    assemble(
        path,
        recipe,
        MADE_BY,
        dict(zip(rows.image_ids, rows.digests, strict=True)),
        None,
        parts,
    )
    parts.remove()
    return path


def write_cache(
    cache: Path, image_ids: Iterable[str], split: str = "train", backbone: str = "net", width: int = 3
) -> Path:
    """Write one cache file of these images; return its path."""
    return write_rows(cache, rows_of(digests_of(image_ids), 1, width), split, replace(RECIPE, backbone=backbone))
