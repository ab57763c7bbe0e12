"""Give named tensors of PyTorch to the variables of a Keras model. Importing this module imports Keras."""

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from extract.backbones.tensors.files import read_tensors
from features.common.errors import InputError


def assign_tensors(model: keras.Model, path: Path, tensor_name: Callable[[str], str], unused: Sequence[str]) -> None:
    """Assign every tensor of a file to its variable.

    Args:
        model: of convolutions, batch norms and dense layers, and layers without weights.
        path: the file.
        tensor_name: what comes before `.weight` in the file, by the name of a layer. Keras on PyTorch allows no dot in
            its own.
        unused: tensors that the file may hold for layers that the model was built without.

    Raises:
        InputError: the file cannot be read, or a tensor is missing, unknown, or of another shape or type; nothing is
            assigned then.
    """
    tensors = read_tensors(path)
    targets = _targets(model, tensor_name)
    norms = [name.removesuffix("running_var") for name in targets if name.endswith(".running_var")]
    ignored = {f"{norm}num_batches_tracked" for norm in norms} | set(unused)
    advice = f"Give a file of the weights of {model.name}."
    for name in sorted(targets.keys() ^ (tensors.keys() - ignored)):
        fault = f"of {model.name} is missing" if name in targets else f"is not one of {model.name}"
        raise InputError(f"{path}: the tensor {name} {fault}. {advice}")
    for name, (variable, axes) in targets.items():
        tensor = tensors[name]
        expected = tuple(variable.shape[axes.index(axis)] for axis in range(len(axes)))
        if tensor.dtype != np.float32:
            raise InputError(f"{path}: the tensor {name} is {tensor.dtype}, not float32. {advice}")
        if tensor.shape != expected:
            raise InputError(f"{path}: the tensor {name} has shape {tensor.shape}, not {expected}. {advice}")
    for name, (variable, axes) in targets.items():
        variable.assign(np.ascontiguousarray(tensors[name].transpose(axes)))


def _targets(
    model: keras.Model, tensor_name: Callable[[str], str]
) -> dict[str, tuple[keras.Variable, tuple[int, ...]]]:
    """Map each tensor's name in the file to its variable and to the order in which Keras has PyTorch's axes."""
    targets: dict[str, tuple[keras.Variable, tuple[int, ...]]] = {}
    for layer in model.layers:
        name = tensor_name(layer.name)
        match layer:
            case keras.layers.DepthwiseConv2D():
                targets[f"{name}.weight"] = layer.kernel, (2, 3, 0, 1)
            case keras.layers.Conv2D():  # in groups, too: both keep (of a group, all) channels in this order
                targets[f"{name}.weight"] = layer.kernel, (2, 3, 1, 0)
            case keras.layers.Dense():
                targets[f"{name}.weight"] = layer.kernel, (1, 0)
                targets[f"{name}.bias"] = layer.bias, (0,)
            case keras.layers.BatchNormalization():
                targets[f"{name}.weight"] = layer.gamma, (0,)
                targets[f"{name}.bias"] = layer.beta, (0,)
                targets[f"{name}.running_mean"] = layer.moving_mean, (0,)
                targets[f"{name}.running_var"] = layer.moving_variance, (0,)
    return targets
