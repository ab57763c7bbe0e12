"""`python -m extract heat`: maps times gradients and the rest are the logits; what cannot be shown is said."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import extract.pictures.heat as heat_module
from extract.__main__ import app
from extract.backbones.build import FrozenBackbone, build_maps
from extract.backbones.table import BACKBONES
from extract.backbones.weights import Weights
from features.common.errors import InputError
from features.common.keras_import import import_keras
from features.store.cache import FeatureCache
from features.store.gradients import Gradients, Pair, rounded, write_gradients
from tests.extract.stand_ins import write_images

LABELS = ("blood", "Brüche")


def call(*arguments) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def own(path: Path) -> FrozenBackbone:
    return FrozenBackbone.of_model("own", Weights("model", str(path), "0" * 32, path))


def explain(cache: Path, images: list[tuple[str, str]], backbones: tuple[str, ...]) -> Gradients:
    """Make up a model of two labels whose logits are exact for the cached features."""
    features = FeatureCache(cache)
    random = np.random.default_rng(0)
    pairs: list[Pair] = []
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in backbones}
    for split, image_id in images:
        digest = features.open(split, backbones[0]).index[image_id].hex()
        for label in range(2):
            logit = float(random.normal())
            pair = Pair(split, image_id, digest, label, (("example", 1), ("surest", 2)), 0.75, label == 0, logit, logit)
            for name in backbones:
                _, row = features.read(split, [name], [image_id])
                vectors[name].append(rounded(random.normal(size=row.shape[1]) / np.sqrt(row.shape[1])))
                pair = replace(pair, rest=pair.rest - float(row[0].astype(np.float64) @ vectors[name][-1]))
            pairs.append(pair)
    recipes = {name: features.open(images[0][0], name).recipe for name in backbones}
    stacked = {name: np.stack(rows) for name, rows in vectors.items()}
    members = {"ridge/all": (1.0, 1.0)}
    return Gradients(
        "0" * 32, "ridge/all", LABELS, 7, members, {"knn/all": "no"}, 0.9, "", (), recipes, tuple(pairs), stacked
    )


@pytest.fixture
def extracted(tmp_path, own_model):
    """Five train and two test images, and gradients for three of them by a small model of one's own."""
    write_images(tmp_path / "data" / "train", 5, side=40)
    write_images(tmp_path / "data" / "test", 2, side=40, seed=1)
    cv2.imwrite(str(tmp_path / "data" / "test" / "a001.png"), np.arange(512 * 100, dtype=np.uint8).reshape(512, 100))
    data, cache, run = tmp_path / "data", tmp_path / "cache", tmp_path / "run"
    assert call("run", data, "--backbone", f"own={own_model}", "--cache", cache)[0] == 0
    found = explain(cache, [("test", "a001"), ("train", "a003"), ("train", "a000")], ("own",))
    run.mkdir()
    write_gradients(run, found)
    return data, run, found


@pytest.mark.parametrize("name", ["efficientnet_lite1", "resnet50", "densenet121", "convnexttiny"])
def test_the_mean_of_a_map_is_the_pooled_feature_of_the_table(name, monkeypatch):
    keras = import_keras()
    row = BACKBONES[name]
    frozen = FrozenBackbone.of_table(row, Weights("random", "random", "", None), "float32", size=96)
    pooled = frozen.build()
    monkeypatch.setattr(FrozenBackbone, "build", lambda _: pooled)
    maps = build_maps(frozen)
    pixels = np.random.default_rng(0).normal(size=(1, 96, 96, 3)).astype(np.float32)
    found, expected = np.asarray(maps(pixels)), np.asarray(pooled(pixels))
    assert found.shape[3] == row.width
    assert found.shape[1] == found.shape[2] > 1
    np.testing.assert_allclose(found.mean(axis=(1, 2)), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert found.std(axis=(1, 2)).max() > 1e-3 * np.abs(expected).max()  # a map, not its mean in every place
    keras.backend.clear_session()


def test_a_model_of_ones_own_in_maps_or_with_a_known_pooling_has_maps(tmp_path, own_model):
    keras = import_keras()
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.float32)
    model = keras.saving.load_model(own_model)
    np.testing.assert_allclose(build_maps(own(own_model))(images), model(images), rtol=1e-5)
    pooled = keras.Sequential([model, keras.layers.GlobalAveragePooling2D()])
    pooled.save(tmp_path / "pooled.keras")
    np.testing.assert_allclose(build_maps(own(tmp_path / "pooled.keras"))(images), model(images), rtol=1e-5)


@pytest.mark.parametrize("ending", ["GlobalMaxPooling2D", "Flatten"])
def test_a_model_that_pools_in_another_way_is_refused(ending, tmp_path, own_model):
    keras = import_keras()
    layer = getattr(keras.layers, ending)
    keras.Sequential([keras.saving.load_model(own_model), layer(name="end")]).save(tmp_path / "other.keras")
    with pytest.raises(InputError, match=rf"other.keras ends in the layer end \({ending}\)"):
        build_maps(own(tmp_path / "other.keras"))


def test_the_maps_of_the_table_and_the_rest_are_the_logits(tmp_path, own_model):
    data, cache = tmp_path / "data", tmp_path / "cache"
    write_images(data / "train", 3, side=300)
    names = ("efficientnet_lite0", "own", "efficientnet_lite0.mid", "efficientnet_lite0.64.mid")
    sizes = "--sizes", "native,64"
    assert call("run", data, "--backbones", names[0], "--cache", cache, *sizes)[0] == 0
    assert call("run", data, "--backbone", f"own={own_model}", "--cache", cache)[0] == 0
    write_gradients(tmp_path, explain(cache, [("train", "a000"), ("train", "a002")], names))
    code, said = call("heat", data, tmp_path)
    assert code == 0, said
    assert json.loads((tmp_path / "cam" / "cam.json").read_text())["largest_error"] < 1e-4
    assert "warning" not in said


def test_the_files_of_a_run(extracted):
    data, run, found = extracted
    code, said = call("heat", data, run)
    assert code == 0, said
    assert "6 of 14 pairs of image and label (3 of 7 images) of" in said
    assert "3 thumbnails, 6 heat maps," in said
    assert "without a heat map, so left out: knn/all (10% of the shares)" in said
    cam = run / "cam"
    images = pd.read_csv(cam / "images.csv", dtype=str)
    assert images.to_numpy().tolist() == [
        ["test", "a001", "00000"],
        ["train", "a003", "00001"],
        ["train", "a000", "00002"],
    ]
    for place, ending in (
        ("thumbnails", "jpg"),
        *((f"{kind}/{label}", "png" if kind == "heat" else "jpg") for kind in ("heat", "overlays") for label in (0, 1)),
    ):
        assert sorted(path.name for path in (cam / place).iterdir()) == [f"{file}.{ending}" for file in images["file"]]
        assert Image.open(cam / place / f"00000.{ending}").size == (50, 256)
        assert Image.open(cam / place / f"00001.{ending}").size == (40, 40)
    grey = [
        np.asarray(Image.open(path).convert("L")).ravel()
        for path in (cam / "thumbnails" / "00001.jpg", data / "train" / "a003.png")
    ]
    assert np.corrcoef(grey)[0, 1] > 0.95
    record = json.loads((cam / "cam.json").read_text())
    assert record["largest_error"] < 1e-4
    assert (record["model"], record["labels"], record["no_heat"]) == ("ridge/all", list(LABELS), "")
    assert record["members"] == {"ridge/all": {"blood": 1, "Brüche": 1}}
    assert record["fingerprints"] == {"own": found.recipes["own"].fingerprint}
    boxes = pd.read_csv(cam / "boxes.csv")
    assert list(boxes.columns) == ["split", "ID", "label", "x0", "y0", "x1", "y1", "score", "heat"]
    assert set(boxes["label"]) == {"blood"}  # of which the model says yes
    assert set(boxes["score"]) == {0.75}
    assert (boxes["heat"] > 0).all()
    assert boxes.loc[boxes["ID"] == "a001", "y1"].max() > 256  # in pixels of the image, not of its thumbnail
    assert boxes.loc[boxes["ID"] != "a001", ["x1", "y1"]].max().max() <= 40
    pairs = pd.read_csv(cam / "pairs.csv", dtype=str)
    assert pairs.iloc[1].tolist() == ["test", "a001", "blood", "surest", "2", "0.75", "1", "00000"]
    assert len(pairs) == 12
    assert not list(run.glob(".cam*"))


def test_images_that_changed_or_are_missing_or_damaged_are_left_out_and_said(extracted):
    data, run, _ = extracted
    cv2.imwrite(str(data / "train" / "a003.png"), np.zeros((20, 30, 3), np.uint8))
    (data / "train" / "a000.png").write_bytes(b"\x89PNG broken")
    code, said = call("heat", data, run)
    assert code == 3, said
    changed = "it has changed since its features were extracted"
    assert f"not shown: 2 images (first: train/a003: {changed}): cam.json lists them" in said
    assert json.loads((run / "cam" / "cam.json").read_text())["images_left_out"] == {
        "train/a003": changed,
        "train/a000": changed,
    }
    assert list(pd.read_csv(run / "cam" / "images.csv")["ID"]) == ["a001"]
    (data / "test" / "a001.png").unlink()
    code, said = call("heat", data, run)
    assert (code, "none of the 3 images can be shown (first: test/a001: DATA does not have it)" in said) == (2, True)
    assert (run / "cam" / "thumbnails" / "00000.jpg").exists()  # the earlier pictures stay


def test_an_image_that_needs_too_much_memory_is_left_out_and_said(extracted, monkeypatch):
    data, run, _ = extracted
    decode = heat_module.decode

    def fail(encoded, image_id, reading):
        if image_id == "a003":
            raise MemoryError
        return decode(encoded, image_id, reading)

    monkeypatch.setattr(heat_module, "decode", fail)
    code, said = call("heat", data, run)
    assert (code, "train/a003: there is not enough memory to decode it" in said) == (3, True), said


def test_a_missing_image_that_the_table_names_is_a_fault_of_the_data_set(extracted):
    data, run, _ = extracted
    rows = [f"{path.stem},{number % 2}" for number, path in enumerate(sorted((data / "train").iterdir()))]
    (data / "train.csv").write_text("\n".join(["ID,blood", *rows]))
    assert call("heat", data, run)[0] == 0
    (data / "train" / "a003.png").unlink()
    code, said = call("heat", data, run)
    assert (code, "a003" in said) == (2, True), said


def test_predictions_of_a_plain_folder_are_drawn_from_it(extracted):
    data, run, found = extracted
    pairs = [pair for pair in found.pairs if pair.split == "train"]
    of_folder = [replace(pair, split="new") for pair in pairs]
    write_gradients(run, replace(found, pairs=tuple(of_folder), vectors={"own": found.vectors["own"][2:]}))
    code, said = call("heat", data / "train", run)
    assert code == 0, said
    assert set(pd.read_csv(run / "cam" / "images.csv")["split"]) == {"new"}
    write_gradients(run, replace(found, pairs=tuple(pairs), vectors={"own": found.vectors["own"][2:]}))
    assert call("heat", data / "train", run, "--split", "train")[0] == 0


def test_without_gradients_there_are_thumbnails_and_what_to_run(extracted):
    data, run, found = extracted
    bare = replace(found, recipes={}, vectors={}, no_heat="neither knn nor a member has one", instead=("ridge/all",))
    write_gradients(run, bare)
    code, said = call("heat", data, run)
    assert code == 0, said
    assert "3 thumbnails, 0 heat maps, 0 boxes" in said
    assert "without heat: neither knn nor a member has one" in said
    assert f".venv/bin/python -m classify gradients {run} --model ridge/all (or no other;" in said
    tables = {"images.csv", "boxes.csv", "pairs.csv", "cam.json"}
    assert {path.name for path in (run / "cam").iterdir()} == {"thumbnails", *tables}
    assert (run / "cam" / "boxes.csv").read_text() == "split,ID,label,x0,y0,x1,y1,score,heat\n"
    assert json.loads((run / "cam" / "cam.json").read_text())["no_heat"].startswith("neither knn")


def test_a_second_time_replaces_the_first_and_a_stop_in_between_leaves_it(extracted, monkeypatch):
    data, run, _ = extracted
    assert call("heat", data, run)[0] == 0
    (run / "cam" / "heat" / "9").mkdir()
    assert call("heat", data, run)[0] == 0
    assert not (run / "cam" / "heat" / "9").exists()

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(heat_module, "save_overlay", stop)
    assert CliRunner().invoke(app, ["heat", str(data), str(run)]).exit_code == 130
    assert (run / "cam" / "overlays" / "1" / "00002.jpg").exists()
    assert not list(run.glob(".cam*"))


def test_a_link_in_place_of_the_staging_folder_is_removed_and_what_it_leads_to_stays(extracted, tmp_path):
    data, run, _ = extracted
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    (run / ".cam.partial").symlink_to(tmp_path / "mine")
    code, said = call("heat", data, run)
    assert code == 0, said
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert not (run / "cam").is_symlink()
    assert not list(run.glob(".cam*"))


def test_heat_maps_of_a_run_that_is_replaced_meanwhile_are_not_published(extracted, monkeypatch):
    data, run, found = extracted
    assert call("heat", data, run)[0] == 0
    (run / "cam" / "heat" / "9").mkdir()

    def replaced(*arguments):
        write_gradients(run, replace(found, model="ridge/own"))
        return 0.0

    monkeypatch.setattr(heat_module, "_largest_error", replaced)
    code, said = call("heat", data, run)
    assert (code, "gradients.h5 was replaced meanwhile, so no heat map of it is kept. Run again" in said) == (2, True)
    assert (run / "cam" / "heat" / "9").exists()
    assert not list(run.glob(".cam*"))


@pytest.mark.parametrize(
    ("views", "why"),
    [
        (("identity",), "the backbones give other features on this"),
        (("identity", "hflip"), "they show the image as it is"),
    ],
)
def test_features_of_other_values_than_the_backbone_gives_here_are_a_warning(extracted, views, why):
    data, run, found = extracted
    found = replace(found, recipes={name: replace(recipe, views=views) for name, recipe in found.recipes.items()})
    shifted = tuple(replace(pair, rest=pair.rest + 0.25) for pair in found.pairs)
    write_gradients(run, replace(found, pairs=shifted))
    code, said = call("heat", data, run)
    assert (code, f"the heat maps miss the logits of ridge/all by up to 0.25: {why}" in said) == (0, True), said


def changed(found: Gradients, **fields) -> Gradients:
    return replace(found, recipes={"own": replace(found.recipes["own"], **fields)})


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda run, found: (run / "gradients.h5").unlink(), (), "gradients.h5 is not there"),
        (lambda run, found: (run / "cam").mkdir(), (), "holds no heat maps of Headbank (cam.json is missing)"),
        (lambda run, found: (run / "cam").symlink_to(run.parent), (), "cam is a link, which a folder of heat maps"),
        (
            lambda run, found: write_gradients(run, changed(found, weights_digest="1" * 32)),
            (),
            "were extracted in another way than now (weights_digest",
        ),
        (
            lambda run, found: write_gradients(run, changed(found, weights="gone.keras")),
            (),
            "gone.keras is not a",
        ),
        (lambda run, found: None, ("--split", "new", "--id-column", "x"), "--id-column is about a table"),
    ],
)
def test_what_cannot_be_drawn_is_one_message(spoil, options, message, extracted):
    data, run, found = extracted
    spoil(run, found)
    code, said = call("heat", data, run, *options)
    assert (code, message in said) == (2, True), said
    assert not (run / "cam" / "cam.json").exists()


def test_a_folder_of_one_split_is_not_a_data_set(extracted, tmp_path):
    data, run, _ = extracted
    code, said = call("heat", data / "train", run)
    assert (code, "not shown: 1 image (first: test/" in said) == (3, True), said
    code, said = call("heat", tmp_path / "nowhere", run)
    assert (code, "nowhere does not exist" in said) == (2, True), said


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Make room on its disk"),
        (errno.EFBIG, "Make room on its disk"),
        (errno.EROFS, "It can only be read there"),
    ],
)
def test_what_the_disk_refuses_is_said_with_what_helps(number, remedy, extracted, monkeypatch):
    data, run, _ = extracted

    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(heat_module, "save_overlay", refuse)
    code, said = call("heat", data, run)
    assert (code, f"cam cannot be written: {os.strerror(number)}. {remedy}" in said) == (2, True), said
