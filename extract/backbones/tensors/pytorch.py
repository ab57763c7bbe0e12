"""Reads PyTorch's checkpoints without PyTorch, and without running anything that the file names.

`torch.save` before version 1.6 wrote five pickles (magic number, protocol version, system info, the object, the storage
keys), then per storage its length and its bytes (format: `torch/serialization.py`, `_legacy_save`). Since then it is
a zip file whose members are not compressed: `NAME/data.pkl`, the object, and `NAME/data/KEY`, the bytes of each storage
(`_save`).
"""

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

LEGACY_HEADER = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03."
)  # 0x1950a86a20f9469cfc6c, version 1001
ZIP_HEADER = b"PK\x03\x04"
#: Bytes of what describes the tensors, at most: they limit the objects that a file can make. EfficientNet-Lite2 has
#: 62,000.
DESCRIPTION_BYTES = 1 << 18
#: Members of a zip file, at most, and what begins the entry of each in its directory.
_MEMBERS, _ENTRY = 10_000, b"PK\x01\x02"


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


def _rebuild_parameter(*arguments: Any) -> _Tensor:
    """Stand in for the function of PyTorch that makes a tensor trainable: files older than 2020 may hold those."""
    match arguments:
        case (_Tensor() as tensor, bool(), dict()):
            return tensor
    raise ValueError("a parameter is not a tensor")


#: The names that a state dict of plain tensors needs, and what stands in for each.
_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": _Dict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
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


def read_legacy(content: bytes) -> dict[str, np.ndarray]:
    """Read a flat state dict that PyTorch before 1.6 saved.

    Returns:
        As `extract.backbones.tensors.files.read_tensors`.

    Raises:
        ValueError, OverflowError: it is damaged, or names anything beyond what plain tensors need; the reason alone.
    """
    pickles = io.BytesIO(content[len(LEGACY_HEADER) : len(LEGACY_HEADER) + DESCRIPTION_BYTES])
    system, tensors, keys = _load(pickles), _load(pickles), _load(pickles)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its system info does not say little_endian = True")
    storages = _storages(tensors)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("its list of storage keys is not a list of strings")
    if sorted(keys) != sorted(storages):
        raise ValueError(f"its {len(storages)} storages and its list of {len(keys)} storage keys disagree")
    values = {}
    position = len(LEGACY_HEADER) + pickles.tell()
    for key in keys:
        values[key] = _read_storage(content, position, storages[key])
        position += 8 + values[key].nbytes
    if position != len(content):
        raise ValueError(f"{len(content) - position} bytes follow the last storage")
    return _lay(tensors, values)


def read_zip(content: bytes) -> dict[str, np.ndarray]:
    """Read a flat state dict that PyTorch 1.6 or later saved.

    Returns:
        As `extract.backbones.tensors.files.read_tensors`.

    Raises:
        ValueError, OverflowError: as `read_legacy`.
    """
    if content.count(_ENTRY) > _MEMBERS:  # zipfile makes an object of each before it can be asked for their number
        raise ValueError(f"more than {_MEMBERS:,} members")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _read_members(archive, len(content))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
        raise ValueError(f"its zip file is not whole, or not one that PyTorch writes ({error})") from None


def _read_members(archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    """Read the members of a zip file of `size` bytes, none of which may be compressed or lie over another."""
    members = {member.filename: member for member in archive.infolist()}
    described = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(described) != 1 or len(members) != len(archive.infolist()):
        raise ValueError(f"it has {len(described)} members NAME/data.pkl, or two of one name, where one is expected")
    folder = described[0].removesuffix("data.pkl")
    packed = [name for name, member in members.items() if member.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"{packed[0][:80]!r} is compressed, which PyTorch does not do")
    if sum(member.file_size for member in members.values()) > size:
        raise ValueError("its members are together larger than the file")
    byteorder = members.get(f"{folder}byteorder")
    if byteorder is not None and archive.read(byteorder) != b"little":
        raise ValueError("its byteorder is not little")
    with archive.open(described[0]) as description:
        tensors = _load(io.BytesIO(description.read(DESCRIPTION_BYTES)))
    values = {}
    for key, storage in _storages(tensors).items():
        member = members.get(f"{folder}data/{key}")
        if member is None:
            raise ValueError(f"storage {key[:80]!r} is missing")
        if member.file_size != storage.numel * storage.dtype.itemsize:
            raise ValueError(f"storage {key[:80]!r} has {member.file_size} bytes, not {storage.numel} values")
        values[key] = np.frombuffer(archive.read(member), storage.dtype)
    return _lay(tensors, values)


def _storages(tensors: Any) -> dict[str, _Storage]:
    """The storages of a state dict by key; each has one length and type."""
    if not isinstance(tensors, dict):
        raise ValueError(f"it holds a {type(tensors).__name__} where a dict of tensors is expected")
    storages: dict[str, _Storage] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, _Tensor):
            raise ValueError(f"{name[:80]!r} is of type {type(tensor).__name__.strip('_').lower()}, not a tensor")
        if storages.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise ValueError(f"storage {tensor.storage.key[:80]!r} has two lengths or types")
    return storages


def _lay(tensors: Mapping[str, _Tensor], values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Lay each tensor over the values of its storage."""
    return {name: _view(name, tensor, values[tensor.storage.key]) for name, tensor in tensors.items()}


def _load(pickles: io.BytesIO) -> Any:
    """Load the next pickle."""
    try:
        return _Unpickler(pickles).load()
    except EOFError:
        beyond = pickles.getbuffer().nbytes == DESCRIPTION_BYTES
        raise ValueError(f"more than {DESCRIPTION_BYTES:,} bytes of objects" if beyond else "it ends early") from None
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
