"""features.store.freshness: features of images that changed since are refused."""

import os
import time

import pytest

from features.common.errors import InputError
from features.store.cache import FeatureCache
from features.store.freshness import refuse_changed
from tests.features.store.caches import rows_of, write_rows


@pytest.fixture
def images(tmp_path):
    """Two images and the cache of their features; the files are older than the cache."""
    import hashlib

    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        path.write_bytes(path.name.encode())
        os.utime(path, (time.time() - 100, time.time() - 100))
    digests = {path.stem: hashlib.blake2b(path.read_bytes(), digest_size=16).digest() for path in paths}
    write_rows(tmp_path / "cache", rows_of(digests))
    return FeatureCache(tmp_path / "cache"), paths


def check(images):
    cache, paths = images
    split, backbone = cache.splits()[0], cache.backbones(cache.splits()[0])[0]
    refuse_changed(cache, split, [backbone], ["a", "b"], paths)


def test_old_files_are_not_read_again(images, monkeypatch):
    monkeypatch.setattr("features.store.freshness.digest_file", lambda path: pytest.fail(f"{path} was read"))
    check(images)


def test_a_new_file_of_the_same_bytes_passes_and_one_of_other_bytes_is_refused(images):
    _, paths = images
    later = time.time() + 100
    os.utime(paths[0], (later, later))
    check(images)
    paths[1].write_bytes(b"another image")
    os.utime(paths[1], (later, later))
    with pytest.raises(InputError, match=r"1 images of train have changed since .* \(first: b\). Run: scripts/extract"):
        check(images)
