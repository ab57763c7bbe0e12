"""Parts: each whole or absent, whatever happens to its file."""

import errno
import io
import logging
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.common.errors import InputError
from features.common.files import DIGEST_BYTES, digest
from features.store.parts import PartStore, Rows
from tests.features.store.caches import ODD_IDS, digests_of, part_store, rows_of


def assert_equal(one: Rows, other: Rows) -> None:
    assert (one.image_ids, one.digests, one.facts, one.seconds, one.device, one.engine) == (
        *(other.image_ids, other.digests, other.facts, other.seconds, other.device, other.engine),
    )
    assert one.features.dtype == other.features.dtype
    np.testing.assert_array_equal(one.features, other.features)


@pytest.fixture
def written(tmp_path):
    """A store with one part, the part's file, and its rows."""
    store = part_store(tmp_path)
    rows = rows_of(digests_of("abcd"), views=2)
    store.add(rows)
    (path,) = store.folder.iterdir()
    return store, path, rows


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_part_is_read_back_equal(tmp_path, dtype):
    store = part_store(tmp_path)
    rows = replace(rows_of(digests_of(ODD_IDS), 2, 5, dtype), device="Tésla", engine="numpy")
    store.add(rows)
    (read,) = store
    assert_equal(read, rows)


def test_a_store_without_folder_has_no_parts(tmp_path):
    assert list(part_store(tmp_path)) == []


def test_writing_a_part_twice_is_harmless(written):
    store, path, rows = written
    store.add(rows)
    assert list(store.folder.iterdir()) == [path]
    assert len(list(store)) == 1


def test_an_owner_reads_its_own_parts_alone(written):
    store, _, rows = written
    owned = rows_of(digests_of("ef"))
    PartStore(store.folder, "1-of-4.").add(owned)
    assert [part.image_ids for part in PartStore(store.folder, "1-of-4.")] == [owned.image_ids]
    assert list(PartStore(store.folder, "11-of-4.")) == []
    assert {part.image_ids for part in store} == {owned.image_ids, rows.image_ids}


def test_parts_of_other_images_or_other_bytes_stand_beside(written):
    store, _, _ = written
    store.add(rows_of(digests_of("abcd", version=1)))
    store.add(rows_of(digests_of("ef")))
    assert len({part.digests for part in store}) == 3
    assert sorted("".join(part.image_ids) for part in store) == ["abcd", "abcd", "ef"]


def test_every_flipped_byte_drops_the_part_with_a_warning(written, caplog):
    store, path, rows = written
    whole = path.read_bytes()
    generator = random.Random(0)
    # The array's header is where a zip's own checksum is blind: '<f4' -> '<f2' reads half of the bytes.
    header = whole.index(b"'<f4'") + 3
    for position in {*generator.sample(range(len(whole)), 150), header, 0, len(whole) - 1}:
        damaged = bytearray(whole)
        damaged[position] ^= 6 if position == header else generator.randrange(1, 256)
        path.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert list(store) == []
        assert caplog.messages == [
            f"{path} is damaged (its checksum fails): it is removed, and its rows will be extracted again"
        ]
        assert not path.exists()
    path.write_bytes(whole)
    assert_equal(next(iter(store)), rows)


@pytest.mark.parametrize(
    "change",
    [
        {"features": np.zeros((3, 1, 5), np.float32)},
        {"features": np.zeros((4, 5), np.float32)},
        {"features": np.zeros((4, 1, 5), "U4")},
        {"features": np.array([os.system] * 4, object)},
        {"digests": np.zeros((1, 16), np.uint8)},
        {"facts": np.zeros((3, 6))},
        {},
    ],
)
def test_a_part_whose_arrays_do_not_fit_is_dropped_though_its_checksum_is_right(written, caplog, change):
    store, path, _ = written
    with np.load(io.BytesIO(path.read_bytes()[:-DIGEST_BYTES])) as part:
        arrays = {name: part[name] for name in part.files}
    archive = io.BytesIO(b"" if change else b"PK\3\4 no archive")
    if change:
        np.savez(archive, **arrays | change)
    path.write_bytes(archive.getvalue() + digest(archive.getvalue()))
    with caplog.at_level(logging.WARNING):
        assert list(store) == []
    assert "its rows will be extracted again" in caplog.text
    assert not path.exists()


@pytest.mark.parametrize("kept", [0, 1, 16, 17, 200, -1])
def test_a_truncated_part_is_dropped_and_the_others_are_read(written, caplog, kept):
    store, path, _ = written
    store.add(rows_of(digests_of("xyz")))
    path.write_bytes(path.read_bytes()[:kept])
    with caplog.at_level(logging.WARNING):
        assert [part.image_ids for part in store] == [("x", "y", "z")]
    assert len(caplog.messages) == 1
    assert not path.exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.EAGAIN])
def test_a_part_that_the_system_does_not_give_is_kept_and_named_with_the_cause(written, monkeypatch, number):
    store, path, _ = written

    def refuse(_: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=rf"^{path} cannot be read: {os.strerror(number)}\. .* may be whole\.$"):
        list(store)
    assert path.exists()


def test_half_written_files_of_a_killed_run_are_passed_over(written):
    store, path, _ = written
    (store.folder / f".{path.name}.tmp").write_bytes(b"half")
    assert len(list(store)) == 1


def test_a_full_disk_is_bad_input_and_leaves_no_half_part(written, monkeypatch):
    store, path, _ = written

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        store.add(rows_of(digests_of("xyz")))
    assert list(store.folder.iterdir()) == [path]


def test_removing_takes_the_parts_of_all_fingerprints(written):
    store, _, rows = written
    PartStore(store.folder.parent / "older").add(rows)
    store.remove()
    assert not store.folder.parent.exists()
    assert store.folder.parent.parent.is_dir()
    store.remove()  # nothing to remove is nothing to complain of


def test_pieces_are_joined_in_order():
    first, second = rows_of(digests_of("ab")), rows_of(digests_of("c"))
    assert_equal(Rows.join([first, second]), rows_of(digests_of("abc")))
    first, second = replace(first, seconds=0.5), replace(second, seconds=0.25)
    assert_equal(Rows.join([first, second]), replace(rows_of(digests_of("abc")), seconds=0.75))
    assert Rows.join([first, replace(second, seconds=None)]).seconds is None


def test_seconds_are_kept(tmp_path):
    store = part_store(tmp_path)
    store.add(replace(rows_of(digests_of("ab")), seconds=1 / 3))
    (read,) = store
    assert read.seconds == 1 / 3
