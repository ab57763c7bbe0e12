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

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from classify.models.heads import Optimiser
from classify.models.trained_head import BATCH_NORM_EPSILON
from features.common.keras_import import import_tensorflow

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


def sum_over_outputs(tf: Any, left: Any, right: Any) -> Any:
    """Sum products of weights (H, outputs, inputs) over the outputs: (H, 1, inputs).

    Up to eight slices are added one by one: XLA would write the product out and read it again; see docs/decisions.md.
    """
    heads, outputs, inputs = left.shape
    slices = max(count for count in range(1, 9) if outputs % count == 0)
    left, right = (
        tf.reshape(tf.broadcast_to(factor, (heads, outputs, inputs)), (heads, -1, slices, inputs))
        for factor in (left, right)
    )
    return tf.reduce_sum(sum(left[:, :, place] * right[:, :, place] for place in range(slices)), 1, keepdims=True)


class Network:
    """The layers of a stack: forward, backward, and as they are used after training."""

    def __init__(self, tf: Any, kind: StackKind, weights: Any, shared: int) -> None:
        self._tf, self._kind, self._weights, self._shared = tf, kind, weights, shared
        self._layers = range(1, len(kind.hidden_units) + 1)
        self._heads, self._units, self._width = weights["kernel0"].shape

    def forward(self, inputs: Any, uniforms: Any) -> Any:
        """Logits (H, L, B) of a mini-batch (B, D) in training."""
        tf, kernel = self._tf, self._weights["kernel0"]
        rows = inputs.shape[0]
        self._mask = self._dropout_mask(uniforms, "features")
        self._inputs = inputs
        if self._mask is not None:
            self._inputs = inputs * tf.repeat(self._mask, self._shared, axis=0)[:rows]
        if self._kind.batch_norm:
            shift = self._weights["beta"] * kernel
            outputs = self._product(self._weights["gamma"] * kernel, self._inputs)
            if self._mask is None:
                outputs += tf.reduce_sum(shift, -1, keepdims=True)
            else:
                outputs += tf.repeat(self._product(shift, self._mask), self._shared, axis=-1)[:, :, :rows]
        else:
            outputs = self._product(kernel, self._inputs)
        outputs += self._weights["bias0"]
        self._outputs, self._dropped, self._masks = [outputs], [], []
        for layer in self._layers:
            mask = self._dropout_mask(uniforms, f"hidden{layer}")
            active = tf.nn.relu(self._outputs[-1])
            self._masks.append(mask)
            self._dropped.append(active if mask is None else active * mask)
            self._outputs.append(self._weights[f"kernel{layer}"] @ self._dropped[-1] + self._weights[f"bias{layer}"])
        return self._outputs[-1]

    def backward(self, gradient: Any, hyper: Any) -> dict[str, Any]:
        """Gradients of every weight, from that of the logits (H, L, B) that `forward` gave; the penalty's included."""
        tf, weights, gradients = self._tf, self._weights, {}
        for layer in reversed(self._layers):
            kernel, mask = weights[f"kernel{layer}"], self._masks[layer - 1]
            gradients[f"kernel{layer}"] = tf.matmul(gradient, self._dropped[layer - 1], transpose_b=True)
            gradients[f"bias{layer}"] = tf.reduce_sum(gradient, -1, keepdims=True)
            gradient = tf.matmul(kernel, gradient, transpose_a=True)
            gradient = gradient if mask is None else gradient * mask
            gradient = tf.where(self._outputs[layer - 1] > 0, gradient, 0.0)
        gradients["bias0"] = tf.reduce_sum(gradient, -1, keepdims=True)
        product = self._outer(gradient, self._inputs)
        if self._kind.batch_norm:
            kernel = weights["kernel0"]
            shift = gradients["bias0"] if self._mask is None else self._outer(self._gathered(gradient), self._mask)
            gradients["gamma"] = sum_over_outputs(tf, kernel, product)
            gradients["beta"] = sum_over_outputs(tf, kernel, shift)
            product = weights["gamma"] * product + weights["beta"] * shift
        gradients["kernel0"] = product
        for name in gradients:
            if name.startswith("kernel"):
                gradients[name] += 2 * hyper["l2"] * weights[name]
        return gradients

    def infer(self, inputs: Any, moving: Any) -> Any:
        """Logits (H, L, M) of rows (M, D), by the moving statistics and without dropout."""
        tf, kernel, constant = self._tf, self._weights["kernel0"], self._weights["bias0"]
        if self._kind.batch_norm:
            mean, variance = moving
            scale = self._weights["gamma"] * tf.math.rsqrt(variance + BATCH_NORM_EPSILON)
            constant = constant + tf.reduce_sum((self._weights["beta"] - mean * scale) * kernel, -1, keepdims=True)
            kernel = scale * kernel
        outputs = self._product(kernel, inputs) + constant
        for layer in self._layers:
            outputs = self._weights[f"kernel{layer}"] @ tf.nn.relu(outputs) + self._weights[f"bias{layer}"]
        return outputs

    def _dropout_mask(self, uniforms: Any, name: str) -> Any:
        """0, or 1 / keep where the layer's output is kept; None without dropout."""
        if not self._kind.dropout:
            return None
        keep = np.float32(1 - self._kind.dropout)
        if name != "features":
            name += f"x{self._weights['kernel' + name[-1]].shape[-1]}"
        return self._tf.where(uniforms[name] < keep, 1 / keep, np.float32(0))

    def _product(self, kernel: Any, rows: Any) -> Any:
        """Every kernel (H, units, D) times rows (n, D): (H, units, n)."""
        flat = self._tf.reshape(kernel, (-1, self._width))
        return self._tf.reshape(self._tf.matmul(flat, rows, transpose_b=True), (self._heads, self._units, -1))

    def _outer(self, gradient: Any, rows: Any) -> Any:
        """The gradient of a kernel (H, units, D), from that of its products (H, units, n) with rows (n, D)."""
        flat = self._tf.reshape(gradient, (-1, gradient.shape[-1]))
        return self._tf.reshape(flat @ rows, (self._heads, self._units, self._width))

    def _gathered(self, of_rows: Any) -> Any:
        """Sum (H, units, B) over the rows that share a mask: (H, units, K)."""
        masks = self._mask.shape[0]
        padded = self._tf.pad(of_rows, ((0, 0), (0, 0), (0, masks * self._shared - of_rows.shape[-1])))
        return self._tf.reduce_sum(self._tf.reshape(padded, (self._heads, self._units, masks, self._shared)), -1)


def rows_per_mask(batch_size: int) -> int:
    """How many rows of a mini-batch share a dropout mask of the features."""
    return 1 if batch_size <= _MASK_PER_ROW else -(-batch_size // MASKS)


def draw_uniforms(
    kinds: Iterable[StackKind], batch_size: int, steps: int, width: int, seed: int, epoch: int
) -> dict[str, Any]:
    """Draw `EpochInputs.uniforms` by the seed, the epoch and the layer, not by the heads; empty without dropout."""
    tf = import_tensorflow()
    kinds = [kind for kind in kinds if kind.dropout]
    if not kinds:
        return {}
    shapes = {
        f"hidden{layer}x{units}": (layer, (steps, units, batch_size))
        for kind in kinds
        for layer, units in enumerate(kind.hidden_units, start=1)
    }
    shared = rows_per_mask(batch_size)
    uniforms = {}
    if shared == 1:
        shapes["features"] = (0, (steps, batch_size, width))
    else:
        generator = np.random.default_rng([seed, epoch, 0])
        uniforms["features"] = tf.constant(_latin(generator, steps, -(-batch_size // shared), width))
    for name, (layer, shape) in shapes.items():
        uniforms[name] = tf.random.stateless_uniform(shape, tf.random.fold_in((seed, epoch), layer))
    return uniforms


def _latin(generator: np.random.Generator, steps: int, masks: int, width: int) -> np.ndarray:
    """Latin hypercubes (McKay, Beckman and Conover 1979), one a step: float32 (S, K, D), 0-1.

    Of every feature, one of the K uniforms lies in each K-th of 0 to 1, in random order. So each feature is kept in
    keep * K of the masks, rounded up or down, where independent masks would now and then keep it in none or in all.
    """
    strata = np.broadcast_to(np.arange(masks, dtype=np.float32)[:, None], (steps, masks, width))
    # One place within the stratum for all K: of them, only the stratum in which the keep rate lies depends on it.
    return (generator.permuted(strata, axis=1) + generator.random((steps, 1, width), np.float32)) / np.float32(masks)
