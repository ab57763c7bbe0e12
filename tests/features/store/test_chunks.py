"""Reading chunks past HDF5: bit for bit what HDF5 reads, whatever the file is like, and no damage goes unseen."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

import features.store.chunks
from features.common.errors import InputError
from features.store.cache import FeatureCache
from features.store.chunks import Selection, read_selections
from tests.features.store.caches import RECIPE, digests_of, rows_of, write_cache, write_rows


def write(path: Path, values: np.ndarray, digests: np.ndarray | None = None, **options: Any) -> None:
    """Write a file that holds features, and perhaps digests, and nothing else."""
    with h5py.File(path, "w", libver="v110") as file:
        file.create_dataset("features", data=values, **options)
        if digests is not None:
            file.create_dataset("chunk_digests", data=digests)


def digests_of_chunks(values: np.ndarray, step: int) -> np.ndarray:
    """Give uint8 (chunks, 16)."""
    digests = [
        xxhash.xxh3_128(values[start : start + step].tobytes()).digest() for start in range(0, len(values), step)
    ]
    return np.array([[*digest] for digest in digests], np.uint8)


def read(path: Path, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Read some rows; return them, and which of them are not finite."""
    with h5py.File(path) as file:
        out = np.full((len(rows), file["features"].shape[2]), 7, np.float32)
        return out, read_selections([Selection(path, file, np.array(rows, np.int64), out)])[0]


def count_hdf5s_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the list in which the first row of everything that HDF5 reads of the features will stand."""
    starts = []
    getitem = h5py.Dataset.__getitem__

    def counted(dataset: h5py.Dataset, key: Any) -> Any:
        if dataset.name == "/features":
            starts.append(key[0].start)
        return getitem(dataset, key)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    return starts


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


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_every_layout_gives_what_hdf5_reads(tmp_path_factory, data):
    """Whether its digests fit, fit in part, are of another shape, or are not there."""
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
    values = random_bits(shape, dtype, data.draw(st.integers(0, 9)))
    digests = digests_of_chunks(values, options.get("chunks", shape)[0])
    digests[data.draw(st.lists(st.integers(0, len(digests) - 1), max_size=2))] ^= 1
    digests = digests[data.draw(st.integers(0, 1)) :, data.draw(st.integers(0, 1)) :]
    write(path, values, data.draw(st.sampled_from([None, digests])), **options)
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
    digests = digests_of([f"image {number}" for number in range(1000)])
    written = rows_of(digests, views, 700, dtype)  # 2 to 6 chunks, the last one filled in part
    path = write_rows(tmp_path, written, recipe=replace(RECIPE, views=("identity", "flip")[:views]))
    with h5py.File(path) as file:
        assert file["features"].chunks[0] < 1000
    rows = np.random.default_rng(0).permutation(1000)[:700].tolist()
    read_by_hdf5 = count_hdf5s_reads(monkeypatch)
    np.testing.assert_array_equal(read(path, rows)[0], written.features[rows, 0].astype(np.float32))
    assert read_by_hdf5 == []


@pytest.mark.parametrize("digests", ["none", "of another chunk"])
def test_a_chunk_without_its_digest_is_read_by_hdf5(tmp_path, monkeypatch, digests):
    """Older files have no digests; and who edits a file with h5py renews the checksum alone."""
    path = tmp_path / "f.h5"
    values = random_bits((9, 1, 4), "<f4", 0)
    known = digests_of_chunks(values, 4)
    known[1] = known[0]
    write(path, values, None if digests == "none" else known, chunks=(4, 1, 4), fletcher32=True)
    read_by_hdf5 = count_hdf5s_reads(monkeypatch)
    np.testing.assert_array_equal(read(path, [*range(9)])[0], values[:, 0])
    assert sorted(read_by_hdf5) == ([0, 4, 8] if digests == "none" else [4])


def test_every_flipped_bit_of_features_is_found(tmp_path):
    path = write_cache(tmp_path, [f"image {number}" for number in range(7)], width=4)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        chunk = file["features"].id.get_chunk_info(0)
        digest = file["chunk_digests"].id.get_chunk_info(0)
    assert chunk.size == 7 * 4 * 4 + 4
    content = [chunk.byte_offset * 8 + bit for bit in range(8 * (chunk.size - 4))]
    for bit in content + [digest.byte_offset * 8 + bit for bit in range(8 * digest.size)]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=f"{path} is damaged .* Run: python -m features verify {tmp_path}$"):
            FeatureCache(tmp_path).read("train", ["net"])


def flip(path: Path, chunk: int, bit: int) -> None:
    """Flip a bit of a chunk of the features."""
    with h5py.File(path) as file:
        position = file["features"].id.get_chunk_info(chunk).byte_offset + bit // 8
    with path.open("r+b") as stream:
        stream.seek(position)
        (byte,) = stream.read(1)
        stream.seek(position)
        stream.write(bytes([byte ^ 1 << bit % 8]))


@settings(deadline=None, max_examples=60)
@given(chunk=st.integers(0, 3), bit=st.integers(0, 8 * 256 * 1024 - 1))
def test_a_flipped_bit_is_found_in_any_chunk(tmp_path_factory, chunk, bit):
    """The last chunk is filled to a third: what HDF5 stores behind its rows is nobody's feature."""
    path = tmp_path_factory.getbasetemp() / "flipped.h5"
    values = random_bits((213, 1, 1024), "<f4", 0)
    if not path.exists():
        write(path, values, digests_of_chunks(values, 64), chunks=(64, 1, 1024), fletcher32=True)
    flip(path, chunk, bit)
    if chunk < 3 or bit < 8 * (213 - 3 * 64) * 4096:
        with pytest.raises(InputError, match=f"{path} is damaged .*filter returned failure"):
            read(path, [64 * chunk])
    else:
        np.testing.assert_array_equal(read(path, [*range(192, 213)])[0], values[192:, 0])
    flip(path, chunk, bit)
    np.testing.assert_array_equal(read(path, [64 * chunk])[0], values[64 * chunk])


def test_a_file_that_is_cut_off_is_damaged(tmp_path):
    path = write_cache(tmp_path, "abc")
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InputError, match=f"{path} is damaged"):
        FeatureCache(tmp_path).read("train", ["net"])


def test_only_the_chunks_of_the_rows_wanted_are_read(tmp_path):
    values = np.ones((8, 1, 4), np.float32)
    path = tmp_path / "f.h5"
    write(path, values, digests_of_chunks(values, 2), chunks=(2, 1, 4), fletcher32=True)
    flip(path, 1, 0)
    assert read(path, [7, 0, 1, 4])[0].tolist() == [[1] * 4] * 4
    with pytest.raises(InputError, match=f"{path} is damaged .*filter returned failure"):
        read(path, [2])


@pytest.mark.parametrize("digested", [True, False])
@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_told_by_their_places(tmp_path, options, value, digested):
    values = np.ones((9, 2, 4), np.float32)
    values[3, 0, 1] = values[6, 0, 3] = value
    values[5, 1, 0] = value  # of the second view, which nobody reads
    options = {**options, "chunks": (2, 2, 4)} if options else {}
    write(tmp_path / "f.h5", values, digests_of_chunks(values, 2) if digested and options else None, **options)
    assert read(tmp_path / "f.h5", [8, 6, 0, 3, 5, 6])[1].tolist() == [1, 3, 5]
    assert read(tmp_path / "f.h5", [8, 2, 5])[1].tolist() == []


def test_threads_do_not_change_a_bit(tmp_path, monkeypatch):
    values = random_bits((500, 1, 8), "<f4", 3)
    write(tmp_path / "f.h5", values, digests_of_chunks(values, 7), chunks=(7, 1, 8), fletcher32=True)
    rows = np.random.default_rng(0).integers(0, 500, 900).tolist()
    for threads in (1, 3):
        monkeypatch.setattr(features.store.chunks, "THREADS", threads)
        np.testing.assert_array_equal(read(tmp_path / "f.h5", rows)[0], values[rows, 0])
