"""Import TensorFlow and Keras when training needs them, without their chatter."""

import os
import sys
from typing import Any

from features.common.errors import InputError
from features.common.quiet import silent_stderr


def import_tensorflow() -> Any:
    """Import TensorFlow, seconds the first time.

    Raises:
        InputError: it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # leave room for others on a shared GPU
    try:
        if "tensorflow" not in sys.modules:
            with silent_stderr():
                import tensorflow as tf
        import tensorflow as tf
    except ImportError as error:
        raise InputError(
            f"heads are trained in TensorFlow, which does not load: {error}. Run scripts/setup.sh."
        ) from None
    # GPUs would cut the mantissa of factors to 10 bits, and a head would depend on where it was trained.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return tf


def import_keras() -> Any:
    """Import Keras with the backend that it is set to.

    Raises:
        InputError: the backend is not installed or not known.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        if "keras" not in sys.modules:
            with silent_stderr():
                import keras
        import keras
    except (ImportError, ValueError) as error:
        raise InputError(f"Keras cannot use its backend: {error}. Install it, or unset KERAS_BACKEND.") from None
    return keras
