"""A user's own model: a .keras file, checked before Keras opens it, loaded, and cut at a layer."""

import io
import json
import logging
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.backbones.taps import find_layer, find_taps
from extract.runtime import split_cores
from features.common.cli import split_names
from features.common.errors import InputError
from features.common.hdf5 import refuse_inflated
from features.common.keras_import import import_keras
from features.common.text import first_few

if TYPE_CHECKING:
    import keras

#: Pixels of a side that a backbone's input has at most; those of keras.applications have 600.
MAX_SIDE = 4096
#: Bytes of a model's description, at most: that of ConvNeXtXLarge has 0.2 million.
_CONFIG_BYTES = 50_000_000
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_CLASSIFIERS = ("softmax", "sigmoid")
#: What reading models of keras-hub needs of it; tensorflow-text, which it asks for as well, is for texts.
_INSTALL = ".venv/bin/pip install --no-deps keras-hub regex tokenizers"

logger = logging.getLogger(__name__)


def load_own_model(path: Path) -> "keras.Model":
    """Load a model; Keras refuses code hidden in the file.

    Args:
        path: a .keras file.

    Returns:
        The model; a functional one of a Sequential.

    Raises:
        InputError: the file holds no such model, its input is too large, or it needs keras-hub, which is missing.
    """
    config = _check_file(path)
    split_cores()
    if any(_is_of_keras_hub(found) for found in _mappings(config)):
        _import_keras_hub(path)
    try:
        keras = import_keras()
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        if isinstance(model, keras.Sequential) and model.inputs:
            model = keras.Model(model.inputs[0], model.outputs[0])
    except Exception as error:  # noqa: BLE001 - a foreign file can fail anywhere inside Keras
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path} cannot be loaded: {reason} A backbone is a model saved by Keras 3 with model.save, "
            f"of Keras' own layers (no Lambda)."
        ) from None
    return model


def _is_of_keras_hub(found: dict[str, Any]) -> bool:
    """Whether a part of the description of a model names a layer of keras-hub."""
    names = (str(found.get(key)) for key in ("module", "registered_name"))
    return any(name.startswith(("keras_hub.", "keras_hub>")) for name in names)


def _import_keras_hub(path: Path) -> None:
    """Import keras-hub for a file that names its layers; Keras, before it, keeps TensorFlow silent.

    Raises:
        InputError: it is not installed, or not whole.
    """
    import_keras()
    try:
        import_module("keras_hub")
    except ImportError as error:
        raise InputError(
            f"{path} has layers of the package keras-hub, which cannot be imported ({error}). Run: {_INSTALL}"
        ) from None


def warn_of_classifier(model: "keras.Model", path: Path) -> None:
    """Say where a model ends in the probabilities of classes, and which layer before has features."""
    last = model.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", type(last).__name__.lower())
    if activation not in _CLASSIFIERS:
        return
    names = [layer.name for layer in model.layers[:-1] if _width(layer) is not None]
    wider = [name for name in names if (_width(model.get_layer(name)) or 0) > model.output_shape[-1]]
    before = f"--layer {(wider or names)[-1]}" if names else "--layer NAME"
    logger.warning(
        "%s ends in %s (layer %s): its features are the probabilities of %d classes, which say little of other labels. "
        "%s takes what an earlier layer gives",
        path,
        activation,
        last.name,
        model.output_shape[-1],
        before,
    )


def cut_model(model: "keras.Model", path: Path, layer: str) -> "keras.Model":
    """End a model of a file at a layer; at its own end where `layer` is "".

    Returns:
        A model of one input and one output.

    Raises:
        InputError: it has no such layer, or ends in several outputs.
    """
    if not layer:
        if len(model.outputs) > 1:
            outputs = [f"{name} {tensor.shape}" for name, tensor in zip(model.output_names, model.outputs, strict=True)]
            raise InputError(
                f"{path} gives {len(outputs)} outputs, from its layers {first_few(outputs)}. Name one: --layer NAME"
            )
        return import_keras().Model(model.inputs[0], model.outputs[0])
    names = [found.name for found in model.layers if _width(found) is not None]
    if layer not in names:
        raise InputError(
            f"--layer {layer}: {path} has no layer of that name that gives features (B, D), tokens (B, T, D) or maps "
            f"(B, H, W, D). It has, from its end: {first_few(names[::-1])}."
        )
    return import_keras().Model(model.inputs[0], model.get_layer(layer).output)


def parse_taps(choice: str | None) -> tuple[str, ...]:
    """Read the value of --taps: the names of two layers; () where it is not given.

    Raises:
        InputError: it does not name two layers.
    """
    taps = split_names(choice, "--taps") or ()
    if choice is not None and len(taps) != 2:
        raise InputError(f"--taps {choice}: expected two layers of the model, A,B; received {len(taps)}.")
    return taps


def choose_taps(model: "keras.Model", path: Path, choice: str, features: Sequence[str]) -> tuple[str, ...]:
    """Choose the two layers of a model's mid-level features; () where it has none.

    Args:
        model: a whole model.
        path: its file.
        choice: `A,B`, two layers; "" to find them by shape.
        features: what is wanted of the model.

    Raises:
        InputError: it has no such layers; or none are found, and nothing else is wanted.
    """
    if choice:
        taps = tuple(choice.split(","))
        wrong = next((tap for tap in taps if find_layer(model, tap) is None), None)
        if wrong is not None:
            maps = [layer.name for layer in model.layers if find_layer(model, layer.name) is not None]
            raise InputError(
                f"--taps {choice}: {path} has no layer {wrong!r} that gives square maps (B, H, H, C). Those are, from "
                f"its end: {first_few(maps[::-1]) if maps else 'none'}."
            )
        return taps
    taps = find_taps(model)
    if not taps and tuple(features) == ("mid",):
        raise InputError(
            f"--features mid: {path} has no maps of two resolutions at its top level, so it has no mid-level features. "
            "Use --features last."
        )
    return taps


def _width(layer: "keras.layers.Layer") -> int | None:
    """The channels that a layer gives; None where it does not give one array of features, tokens or maps."""
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):  # Keras: it has no output, or several
        return None
    return int(shape[-1]) if len(shape) in (2, 3, 4) and shape[-1] is not None else None


def _check_file(path: Path) -> Any:
    """Refuse what is no .keras file, or would take memory without end, before Keras opens it; return its config."""
    remedy = "A backbone is a model saved by Keras 3 with model.save."
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(_CONFIG).file_size
            if size > _CONFIG_BYTES:
                raise InputError(f"{path} is refused: its {_CONFIG} has {size:,} bytes. {remedy}")
            config = json.loads(archive.read(_CONFIG))
            if _WEIGHTS in archive.namelist():
                refuse_inflated(io.BytesIO(archive.read(_WEIGHTS)))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        reason = "it is empty" if not path.stat().st_size else f"it is not whole, or no .keras file ({error})"
        raise InputError(f"{path} cannot be loaded: {reason}. {remedy}") from None
    except (KeyError, OSError, ValueError, RuntimeError, RecursionError, NotImplementedError) as error:
        raise InputError(f"{path} cannot be loaded: {error}. {remedy}") from None
    for shape in _shapes(config):
        if any(isinstance(side, int) and side > MAX_SIDE for side in shape[1:3]):
            raise InputError(
                f"{path} takes inputs of shape {tuple(shape)}: a side may have {MAX_SIDE:,} pixels. Save it with a "
                "smaller input."
            )
    return config


def _shapes(config: Any) -> Iterator[list[Any]]:
    """Find the shapes of all inputs in the description of a model, with the batch."""
    for found in _mappings(config):
        shape, of_keras_hub = found.get("batch_shape"), found.get("image_shape")
        if isinstance(shape, list) and len(shape) == 4:
            yield shape
        if isinstance(of_keras_hub, list) and len(of_keras_hub) == 3:
            yield [None, *of_keras_hub]


def _mappings(config: Any) -> Iterator[dict[str, Any]]:
    """Find all mappings in the description of a model, however deep it nests models."""
    pending = [config]
    while pending:
        found = pending.pop()
        if isinstance(found, dict):
            yield found
            pending += found.values()
        elif isinstance(found, list):
            pending += found
