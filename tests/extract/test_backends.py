"""Keras' other backends give the features that TensorFlow gives."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

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
