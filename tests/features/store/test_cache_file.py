"""A cache file: its rows are those that were written, bit for bit, and nothing else is ever given out."""

import os
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import features.store.cache_file
from features.common.errors import InputError
from features.common.keras_import import backend_name
from features.store.cache import FeatureCache
from features.store.cache_file import BLOCK_ROWS, CacheFile, DamagedFile, Selection, read_selections
from tests.features.store.caches import RECIPE, digests_of, matrix_of, rows_of, write_cache, write_rows


def random_bits(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """Give features of any bits but those of NaN and infinity."""
    values = np.frombuffer(np.random.default_rng(seed).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype)
    return np.where(np.isfinite(values), values, 1).astype(dtype).reshape(shape)


def write(cache: Path, values: np.ndarray) -> Path:
    """Write a cache file that holds these features."""
    rows = rows_of(digests_of(f"i{number}" for number in range(len(values))))
    recipe = replace(RECIPE, views=tuple("abc")[: values.shape[1]], storage=str(values.dtype))
    return write_rows(cache, replace(rows, features=values), recipe=recipe)


def read(path: Path, rows: list[int], tta: str = "none") -> tuple[np.ndarray, np.ndarray]:
    """Read some rows, of the first view or of the mean over views; return them, and which of them are not finite."""
    file = CacheFile.open(path)
    out = np.full((len(rows), file.width), 7, np.float32)
    return out, read_selections([Selection(file, np.array(rows, np.int64), out, tta)])[0]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_rows_in_any_order_are_those_that_were_written(tmp_path_factory, data):
    shape = (data.draw(st.integers(1, 300)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9)))
    values = random_bits(shape, data.draw(st.sampled_from(["float32", "float16"])), data.draw(st.integers(0, 9)))
    path = write(tmp_path_factory.getbasetemp() / "any", values)
    rows = data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=400))
    for chosen in (rows, sorted(rows), [*range(shape[0])]):
        out, not_finite = read(path, chosen)
        np.testing.assert_array_equal(out.view(np.uint32), values[chosen, 0].astype(np.float32).view(np.uint32))
        assert not_finite.tolist() == []


def test_the_mean_over_views_is_read_whatever_the_order(tmp_path):
    values = np.random.default_rng(0).normal(size=(300, 3, 5)).astype(np.float32)
    path = write(tmp_path / "mean", values)
    rows = [299, 0, 128, 5, 5]
    out, _ = read(path, rows, "mean")
    np.testing.assert_allclose(out, values.astype(np.float64).mean(axis=1)[rows], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(out, read(path, [*range(300)], "mean")[0][rows])
    assert not np.allclose(out, values[rows, 0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_that_are_not_finite_are_named_by_their_places(tmp_path, value, dtype):
    values = np.ones((300, 2, 4), dtype)
    values[3, 0, 1] = values[260, 0, 3] = value
    values[5, 1, 0] = value  # of the second view, which nobody reads
    path = write(tmp_path, values)
    assert read(path, [8, 260, 0, 3, 5, 260])[1].tolist() == [1, 3, 5]
    assert read(path, [8, 2, 5])[1].tolist() == []


def test_threads_do_not_change_a_bit(tmp_path, monkeypatch):
    values = random_bits((1500, 1, 8), "float32", 3)
    path = write(tmp_path, values)
    rows = np.random.default_rng(0).integers(0, 1500, 4000).tolist()
    for threads in (1, 3):
        monkeypatch.setattr(features.store.cache_file, "THREADS", threads)
        np.testing.assert_array_equal(read(path, rows)[0], values[rows, 0])


def test_every_flipped_bit_of_features_and_digests_is_refused(tmp_path):
    path = write_cache(tmp_path, [f"image {number}" for number in range(3)], width=2)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        content = [(file[name].id.get_offset(), file[name].nbytes) for name in ("features", "block_digests")]
    assert [size for _, size in content] == [3 * 2 * 4, 16]
    for bit in (8 * offset + bit for offset, size in content for bit in range(8 * size)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile) as caught:
            FeatureCache(tmp_path).read("train", ["net"])
        assert str(caught.value) == (
            f"{path} is damaged (rows 0 to 2 (images image 0 to image 2) are not those that were written). "
            f"Run: .venv/bin/python -m features verify {tmp_path}"
        )


def test_every_flipped_byte_of_ids_digests_and_attributes_is_refused(tmp_path):
    path = write_cache(tmp_path, ["image ä", "b", "c"])
    whole = path.read_bytes()
    with h5py.File(path) as file:
        content = [(file[name].id.get_offset(), file[name].nbytes) for name in ("image_ids", "image_digests")]
    texts = ("CPU", "imagenet", version("keras"), "pixel / 127.5", RECIPE.fingerprint, backend_name())
    content += [(whole.index(text.encode()), len(text)) for text in texts]
    for position in (offset + byte for offset, size in content for byte in range(size)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile):
            CacheFile.open(path)


def test_only_the_blocks_of_the_rows_wanted_are_read(tmp_path):
    path = write(tmp_path, np.ones((3 * BLOCK_ROWS, 1, 4), np.float32))
    with h5py.File(path, "r+") as file:
        file["features"][BLOCK_ROWS + 1, 0, 2] = 5  # as any user of h5py could
    assert read(path, [0, BLOCK_ROWS - 1, 2 * BLOCK_ROWS])[0].tolist() == [[1] * 4] * 3
    with pytest.raises(DamagedFile, match=r"rows 128 to 255 \(images i128 to i255\) are not those that were written"):
        read(path, [BLOCK_ROWS])


def test_a_block_zeroed_together_with_its_digest_is_refused(tmp_path):
    path = write(tmp_path, np.ones((2 * BLOCK_ROWS, 1, 4), np.float32))
    with h5py.File(path, "r+") as file:
        file["features"][:BLOCK_ROWS] = 0
        file["block_digests"][0] = 0
    with pytest.raises(DamagedFile, match="rows 0 to 127 "):
        read(path, [0])


def _recreate(name: str, **options: object) -> Callable[[h5py.File], None]:
    """Store a dataset again, of the same values, in another way."""

    def change(file: h5py.File) -> None:
        values = file[name][:]
        del file[name]
        file.create_dataset(name, data=None if "external" in options else values, **{"shape": values.shape, **options})

    return change


def _virtual(file: h5py.File) -> None:
    source = h5py.VirtualSource(file["features"])
    layout = h5py.VirtualLayout(source.shape, source.dtype)
    layout[:] = source
    file.move("features", "elsewhere")
    file.create_virtual_dataset("features", layout)


def _group(file: h5py.File) -> None:
    del file["features"]
    file.create_group("features")


def _delete(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def _set(name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__setitem__(name, value)


def _digest_less(file: h5py.File) -> None:
    del file.attrs["index_digest"]


INDEX = "its attributes, shape, image ids or image digests are not those that were written"
REFUSED = {
    "chunked": (_recreate("features", chunks=(2, 1, 3)), "features is not one contiguous block in the file"),
    "external": (_recreate("features", dtype="<f4", external="rows.bin"), "features is not one contiguous block"),
    "virtual": (_virtual, "features is not one contiguous block in the file"),
    "big-endian": (_recreate("features", dtype=">f4"), "features holds >f4, not <f4 or <f2"),
    "float64": (_recreate("features", dtype="<f8"), "features holds <f8, not <f4 or <f2"),
    "half the bits": (_recreate("features", dtype="<f2"), "rows 0 to 3 (images a to d) are not those that"),
    "integers": (_recreate("features", dtype="<i4"), "features holds <i4, not <f4 or <f2"),
    "no features": (_delete("features"), "features is missing"),
    "a group": (_group, "features is missing"),
    "another shape": (_recreate("features", shape=(2, 2, 3)), INDEX),
    "no block digests": (_delete("block_digests"), "block_digests is missing"),
    "chunked block digests": (_recreate("block_digests", chunks=(1, 16)), "block_digests is not one contiguous block"),
    "misshaped block digests": (_recreate("block_digests", shape=(2, 8)), "block_digests has shape (2, 8)"),
    "signed block digests": (_recreate("block_digests", dtype="i1"), "block_digests holds |i1, not |u1"),
    "no image digests": (_delete("image_digests"), "image_digests is missing"),
    "no ids": (_delete("image_ids"), "image_ids is missing"),
    "ids of any length": (_recreate("image_ids", dtype=h5py.string_dtype()), "image_ids holds |O, not |S"),
    "another device": (_set("device", "GPU"), INDEX),
    "another precision": (_set("precision", "mixed"), INDEX),
    "one more attribute": (_set("note", "mine"), INDEX),
    "no digest of the index": (_digest_less, INDEX),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_whatever_is_not_schema_2_is_refused(tmp_path, kind, monkeypatch):
    change, says = REFUSED[kind]
    path = write_cache(tmp_path, "abcd")
    monkeypatch.chdir(tmp_path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DamagedFile) as caught:
        FeatureCache(tmp_path).read("train", ["net"])
    assert str(caught.value).startswith(f"{path} is damaged ({says}")


@pytest.mark.parametrize("content", [b"", b"image,feature\na,1\n", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_what_is_not_hdf5_is_damaged(tmp_path, content):
    path = tmp_path / "net.h5"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"net\.h5 is damaged \(.+\)\. Run: .venv/bin/python -m features verify"):
        CacheFile.open(path)


def test_a_file_that_is_cut_off_is_damaged(tmp_path):
    path = write_cache(tmp_path, "abc")
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(DamagedFile, match=f"{path} is damaged"):
        FeatureCache(tmp_path).read("train", ["net"])


@pytest.mark.parametrize("schema", [1, 3])
def test_another_schema_is_refused_with_what_to_run(tmp_path, schema):
    path = write_cache(tmp_path, "abc")
    with h5py.File(path, "a") as file:
        file.attrs["schema_version"] = schema
        del file["block_digests"]
    with pytest.raises(InputError) as caught:
        FeatureCache(tmp_path).read("train", ["net"])
    assert not isinstance(caught.value, DamagedFile)
    assert str(caught.value) == (
        f"{path} has schema {schema}, but this Headbank reads 2: its features have to be extracted again. Move the "
        f"folder {tmp_path} away, and run again what extracted it."
    )


def test_what_the_system_refuses_is_not_called_damage(tmp_path, monkeypatch):
    path = write_cache(tmp_path, "abc")
    original = Path.open

    def refuse(self: Path, *arguments: object) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return original(self, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError) as caught:
        FeatureCache(tmp_path).read("train", ["net"])
    assert not isinstance(caught.value, DamagedFile)
    assert str(caught.value) == (
        f"{path} cannot be read: Permission denied. Change the rights of the file and its "
        "folders, or the user. Its features may be whole."
    )


@pytest.mark.parametrize("killed", [False, True])
def test_a_notebook_that_holds_the_file_open_does_not_matter(tmp_path, killed):
    path = write_cache(tmp_path, "abc")
    with h5py.File(path, "r+") as file:
        file.flush()
        as_killed = path.read_bytes()  # marked as open
        if not killed:
            assert FeatureCache(tmp_path).read("train", ["net"])[0] == tuple("abc")
    path.write_bytes(as_killed)
    np.testing.assert_array_equal(
        FeatureCache(tmp_path).read("train", ["net"])[1], matrix_of(digests_of("abc").values())
    )


def test_a_shape_that_the_file_cannot_hold_is_damage_before_anything_is_read(tmp_path):
    path = write_cache(tmp_path, "abc")
    with h5py.File(path, "r+") as file:
        del file["features"]
        file.create_dataset("features", (3, 1, 1 << 40), np.float32)
    with pytest.raises(DamagedFile, match=r"features is not one contiguous block"):
        FeatureCache(tmp_path).read("train", ["net"])
