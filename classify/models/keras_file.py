"""The Keras file of a head, written and read without Keras, which takes seconds to import.

The format is that of Keras 3 (keras/src/saving/saving_lib.py): a zip of metadata, of the layers as JSON, and of their
weights as HDF5.
"""

import io
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args
from zipfile import ZipFile, ZipInfo

import h5py
import numpy as np

from classify.models.heads import Output
from classify.models.trained_head import BATCH_NORM_EPSILON, HeadWeights, TrainedHead
from features.common.errors import InputError

_METADATA, _CONFIG, _WEIGHTS = "metadata.json", "config.json", "model.weights.h5"


def write_keras(head: TrainedHead) -> bytes:
    """Write a head as an ordinary Keras model, not compiled: (N, D) float32 features in, (N, L) probabilities out.

    Equal heads give equal bytes.
    """
    spec, weights = head.spec, list(head.weights)
    layers: list[tuple[str, dict[str, Any], list[np.ndarray]]] = []
    if spec.batch_norm:
        layers.append(("BatchNormalization", {"epsilon": BATCH_NORM_EPSILON}, weights[:4]))
        weights = weights[4:]
    dense = list(zip(weights[::2], weights[1::2], strict=True))
    for place, pair in enumerate(dense):
        last = place == len(dense) - 1
        regulariser = {"module": "keras.regularizers", "class_name": "L2", "config": {"l2": spec.l2}}
        layers.append(("Dropout", {"rate": spec.dropout}, []))
        config = {
            "units": len(pair[1]),
            "activation": (spec.output or "sigmoid") if last else "relu",
            "kernel_regularizer": regulariser,
            "name": "labels" if last else f"hidden{place + 1}",
        }
        layers.append(("Dense", config, list(pair)))
    first = {"batch_shape": [None, len(head.weights[0])], "dtype": "float32", "name": "features"}
    described = [_describe("InputLayer", first)] + [_describe(kind, config) for kind, config, _ in layers]
    model = {"module": "keras", "class_name": "Sequential", "config": {"name": "head", "layers": described}}
    stored = io.BytesIO()
    with h5py.File(stored, "w") as file:
        for group, (_, _, arrays) in zip(_groups([kind for kind, _, _ in layers]), layers, strict=True):
            variables = file.create_group(f"layers/{group}/vars")
            for number, array in enumerate(arrays):
                variables[str(number)] = array
    content = io.BytesIO()
    with ZipFile(content, "w") as archive:
        archive.writestr(ZipInfo(_METADATA), json.dumps({"keras_version": version("keras")}))
        archive.writestr(ZipInfo(_CONFIG), json.dumps(model))
        archive.writestr(ZipInfo(_WEIGHTS), stored.getvalue())
    return content.getvalue()


def read_keras(content: bytes, path: Path) -> HeadWeights:
    """Read the Keras file of a head, a sound archive from `path`, also one that Keras wrote.

    Raises:
        InputError: it holds no head.
    """
    try:
        with ZipFile(io.BytesIO(content)) as archive:
            model = json.loads(archive.read(_CONFIG))
            weights = archive.read(_WEIGHTS)
        layers = [(layer["class_name"], layer["config"]) for layer in model["config"]["layers"]]
        kinds = [kind for kind, _ in layers if kind != "InputLayer"]
        with h5py.File(io.BytesIO(weights)) as file:
            arrays = [_read_variables(file[f"layers/{group}/vars"]) for group in _groups(kinds)]
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise InputError(f"{path} is not a head that can be read ({error}). Make the run again.") from None
    named = [layer for layer in layers if layer[0] != "InputLayer"]
    own = [(kind, config, found) for (kind, config), found in zip(named, arrays, strict=True) if kind != "Dropout"]
    batch_norm = bool(own) and own[0][0] == "BatchNormalization"
    dense = own[batch_norm:]
    activations = [config.get("activation") if _is_dense(kind, config) else None for kind, config, _ in dense]
    flat = [array for _, _, found in own for array in found]
    output = activations[-1] if activations and activations[-1] in get_args(Output) else "sigmoid"
    expected = ["relu"] * (len(activations) - 1) + [output]
    plain = not batch_norm or (own[0][1].get("epsilon"), len(own[0][2])) == (BATCH_NORM_EPSILON, 4)
    if model.get("class_name") != "Sequential" or activations != expected or not plain or not _fit(flat, batch_norm):
        raise InputError(f"{path} is a Keras model, but not a head of Headbank. Make the run again.")
    return HeadWeights(flat, batch_norm, output == "softmax")


def _describe(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """A layer in the words of Keras; what is not said has its default."""
    return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}


def _groups(kinds: list[str]) -> list[str]:
    """Where each layer's weights lie, by the classes of the layers in their order: `dense`, `dense_1`."""
    seen: dict[str, int] = {}
    groups = []
    for kind in kinds:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
        groups.append(f"{name}_{seen[name]}" if name in seen else name)
        seen[name] = seen.get(name, 0) + 1
    return groups


def _read_variables(group: h5py.Group) -> list[np.ndarray]:
    """The arrays of a layer in their order."""
    return [np.asarray(group[str(number)]) for number in range(len(group))]


def _is_dense(kind: str, config: dict[str, Any]) -> bool:
    """Whether a layer is dense and has a bias."""
    return kind == "Dense" and config.get("use_bias", True)


def _fit(weights: list[np.ndarray], batch_norm: bool) -> bool:
    """Whether arrays are float32 and of the shapes of a head, as those of `HeadWeights`."""
    dense = weights[4 * batch_norm :]
    if not dense or len(dense) % 2 or any(weight.dtype != np.float32 for weight in weights):
        return False
    kernels, biases = dense[::2], dense[1::2]
    if any(kernel.ndim != 2 or bias.shape != kernel.shape[1:] for kernel, bias in zip(kernels, biases, strict=True)):
        return False
    follows = all(bias.shape == kernel.shape[:1] for bias, kernel in zip(biases, kernels[1:], strict=False))
    return follows and all(weight.shape == kernels[0].shape[:1] for weight in weights[: 4 * batch_norm])
