"""Build a backbone with its weights: a Keras model from preprocessed pixels to pooled features, or to feature maps."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extract.backbones.own_model import load_own_model, warn_of_classifier
from extract.backbones.table import PREPROCESSING, Backbone
from extract.backbones.weights import RANDOM_SEED, Weights
from extract.images.reading import Reading
from extract.images.resizing import RESIZING
from extract.runtime import split_cores
from features.common.errors import InputError
from features.common.hdf5 import refuse_inflated
from features.common.keras_import import import_keras
from features.store.recipe import Recipe

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone, the weights that it runs with, and the arithmetic that it runs in.

    Attributes:
        name: what the cache calls it.
        input_size: height and width of its input, in pixels.
        preprocessing: a key of `PREPROCESSING`.
        weights: where its weights are.
        precision: `float32` or `mixed`.
        architecture: its row of the table; None for a user's own model.
        pooling: `avg`, or `model` where a user's own model gives vectors.
        layer: the layer of a user's own model whose output are the features; "" for the model's own.
    """

    name: str
    input_size: int
    preprocessing: str
    weights: Weights
    precision: str
    architecture: Backbone | None
    pooling: str = "avg"
    layer: str = ""

    @classmethod
    def of_table(cls, row: Backbone, weights: Weights, precision: str) -> "FrozenBackbone":
        """A backbone of the table."""
        return cls(row.name, row.input_size, row.preprocessing, weights, precision, row)

    @classmethod
    def of_model(cls, name: str, weights: Weights, cached: Recipe | None = None, layer: str = "") -> "FrozenBackbone":
        """A user's own model, which runs in the precision that it was saved with.

        Args:
            name: what the cache calls it.
            weights: its file.
            cached: how the rows in the cache were made. If by the same file, it says what the model takes; otherwise
                the model is loaded to see.
            layer: as in the class.

        Raises:
            InputError: the file does not load, or the model does not take RGB images of one fixed size.
        """
        assert weights.path is not None
        if cached is not None and (cached.backbone, cached.weights_digest, cached.layer) == (
            *(name, weights.digest, layer),
        ):
            return cls(name, cached.input_size, "model", weights, "float32", None, cached.pooling, layer)
        model = load_own_model(weights.path, layer)
        shape = getattr(model, "input_shape", None)
        if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] is None or shape[1] != shape[2] or shape[3] != 3:
            raise InputError(
                f"{weights.path} takes inputs of shape {shape}; a backbone takes (None, S, S, 3) with S fixed. "
                f"Save it with such an input."
            )
        _pooled(model)
        warn_of_classifier(model, weights.path)
        pooling = "avg" if len(model.output_shape) == 4 else "model"
        return cls(name, int(shape[1]), "model", weights, "float32", None, pooling, layer)

    def recipe(self, storage: str, reading: Reading) -> Recipe:
        """All that decides the values of its features of images read so, stored as `float32` or `float16`."""
        return Recipe(
            backbone=self.name,
            weights=self.weights.label,
            weights_digest=self.weights.digest,
            preprocessing=f"{RESIZING[reading.fit]}; {PREPROCESSING[self.preprocessing]}",
            input_size=self.input_size,
            pooling=self.pooling,
            layer=self.layer,
            precision=self.precision,
            storage=storage,
            **reading.settings(),
        )

    def build(self) -> "keras.Model":
        """Build the Keras model and load its weights.

        Returns:
            Model from (B, S, S, 3) preprocessed pixels to (B, D) pooled features.

        Raises:
            InputError: the weights do not fit the architecture.
        """
        if self.architecture is None:
            assert self.weights.path is not None
            return _pooled(load_own_model(self.weights.path, self.layer))
        split_cores()
        keras = import_keras()
        keras.config.set_dtype_policy("mixed_float16" if self.precision == "mixed" else "float32")
        try:
            if self.weights.kind == "random":
                keras.utils.set_random_seed(RANDOM_SEED)
            if self.architecture.embedded:
                from extract.backbones.efficientnet_lite import build

                return build(int(self.architecture.builder.removeprefix("lite:")), self.weights.path)
            # With an input shape: without it EfficientNet pads odd maps at another side than when it was trained.
            shape = (self.input_size, self.input_size, 3)
            builder = getattr(keras.applications, self.architecture.builder)
            model = builder(include_top=False, weights=None, pooling="avg", input_shape=shape)
            if self.weights.path is not None:
                _load_weights(model, self.weights.path)
                if self.weights.kind == "imagenet" and self.architecture.builder.startswith("EfficientNetB"):
                    _match_imagenet_scaling(model)
            return model
        finally:
            keras.config.set_dtype_policy("float32")


def _load_weights(model: "keras.Model", path: Path) -> None:
    """Load weights; what does not fit becomes an InputError naming the file."""
    try:
        if path.suffix == ".h5":
            refuse_inflated(io.BytesIO(path.read_bytes()))
        with warnings.catch_warnings():
            # Keras only warns of layers that are missing from the file, and leaves them as they were drawn.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except (ValueError, OSError, KeyError, AttributeError, TypeError, UserWarning) as error:  # Keras, on a foreign file
        raise InputError(
            f"{path} does not fit {model.name}: it holds the weights of another architecture, or not all of this one. "
            f"Give weights that were saved from {model.name} without its classifier. Keras says: "
            f"{str(error).splitlines()[0][:200]}"
        ) from None


def _pooled(model: "keras.Model") -> "keras.Model":
    """Append average pooling where a model ends in feature maps; a Sequential model becomes a functional one."""
    keras = import_keras()
    shape = model.output_shape
    if not isinstance(shape, tuple) or len(shape) not in (2, 4):
        raise InputError(f"a backbone gives (B, D) features or (B, H, W, D) maps; {model.name} gives {shape}.")
    (inputs,), (output,) = model.inputs, model.outputs
    if len(shape) == 4:
        # The name is ours: the model may hold a layer with the name that Keras gives by default.
        output = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="headbank_pooling")(output)
    return keras.Model(inputs, output)


def _match_imagenet_scaling(model: "keras.Model") -> None:
    """Scale EfficientNet's input as its ImageNet weights were trained.

    With weights="imagenet" keras.applications adds a layer after the normalisation that divides by the square root
    of ImageNet's standard deviations once more; with weights=None, as here, it leaves that layer out. A smaller
    variance in the normalisation itself has the same effect.
    """
    kind = import_keras().layers.Normalization
    normalization = next(layer for layer in model.layers if isinstance(layer, kind))
    deviations = (0.229, 0.224, 0.225)  # keras.applications.efficientnet, IMAGENET_STDDEV_RGB
    normalization.adapt_variance.assign(normalization.adapt_variance * deviations)
    normalization.finalize_state()


def build_maps(backbone: FrozenBackbone) -> "keras.Model":
    """Build a backbone without its pooling.

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
        or (norm is not None and np.ravel(norm.axis).tolist() not in ([-1], [1]))  # the channels of a vector
    ):
        raise InputError(
            f"{backbone.weights.path or backbone.name} ends in the layer {pooling.name} ({type(pooling).__name__}), "
            f"so its features are not the mean of a feature map, and have no heat map. A model with heat maps ends in "
            f"feature maps (B, H, W, D), or in a GlobalAveragePooling2D of them."
        )
    (inputs,), maps = model.inputs, pooling.input
    return keras.Model(inputs, maps if norm is None else _normalise(norm, maps))


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
