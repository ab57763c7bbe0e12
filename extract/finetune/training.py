"""Train the upper blocks of a backbone and a head on maps that the lower ones gave: head first, then both."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from sklearn.linear_model import LogisticRegression

from extract.finetune.blocks import find_cut
from features.common.arrays import UNKNOWN, Labels, RowIndices
from features.common.keras_import import import_keras

if TYPE_CHECKING:
    import keras

#: The inverse penalty of the head that is fitted first, on standardised features: strong, as they are many.
_HEAD_C = 0.01
#: Rows at a time where nothing is learnt.
_ROWS = 64


class Maps(Protocol):
    """Gives maps of images, by row."""

    def __call__(self, rows: RowIndices, epoch: int) -> np.ndarray:
        """Maps float32 (n, H W C) of some rows; in an epoch above 0 of random views of them, where these are wanted."""


@dataclass(frozen=True)
class TuningSettings:
    """How the upper blocks are trained.

    Attributes:
        unfreeze: names of the blocks; those from the first one on are trained.
        learning_rate: Adam's.
        epochs: at most.
        patience: epochs without a lower loss on the rows that decide, after which training ends.
        batch_size: images.
        seed: of the order of the rows.
    """

    unfreeze: str
    learning_rate: float
    epochs: int
    patience: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        best_epoch: the epoch whose weights were kept; 0 where none was better than the frozen backbone.
        losses: float64 (E + 1,): binary cross-entropy of the rows that decide, of epoch 0 before the first; empty where
            none decide.
    """

    best_epoch: int
    losses: np.ndarray


def train_upper(
    whole: "keras.Model",
    maps: Maps,
    labels: Labels,
    learnt: RowIndices,
    validation: RowIndices,
    settings: TuningSettings,
    on_epoch: Callable[[], None] = lambda: None,
) -> Trained:
    """Train the upper blocks of a model in place; batch norms stay as they are, in inference mode.

    The frozen backbone, epoch 0, is kept where no epoch has a lower loss on the rows that decide. Without such rows all
    epochs are trained.

    Args:
        whole: a backbone, pooled.
        maps: what its lower blocks give.
        labels: of all rows.
        learnt: the rows to learn from.
        validation: the rows that decide when to stop.
        settings: how.
        on_epoch: called after each epoch.
    """
    keras = import_keras()
    cut = find_cut(whole, settings.unfreeze).output
    upper = keras.Model(cut, whole.outputs[0])
    for layer in upper.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    shape = tuple(cut.shape[1:])
    head = _fit_head(_compute(upper, partial(maps, epoch=0), learnt, shape), labels[learnt])
    # The head keeps the penalty that it was fitted with: without it overfits, and hides what the blocks gain.
    penalty = keras.regularizers.L2(1 / (2 * _HEAD_C * labels[learnt].size))
    dense = keras.layers.Dense(labels.shape[1], dtype="float32", kernel_regularizer=penalty)
    scale = keras.layers.Normalization(mean=head.mean, variance=head.deviation**2, dtype="float32")
    model = keras.Model(upper.inputs[0], dense(scale(upper.outputs[0])))
    dense.set_weights([head.kernel, head.bias])
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    model.compile(optimizer, loss=known_cross_entropy, jit_compile=False)

    def judge() -> float:
        logits = _compute(model, partial(maps, epoch=0), validation, shape)
        return float(keras.ops.convert_to_numpy(known_cross_entropy(labels[validation], logits)))

    losses = [judge()] if len(validation) else []
    best, kept = 0, model.get_weights()
    for epoch in range(1, settings.epochs + 1):
        for rows in _draw_batches(learnt, epoch, settings):
            model.train_on_batch(maps(rows, epoch).reshape(-1, *shape), labels[rows])
        on_epoch()
        if len(validation):
            losses.append(judge())
            if losses[-1] < losses[best]:
                best, kept = epoch, model.get_weights()
            elif epoch - best >= settings.patience:
                break
        else:
            best, kept = epoch, model.get_weights()
    model.set_weights(kept)
    return Trained(best, np.array(losses))


def known_cross_entropy(labels: Any, logits: Any) -> Any:
    """Mean binary cross-entropy over the known labels, (B, L) each: a number."""
    ops = import_keras().ops
    labels, logits = ops.convert_to_tensor(labels), ops.cast(logits, "float32")
    known = ops.cast(labels != UNKNOWN, "float32")
    truth = ops.cast(labels, "float32") * known
    each = ops.maximum(logits, 0.0) - logits * truth + ops.log1p(ops.exp(-ops.abs(logits)))
    return ops.sum(each * known) / ops.maximum(ops.sum(known), 1.0)


def _draw_batches(learnt: RowIndices, epoch: int, settings: TuningSettings) -> Iterator[RowIndices]:
    """Yield the rows in an order of the epoch, in batches; the last one is filled up with rows of the first."""
    order = np.random.default_rng([settings.seed, epoch]).permutation(learnt)
    size = min(settings.batch_size, len(order))
    order = np.concatenate([order, order[: -len(order) % size]])
    yield from np.split(order, len(order) // size)


def _compute(
    model: "keras.Model", maps: Callable[[RowIndices], np.ndarray], rows: RowIndices, shape: tuple[int, ...]
) -> np.ndarray:
    """Give what a model makes of the maps of some rows, in inference mode: float32 (n, D)."""
    parts = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
    to_numpy = import_keras().ops.convert_to_numpy
    computed = [to_numpy(model(maps(part).reshape(-1, *shape), training=False)) for part in parts]  # nothing is traced
    return np.concatenate(computed).astype(np.float32)


class _Head(NamedTuple):
    """A logistic regression for each label: mean and deviation (D,) of its features, kernel (D, L), bias (L,)."""

    mean: np.ndarray
    deviation: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray


def _fit_head(features: np.ndarray, labels: Labels) -> _Head:
    """Fit a logistic regression for each label on features (n, D), float32."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    standardised = (features - mean) / deviation
    kernel, bias = np.zeros((features.shape[1], labels.shape[1])), np.zeros(labels.shape[1])
    for column, truth in enumerate(labels.T):
        known = truth != UNKNOWN
        if len(np.unique(truth[known])) < 2:  # nothing to tell apart: the share, with one of each added
            share = (truth[known].sum() + 1) / (known.sum() + 2)
            bias[column] = np.log(share / (1 - share))
            continue
        fitted = LogisticRegression(C=_HEAD_C, max_iter=500).fit(standardised[known], truth[known])
        kernel[:, column], bias[column] = fitted.coef_[0], fitted.intercept_[0]
    return _Head(mean, deviation, kernel, bias)
