"""`python -m features map` and `similar`: neighbours by brute force, clusters, samples, errors, hostile names."""

import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

from features.__main__ import app
from features.audit.near import Whitening, whiten
from features.map.images import CachedImages, find_cached
from features.map.layout import lay_out_linear, lay_out_neighbours
from features.map.neighbours import find_nearest, find_neighbours
from features.map.sample import draw_sample
from features.map.thumbnails import Thumbnails
from features.options import KnownOptions
from features.store.cache import FeatureCache
from tests.features.map.conftest import (
    HOSTILE,
    HOSTILE_GROUP,
    LABELS,
    TEST,
    TRAIN,
    decode_picture,
    embedded_of,
)
from tests.features.store.caches import digest_of_image, write_cache


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, " ".join(result.output.split())


def brute_force(points: np.ndarray, count: int) -> np.ndarray:
    """The nearest others of each of the first 150 points, nearest first, one by one."""
    nearest = []
    for row, own in enumerate(points[:150]):
        others = [other for other in range(len(points)) if other != row]
        nearest.append(sorted(others, key=lambda other: -float(own @ points[other]))[:count])
    return np.array(nearest)


def made_up(labels: np.ndarray, splits: list[str]) -> CachedImages:
    """Images of which only labels and splits matter."""
    count = len(labels)
    ids = np.array([f"i{row}" for row in range(count)], object)
    names = tuple(f"l{number}" for number in range(labels.shape[1]))
    blank = np.full(count, "", object)
    errors = np.full(labels.shape, np.nan, np.float32)
    return CachedImages(blank, ids, np.array(splits, object), names, labels, blank, errors, "", ())


@pytest.mark.parametrize("count", [1, 7, 699, 5000])
def test_neighbours_are_those_of_brute_force(count):
    points = np.random.default_rng(0).normal(size=(700, 8)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    rows, cosines = find_neighbours(points, count)
    assert rows.shape == (700, min(count, 699))
    assert np.array_equal(rows[:60, :7], brute_force(points, min(count, 7))[:60])
    assert all(len({row, *own}) == len(own) + 1 for row, own in enumerate(rows.tolist()))
    exact = np.sort(points.astype(float) @ points.T.astype(float) - 9 * np.eye(700))[:, ::-1]
    np.testing.assert_allclose(cosines, exact[:, : rows.shape[1]], atol=1e-6)


def test_the_nearest_of_one_are_its_neighbours_on_the_map():
    features = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    rows, cosines = find_neighbours(whiten([features, features[:, :5]]), 9)
    nearest, alike = find_nearest([features, features[:, :5]], 41, 9)
    assert nearest.tolist() == rows[41].tolist()
    np.testing.assert_allclose(alike, cosines[41], atol=1e-5)


def test_of_few_images_the_cosine_of_centred_features_counts():
    features = np.random.default_rng(0).normal(size=(9, 30)).astype(np.float32)
    centred = features - features.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    nearest, alike = find_nearest([features], 2, 8)
    assert nearest.tolist() == brute_force(centred, 8)[2].tolist()
    np.testing.assert_allclose(alike, centred[nearest] @ centred[2], atol=1e-5)


def test_a_whitening_gives_other_images_the_points_that_they_have_among_all():
    features = np.random.default_rng(0).normal(size=(200, 15)).astype(np.float32)
    some = np.array([3, 77, 199])
    points = Whitening.of([features]).points([features[some]])
    np.testing.assert_allclose(points, whiten([features])[some], atol=1e-6)


def test_the_layout_keeps_clusters_together_and_is_the_same_again():
    rng = np.random.default_rng(1)
    cluster = np.arange(240) % 30
    features = (3 * rng.normal(size=(30, 40))[cluster] + rng.normal(size=(240, 40))).astype(np.float32)
    linear, share = lay_out_linear([features])
    points = whiten([features])
    laid = lay_out_neighbours(points, linear)
    away = np.linalg.norm(laid[:, None] - laid, axis=2)
    np.fill_diagonal(away, np.inf)
    nearest = np.argsort(away, axis=1)[:, :5]
    assert (cluster[nearest] == cluster[:, None]).mean() > 0.95
    assert np.array_equal(laid, lay_out_neighbours(points, linear))
    centred = features - features.mean(axis=0)
    spread = np.linalg.svd(centred, compute_uv=False) ** 2
    assert share == pytest.approx(spread[:2].sum() / spread.sum(), rel=1e-3)


def test_a_sample_keeps_rare_labels_and_splits_and_is_the_same_again():
    labels = np.zeros((5000, 3), np.uint8)
    labels[::2, 0], labels[[7, 4321], 1], labels[4000:4030, 2] = 1, 1, 1
    images = made_up(labels, ["train"] * 4990 + ["test"] * 10)
    rows = draw_sample(images, 100)
    assert len(set(rows.tolist())) == 100
    assert (np.diff(rows) > 0).all()
    assert labels[rows, 1].sum() == 2
    assert labels[rows, 2].sum() >= 10
    assert (images.splits[rows] == "test").sum() == 10
    assert np.array_equal(rows, draw_sample(images, 100))
    assert len(draw_sample(images, 5000)) == 5000
    assert len(draw_sample(images, 3)) == 3


def test_the_page_has_all_images_with_labels_groups_and_neighbours(clustered, tmp_path):
    code, said = call("map", clustered.cache, "--data", clustered.data, "--out", tmp_path)
    assert code == 0, said
    assert "map of 150 images (test 30, train 120) by net" in said
    data = embedded_of((tmp_path / "map.html").read_text())
    assert sorted(data["ids"]) == sorted((*TRAIN, *TEST))
    row = {image_id: place for place, image_id in enumerate(data["ids"])}
    assert [data["splits"][data["split"][row[i]]] for i in ("t005", "e005")] == ["train", "test"]
    assert data["labels"] == list(LABELS)
    for image_id in TRAIN:
        own = clustered.cluster[image_id]
        assert [column[row[image_id]] for column in data["values"]] == [own == 0, own == 1]
    assert [column[row["e000"]] for column in data["values"]] == [-1, -1]
    assert data["groups"][data["group"][row["t000"]]] == HOSTILE_GROUP
    features = np.stack([clustered.features[image_id] for image_id in data["ids"]])
    assert data["nearest"] == brute_force(whiten([features]), 12).tolist()
    assert decode_picture(data["pictures"][str(row["t042"])]) == pytest.approx(42, abs=2)
    assert len(data["pictures"]) == 61
    assert "61 of 150 images" in said
    linear, _ = lay_out_linear([features])
    for name, laid in (
        ("principal components", linear),
        ("t-SNE", lay_out_neighbours(whiten([features]), linear)),
    ):
        shown = np.array(data["layouts"][name])
        assert shown.min() == 0
        assert shown.max() == 10_000
        for axis in (0, 1):
            assert np.corrcoef(shown[axis], laid[:, axis])[0, 1] > 0.9999


def test_errors_are_those_of_the_final_model_of_the_run(clustered, tmp_path):
    code, said = call("map", clustered.cache, "--run", clustered.run, "--out", tmp_path, "--split", "train")
    assert code == 0, said
    data = embedded_of((tmp_path / "map.html").read_text())
    assert data["model"] == "best"
    assert data["ids"] == list(TRAIN)
    truth = np.array([[clustered.cluster[i] == 0, clustered.cluster[i] == 1] for i in TRAIN], float)
    np.testing.assert_allclose(np.array(data["errors"]).T / 100, abs(clustered.probabilities - truth), atol=0.0051)


def test_an_image_that_no_label_or_error_is_known_of_says_so(clustered):
    options = KnownOptions(cache=clustered.cache, run=clustered.run)
    images, _ = find_cached(FeatureCache(clustered.cache), options)
    test = images.stored == "test"
    assert np.isnan(images.errors[test]).all()
    assert not np.isnan(images.errors[~test]).any()
    assert {images.say_labels(row) for row in np.flatnonzero(test)} == {"not known"}


def test_a_hostile_name_runs_nothing(clustered, tmp_path):
    call("map", clustered.cache, "--data", clustered.data, "--out", tmp_path)
    page = (tmp_path / "map.html").read_text()
    tags: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append(tag)

    Tags().feed(page)
    assert tags.count("script") == 2
    assert tags.count("img") == 1  # its own
    assert HOSTILE not in page
    assert HOSTILE_GROUP not in page
    assert HOSTILE in embedded_of(page)["ids"]


def test_a_sample_is_said_before_the_work(clustered, tmp_path):
    code, said = call("map", clustered.cache, "--data", clustered.data, "--out", tmp_path, "--most", 40)
    assert code == 0, said
    assert "sample: 40 of 150 images" in said
    assert "then t-SNE of whitened features (perplexity 13, seed 0)" in said
    page = (tmp_path / "map.html").read_text()
    assert len(embedded_of(page)["ids"]) == 40
    assert "This is a sample" in page


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_very_few_images_have_a_map(tmp_path, count):
    write_cache(tmp_path / "cache", [f"i{number}" for number in range(count)])
    code, said = call("map", tmp_path / "cache")
    assert code == 0, said
    data = embedded_of((tmp_path / "cache" / "map" / "map.html").read_text())
    assert len(data["ids"]) == count
    assert len(data["nearest"][0]) == count - 1
    assert ("of fewer than 8 images there is no t-SNE" in said) == (count < 8)


def test_images_that_have_no_features_are_counted(clustered, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(clustered.cache / "train", cache / "train")
    code, said = call("similar", cache, "--data", clustered.data, "--id", "t001")
    assert code == 0, said
    assert f"30 images of {clustered.data} not in the cache: e000, e001, e002 and 27 more" in said
    code, said = call("similar", clustered.cache, "--data", clustered.data, "--id", "t001", "--split", "train")
    assert code == 0, said
    assert "not in the cache" not in said


def test_similar_lists_the_nearest_with_what_is_known(clustered):
    code, said = call("similar", clustered.cache, "--data", clustered.data, "--id", "t030", "-k", 3)
    assert code == 0, said
    ids = [*TEST, *TRAIN]  # the order of the cache's folders
    points = whiten([np.stack([clustered.features[image_id] for image_id in ids])])
    nearest = brute_force(points, 3)[ids.index("t030")]
    assert "t030 (train; group p7; labels bleed): the nearest 3 of 149 other images" in said
    at = [said.index(f" {ids[row]} ") for row in nearest]
    assert at == sorted(at)
    assert f"{points[ids.index('t030')] @ points[nearest[0]]:.3f}" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["similar", "CACHE", "--id", "t03"], "--id 't03' is not one of the 150 images"),
        (["similar", "CACHE", "--id", "t030", "--split", "none"], "--split 'none': none is not a split of the cache"),
        (["map", "CACHE", "--backbones", "nets"], "nets is not cached for all splits. Expected some of net."),
        (["map", "CACHE", "--data", "DATA", "--run", "RUN"], "a run knows its labels. Give one of them."),
        (["map", "CACHE", "--run", "DATA"], "is not a run: run.json or labels.csv is missing"),
        (["map", "CACHE", "--data", "OTHER"], "holds no image of"),
        (["map", "OTHER"], "holds no cache file"),
    ],
)
def test_bad_input_is_one_message(clustered, tmp_path, words, says):
    other = tmp_path / "other"
    shutil.copytree(clustered.data, other)
    for path in (other / "train").iterdir():
        path.rename(path.with_name(f"new{path.name}"))
    for path in (other / "test").iterdir():
        path.rename(path.with_name(f"new{path.name}"))
    table = (other / "train.csv").read_text().splitlines()
    (other / "train.csv").write_text("\n".join([table[0], *(f"new{line}" for line in table[1:])]) + "\n")
    places = {"CACHE": clustered.cache, "DATA": clustered.data, "RUN": clustered.run, "OTHER": other}
    code, said = call(*(places.get(word, word) for word in words))
    assert code == 2
    assert says in said


def test_an_id_of_two_splits_asks_for_one(tmp_path):
    for split in ("train", "test"):
        write_cache(tmp_path, ["a", "b", "c"], split)
    assert call("similar", tmp_path, "--id", "a") == (
        2,
        "error: --id 'a' is an image of test and of train. Name one of them with --split.",
    )
    code, said = call("similar", tmp_path, "--id", "a", "--split", "test")
    assert code == 0
    assert "the nearest 2 of 2 other images" in said


def test_out_of_fold_probabilities_that_miss_an_image_are_named(clustered, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(clustered.run, run)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "final_model": "third"}))
    code, said = call("map", clustered.cache, "--run", run, "--out", tmp_path)
    assert code == 2
    assert "oof_probability.csv misses images of the run" in said


def test_a_damaged_archive_of_pictures_is_named(clustered, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(clustered.cache, cache)
    path = cache / "train" / "thumbnails" / "00000.zip"
    content = bytearray(path.read_bytes())
    content[60] ^= 255
    path.write_bytes(content)
    code, said = call("map", cache)
    assert code == 2
    assert f"{path} is damaged" in said
    assert "Remove it, and run:" in said


def test_pictures_are_found_by_the_digest_of_the_image(tmp_path):
    store = Thumbnails(tmp_path, "train")
    store.add({digest_of_image("a"): b"one"})
    store.add({digest_of_image("b"): b"two"})
    assert store.digests() == {digest_of_image("a"), digest_of_image("b")}
    assert store.read([digest_of_image("b"), digest_of_image("c")]) == {digest_of_image("b"): b"two"}
