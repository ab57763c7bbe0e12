"""The engines by name, and which of them computes: light, so that help reads it."""

from importlib.util import find_spec

from features.common.errors import InputError
from features.common.keras_import import backend_name

TENSORFLOW, OPENVINO = "tensorflow", "openvino"
#: By the name that `--engine` takes, what each is.
ENGINES = {
    TENSORFLOW: "TensorFlow's own kernels, or XLA on a GPU",
    OPENVINO: "OpenVINO on a CPU, from the graph that TensorFlow traced",
}
#: The command that installs the engines that are optional.
INSTALL = ".venv/bin/pip install --no-deps -r requirements-engines.txt"


def choose_engine(choice: str, device: str, precision: str) -> str:
    """Choose what computes.

    Args:
        choice: a name of `ENGINES`, or `auto`: the fastest one that there is.
        device: as `extract.runtime.device_name` says it.
        precision: of the arithmetic, `float32` or `mixed`.

    Returns:
        A name of `ENGINES`; of another backend than TensorFlow, its own name.

    Raises:
        InputError: the choice is not possible here; the message says why.
    """
    backend = backend_name()
    obstacles = [
        (backend != TENSORFLOW, f"Keras runs on {backend}. Leave KERAS_BACKEND out"),
        (device != "CPU", f"it is for CPUs, and this machine computes on {device}. Set CUDA_VISIBLE_DEVICES="),
        (precision != "float32", f"it computes in float32, not in --precision {precision}. Leave that out"),
        (find_spec(OPENVINO) is None, f"it is not installed. Run: {INSTALL}"),
    ]
    obstacle = next((words for there, words in obstacles if there), "")
    if choice == OPENVINO and obstacle:
        raise InputError(f"--engine {OPENVINO}: {obstacle}; or use --engine auto.")
    if choice == TENSORFLOW and backend != TENSORFLOW:
        raise InputError(f"--engine {TENSORFLOW}: Keras runs on {backend}. Leave KERAS_BACKEND out, or the engine.")
    if choice == "auto":
        return backend if obstacle else OPENVINO
    return choice
