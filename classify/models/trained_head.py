"""A trained head: its weights and learning curves, and the ordinary Keras model that gives the same probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from scipy.special import expit

from classify.models.heads import HeadSpec
from features.common.arrays import Features, Probabilities
from features.common.errors import InputError
from features.common.keras_import import import_keras

if TYPE_CHECKING:
    import keras

#: Keras' default for BatchNormalization: what is added to the variance.
BATCH_NORM_EPSILON = 1e-3


class Linearised(NamedTuple):
    """A model at given images: logits = gradients, float32 (N, L, D), @ features + intercepts, float32 (N, L).

    For a linear model that holds for all features; with hidden layers (ReLU) for those of the image and their
    neighbourhood.
    """

    gradients: np.ndarray
    intercepts: np.ndarray


@dataclass(frozen=True)
class HeadWeights:
    """The numbers of a head, and what they give.

    Attributes:
        weights: float32 arrays in Keras' order: with batch normalisation gamma, beta, moving mean and moving variance,
            each (D,); then kernel (inputs, outputs) and bias (outputs,) of every dense layer.
        batch_norm: whether the features are normalised.
    """

    weights: Sequence[np.ndarray]
    batch_norm: bool
    has_gradient: ClassVar = True

    @classmethod
    def load(cls, path: Path) -> "HeadWeights":
        """Read the Keras file of a head, which is a sound archive; an `InputError` says that it holds none."""
        keras = import_keras()
        try:
            model = keras.saving.load_model(path, compile=False)
        except (ValueError, TypeError, KeyError) as error:  # what Keras raises for a model that it does not know
            reason = str(error).splitlines()[0]
            raise InputError(f"{path} is not a head that can be read ({reason}). Make the run again.") from None
        layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.Dropout)]
        batch_norm = bool(layers) and isinstance(layers[0], keras.layers.BatchNormalization)
        activations = [_dense_activation(layer) for layer in layers[batch_norm:]]
        expected = ["relu"] * (len(activations) - 1) + ["sigmoid"]
        plain = not batch_norm or (layers[0].epsilon, len(layers[0].weights)) == (BATCH_NORM_EPSILON, 4)
        if not isinstance(model, keras.Sequential) or activations != expected or not plain:
            raise InputError(f"{path} is a Keras model, but not a head of Headbank. Make the run again.")
        return cls(model.get_weights(), batch_norm)

    def predict_proba(self, X: Features) -> Probabilities:
        """Give the probability of each label; an `InputError` says that X has another width than the head."""
        weights = list(self.weights)
        if X.ndim != 2 or X.shape[1] != len(weights[0]):
            raise InputError(
                f"the head was trained on features of width {len(weights[0])}, received an array {X.shape}. "
                f"Give the features of the same backbones."
            )
        activations: np.ndarray = X
        if self.batch_norm:
            gamma, beta, mean, variance = weights[:4]
            scale = gamma / np.sqrt(variance + np.float32(BATCH_NORM_EPSILON))
            activations = X * scale + (beta - mean * scale)
            weights = weights[4:]
        for layer, (kernel, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
            if layer:
                activations = np.maximum(activations, 0)
            activations = activations @ kernel + bias
        return expit(activations)

    def linearise(self, X: Features) -> Linearised:
        """Follow the chain rule from the labels back to the features, in float64."""
        weights = [np.asarray(values, np.float64) for values in self.weights]
        scale, shift = np.ones(X.shape[1]), np.zeros(X.shape[1])
        if self.batch_norm:
            gamma, beta, mean, variance = weights[:4]
            scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
            shift = beta - mean * scale
            weights = weights[4:]
        *hidden, (kernel, bias) = zip(weights[::2], weights[1::2], strict=True)
        gradients = np.broadcast_to(kernel.T, (len(X), *kernel.T.shape))
        intercepts = np.broadcast_to(bias, (len(X), len(bias)))
        activations = X * scale + shift
        alive = []  # of each hidden layer, which units of which image are not cut to 0
        for kernel, bias in hidden:
            before = activations @ kernel + bias
            alive.append(before > 0)
            activations = np.maximum(before, 0)
        for (kernel, bias), mask in zip(reversed(hidden), reversed(alive), strict=True):
            gradients = gradients * mask[:, np.newaxis]
            intercepts = intercepts + gradients @ bias
            gradients = gradients @ kernel.T
        intercepts = intercepts + gradients @ shift
        return Linearised((gradients * scale).astype(np.float32), intercepts.astype(np.float32))


@dataclass(frozen=True)
class Curves:
    """What each epoch of one head came to: float32 (E,), for the epochs that the head trained.

    The loss has class weights, label smoothing and the L2 penalty; the ROC-AUC is the mean over the labels that have
    both values, or NaN. The training values are those of the mini-batches as they were learnt from, dropout included,
    as in Keras' history; the validation values have the weights that the epoch ended with.
    """

    loss: np.ndarray
    auc: np.ndarray
    validation_loss: np.ndarray
    validation_auc: np.ndarray


@dataclass(frozen=True)
class TrainedHead:
    """A head with the weights of its best epoch, as those of `HeadWeights`.

    Attributes:
        best_epoch: the epoch, from 1, of the lowest validation loss; 0 if none was finite, and the weights are the
            initial ones.
        seconds: this head's share of the time that the bank took.
    """

    spec: HeadSpec
    weights: Sequence[np.ndarray]
    curves: Curves
    best_epoch: int
    seconds: float

    def predict_proba(self, X: Features) -> Probabilities:
        """Give the probability of each label; see `HeadWeights.predict_proba`."""
        return HeadWeights(self.weights, self.spec.batch_norm).predict_proba(X)

    def to_keras(self) -> "keras.Sequential":
        """Build the same head in Keras, not compiled: (N, D) float32 features in, (N, L) probabilities out."""
        keras = import_keras()
        layers = keras.layers
        *hidden_biases, output_bias = list(self.weights)[4 * self.spec.batch_norm + 1 :: 2]
        model = keras.Sequential([keras.Input((len(self.weights[0]),), name="features")], name="head")
        if self.spec.batch_norm:
            model.add(layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON))
        regulariser = keras.regularizers.L2(self.spec.l2)
        for bias in hidden_biases:
            model.add(layers.Dropout(self.spec.dropout))
            model.add(layers.Dense(len(bias), activation="relu", kernel_regularizer=regulariser))
        model.add(layers.Dropout(self.spec.dropout))
        model.add(layers.Dense(len(output_bias), activation="sigmoid", kernel_regularizer=regulariser, name="labels"))
        model.set_weights(list(self.weights))
        return model


def _dense_activation(layer: "keras.Layer") -> str | None:
    """Name the activation of a dense layer with a bias; None for any other layer."""
    config = layer.get_config()
    return config["activation"] if type(layer).__name__ == "Dense" and config["use_bias"] else None
