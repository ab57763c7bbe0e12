"""ResNeXt-50 (32x4d) in Keras 3, as torchvision has it.

ResNet-50 with the 3 x 3 convolution of each block in 32 groups of 4 channels and more (Xie et al. 2017, table 1); as in
torchvision, that convolution has the stride. Importing this module imports Keras: import it where a model is built.
"""

import re
from pathlib import Path

import keras

from extract.backbones.tensors.assign import assign_tensors

#: Blocks of each layer, and the width within its blocks.
_LAYERS = ((3, 128), (4, 256), (6, 512), (3, 1024))
_GROUPS = 32
_STEM_WIDTH, _CLASSES, _SIZE = 64, 1000, 224


def build_resnext(weights: Path | None, size: int, include_top: bool = False) -> keras.Model:
    """Build the backbone.

    Args:
        weights: a file of torchvision's tensors; None leaves what Keras' initialisers drew.
        size: height and width S of its input; its weights were published for 224 pixels.
        include_top: add the dense layer over the 1000 classes of ImageNet-1k.

    Returns:
        Model from float32 (B, S, S, 3), RGB, preprocessed as "torch", to float32 (B, 2048): the map of the layer
        `layer4_block3_out` averaged over its positions. With the top to float32 (B, 1000): softmax probabilities.

    Raises:
        InputError: the file cannot be read, or a tensor is missing, unknown, or of another shape or type.
    """
    image = keras.Input((size, size, 3), name="image")
    x = _normalise(_convolve(image, _STEM_WIDTH, 7, 2, "conv1"), "bn1", "conv1_out")
    # After a ReLU, zeros around the map are as good as torchvision's minus infinity.
    x = keras.layers.ZeroPadding2D(1, name="maxpool_pad")(x)
    x = keras.layers.MaxPooling2D(3, 2, name="maxpool")(x)
    for layer, (blocks, width) in enumerate(_LAYERS, 1):
        for block in range(1, blocks + 1):
            x = _bottleneck(x, width, 2 if layer > 1 and block == 1 else 1, f"layer{layer}_block{block}")
    x = keras.layers.GlobalAveragePooling2D(name="pooling")(x)
    if include_top:
        x = keras.layers.Dense(_CLASSES, activation="softmax", name="fc")(x)
    model = keras.Model(image, x, name="resnext50")
    if weights is not None:
        assign_tensors(model, weights, _tensor_name, () if include_top else ("fc.weight", "fc.bias"))
    return model


def _bottleneck(x: keras.KerasTensor, width: int, stride: int, name: str) -> keras.KerasTensor:
    """Narrow, filter in groups, widen; add the input, projected where the shapes differ."""
    entry = x
    x = _normalise(_convolve(x, width, 1, 1, f"{name}_conv1"), f"{name}_bn1", f"{name}_conv1_out")
    x = _normalise(_convolve(x, width, 3, stride, f"{name}_conv2", _GROUPS), f"{name}_bn2", f"{name}_conv2_out")
    x = _normalise(_convolve(x, 2 * width, 1, 1, f"{name}_conv3"), f"{name}_bn3")
    if entry.shape != x.shape:
        entry = _normalise(_convolve(entry, 2 * width, 1, stride, f"{name}_downsample0"), f"{name}_downsample1")
    return keras.layers.ReLU(name=f"{name}_out")(keras.layers.Add(name=f"{name}_add")([x, entry]))


def _convolve(
    x: keras.KerasTensor, width: int, kernel: int, stride: int, name: str, groups: int = 1
) -> keras.KerasTensor:
    """Pad on all sides, as PyTorch does: Keras' own "same" pads odd where the stride is 2."""
    if kernel > 1:
        x = keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    return keras.layers.Conv2D(width, kernel, strides=stride, groups=groups, use_bias=False, name=name)(x)


def _normalise(x: keras.KerasTensor, name: str, activation: str = "") -> keras.KerasTensor:
    """Normalise, and cut at 0 where the activation has a name."""
    x = keras.layers.BatchNormalization(epsilon=1e-5, name=name)(x)  # PyTorch's epsilon
    return keras.layers.ReLU(name=activation)(x) if activation else x


def _tensor_name(layer: str) -> str:
    """What a layer's tensors are called by torchvision: layer1_block1_conv1 here is layer1.0.conv1 there."""
    found = re.fullmatch(r"(layer\d)_block(\d)_(\w+)", layer)
    if not found:
        return layer
    return f"{found[1]}.{int(found[2]) - 1}.{found[3].replace('downsample', 'downsample.')}"
