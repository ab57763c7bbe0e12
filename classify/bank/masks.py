"""Draw what the dropout masks of a bank follow from: the same for all its heads.

Rows of a large mini-batch share the masks of their features, so that (W * beta) @ m of `bank_network` gets cheap. That
few masks are a Latin hypercube (McKay, Beckman and Conover 1979): of every feature, the uniforms of K masks lie one in
each K-th of 0 to 1, in random order. So each row's mask is as random as ever, and each feature is kept in keep * K of
the masks, rounded up or down, where independent masks would keep it in none or in all of them once in a while.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from classify.bank.network import StackKind
from features.common.keras_import import import_tensorflow

#: Rows of a mini-batch, at most, that have a mask of the features each (32: Keras' default batch).
_MASK_PER_ROW = 32
#: Distinct masks of the features in larger mini-batches: an epoch of 20 heads with 64 hidden units took 5 % less CPU
#: time (standard error 1 %) than with 32. AUC on some 5,500 other rows, against a mask per row at batch 256: 0.0001
#: lower, standard error 0.0002; 32 independent masks, and 8, 0.0002 lower, error 0.0001; 16 in strata no lower (5 draws
#: of synthetic features of width 512, with 2,560 and 1,500 rows and 8 heads each; the draws differ by 0.008).
MASKS = 8


def rows_per_mask(batch_size: int) -> int:
    """How many rows of a mini-batch share a dropout mask of the features."""
    return 1 if batch_size <= _MASK_PER_ROW else -(-batch_size // MASKS)


def draw_uniforms(
    kinds: Iterable[StackKind], batch_size: int, steps: int, width: int, seed: int, epoch: int
) -> dict[str, Any]:
    """Draw the uniforms of an epoch, by the seed, the epoch and the layer, not by the heads.

    Args:
        kinds: of the stacks.
        batch_size: B.
        steps: S, of the epoch.
        width: D, of the features.
        seed: that of `train_bank`.
        epoch: from 0.

    Returns:
        `EpochInputs.uniforms`: float32 tensors, 0-1; none where no stack drops anything.
    """
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
    """Latin hypercubes, one a step: float32 (S, K, D), 0-1, of every feature one in each K-th."""
    strata = np.broadcast_to(np.arange(masks, dtype=np.float32)[:, None], (steps, masks, width))
    # One place within the stratum for all K: of them, only the stratum in which the keep rate lies depends on it.
    return (generator.permuted(strata, axis=1) + generator.random((steps, 1, width), np.float32)) / np.float32(masks)
