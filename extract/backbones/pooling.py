"""How what a backbone gives of an image becomes one vector: maps and tokens are pooled."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.common.errors import InputError
from features.common.keras_import import import_keras
from features.store.recipe import TOKEN_POOLINGS

if TYPE_CHECKING:
    import keras

# Each pooling is one layer with a name of ours: a model may hold operations with any name that Keras gives by default.
# That layer is a model within, not a Lambda: a file with a Lambda is not opened by others.

#: Tokens before those of the image, at most: a class token and four registers (Darcet et al. 2024).
_PREFIX_TOKENS = 5


def pool_maps(maps: Sequence[Any]) -> Any:
    """Pool maps, each (B, H, W, C), over their positions: average, maximum and standard deviation, map by map.

    Returns:
        float32 tensor (B, 3 * sum of C): of each map its C averages, C maxima and C deviations (of the population).
    """
    keras = import_keras()
    ops = keras.ops

    def pool(maps: Sequence[Any]) -> Any:
        pooled = [pool(of_layer, axis=(1, 2)) for of_layer in maps for pool in (ops.mean, ops.max, ops.std)]
        return ops.concatenate(pooled, axis=-1)

    inputs = [keras.Input(of_layer.shape[1:], dtype="float32") for of_layer in maps]
    return keras.Model(inputs, pool(inputs), name="headbank_mid")(list(maps))


def pool_tokens(ops: Any, tokens: Any, pooling: str, prefix: int | None) -> Any:
    """Pool tokens.

    Args:
        ops: the module that computes, `numpy` or `keras.ops`.
        tokens: (N, T, D).
        pooling: `cls`, the first one; `mean`, of those of the image; `cls+mean`, both side by side.
        prefix: the tokens before those of the image; None where it does not matter.

    Returns:
        (N, D); of both (N, 2 D).
    """
    parts = [tokens[:, 0] if part == "cls" else ops.mean(tokens[:, prefix:], axis=1) for part in pooling.split("+")]
    return ops.concatenate(parts, axis=1)


def choose_pooling(shape: Sequence[int | None], path: Path, choice: str) -> str:
    """Choose how the features of a user's own model become vectors.

    Args:
        shape: of its features, with the batch.
        path: its file.
        choice: as given to `--pooling`; "" without it.

    Returns:
        `model` of vectors, `avg` of maps, the choice of tokens.

    Raises:
        InputError: these are no features, or the choice does not fit them.
    """
    axes = len(shape)
    if axes not in (2, 3, 4):
        raise InputError(
            f"a backbone gives (B, D) features, (B, T, D) tokens or (B, H, W, D) maps; {path} gives {shape}."
        )
    if axes != 3:
        if choice:
            raise InputError(f"--pooling {choice} is of tokens (B, T, D), and {path} gives {shape}. Leave it out.")
        return "avg" if axes == 4 else "model"
    if not choice:
        raise InputError(
            f"{path} gives tokens {shape}. Say what becomes of them: --pooling cls takes the first one, which stands "
            "for the class; --pooling mean averages those of the image; --pooling cls+mean does both."
        )
    prefix = count_prefix_tokens(shape[1])
    if "mean" in choice and prefix is None:
        raise InputError(
            f"--pooling {choice}: {path} gives tokens {shape}, and which are of the image cannot be told: their number "
            f"is not a square, or a square and up to {_PREFIX_TOKENS}. Save the model with its pooling inside."
        )
    if "cls" in choice and prefix == 0:
        raise InputError(
            f"--pooling {choice}: {path} gives tokens {shape}, all of them of the image, as their number is a square: "
            "there is none of the class. Use --pooling mean."
        )
    return choice


def pool_features(model: "keras.Model", pooling: str) -> "keras.Model":
    """Append to a model the pooling that `choose_pooling` chose: (B, D)."""
    keras = import_keras()
    (inputs,), (output,) = model.inputs, model.outputs
    if pooling == "avg":
        output = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="headbank_pooling")(output)
    elif pooling in TOKEN_POOLINGS:
        tokens = keras.Input(output.shape[1:], dtype="float32")
        pooled = pool_tokens(keras.ops, tokens, pooling, count_prefix_tokens(output.shape[1]))
        output = keras.Model(tokens, pooled, name="headbank_tokens")(output)
    return keras.Model(inputs, output)


def count_prefix_tokens(tokens: int | None) -> int | None:
    """Tell the tokens before those of the image from the number of all: those of a square image are a square.

    Returns:
        Their number; None where it cannot be told.
    """
    prefix = _PREFIX_TOKENS + 1 if tokens is None else tokens - math.isqrt(tokens) ** 2
    return prefix if prefix <= _PREFIX_TOKENS else None
