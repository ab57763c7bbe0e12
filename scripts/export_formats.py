"""The formats of exported models: how a graph of Keras becomes a file that says what it gives, and is opened again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from classify.export.graph import OUTPUTS
from features.common.keras_import import import_keras

#: ONNX's version of its operators.
OPSET = 18
#: What marks the folder of a SavedModel.
SAVED_MODEL = "saved_model.pb"
#: All that the folder of a SavedModel holds, as patterns.
_OF_SAVED_MODEL = (
    SAVED_MODEL,
    "fingerprint.pb",
    "assets",
    "variables",
    "variables/variables.index",
    "variables/variables.data-?????-of-?????",
)

ImagesByInput = Mapping[str, np.ndarray]
OutputsByName = dict[str, np.ndarray]
ModelFacts = Mapping[str, str]


@dataclass(frozen=True)
class Format:
    """A format of OUT.

    Attributes:
        name: for people, as Hugging Face's `library_name` has it.
        write: writes a Keras model to a path, and facts about it, by name in JSON, where the format has room for them.
        open: opens what was written: from images by input to the outputs by name.
        needs: the packages that both need, beside Keras.
        beside: the suffix of a second file, "" without one.
    """

    name: str
    write: Callable[[Any, Path, ModelFacts], None]
    open: Callable[[Path], Callable[[ImagesByInput], OutputsByName]]
    needs: tuple[str, ...] = ()
    beside: str = ""


def as_taken(images: ImagesByInput) -> Any:
    """Images as a Keras model takes them: alone where there is one input, else by name."""
    return dict(images) if len(images) > 1 else next(iter(images.values()))


def foreign_entry(folder: Path) -> Path | None:
    """Find what no SavedModel holds in a folder; None where there is nothing else."""
    names = {path: path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))}
    return next((path for path, name in names.items() if not any(fnmatchcase(name, p) for p in _OF_SAVED_MODEL)), None)


def _write_keras(model: Any, path: Path, _: ModelFacts) -> None:
    model.save(path)


def _open_keras(path: Path) -> Callable[[ImagesByInput], OutputsByName]:
    model = import_keras().saving.load_model(path, compile=False)
    return lambda images: {name: np.asarray(found) for name, found in model(as_taken(images)).items()}


def _write_saved_model(model: Any, path: Path, _: ModelFacts) -> None:
    model.export(path, verbose=False)


def _open_saved_model(path: Path) -> Callable[[ImagesByInput], OutputsByName]:
    import tensorflow as tf

    model = tf.saved_model.load(path)
    return lambda images: {name: found.numpy() for name, found in model.serve(as_taken(images)).items()}


def _convert(model: Any, path: Path, **how: Any) -> None:
    """Let Keras convert the graph that TensorFlow traces.

    Without functions within it: those that Keras marks for XLA, such as convolutions in groups, are not converted.
    """
    import tensorflow as tf

    model(model.input)  # Keras exports only what was called
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        model.export(str(path), verbose=False, **how)
    finally:
        tf.config.run_functions_eagerly(before)


def _write_onnx(model: Any, path: Path, facts: ModelFacts) -> None:
    onnx = import_module("onnx")
    _convert(model, path, format="onnx", opset_version=OPSET)
    written = onnx.load(path)
    for tensor in (*written.graph.input, *written.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.helper.set_model_props(written, {**facts})
    onnx.save(written, path)


def _open_onnx(path: Path) -> Callable[[ImagesByInput], OutputsByName]:
    session = import_module("onnxruntime").InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, dict(images)), strict=True))


def _write_openvino(model: Any, path: Path, facts: ModelFacts) -> None:
    _convert(model, path, format="openvino")
    tree = ElementTree.parse(path)
    root = tree.getroot()
    information = root.find("rt_info")
    if information is None:
        information = ElementTree.SubElement(root, "rt_info")
    section = ElementTree.SubElement(information, "headbank")
    for name, value in facts.items():
        ElementTree.SubElement(section, name, value=value)
    tree.write(path)


def _open_openvino(path: Path) -> Callable[[ImagesByInput], OutputsByName]:
    openvino = import_module("openvino")
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: ImagesByInput) -> OutputsByName:
        found = compiled(dict(images))
        return {name: np.array(found[name]) for name in OUTPUTS}

    return run


#: By the suffix of OUT.
FORMATS = {
    ".keras": Format("keras", _write_keras, _open_keras),
    ".onnx": Format("onnx", _write_onnx, _open_onnx, ("tf2onnx", "onnx", "onnxruntime")),
    ".xml": Format("openvino", _write_openvino, _open_openvino, ("openvino",), ".bin"),
    "": Format("tensorflow", _write_saved_model, _open_saved_model),
}
