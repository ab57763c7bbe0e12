"""extract.backbones.own_model: a foreign file is checked before Keras opens it, and features come from any layer."""

import json
import logging
import sys
import zipfile

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from extract.__main__ import app
from extract.backbones.build import FrozenBackbone, _load_weights
from extract.backbones.own_model import load_own_model
from extract.backbones.weights import Weights
from extract.images.reading import Reading
from features.common.errors import InputError
from features.common.keras_import import import_keras
from features.store.recipe import Recipe, extract_options


@pytest.fixture(scope="module")
def keras():
    return import_keras()


@pytest.fixture(scope="module")
def classifier(keras, tmp_path_factory):
    """A file whose model ends in softmax, and the model."""
    keras.utils.set_random_seed(3)
    layers = [
        keras.Input((9, 9, 3)),
        keras.layers.Conv2D(4, 3, name="maps"),
        keras.layers.GlobalAveragePooling2D(name="pooled"),
        keras.layers.Dense(2, activation="softmax", name="classes"),
    ]
    model = keras.Sequential(layers)
    path = tmp_path_factory.mktemp("own") / "mine.keras"
    model.save(path)
    return path, model


def own(path):
    return Weights("model", str(path), "0" * 32, path)


def test_a_model_that_ends_in_softmax_is_named_with_the_layer_before(classifier, caplog):
    path, _ = classifier
    with caplog.at_level(logging.WARNING):
        FrozenBackbone.of_model("mine", own(path))
    assert f"{path} ends in softmax (layer classes): its features are the probabilities of 2 classes" in caplog.text
    assert "--layer pooled takes what an earlier layer gives" in caplog.text
    caplog.clear()
    FrozenBackbone.of_model("mine", own(path), layers={"last": "pooled"})
    assert not caplog.records


@pytest.mark.parametrize(("layer", "pooling"), [("maps", "avg"), ("pooled", "model")])
def test_features_come_from_the_layer_and_it_is_part_of_the_recipe(keras, classifier, layer, pooling):
    path, model = classifier
    frozen = FrozenBackbone.of_model("mine", own(path), layers={"last": layer})
    images = np.random.default_rng(0).random((2, 9, 9, 3)).astype(np.float32)
    expected = np.asarray(keras.Model(model.inputs, model.get_layer("pooled").output)(images))
    np.testing.assert_allclose(frozen.build()(images), expected, rtol=1e-5)
    recipe = frozen.recipes("float32", Reading())[0]
    assert (recipe.layer, recipe.pooling) == (layer, pooling)
    whole = FrozenBackbone.of_model("mine", own(path)).recipes("float32", Reading())[0]
    assert recipe.fingerprint != whole.fingerprint
    assert Recipe.from_attributes(recipe.attributes()) == recipe
    assert extract_options({"mine": recipe})[0][:4] == ["--backbone", f"mine={path}", "--layer", layer]
    assert "--layer" not in extract_options({"mine": whole})[0]
    assert FrozenBackbone.of_model("mine", own(path), layers={"last": layer}, cached=[recipe]) == frozen


def test_a_layer_that_is_not_there_is_refused_with_those_that_are(classifier):
    with pytest.raises(InputError, match=r"--layer pool: .* from its end: classes, pooled, maps"):
        FrozenBackbone.of_model("mine", own(classifier[0]), layers={"last": "pool"})


@pytest.fixture(scope="module")
def tokens(keras, tmp_path_factory):
    """A file whose model gives 18 tokens of 5 numbers, two of them before the 4 x 4 of the image, and the model."""
    keras.utils.set_random_seed(3)
    image = keras.Input((16, 16, 3))
    patches = keras.layers.Reshape((16, 5), name="patches")(keras.layers.Conv2D(5, 4, strides=4)(image))
    both = keras.layers.Concatenate(axis=1, name="tokens")([keras.layers.Dense(5)(patches[:, 3:5]), patches])
    model = keras.Model(image, both)
    path = tmp_path_factory.mktemp("own") / "tokens.keras"
    model.save(path)
    return path, model


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
def test_tokens_are_pooled_and_the_pooling_is_part_of_the_recipe(keras, tokens, pooling):
    path, model = tokens
    keras.backend.clear_session()  # as in a process of its own, Keras counts its default names from the start
    frozen = FrozenBackbone.of_model("mine", own(path), pooling=pooling)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    found = model.predict(images.astype(np.float32), verbose=0)
    parts = {"cls": found[:, 0], "mean": found[:, 2:].mean(axis=1)}
    expected = np.concatenate([parts[part] for part in pooling.split("+")], axis=1)
    (features,) = frozen.compile(2, "tensorflow", images)(images)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5 * expected.std())
    recipe = frozen.recipes("float32", Reading())[0]
    assert recipe.pooling == pooling
    assert extract_options({"mine": recipe})[0][:4] == ["--backbone", f"mine={path}", "--pooling", pooling]
    assert FrozenBackbone.of_model("mine", own(path), cached=[recipe], pooling=pooling) == frozen
    assert FrozenBackbone.of_model("mine", own(path), cached=[recipe]) == frozen
    other = FrozenBackbone.of_model("mine", own(path), cached=[recipe], pooling="mean" if pooling == "cls" else "cls")
    assert other.recipes("float32", Reading())[0].fingerprint != recipe.fingerprint


def test_what_becomes_of_tokens_is_asked_for_and_held_to_them(keras, tokens, classifier, tmp_path):
    with pytest.raises(InputError, match=r"gives tokens \(None, 18, 5\)\. Say what becomes of them: --pooling cls "):
        FrozenBackbone.of_model("mine", own(tokens[0]))
    with pytest.raises(InputError, match=r"--pooling cls\+mean: .* all of them of the image, .* Use --pooling mean"):
        FrozenBackbone.of_model("mine", own(tokens[0]), layers={"last": "patches"}, pooling="cls+mean")
    with pytest.raises(InputError, match=r"--pooling cls is of tokens \(B, T, D\), and .* gives \(None, 2\)"):
        FrozenBackbone.of_model("mine", own(classifier[0]), pooling="cls")
    inputs = keras.Input((16, 16, 3))
    keras.Model(inputs, keras.layers.Reshape((24, 32))(inputs)).save(tmp_path / "mine.keras")
    with pytest.raises(InputError, match=r"--pooling mean: .* tokens \(None, 24, 32\), and which .* cannot be told"):
        FrozenBackbone.of_model("mine", own(tmp_path / "mine.keras"), pooling="mean")
    assert FrozenBackbone.of_model("mine", own(tmp_path / "mine.keras"), pooling="cls").pooling == "cls"


def test_of_several_outputs_one_is_asked_for(keras, net, tmp_path):
    _, model = net
    path = tmp_path / "mine.keras"
    pyramid = {"P1": model.get_layer("block1").output, "P2": model.get_layer("block2").output}
    keras.Model(model.input, pyramid).save(path)
    shapes = r"block1 \(None, 8, 8, 5\), block2 \(None, 4, 4, 6\)"
    with pytest.raises(InputError, match=rf"gives 2 outputs, from its layers {shapes}\. Name one: --layer NAME"):
        FrozenBackbone.of_model("mine", own(path))
    images = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    expected = np.asarray(keras.Model(model.input, pyramid["P2"])(images)).mean(axis=(1, 2))
    chosen = FrozenBackbone.of_model("mine", own(path), layers={"last": "block2"})
    np.testing.assert_allclose(chosen.build()(images), expected, rtol=1e-5)
    keras.Model(model.input, {"P2": pyramid["P2"]}).save(path)  # the only one is taken
    np.testing.assert_allclose(FrozenBackbone.of_model("mine", own(path)).build()(images), expected, rtol=1e-5)


def write_archive(path, config, weights=None):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
        if weights is not None:
            archive.write(weights, "model.weights.h5")


def test_what_is_no_model_is_named_before_keras_opens_it(tmp_path, monkeypatch):
    monkeypatch.setattr("extract.backbones.own_model.import_keras", lambda: pytest.fail("Keras opened it"))
    path = tmp_path / "mine.keras"
    path.touch()
    with pytest.raises(InputError, match=r"mine\.keras cannot be loaded: it is empty\. A backbone is a model saved"):
        load_own_model(path)
    path.write_bytes(b"PK text")
    with pytest.raises(InputError, match=r"mine\.keras cannot be loaded: it is not whole, or no \.keras file"):
        load_own_model(path)
    write_archive(path, "[" * 100_000)
    with pytest.raises(InputError, match=r"mine\.keras cannot be loaded: "):
        load_own_model(path)


@pytest.mark.parametrize(
    "layer", [{"module": "keras_hub.src.models.vit.vit_backbone"}, {"registered_name": "keras_hub>ViTBackbone"}]
)
def test_keras_hub_is_named_where_it_is_missing(tmp_path, monkeypatch, layer):
    monkeypatch.setitem(sys.modules, "keras_hub", None)  # as if it were not installed
    config = {"class_name": "Functional", "config": {"layers": [{"class_name": "ViTBackbone", "config": {}, **layer}]}}
    write_archive(tmp_path / "mine.keras", json.dumps(config))
    result = CliRunner().invoke(app, ["check", "--backbone", f"mine={tmp_path / 'mine.keras'}"])
    assert result.exit_code == 2
    assert "mine.keras has layers of the package keras-hub, which cannot be imported" in result.output
    assert "Run: .venv/bin/pip install --no-deps keras-hub regex tokenizers" in result.output


@pytest.mark.parametrize("config", [{"batch_shape": [None, 100_000, 100_000, 3]}, {"image_shape": [100_000] * 2 + [3]}])
def test_an_input_without_end_is_refused_before_keras_opens_it(tmp_path, config):
    layer = {"class_name": "InputLayer", "config": config}
    write_archive(tmp_path / "mine.keras", json.dumps({"config": {"layers": [layer]}}))
    with pytest.raises(InputError, match=r"takes inputs of shape \(None, 100000, 100000, 3\): a side may have 4,096"):
        load_own_model(tmp_path / "mine.keras")


def test_weights_that_their_file_cannot_hold_are_refused(keras, classifier, tmp_path):
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", (3, 1, 1 << 40), np.float32, chunks=(1, 1, 1 << 20))
    with pytest.raises(InputError, match=r"net\.weights\.h5 does not fit .* has shape \(3, 1, 1099511627776\)"):
        _load_weights(classifier[1], path)
    write_archive(tmp_path / "mine.keras", "{}", path)
    with pytest.raises(InputError, match=r"mine\.keras cannot be loaded: .* has shape \(3, 1, 1099511627776\)"):
        load_own_model(tmp_path / "mine.keras")


@pytest.fixture
def net(keras, tmp_path):
    """A small network with a residual block at each of three resolutions, saved; its path, and the model."""
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((16, 16, 3))
    for number, width in enumerate((4, 5, 6)):
        x = keras.layers.Conv2D(width, 3, strides=2 if number else 1, padding="same", name=f"down{number}")(x)
        inner = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name=f"inner{number}")(x)
        x = keras.layers.Add(name=f"block{number}")([x, inner])
    x = keras.layers.Conv2D(9, 1, name="head")(x)
    model = keras.Model(inputs, x)
    model.save(tmp_path / "net.keras")
    return tmp_path / "net.keras", model


BOTH = ("last", "mid")


@pytest.mark.parametrize(("layers", "taps"), [({}, ("block1", "block2")), ({"mid": "inner0,head"}, ("inner0", "head"))])
def test_mid_level_features_are_pooled_maps_of_two_layers(keras, net, caplog, layers, taps):
    path, model = net
    frozen = FrozenBackbone.of_model("mine", own(path), BOTH, layers)
    assert not caplog.records
    images = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    last, mid = frozen.build_rows()(images)
    maps = keras.Model(model.input, [model.get_layer(tap).output for tap in taps])(images)
    expected = [pool(of_layer, axis=(1, 2)) for of_layer in map(np.asarray, maps) for pool in (np.mean, np.max, np.std)]
    np.testing.assert_allclose(mid, np.hstack(expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last, np.asarray(model(images)).mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    recipes = frozen.recipes("float32", Reading())
    assert [(recipe.backbone, recipe.layer) for recipe in recipes] == [("mine", ""), ("mine.mid", ",".join(taps))]
    path.unlink()  # what is cached is not loaded again
    assert FrozenBackbone.of_model("mine", own(path), BOTH, layers, recipes) == frozen


def test_a_model_may_hold_the_operations_that_pool_its_mid_level_features(keras, net, tmp_path):
    path, model = net
    mean, std = (pool(model.output, axis=(1, 2), keepdims=True) for pool in (keras.ops.mean, keras.ops.std))
    keras.Model(model.input, keras.ops.concatenate([model.output - mean, model.output / std])).save(path)
    keras.backend.clear_session()
    assert len(FrozenBackbone.of_model("mine", own(path), BOTH).build_rows().outputs) == 2


def test_taps_that_are_not_there_are_refused_with_those_that_are(net):
    with pytest.raises(InputError, match=r"--taps block1,pool: .* no layer 'pool' that gives square maps .* end: head"):
        FrozenBackbone.of_model("mine", own(net[0]), BOTH, {"mid": "block1,pool"})


def test_a_model_of_one_resolution_has_no_mid_level_features(classifier):
    path, _ = classifier
    assert FrozenBackbone.of_model("mine", own(path), BOTH, {"last": "pooled"}).rows == ("mine",)
    with pytest.raises(InputError, match=r"--features mid: .* has no maps of two resolutions"):
        FrozenBackbone.of_model("mine", own(path), ("mid",))
