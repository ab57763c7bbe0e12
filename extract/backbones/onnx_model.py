"""A user's own .onnx file: its sidecar, which says how images enter it and features leave it, and what runs it."""

import json
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le, Len

from extract.backbones.build import FrozenBackbone
from extract.backbones.weights import Weights
from extract.engines.table import INSTALL
from extract.images.reading import Reading
from extract.images.resizing import RESIZING
from features.common.errors import InputError, cause_of
from features.common.files import digest
from features.store.recipe import Recipe

if TYPE_CHECKING:
    from extract.engines.onnx import OnnxExtractor

_ThreeMeans = Annotated[tuple[Annotated[float, Ge(0), Le(1)], ...], Len(3, 3)]
_ThreeDeviations = Annotated[tuple[Annotated[float, Ge(1e-6), Le(1)], ...], Len(3, 3)]
#: By how many standard deviations of its features those of an image may change beside others; rounding gives 1e-5.
_MIXED = 1e-3
#: Fields of protocol buffers, of onnx.proto: the graph of a model, the arrays of a graph, and where their bytes lie.
_GRAPH, _INITIALIZER, _DATA_LOCATION = 7, 5, 14


@dataclass(frozen=True)
class Sidecar:
    """What an .onnx file does not say of itself: the fields of the JSON file beside it.

    Attributes:
        size: height and width of the input, in pixels.
        layout: of the input, and of maps: `NCHW` (PyTorch) or `NHWC`.
        mean: of red, green and blue, subtracted from pixels of 0 to 1; as timm has it. None for a uint8 input.
        std: by which the difference is divided.
        interpolation: how images are resized, after 2 x 2 means.
        pooling: `none` of an output (N, D); `avg` of maps; of tokens (N, T, D) `cls`, `mean`, or both, side by side.
        prefix_tokens: the tokens before those of the image, which `mean` leaves out; the first one is `cls`.
        output: name of the output that gives the features; "" for the only one.
        licence: of the weights; for people.
        source: where the weights are from; for people.
    """

    size: Annotated[int, Ge(1), Le(4096)]
    layout: Literal["NCHW", "NHWC"]
    mean: _ThreeMeans | None = None
    std: _ThreeDeviations | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    pooling: Literal["none", "avg", "cls", "mean", "cls+mean"] = "none"
    prefix_tokens: Annotated[int, Ge(0)] = 1
    output: str = ""
    licence: str = ""
    source: str = ""

    @property
    def preprocessing(self) -> str:
        """What happens to resized pixels, in words, as a recipe has it."""
        return (
            "none: the backbone does it itself" if self.mean is None else f"x / 255, minus {self.mean}, over {self.std}"
        )


_EXAMPLE = (
    '{"size": 224, "layout": "NCHW", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": '
    '"bicubic", "pooling": "none"} (mean and std of pixels from 0 to 1; scripts/export_timm.py writes both files)'
)


def read_sidecar(path: Path, content: bytes) -> Sidecar:
    """Read a sidecar.

    Args:
        path: its file, for messages.
        content: its bytes.

    Raises:
        InputError: it has a fault; the message names the first one.
    """
    from pydantic import TypeAdapter, ValidationError

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Make an object of its fields; `json` alone would take the last of those of one name."""
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{path} has the field {name!r} more than once. Keep the one that holds.")
        return dict(pairs)

    try:
        record = json.loads(content, object_pairs_hook=collect)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or brackets within brackets
        raise InputError(f"{path} is not JSON ({error}). Write for example: {_EXAMPLE}") from None
    if not isinstance(record, dict):
        raise InputError(f"{path} is not a JSON object. Write for example: {_EXAMPLE}")
    known = {field.name: field.default is MISSING for field in fields(Sidecar)}
    for name in record.keys() - known.keys():
        raise InputError(f"{path} has a field {name!r}. Expected some of {', '.join(known)}.")
    for name in [name for name, needed in known.items() if needed and name not in record]:
        raise InputError(f"{path}: {name} is missing. Write for example: {_EXAMPLE}")
    try:
        sidecar = TypeAdapter(Sidecar).validate_json(json.dumps(record))
    except ValidationError as error:
        fault = error.errors()[0]
        name = str([*fault["loc"], ""][0])
        received = f"{name} is {record[name]!r}: " if name else ""
        raise InputError(f"{path}: {received}{fault['msg']}. Write for example: {_EXAMPLE}") from None
    if (sidecar.mean is None) != (sidecar.std is None):
        raise InputError(f"{path}: mean and std go together. Give both, or none for a model that takes uint8 pixels.")
    if "cls" in sidecar.pooling and not sidecar.prefix_tokens:
        raise InputError(f"{path}: pooling {sidecar.pooling} takes the first token, and prefix_tokens is 0.")
    return sidecar


@dataclass(frozen=True)
class OnnxBackbone:
    """A backbone that ONNX Runtime runs; beside `FrozenBackbone`, with what the extraction asks of one.

    Attributes:
        name: what the cache calls it.
        weights: the file; its digest is that of the file and its sidecar.
        sidecar: how images enter it and features leave it.
    """

    name: str
    weights: Weights
    sidecar: Sidecar

    @classmethod
    def of_model(cls, name: str, weights: Weights) -> "OnnxBackbone":
        """Read the sidecar of a model; the model itself is opened when an image needs it.

        Args:
            name: what the cache calls it.
            weights: its file.

        Raises:
            InputError: there is no sidecar, or it has a fault; weights lie in other files; or ONNX Runtime is missing.
        """
        path = weights.path
        assert path is not None
        beside = path.with_suffix(".json")
        if not beside.is_file():
            raise InputError(
                f"{path} does not say how images enter it: {beside} is missing. Write it, for example: {_EXAMPLE}"
            )
        try:
            model, description = path.read_bytes(), beside.read_bytes()
        except OSError as error:
            raise InputError(f"{path} or {beside.name} cannot be read: {cause_of(error)}") from None
        sidecar = read_sidecar(beside, description)
        if has_external_arrays(model):
            raise InputError(
                f"{path} keeps its weights in another file, so its digest does not speak for them. Save it as one "
                "file: python -c \"import onnx; onnx.save(onnx.load('IN.onnx'), 'OUT.onnx')\""
            )
        if find_spec("onnxruntime") is None:
            raise InputError(f"{path} needs ONNX Runtime, which is not installed. Run: {INSTALL}")
        both = digest(bytes.fromhex(weights.digest) + digest(description)).hex()
        return cls(name, replace(weights, digest=both), sidecar)

    @property
    def rows(self) -> tuple[str, ...]:
        """What the cache calls the rows that one pass gives."""
        return (self.name,)

    @property
    def input_size(self) -> int:
        """Height and width of its input, in pixels."""
        return self.sidecar.size

    def recipes(self, storage: str, reading: Reading) -> tuple[Recipe, ...]:
        """All that decides the values of its rows of images read so, stored as `float32` or `float16`."""
        resizing = RESIZING[reading.fit].replace("bilinear", self.sidecar.interpolation)
        pooling = self.sidecar.pooling
        recipe = Recipe(
            backbone=self.name,
            weights=self.weights.label,
            weights_digest=self.weights.digest,
            preprocessing=f"{resizing}; {self.sidecar.preprocessing}",
            input_size=self.sidecar.size,
            interpolation=self.sidecar.interpolation,
            pooling="model" if pooling == "none" else pooling,
            storage=storage,
            **reading.settings(),
        )
        return (recipe,)

    def compile(self, batch_size: int | None, engine: str, sample: np.ndarray) -> "OnnxExtractor":
        """Open the model, and run it over an image of a sample, uint8 (n, S, S, 3); ONNX Runtime is its only engine.

        Raises:
            InputError: ONNX Runtime does not open it, it does not do what its sidecar says, or the features of an image
                depend on the others of its batch.
        """
        from extract.engines.onnx import OnnxExtractor

        path = self.weights.path
        assert path is not None
        extractor = OnnxExtractor(path, self.sidecar, batch_size)
        (alone,), (beside,) = (extractor(images) for images in (sample[:1], np.concatenate([sample[:1], 255 - sample])))
        if np.abs(alone - beside[:1]).max() > _MIXED * alone.std():
            raise InputError(
                f"{path} gives an image other features beside other images, as models in training do. Export it for "
                "inference: model.eval() in PyTorch."
            )
        return extractor


#: What the extraction runs.
AnyBackbone = FrozenBackbone | OnnxBackbone


def has_external_arrays(model: bytes) -> bool:
    """Whether arrays of an ONNX model lie in other files. What is no ONNX model has none: ONNX Runtime names it."""
    try:
        graphs = [value for number, value in _fields(memoryview(model)) if number == _GRAPH]
        arrays = [value for graph in graphs for number, value in _fields(graph) if number == _INITIALIZER]
        return any(number == _DATA_LOCATION and value == 1 for array in arrays for number, value in _fields(array))
    except (IndexError, ValueError, TypeError):  # of bytes that are no protocol buffer
        return False


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Read the fields of a protocol buffer: number, and the integer or the bytes (protobuf.dev, "Encoding")."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        if kind not in (1, 2, 5):
            raise ValueError(kind)
        length = {1: 8, 5: 4}.get(kind) or varint()
        yield number, message[at : at + length]
        at += length
