"""extract.backbones.build: weights go where they belong, and a user's own model is taken or refused with a reason."""

from types import SimpleNamespace

import numpy as np
import pytest

from extract import extraction
from extract.backbones import build
from extract.backbones.build import FrozenBackbone
from extract.backbones.table import BACKBONES
from extract.backbones.weights import Weights
from extract.images.reading import Reading
from features.common.errors import InputError
from features.common.keras_import import import_keras


@pytest.fixture(scope="module")
def keras():
    return import_keras()


def own(path):
    return Weights("model", str(path), "0" * 32, path)


def relative_error(features, reference):
    return np.linalg.norm(features - reference) / np.linalg.norm(reference)


@pytest.fixture(scope="module")
def efficientnet(keras):
    """EfficientNetB2 of random weights, as the product builds it."""
    weights = Weights("random", "random", "", None)
    return FrozenBackbone.of_table(BACKBONES["efficientnetb2"], weights, "float32").build()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (1, 260, 260, 3)).astype(np.float32)


def test_efficientnet_pads_as_the_classifier_that_was_trained(keras, efficientnet, pixels):
    """Without an input shape keras.applications pads odd maps (65, 33, 17 pixels) at the other side."""
    classifier = keras.applications.EfficientNetB2(weights=None)
    trunk = keras.Model(classifier.input, classifier.get_layer("avg_pool").output)
    trunk.set_weights(efficientnet.get_weights())
    assert relative_error(np.asarray(efficientnet(pixels)), np.asarray(trunk(pixels))) < 1e-5


def test_efficientnet_is_scaled_as_keras_scales_it_with_imagenet_weights(
    keras, efficientnet, pixels, tmp_path, monkeypatch
):
    from keras.src.utils import file_utils

    normalization = next(layer for layer in efficientnet.layers if isinstance(layer, keras.layers.Normalization))
    normalization.adapt_mean.assign([0.485, 0.456, 0.406])
    normalization.adapt_variance.assign([0.229, 0.224, 0.225])
    normalization.finalize_state()
    unscaled = np.asarray(efficientnet(pixels))
    path = tmp_path / "efficientnetb2_notop.weights.h5"
    efficientnet.save_weights(path)
    # Keras' own loader, with our file in place of its download.
    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: str(path))
    theirs = keras.applications.EfficientNetB2(
        include_top=False, weights="imagenet", pooling="avg", input_shape=(260, 260, 3)
    )
    expected = np.asarray(theirs(pixels))
    assert relative_error(unscaled, expected) > 1e-3  # the scaling is no formality

    monkeypatch.setattr(keras.applications, "EfficientNetB2", lambda **_: efficientnet)  # built once is enough
    for weights, features, tolerance in (
        (Weights("file", "a file", "", path), unscaled, 1e-6),
        (Weights("imagenet", "imagenet", "", path), expected, 1e-5),
    ):
        efficientnet.set_weights([np.zeros_like(weight) for weight in efficientnet.get_weights()])
        loaded = FrozenBackbone.of_table(BACKBONES["efficientnetb2"], weights, "float32").build()
        assert relative_error(np.asarray(loaded(pixels)), features) < tolerance


def test_weights_of_another_architecture_are_refused_by_name(keras, tmp_path):
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    path = tmp_path / "vgg16.weights.h5"
    other.save_weights(path)
    with pytest.raises(InputError, match=r"vgg16\.weights\.h5 does not fit vgg16"):
        FrozenBackbone.of_table(BACKBONES["vgg16"], Weights("file", "f", "", path), "float32").build()
    path.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"vgg16\.weights\.h5 does not fit vgg16"):
        FrozenBackbone.of_table(BACKBONES["vgg16"], Weights("file", "f", "", path), "float32").build()


def test_a_model_that_ends_in_maps_is_pooled(keras, tmp_path):
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((9, 9, 3)), keras.layers.Conv2D(4, 3)])
    model.save(tmp_path / "mine.keras")
    frozen = FrozenBackbone.of_model("mine", own(tmp_path / "mine.keras"))
    assert frozen.input_size == 9
    images = np.random.default_rng(0).random((2, 9, 9, 3)).astype(np.float32)
    np.testing.assert_allclose(frozen.build()(images), np.asarray(model(images)).mean(axis=(1, 2)), rtol=1e-5)


def test_a_model_that_ends_in_maps_may_pool_inside_too(keras, tmp_path):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((9, 9, 3))
    maps = keras.layers.Conv2D(4, 3)(inputs)
    squeezed = keras.layers.GlobalAveragePooling2D(keepdims=True, name="global_average_pooling2d")(maps)
    model = keras.Model(inputs, keras.layers.Multiply()([maps, squeezed]))
    model.save(tmp_path / "mine.keras")
    keras.backend.clear_session()  # as in a process of its own, Keras counts its default names from the start
    frozen = FrozenBackbone.of_model("mine", own(tmp_path / "mine.keras"))
    images = np.random.default_rng(0).random((2, 9, 9, 3)).astype(np.float32)
    np.testing.assert_allclose(frozen.build()(images), np.asarray(model(images)).mean(axis=(1, 2)), rtol=1e-5)


def test_what_is_compiled_is_folded(keras, tmp_path, monkeypatch):
    keras.utils.set_random_seed(2)
    layers = [keras.Input((9, 9, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
    keras.Sequential(layers).save(tmp_path / "mine.keras")
    frozen = FrozenBackbone.of_model("mine", own(tmp_path / "mine.keras"))
    monkeypatch.setattr(build, "Extractor", lambda build, *_: build())
    compiled = frozen.compile(4, "auto", np.zeros((1, 9, 9, 3), np.uint8))
    assert [type(layer).__name__ for layer in compiled.layers] == ["InputLayer", "Conv2D", "GlobalAveragePooling2D"]


@pytest.mark.parametrize(("device", "warnings"), [("CPU", 1), ("NVIDIA H100", 0)])
def test_a_gpu_that_is_not_found_is_said_once_before_anything_is_compiled(
    device, warnings, keras, tmp_path, monkeypatch, caplog
):
    keras.Sequential([keras.Input((9, 9, 3)), keras.layers.Conv2D(4, 3)]).save(tmp_path / "mine.keras")
    monkeypatch.setattr(build, "Extractor", lambda *_: SimpleNamespace(device=device, said=len(caplog.messages)))
    monkeypatch.setattr(extraction, "device_name", lambda: device)
    monkeypatch.setattr(extraction, "missing_gpu", lambda: "no driver. Install one")
    compiled = extraction.CompiledBackbones(4)
    for name in ("mine", "other"):
        frozen = FrozenBackbone.of_model(name, own(tmp_path / "mine.keras"))
        assert compiled(frozen, np.zeros((1, 9, 9, 3), np.uint8)).said == warnings
    assert caplog.messages == ["the CPU computes, which takes longer: no driver. Install one"] * warnings


@pytest.mark.parametrize("shape", [(None, None, 3), (8, 9, 3), (8, 8, 1), (12,)])
def test_a_model_of_another_input_is_refused(keras, tmp_path, shape):
    path = tmp_path / "mine.keras"
    keras.Sequential([keras.Input(shape), keras.layers.ReLU()]).save(path)
    with pytest.raises(InputError, match=r"mine\.keras takes inputs of shape .* with S fixed"):
        FrozenBackbone.of_model("mine", own(path))


def test_a_model_with_hidden_code_or_no_model_at_all_is_refused(keras, tmp_path):
    path = tmp_path / "mine.keras"
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x + 1)]).save(path)
    with pytest.raises(InputError, match=r"mine\.keras cannot be loaded"):
        FrozenBackbone.of_model("mine", own(path))
    path.write_bytes(b"no model")
    with pytest.raises(InputError, match=r"mine\.keras cannot be loaded"):
        FrozenBackbone.of_model("mine", own(path))


def test_mixed_precision_is_near_float32_and_leaves_the_policy_as_it_was(keras):
    row = BACKBONES["efficientnet_lite0"]
    from extract.backbones.weights import find_weights

    weights = find_weights(row, "imagenet", None)
    images = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    exact = np.asarray(FrozenBackbone.of_table(row, weights, "float32").build()(images))
    model = FrozenBackbone.of_table(row, weights, "mixed").build()
    mixed = np.asarray(model(images)).astype(np.float32)
    assert model.get_layer("conv_head").compute_dtype == "float16"
    assert 1e-6 < relative_error(mixed, exact) < 2e-2
    assert keras.config.dtype_policy().name == "float32"


def test_the_recipe_changes_with_whatever_changes_the_values():
    row = BACKBONES["vgg16"]
    weights = Weights("random", "random", "1" * 32, None)
    other = Weights("random", "random", "2" * 32, None)
    frozen = FrozenBackbone.of_table(row, weights, "float32")
    fingerprints = {
        frozen.recipes("float32", Reading())[0].fingerprint,
        frozen.recipes("float16", Reading())[0].fingerprint,
        FrozenBackbone.of_table(row, weights, "mixed").recipes("float32", Reading())[0].fingerprint,
        FrozenBackbone.of_table(row, other, "float32").recipes("float32", Reading())[0].fingerprint,
        FrozenBackbone.of_table(BACKBONES["vgg19"], weights, "float32").recipes("float32", Reading())[0].fingerprint,
    }  # fmt: skip
    assert len(fingerprints) == 5
    renamed = Weights("file", "/somewhere/else", "1" * 32, None)
    same = FrozenBackbone.of_table(row, renamed, "float32").recipes("float32", Reading())[0]
    assert same.fingerprint == frozen.recipes("float32", Reading())[0].fingerprint
