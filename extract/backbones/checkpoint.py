"""Reads a legacy PyTorch checkpoint without PyTorch, and without running anything that the file names.

`torch.save` before version 1.6 wrote five pickles (magic number, protocol version, system info, the object, the storage
keys), then per storage its length and its bytes (format: `torch/serialization.py`, `_legacy_save`).
"""

import hashlib
import io
import math
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from features.common.errors import InputError

_HEADER = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03."  # 0x1950a86a20f9469cfc6c, version 1001
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth?$")

_ORDERED_DICT = "collections.OrderedDict"
_REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
_STORAGE_DTYPES: dict[str, np.dtype] = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ByteStorage": np.dtype("u1"),
}
_ALLOWED = {_ORDERED_DICT, _REBUILD_TENSOR, *_STORAGE_DTYPES}

#: Opcodes whose objects a pickle may refer to again: strings, names, and what cannot be the key of a dict.
_SHAREABLE = {"BINUNICODE", "GLOBAL", "REDUCE", "EMPTY_DICT", "EMPTY_LIST"}
#: The opcodes of a state dict.
_OPCODES = _SHAREABLE | {
    "PROTO", "STOP", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "EMPTY_TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "TUPLE", "MARK", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "APPEND", "APPENDS",
    "SETITEM", "SETITEMS", "BINPERSID", "BUILD",
}  # fmt: skip
#: Opcodes of one pickle; the largest EfficientNet-Lite has 14,000.
_MOST_OPCODES = 50_000


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


class _StateDict(dict):
    """Stands for an OrderedDict."""

    def __setstate__(self, state: Any) -> None:
        """Ignore the state dict's `_metadata`: versions of modules, no weights."""


class _Name(NamedTuple):
    """An allowed name; it stands for the object of that name, which is never imported.

    As a tuple it has no attribute that a file could set.
    """

    name: str

    def __call__(self, *arguments: Any) -> Any:
        """Stand in for the two calls that a state dict makes: an empty OrderedDict, and a tensor over a storage."""
        match arguments:
            case () if self.name == _ORDERED_DICT:
                return _StateDict()
            case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), dict()) if (
                self.name == _REBUILD_TENSOR
            ):
                numbers = (offset, *shape, *strides)
                if len(shape) != len(strides) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
                    raise ValueError("a tensor's offset, shape or strides are negative or no numbers")
                return _Tensor(storage, offset, shape, strides)
        raise ValueError("a call is neither that of an empty OrderedDict nor that of a tensor over a storage")


class _RefusedNameError(Exception):
    """The file names something that a state dict of plain tensors does not need."""


class _Unpickler(pickle.Unpickler):
    """Loads a pickle whose opcodes were checked: it imports nothing, and calls nothing but the stand-ins above."""

    def find_class(self, module: str, name: str) -> _Name:
        """Give the stand-in of an allowed name."""
        if f"{module}.{name}" not in _ALLOWED:
            raise _RefusedNameError(ascii(f"{module}.{name}"[:80]))
        return _Name(f"{module}.{name}")

    def persistent_load(self, identity: Any) -> _Storage:
        """Turn a persistent id, ("storage", class, key, location, numel[, None]), into a storage."""
        match identity:
            case ("storage", _Name(name=str(name)), str(key), str(), int(numel), *view) if view in ([], [None]):
                if name in _STORAGE_DTYPES:
                    return _Storage(key, _STORAGE_DTYPES[name], numel)
        raise ValueError("a persistent id is not that of a whole storage")


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
        with path.open("rb") as file:
            start = file.read(len(_HEADER))
            if start.startswith(b"PK"):
                raise InputError(
                    f"{path} is in the zip format of PyTorch 1.6 and later; only the older format is read here. In "
                    "PyTorch run: torch.save(torch.load(FILE), NEW_FILE, _use_new_zipfile_serialization=False)"
                )
            if start != _HEADER:
                raise InputError(
                    f"{path} is not a PyTorch checkpoint: it starts with {start[:16]!r}. Give a .pth file that "
                    "torch.save wrote."
                )
            content = start + file.read()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. Check the path and its rights.") from None

    promised = _HASH_IN_NAME.search(path.name)
    digest = hashlib.sha256(content).hexdigest()
    if promised and not digest.startswith(promised[1]):
        raise InputError(
            f"{path} is damaged: its SHA-256 is {digest}, which does not start with {promised[1]} as its name says. "
            "Download or install it again; if its name ends in a number that is not a digest, rename it."
        )
    try:
        return _read(content)
    except _RefusedNameError as error:
        raise InputError(
            f"{path} asks for {error}, which a state dict of plain tensors does not need; refused, and nothing was "
            "run. Get the file from its publisher, or save model.state_dict() alone."
        ) from None
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{path} is damaged, or not a flat state dict: {error}. Download it again, or save "
            "model.state_dict() alone."
        ) from None


def _read(content: bytes) -> dict[str, np.ndarray]:
    """Read what follows the header; raise ValueError, OverflowError or _RefusedNameError with the reason alone."""
    stream = io.BytesIO(content)  # bounded by the file: a length that lies cannot make it read or allocate more
    stream.seek(len(_HEADER))
    system = _load(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its system info does not say little_endian = True")
    tensors = _load(stream)
    if not isinstance(tensors, dict):
        raise ValueError(f"it holds a {type(tensors).__name__} where a dict of tensors is expected")
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise ValueError("a name of its state dict is not a string")
        if not isinstance(tensor, _Tensor):
            raise ValueError(f"{name[:80]!r} is of type {type(tensor).__name__.strip('_')}, not a tensor")
    keys = _load(stream)

    storages: dict[str, _Storage] = {}
    for tensor in tensors.values():
        if storages.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise ValueError(f"storage {tensor.storage.key[:80]!r} has two lengths or types")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("its list of storage keys is not a list of strings")
    if len(keys) != len(storages) or set(keys) != storages.keys():
        raise ValueError(f"its {len(storages)} storages and its list of {len(keys)} storage keys disagree")
    values = {}
    for key in keys:
        values[key] = _read_storage(content, stream.tell(), storages[key])
        stream.seek(8 + values[key].nbytes, io.SEEK_CUR)
    if stream.tell() != len(content):
        raise ValueError(f"{len(content) - stream.tell()} bytes follow the last storage")
    return {name: _view(name, tensor, values[tensor.storage.key]) for name, tensor in tensors.items()}


def _load(stream: io.BytesIO) -> Any:
    """Load the pickle at the position of the stream, and leave the position after it."""
    start = stream.tell()
    _check_opcodes(stream)
    end = stream.tell()
    stream.seek(start)
    try:
        return _Unpickler(io.BytesIO(stream.read(end - start))).load()
    except (pickle.UnpicklingError, TypeError, AttributeError, IndexError, KeyError, EOFError) as error:
        raise ValueError(f"a pickle is malformed: {error}") from None


def _check_opcodes(stream: io.BytesIO) -> None:
    """Refuse a pickle that could exhaust memory, time or the stack of `pickle`, though it calls nothing.

    `pickletools` holds every length to the end of the stream. An index into the memo beyond the pickle would allocate
    gigabytes; tuples that hold each other twice take exponential time as a key, deeply nested ones the whole stack.
    """
    shareable: set[Any] = set()
    previous = ""
    for count, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
        if opcode.name not in _OPCODES or count == _MOST_OPCODES:
            raise ValueError(f"opcode {opcode.name} at byte {position} has no place in a state dict")
        if opcode.name in ("BINPUT", "LONG_BINPUT"):
            assert isinstance(argument, int)
            if argument > _MOST_OPCODES:
                raise ValueError(f"it refers to object {argument} of a pickle that has fewer")
            (shareable.add if previous in _SHAREABLE else shareable.discard)(argument)
            continue
        if opcode.name in ("BINGET", "LONG_BINGET") and argument not in shareable:
            raise ValueError(f"it refers to object {argument}, which is missing or not to be shared")
        previous = opcode.name


def _read_storage(content: bytes, start: int, storage: _Storage) -> np.ndarray:
    """Copy one storage, shape (numel,), from its length (int64) and bytes at `start`."""
    if start + 8 > len(content):
        raise ValueError(f"it ends before storage {storage.key[:80]!r}")
    numel = int.from_bytes(content[start : start + 8], "little", signed=True)
    size = numel * storage.dtype.itemsize
    if numel != storage.numel or numel < 0:
        raise ValueError(f"storage {storage.key[:80]!r} has {numel} values, not {storage.numel} as announced")
    if start + 8 + size > len(content):
        raise ValueError(f"it ends within storage {storage.key[:80]!r} of {size} bytes")
    return np.frombuffer(content, storage.dtype, numel, start + 8).copy()  # a copy is aligned


def _view(name: str, tensor: _Tensor, values: np.ndarray) -> np.ndarray:
    """Lay a tensor over its storage (numel,), held to the storage's bounds."""
    count = math.prod(tensor.shape)
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if count > len(values) or (count and last >= len(values)):
        raise ValueError(f"tensor {name[:80]!r} reaches beyond its storage of {len(values)} values")
    if count == 0:
        return np.zeros(tensor.shape, values.dtype)
    # The stride of an axis of length 1 is never used, and may be too large for numpy.
    strides = [s * values.itemsize if n > 1 else 0 for n, s in zip(tensor.shape, tensor.strides, strict=True)]
    return np.ndarray(tensor.shape, values.dtype, values, tensor.offset * values.itemsize, strides)
