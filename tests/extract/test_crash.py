"""Whatever ends an extraction, the same command goes on from there and ends with the same bytes."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from features.store.cache import FeatureCache, verify_cache
from tests import ROOT
from tests.extract.stand_ins import backbone, run, write_images

IMAGES = 60


@pytest.fixture
def data(tmp_path):
    write_images(tmp_path / "data" / "train", IMAGES)
    write_images(tmp_path / "data" / "test", 9, seed=1)
    return tmp_path / "data"


def start(data, cache, seconds=0.02, part_rows=8):
    arguments = [sys.executable, "-m", "tests.extract.slow_extraction", data, cache, seconds, part_rows]
    process = subprocess.Popen(
        [str(argument) for argument in arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    return process


def test_kill_9_at_10_random_moments_changes_no_bit(data, tmp_path):
    run(data, tmp_path / "undisturbed", backbone("a"), backbone("b", 30))
    cache = tmp_path / "cache"
    moments = random.Random(0)
    killed = 0
    for _ in range(10):
        process = start(data, cache, seconds=0.12)
        time.sleep(moments.uniform(0.0, 0.3))  # an undisturbed run takes over 4 s from here
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed == 10  # it was indeed interrupted every time
    process = start(data, cache, seconds=0.0)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    whole = {path: (rows, damage) for path, rows, damage in verify_cache(FeatureCache(cache))}
    assert len(whole) == 4
    assert [damage for _, damage in whole.values()] == [None] * 4
    for split in ("train", "test"):
        for name in ("a", "b"):
            ids, features = FeatureCache(cache).read(split, [name])
            expected_ids, expected = FeatureCache(tmp_path / "undisturbed").read(split, [name])
            assert ids == expected_ids
            np.testing.assert_array_equal(features, expected)
        table = (cache / split / "images.csv").read_text()
        assert table == (tmp_path / "undisturbed" / split / "images.csv").read_text()
    leftovers = [path.name for path in cache.rglob("*") if path.name.endswith((".tmp", ".npz", ".parts"))]
    assert leftovers == []


def test_killed_runs_lose_only_what_was_in_flight(data, tmp_path):
    cache = tmp_path / "cache"
    process = start(data, cache, seconds=0.05, part_rows=4)
    while len(list(cache.rglob("*.npz"))) < 4:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    kept = sum(4 for path in cache.rglob("*.npz") if not path.name.startswith("."))
    process = start(data, cache, seconds=0.0)
    output, _ = process.communicate(timeout=60)
    assert kept >= 12
    assert int(output) == 2 * (IMAGES + 9) - kept


def test_a_second_extraction_on_the_same_cache_says_who_holds_it(data, tmp_path):
    cache = tmp_path / "cache"
    first = start(data, cache, seconds=0.2)
    while not (cache / "train" / "a.h5.lock").exists() or not (cache / "train" / "a.h5.lock").read_text():
        time.sleep(0.01)
    second = start(data, cache)
    _, errors = second.communicate(timeout=30)
    assert second.returncode != 0
    assert f"train/a.h5 is being worked on by process {first.pid} on " in errors
    assert first.poll() is None
    first.kill()
    first.communicate()


def test_sigterm_ends_cleanly_and_keeps_what_was_computed(data, tmp_path):
    cache = tmp_path / "cache"
    process = start(data, cache, seconds=0.05, part_rows=10_000)
    time.sleep(0.8)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    computed = int(output)
    assert 0 < computed < 2 * (IMAGES + 9)
    process = start(data, cache, seconds=0.0)
    output, _ = process.communicate(timeout=60)
    assert int(output) == 2 * (IMAGES + 9) - computed
