"""Assembling: predecessor and parts become one file, as a dictionary would have it."""

import io
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

import features.common.files
import features.store.assembly
import features.store.cache_file
from features.common.errors import InputError
from features.store.assembly import assemble
from features.store.cache import FeatureCache, verify_cache
from features.store.parts import PartStore
from tests import ROOT
from tests.features.store.caches import (
    MADE_BY,
    ODD_IDS,
    RECIPE,
    digest_of_image,
    digests_of,
    matrix_of,
    part_store,
    rows_of,
    write_cache,
    write_rows,
)

IMAGES = ("a", "ä", "b c", "d/e", "f", "g")
REJECTED = None  # an image that could not be read: its digest is b"", which no row has
Versions = dict[str, int]


def rows_strategy(min_size: int) -> st.SearchStrategy[Versions]:
    return st.dictionaries(st.sampled_from(IMAGES), st.integers(0, 1), min_size=min_size)


def digests(versions: Versions) -> dict[str, bytes]:
    return {
        image_id: b"" if version is REJECTED else digest_of_image(image_id, version)
        for image_id, version in versions.items()
    }


def model(previous: Versions, parts: list[Versions], wanted: Versions) -> Versions:
    """Say what the new file must hold, and in which order."""
    known = {(image_id, version) for rows in parts for image_id, version in rows.items()} | set(previous.items())
    foreign = {image_id: version for image_id, version in previous.items() if image_id not in wanted}
    return {i: version for i, version in wanted.items() if (i, version) in known} | foreign


@settings(max_examples=60, deadline=None)
@given(
    previous=rows_strategy(0),
    parts=st.lists(rows_strategy(1), max_size=3),
    wanted=st.permutations(IMAGES).flatmap(
        lambda order: st.lists(st.sampled_from([0, 1, REJECTED, "absent"]), min_size=6, max_size=6).map(
            lambda versions: {i: v for i, v in zip(order, versions, strict=True) if v != "absent"}
        )
    ),
    views=st.integers(1, 2),
    block=st.sampled_from([1, 2, 128]),
)
def test_the_new_file_equals_the_model(tmp_path_factory, previous, parts, wanted, views, block):
    cache = tmp_path_factory.mktemp("cache")
    recipe = replace(RECIPE, views=("identity", "flip")[:views])
    path = cache / "train" / "net.h5"
    described = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features.store.assembly, "BLOCK_ROWS", block)
        patch.setattr(features.store.cache_file, "BLOCK_ROWS", block)
        if previous:
            write_rows(cache, rows_of(digests(previous), views), recipe=recipe)
            described = FeatureCache(cache).open("train", "net")
        store = part_store(cache, recipe=recipe)
        for rows in parts:
            store.add(rows_of(digests(rows), views))
        expected = digests(model(previous, parts, wanted))
        assert assemble(path, recipe, MADE_BY, digests(wanted), described, store) == len(expected)
        assert path.exists() == bool(expected)
        if expected:
            assert list(FeatureCache(cache).open("train", "net").index.items()) == list(expected.items())
            with h5py.File(path) as file:
                np.testing.assert_array_equal(file["features"][:], rows_of(expected, views).features)
            assert [finding for *_, finding in verify_cache(FeatureCache(cache))] == [None]
    assert not list(cache.glob("*/.*.tmp"))


def test_the_layout_is_schema_2(tmp_path):
    path = write_cache(tmp_path, ODD_IDS)
    with h5py.File(path) as file:
        assert set(file) == {"features", "image_ids", "image_digests", "block_digests"}
        assert (file["features"].shape, file["features"].dtype.str) == ((6, 1, 3), "<f4")
        assert (file["image_digests"].shape, file["image_digests"].dtype) == ((6, 16), np.uint8)
        assert (file["block_digests"].shape, file["block_digests"].dtype) == ((1, 16), np.uint8)
        assert all(dataset.chunks is None for dataset in file.values())
        assert [text.decode() for text in file["image_ids"][:]] == list(ODD_IDS)
        assert set(file.attrs) == {
            *RECIPE.attributes(), "keras_version", "keras_backend", "device", "engine", "time", "fingerprint",
            "index_digest",
        }  # fmt: skip
        assert file.attrs["schema_version"] == 2
        assert file.attrs["fingerprint"].decode() == RECIPE.fingerprint


@pytest.mark.parametrize(
    ("before", "since", "expected"),
    [
        (
            0.5,
            0.3,
            (3 * 0.5 + 2 * 0.1) / 5,
        ),  # of 4 rows kept 1 is extracted anew; 1 of the 3 new ones has changed since
        (0.5, None, 0.5),
        (None, 0.3, 0.1),
        (None, None, None),
    ],
)
def test_the_seconds_of_an_image_are_the_mean_over_the_rows_of_which_they_are_known(tmp_path, before, since, expected):
    first = rows_of(digests_of("abcd"))
    path = write_rows(tmp_path, replace(first, seconds=None if before is None else 4 * before))
    previous = FeatureCache(tmp_path).open("train", "net")
    assert previous.seconds_per_image == before
    store = part_store(tmp_path)
    store.add(replace(rows_of(digests_of("aef", version=1)), seconds=since))
    wanted = {**digests_of("abcdef"), **digests_of("ae", version=1)}
    assert assemble(path, RECIPE, MADE_BY, wanted, previous, store) == 5
    described = FeatureCache(tmp_path).open("train", "net")
    assert described.seconds_per_image == (None if expected is None else pytest.approx(expected))
    assert described.fingerprint == previous.fingerprint
    with h5py.File(path) as file:
        assert ("seconds_per_image" in file.attrs) == (expected is not None)
    assert [damage for *_, damage in verify_cache(FeatureCache(tmp_path))] == [None]


def test_rows_of_two_shapes_are_refused(tmp_path):
    """Else those of the narrower part would stand in the places of others."""
    store = part_store(tmp_path)
    store.add(rows_of(digests_of("abc")))
    store.add(rows_of(digests_of("def"), width=2))
    with pytest.raises(InputError, match=r"holds rows of \(1, \d\) .* but others .* have \(1, \d\)\. Move the folder"):
        assemble(tmp_path / "x.h5", RECIPE, MADE_BY, digests_of("abcdef"), None, store)
    assert not (tmp_path / "x.h5").exists()


def test_attributes_of_any_text_are_read_back(tmp_path):
    recipe = replace(RECIPE, weights="", preprocessing="Größe / 脳" * 50, window="none")
    write_rows(tmp_path, rows_of(digests_of("ab")), recipe=recipe)
    assert FeatureCache(tmp_path).open("train", "net").recipe == recipe


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_digests_are_xxh3_of_128_rows_as_stored(tmp_path, dtype):
    """Of rows that came in three parts and in another order."""
    store = part_store(tmp_path)
    ids = [f"{number}" for number in range(300)]
    for piece in (ids[170:], ids[:20], ids[20:170]):
        store.add(rows_of(digests_of(piece), 2, 6, dtype))
    path = tmp_path / "train" / "net.h5"
    recipe = replace(RECIPE, views=("a", "b"), storage=dtype)
    assemble(path, recipe, MADE_BY, digests_of(ids), None, store)
    stored = rows_of(digests_of(ids), 2, 6, dtype).features
    with h5py.File(path) as file:
        assert [digest.tobytes() for digest in file["block_digests"][:]] == [
            xxhash.xxh3_128(stored[start : start + 128].tobytes()).digest() for start in (0, 128, 256)
        ]


def test_hdf5_never_writes_to_the_disk_and_never_holds_the_rows(tmp_path, monkeypatch):
    frames = []
    original = h5py.File

    def in_memory(file, *arguments, **options):
        if arguments[0] == "w":
            assert isinstance(file, io.BytesIO)
            frames.append(file)
        return original(file, *arguments, **options)

    monkeypatch.setattr(h5py, "File", in_memory)
    rows = rows_of(digests_of(f"{number}" for number in range(20)))
    write_rows(tmp_path, replace(rows, features=np.ones((20, 1, 500_000), np.float32)))  # 40 MB
    assert [len(frame.getbuffer()) < 20_000 for frame in frames] == [True]


def test_the_same_rows_give_the_same_bytes_of_features(tmp_path):
    ids = "abcdefgh"
    first = write_cache(tmp_path / "once", ids)
    store = part_store(tmp_path / "pieces")
    for piece in ("gh", "abc", "cdef"):
        store.add(rows_of(digests_of(piece)))
    second = tmp_path / "pieces" / "train" / "net.h5"
    assemble(second, RECIPE, MADE_BY, digests_of(ids), None, store)
    with h5py.File(first) as one, h5py.File(second) as other:
        assert one["features"][:].tobytes() == other["features"][:].tobytes()


def test_the_old_file_is_read_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = write_cache(tmp_path, "ab")
    before = path.read_bytes()
    store = part_store(tmp_path)
    store.add(rows_of(digests_of("cd")))

    def full(*_: object) -> None:
        assert path.read_bytes() == before
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    previous = FeatureCache(tmp_path).open("train", "net")
    with pytest.raises(InputError, match=r"net\.h5 cannot be written: No space left on device\. Make room"):
        assemble(path, RECIPE, MADE_BY, digests_of("abcd"), previous, store)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*/.*"))
    assert [part.image_ids for part in store] == [("c", "d")]


def test_a_disk_that_does_not_give_the_space_is_refused_before_the_first_byte(tmp_path, monkeypatch):
    path = write_cache(tmp_path, "ab")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    store = part_store(tmp_path)
    store.add(rows_of(digests_of("c")))
    refused = r"net\.h5 needs \d\.\d kB, which its disk does not give: No space left on device\. Make"
    with pytest.raises(InputError, match=refused):
        assemble(path, RECIPE, MADE_BY, digests_of("c"), None, store)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*/.*"))


LIMITED = """
import resource, sys
from pathlib import Path
from features.common.errors import InputError
from features.store.assembly import assemble
from tests.features.store.caches import MADE_BY, RECIPE, digests_of, part_store
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
cache = Path(sys.argv[1])
try:
    assemble(cache / "train" / "net.h5", RECIPE, MADE_BY, digests_of("abcdef"), None, part_store(cache))
except InputError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("limit", [0, 1000, 1 << 20, (3 << 20) - 1])
def test_a_quota_that_fills_ends_with_a_message_and_the_next_run_finishes(tmp_path, limit):
    """HDF5 1.14 crashes the interpreter when it meets one; `shutil.disk_usage` does not see it."""
    store = part_store(tmp_path)
    for piece in ("abc", "def"):  # 1.5 MB each
        rows = rows_of(digests_of(piece))
        store.add(replace(rows, features=np.ones((3, 1, 131072), np.float32)))
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    refused = subprocess.run([*command, str(limit)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "net.h5 needs 3.2 MB, which its disk does not give: File too large. Make room on its disk" in refused.stderr
    assert not list(tmp_path.glob("*/.*"))
    assert not (tmp_path / "train" / "net.h5").exists()
    subprocess.run([*command, str(1 << 30)], cwd=ROOT, check=True)
    assert [rows for _, rows, _ in verify_cache(FeatureCache(tmp_path))] == [6]


def test_a_damaged_predecessor_stops_it_and_stays(tmp_path):
    path = write_cache(tmp_path, "abcdef", width=64)
    previous = FeatureCache(tmp_path).open("train", "net")
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(rows_of(digests_of("a"), 1, 64).features.tobytes()) + 5] ^= 1
    path.write_bytes(damaged)
    store = part_store(tmp_path)
    store.add(rows_of(digests_of("g"), 1, 64))
    with pytest.raises(InputError, match=r"net\.h5 is damaged .*python -m features verify"):
        assemble(path, RECIPE, MADE_BY, digests_of("abcdefg"), previous, store)
    assert path.read_bytes() == damaged
    assert not list(tmp_path.glob("*/.*"))


def test_rows_that_vanish_between_the_passes_stop_it(tmp_path, monkeypatch):
    path = write_cache(tmp_path, "ab")
    store = part_store(tmp_path)
    store.add(rows_of(digests_of("cd")))
    passes = iter([list(store), []])
    monkeypatch.setattr(PartStore, "__iter__", lambda _: iter(next(passes)))
    previous = FeatureCache(tmp_path).open("train", "net")
    with pytest.raises(InputError, match=r"net\.h5: 2 rows vanished .*\(first: c\)"):
        assemble(path, RECIPE, MADE_BY, digests_of("abcd"), previous, store)
    assert list(FeatureCache(tmp_path).open("train", "net").image_ids) == ["a", "b"]


KILLED = """
import os, signal, sys
from pathlib import Path
import features.store.assembly
from tests.features.store.caches import MADE_BY, RECIPE, digests_of, part_store
def kill(content):  # the rows are written, their digests are not
    os.kill(os.getpid(), signal.SIGKILL)
features.store.assembly.xxh3_128_digest = kill
cache = Path(sys.argv[1])
features.store.assembly.assemble(
    cache / "train" / "net.h5", RECIPE, MADE_BY, digests_of("cd"), None, part_store(cache)
)
"""


def test_kill_9_while_writing_leaves_the_old_file_and_the_next_run_ends_it(tmp_path):
    path = write_cache(tmp_path, "ab")
    before = path.read_bytes()
    store = part_store(tmp_path)
    store.add(rows_of(digests_of("cd")))
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    assert FeatureCache(tmp_path).backbones("train") == ("net",)
    previous = FeatureCache(tmp_path).open("train", "net")
    features.common.files._remove_abandoned.cache_clear()  # as in another process
    assert assemble(path, RECIPE, MADE_BY, digests_of("abcd"), previous, store) == 4
    np.testing.assert_array_equal(
        FeatureCache(tmp_path).read("train", ["net"])[1], matrix_of(digests_of("abcd").values())
    )
    assert not list(tmp_path.glob("*/.*"))
