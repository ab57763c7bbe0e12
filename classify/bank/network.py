"""The layers of many heads side by side, forward, backward and after training; and their dropout masks.

Heads of one architecture, dropout rate and optimiser are a stack. A lane is what learns from one choice of rows, such
as a fold; each has its own mini-batches, and all heads of a lane see the same. Arrays count lanes on their first axis,
heads on their second, and on their last what is long and the same for all: weights (R, H, outputs, inputs), activations
(R, H, units, B). So what differs between heads is a scalar to the innermost loops, which vectorise over whole rows of
features, and no array is transposed between layers. Batch normalisation needs no matrix of its own: with a row x of a
centred mini-batch, its deviations s, a dropout mask m, and gamma, beta and kernel W,

    W @ (m * (gamma / s * x + beta))  =  (W * gamma / s) @ (m * x)  +  (W * beta) @ m

so both products run over all heads at once, and the gradients of gamma, beta and W are sums over such products. Rows of
a large mini-batch share the masks of their features, so that (W * beta) @ m gets cheap. No product mixes lanes: a lane
has the same bits whatever is beside it.
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


#: Outputs of a lane's first layers up to which a product by each is faster than one by all: it takes a third of the
#: time for 3 outputs, 1,280 features and mini-batches of 32 rows.
_FEW_OUTPUTS = 8


#: What the uniforms of the features are called.
_FEATURES = "features"


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
        weights: float32 arrays by name: `gamma`, `beta` (R, H, 1, D); `kernel0`, ... (R, H, outputs, inputs) and
            `bias0`, ... (R, H, outputs, 1), from the features on.
        shared: rows of a mini-batch that share a mask of the features.
    """

    def __init__(self, kind: StackKind, weights: dict[str, np.ndarray], shared: int) -> None:
        self._kind, self._all_weights, self._shared = kind, weights, shared
        self._layers = range(1, len(kind.hidden_units) + 1)
        lanes, heads, units, width = weights["kernel0"].shape
        self._shape = heads, units, width
        self._all_scaled = np.empty((lanes, *self._shape), np.float32)  # large new arrays cost page faults every time
        self._all_products = np.empty((2, lanes, heads * units, width), np.float32)

    def forward(self, lanes: slice, inputs: np.ndarray, inverse: np.ndarray, uniforms: Uniforms) -> np.ndarray:
        """Logits (R, H, L, B) of the mini-batches of some lanes in training.

        Args:
            lanes: R of them.
            inputs: float32 (R, B, D), for batch normalisation centred.
            inverse: float32 (R, 1, D), of the deviations of the mini-batches.
            uniforms: of the mini-batch.
        """
        self._take(lanes)
        self._inverse = inverse[:, None]
        kernel, rows = self._weights["kernel0"], inputs.shape[1]
        self._mask = self._dropout_mask(uniforms, _FEATURES)
        if self._mask is not None:
            self._mask = self._mask[: -(-rows // self._shared)]
            inputs = inputs * np.repeat(self._mask, self._shared, axis=0)[:rows]
        self._inputs = inputs
        if self._kind.batch_norm:
            self._scale = self._weights["gamma"] * self._inverse
            outputs = self._product(np.multiply(self._scale, kernel, out=self._scaled), inputs)
            if self._mask is None:
                outputs += kernel @ self._weights["beta"].swapaxes(-1, -2)
            else:
                np.multiply(self._weights["beta"], kernel, out=self._scaled)
                shift = self._product(self._scaled, self._mask[None])
                outputs += np.repeat(shift, self._shared, axis=-1)[..., :rows]
        else:
            outputs = self._product(kernel, inputs)
        outputs += self._weights["bias0"]
        self._outputs, self._dropped, self._masks = [outputs], [], []
        for layer in self._layers:
            mask = self._dropout_mask(uniforms, _hidden_name(layer, self._kind.hidden_units[layer - 1]))
            active = np.maximum(self._outputs[-1], np.float32(0))
            if mask is not None:
                mask = mask[:, :rows]
                active *= mask
            self._masks.append(mask)
            self._dropped.append(active)
            self._outputs.append(self._weights[f"kernel{layer}"] @ active + self._weights[f"bias{layer}"])
        return self._outputs[-1]

    def backward(self, gradient: np.ndarray) -> dict[str, np.ndarray]:
        """Gradients of every weight of the lanes that `forward` was given, from those of the logits that it gave.

        Those of the penalty are not included.
        """
        weights, gradients = self._weights, {}
        for layer in reversed(self._layers):
            kernel, mask = weights[f"kernel{layer}"], self._masks[layer - 1]
            gradients[f"kernel{layer}"] = gradient @ self._dropped[layer - 1].swapaxes(-1, -2)
            gradients[f"bias{layer}"] = gradient.sum(axis=-1, keepdims=True)
            gradient = kernel.swapaxes(-1, -2) @ gradient
            if mask is not None:
                gradient *= mask
            gradient *= self._outputs[layer - 1] > 0
        gradients["bias0"] = gradient.sum(axis=-1, keepdims=True)
        product = self._outer(gradient, self._inputs, self._products[0])
        if self._kind.batch_norm:
            kernel = weights["kernel0"]
            shift = gradients["bias0"]
            if self._mask is not None:
                shift = self._outer(self._gathered(gradient), self._mask[None], self._products[1])
            gradients["gamma"] = _sum_over_outputs(kernel, product) * self._inverse
            gradients["beta"] = _sum_over_outputs(kernel, shift)
            product *= self._scale
            product += np.multiply(weights["beta"], shift, out=self._scaled)
        gradients["kernel0"] = product
        return gradients

    def infer(self, lane: int, inputs: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Logits (H, L, M) of rows (M, D) by a lane, by its moving statistics (D,) and without dropout."""
        self._take(slice(lane, lane + 1))
        kernel, constant = self._weights["kernel0"], self._weights["bias0"]
        if self._kind.batch_norm:
            scale = self._weights["gamma"] / np.sqrt(variance + np.float32(BATCH_NORM_EPSILON))
            constant = constant + kernel @ (self._weights["beta"] - mean * scale).swapaxes(-1, -2)
            kernel = np.multiply(scale, kernel, out=self._scaled)
        outputs = self._product(kernel, inputs[None]) + constant
        for layer in self._layers:
            np.maximum(outputs, np.float32(0), out=outputs)
            outputs = self._weights[f"kernel{layer}"] @ outputs + self._weights[f"bias{layer}"]
        return outputs[0]

    def _take(self, lanes: slice) -> None:
        """Work on some lanes from now on."""
        self._weights = {name: weight[lanes] for name, weight in self._all_weights.items()}
        self._scaled, self._products = self._all_scaled[lanes], self._all_products[:, lanes]

    def _dropout_mask(self, uniforms: Uniforms, name: str) -> np.ndarray | None:
        """0, or 1 / keep where the layer's output is kept; None without dropout."""
        if not self._kind.dropout:
            return None
        keep = np.float32(1 - self._kind.dropout)
        return np.where(uniforms[name] < keep, 1 / keep, np.float32(0))

    def _product(self, kernel: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Every kernel (R, H, units, D) times rows (R, n, D), or (1, n, D): (R, H, units, n)."""
        heads, units, width = self._shape
        flat = kernel.reshape(-1, heads * units, width)
        few = heads * units <= _FEW_OUTPUTS
        products = (rows[:, None] @ flat[..., None])[..., 0] if few else flat @ rows.swapaxes(1, 2)
        return products.reshape(len(flat), heads, units, -1)

    def _outer(self, gradient: np.ndarray, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
        """The gradient of a kernel (R, H, units, D), from that of its products with rows (R, n, D), or (1, n, D)."""
        heads, units, _ = self._shape
        flat = gradient.reshape(len(out), heads * units, -1)
        if heads * units <= _FEW_OUTPUTS:
            np.matmul(flat[:, :, None], rows[:, None], out=out[:, :, None])
        else:
            np.matmul(flat, rows, out=out)
        return out.reshape(self._scaled.shape)

    def _gathered(self, of_rows: np.ndarray) -> np.ndarray:
        """Sum (R, H, units, B) over the rows that share a mask: (R, H, units, K)."""
        if self._shared == 1:
            return of_rows
        return np.add.reduceat(of_rows, np.arange(0, of_rows.shape[-1], self._shared), axis=-1)


def _sum_over_outputs(kernel: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Sum products of weights (R, H, outputs, inputs), or (R, H, outputs, 1), over the outputs: (R, H, 1, inputs)."""
    if other.shape[-1] == 1:
        return other.swapaxes(-1, -2) @ kernel
    return np.einsum("rhud,rhud->rhd", kernel, other)[:, :, None]


def _hidden_name(layer: int, units: int) -> str:
    """What the uniforms of a hidden layer, from 1, are called."""
    return f"hidden{layer}x{units}"


def rows_per_mask(batch_size: int) -> int:
    """How many rows of a mini-batch share a dropout mask of the features."""
    return 1 if batch_size <= _MASK_PER_ROW else -(-batch_size // MASKS)


def draw_uniforms(
    kinds: Iterable[StackKind], batch_size: int, rows: int, width: int, seed: int, epoch: int
) -> Iterator[Uniforms]:
    """Draw what dropout is decided by, mini-batch by mini-batch, without end.

    It depends on the seed, the epoch and the layer, not on the heads.

    Yields:
        By layer, float32, 0 to 1: of the features (K, D) for K masks, of a hidden layer (units, B) for B rows of a
        mini-batch, which are no more than there are rows; of those layers that have dropout.
    """
    kinds = [kind for kind in kinds if kind.dropout]
    shapes = {
        _hidden_name(layer, units): (layer, (units, min(batch_size, rows)))
        for kind in kinds
        for layer, units in enumerate(kind.hidden_units, start=1)
    }
    shared = rows_per_mask(batch_size)
    if kinds:
        shapes[_FEATURES] = (0, (-(-batch_size // shared), width))
    generators = {name: np.random.default_rng([seed, epoch, layer]) for name, (layer, _) in shapes.items()}
    while True:
        yield {
            name: _latin(generators[name], *shape)
            if name == _FEATURES and shared > 1
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
