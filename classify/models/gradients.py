"""The gradient of a fitted model's logits with respect to the pooled features."""

from dataclasses import dataclass

import numpy as np
from scipy.special import logit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression

from classify.models.estimators import OneVsRest
from classify.models.trained_head import BATCH_NORM_EPSILON, HeadWeights


@dataclass(frozen=True)
class Linearised:
    """A model at given images: logits = gradients @ features + intercepts.

    For a linear model that holds for all features; with hidden layers (ReLU) for those of the image and their
    neighbourhood.

    Attributes:
        gradients: float32 array (N, L, D).
        intercepts: float32 array (N, L).
    """

    gradients: np.ndarray
    intercepts: np.ndarray


def has_gradient(model: object) -> bool:
    """Tell whether a loaded model can be linearised: heads, logistic regression and linear SVMs can."""
    if isinstance(model, OneVsRest):
        return isinstance(model.classifier, LogisticRegression | CalibratedClassifierCV) and model.reducer_ is None
    return isinstance(model, HeadWeights)


def linearise(model: object, features: np.ndarray) -> Linearised:
    """Linearise a model at some images, its scaling and batch normalisation included.

    Args:
        model: one that `has_gradient`.
        features: float32 array (N, D), finite.

    Returns:
        The gradient at each image.
    """
    if isinstance(model, HeadWeights):
        return _linearise_head(model, features)
    assert isinstance(model, OneVsRest)
    lines = [_line(classifier, features.shape[1]) for classifier in model.classifiers_]
    coefficients, intercepts = zip(*lines, strict=True)
    return _of_scaled(model.scaler_, np.column_stack(coefficients), np.array(intercepts), len(features))


def _linearise_head(head: HeadWeights, features: np.ndarray) -> Linearised:
    """Follow the chain rule from the labels back to the features."""
    weights = [np.asarray(values, np.float64) for values in head.weights]
    scale, shift = np.ones(features.shape[1]), np.zeros(features.shape[1])
    if head.batch_norm:
        gamma, beta, mean, variance = weights[:4]
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        shift = beta - mean * scale
        weights = weights[4:]
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    activations = features * scale + shift
    alive = []  # of each hidden layer, which units of which image are not cut to 0
    for kernel, bias in layers[:-1]:
        before = activations @ kernel + bias
        alive.append(before > 0)
        activations = np.maximum(before, 0)
    kernel, bias = layers[-1]
    gradients = np.broadcast_to(kernel.T, (len(features), *kernel.T.shape))
    intercepts = np.broadcast_to(bias, (len(features), len(bias)))
    for (kernel, bias), mask in zip(reversed(layers[:-1]), reversed(alive), strict=True):
        gradients = gradients * mask[:, np.newaxis]
        intercepts = intercepts + gradients @ bias
        gradients = gradients @ kernel.T
    intercepts = intercepts + gradients @ shift
    return Linearised((gradients * scale).astype(np.float32), intercepts.astype(np.float32))


def _of_scaled(scaler: object, coefficients: np.ndarray, intercepts: np.ndarray, rows: int) -> Linearised:
    """Carry lines on standardised features, (D, L) and (L,), over to the features themselves; equal in all rows."""
    deviations, means = scaler.scale_, scaler.mean_  # type: ignore[attr-defined]
    gradients = (coefficients.astype(np.float64) / deviations[:, np.newaxis]).T
    shifted = intercepts - gradients @ means
    return Linearised(
        np.broadcast_to(gradients.astype(np.float32), (rows, *gradients.shape)),
        np.broadcast_to(shifted.astype(np.float32), (rows, len(shifted))),
    )


def _line(classifier: object, width: int) -> tuple[np.ndarray, float]:
    """The logit of a constant, of a logistic regression or of a calibrated linear SVM, as coefficients and intercept.

    Platt's probability of an SVM is 1 / (1 + exp(a * decision + b)).
    """
    if isinstance(classifier, float):
        return np.zeros(width), float(logit(classifier))
    if isinstance(classifier, LogisticRegression):
        return classifier.coef_[0], float(classifier.intercept_[0])
    calibrated = classifier.calibrated_classifiers_[0]  # type: ignore[attr-defined]
    sigmoid, machine = calibrated.calibrators[0], calibrated.estimator
    return -sigmoid.a_ * machine.coef_[0], float(-sigmoid.a_ * machine.intercept_[0] - sigmoid.b_)
