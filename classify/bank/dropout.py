"""What dropout is decided by, drawn for all heads alike.

Rows of a large mini-batch share the masks of their features, so that what batch normalisation adds gets cheap.
"""

from collections.abc import Iterator

import numpy as np

#: Rows of a mini-batch, at most, that have a mask of the features each (32: Keras' default batch).
_MASK_PER_ROW = 32
#: Distinct masks of the features in larger mini-batches; see docs/decisions.md.
MASKS = 8


def rows_per_mask(batch_size: int) -> int:
    """How many rows of a mini-batch share a dropout mask of the features."""
    return 1 if batch_size <= _MASK_PER_ROW else -(-batch_size // MASKS)


def draw_uniforms(
    hidden_units: tuple[int, ...], batch_size: int, rows: int, width: int, seed: int, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw what dropout is decided by, mini-batch by mini-batch, without end.

    It depends on the seed, the epoch and the layer, not on the heads.

    Yields:
        Float32, 0 to 1: of the features (K, D) for K masks; of every hidden layer (units, B), one after another, flat,
        for B rows of a mini-batch, which are no more than there are rows.
    """
    shared, most = rows_per_mask(batch_size), min(batch_size, rows)
    of_features, *of_hidden = (np.random.default_rng([seed, epoch, layer]) for layer in range(1 + len(hidden_units)))
    masks = -(-batch_size // shared), width
    while True:
        yield (
            _latin(of_features, *masks) if shared > 1 else of_features.random(masks, np.float32),
            np.concatenate(
                [np.empty(0, np.float32)]
                + [own.random(units * most, np.float32) for own, units in zip(of_hidden, hidden_units, strict=True)]
            ),
        )


def _latin(generator: np.random.Generator, masks: int, width: int) -> np.ndarray:
    """A Latin hypercube (McKay, Beckman and Conover 1979): float32 (K, D), 0-1.

    Of every feature, one of the K uniforms lies in each K-th of 0 to 1, in random order. So each feature is kept in
    keep * K of the masks, rounded up or down, where independent masks would now and then keep it in none or in all.
    """
    strata = np.broadcast_to(np.arange(masks, dtype=np.float32)[:, None], (masks, width))
    # One place within the stratum for all K: of them, only the stratum in which the keep rate lies depends on it.
    return (generator.permuted(strata, axis=0) + generator.random((1, width), np.float32)) / np.float32(masks)
