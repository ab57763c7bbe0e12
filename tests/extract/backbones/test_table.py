"""extract.backbones.table: the table says what keras.applications is and does."""

import sys

import numpy as np
import pytest

from extract.backbones.build import FrozenBackbone
from extract.backbones.table import BACKBONES, CHALLENGE, EMBEDDED, PREPROCESSING, backbone_named
from extract.backbones.taps import find_layer
from extract.backbones.weights import Weights
from extract.runtime import preprocess
from features.common.errors import InputError
from features.common.keras_import import import_keras

KERAS_ROWS = [row for row in BACKBONES.values() if row.of_keras]


class _AskedForWeights(Exception):
    pass


def leave_empty(variable, initializer):
    variable._value = np.zeros(variable.shape, np.float32)


@pytest.mark.parametrize("include_top", [False, True])
@pytest.mark.parametrize("row", KERAS_ROWS, ids=lambda row: row.name)
def test_weights_file_and_hash_are_those_that_keras_downloads(row, include_top, monkeypatch):
    keras = import_keras()
    from keras.src.utils import file_utils

    asked = {}

    def get_file(name, origin, file_hash="", **_):
        asked.update(name=name, origin=origin, file_hash=file_hash)
        raise _AskedForWeights

    # The download is asked for when the model is built; of its weights nothing is asked.
    monkeypatch.setattr(keras.Variable, "_initialize_with_initializer", leave_empty)
    monkeypatch.setattr(file_utils, "get_file", get_file)
    with pytest.raises(_AskedForWeights):
        getattr(keras.applications, row.builder)(include_top=include_top, weights="imagenet", pooling="avg")
    if include_top:
        assert row.classifier_names == (asked["name"],)
    else:
        assert asked == {"name": row.weights_name, "origin": row.weights_url, "file_hash": row.weights_hash}


@pytest.mark.parametrize("row", KERAS_ROWS, ids=lambda row: row.name)
def test_preprocessing_is_that_of_the_module(row):
    keras = import_keras()
    module = sys.modules[getattr(keras.applications, row.builder).__module__]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), np.uint8)
    expected = module.preprocess_input(pixels.astype(np.float32))
    np.testing.assert_allclose(preprocess(pixels, row.preprocessing), expected, rtol=1e-6, atol=1e-5)


def test_preprocessing_in_words_is_what_happens():
    pixels = np.array([[[[255, 127, 0]]]], np.uint8)
    channels = {mode: np.asarray(preprocess(pixels, mode)).ravel() for mode in PREPROCESSING}
    np.testing.assert_allclose(channels["tf"], [1, 127 / 127.5 - 1, -1], atol=1e-6)
    np.testing.assert_allclose(channels["caffe"], [0 - 103.939, 127 - 116.779, 255 - 123.68], atol=1e-4)
    np.testing.assert_allclose(
        channels["torch"], [(1 - 0.485) / 0.229, (127 / 255 - 0.456) / 0.224, -0.406 / 0.225], atol=1e-5
    )
    np.testing.assert_allclose(channels["model"], [255, 127, 0])
    np.testing.assert_allclose(channels["lite"], [1, 0, -127 / 128])


@pytest.mark.parametrize("row", BACKBONES.values(), ids=lambda row: row.name)
def test_the_smallest_size_is_the_first_at_which_both_maps_have_positions(row, monkeypatch):
    keras = import_keras()
    monkeypatch.setattr(keras.Variable, "_initialize_with_initializer", leave_empty)

    def are_there(size):
        backbone = FrozenBackbone.of_table(row, Weights("random", "random", "", None), "float32", size=size)
        model = backbone.build_whole()
        return all(find_layer(model, tap) for tap in row.taps)

    assert are_there(row.smallest)
    if row.name == "xception":
        with pytest.raises(ValueError, match="at least 71x71"):
            are_there(row.smallest - 1)
    elif row.smallest > 33:  # at 32 a map at stride 32 has one position
        assert not are_there(row.smallest - 1)
    keras.backend.clear_session()


def test_names():
    assert set(CHALLENGE) <= set(BACKBONES)
    assert EMBEDDED == ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
    assert len(KERAS_ROWS) >= 16
    with pytest.raises(InputError, match=r"no backbone is called 'resnet'. There are: xception, .*--backbone resnet="):
        backbone_named("resnet")


@pytest.mark.parametrize(
    ("name", "options"),
    [("mid", "--features mid"), ("384", "--sizes 384"), ("native.last", "--features last --sizes native")],
)
def test_the_name_of_rows_is_refused_with_the_options_that_make_them(name, options):
    with pytest.raises(InputError, match=f"named without its ending: vgg16. extract run makes .* with {options}"):
        backbone_named(f"vgg16.{name}")
