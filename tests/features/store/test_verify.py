"""Verifying: every flipped byte is found or does no harm, and every lie of a file is told."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from features.common.errors import InputError
from features.store.cache import FeatureCache
from features.store.verify import Damage, verify
from tests.features.store.caches import RECIPE, digests_of, rows_of, write_cache, write_rows

IDS = tuple(f"image {number}" for number in range(40))


def damage_of(cache: Path) -> Damage | None:
    """Verify a cache of one file; return its damage."""
    ((_, _, damage),) = verify(FeatureCache(cache))
    return damage


def flip(path: Path, whole: bytes, position: int, mask: int) -> None:
    damaged = bytearray(whole)
    damaged[position] ^= mask
    path.write_bytes(damaged)


def test_a_whole_cache_is_whole(tmp_path):
    write_cache(tmp_path, IDS, "train", "net")
    write_cache(tmp_path, IDS[:7], "test", "net", 9)
    write_rows(tmp_path, rows_of(digests_of(IDS[:3]), dtype="float16"), "test", replace(RECIPE, backbone="half"))
    assert list(verify(FeatureCache(tmp_path))) == [
        (tmp_path / "test" / "half.h5", 3, None),
        (tmp_path / "test" / "net.h5", 7, None),
        (tmp_path / "train" / "net.h5", 40, None),
    ]


def test_twenty_random_flips_inside_the_features_are_all_found(tmp_path):
    path = write_cache(tmp_path, [f"image {number}" for number in range(3000)], width=256)  # 3 chunks
    with h5py.File(path) as file:
        chunks = [file["features"].id.get_chunk_info(index) for index in range(file["features"].id.get_num_chunks())]
    assert len(chunks) == 3
    whole = path.read_bytes()
    generator = random.Random(20)
    for _ in range(20):
        index = generator.randrange(len(chunks))
        position = chunks[index].byte_offset + generator.randrange(chunks[index].size)
        flip(path, whole, position, 1 << generator.randrange(8))
        damage = damage_of(tmp_path)
        first, last = index * 1024, min(index * 1024 + 1023, 2999)
        assert damage == Damage(
            path,
            f"the checksum fails for rows {first} to {last} (images image {first} to image {last})",
            f"rm {path} && scripts/extract.sh DATA --backbones net --cache {tmp_path}",
        )


def test_a_flip_anywhere_is_found_or_does_no_harm(tmp_path):
    path = write_cache(tmp_path, IDS)
    cache = FeatureCache(tmp_path)
    whole = path.read_bytes()
    description, (ids, matrix) = cache.describe("train", "net"), cache.read("train", ["net"])
    generator = random.Random(1)
    found = 0
    positions = [*range(128), *generator.sample(range(128, len(whole)), 1000)]
    for position in positions:
        flip(path, whole, position, generator.randrange(1, 256))
        if damage_of(tmp_path) is not None:
            found += 1
            continue
        assert cache.describe("train", "net") == description, position
        assert cache.read("train", ["net"])[0] == ids, position
        np.testing.assert_array_equal(cache.read("train", ["net"])[1], matrix)
    assert found > len(positions) // 3  # the rest of such a small file is space that HDF5 does not use


def test_a_flip_in_the_text_of_an_attribute_is_found(tmp_path):
    """Attributes of variable length lie in a heap without checksums; `device` is in no fingerprint either."""
    path = write_cache(tmp_path, IDS)
    whole = path.read_bytes()
    for text in (b"CPU", b"imagenet", b"3.15.0", b"pixel / 127.5"):
        assert whole.count(text) == 1
        flip(path, whole, whole.index(text), 1)
        assert damage_of(tmp_path) is not None, text


def test_a_file_cut_off_anywhere_is_damaged(tmp_path):
    path = write_cache(tmp_path, IDS)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert damage_of(tmp_path) is not None, length


@pytest.mark.parametrize("content", [b"", b"image,feature\na,1\n", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_what_is_no_hdf5_is_damaged(tmp_path, content):
    path = tmp_path / "train" / "net.h5"
    path.parent.mkdir()
    path.write_bytes(content)
    damage = damage_of(tmp_path)
    assert damage is not None
    assert damage.path == path
    assert damage.reason
    assert "is damaged" not in damage.reason
    assert "verify" not in damage.reason
    assert damage.remedy == f"rm {path} && scripts/extract.sh DATA --backbones net --cache {tmp_path}"
    with pytest.raises(InputError, match=f"{path} is damaged .* Run: python -m features verify {tmp_path}$"):
        FeatureCache(tmp_path).read("train", ["net"])


def _replace(name: str, values: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        if values is not None:
            file.create_dataset(name, data=values)

    return change


def _checksummed(features: np.ndarray) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["features"]
        file.create_dataset("features", data=features, chunks=features.shape, fletcher32=True)

    return change


def _edit(file: h5py.File) -> None:
    """Change a value as any user of h5py would: the checksum is renewed, the digest is not."""
    file["features"][2, 0, 1] = 0.5


def _flip_digest(file: h5py.File) -> None:
    digests = file["chunk_digests"][:]
    digests[0, 15] ^= 1
    file["chunk_digests"][:] = digests


def _group(file: h5py.File) -> None:
    del file["features"]
    file.create_group("features")


def _set(name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__setitem__(name, value)


def _without(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__delitem__(name)


def _values(row: int, value: float) -> np.ndarray:
    features = np.zeros((4, 1, 3), np.float32)
    features[row, 0, 1] = value
    return features


LIES = {
    "schema 2": (_set("schema_version", 2), "its schema is 2, but this Headbank reads 1"),
    "no schema": (_without("schema_version"), "its schema is None, but this Headbank reads 1"),
    "no fingerprint": (_without("fingerprint"), "the attribute 'fingerprint' is missing"),
    "no device": (_without("device"), "the attribute 'device' is missing"),
    "no views": (_without("views"), "the attribute 'views' is missing"),
    "another precision": (_set("precision", "mixed"), "its attributes make the fingerprint "),
    "another size": (_set("input_size", 299), "its attributes make the fingerprint "),
    "another backbone": (_set("backbone", "other"), "its attributes make the fingerprint "),
    "a forged fingerprint": (_set("fingerprint", "0" * 32), f"the fingerprint {RECIPE.fingerprint}, but the one it"),
    "views of another number": (_set("views", '["a", "b"]'), "its attributes make the fingerprint "),
    "an id twice": (_replace("image_ids", ["a", "b", "c", "c"]), "4 image ids, 3 of them different"),
    "an id too few": (_replace("image_ids", ["a", "b", "c"]), "it has 4 rows, but 3 image ids"),
    "a blank id": (_replace("image_ids", ["a", "b", "", "d"]), "row 2 has a blank image id"),
    "an id that is no text": (_replace("image_ids", np.array([b"a", b"b", b"\xff", b"d"])), "utf-8"),
    "numbers for ids": (_replace("image_ids", np.arange(4)), "image_ids holds int64, not text"),
    "no ids": (_replace("image_ids", None), "image_ids"),
    "no digests": (_replace("image_digests", None), "image_digests"),
    "short digests": (_replace("image_digests", np.zeros((4, 8), np.uint8)), "image_digests has shape (4, 8)"),
    "an edited value": (_edit, "the digest differs for rows 0 to 3 (images a to d)"),
    "an edited digest": (_flip_digest, "the digest differs for rows 0 to 3 (images a to d)"),
    "too many chunk digests": (_replace("chunk_digests", np.zeros((2, 16), np.uint8)), "chunk_digests has shape (2, "),
    "signed chunk digests": (_replace("chunk_digests", np.zeros((1, 16), np.int8)), "(1, 16) and dtype int8"),
    "no features": (_replace("features", None), "features"),
    "a group": (_group, "features"),
    "two axes": (_replace("features", np.zeros((4, 3), np.float32)), "features has shape (4, 3)"),
    "a number": (_replace("features", 1.0), "features has shape ()"),
    "two views": (_checksummed(np.zeros((4, 2, 3), np.float32)), "features has shape (4, 2, 3)"),
    "float64": (_checksummed(np.zeros((4, 1, 3))), "features has shape (4, 1, 3) and dtype float64"),
    "no checksums": (_replace("features", np.zeros((4, 1, 3), np.float32)), "features has no checksums"),
    "not a number": (_checksummed(_values(2, np.nan)), "the features of image c are not finite"),
    "infinity": (_checksummed(_values(3, np.inf)), "the features of image d are not finite"),
}


def test_digests_are_compared_chunk_by_chunk(tmp_path):
    path = write_cache(tmp_path, [f"image {number}" for number in range(3000)], width=256)  # 3 chunks
    whole = path.read_bytes()
    for row, first, last in ((0, 0, 1023), (1023, 0, 1023), (1024, 1024, 2047), (2999, 2048, 2999)):
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            file["features"][row, 0, 255] += 1
        damage = damage_of(tmp_path)
        assert damage is not None
        assert damage.reason == (
            f"the digest differs for rows {first} to {last} (images image {first} to image {last}): "
            f"one of the two was changed after the extraction"
        )


def test_every_flipped_bit_of_the_digests_is_found(tmp_path):
    path = write_cache(tmp_path, IDS)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        chunk = file["chunk_digests"].id.get_chunk_info(0)
    assert chunk.size == 16 + 4
    for bit in range(8 * chunk.size):
        flip(path, whole, chunk.byte_offset + bit // 8, 1 << bit % 8)
        damage = damage_of(tmp_path)
        assert damage is not None
        assert "filter returned failure" in damage.reason


def test_a_file_without_digests_is_whole(tmp_path):
    """Digests are newer than the schema."""
    path = write_cache(tmp_path, IDS)
    with h5py.File(path, "a") as file:
        del file["chunk_digests"]
    assert damage_of(tmp_path) is None


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_of_a_file_is_told(tmp_path, lie):
    change, says = LIES[lie]
    path = write_cache(tmp_path, "abcd")
    with h5py.File(path, "a") as file:
        change(file)
    damage = damage_of(tmp_path)
    assert damage is not None
    assert says in damage.reason
    assert str(path) not in damage.reason


def test_a_file_under_another_backbones_name_is_told(tmp_path):
    path = write_cache(tmp_path, "abcd")
    path.rename(path.with_name("other.h5"))
    damage = damage_of(tmp_path)
    assert damage is not None
    assert damage.reason == "it holds features of net"


def test_one_damaged_file_does_not_hide_the_others(tmp_path):
    broken = write_cache(tmp_path, "ab", backbone="broken")
    write_cache(tmp_path, "ab", backbone="whole")
    broken.write_bytes(b"")
    assert [(path.stem, rows, damage is None) for path, rows, damage in verify(FeatureCache(tmp_path))] == [
        ("broken", 0, False),
        ("whole", 2, True),
    ]
