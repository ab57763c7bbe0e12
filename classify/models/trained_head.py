"""A trained head: its weights and learning curves, and what it predicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from scipy.special import expit, logsumexp, softmax

from classify.models.heads import HeadSpec
from features.common.arrays import Features, Probabilities
from features.common.errors import InputError

#: Keras' default for BatchNormalization: what is added to the variance.
BATCH_NORM_EPSILON = 1e-3


class Linearised(NamedTuple):
    """A model at given images: logits = gradients, float32 (N, L, D), @ features + intercepts, float32 (N, L).

    For a linear model that holds for all features; with hidden layers (ReLU) for those of the image and their
    neighbourhood; under softmax it is the tangent at the image.
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
        exclusive: whether the last layer's outputs become probabilities by softmax, not each by the sigmoid.
    """

    weights: Sequence[np.ndarray]
    batch_norm: bool
    exclusive: bool = False
    has_gradient: ClassVar = True

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
        return softmax(activations, axis=1) if self.exclusive else expit(activations)

    def linearise(self, X: Features) -> Linearised:
        """Follow the chain rule from the labels back to the features, in float64.

        The logit is log(p / (1 - p)): under softmax not what the last layer gives a class, which has no meaning of its
        own (the same added to all classes changes no probability), but what that has beyond the others, of which each
        counts by its share of their probability. Such a logit is no line, also of a linear head.
        """
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
        gradients = gradients * scale
        if self.exclusive:
            outputs = np.einsum("nld,nd->nl", gradients, X) + intercepts
            logits, weights_of = _log_odds(outputs)
            gradients = np.einsum("nlk,nkd->nld", weights_of, gradients)
            intercepts = logits - np.einsum("nld,nd->nl", gradients, X)
        return Linearised(gradients.astype(np.float32), intercepts.astype(np.float32))


def _log_odds(outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logits log(p / (1 - p)) of the softmax of outputs (N, L), float64, and their slopes by each, (N, L, L)."""
    own = np.eye(outputs.shape[1], dtype=bool)
    others = np.where(own, -np.inf, outputs[:, np.newaxis])
    return outputs - logsumexp(others, axis=2), own - softmax(others, axis=2)


@dataclass(frozen=True)
class Curves:
    """What each epoch of one head came to: float32 (E,), for the epochs that the head trained.

    The loss has class weights, label smoothing and the L2 penalty; the ROC-AUC is the mean over the labels that have
    both values, or NaN. The accuracy is the share of known labels that are on the right side of 0.5, as Keras'
    BinaryAccuracy; under softmax that of the rows whose class is the likeliest. The training values are those of the
    mini-batches as they were learnt from, dropout included, as in Keras' history; the validation values have the
    weights that the epoch ended with.
    """

    loss: np.ndarray
    auc: np.ndarray
    validation_loss: np.ndarray
    validation_auc: np.ndarray
    accuracy: np.ndarray
    validation_accuracy: np.ndarray


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
        return HeadWeights(self.weights, self.spec.batch_norm, self.spec.output == "softmax").predict_proba(X)
