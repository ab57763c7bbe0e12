"""Write a tiny ONNX model without the package onnx: its one node casts, reshapes or mixes what enters it."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scripts.knocks.protobuf import bytes_field as _bytes
from scripts.knocks.protobuf import varint_field as _number

_DTYPES: dict[type, int] = {np.float32: 1, np.uint8: 2}  # TensorProto.DataType


def write_tiny(
    shape: Sequence[int | None],
    dtype: type = np.float32,
    reshape: Sequence[int] = (),
    external: bool = False,
    mixes: bool = False,
) -> bytes:
    """Write a model from `images` to `features`, float32: the same numbers, reshaped where that is asked for.

    Args:
        shape: of the input; None for any.
        dtype: of the input, float32 or uint8.
        reshape: shape of the output, with 0 where that of the input stays; the batch is the first.
        external: whether the array of that shape claims to lie in another file.
        mixes: whether the numbers are a softmax over the images of the batch instead.
    """
    if reshape:
        array = _number(1, len(reshape)) + _number(2, 7) + _bytes(8, b"shape")
        array += _number(14, 1) if external else _bytes(9, struct.pack(f"<{len(reshape)}q", *reshape))
        node = _bytes(1, b"images") + _bytes(1, b"shape") + _bytes(2, b"features") + _bytes(4, b"Reshape")
        arrays = _bytes(5, array)
    else:
        operator, name, value = (b"Softmax", b"axis", 0) if mixes else (b"Cast", b"to", 1)
        attribute = _bytes(1, name) + _number(3, value) + _number(20, 2)
        node = _bytes(1, b"images") + _bytes(2, b"features") + _bytes(4, operator) + _bytes(5, attribute)
        arrays = b""
    sides = b"".join(_bytes(1, _bytes(2, b"N") if side is None else _number(1, side)) for side in shape)
    images = _bytes(1, b"images") + _bytes(2, _bytes(1, _number(1, _DTYPES[dtype]) + _bytes(2, sides)))
    features = _bytes(1, b"features") + _bytes(2, _bytes(1, _number(1, 1)))
    graph = _bytes(1, node) + _bytes(2, b"tiny") + arrays + _bytes(11, images) + _bytes(12, features)
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 17))


def write_mean_colour(folder: Path) -> Path:
    """Write a model of the mean colour of 16 x 16 pixels, and how images enter it; return its file."""
    path = folder / "mean.onnx"
    path.write_bytes(write_tiny([None, 16, 16, 3]))
    sidecar = {"size": 16, "layout": "NHWC", "mean": (0, 0, 0), "std": (1, 1, 1), "pooling": "avg"}
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path
