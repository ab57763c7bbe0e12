"""What a stack of heads is made of, and where a weight is among the numbers of a head."""

from typing import NamedTuple

import numpy as np


class StackKind(NamedTuple):
    """What the heads of a stack have in common: fields of `HeadSpec`."""

    hidden_units: tuple[int, ...]
    batch_norm: bool
    dropout: float
    optimiser: str
    softmax: bool = False


class FlatFeatures(NamedTuple):
    """The features of all rows.

    Attributes:
        numbers: float32 (n,), read-only, one row after another, with what may lie between two.
        stride: how far apart rows begin.
        width: of a row.
    """

    numbers: np.ndarray
    stride: int
    width: int


class Layers(NamedTuple):
    """Of a stack, where its weights are among the numbers of a head; beta comes after gamma.

    Attributes:
        widths: int64 (dense layers + 1,): of the features, of each hidden layer, of the labels.
        kernels: int64 (dense layers,), where each begins: (outputs, inputs).
        biases: int64 (dense layers,), likewise.
        gamma: where it begins; as many before it belong to kernels.
        batch_norm: whether it and beta are there.
        adam: whether Adam learns, or gradient descent with Nesterov's momentum.
        keep: float32, 0-1: what dropout keeps.
        shared: rows of a mini-batch that share a mask of the features.
        softmax: whether the labels are classes, of which each row has exactly one.
    """

    widths: np.ndarray
    kernels: np.ndarray
    biases: np.ndarray
    gamma: int
    batch_norm: bool
    adam: bool
    keep: np.float32
    shared: int
    softmax: bool


class State(NamedTuple):
    """What a step changes: float32, of H heads with P numbers each.

    Attributes:
        numbers: (H, P), the weights.
        gradient: (H, P).
        first: (H, P), the first moment of Adam, or the velocity.
        second: (H, P), the second moment of Adam; (H, 0) without.
        mean: (D,), the moving mean of the features.
        variance: (D,), their moving variance.
    """

    numbers: np.ndarray
    gradient: np.ndarray
    first: np.ndarray
    second: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


class Rules(NamedTuple):
    """What differs between the heads of a stack: float32, of H heads and L labels.

    Attributes:
        rate: (H,), learning rates.
        l2: (H,), penalties.
        smoothing: (H,), of the labels.
        positive: (H, L), weights of the positives of each label; under softmax of the rows of each class.
        negative: (H, L), of the negatives; softmax has none.
    """

    rate: np.ndarray
    l2: np.ndarray
    smoothing: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


class Heads(NamedTuple):
    """The heads of a stack, as a step takes them."""

    layers: Layers
    state: State
    rules: Rules


def lay_out(kind: StackKind, width: int, labels: int, shared: int) -> Layers:
    """Give every weight of a head its place: kernels, gamma, beta, biases."""
    widths = np.array([width, *kind.hidden_units, labels])
    kernels, biases = (np.concatenate([[0], np.cumsum(n)]) for n in (widths[1:] * widths[:-1], widths[1:]))
    after = kernels[-1] + 2 * width * kind.batch_norm
    adam, keep = kind.optimiser == "adam", np.float32(1 - kind.dropout)
    places = kernels[:-1], biases[:-1] + after, int(kernels[-1])
    return Layers(widths, *places, kind.batch_norm, adam, keep, shared, kind.softmax)


def flatten(weights: list[np.ndarray], batch_norm: bool) -> np.ndarray:
    """Put the weights of a head, as those of `HeadWeights`, in their places."""
    dense = weights[4 * batch_norm :]
    return np.concatenate([*(kernel.T.ravel() for kernel in dense[::2]), *weights[: 2 * batch_norm], *dense[1::2]])


def lay_flat(X: np.ndarray) -> FlatFeatures:
    """Make a table of features (N, D), without a copy where they are float32 and the numbers of a row lie together."""
    if X.dtype != np.float32 or X.strides[1] != X.itemsize or X.strides[0] < 0 or X.strides[0] % X.itemsize:
        X = np.ascontiguousarray(X, np.float32)
    (rows, width), stride = X.shape, X.strides[0] // X.itemsize
    numbers = (rows - 1) * stride + width
    return FlatFeatures(np.lib.stride_tricks.as_strided(X, (numbers,), (X.itemsize,), writeable=False), stride, width)
