"""The audit on real features: copies of phantom slices that were flipped, turned, brightened, compressed, cropped."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from extract.__main__ import app
from scripts import benchmark_audit
from scripts.benchmark_audit import COPIES, plant_and_audit


def extract_here(command, **_):
    """The extraction in this process, which need not load TensorFlow again."""
    assert command[1:3] == ["-m", "extract"]
    result = CliRunner().invoke(app, command[3:])
    assert result.exit_code == 0, result.output


def test_planted_copies_are_found_across_train_and_test(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_audit, "subprocess", SimpleNamespace(run=extract_here))
    found = plant_and_audit(tmp_path, 140, 50, 10, "efficientnet_lite0", seed=3, size=512)
    assert dict(found.planted) == dict.fromkeys(COPIES, 2)
    assert found.found == found.planted
    assert found.wrong <= 1


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_differs_from_its_original_and_keeps_its_size(kind):
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (100, 80), np.uint8), (0, 0), 5)
    copy = COPIES[kind](image)
    assert (copy.shape, copy.dtype) == (image.shape, np.uint8)
    assert not np.array_equal(copy, image)
