"""features.common.keras_import: silent, exact in float32, modest on a GPU, and a message where something is missing."""

import contextlib
import os
import subprocess
import sys

import pytest

from features.common.keras_import import backend_name, silent_stderr
from tests import ROOT


def in_a_fresh_interpreter(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a few lines that begin with the names of the module imported."""
    program = f"import os, sys\nfrom features.common.keras_import import import_keras, import_tensorflow\n{code}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "XLA_", "KERAS_"))}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=inherited | environment, capture_output=True, text=True
    )


def test_native_chatter_is_silenced_and_stderr_comes_back(capfd):
    os.write(2, b"before ")
    with contextlib.suppress(KeyError), silent_stderr():
        os.write(2, b"chatter ")
        raise KeyError
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"


def test_both_imports_are_silent_exact_and_leave_room_on_the_gpu():
    done = in_a_fresh_interpreter(
        "assert not {'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)\n"
        "import_keras()\n"
        "import tensorflow as tf\n"
        "print(os.environ['TF_FORCE_GPU_ALLOW_GROWTH'], os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'])\n"
        "print(tf.config.experimental.tensor_float_32_execution_enabled())\n"
        "tf.config.experimental.enable_tensor_float_32_execution(True)\n"
        "import_tensorflow()\n"
        "print(tf.config.experimental.tensor_float_32_execution_enabled())"
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["true", "false", "False", "False"]


@pytest.mark.parametrize(("of_user", "read"), [({}, "true"), ({"TF_FORCE_GPU_ALLOW_GROWTH": "false"}, "false")])
def test_tensorflow_alone_is_imported_as_silently_and_settings_of_the_user_stay(tmp_path, of_user, read):
    (tmp_path / "tensorflow.py").write_text(  # a stand-in, which is imported in no time
        "import os\nfrom types import SimpleNamespace\nos.write(2, b'chatter')\n"
        "print(os.environ['TF_FORCE_GPU_ALLOW_GROWTH'], os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'])\n"
        "config = SimpleNamespace(experimental=SimpleNamespace(enable_tensor_float_32_execution=print))\n"
    )
    done = in_a_fresh_interpreter("import_tensorflow()", PYTHONPATH=str(tmp_path), **of_user)
    assert done.stderr == ""
    assert done.stdout.split() == [read, "false", "False"]


def test_an_unknown_backend_and_a_missing_tensorflow_are_input_errors():
    done = in_a_fresh_interpreter(
        "from features.common.errors import InputError\n"
        "sys.modules['tensorflow'] = None\n"
        "for function in (import_keras, import_tensorflow):\n"
        "    try: function()\n"
        "    except InputError as error: print(error)",
        KERAS_BACKEND="numbers",
    )
    keras, tensorflow = done.stdout.splitlines()
    assert "Keras cannot use the backend 'numbers'" in keras
    assert "unset KERAS_BACKEND" in keras
    assert "TensorFlow, which cannot be loaded" in tensorflow


@pytest.mark.parametrize(
    ("settings", "backend"),
    [
        ('{"backend": "jax"}', "jax"),
        ("{}", "tensorflow"),
        ("[]", "tensorflow"),
        ("{", "tensorflow"),
        (None, "tensorflow"),
    ],
)
def test_the_backend_is_read_without_importing_keras(tmp_path, monkeypatch, settings, backend):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    if settings is not None:
        (tmp_path / "keras.json").write_text(settings)
    assert backend_name() == backend
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert backend_name() == "torch"
