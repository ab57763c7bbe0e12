"""extract.runtime: the compiled function gives the model's own features, whatever the batch."""

import os
import subprocess
import sys

import numpy as np
import pytest

from extract import runtime
from extract.runtime import Extractor, device_name
from features.common.errors import InputError
from features.common.keras_import import import_keras

SIDE = 8


@pytest.fixture(scope="module")
def model():
    keras = import_keras()
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Conv2D(5, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.5),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (11, SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize("batch_size", [1, 4, 11, 16])
def test_features_are_the_models_own_and_the_last_batch_is_filled_up(model, images, batch_size):
    (features,) = Extractor(model, "tf", SIDE, batch_size)(images)
    expected = model.predict(images / np.float32(127.5) - 1, verbose=0)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


def test_several_outputs_are_given_side_by_side(model, images):
    keras = import_keras()
    first = model.layers[0].output
    both = keras.Model(model.inputs, [keras.ops.max(first, axis=(1, 2)), model.outputs[0]])
    largest, features = Extractor(both, "tf", SIDE, 4)(images)
    maps = keras.Model(model.inputs, first).predict(images / np.float32(127.5) - 1, verbose=0)
    np.testing.assert_allclose(largest, maps.max(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(features, Extractor(model, "tf", SIDE, 4)(images)[0], rtol=1e-5, atol=1e-6)


def test_a_row_does_not_depend_on_its_batch(model, images):
    extractor = Extractor(model, "model", SIDE, 4)
    (together,) = extractor(images)
    np.testing.assert_array_equal(np.concatenate([extractor(image[None])[0] for image in images]), together)
    np.testing.assert_array_equal(extractor(images[::-1])[0][::-1], together)


@pytest.mark.parametrize(("batch_size", "parts"), [(12, [4, 4, 4]), (8, [3, 3, 3]), (1, [1, 1, 1])])
def test_a_batch_is_computed_in_equal_parts_at_the_same_time(model, images, monkeypatch, batch_size, parts):
    (expected,) = Extractor(model, "tf", SIDE, batch_size)(images)
    split, cut = np.split, []

    def recorded(batch, count):
        shards = split(batch, count)
        cut.append([len(shard) for shard in shards])
        return shards

    monkeypatch.setattr(runtime, "batches_at_a_time", lambda: 3)
    extractor = Extractor(model, "tf", SIDE, batch_size)
    monkeypatch.setattr(np, "split", recorded)
    np.testing.assert_allclose(extractor(images)[0], expected, rtol=1e-6)
    assert cut == [parts] * -(-len(images) // sum(parts))


def test_a_cpu_computes_a_batch_for_every_few_cores_and_threads_that_the_user_set_stay():
    program = """
import os
from extract import runtime
from extract.extraction import default_batch_size
runtime.cores = lambda: 20
os.environ["TF_NUM_INTRAOP_THREADS"] = "5"
runtime.split_cores()
print(runtime.batches_at_a_time())
del os.environ["TF_NUM_INTRAOP_THREADS"]
print(default_batch_size("CPU"))  # asked before the first backbone is built
import tensorflow as tf
print(tf.config.threading.get_intra_op_parallelism_threads(), runtime.batches_at_a_time())
"""
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.stdout.split() == ["1", "32", "5", "4"], result.stderr


def test_the_weights_are_frozen_when_it_is_compiled(model, images):
    extractor = Extractor(model, "model", SIDE, 11)
    (before,) = extractor(images)
    kept = model.get_weights()
    model.set_weights([weights * 2 for weights in kept])
    np.testing.assert_array_equal(extractor(images)[0], before)
    model.set_weights(kept)


class Fails:
    """A compiled function that fits two images at most."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.sizes: list[int] = []

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        self.sizes.append(len(images))
        if len(images) > 2:
            raise self.error
        return [images.reshape(len(images), -1)[:, :3].astype(np.float32)]


def test_the_batch_is_halved_until_it_fits(model, images, monkeypatch, caplog):
    function = Fails(RuntimeError("RESOURCE_EXHAUSTED: out of memory while trying to allocate"))
    monkeypatch.setattr(Extractor, "_compile", lambda _: function)
    extractor = Extractor(model, "model", SIDE, 8)
    (features,) = extractor(images[:5])
    np.testing.assert_array_equal(features, images[:5].reshape(5, -1)[:, :3])
    assert function.sizes == [8, 4, 2, 2, 2]
    assert extractor.batch_size == 2
    assert "halved to 4" in caplog.text


def test_a_single_image_too_large_is_said_and_other_errors_pass(model, images, monkeypatch):
    def too_large(_):
        raise MemoryError

    monkeypatch.setattr(Extractor, "_compile", lambda _: too_large)
    with pytest.raises(InputError, match="ran out of memory on a batch of one image of 8 pixels"):
        Extractor(model, "model", SIDE, 8)(images)
    monkeypatch.setattr(Extractor, "_compile", lambda _: Fails(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        Extractor(model, "model", SIDE, 8)(images)


def test_the_device_has_a_name():
    assert device_name()
