"""Keras' other backends give the features that TensorFlow gives."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from extract.backbones.onnx_model import OnnxBackbone
from extract.backbones.weights import find_model
from features.store.cache import FeatureCache
from tests import ROOT
from tests.extract.backbones.test_efficientnet_lite import GOLDEN, draw_image


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
