"""The layers of many heads side by side, forward, backward and after training; and their dropout masks.

Heads of one architecture, dropout rate and optimiser are a stack. Arrays count the heads on their first axis, and on
their last what is long and the same for all heads: weights (H, outputs, inputs), activations (H, units, B). So what
differs between heads is a scalar to the innermost loops, which vectorise over whole rows of features, and no array is
transposed between layers. All heads see the same mini-batch, so its statistics are computed once. Batch normalisation
needs no matrix of its own: with a row x of the normalised batch, its dropout mask m, and gamma, beta and kernel W,

    W @ (m * (gamma * x + beta))  =  (W * gamma) @ (m * x)  +  (W * beta) @ m

so both products run over all heads at once, and the gradients of gamma, beta and W are sums over such products. Rows of
a large mini-batch share the masks of their features, so that (W * beta) @ m gets cheap.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from classify.models.heads import Optimiser
from classify.models.trained_head import BATCH_NORM_EPSILON

#: Rows of a mini-batch, at most, that have a mask of the features each (32: Keras' default batch).
_MASK_PER_ROW = 32
#: Distinct masks of the features in larger mini-batches; see docs/decisions.md.
MASKS = 8


class StackKind(NamedTuple):
    """What the heads of a stack have in common: fields of `HeadSpec`."""

    hidden_units: tuple[int, ...]
    batch_norm: bool
    dropout: float
    optimiser: Optimiser


#: Of a mini-batch, by name of layer, numbers from 0 to 1 that dropout is decided by; see `draw_uniforms`.
Uniforms = dict[str, np.ndarray]


class Network:
    """The layers of a stack: forward, backward, and as they are used after training.

    Args:
        kind: what the heads have in common.
        weights: float32 arrays by name: `gamma`, `beta` (H, 1, D); `kernel0`, ... (H, outputs, inputs) and `bias0`, ...
            (H, outputs, 1), from the features on.
        shared: rows of a mini-batch that share a mask of the features.
    """

    def __init__(self, kind: StackKind, weights: dict[str, np.ndarray], shared: int) -> None:
        self._kind, self._weights, self._shared = kind, weights, shared
        self._layers = range(1, len(kind.hidden_units) + 1)
        self._heads, self._units, self._width = weights["kernel0"].shape
        self._scaled = np.empty(weights["kernel0"].shape, np.float32)  # large new arrays cost page faults every time
        self._products = np.empty((2, self._heads * self._units, self._width), np.float32)

    def forward(self, inputs: np.ndarray, uniforms: Uniforms) -> np.ndarray:
        """Logits (H, L, B) of a mini-batch (B, D) in training."""
        kernel, rows = self._weights["kernel0"], len(inputs)
        self._mask = self._dropout_mask(uniforms, "features")
        if self._mask is not None:
            self._mask = self._mask[: -(-rows // self._shared)]
            inputs = inputs * np.repeat(self._mask, self._shared, axis=0)[:rows]
        self._inputs = inputs
        if self._kind.batch_norm:
            outputs = self._product(np.multiply(self._weights["gamma"], kernel, out=self._scaled), inputs)
            if self._mask is None:
                outputs += kernel @ self._weights["beta"].swapaxes(1, 2)
            else:
                shift = self._product(np.multiply(self._weights["beta"], kernel, out=self._scaled), self._mask)
                outputs += np.repeat(shift, self._shared, axis=-1)[:, :, :rows]
        else:
            outputs = self._product(kernel, inputs)
        outputs += self._weights["bias0"]
        self._outputs, self._dropped, self._masks = [outputs], [], []
        for layer in self._layers:
            mask = self._dropout_mask(uniforms, f"hidden{layer}")
            active = np.maximum(self._outputs[-1], np.float32(0))
            if mask is not None:
                mask = mask[:, :rows]
                active *= mask
            self._masks.append(mask)
            self._dropped.append(active)
            self._outputs.append(self._weights[f"kernel{layer}"] @ active + self._weights[f"bias{layer}"])
        return self._outputs[-1]

    def backward(self, gradient: np.ndarray) -> dict[str, np.ndarray]:
        """Gradients of every weight, from that of the logits (H, L, B) that `forward` gave; without the penalty's."""
        weights, gradients = self._weights, {}
        for layer in reversed(self._layers):
            kernel, mask = weights[f"kernel{layer}"], self._masks[layer - 1]
            gradients[f"kernel{layer}"] = gradient @ self._dropped[layer - 1].swapaxes(1, 2)
            gradients[f"bias{layer}"] = gradient.sum(axis=-1, keepdims=True)
            gradient = kernel.swapaxes(1, 2) @ gradient
            if mask is not None:
                gradient *= mask
            gradient *= self._outputs[layer - 1] > 0
        gradients["bias0"] = gradient.sum(axis=-1, keepdims=True)
        product = self._outer(gradient, self._inputs, self._products[0])
        if self._kind.batch_norm:
            kernel = weights["kernel0"]
            shift = gradients["bias0"]
            if self._mask is not None:
                shift = self._outer(self._gathered(gradient), self._mask, self._products[1])
            gradients["gamma"] = _sum_over_outputs(kernel, product)
            gradients["beta"] = _sum_over_outputs(kernel, shift)
            product *= weights["gamma"]
            product += np.multiply(weights["beta"], shift, out=self._scaled)
        gradients["kernel0"] = product
        return gradients

    def infer(self, inputs: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Logits (H, L, M) of rows (M, D), by the moving statistics (D,) and without dropout."""
        kernel, constant = self._weights["kernel0"], self._weights["bias0"]
        if self._kind.batch_norm:
            scale = self._weights["gamma"] / np.sqrt(variance + np.float32(BATCH_NORM_EPSILON))
            constant = constant + kernel @ (self._weights["beta"] - mean * scale).swapaxes(1, 2)
            kernel = np.multiply(scale, kernel, out=self._scaled)
        outputs = self._product(kernel, inputs) + constant
        for layer in self._layers:
            np.maximum(outputs, np.float32(0), out=outputs)
            outputs = self._weights[f"kernel{layer}"] @ outputs + self._weights[f"bias{layer}"]
        return outputs

    def _dropout_mask(self, uniforms: Uniforms, name: str) -> np.ndarray | None:
        """0, or 1 / keep where the layer's output is kept; None without dropout."""
        if not self._kind.dropout:
            return None
        keep = np.float32(1 - self._kind.dropout)
        if name != "features":
            name = _hidden_name(int(name[-1]), self._weights["kernel" + name[-1]].shape[-1])
        return np.where(uniforms[name] < keep, 1 / keep, np.float32(0))

    def _product(self, kernel: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Every kernel (H, units, D) times rows (n, D): (H, units, n)."""
        return (kernel.reshape(-1, self._width) @ rows.T).reshape(self._heads, self._units, -1)

    def _outer(self, gradient: np.ndarray, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
        """The gradient of a kernel (H, units, D), from that of its products (H, units, n) with rows (n, D)."""
        return np.matmul(gradient.reshape(-1, len(rows)), rows, out=out).reshape(self._scaled.shape)

    def _gathered(self, of_rows: np.ndarray) -> np.ndarray:
        """Sum (H, units, B) over the rows that share a mask: (H, units, K)."""
        if self._shared == 1:
            return of_rows
        return np.add.reduceat(of_rows, np.arange(0, of_rows.shape[-1], self._shared), axis=-1)


def _sum_over_outputs(kernel: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Sum products of weights (H, outputs, inputs), or (H, outputs, 1), over the outputs: (H, 1, inputs)."""
    if other.shape[-1] == 1:
        return other.swapaxes(1, 2) @ kernel
    return np.einsum("hud,hud->hd", kernel, other)[:, None]


def _hidden_name(layer: int, units: int) -> str:
    """What the uniforms of a hidden layer, from 1, are called."""
    return f"hidden{layer}x{units}"


def rows_per_mask(batch_size: int) -> int:
    """How many rows of a mini-batch share a dropout mask of the features."""
    return 1 if batch_size <= _MASK_PER_ROW else -(-batch_size // MASKS)


def draw_uniforms(kinds: Iterable[StackKind], batch_size: int, width: int, seed: int, epoch: int) -> Iterator[Uniforms]:
    """Draw what dropout is decided by, mini-batch by mini-batch, without end.

    It depends on the seed, the epoch and the layer, not on the heads.

    Yields:
        By layer, float32, 0 to 1: of the features (K, D) for K masks, of a hidden layer (units, B); of those layers
        that have dropout.
    """
    kinds = [kind for kind in kinds if kind.dropout]
    shapes = {
        _hidden_name(layer, units): (layer, (units, batch_size))
        for kind in kinds
        for layer, units in enumerate(kind.hidden_units, start=1)
    }
    shared = rows_per_mask(batch_size)
    if kinds:
        shapes["features"] = (0, (-(-batch_size // shared), width))
    generators = {name: np.random.default_rng([seed, epoch, layer]) for name, (layer, _) in shapes.items()}
    while True:
        yield {
            name: _latin(generators[name], *shape)
            if name == "features" and shared > 1
            else generators[name].random(shape, np.float32)
            for name, (_, shape) in shapes.items()
        }


def _latin(generator: np.random.Generator, masks: int, width: int) -> np.ndarray:
    """A Latin hypercube (McKay, Beckman and Conover 1979): float32 (K, D), 0-1.

    Of every feature, one of the K uniforms lies in each K-th of 0 to 1, in random order. So each feature is kept in
    keep * K of the masks, rounded up or down, where independent masks would now and then keep it in none or in all.
    """
    strata = np.broadcast_to(np.arange(masks, dtype=np.float32)[:, None], (masks, width))
    # One place within the stratum for all K: of them, only the stratum in which the keep rate lies depends on it.
    return (generator.permuted(strata, axis=0) + generator.random((1, width), np.float32)) / np.float32(masks)
