"""Fold batch norms into the convolutions before them: fewer operations, the same features to rounding."""

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from features.common.keras_import import import_keras

if TYPE_CHECKING:
    import keras

#: The convolutions that take a batch norm, and how many kernels each has.
_KERNELS = {"Conv2D": 1, "DepthwiseConv2D": 1, "SeparableConv2D": 2}


def fold_batch_norms(model: "keras.Model") -> "keras.Model":
    """Fold each batch norm that alone reads a convolution into that convolution's kernel and bias.

    A frozen batch norm scales and shifts every channel by constants, `gamma / sqrt(variance + epsilon)` and
    `beta - mean * scale` (Ioffe and Szegedy 2015, section 3.1), which a linear convolution can do itself. TensorFlow's
    optimiser folds the scale by itself, but not where the convolution has a bias (ResNet50), and where a sum follows
    it keeps the shift as a separate operation. docs/decisions.md has the gain.

    Args:
        model: a frozen functional model. Models inside it stay as they are.

    Returns:
        A functional model of the same features, to float32 rounding; all layers but the folded convolutions are
        shared with `model`, which is not changed. Layers of another precision than float32 are not folded, for their
        rounding would change. A model that is not functional is returned as it is.
    """
    keras = import_keras()
    config = model.get_config()
    if "input_layers" not in config:
        return model
    pairs = _pairs(model, config)
    if not pairs:
        return model
    convolutions = set(pairs.values())

    def clone(layer: Any) -> Any:
        if layer.name not in convolutions:
            return layer
        return type(layer).from_config({**layer.get_config(), "use_bias": True})

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer.name not in pairs:
            return layer(*args, **kwargs)
        return args[0] if args else kwargs["inputs"]

    folded = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for norm, convolution in pairs.items():
        _fold(model.get_layer(norm), model.get_layer(convolution), folded.get_layer(convolution))
    return folded


def _pairs(model: "keras.Model", config: dict[str, Any]) -> dict[str, str]:
    """Find {batch norm: its convolution} where both run only once, and no other layer reads the convolution."""
    layers = {layer["name"]: layer for layer in config["layers"]}
    sources = {name: list_sources(layer["inbound_nodes"]) for name, layer in layers.items()}
    outputs = import_keras().tree.flatten(config["output_layers"])[::3]  # of each: name, node, tensor
    read = Counter([*chain(*sources.values()), *outputs])
    pairs = {}
    for name, norm in layers.items():
        if norm["class_name"] != "BatchNormalization" or len(sources[name]) != 1:
            continue
        convolution = layers[sources[name][0]]
        if (
            convolution["class_name"] in _KERNELS
            and all(_is_plain(model.get_layer(layer["name"])) for layer in (norm, convolution))
            and convolution["config"]["activation"] == "linear"
            and convolution["config"]["data_format"] == "channels_last"
            and norm["config"]["axis"] in (-1, 3)
            and len(convolution["inbound_nodes"]) == 1
            and read[convolution["name"]] == 1
        ):
            pairs[name] = convolution["name"]
    return pairs


def _is_plain(layer: Any) -> bool:
    """Whether a layer is Keras' own, computes in float32, and has no more weights than its class has (no LoRA)."""
    kernels = _KERNELS.get(type(layer).__name__)
    return (
        type(layer).__module__.startswith("keras.")
        and layer.dtype_policy.name == "float32"
        and (kernels is None or len(layer.weights) == kernels + layer.use_bias)
    )


def list_sources(node: Any) -> list[str]:
    """Names of the layers whose outputs are anywhere in a serialised call."""
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            return [node["config"]["keras_history"][0]]
        node = list(node.values())
    return [name for part in node for name in list_sources(part)] if isinstance(node, (list, tuple)) else []


def _fold(norm: Any, convolution: Any, folded: Any) -> None:
    """Give `folded` the kernels and the bias of `convolution` followed by `norm`, computed in float64."""
    variance, mean = _values(norm.moving_variance, 1.0), _values(norm.moving_mean, 0.0)
    gamma, beta, bias = _values(norm.gamma, 1.0), _values(norm.beta, 0.0), _values(convolution.bias, 0.0)
    scale = gamma / np.sqrt(variance + norm.epsilon)
    weights = convolution.get_weights()
    *before, kernel = weights[: _KERNELS[type(convolution).__name__]]
    # A depthwise kernel (height, width, in, multiplier) gives in x multiplier channels; any other ends in channels.
    depthwise = type(convolution).__name__ == "DepthwiseConv2D"
    kernel = kernel * (scale.reshape(kernel.shape[2:]) if depthwise else scale)
    folded.set_weights([*before, kernel, (bias - mean) * scale + beta])


def _values(variable: Any, default: float) -> np.ndarray:
    """Values of a variable in float64; the default where the layer was made without it."""
    return np.asarray(default if variable is None else import_keras().ops.convert_to_numpy(variable), np.float64)
