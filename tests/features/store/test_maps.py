"""Files of maps: what was written comes back, whole or not at all, and every flipped byte is found or does no harm."""

import random
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from features.common.errors import InputError
from features.store.cache import FeatureCache
from features.store.maps import (
    THUMBNAIL,
    MapRows,
    describe_maps,
    maps_files,
    maps_path,
    read_blocks,
    read_maps,
    read_thumbnails,
    thumbnail_shape,
)
from features.store.maps_writer import MapsWriter
from features.store.verify import verify
from tests.features.store.caches import ODD_IDS, PROVENANCE, RECIPE, digest_of_image, write_cache


def rows_of(image_ids, seed=0, shape=(3, 3, 5)) -> MapRows:
    random = np.random.default_rng(seed)
    count = len(image_ids)
    return MapRows(
        tuple(image_ids),
        tuple(digest_of_image(image_id) for image_id in image_ids),
        random.normal(size=(count, *shape)).astype(np.float16),
        random.integers(0, 256, (count, THUMBNAIL, THUMBNAIL, 3), np.uint8),
        random.integers(200, 600, (count, 2)).astype(np.int32),
    )


def write(cache: Path, *blocks: MapRows, split="train", recipe=RECIPE) -> Path:
    path = maps_path(cache, split, recipe.backbone)
    with MapsWriter(path, recipe, PROVENANCE) as writer:
        for rows in blocks:
            writer.append(rows)
    return path


def test_what_was_written_comes_back_in_the_order_asked_for(tmp_path):
    first, second = rows_of(ODD_IDS, 1), rows_of(["x", "y"], 2)
    file = describe_maps(write(tmp_path, first, second))
    assert list(file.digests) == [*first.image_ids, *second.image_ids]
    assert list(file.digests.values()) == [*first.digests, *second.digests]
    assert (file.recipe, file.fingerprint, file.shape) == (RECIPE, RECIPE.fingerprint, (3, 3, 5))
    np.testing.assert_array_equal(
        read_maps(file, ["y", "007", "a 17"]), np.stack([second.maps[1], first.maps[4], first.maps[0]])
    )
    pictures = read_thumbnails(file, ["x"])
    height, width = second.sizes[0].tolist()
    rows, columns = thumbnail_shape(height, width)
    assert pictures[0][1] == (height, width)
    np.testing.assert_array_equal(pictures[0][0], second.thumbnails[0, :rows, :columns])
    (everything,) = read_blocks(file, list(file.digests))
    np.testing.assert_array_equal(everything.maps, np.concatenate([first.maps, second.maps]))
    np.testing.assert_array_equal(everything.sizes, np.concatenate([first.sizes, second.sizes]))


@pytest.mark.parametrize(
    ("size", "shape"),
    [((128, 128), (128, 128)), ((512, 512), (256, 256)), ((1000, 500), (256, 128)), ((1, 9000), (1, 256))],
)
def test_a_thumbnail_keeps_the_aspect_and_never_grows(size, shape):
    assert thumbnail_shape(*size) == shape


def test_maps_are_no_features(tmp_path):
    write_cache(tmp_path, ["a"])
    path = write(tmp_path, rows_of(["a"]), split="test")
    cache = FeatureCache(tmp_path)
    assert (cache.splits(), cache.backbones("train"), cache.backbones("test")) == (("train",), ("net",), ())
    assert maps_files(tmp_path) == [path]


def test_without_rows_or_after_an_error_nothing_is_made_or_replaced(tmp_path):
    path = write(tmp_path)
    assert not path.exists()
    write(tmp_path, rows_of(["a"]))
    before = path.read_bytes()
    write(tmp_path)
    with pytest.raises(InputError):
        write(tmp_path, rows_of(["b"]), replace(rows_of(["c"]), maps=np.full((1, 3, 3, 5), np.nan, np.float16)))
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_map_that_float16_cannot_hold_is_refused_by_name(tmp_path):
    rows = rows_of(["a", "b"])
    maps = rows.maps.copy()
    maps[1, 0, 0, 0] = np.inf
    with pytest.raises(InputError, match="net gives maps that are not finite in float16 for the image b"):
        write(tmp_path, replace(rows, maps=maps))


def test_verify_reads_maps_too_and_says_how_to_renew_them(tmp_path):
    write_cache(tmp_path, ["a"], width=5)
    path = write(tmp_path, rows_of(["a", "b"]))
    assert list(verify(FeatureCache(tmp_path)))[1:] == [(path, 2, None)]
    moved = path.rename(path.with_name("other.maps.h5"))
    damage = list(verify(FeatureCache(tmp_path)))[1][2]
    assert damage is not None
    assert damage.reason == "it holds maps of net"
    assert damage.remedy == f"rm {moved} && python -m extract maps DATA --ids IDS --cache {tmp_path}"


def test_every_flipped_byte_of_a_map_is_found(tmp_path):
    path = write(tmp_path, rows_of([f"image {number}" for number in range(40)], shape=(7, 7, 64)))
    with h5py.File(path) as file:
        chunks = [file["maps"].id.get_chunk_info(index) for index in range(file["maps"].id.get_num_chunks())]
    whole = path.read_bytes()
    generator = random.Random(5)
    for _ in range(20):
        chunk = generator.choice(chunks)
        damaged = bytearray(whole)
        damaged[chunk.byte_offset + generator.randrange(chunk.size)] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        assert [damage is not None for _, _, damage in verify(FeatureCache(tmp_path))] == [True]


def exchange(file: h5py.File, name: str, values: np.ndarray) -> None:
    del file[name]
    file[name] = values


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda file: file.attrs.modify("maps_schema_version", 2),
            "its schema of maps is 2, but this Headbank reads 1",
        ),
        (lambda file: file.attrs.modify("input_size", 7), "its attributes make the fingerprint"),
        (lambda file: file.__delitem__("sizes"), "is damaged"),
        (lambda file: file["sizes"].resize(1, axis=0), "its datasets do not fit together"),
        (lambda file: exchange(file, "maps", np.zeros((2, 0, 3, 5), np.float16)), "its datasets do not fit together"),
        (lambda file: exchange(file, "maps", np.zeros((2, 3, 3, 0), np.float16)), "its datasets do not fit together"),
        (lambda file: exchange(file, "image_digests", np.zeros((2, 8), np.uint8)), "do not fit together"),
        (lambda file: exchange(file, "image_ids", np.arange(2)), "image_ids holds int64, not text"),
        (lambda file: exchange(file, "maps", file["maps"][:].astype("S4")), r"maps holds \|S4, not float16"),
        (lambda file: exchange(file, "maps", file["maps"][:].astype(np.float64)), "maps holds float64, not float16"),
        (
            lambda file: exchange(file, "thumbnails", file["thumbnails"][:].astype(np.float32)),
            "holds float32, not uint8",
        ),
        (lambda file: exchange(file, "sizes", file["sizes"][:].astype(np.float32)), "sizes holds float32, not int32"),
    ],
)
def test_a_file_that_lies_is_refused(spoil, message, tmp_path):
    path = write(tmp_path, rows_of(["a", "b"]))
    with h5py.File(path, "a") as file:
        spoil(file)
    with pytest.raises(InputError, match=message):
        describe_maps(path)


def test_a_map_that_is_not_finite_is_found_when_it_is_read(tmp_path):
    path = write(tmp_path, rows_of(["a", "b"]))
    with h5py.File(path, "a") as opened:
        maps = opened["maps"][:]
        maps[1, 2, 0, 4] = np.nan
        exchange(opened, "maps", maps)
    file = describe_maps(path)
    assert np.isfinite(read_maps(file, ["a"])).all()
    for read in (lambda: read_maps(file, ["b", "a"]), lambda: list(read_blocks(file, ["a", "b"]))):
        with pytest.raises(InputError, match=f"{path}: the map of b is not finite. Remove the file and run"):
            read()
    assert [damage.reason for _, _, damage in verify(FeatureCache(tmp_path))] == ["the map of b is not finite"]


def test_maps_of_other_channels_than_the_features_are_found(tmp_path):
    write_cache(tmp_path, ["a"], width=3)
    write(tmp_path, rows_of(["a"], shape=(3, 3, 5)))
    assert list(verify(FeatureCache(tmp_path)))[1][2].reason == "its maps have 5 channels, but the features 3"
    with pytest.raises(
        InputError, match=r"holds maps of shape \(3, 3, 5\), but net makes \(3, 3, 4\). Remove the file"
    ):
        write(tmp_path, rows_of(["a"]), rows_of(["b"], shape=(3, 3, 4)))


def test_maps_that_are_not_there_name_the_command(tmp_path):
    with pytest.raises(InputError, match=f"Run: python -m extract maps DATA --cache {tmp_path}"):
        describe_maps(maps_path(tmp_path, "train", "net"))
