"""Reading chunks past HDF5: bit for bit what HDF5 reads, whatever the file is like, and no damage goes unseen."""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import features.chunks
from features.cache import FeatureCache
from features.chunks import fletcher32, read_rows
from features.errors import InputError
from tests.features.caches import write_cache


def write(path: Path, values: np.ndarray, **options: Any) -> None:
    """Write a file that holds features and nothing else."""
    with h5py.File(path, "w", libver="v110") as file:
        file.create_dataset("features", data=values, **options)


def read(path: Path, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Read some rows; return them, and which of them are not finite."""
    with h5py.File(path) as file:
        out = np.full((len(rows), file["features"].shape[2]), 7, np.float32)
        return out, read_rows(file["features"], np.array(rows, np.int64), out)


def refuse_hdf5s_way(*_: object) -> None:
    raise AssertionError("HDF5 was asked to read")


def random_bits(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """Give features of any bits but those of NaN and infinity."""
    values = np.frombuffer(np.random.default_rng(seed).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype)
    return np.where(np.isfinite(values), values, 1).astype(dtype).reshape(shape)


LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": True},
    "checksums": {"chunks": True, "fletcher32": True},
    "compressed": {"chunks": True, "compression": "gzip"},
    "compressed with checksums": {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True},
}


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_every_layout_gives_what_hdf5_reads(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "layout.h5"
    shape = tuple(data.draw(st.tuples(st.integers(1, 40), st.integers(1, 3), st.integers(1, 9))))
    dtype = data.draw(st.sampled_from(["<f4", "<f2", ">f4", "<f8"]))
    options = dict(LAYOUTS[data.draw(st.sampled_from(sorted(LAYOUTS)))])
    if "chunks" in options:
        whole_rows = data.draw(st.booleans())
        options["chunks"] = tuple(
            side if whole_rows and axis else data.draw(st.integers(1, side)) for axis, side in enumerate(shape)
        )
    rows = data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=60))
    write(path, random_bits(shape, dtype, data.draw(st.integers(0, 9))), **options)
    with h5py.File(path) as file:
        expected = file["features"][:][rows, 0]
    with np.errstate(over="ignore"):  # float64 holds what float32 does not
        expected = expected.astype(np.float32)
    out, not_finite = read(path, rows)
    np.testing.assert_array_equal(out.view(np.uint32), expected.view(np.uint32))
    assert not_finite.tolist() == np.flatnonzero(~np.isfinite(expected).all(axis=1)).tolist()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("views", [1, 2])
def test_what_assemble_writes_is_read_past_hdf5(tmp_path, monkeypatch, dtype, views):
    values = random_bits((1000, views, 256), dtype, 1)
    write(tmp_path / "f.h5", values, chunks=(128, views, 256), fletcher32=True)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", refuse_hdf5s_way)
    rows = np.random.default_rng(0).permutation(1000)[:700].tolist()
    np.testing.assert_array_equal(read(tmp_path / "f.h5", rows)[0], values[rows, 0].astype(np.float32))


@pytest.mark.parametrize("values", [np.zeros((9, 1, 4)), np.full((9, 1, 4), -1, "<i4").view("<f4")])
def test_the_checksum_of_equal_words_is_hdf5s(tmp_path, monkeypatch, values):
    """All words 0, and all 65535, which are congruent, and HDF5 writes both sums differently."""
    write(tmp_path / "f.h5", values.astype("<f4"), chunks=(4, 1, 4), fletcher32=True)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", refuse_hdf5s_way)
    out, _ = read(tmp_path / "f.h5", [*range(9)])
    np.testing.assert_array_equal(out, values[:, 0])


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1), st.sampled_from([0, 0xFF, 0xFF00, 0xFFFF]))
def test_the_checksum_is_fletchers(rows, columns, seed, fill):
    """Against the definition, in Python's integers."""
    words = np.random.default_rng(seed).integers(0, 2**16, (rows, columns), np.uint16) | np.uint16(fill)
    first = second = 0
    for word in words.ravel().view(">u2").tolist():
        first += word
        second += first
    assert fletcher32(words) == (first % 65535, second % 65535)


@pytest.mark.parametrize("shape", [(1 << 16, 2), (2, 1 << 16)])
def test_the_checksum_of_the_largest_sums_does_not_overflow(shape):
    words = np.full(shape, 0xFFFF, np.uint16)
    words[-1, -1] = 0x0100  # with the high byte first: 1
    count = words.size
    assert fletcher32(words) == (((count - 1) * 65535 + 1) % 65535, (sum(range(2, count + 1)) * 65535 + 1) % 65535)


def test_every_flipped_bit_of_features_and_checksum_is_found(tmp_path):
    path = write_cache(tmp_path, [f"image {number}" for number in range(7)], width=4)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        chunk = file["features"].id.get_chunk_info(0)
    assert chunk.size == 7 * 4 * 4 + 4
    for bit in range(8 * chunk.size):
        damaged = bytearray(whole)
        damaged[chunk.byte_offset + bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=f"{path} is damaged .* Run: python -m features verify {tmp_path}$"):
            FeatureCache(tmp_path).read("train", ["net"])


@settings(deadline=None, max_examples=60)
@given(chunk=st.integers(0, 3), bit=st.integers(0, 8 * (256 * 1024 + 4) - 1))
def test_a_flipped_bit_is_found_in_any_chunk(tmp_path_factory, chunk, bit):
    """The last chunk is filled to a third; HDF5 writes and sums up the rest of it too."""
    path = tmp_path_factory.getbasetemp() / "flipped.h5"
    if not path.exists():
        write(path, random_bits((213, 1, 1024), "<f4", 0), chunks=(64, 1, 1024), fletcher32=True)
    with h5py.File(path) as file:
        position = file["features"].id.get_chunk_info(chunk).byte_offset + bit // 8
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[position] ^= 1 << bit % 8
    path.write_bytes(damaged)
    with pytest.raises(OSError, match="filter returned failure"):
        read(path, [64 * chunk])
    path.write_bytes(whole)
    assert read(path, [64 * chunk])[1].tolist() == []


def test_a_file_that_is_cut_off_is_damaged(tmp_path):
    path = write_cache(tmp_path, "abc")
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InputError, match=f"{path} is damaged"):
        FeatureCache(tmp_path).read("train", ["net"])


def test_only_the_chunks_of_the_rows_wanted_are_read(tmp_path):
    write(tmp_path / "f.h5", np.ones((8, 1, 4), np.float32), chunks=(2, 1, 4), fletcher32=True)
    with h5py.File(tmp_path / "f.h5") as file:
        position = file["features"].id.get_chunk_info(1).byte_offset
    with (tmp_path / "f.h5").open("r+b") as stream:
        stream.seek(position)
        stream.write(b"\1")
    assert read(tmp_path / "f.h5", [7, 0, 1, 4])[0].tolist() == [[1] * 4] * 4
    with pytest.raises(OSError, match="filter returned failure"):
        read(tmp_path / "f.h5", [2])


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_told_by_their_places(tmp_path, options, value):
    values = np.ones((9, 2, 4), np.float32)
    values[3, 0, 1] = values[6, 0, 3] = value
    values[5, 1, 0] = value  # of the second view, which nobody reads
    options = {**options, "chunks": (2, 2, 4)} if options else {}
    write(tmp_path / "f.h5", values, **options)
    assert read(tmp_path / "f.h5", [8, 6, 0, 3, 5, 6])[1].tolist() == [1, 3, 5]
    assert read(tmp_path / "f.h5", [8, 2, 5])[1].tolist() == []


def test_threads_do_not_change_a_bit(tmp_path, monkeypatch):
    values = random_bits((500, 1, 8), "<f4", 3)
    write(tmp_path / "f.h5", values, chunks=(7, 1, 8), fletcher32=True)
    rows = np.random.default_rng(0).integers(0, 500, 900).tolist()
    for threads in (1, 3):
        monkeypatch.setattr(features.chunks, "THREADS", threads)
        np.testing.assert_array_equal(read(tmp_path / "f.h5", rows)[0], values[rows, 0])
