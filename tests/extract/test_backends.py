"""Keras' other backends give the features that TensorFlow gives."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from extract.backbones.onnx_model import OnnxBackbone
from extract.backbones.weights import find_model
from features.common.keras_import import import_keras
from features.store.cache import FeatureCache
from tests import ROOT
from tests.extract.backbones.test_efficientnet_lite import GOLDEN, draw_image
from tests.extract.stand_ins import write_images


@pytest.mark.backends
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_golden_features_come_out_of_every_backend(backend, tmp_path):
    (tmp_path / "test").mkdir()
    cv2.imwrite(str(tmp_path / "test" / "a.png"), draw_image(224)[..., ::-1])
    arguments = ["run", str(tmp_path), "--backbones", "efficientnet_lite0", "--cache", str(tmp_path / "cache")]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    subprocess.run([sys.executable, "-m", "extract", *arguments], cwd=ROOT, env=environment, check=True)
    cache = FeatureCache(tmp_path / "cache")
    assert cache.open("test", "efficientnet_lite0").keras_backend == backend
    golden = np.load(GOLDEN)["lite0_features"]
    _, features = cache.read("test", ["efficientnet_lite0"])
    assert np.linalg.norm(features[0] - golden) / np.linalg.norm(golden) < 1e-4


@pytest.mark.backends
@pytest.mark.parametrize("name", ["resnet10t.c3_in1k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"])
def test_a_model_of_timm_gives_as_onnx_what_it_gives_in_pytorch(name, tmp_path):
    import timm
    import torch

    random, weights, out = np.random.default_rng(0), tmp_path / "weights.pth", tmp_path / "mine.onnx"
    torch.manual_seed(1)
    model = timm.create_model(name, pretrained=False)
    torch.save(model.state_dict(), weights)
    command = [sys.executable, ROOT / "scripts" / "export_timm.py", name, weights, out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    mine = OnnxBackbone.of_model("mine", find_model(f"mine={out}")[1])
    images = random.integers(0, 256, (3, mine.sidecar.size, mine.sidecar.size, 3), np.uint8)
    (features,) = mine.compile(2, "auto", images[:1])(images)
    scaled = (images / 255 - mine.sidecar.mean) / mine.sidecar.std
    model.eval().reset_classifier(0)
    with torch.inference_mode():
        expected = model(torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float()).numpy()
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() < 1e-5 * expected.std()


def _make_vit(keras, models):
    return models.ViTBackbone((32, 32, 3), patch_size=8, num_layers=1, num_heads=2, hidden_dim=12, mlp_dim=16)


def _make_cnn(keras, models):
    """A network of any input size, behind an input of one."""
    one_block = {"stackwise_num_filters": [64, 128], "stackwise_num_blocks": [1, 1], "stackwise_num_strides": [1, 2]}
    stem = {"input_conv_filters": [64], "input_conv_kernel_sizes": [3], "block_type": "basic_block"}
    body = models.ResNetBackbone(**stem, **one_block)
    return keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Rescaling(1 / 255), body])


@pytest.mark.backends
@pytest.mark.parametrize(
    ("make", "options", "pool"),
    [
        (_make_vit, ["--pooling", "cls"], lambda found: found[:, 0]),
        (_make_vit, ["--pooling", "mean"], lambda found: found[:, 1:].mean(axis=1)),
        (_make_cnn, [], lambda found: found.mean(axis=(1, 2))),
    ],
)
def test_a_model_of_keras_hub_gives_what_it_predicts(make, options, pool, tmp_path):
    keras = import_keras()
    import keras_hub

    keras.utils.set_random_seed(1)
    model, path, cache = make(keras, keras_hub.models), tmp_path / "mine.keras", tmp_path / "cache"
    model.save(path)
    images = np.stack(list(write_images(tmp_path / "data" / "test", 5, side=32).values()))
    command = ["run", tmp_path / "data", "--backbone", f"mine={path}", "--cache", cache, *options]
    # In a process of its own, which has not imported keras-hub yet.
    arguments = [sys.executable, "-m", "extract", *map(str, command)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = pool(model.predict(images.astype(np.float32), verbose=0))
    features = FeatureCache(cache).read("test", ["mine"])[1]
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() < 1e-5 * expected.std()
