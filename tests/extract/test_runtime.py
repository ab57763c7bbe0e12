"""extract.runtime: the compiled function gives the model's own features, whatever the batch."""

import os
import subprocess
import sys

import numpy as np
import pytest

from extract import runtime
from extract.engines import openvino, table
from extract.engines.table import ENGINES, OPENVINO, TENSORFLOW, choose_engine
from extract.runtime import Extractor, device_name, missing_gpu
from features.common.errors import InputError
from features.common.keras_import import import_keras
from tests import ROOT

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


@pytest.fixture(params=ENGINES)
def compiled(request, images):
    """Compiles a model by one engine after the other."""

    def compile_by(model, preprocessing, batch_size):
        proof = images[:1] if request.param == OPENVINO else None
        extractor = Extractor(lambda: model, preprocessing, SIDE, batch_size, proof)
        assert extractor.engine == request.param
        return extractor

    return compile_by


@pytest.mark.parametrize("batch_size", [1, 4, 11, 16])
def test_features_are_the_models_own_and_the_last_batch_is_filled_up(model, images, batch_size, compiled):
    (features,) = compiled(model, "tf", batch_size)(images)
    expected = model.predict(images / np.float32(127.5) - 1, verbose=0)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


def test_several_outputs_are_given_side_by_side(model, images, compiled):
    keras = import_keras()
    first = model.layers[0].output
    both = keras.Model(model.inputs, [keras.ops.max(first, axis=(1, 2)), model.outputs[0]])
    largest, features = compiled(both, "tf", 4)(images)
    maps = keras.Model(model.inputs, first).predict(images / np.float32(127.5) - 1, verbose=0)
    np.testing.assert_allclose(largest, maps.max(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(features, Extractor(lambda: model, "tf", SIDE, 4)(images)[0], rtol=1e-5, atol=1e-6)


def test_a_row_does_not_depend_on_its_batch(model, images, compiled):
    extractor = compiled(model, "model", 4)
    (together,) = extractor(images)
    np.testing.assert_array_equal(np.concatenate([extractor(image[None])[0] for image in images]), together)
    np.testing.assert_array_equal(extractor(images[::-1])[0][::-1], together)


@pytest.mark.parametrize(("batch_size", "parts"), [(12, [4, 4, 4]), (8, [3, 3, 3]), (1, [1, 1, 1])])
def test_a_batch_is_computed_in_equal_parts_at_the_same_time(model, images, monkeypatch, batch_size, parts):
    (expected,) = Extractor(lambda: model, "tf", SIDE, batch_size)(images)
    split, cut = np.split, []

    def recorded(batch, count):
        shards = split(batch, count)
        cut.append([len(shard) for shard in shards])
        return shards

    monkeypatch.setattr(runtime, "batches_at_a_time", lambda: 3)
    extractor = Extractor(lambda: model, "tf", SIDE, batch_size)
    monkeypatch.setattr(np, "split", recorded)
    np.testing.assert_allclose(extractor(images)[0], expected, rtol=1e-6)
    assert cut == [parts] * -(-len(images) // sum(parts))


@pytest.fixture(scope="module")
def fresh():
    """What a fresh interpreter, which must load TensorFlow, prints of its cores, and of a signal in the end."""
    program = f"""
import os, signal, threading, weakref
from extract import runtime
from extract.runtime import default_batch_size
cores, runtime.cores = runtime.cores, lambda: 20
os.environ["TF_NUM_INTRAOP_THREADS"] = "5"
runtime.split_cores()
print(runtime.batches_at_a_time())
del os.environ["TF_NUM_INTRAOP_THREADS"]
print(default_batch_size("CPU"))  # asked before the first backbone is built
import numpy as np
import tensorflow as tf
print(tf.config.threading.get_intra_op_parallelism_threads(), runtime.batches_at_a_time())
runtime.cores = cores
from extract.engines.openvino import compile_graph
spec = tf.TensorSpec((None, {SIDE}, {SIDE}, 3), tf.uint8)
function = tf.function(lambda images: tf.reduce_mean(tf.cast(images, tf.float32), (1, 2))).get_concrete_function(spec)
held = [compile_graph(function, {SIDE}, 2)]
held[0](np.zeros((2, {SIDE}, {SIDE}, 3), np.uint8))
gone = threading.Event()
weakref.finalize(held[0], gone.set)
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
assert gone.is_set()
signal.signal(signal.SIGINT, lambda number, frame: print("handled", number))
signal.raise_signal(signal.SIGINT)
"""
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)


def test_a_cpu_computes_a_batch_for_every_few_cores_and_threads_that_the_user_set_stay(fresh):
    assert fresh.stdout.split()[:4] == ["1", "16", "5", "4"], fresh.stderr


OLD_DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.82.01  Wed Oct 27 21:21:55 UTC 2021\nGCC version: 9"


@pytest.mark.parametrize(
    ("driver", "packages", "visible", "words"),
    [
        (OLD_DRIVER, True, None, ["the NVIDIA driver 470.82.01 is loaded", "needs 525.60.13 or later"]),
        (OLD_DRIVER, True, "0", ["the NVIDIA driver 470.82.01 is loaded"]),
        (OLD_DRIVER, False, None, ["the NVIDIA driver 470.82.01 is loaded", "Run scripts/setup.sh --gpu"]),
        ("NVRM version: unreadable", True, None, ["the NVIDIA driver of unknown version is loaded"]),
        (None, True, None, ["no NVIDIA driver is loaded", "Install driver 525.60.13 or later"]),
        (None, False, None, []),
        (OLD_DRIVER, True, "", []),
        (OLD_DRIVER, True, "-1", []),
    ],
)
def test_a_gpu_that_is_there_and_not_found_is_explained(driver, packages, visible, words, tmp_path, monkeypatch):
    if driver is not None:
        (tmp_path / "version").write_text(driver)
    monkeypatch.setattr(runtime, "_DRIVER", tmp_path / "version")
    monkeypatch.setattr(runtime, "find_spec", lambda name: object() if packages and name == "nvidia" else None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = missing_gpu()
    assert bool(found) == bool(words)
    assert all(part in found for part in words)


def test_the_weights_are_frozen_when_it_is_compiled(model, images, compiled):
    extractor = compiled(model, "model", 11)
    (before,) = extractor(images)
    kept = model.get_weights()
    model.set_weights([weights * 2 for weights in kept])
    np.testing.assert_array_equal(extractor(images)[0], before)
    model.set_weights(kept)


def test_an_engine_that_gives_other_features_is_left_out_and_said(model, images, monkeypatch, caplog):
    (expected,) = Extractor(lambda: model, "tf", SIDE, 4)(images)
    original = openvino.compile_graph

    def wrong(*arguments):
        compiled = original(*arguments)
        return lambda pixels: [rows + 2e-4 * expected[:1].std() for rows in compiled(pixels)]

    monkeypatch.setattr(openvino, "compile_graph", wrong)
    extractor = Extractor(lambda: model, "tf", SIDE, 4, images[:1])
    assert extractor.engine == TENSORFLOW
    assert (
        "OpenVINO is left out: its features differ by 2.0e-04 standard deviations. TensorFlow computes" in caplog.text
    )
    np.testing.assert_array_equal(extractor(images)[0], expected)


def test_an_engine_that_fails_is_left_out_and_said(model, images, monkeypatch, caplog):
    def fails(*_):
        raise RuntimeError("no conversion rule\nfor this operation")

    monkeypatch.setattr(openvino, "compile_graph", fails)
    assert Extractor(lambda: model, "tf", SIDE, 4, images[:1]).engine == TENSORFLOW
    assert "OpenVINO is left out: no conversion rule. TensorFlow computes" in caplog.text


@pytest.mark.parametrize(
    ("choice", "device", "precision", "expected"),
    [
        ("auto", "CPU", "float32", OPENVINO),
        ("auto", "CPU", "mixed", TENSORFLOW),
        ("auto", "NVIDIA H100", "float32", TENSORFLOW),
        ("openvino", "CPU", "float32", OPENVINO),
        ("tensorflow", "CPU", "float32", TENSORFLOW),
    ],
)
def test_the_fastest_engine_that_can_compute_is_taken(choice, device, precision, expected):
    assert choose_engine(choice, device, precision) == expected


@pytest.mark.parametrize(
    ("device", "precision", "reason"),
    [
        ("NVIDIA H100", "float32", "it is for CPUs, and this machine computes on NVIDIA H100"),
        ("CPU", "mixed", "it computes in float32, not in --precision mixed"),
    ],
)
def test_an_engine_that_cannot_compute_is_refused(device, precision, reason):
    with pytest.raises(InputError, match=f"--engine openvino: {reason}"):
        choose_engine(OPENVINO, device, precision)


def test_an_engine_that_is_not_installed_is_named_with_the_file_that_installs_it(monkeypatch):
    monkeypatch.setattr(table, "find_spec", lambda _: None)
    assert choose_engine("auto", "CPU", "float32") == TENSORFLOW
    with pytest.raises(InputError, match=r"it is not installed\. Run: .*pip install --no-deps -r requirements-engines"):
        choose_engine(OPENVINO, "CPU", "float32")


def test_another_backend_of_keras_computes_by_itself(monkeypatch):
    monkeypatch.setattr(table, "backend_name", lambda: "jax")
    assert choose_engine("auto", "CPU", "float32") == "jax"
    with pytest.raises(InputError, match="--engine openvino: Keras runs on jax"):
        choose_engine(OPENVINO, "CPU", "float32")
    with pytest.raises(InputError, match="--engine tensorflow: Keras runs on jax"):
        choose_engine(TENSORFLOW, "CPU", "float32")


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
    extractor = Extractor(lambda: model, "model", SIDE, 8)
    (features,) = extractor(images[:5])
    np.testing.assert_array_equal(features, images[:5].reshape(5, -1)[:, :3])
    assert function.sizes == [5, 4, 2, 2, 1]
    assert extractor.batch_size == 2
    assert "cut to 4" in caplog.text


def test_a_signal_after_the_last_model_of_openvino_was_let_go_by_another_thread_is_handled(fresh):
    assert (fresh.returncode, fresh.stdout.split()[4:]) == (0, ["handled", "2"]), fresh.stderr


def test_openvino_that_lacks_memory_computes_fewer_images_at_a_time(model, images, monkeypatch):
    streams = []
    original = openvino.compile_graph

    def compile_graph(function, size, count):
        streams.append(count)
        compiled = original(function, size, count)

        def compute(pixels):
            if len(pixels) > 3:
                raise MemoryError
            return compiled(pixels)

        return compute

    monkeypatch.setattr(openvino, "compile_graph", compile_graph)
    monkeypatch.setattr(runtime, "cores", lambda: 4)
    extractor = Extractor(lambda: model, "tf", SIDE, None, images[:1])
    (features,) = extractor(images)
    assert (extractor.engine, extractor.batch_size, streams) == (OPENVINO, 2, [4, 2])
    np.testing.assert_allclose(features, Extractor(lambda: model, "tf", SIDE, 4)(images)[0], rtol=1e-5, atol=1e-6)


def test_a_single_image_too_large_is_said_and_other_errors_pass(model, images, monkeypatch):
    def too_large(_):
        raise MemoryError

    monkeypatch.setattr(Extractor, "_compile", lambda _: too_large)
    with pytest.raises(InputError, match="ran out of memory on a batch of one image of 8 pixels"):
        Extractor(lambda: model, "model", SIDE, 8)(images)
    monkeypatch.setattr(Extractor, "_compile", lambda _: Fails(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        Extractor(lambda: model, "model", SIDE, 8)(images)


def test_the_device_has_a_name():
    assert device_name()


def test_openvino_keeps_all_cores_busy_and_tensorflow_in_its_place_has_its_own_batch(model, images, monkeypatch):
    asked = []
    original = openvino.compile_graph

    def compile_graph(function, size, streams):
        asked.append(streams)
        if streams == 20:
            raise RuntimeError("too many")
        return original(function, size, streams)

    monkeypatch.setattr(openvino, "compile_graph", compile_graph)
    monkeypatch.setattr(runtime, "cores", lambda: 5)
    monkeypatch.setattr(runtime, "batches_at_a_time", lambda: 2)
    assert Extractor(lambda: model, "tf", SIDE, None, images[:1]).batch_size == 40
    assert Extractor(lambda: model, "tf", SIDE, 12, images[:1]).batch_size == 15
    monkeypatch.setattr(runtime, "cores", lambda: 20)
    assert Extractor(lambda: model, "tf", SIDE, None, images[:1]).batch_size == 8  # 4 for each of 2
    assert asked == [5, 5, 20]
