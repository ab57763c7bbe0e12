"""Reads a legacy PyTorch checkpoint without PyTorch, and without running anything that the file names.

`torch.save` before version 1.6 wrote five pickles (magic number, protocol version, system info, the object, the storage
keys), then per storage its length and its bytes (format: `torch/serialization.py`, `_legacy_save`).
"""

import hashlib
import io
import math
import pickle
import re
import struct
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from features.common.errors import InputError, cause_of

_HEADER = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03."  # 0x1950a86a20f9469cfc6c, version 1001
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth?$")
#: Bytes of the pickles, at most: they limit the objects that a file can make. EfficientNet-Lite2 has 62,000.
_PICKLE_BYTES = 1 << 18


class _Storage(NamedTuple):
    """A run of `numel` values under `key`; its bytes follow the pickles."""

    key: str
    dtype: np.dtype
    numel: int


class _Tensor(NamedTuple):
    """A strided view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Dict(dict):
    """Stands in for dict and OrderedDict; begins empty."""

    def __init__(self) -> None:
        super().__init__()

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take names only: hashing tuples that hold each other twice would take exponential time."""
        if not isinstance(key, str):
            raise ValueError("a name of its state dict is not a string")
        super().__setitem__(key, value)


def _rebuild_tensor(*arguments: Any) -> _Tensor:
    """Stand in for the function of PyTorch that lays a tensor over a storage."""
    match arguments:
        case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), dict()):
            if len(shape) == len(strides) and all(type(n) is int and n >= 0 for n in (offset, *shape, *strides)):
                return _Tensor(storage, offset, shape, strides)
    raise ValueError("a tensor is not a storage with an offset, a shape and strides, none of them negative")


#: The names that a state dict of plain tensors needs, and what stands in for each.
_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": _Dict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ByteStorage": np.dtype("u1"),
}
#: The opcodes that a state dict needs. Each reads or makes no more than the bytes that the file has for it.
_OPCODES = (
    pickle.PROTO, pickle.STOP, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1,
    pickle.BININT2, pickle.LONG1, pickle.BINUNICODE, pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3,
    pickle.TUPLE, pickle.MARK, pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET, pickle.EMPTY_LIST,
    pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS, pickle.GLOBAL, pickle.REDUCE, pickle.BINPERSID,
)  # fmt: skip


#: The unpickler in Python. That in C cannot be limited to some opcodes, and allocates a memo as large as a file says.
_PythonUnpickler: Any = pickle._Unpickler


class _Unpickler(_PythonUnpickler):
    """Imports nothing, calls nothing but the stand-ins above, and sets no attribute."""

    dispatch: ClassVar = {opcode[0]: _PythonUnpickler.dispatch[opcode[0]] for opcode in _OPCODES}

    def find_class(self, module: str, name: str) -> Any:
        """Give what stands in for an allowed name."""
        full = f"{module}.{name}"
        if full not in _ALLOWED:
            raise ValueError(f"it asks for {full[:80]!a}, which plain tensors do not need; nothing of it was run")
        return _ALLOWED[full]

    def persistent_load(self, identity: Any) -> _Storage:
        """Turn a persistent id, ("storage", class, key, location, numel[, None]), into a storage."""
        match identity:
            case ("storage", np.dtype() as dtype, str(key), str(), int(numel), *view) if view in ([], [None]):
                return _Storage(key, dtype, numel)
        raise ValueError("a persistent id is not that of a whole storage")

    def load_empty_dict(self) -> None:
        """Make a dict that takes names only."""
        self.append(_Dict())

    def load_build(self) -> None:
        """Ignore a state dict's `_metadata` (versions of modules, no weights); anything else has no state."""
        self.stack.pop()
        if not isinstance(self.stack[-1], _Dict):
            raise ValueError("a state is given to something other than a dict")

    dispatch |= {pickle.EMPTY_DICT[0]: load_empty_dict, pickle.BUILD[0]: load_build}


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Read a flat state dict that PyTorch before 1.6 saved.

    Args:
        path: the file. If its name ends with the start of its SHA-256, as in `resnet18-5c106cde.pth` (the custom of
            PyTorch's model zoo), the content is held to it.

    Returns:
        Tensor name -> array with the tensor's shape and dtype, in the order of the file. Tensors that share a storage
        in the file share memory.

    Raises:
        InputError: the file cannot be read, is damaged, has another format, or names anything beyond what a state dict
            of plain tensors needs; the message names the file, the reason and the remedy.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {cause_of(error)}") from None
    if content.startswith(b"PK"):
        raise InputError(
            f"{path} is in the zip format of PyTorch 1.6 and later; only the older format is read here. In "
            "PyTorch run: torch.save(torch.load(FILE), NEW_FILE, _use_new_zipfile_serialization=False)"
        )
    if not content.startswith(_HEADER):
        raise InputError(
            f"{path} is not a PyTorch checkpoint: it starts with {content[:16]!r}. Give a .pth file that "
            "torch.save wrote."
        )
    promised = _HASH_IN_NAME.search(path.name)
    digest = hashlib.sha256(content).hexdigest()
    if promised and not digest.startswith(promised[1]):
        raise InputError(
            f"{path} is damaged: its SHA-256 is {digest}, which does not start with {promised[1]} as its name says. "
            "Download or install it again; if its name ends in a number that is not a digest, rename it."
        )
    try:
        return _read(content)
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{path} is damaged, or not a flat state dict: {error}. Get it from its publisher again, or save "
            "model.state_dict() alone."
        ) from None


def _read(content: bytes) -> dict[str, np.ndarray]:
    """Read what follows the header; raise ValueError or OverflowError with the reason alone."""
    pickles = io.BytesIO(content[len(_HEADER) : len(_HEADER) + _PICKLE_BYTES])
    system, tensors, keys = _load(pickles), _load(pickles), _load(pickles)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its system info does not say little_endian = True")
    if not isinstance(tensors, dict):
        raise ValueError(f"it holds a {type(tensors).__name__} where a dict of tensors is expected")
    storages: dict[str, _Storage] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, _Tensor):
            raise ValueError(f"{name[:80]!r} is of type {type(tensor).__name__.strip('_').lower()}, not a tensor")
        if storages.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise ValueError(f"storage {tensor.storage.key[:80]!r} has two lengths or types")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("its list of storage keys is not a list of strings")
    if sorted(keys) != sorted(storages):
        raise ValueError(f"its {len(storages)} storages and its list of {len(keys)} storage keys disagree")
    values = {}
    position = len(_HEADER) + pickles.tell()
    for key in keys:
        values[key] = _read_storage(content, position, storages[key])
        position += 8 + values[key].nbytes
    if position != len(content):
        raise ValueError(f"{len(content) - position} bytes follow the last storage")
    return {name: _view(name, tensor, values[tensor.storage.key]) for name, tensor in tensors.items()}


def _load(pickles: io.BytesIO) -> Any:
    """Load the next pickle."""
    try:
        return _Unpickler(pickles).load()
    except EOFError:
        beyond = pickles.getbuffer().nbytes == _PICKLE_BYTES
        raise ValueError(f"more than {_PICKLE_BYTES:,} bytes of objects" if beyond else "it ends early") from None
    except (pickle.UnpicklingError, TypeError, AttributeError, LookupError, struct.error) as error:
        raise ValueError(f"a pickle is malformed ({type(error).__name__}: {error})") from None


def _read_storage(content: bytes, start: int, storage: _Storage) -> np.ndarray:
    """Copy one storage, shape (numel,), from its length (int64) and bytes at `start`."""
    numel = int.from_bytes(content[start : start + 8], "little", signed=True)
    if numel != storage.numel or numel < 0:
        raise ValueError(f"storage {storage.key[:80]!r} has {numel} values, not {storage.numel} as announced")
    if start + 8 + numel * storage.dtype.itemsize > len(content):
        raise ValueError(f"it ends within storage {storage.key[:80]!r}")
    return np.frombuffer(content, storage.dtype, numel, start + 8).copy()  # a copy is aligned


def _view(name: str, tensor: _Tensor, values: np.ndarray) -> np.ndarray:
    """Lay a tensor over its storage (numel,), held to the storage's bounds."""
    count = math.prod(tensor.shape)
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if count > len(values) or (count and last >= len(values)):  # in numpy's own check, large numbers overflow
        raise ValueError(f"tensor {name[:80]!r} reaches beyond its storage of {len(values)} values")
    strides = [stride * values.itemsize for stride in tensor.strides]
    return np.ndarray(tensor.shape, values.dtype, values, tensor.offset * values.itemsize, strides)
