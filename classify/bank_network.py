"""The layers of many heads side by side: forward, backward, and as they are used after training.

Heads of one architecture, dropout rate and optimiser are a stack: the heads lie on the last axis of the first layer's
weights (D, units, H), and on the first axis of later layers' (H, inputs, outputs). All heads see the same mini-batch,
so its statistics are computed once. Batch normalisation never meets a matrix of its own: with the normalised batch x,
the dropout mask m, and gamma, beta and kernel W of a head,

    (m * (gamma * x + beta)) @ W  =  (m * x) @ (gamma * W)  +  m @ (beta * W)

so both products run over all heads at once, and the gradients of gamma, beta and W are sums over their transposes.
"""

from typing import Any, NamedTuple

import numpy as np

from classify.heads import Optimiser
from classify.trained_head import EPSILON

#: Distinct dropout masks of the features a mini-batch: rows of a larger batch share them. Each row's mask is as random
#: as before, the gradient's dropout noise is that of a batch of 32 (Keras' default), and m @ (beta * W) gets cheap.
MASKS = 32


class StackKind(NamedTuple):
    """What the heads of a stack have in common: fields of `HeadSpec`."""

    hidden_units: tuple[int, ...]
    batch_norm: bool
    dropout: float
    optimiser: Optimiser


def rows_per_mask(batch_size: int) -> int:
    """How many rows of a mini-batch share a dropout mask of the features."""
    return -(-batch_size // MASKS)


def heads_axis(name: str) -> int:
    """The axis of a stack's array that counts the heads, by the name of the weight."""
    return 0 if name.startswith(("kernel", "bias")) and not name.endswith(("l0", "s0")) else -1


def along(tf: Any, of_heads: Any, name: str) -> Any:
    """A vector over the heads (H,), shaped to meet the weight of that name."""
    return tf.reshape(of_heads, (-1, 1, 1)) if heads_axis(name) == 0 else of_heads


class Network:
    """The layers of a stack: forward, backward, and as they are used after training."""

    def __init__(self, tf: Any, kind: StackKind, weights: Any, shared: int) -> None:
        self._tf, self._kind, self._weights, self._shared = tf, kind, weights, shared
        self._layers = range(1, len(kind.hidden_units) + 1)
        _, self._units, self._heads = weights["kernel0"].shape

    def forward(self, inputs: Any, uniforms: Any) -> Any:
        """Logits (B, L, H) of a mini-batch (B, D) in training."""
        tf, kernel = self._tf, self._weights["kernel0"]
        self._mask = self._dropout_mask(uniforms, "features")
        self._inputs = inputs if self._mask is None else inputs * self._spread(self._mask, inputs.shape[0])
        if self._kind.batch_norm:
            shift = self._weights["beta"] * kernel
            outputs = self._inputs @ self._flat(self._weights["gamma"] * kernel)
            if self._mask is None:
                outputs += self._flat(tf.reduce_sum(shift, 0, keepdims=True))
            else:
                outputs += self._spread(self._mask @ self._flat(shift), inputs.shape[0])
        else:
            outputs = self._inputs @ self._flat(kernel)
        outputs = tf.reshape(outputs, (-1, self._units, self._heads)) + self._weights["bias0"]
        if not self._layers:
            return outputs
        self._outputs, self._dropped, self._masks = [tf.transpose(outputs, (2, 0, 1))], [], []
        for layer in self._layers:
            mask = self._dropout_mask(uniforms, f"hidden{layer}")
            active = tf.nn.relu(self._outputs[-1])
            self._masks.append(mask)
            self._dropped.append(active if mask is None else active * mask)
            self._outputs.append(self._dropped[-1] @ self._weights[f"kernel{layer}"] + self._weights[f"bias{layer}"])
        return tf.transpose(self._outputs[-1], (1, 2, 0))

    def backward(self, gradient: Any, hyper: Any) -> dict[str, Any]:
        """Gradients of every weight, from that of the logits (B, L, H) that `forward` gave; the penalty's included."""
        tf, weights, gradients = self._tf, self._weights, {}
        if self._layers:
            gradient = tf.transpose(gradient, (2, 0, 1))
            for layer in reversed(self._layers):
                kernel, mask = weights[f"kernel{layer}"], self._masks[layer - 1]
                gradients[f"kernel{layer}"] = tf.matmul(self._dropped[layer - 1], gradient, transpose_a=True)
                gradients[f"bias{layer}"] = tf.reduce_sum(gradient, 1, keepdims=True)
                gradient = tf.matmul(gradient, kernel, transpose_b=True)
                gradient = gradient if mask is None else gradient * mask
                gradient = tf.where(self._outputs[layer - 1] > 0, gradient, 0.0)
            gradient = tf.transpose(gradient, (1, 2, 0))
        gradients["bias0"] = tf.reduce_sum(gradient, 0)
        product = self._stacked(tf.matmul(self._inputs, self._flat(gradient), transpose_a=True))
        if self._kind.batch_norm:
            kernel = weights["kernel0"]
            if self._mask is None:
                shift = gradients["bias0"][None]
            else:
                shift = self._stacked(tf.matmul(self._mask, self._gathered(self._flat(gradient)), transpose_a=True))
            gradients["gamma"] = tf.reduce_sum(kernel * product, 1, keepdims=True)
            gradients["beta"] = tf.reduce_sum(kernel * shift, 1, keepdims=True)
            product = weights["gamma"] * product + weights["beta"] * shift
        gradients["kernel0"] = product
        for name in gradients:
            if name.startswith("kernel"):
                gradients[name] += 2 * along(tf, hyper["l2"], name) * weights[name]
        return gradients

    def infer(self, inputs: Any, moving: Any) -> Any:
        """Logits (M, L, H) of rows (M, D), by the moving statistics and without dropout."""
        tf, kernel, constant = self._tf, self._weights["kernel0"], self._weights["bias0"]
        if self._kind.batch_norm:
            mean, variance = (statistic[:, None, None] for statistic in moving)
            scale = self._weights["gamma"] * tf.math.rsqrt(variance + EPSILON)
            constant = constant + tf.reduce_sum((self._weights["beta"] - mean * scale) * kernel, 0)
            kernel = scale * kernel
        outputs = tf.reshape(inputs @ self._flat(kernel), (-1, self._units, self._heads)) + constant
        if not self._layers:
            return outputs
        outputs = tf.transpose(outputs, (2, 0, 1))
        for layer in self._layers:
            outputs = tf.nn.relu(outputs) @ self._weights[f"kernel{layer}"] + self._weights[f"bias{layer}"]
        return tf.transpose(outputs, (1, 2, 0))

    def _dropout_mask(self, uniforms: Any, name: str) -> Any:
        """0, or 1 / keep where the layer's output is kept; None without dropout."""
        if not self._kind.dropout:
            return None
        keep = np.float32(1 - self._kind.dropout)
        if name != "features":
            name += f"x{self._weights['kernel' + name[-1]].shape[1]}"
        return self._tf.where(uniforms[name] < keep, 1 / keep, np.float32(0))

    def _flat(self, stacked: Any) -> Any:
        """(rows, units, H) as a matrix (rows, units * H)."""
        return self._tf.reshape(stacked, (-1, self._units * self._heads))

    def _stacked(self, flat: Any) -> Any:
        """(rows, units * H) as (rows, units, H)."""
        return self._tf.reshape(flat, (-1, self._units, self._heads))

    def _spread(self, of_masks: Any, rows: int) -> Any:
        """Repeat a row per mask (K, n) for the rows that share the mask: (rows, n)."""
        masks, width = of_masks.shape
        repeated = self._tf.broadcast_to(of_masks[:, None], (masks, self._shared, width))
        return self._tf.reshape(repeated, (masks * self._shared, width))[:rows]

    def _gathered(self, of_rows: Any) -> Any:
        """Sum (rows, n) over the rows that share a mask: (K, n), the transpose of `_spread`."""
        rows, width = of_rows.shape
        masks = self._mask.shape[0]
        padded = self._tf.pad(of_rows, ((0, masks * self._shared - rows), (0, 0)))
        return self._tf.reduce_sum(self._tf.reshape(padded, (masks, self._shared, width)), 1)
