"""Cut the pooling off a backbone: a Keras model that ends in the last feature map."""

from typing import TYPE_CHECKING, Any

from extract.backbones.build import FrozenBackbone
from features.common.errors import InputError
from features.common.keras_import import import_keras

if TYPE_CHECKING:
    import keras


def build_maps(backbone: FrozenBackbone) -> "keras.Model":
    """Build a backbone without its pooling.

    Args:
        backbone: of the table, or a user's own.

    Returns:
        Model from (B, S, S, 3) preprocessed pixels to (B, h, w, D) maps, whose mean over h and w is what
        `backbone.build()` gives. Where a layer norm follows the pooling (ConvNeXt), the map is normalised by the mean
        and deviation of its pooled vector, which keeps that so.

    Raises:
        InputError: a user's own model ends otherwise.
    """
    keras = import_keras()
    model = backbone.build()
    pooling = model.layers[-1]
    norm = None
    if isinstance(pooling, keras.layers.LayerNormalization) and len(model.layers) > 1:
        norm, pooling = pooling, model.layers[-2]
    if (
        not isinstance(pooling, keras.layers.GlobalAveragePooling2D)
        or pooling.data_format != "channels_last"
        or (norm is not None and not _is_plain(norm))
    ):
        raise InputError(
            f"{backbone.weights.path or backbone.name} ends in the layer {pooling.name} ({type(pooling).__name__}), "
            f"behind which there is no feature map that its features are the mean of. Maps are for models that end in "
            f"feature maps (B, H, W, D), or in a GlobalAveragePooling2D of them."
        )
    (inputs,), maps = model.inputs, pooling.input
    return keras.Model(inputs, maps if norm is None else _normalise(norm, maps))


def _is_plain(norm: Any) -> bool:
    """Whether a layer norm is over the channels of a vector, with a scale and a shift or without."""
    return list(norm.axis) in ([-1], [1]) if isinstance(norm.axis, (list, tuple)) else norm.axis in (-1, 1)


def _normalise(norm: Any, maps: Any) -> Any:
    """Do to a map what a layer norm does to its mean: the same shift and scale at every position."""
    ops = import_keras().ops
    pooled = ops.mean(maps, axis=(1, 2), keepdims=True)
    mean = ops.mean(pooled, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(pooled - mean), axis=-1, keepdims=True)
    normalised = (maps - mean) / ops.sqrt(variance + norm.epsilon)
    gamma, beta = (None if v is None else ops.convert_to_numpy(v) for v in (norm.gamma, norm.beta))
    normalised = normalised if gamma is None else normalised * gamma
    return normalised if beta is None else normalised + beta
