"""Features on the disk are those that a read into memory gives, whichever rows are asked for."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.common.errors import InputError
from features.store import mapped
from features.store.cache import FeatureCache
from features.store.cache_file import DamagedFile
from features.store.mapped import MappedFeatures, in_blocks, join_rows, take_rows, widen
from tests.features.store.caches import RECIPE, digests_of, rows_of, write_rows


def write(cache: Path, split: str, backbone: str, values: np.ndarray) -> list[str]:
    """Write a cache file that holds these features, (N, V, D); return the ids."""
    rows = rows_of(digests_of(f"{split}{number}" for number in range(len(values))))
    recipe = replace(RECIPE, backbone=backbone, views=tuple("abc")[: values.shape[1]], storage=str(values.dtype))
    write_rows(cache, replace(rows, features=values), split, recipe)
    return list(rows.image_ids)


def numbers(seed: int, *shape: int, dtype: str = "float16") -> np.ndarray:
    """Give features drawn by a seed."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.fixture(scope="module")
def cached(tmp_path_factory) -> tuple[FeatureCache, list[str]]:
    """Two backbones of 300 images: float16 of one view, float32 of three."""
    cache = tmp_path_factory.mktemp("cache")
    ids = write(cache, "train", "half", numbers(0, 300, 1, 5))
    write(cache, "train", "views", numbers(1, 300, 3, 4, dtype="float32"))
    return FeatureCache(cache), ids


@settings(deadline=None, max_examples=60)
@given(data=st.data(), tta=st.sampled_from(["mean", "none"]))
def test_any_rows_of_any_images_are_those_that_are_read(cached, data, tta):
    cache, ids = cached
    wanted = [ids[row] for row in data.draw(st.lists(st.integers(0, 299), min_size=1, max_size=400, unique=True))]
    backbones = data.draw(st.sampled_from([["half"], ["half", "views"], ["views", "half"]]))
    _, expected = cache.read("train", backbones, wanted, tta)
    features = cache.map("train", backbones, wanted, tta)
    assert features.shape == expected.shape
    assert len(features) == len(wanted)
    for most in (0, 1 << 28):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mapped, "MOST_LOADED", most)
            loaded = features.load()
        assert isinstance(loaded, MappedFeatures) == (most == 0)
        np.testing.assert_array_equal(loaded, expected)
    rows = np.array(data.draw(st.lists(st.integers(0, len(wanted) - 1), max_size=50)), np.int64)
    np.testing.assert_array_equal(features[rows], expected[rows])
    np.testing.assert_array_equal(take_rows(features, rows)[:], expected[rows])
    flags = np.isin(np.arange(len(wanted)), rows)
    np.testing.assert_array_equal(features[flags], expected[flags])
    width = cache.open("train", backbones[0]).width
    for columns in (slice(0, width), slice(width, None), slice(0, 0), slice(None)):
        np.testing.assert_array_equal(features[:, columns][rows], expected[:, columns][rows])


def test_splits_behind_one_another_are_read_from_their_own_files(tmp_path):
    expected = [numbers(seed, count, 1, 3) for seed, count in ((0, 140), (1, 7))]
    ids = [write(tmp_path, split, "net", own) for split, own in zip(("train", "test"), expected, strict=True)]
    cache = FeatureCache(tmp_path)
    parts = [cache.map(split, ["net"], own) for split, own in zip(("train", "test"), ids, strict=True)]
    whole = np.concatenate(expected)[:, 0].astype(np.float32)
    order = np.random.default_rng(2).permutation(147)
    joined = join_rows(parts)
    assert isinstance(joined, MappedFeatures)
    np.testing.assert_array_equal(take_rows(joined, order)[:], whole[order])
    np.testing.assert_array_equal(joined.take(order).load(), whole[order])
    np.testing.assert_array_equal(join_rows([parts[0], parts[1][:]]), whole)


def test_float16_is_widened_exactly():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(-1, 16)
    out = np.empty((len(finite), 40), np.float32)[:, 10:26]
    widen(finite, out)
    assert out.tobytes() == finite.astype(np.float32).tobytes()  # of 0 the sign too


def test_blocks_are_all_rows_once(monkeypatch):
    monkeypatch.setattr(mapped, "BLOCK", 4)
    assert [*in_blocks(9)] == [slice(0, 4), slice(4, 8), slice(8, 9)]
    assert [*in_blocks(0)] == []


def test_a_slice_that_cuts_a_backbone_is_our_fault(cached):
    cache, ids = cached
    with pytest.raises(AssertionError, match="cuts a backbone"):
        cache.map("train", ["half", "views"], ids)[:, :3]


@pytest.mark.parametrize("most", [0, 1 << 28])
def test_damage_in_a_block_that_is_needed_is_found_before_it_is_used(tmp_path, monkeypatch, most):
    monkeypatch.setattr(mapped, "MOST_LOADED", most)
    values = numbers(0, 300, 1, 5)
    ids = write(tmp_path, "train", "net", values)
    path = tmp_path / "train" / "net.h5"
    content = bytearray(path.read_bytes())
    content[content.index(values[140].tobytes())] ^= 1
    path.write_bytes(content)
    FeatureCache(tmp_path).map("train", ["net"], ids[:128]).load()
    with pytest.raises(DamagedFile, match=r"rows 128 to 255 \(images train128 to train255\)"):
        FeatureCache(tmp_path).map("train", ["net"], ids).load()


@pytest.mark.parametrize("most", [0, 1 << 28])
def test_features_that_are_not_finite_are_refused_by_image(tmp_path, monkeypatch, most):
    monkeypatch.setattr(mapped, "MOST_LOADED", most)
    values = numbers(0, 300, 2, 5)
    values[[7, 200], 0, 3] = np.nan
    ids = write(tmp_path, "train", "net", values)
    for tta in ("mean", "none"):
        with pytest.raises(DamagedFile, match="the features of image train7 are not finite, and 2 of 300 images"):
            FeatureCache(tmp_path).map("train", ["net"], ids, tta).load()


def test_features_on_the_disk_travel_as_paths(tmp_path):
    ids = write(tmp_path, "train", "half", numbers(0, 300, 1, 5))
    features = FeatureCache(tmp_path).map("train", ["half"], ids, "mean")
    travelling = pickle.dumps(features)
    assert len(travelling) < 300 * 16  # the number of each row, and little else
    np.testing.assert_array_equal(pickle.loads(travelling)[:], features[:])
    write(tmp_path, "train", "half", numbers(1, 300, 1, 5))
    with pytest.raises(InputError, match=r"does not see \S*half\.h5 as this one does\. Data set and cache have to lie"):
        pickle.loads(travelling)
