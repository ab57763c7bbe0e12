"""The embedded backbones EfficientNet-Lite0, Lite1 and Lite2 in Keras 3, on any of its backends.

EfficientNet-B0/1/2 (Tan and Le 2019, table 1) without squeeze-and-excitation, with ReLU6 for swish; stem and head keep
their width, the first and last stage their depth (tensorflow/tpu, `efficientnet/lite`). Importing this module imports
Keras: import it where a model is built, not where backbones are listed.
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

import keras

from extract.backbones.tensors.assign import assign_tensors
from features.common.errors import InputError


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int


_STAGES = (  # Tan and Le 2019, table 1: B0
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
#: Factors of width and depth of each variant.
_SCALINGS = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
_STEM_WIDTH = 32
_HEAD_WIDTH = 1280
_CLASSES = 1000


def build(variant: int, weights: Path | None, size: int, include_top: bool = False) -> keras.Model:
    """Build one backbone.

    Preprocessing is not part of the model: the caller feeds (pixel - 127) / 128.

    Args:
        variant: 0, 1 or 2.
        weights: a file of its tensors as `extract.backbones.weights.imagenet_file` finds it; None leaves what
            Keras' initialisers drew (seed them with `keras.utils.set_random_seed`).
        size: height and width S of its input; its weights were published for 224, 240 and 260 pixels.
        include_top: add the dense layer over the 1000 classes of ImageNet-1k.

    Returns:
        Model from float32 (B, S, S, 3), RGB, to float32 (B, 1280): the map of the layer
        `head_activation` (after the head's convolution, batch norm and ReLU6; 0 to 6) averaged over its positions.
        With the top to float32 (B, 1000): softmax probabilities.

    Raises:
        InputError: no such variant; or the file cannot be read, or a tensor is missing, unknown, or of another
            shape or type; the message names the file and the tensor.
    """
    if variant not in _SCALINGS:
        raise InputError(f"EfficientNet-Lite has the variants 0, 1 and 2; received {variant!r}.")
    image = keras.Input((size, size, 3), name="image")
    x = _normalise(_convolve(image, _STEM_WIDTH, 3, 2, "conv_stem"), "bn0", "stem_activation")
    for index, (block, first_stride) in enumerate(_blocks(variant)):
        x = _inverted_residual(x, block, first_stride, f"block{index}")
    x = _normalise(_convolve(x, _HEAD_WIDTH, 1, 1, "conv_head"), "bn1", "head_activation")
    x = keras.layers.GlobalAveragePooling2D(name="pooling")(x)
    if include_top:
        x = keras.layers.Dense(_CLASSES, activation="softmax", name="fc")(x)
    model = keras.Model(image, x, name=f"efficientnet_lite{variant}")
    if weights is not None:
        assign_tensors(model, weights, _tensor_name, () if include_top else ("_fc.weight", "_fc.bias"))
    return model


def _blocks(variant: int) -> list[tuple[_Stage, int]]:
    """Scale the stages and unroll them into (stage, stride) per block."""
    wider, deeper = _SCALINGS[variant]
    blocks = []
    for number, stage in enumerate(_STAGES):
        inner = 0 < number < len(_STAGES) - 1
        repeats = math.ceil(stage.repeats * deeper) if inner else stage.repeats
        scaled = stage._replace(width=_round_width(stage.width * wider))
        blocks += [(scaled, stage.stride if repeat == 0 else 1) for repeat in range(repeats)]
    return blocks


def _round_width(width: float) -> int:
    """Round to the nearest multiple of 8 that is not below 90 % of the width (tensorflow/tpu, `round_filters`)."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8


def _inverted_residual(x: keras.KerasTensor, stage: _Stage, stride: int, name: str) -> keras.KerasTensor:
    """Expand (unless the factor is 1), filter depthwise, project; add the input where the shapes agree."""
    entry, width = x, x.shape[-1]
    if stage.expansion > 1:
        x = _convolve(x, width * stage.expansion, 1, 1, f"{name}_expand_conv")
        x = _normalise(x, f"{name}_bn0", f"{name}_expand_activation")
    x = keras.layers.DepthwiseConv2D(
        stage.kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(x)
    x = _normalise(x, f"{name}_bn1", f"{name}_depthwise_activation")
    x = _normalise(_convolve(x, stage.width, 1, 1, f"{name}_project_conv"), f"{name}_bn2")
    return keras.layers.Add(name=f"{name}_add")([x, entry]) if stride == 1 and width == stage.width else x


def _convolve(x: keras.KerasTensor, width: int, kernel: int, stride: int, name: str) -> keras.KerasTensor:
    return keras.layers.Conv2D(width, kernel, strides=stride, padding="same", use_bias=False, name=name)(x)


def _normalise(x: keras.KerasTensor, name: str, activation: str = "") -> keras.KerasTensor:
    """Normalise, and cut to 0 to 6 where the activation has a name."""
    x = keras.layers.BatchNormalization(epsilon=1e-3, name=name)(x)  # tensorflow/tpu's epsilon
    return keras.layers.ReLU(max_value=6.0, name=activation)(x) if activation else x


def _tensor_name(layer: str) -> str:
    """What a layer's tensors are called in the checkpoint: block0_bn1 here is _blocks.0._bn1 there, bn1 is _bn1."""
    return "_" + re.sub(r"^block(\d+)_", r"blocks.\1._", layer)
