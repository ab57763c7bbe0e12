"""`python -m extract maps`: the mean of a map is the cached feature, and what is up to date is kept."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from extract import maps as extract_maps_module
from extract.__main__ import app
from extract.backbones.build import FrozenBackbone
from extract.backbones.table import BACKBONES
from extract.backbones.weights import Weights
from extract.feature_maps import build_maps
from features.common.errors import InputError
from features.common.files import hold
from features.common.keras_import import import_keras
from features.store.cache import FeatureCache
from features.store.maps import describe_maps, maps_path, read_maps, read_thumbnails
from tests.extract.stand_ins import write_images


def call(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def own(path: Path) -> FrozenBackbone:
    return FrozenBackbone.of_model("own", Weights("model", str(path), "0" * 32, path))


@pytest.fixture
def extracted(tmp_path, own_model):
    """Five train and two test images, their features by a small model of one's own, and the images' pixels."""
    images = write_images(tmp_path / "data" / "train", 5, side=40)
    write_images(tmp_path / "data" / "test", 2, side=40, seed=1)
    assert call("run", tmp_path / "data", "--backbone", f"own={own_model}", "--cache", tmp_path / "cache")[0] == 0
    return tmp_path / "data", tmp_path / "cache", images


@pytest.mark.parametrize("name", ["efficientnet_lite1", "resnet50", "densenet121", "convnexttiny"])
def test_the_mean_of_a_map_is_the_pooled_feature_of_the_table(name):
    keras = import_keras()
    row = BACKBONES[name]
    frozen = FrozenBackbone.of_table(row, Weights("random", "random", "", None), "float32")
    pooled, maps = frozen.build(), build_maps(frozen)
    pixels = np.random.default_rng(0).normal(size=(1, row.input_size, row.input_size, 3)).astype(np.float32)
    found, expected = np.asarray(maps(pixels)), np.asarray(pooled(pixels))
    assert found.shape[3] == row.width
    assert found.shape[1] == found.shape[2] > 1
    np.testing.assert_allclose(found.mean(axis=(1, 2)), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert found.std(axis=(1, 2)).max() > 1e-3 * np.abs(expected).max()  # a map, not its mean in every place
    keras.backend.clear_session()


def test_the_cached_features_are_the_means_of_the_maps_to_float16(tmp_path):
    data, cache, name = tmp_path / "data", tmp_path / "cache", "efficientnet_lite0"
    write_images(data / "train", 3, side=300)
    assert call("run", data, "--backbones", name, "--cache", cache)[0] == 0
    code, said = call("maps", data, "--ids", "a002,a000", "--cache", cache)
    assert code == 0, said
    assert "2 maps extracted, 0 were up to date" in said
    file = describe_maps(maps_path(cache, "train", name))
    assert (list(file.digests), file.shape) == (["a000", "a002"], (7, 7, 1280))
    assert file.fingerprint == FeatureCache(cache).fingerprint("train", name)
    _, features = FeatureCache(cache).read("train", [name], ["a000", "a002"])
    means = read_maps(file, ["a000", "a002"]).astype(np.float64).mean(axis=(1, 2))
    np.testing.assert_allclose(means, features, rtol=2**-10, atol=2**-10)  # half a step of float16 is 2**-11


def test_a_model_of_ones_own_in_maps_or_with_a_known_pooling_has_maps(tmp_path, own_model):
    keras = import_keras()
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.float32)
    model = keras.saving.load_model(own_model)
    np.testing.assert_allclose(build_maps(own(own_model))(images), model(images), rtol=1e-5)
    pooled = keras.Sequential([model, keras.layers.GlobalAveragePooling2D()])
    pooled.save(tmp_path / "pooled.keras")
    np.testing.assert_allclose(build_maps(own(tmp_path / "pooled.keras"))(images), model(images), rtol=1e-5)


@pytest.mark.parametrize("ending", ["GlobalMaxPooling2D", "Flatten"])
def test_a_model_that_pools_otherwise_is_refused(ending, tmp_path, own_model):
    keras = import_keras()
    layer = getattr(keras.layers, ending)
    keras.Sequential([keras.saving.load_model(own_model), layer(name="end")]).save(tmp_path / "other.keras")
    with pytest.raises(InputError, match=rf"other.keras ends in the layer end \({ending}\)"):
        build_maps(own(tmp_path / "other.keras"))


def test_maps_thumbnails_and_sizes_are_those_of_the_images(extracted, own_model):
    data, cache, images = extracted
    tall = np.random.default_rng(2).integers(0, 256, (512, 100, 3), np.uint8)
    cv2.imwrite(str(data / "train" / "tall.png"), tall)
    assert call("run", data, "--backbone", f"own={own_model}", "--cache", cache)[0] == 0
    assert call("maps", data, "--ids", "a001,tall", "--cache", cache)[0] == 0
    train = describe_maps(maps_path(cache, "train", "own"))
    assert (list(train.digests), list(describe_maps(maps_path(cache, "test", "own")).digests)) == (
        ["a001", "tall"],
        ["a001"],
    )
    small, large = read_thumbnails(train, ["a001", "tall"])
    np.testing.assert_array_equal(small[0], images["a001"])
    assert small[1] == (40, 40)
    assert (large[0].shape, large[1]) == ((256, 50, 3), (512, 100))
    np.testing.assert_allclose(large[0], tall[..., ::-1].reshape(256, 2, 50, 2, 3).mean(axis=(1, 3)), atol=1)


def test_what_is_up_to_date_is_kept_and_a_changed_image_with_its_features_is_not(extracted, own_model):
    data, cache, _ = extracted
    path = maps_path(cache, "train", "own")
    call("maps", data, "--ids", "a000,a001", "--cache", cache)
    before = describe_maps(path)
    kept = read_maps(before, ["a000"])
    assert "0 maps extracted, 4 were up to date" in call("maps", data, "--ids", "a000,a001", "--cache", cache)[1]
    cv2.imwrite(str(data / "train" / "a001.png"), np.zeros((20, 30, 3), np.uint8))
    assert call("run", data, "--backbone", f"own={own_model}", "--cache", cache)[0] == 0
    code, said = call("maps", data, "--ids", "a001,a002,a000", "--cache", cache)
    assert (code, "2 maps extracted, 3 were up to date" in said) == (0, True), said
    after = describe_maps(path)
    assert list(after.digests) == ["a000", "a001", "a002"]
    assert after.digests["a000"] == before.digests["a000"]
    assert after.digests["a001"] != before.digests["a001"]
    np.testing.assert_array_equal(read_maps(after, ["a000"]), kept)
    assert read_thumbnails(after, ["a001"])[0][1] == (20, 30)


@pytest.mark.parametrize("content", [b"\x89PNG broken", None], ids=["broken", "another image"])
def test_a_map_that_goes_with_the_features_outlives_its_image(content, extracted):
    data, cache, _ = extracted
    path = maps_path(cache, "train", "own")
    call("maps", data, "--ids", "a000,a001", "--cache", cache)
    before = describe_maps(path)
    kept = read_maps(before, ["a000", "a001"])
    image = data / "train" / "a001.png"
    image.write_bytes(content or cv2.imencode(".png", np.zeros((20, 30, 3), np.uint8))[1].tobytes())
    code, said = call("maps", data, "--ids", "a001,a002,a000", "--cache", cache)
    assert code == 3
    assert "1 maps extracted, 4 were up to date" in said  # a002; of a000 and a001 two in each split
    if content:
        assert "1 images could not be read (first: train/a001.png: the PNG file is cut off" in said
    else:
        assert (
            "1 images do not go with the features (first: train/a001.png: it was another file when its features were "
            "extracted by own): no new maps of them. Bring the features up to date, with the options that made them: "
            f"scripts/extract.sh DATA --cache {cache}; then run again."
        ) in said
    after = describe_maps(path)
    assert list(after.digests) == ["a000", "a001", "a002"]
    assert after.digests["a001"] == before.digests["a001"]
    np.testing.assert_array_equal(read_maps(after, ["a000", "a001"]), kept)


def test_an_image_without_features_has_no_map(extracted):
    data, cache, _ = extracted
    write_images(data / "train", 6, side=40)  # the first five are those of before
    code, said = call("maps", data, "--ids", "a005,a004", "--cache", cache)
    assert (code, "(first: train/a005.png: it has no features by own): no new maps" in said) == (3, True), said
    assert list(describe_maps(maps_path(cache, "train", "own")).digests) == ["a004"]


def test_where_no_image_goes_with_the_features_nothing_is_changed(extracted):
    data, cache, _ = extracted
    path = maps_path(cache, "train", "own")
    call("maps", data, "--ids", "a003,a004", "--cache", cache)
    before = path.read_bytes()
    for name in ("a003", "a004"):
        cv2.imwrite(str(data / "train" / f"{name}.png"), np.zeros((20, 30, 3), np.uint8))
    code, said = call("maps", data, "--ids", "a003,a004", "--cache", cache)
    assert (code, path.read_bytes() == before) == (2, True)
    assert "none of the 2 images is the file that its features are of (first: train/a003.png: it was another" in said
    assert f"scripts/extract.sh DATA --cache {cache}; then run again." in said


def test_an_image_that_is_written_anew_while_it_is_read_has_no_map(extracted, monkeypatch):
    data, cache, _ = extracted
    digest = extract_maps_module._digest

    def write_after(path):
        found = digest(path)
        if path.stem == "a003":
            cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))
        return found

    monkeypatch.setattr(extract_maps_module, "_digest", write_after)
    code, said = call("maps", data, "--ids", "a003,a004", "--cache", cache)
    assert (code, "(first: train/a003.png: it was written anew meanwhile)" in said) == (3, True), said
    assert list(describe_maps(maps_path(cache, "train", "own")).digests) == ["a004"]


def test_an_image_that_cannot_be_read_is_said_and_the_others_are_done(extracted):
    data, cache, _ = extracted
    (data / "train" / "a003.png").write_bytes(b"\x89PNG broken")
    code, said = call("maps", data, "--ids", "a003,a004", "--cache", cache)
    assert code == 3
    assert "1 images could not be read (first: train/a003.png: the PNG file is cut off" in said
    assert list(describe_maps(maps_path(cache, "train", "own")).digests) == ["a004"]


def test_maps_of_other_channels_than_the_features_are_refused(extracted):
    data, cache, _ = extracted
    call("maps", data, "--ids", "a000", "--cache", cache)
    path = maps_path(cache, "train", "own")
    with h5py.File(path, "a") as file:
        maps = file["maps"][..., :-1]
        del file["maps"]
        file["maps"] = maps
    code, said = call("maps", data, "--ids", "a000", "--cache", cache)
    width = maps.shape[3] + 1
    assert (code, f"its maps have {width - 1} channels, but the features {width}. Remove" in said) == (2, True), said


def write_run(folder: Path, cache: Path, gallery: list[tuple[str, str]]) -> Path:
    folder.mkdir()
    recipe = asdict(FeatureCache(cache).open("train", "own").recipe)
    record = {
        "cache": str(cache),
        "final_model": "mean",
        "models": {"mean": {"backbones": ["own"]}, "huge": {"backbones": ["own", "other"]}},
        "backbones": {"own": {"width": 4, "recipe": recipe}},
    }
    (folder / "run.json").write_text(json.dumps(record))
    with (folder / "gallery.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("label", "split", "ID"), *(("blood", *row) for row in gallery)])
    return folder


def test_a_run_says_which_images_and_backbones(extracted, tmp_path):
    data, cache, _ = extracted
    run = write_run(tmp_path / "run", cache, [("test", "a001"), ("train", "a000"), ("test", "a001")])
    code, said = call("maps", data, "--from", run, "--cache", cache)
    assert code == 0, said
    assert "maps of 1 test and 1 train images" in said or "maps of 1 train and 1 test images" in said
    assert list(describe_maps(maps_path(cache, "test", "own")).digests) == ["a001"]
    assert list(describe_maps(maps_path(cache, "train", "own")).digests) == ["a000"]


def test_a_run_knows_its_cache_and_ids_may_carry_the_extension(extracted, tmp_path):
    data, cache, _ = extracted
    first = min((data / "train").iterdir())
    run = write_run(tmp_path / "run", cache, [("train", first.stem)])
    code, said = call("maps", data, "--from", run)
    assert code == 0, said
    assert f"into {cache}" in said
    code, said = call("maps", data, "--ids", first.name, "--cache", cache)
    assert code == 0, said
    assert "1 maps extracted, 1 were up to date" in said  # test has an image of that id, too
    code, said = call("maps", data, "--from", tmp_path)
    assert (code, f"{tmp_path / 'run.json'} cannot be read" in said) == (2, True), said


def test_features_that_are_not_the_runs_are_refused(extracted, tmp_path):
    data, cache, _ = extracted
    run = write_run(tmp_path / "run", cache, [("test", "a001")])
    record = json.loads((run / "run.json").read_text())
    record["backbones"]["own"]["recipe"]["weights_digest"] = "f" * 32
    (run / "run.json").write_text(json.dumps(record))
    code, said = call("maps", data, "--from", run, "--cache", cache)
    assert (code, "was extracted otherwise than what" in said) == (2, True), said


def test_a_model_that_was_saved_anew_is_refused(extracted, tmp_path, own_model):
    data, cache, _ = extracted
    keras = import_keras()
    model = keras.saving.load_model(own_model)
    saved = own_model.read_bytes()
    try:
        model.set_weights([values + 1 for values in model.get_weights()])
        model.save(own_model)
        code, said = call("maps", data, "--ids", "a000", "--cache", cache)
    finally:
        own_model.write_bytes(saved)
    assert (code, "the features of own were extracted otherwise than its maps would be (weights_digest" in said) == (
        2,
        True,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the images by --ids a,b, or by --from RUN"),
        (["--ids", "a000", "--from", "run"], "name the images by --ids a,b, or by --from RUN"),
        (["--ids", "a000,zz,yy"], "--ids names 2 images that DATA does not have in test, train (first: yy)"),
        (["--from", "nowhere"], "nowhere/gallery.csv cannot be read"),
        (["--ids", "a000", "--backbones", "vgg16"], "vgg16.h5 is not there"),
    ],
)
def test_bad_options_are_one_message(arguments, message, extracted):
    data, cache, _ = extracted
    code, said = call("maps", data, "--cache", cache, *arguments)
    assert (code, message in said.replace("in train, test", "in test, train")) == (2, True), said
    assert not list(cache.glob("*/*.maps.h5"))


def test_one_extraction_of_maps_at_a_time(extracted):
    data, cache, _ = extracted
    path = maps_path(cache, "train", "own")
    with hold(path.with_name(f"{path.name}.lock")):
        code, said = call("maps", data, "--ids", "a000", "--cache", cache)
    assert (code, "own.maps.h5 is being worked on by process" in said) == (2, True), said


def test_a_kill_in_the_middle_leaves_the_file_of_before(extracted, monkeypatch):
    data, cache, _ = extracted
    call("maps", data, "--ids", "a000", "--cache", cache)
    before = maps_path(cache, "train", "own").read_bytes()

    def stop(pixels):
        raise KeyboardInterrupt

    monkeypatch.setattr(extract_maps_module, "draw_thumbnail", stop)
    result = CliRunner().invoke(app, ["maps", str(data), "--ids", "a000,a001", "--cache", str(cache)])
    assert result.exit_code == 130
    assert maps_path(cache, "train", "own").read_bytes() == before
    assert not list(cache.glob("*/.*tmp"))


def test_a_backbone_may_not_be_named_like_a_file_of_maps(extracted, own_model):
    data, cache, _ = extracted
    code, said = call("run", data, "--backbone", f"own.maps={own_model}", "--cache", cache)
    assert (code, "files of feature maps are called so" in said) == (2, True), said
