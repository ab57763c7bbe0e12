"""The one way to import Keras and TensorFlow: silent, exact in float32, and not greedy for the memory of a GPU.

Both stages use it, and only when something is computed: importing this module loads neither.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from features.common.errors import InputError

#: What TensorFlow and JAX read when they are imported; values that the user set stay.
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # leave room for others on a shared GPU; PyTorch does so by itself
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the same for JAX
}


def import_keras() -> Any:
    """Import Keras with the backend that it is set to; takes seconds the first time.

    Raises:
        InputError: the backend is not installed or not known.
    """
    try:
        if "keras" not in sys.modules:
            with _quiet_import():
                import keras
        import keras

        keras.config.set_image_data_format("channels_last")  # whatever keras.json says: our pixels are (B, S, S, 3)
        _forbid_tf32(keras.backend.backend())
    except (ImportError, ValueError) as error:
        raise InputError(
            f"Keras cannot use the backend {backend_name()!r}: {error}. Install it, or unset KERAS_BACKEND."
        ) from None
    return keras


def import_tensorflow() -> Any:
    """Import TensorFlow, whatever the backend of Keras is; takes seconds the first time.

    Raises:
        InputError: it is not installed.
    """
    try:
        if "tensorflow" not in sys.modules:
            with _quiet_import():
                import tensorflow
        import tensorflow
    except (ImportError, ValueError) as error:  # ValueError: of a backend that Keras, which it loads, does not know
        raise InputError(
            f"heads are trained in TensorFlow, which cannot be loaded: {error}. Run scripts/setup.sh, or unset "
            "KERAS_BACKEND."
        ) from None
    _forbid_tf32("tensorflow")
    return tensorflow


def backend_name() -> str:
    """The backend that Keras will take, without importing it: KERAS_BACKEND, keras.json, or TensorFlow."""
    if name := os.environ.get("KERAS_BACKEND"):
        return name
    try:
        settings = json.loads((keras_home() / "keras.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "tensorflow"
    return str(settings.get("backend", "tensorflow")) if isinstance(settings, dict) else "tensorflow"


def keras_home() -> Path:
    """The folder of Keras' settings and downloads, as Keras chooses it: KERAS_HOME, or ~/.keras."""
    return Path(os.environ["KERAS_HOME"]) if "KERAS_HOME" in os.environ else Path.home() / ".keras"


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Send stderr nowhere for the length of a `with` block.

    TensorFlow's C++ side writes to the file descriptor, past Python's sys.stderr and whatever the log level.
    """
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Set what the libraries read when they are imported, and keep what they say about it off the terminal."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with silent_stderr():
        yield


def _forbid_tf32(backend: str) -> None:
    """Keep GPUs from cutting the mantissa of float32 factors to 10 bits: features would differ in the third digit."""
    match backend:
        case "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_tensor_float_32_execution(False)
        case "jax":
            import jax

            jax.config.update("jax_default_matmul_precision", "highest")
        case "torch":
            import torch

            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
