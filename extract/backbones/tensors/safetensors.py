"""Reads the safetensors format: the length of a JSON header, the header, and the bytes of the tensors.

Format: https://github.com/huggingface/safetensors#format. It takes 50 lines, so its package is not a dependency.
"""

import json
import math
from typing import Any

import numpy as np

from extract.backbones.tensors.pytorch import DESCRIPTION_BYTES

_DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1"), "U8": np.dtype("u1"), "BOOL": np.dtype("?"),
}  # fmt: skip


def read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """Read the content of a .safetensors file.

    Returns:
        As `extract.backbones.tensors.files.read_tensors`.

    Raises:
        ValueError: it is damaged; the reason alone.
    """
    length = int.from_bytes(content[:8], "little")
    if length > min(DESCRIPTION_BYTES, len(content) - 8):
        raise ValueError(f"its header has {length:,} bytes, more than the file or than {DESCRIPTION_BYTES:,}")
    try:
        header = json.loads(content[8 : 8 + length])
    except RecursionError:
        raise ValueError("its header nests too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    header.pop("__metadata__", None)
    tensors, ranges = {}, []
    for name, entry in header.items():
        dtype, shape, begin, end = _parse(name, entry)
        count = math.prod(shape)
        if end - begin != count * dtype.itemsize or 8 + length + end > len(content):
            raise ValueError(f"tensor {name[:80]!r} of shape {shape} does not lie in its bytes {begin} to {end}")
        tensors[name] = np.frombuffer(content, dtype, count, 8 + length + begin).reshape(shape)
        ranges.append((begin, end))
    # The format allows neither holes nor overlaps.
    ends = [0, *(end for _, end in sorted(ranges))]
    if [begin for begin, _ in sorted(ranges)] != ends[:-1] or 8 + length + ends[-1] != len(content):
        raise ValueError("its tensors do not fill the file one after another")
    return tensors


def _parse(name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Read what the header says of one tensor: type, shape, first byte, end."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]}:
            if dtype not in _DTYPES:
                raise ValueError(f"tensor {name[:80]!r} is of type {dtype[:80]!r}; save it as float32 (F32)")
            if len(shape) <= 32 and all(type(number) is int and 0 <= number < 2**63 for number in (*shape, begin, end)):
                return _DTYPES[dtype], tuple(shape), begin, end
    raise ValueError(f"tensor {name[:80]!r} has no dtype, shape and data_offsets of whole numbers, none negative")
