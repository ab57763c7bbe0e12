"""A model of a run as a graph of Keras: from features to calibrated probabilities and decisions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.ensembles.estimators import (
    PROBABILITY_EPSILON,
    GreedySelection,
    IsotonicCalibration,
    LogitMean,
    Mean,
    NonNegativeWeights,
    RankMean,
    SigmoidCalibration,
    Stacking,
)
from classify.models.estimators import OneVsRest, Prior
from classify.models.files import UntrustedTypes
from classify.models.linear import PenalisedLogistic, RidgeRegression
from classify.models.trained_head import BATCH_NORM_EPSILON, HeadWeights
from classify.rundir.saved_run import SavedRun
from features.common.arrays import Thresholds
from features.common.keras_import import import_keras

if TYPE_CHECKING:
    import keras

#: The outputs of the graph, by name: float32 (N, L), 0 to 1, and uint8 (N, L), 0 or 1.
OUTPUTS = ("probabilities", "decisions")


def find_obstacle(saved: SavedRun, model: str) -> str:
    """Say why a model of a run cannot become a graph; "" if it can.

    Raises:
        InputError: a file of it is missing, damaged, or was changed by hand.
    """
    if not saved.needs(model):
        return f"{model} sees no features"
    entry = saved.models[model]
    if entry["members"]:
        return next(filter(None, (find_obstacle(saved, m) for m in saved.members_in_use(model) if saved.needs(m))), "")
    try:
        first = saved.load_model(entry["files"][0])
    except UntrustedTypes:
        return f"{model} is an estimator of one's own"
    if isinstance(first, HeadWeights | Prior) or _has_lines(first):
        return ""
    return f"{model} is neither a head nor a line through the features"


def build_deciding(saved: SavedRun, model: str) -> "keras.Model":
    """Build the graph of a model of a run, which `find_obstacle` found none for.

    Each fit predicts, ensembles and calibrations see the fits one by one, and the mean over the fits is decided by the
    run's thresholds, as `SavedRun.predict` does.

    Returns:
        Model from features, float32 (N, D) by the name of each backbone that the model needs, to `OUTPUTS`.

    Raises:
        InputError: a file is missing, damaged, or was changed by hand.
    """
    keras = import_keras()
    features = {name: keras.Input((saved.widths[name],), name=name) for name in saved.needs(model)}
    probabilities = keras.ops.mean(_Graph(saved, features).predict(model), axis=1)
    decisions = keras.ops.cast(probabilities >= as_float32(saved.thresholds(model)), "uint8")
    return keras.Model(features, dict(zip(OUTPUTS, (probabilities, decisions), strict=True)), name="head")


class _Graph:
    """Builds the parts of a graph of Keras, whose tensors are float32 (N, F, L): fit by fit, label by label."""

    def __init__(self, saved: SavedRun, features: Mapping[str, Any]) -> None:
        self._keras = import_keras()
        self._ops = self._keras.ops
        self._saved, self._features = saved, features
        self._known: dict[str, Any] = {}

    def predict(self, model: str) -> Any:
        """The probabilities of each fit of a model; each model is built once."""
        if model not in self._known:
            entry = self._saved.models[model]
            files = [self._saved.load_model(file) for file in entry["files"]]
            if entry["members"]:
                in_use = {member: self.predict(member) for member in self._saved.members_in_use(model)}
                self._known[model] = self._combine(files[0], [in_use.get(member) for member in entry["members"]])
            else:
                self._known[model] = self._fits(files, [self._features[name] for name in entry["backbones"]])
        return self._known[model]

    def _fits(self, fits: Sequence[Any], backbones: Sequence[Any]) -> Any:
        """The fits of a baseline or a head on features of some backbones, side by side."""
        if isinstance(fits[0], Prior):
            nothing = self._ops.zeros_like(next(iter(self._features.values()))[:, :1])
            return nothing[:, :, None] + np.stack([fit.shares_ for fit in fits])
        seen = backbones[0] if len(backbones) == 1 else self._ops.concatenate(backbones, axis=1)
        if isinstance(fits[0], HeadWeights):
            return self._ops.stack([self._head(fit, seen) for fit in fits], axis=1)
        return self._lines(fits, seen)

    def _lines(self, fits: Sequence[Any], seen: Any) -> Any:
        """Lines through the features as one dense layer, after their common centre is subtracted.

        As in the estimators: a line through far-off features loses the digits that tell their rows apart.
        """
        layers = self._keras.layers
        centre = np.mean([fit.mean_ for fit in fits], axis=0).astype(np.float32)
        lines = [fit.lines() for fit in fits]
        kernel = np.concatenate([coefficients for coefficients, _ in lines], axis=1)
        bias = np.concatenate([intercepts for _, intercepts in lines]) + centre.astype(np.float64) @ kernel
        # Keras has no layer that subtracts a vector and keeps it among the weights but this one.
        centring = layers.BatchNormalization(epsilon=0.0, center=False, scale=False)
        dense = layers.Dense(len(bias))
        logits = dense(centring(seen))
        centring.set_weights([centre, np.ones_like(centre)])
        dense.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
        # Scikit-learn's computes in float64.
        probabilities = self._exact_sigmoid(logits) if isinstance(fits[0], OneVsRest) else self._sigmoid(logits)
        return layers.Reshape((len(fits), -1))(probabilities)

    def _head(self, head: HeadWeights, seen: Any) -> Any:
        """One head: (N, L)."""
        layers, weights = self._keras.layers, list(head.weights)
        if head.batch_norm:
            norm = layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON)
            seen, weights = norm(seen), weights[4:]
            norm.set_weights(head.weights[:4])
        pairs = list(zip(weights[::2], weights[1::2], strict=True))
        for place, (kernel, bias) in enumerate(pairs, start=1):
            dense = layers.Dense(len(bias), activation=None if place == len(pairs) else "relu")
            seen = dense(seen)
            dense.set_weights([kernel, bias])
        return self._ops.softmax(seen, axis=1) if head.exclusive else self._sigmoid(seen)

    def _combine(self, combining: Any, members: Sequence[Any]) -> Any:
        """An ensemble of K models, or a calibration of one; a member without a share is None."""
        ops = self._ops
        used = [number for number, member in enumerate(members) if member is not None]
        stacked = ops.stack([members[number] for number in used], axis=3)  # (N, F, L, K)
        match combining:
            case SigmoidCalibration():
                slope, shift = (line.astype(np.float32) for line in (combining.slope_, combining.intercept_))
                return self._exact_sigmoid(self._logit(members[0]) * slope + shift)
            case IsotonicCalibration():
                steps = [np.column_stack([label.X_thresholds_, label.y_thresholds_]) for label in combining.steps_]
                return _Table(self._keras, steps, (len(steps),)).interpolate(members[0])
            case RankMean():
                return self._rank_mean(combining, stacked)
            case LogitMean():
                return self._exact_sigmoid(ops.mean(self._logit(stacked), axis=3))
            case Stacking():
                return self._exact_sigmoid(ops.sum(self._logit(stacked) * combining.coef_.astype(np.float32), axis=3))
            case Mean() | NonNegativeWeights() | GreedySelection():
                return ops.sum(stacked * combining.weights_[used].astype(np.float32), axis=3)
        raise AssertionError(type(combining))

    def _sigmoid(self, logits: Any) -> Any:
        """The sigmoid as `scipy.special.expit` rounds it in float32: near 1 a last bit is a good part of a logit.

        The numerator is always 1. Were it said to be, TensorFlow would take its reciprocal, which is not exact.
        """
        total = 1 + self._ops.exp(-logits)
        return self._ops.minimum(total, 1.0) / total

    def _exact_sigmoid(self, logits: Any) -> Any:
        """The sigmoid as it is in float64, rounded to float32."""
        ops = self._ops
        small = ops.exp(-ops.abs(logits))
        small = small / (1 + small)
        return ops.where(logits > 0, 1 - small, small)

    def _logit(self, probabilities: Any) -> Any:
        """The logits, clipped as those of `to_logit`."""
        ops = self._ops
        clipped = ops.minimum(ops.maximum(probabilities, PROBABILITY_EPSILON), 1 - PROBABILITY_EPSILON)
        return ops.log(clipped) - ops.log(1 - clipped)

    def _rank_mean(self, ranks: RankMean, stacked: Any) -> Any:
        """The mean of the places among the probabilities of `fit`, and the mean probability at that place."""
        rows, *shape = ranks.reference_.shape
        table = _Table(self._keras, ranks.reference_.reshape(rows, -1).T[:, :, None], shape)
        place = self._ops.mean((table.count(stacked, False) + table.count(stacked, True) - 1) / 2, axis=3)
        quantiles = ranks.reference_.mean(axis=2, dtype=np.float64).T
        at = [np.column_stack([np.arange(rows), column]) for column in quantiles]
        return _Table(self._keras, at, shape[:1]).interpolate(place)


class _Table:
    """Lists of rising numbers that a graph looks up, each for the values at one place of the last axes.

    They are the weights of an embedding: the only layer of Keras that keeps a table of its own.

    Args:
        keras: the package.
        columns: of each list its numbers, (n, 1), or (n, 2) with what is there.
        shape: of the last axes of the values, such as (L,) or (L, K); as many lists, in their order.
    """

    def __init__(self, keras: Any, columns: Sequence[np.ndarray] | np.ndarray, shape: Sequence[int]) -> None:
        self._ops = keras.ops
        width = columns[0].shape[1]
        self._steps = max(len(column) for column in columns).bit_length()
        self._ends = np.array([len(column) - 1 for column in columns], np.int32).reshape(shape)
        self._starts = (np.arange(len(columns), dtype=np.int32) << self._steps).reshape(shape)
        table = np.full((len(columns), 1 << self._steps, width), np.float32(3e38))  # beyond the last one
        for own, column in zip(table, columns, strict=True):
            own[: len(column)] = column
        self._embedding = keras.layers.Embedding(len(columns) << self._steps, width)
        self._embedding.build()
        self._embedding.set_weights([table.reshape(-1, width)])

    def count(self, values: Any, with_equal: bool) -> Any:
        """Count the entries below some values, float32 (N, F, ...), or up to them: by halving."""
        ops = self._ops
        found = ops.cast(ops.zeros_like(values), "int32")
        for step in range(self._steps - 1, -1, -1):
            probe = self._embedding(found + (self._starts + ((1 << step) - 1)))[..., 0]
            below = probe <= values if with_equal else probe < values
            found = found + ops.cast(below, "int32") * (1 << step)
        return ops.cast(found, "float32")

    def interpolate(self, values: Any) -> Any:
        """Interpolate between the entries at some values; beyond the first and the last it is what is there."""
        ops = self._ops
        after = ops.minimum(ops.cast(self.count(values, True), "int32"), self._ends)
        before = ops.maximum(after - 1, 0)
        low, high = (self._embedding(place + self._starts) for place in (before, after))
        gap = high[..., 0] - low[..., 0]
        share = ops.minimum(ops.maximum((values - low[..., 0]) / ops.where(gap > 0, gap, 1.0), 0.0), 1.0)
        return low[..., 1] + share * (high[..., 1] - low[..., 1])


def _has_lines(model: Any) -> bool:
    """Whether a fitted baseline is a line per label."""
    return isinstance(model, PenalisedLogistic | RidgeRegression) or (
        isinstance(model, OneVsRest) and model.has_gradient
    )


def as_float32(thresholds: Thresholds) -> np.ndarray:
    """The least float32 from each threshold on, (L,): it decides float32 probabilities alike; 2 where none is."""
    with np.errstate(over="ignore"):
        rounded = np.minimum(thresholds, 2.0).astype(np.float32)
    return np.where(rounded < np.minimum(thresholds, 2.0), np.nextafter(rounded, np.float32(3)), rounded)
