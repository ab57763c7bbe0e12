"""Build a backbone with its weights: a Keras model from preprocessed pixels to pooled features, or to feature maps."""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from extract.backbones.folding import fold_batch_norms
from extract.backbones.own_model import choose_taps, cut_model, load_own_model, warn_of_classifier
from extract.backbones.pooling import choose_pooling, pool_features, pool_maps
from extract.backbones.table import PREPROCESSING, Backbone
from extract.backbones.taps import find_layer
from extract.backbones.weights import RANDOM_SEED, Weights
from extract.engines.table import OPENVINO, choose_engine
from extract.images.reading import Reading
from extract.images.resizing import RESIZING
from extract.runtime import Extractor, device_name, split_cores
from features.common.errors import InputError
from features.common.files import digest_file
from features.common.hdf5 import refuse_inflated
from features.common.keras_import import import_keras
from features.folds.tuning import Tuning
from features.store.recipe import FEATURES, MID_POOLING, Recipe

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
        features: what one pass gives, of `features.store.recipe.FEATURES`, at least one, in their order.
        taps: the two layers of mid-level features; () where there are none.
        pooling: `avg`; of a user's own model also `model` where it gives vectors, or of `TOKEN_POOLINGS`.
        layer: the layer of a user's own model whose output are the features; "" for the model's own.
        tuned: of a fine-tuned backbone the digest of what it has seen, as in a recipe.
    """

    name: str
    input_size: int
    preprocessing: str
    weights: Weights
    precision: str
    architecture: Backbone | None
    features: tuple[str, ...] = ("last",)
    taps: tuple[str, ...] = ()
    pooling: str = "avg"
    layer: str = ""
    tuned: str = ""

    @classmethod
    def of_table(
        cls,
        row: Backbone,
        weights: Weights,
        precision: str,
        features: tuple[str, ...] = ("last",),
        size: int | None = None,
    ) -> "FrozenBackbone":
        """A backbone of the table; of another input size than its own it has another name, such as `resnet50.384`."""
        name = row.name if size in (None, row.input_size) else f"{row.name}.{size}"
        return cls(name, size or row.input_size, row.preprocessing, weights, precision, row, features, row.taps)

    @classmethod
    def of_model(
        cls,
        name: str,
        weights: Weights,
        features: tuple[str, ...] = ("last",),
        layers: Mapping[str, str] = MappingProxyType({}),
        cached: Sequence[Recipe] = (),
        pooling: str = "",
    ) -> "FrozenBackbone":
        """A user's own model, which runs in the precision that it was saved with.

        Args:
            name: what the cache calls it.
            weights: its file.
            features: what is wanted of it; mid-level features only where it has maps of two resolutions.
            layers: by kind of features the layers that give them, as in a recipe. A kind without has those of cached
                rows; or else the model's last one, or those found by shape.
            cached: how rows of it in the cache were made. If by the same file, they say what the model takes; otherwise
                the model is loaded to see.
            pooling: of `TOKEN_POOLINGS`, of a model that gives tokens; "" of any other, or for that of the cached rows.

        Raises:
            InputError: the file does not load, the model does not take RGB images of one fixed size, it has no such
                layers, or it gives tokens and `pooling` does not say what becomes of them, or no tokens and it does.
        """
        assert weights.path is not None
        kept = {
            recipe.features: recipe
            for recipe in cached
            if (recipe.backbone, recipe.weights_digest) == (name + FEATURES[recipe.features], weights.digest)
        }
        if "last" in kept and "last" not in layers:
            pooling = pooling or kept["last"].pooling_option
        layers = {**{kind: recipe.layer for kind, recipe in kept.items()}, **layers}
        known = {
            kind: recipe
            for kind, recipe in kept.items()
            if layers[kind] == recipe.layer and (kind == "mid" or pooling == recipe.pooling_option)
        }
        if known.keys() >= {*features}:
            size = known[features[0]].input_size
            taps = tuple(known["mid"].layer.split(",")) if "mid" in known else ()
            pooling = known["last"].pooling if "last" in known else "avg"
        else:
            model = load_own_model(weights.path)
            size = _input_size(model, weights.path)
            last = cut_model(model, weights.path, layers.get("last", ""))
            pooling = choose_pooling(last.output_shape, weights.path, pooling)
            if "last" in features:
                warn_of_classifier(last, weights.path)
            taps = choose_taps(model, weights.path, layers.get("mid", ""), features) if "mid" in features else ()
            features = tuple(kind for kind in features if kind != "mid" or taps)
        layer = layers.get("last", "")
        return cls(name, size, "model", weights, "float32", None, features, taps, pooling, layer)

    @classmethod
    def of_tuned(cls, name: str, path: Path, tuning: Tuning, features: tuple[str, ...] = ("last",)) -> "FrozenBackbone":
        """A fine-tuned backbone, which takes pixels preprocessed as the one of the table does.

        Args:
            name: what the cache calls it.
            path: its .keras file.
            tuning: what the file says that it has seen.
            features: what is wanted of it.
        """
        size, preprocessing, taps = (tuning.settings[key] for key in ("input_size", "preprocessing", "taps"))
        weights = Weights("model", str(path.resolve()), digest_file(path).hex(), path)
        return cls(
            name, size, preprocessing, weights, "float32", None, features, tuple(taps), "model", tuned=tuning.digest
        )

    @property
    def rows(self) -> tuple[str, ...]:
        """What the cache calls the rows that one pass gives."""
        return tuple(self.name + FEATURES[kind] for kind in self.features)

    def recipes(self, storage: str, reading: Reading) -> tuple[Recipe, ...]:
        """All that decides the values of its rows of images read so, stored as `float32` or `float16`."""
        layers = {"last": (self.pooling, self.layer), "mid": (MID_POOLING, ",".join(self.taps))}
        return tuple(
            Recipe(
                backbone=name,
                weights=self.weights.label,
                weights_digest=self.weights.digest,
                preprocessing=f"{RESIZING[reading.fit]}; {PREPROCESSING[self.preprocessing]}",
                input_size=self.input_size,
                pooling=layers[kind][0],
                layer=layers[kind][1],
                precision=self.precision,
                storage=storage,
                tuned=self.tuned,
                **reading.settings(),
            )
            for name, kind in zip(self.rows, self.features, strict=True)
        )

    def build(self) -> "keras.Model":
        """Build the Keras model of the features `last`, and load its weights.

        Returns:
            Model from (B, S, S, 3) preprocessed pixels to (B, D) pooled features.

        Raises:
            InputError: the weights do not fit the architecture.
        """
        return self._end(self.build_whole())

    def build_rows(self) -> "keras.Model":
        """Build the Keras model of all its rows, as `build` does.

        Returns:
            Model from (B, S, S, 3) preprocessed pixels to pooled features, a list of (B, D), one for each of `rows`.
        """
        whole = self.build_whole()
        maps = [find_layer(whole, tap).output for tap in self.taps if "mid" in self.features]
        outputs = [pool_maps(maps) if kind == "mid" else self._end(whole).output for kind in self.features]
        return import_keras().Model(whole.inputs[0], outputs)

    def compile(
        self, batch_size: int | None, engine: str, sample: np.ndarray, classifier: Path | None = None
    ) -> Extractor:
        """Build and compile it with its weights.

        Args:
            batch_size: images a batch; None: by the device.
            engine: what computes, a name of `extract.engines.table.ENGINES`, or `auto`.
            sample: uint8 (n, S, S, 3), some images, on which an engine proves itself.
            classifier: weights as of `build_classifier`, which is compiled in place of `build_rows`.
        """
        device = device_name()
        return Extractor(
            lambda: fold_batch_norms(self.build_classifier(classifier) if classifier else self.build_rows()),
            self.preprocessing,
            self.input_size,
            batch_size,
            sample if choose_engine(engine, device, self.precision) == OPENVINO else None,
        )

    def _end(self, whole: "keras.Model") -> "keras.Model":
        """End a whole model in its last features, (B, D)."""
        if self.architecture is not None:
            return whole
        assert self.weights.path is not None
        return pool_features(cut_model(whole, self.weights.path, self.layer), self.pooling)

    def build_classifier(self, path: Path) -> "keras.Model":
        """Build a backbone of the table with its classifier.

        Args:
            path: ImageNet weights with the classifier.

        Returns:
            Model from (B, S, S, 3) preprocessed pixels to (B, 1000), the probabilities of ImageNet's classes.

        Raises:
            InputError: the weights do not fit the architecture, or have no classifier.
        """
        return self._build_architecture(path, include_top=True)

    def build_whole(self) -> "keras.Model":
        """Build the backbone, pooled, with its weights; load a user's own model as it was saved."""
        if self.architecture is None:
            assert self.weights.path is not None
            return load_own_model(self.weights.path)
        return self._build_architecture(self.weights.path)

    def _build_architecture(self, weights: Path | None, include_top: bool = False) -> "keras.Model":
        """Build a backbone of the table, pooled or with its classifier, with its weights."""
        assert self.architecture is not None
        split_cores()
        keras = import_keras()
        keras.config.set_dtype_policy("mixed_float16" if self.precision == "mixed" else "float32")
        try:
            if self.weights.kind == "random":
                keras.utils.set_random_seed(RANDOM_SEED)
            if not self.architecture.of_keras:
                return _build_of_tensors(self.architecture, weights, self.input_size, include_top)
            # With an input shape: without it EfficientNet pads odd maps at another side than when it was trained.
            shape = (self.input_size, self.input_size, 3)
            builder = getattr(keras.applications, self.architecture.builder)
            model = builder(include_top=include_top, weights=None, pooling="avg", input_shape=shape)
            if weights is not None:
                _load_weights(model, weights, "with" if include_top else "without")
                if self.weights.kind == "imagenet" and self.architecture.builder.startswith("EfficientNetB"):
                    _match_imagenet_scaling(model)
            return model
        finally:
            keras.config.set_dtype_policy("float32")


def _build_of_tensors(row: Backbone, weights: Path | None, size: int, include_top: bool) -> "keras.Model":
    """Build a backbone that keras.applications does not have."""
    if row.embedded:
        from extract.backbones.efficientnet_lite import build

        return build(int(row.builder.removeprefix("lite:")), weights, size, include_top)
    from extract.backbones.resnext import build_resnext

    return build_resnext(weights, size, include_top)


def _load_weights(model: "keras.Model", path: Path, classifier: str = "without") -> None:
    """Load weights, with or without the classifier; what does not fit becomes an InputError naming the file."""
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
            f"Give weights that were saved from {model.name} {classifier} its classifier. Keras says: "
            f"{str(error).splitlines()[0][:200]}"
        ) from None


def _input_size(model: "keras.Model", path: Path) -> int:
    """Height and width of the images that a user's own model takes."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] is None or shape[1] != shape[2] or shape[3] != 3:
        raise InputError(
            f"{path} takes inputs of shape {shape}; a backbone takes (None, S, S, 3) with S fixed. Save it with such "
            "an input, for example keras.Sequential([keras.Input((224, 224, 3)), model])."
        )
    return int(shape[1])


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
    """Build a backbone of one kind of features without its pooling.

    Returns:
        Model from (B, S, S, 3) preprocessed pixels to the maps that are pooled: of mid-level features those of the two
        layers, (B, h, w, C) each; else (B, h, w, D) maps, whose mean over h and w is what `backbone.build()` gives.
        Where a layer norm follows the pooling (ConvNeXt), the map is normalised by the mean and deviation of its
        pooled vector, which keeps that so.

    Raises:
        InputError: a user's own model ends otherwise.
    """
    keras = import_keras()
    if backbone.features == ("mid",):
        whole = backbone.build_whole()
        return keras.Model(whole.inputs[0], [find_layer(whole, tap).output for tap in backbone.taps])
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
