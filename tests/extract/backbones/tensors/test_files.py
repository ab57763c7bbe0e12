"""extract.backbones.tensors.files: the legacy format of PyTorch, in files written by hand, opcode by opcode."""

import hashlib
import os
import pickle
import struct
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.backbones.tensors.files import read_tensors
from features.common.errors import InputError

HEADER = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
STORAGE_CLASSES = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "i4": "Int", "u1": "Byte"}


@dataclass
class Global:
    module: str
    name: str


@dataclass
class Call:
    function: Global
    arguments: tuple


@dataclass
class Persistent:
    identity: tuple


@dataclass
class Raw:
    """Opcodes as they are."""

    code: bytes


def opcodes(value: Any) -> bytes:
    """Write one value in pickle's protocol 2."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            if -(2**31) <= value < 2**31:
                return b"J" + struct.pack("<i", value)
            return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            return b"}(" + b"".join(opcodes(key) + opcodes(item) for key, item in value.items()) + b"u"
        case Global(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, arguments):
            return opcodes(function) + opcodes(arguments) + b"R"
        case Persistent(identity):
            return opcodes(identity) + b"Q"
        case Raw(code):
            return code
    raise TypeError(type(value))


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + opcodes(value) + b"."


def storage(key: str, numel: int, kind: str = "Float") -> Persistent:
    return Persistent(("storage", Global("torch", f"{kind}Storage"), key, "cpu", numel, None))


def tensor(values: Any, offset: Any, shape: Any, strides: Any) -> Call:
    arguments = (values, offset, shape, strides, False, Call(Global("collections", "OrderedDict"), ()))
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments)


def assemble(tensors: Any, storages: Mapping[str, np.ndarray], system: Any = SYSTEM) -> bytes:
    """Write a whole checkpoint; the storages, (numel,) each, in the order of the mapping."""
    tail = b"".join(struct.pack("<q", values.size) + values.tobytes() for values in storages.values())
    return HEADER + pickled(system) + pickled(tensors) + pickled(list(storages)) + tail


def write_checkpoint(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write arrays as PyTorch would: contiguous, one storage each."""
    tensors = {}
    for name, array in arrays.items():
        strides = tuple(stride // array.itemsize for stride in np.empty(array.shape, array.dtype).strides)
        kind = STORAGE_CLASSES[array.dtype.str[1:]]
        tensors[name] = tensor(storage(f"key of {name}", array.size, kind), 0, array.shape, strides)
    path.write_bytes(assemble(tensors, {f"key of {name}": array for name, array in arrays.items()}))
    return path


MATRIX = np.arange(6, dtype="<f4")
STEPS = np.array([7], dtype="<i8")
GOOD = assemble(
    {
        "matrix": tensor(storage("94", 6), 0, (2, 3), (3, 1)),
        "transposed": tensor(storage("94", 6), 0, (3, 2), (1, 3)),
        "column": tensor(storage("94", 6), 1, (2,), (3,)),
        "empty": tensor(storage("94", 6), 0, (0, 5), (5, 1)),
        "steps": tensor(storage("17", 1, "Long"), 0, (), ()),
    },
    {"94": MATRIX, "17": STEPS},
)


def read_bytes(folder: Path, content: bytes) -> dict[str, np.ndarray]:
    path = folder / "weights.pth"
    path.write_bytes(content)
    return read_tensors(path)


def refusal(folder: Path, content: bytes) -> str:
    """Return the message of the InputError that the content raises, held to naming the file."""
    with pytest.raises(InputError) as caught:
        read_bytes(folder, content)
    assert str(folder / "weights.pth") in str(caught.value)
    return str(caught.value)


def one_tensor(numel: int = 6, offset: Any = 0, shape: Any = (2, 3), strides: Any = (3, 1)) -> bytes:
    return assemble({"w": tensor(storage("0", numel), offset, shape, strides)}, {"0": MATRIX})


def test_reads_whole_strided_shared_empty_and_scalar_tensors(tmp_path):
    tensors = read_bytes(tmp_path, GOOD)
    assert list(tensors) == ["matrix", "transposed", "column", "empty", "steps"]
    np.testing.assert_array_equal(tensors["matrix"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(tensors["transposed"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(tensors["column"], [1, 4])
    assert tensors["empty"].shape == (0, 5)
    assert tensors["steps"].shape == ()
    assert tensors["steps"] == 7
    assert (tensors["matrix"].dtype, tensors["steps"].dtype) == (np.float32, np.int64)
    assert np.shares_memory(tensors["matrix"], tensors["transposed"])


@pytest.mark.parametrize("dtype", STORAGE_CLASSES)
def test_reads_every_storage_class(tmp_path, dtype):
    values = np.array([[1, 2], [3, 250]]).astype(dtype)
    read = read_tensors(write_checkpoint(tmp_path / "w.pth", {"w": values}))["w"]
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, values)


def test_memo_and_module_metadata_are_understood(tmp_path):
    # An OrderedDict that is memoised, filled item by item, and given `_metadata` as its state: what PyTorch writes.
    state = b"ccollections\nOrderedDict\nq\x00)Rq\x01" + opcodes("w")
    state += opcodes(tensor(storage("0", 6), 0, (6,), (1,))) + b"s" + opcodes({"_metadata": Raw(b"h\x00)R")}) + b"b"
    np.testing.assert_array_equal(read_bytes(tmp_path, assemble(Raw(state), {"0": MATRIX}))["w"], MATRIX)


def test_foreign_call_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "marker"
    evil = Call(Global("os", "mkdir"), (str(marker),))
    pickle.loads(pickled(evil))
    assert marker.is_dir(), "the file would do harm in pickle's hands"
    marker.rmdir()
    message = refusal(tmp_path, assemble({"w": evil}, {}))
    assert "os.mkdir" in message
    assert "state_dict" in message
    assert not marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [(os.name, "system"), ("builtins", "eval"), ("torch", "BFloat16Storage"), ("collections", "OrderedDict.x")],
)
def test_every_other_name_is_refused(tmp_path, module, name):
    assert f"{module}.{name}" in refusal(tmp_path, assemble({"w": Global(module, name)}, {}))


def test_name_in_message_cannot_steer_the_terminal(tmp_path):
    assert "\x1b" not in refusal(tmp_path, assemble({"w": Global("os", "\x1b[2J")}, {}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a PyTorch checkpoint"),
        (b"\x89PNG\r\n", "not a PyTorch checkpoint"),
        (pickle.dumps(1, 2) + GOOD, "not a PyTorch checkpoint"),
        (assemble({}, {}, {"little_endian": False}), "little_endian"),
        (assemble({}, {}, []), "little_endian"),
        (assemble([], {}), "holds a list"),
        (assemble({"epoch": 3}, {}), "'epoch' is of type int"),
        (assemble({"model": {"w": 1}}, {}), "'model' is of type dict"),
        (assemble({}, {"0": MATRIX}), "disagree"),
        (assemble({"w": tensor(storage("1", 6), 0, (6,), (1,))}, {"0": MATRIX}), "disagree"),
        (one_tensor(numel=5), "not 5 as announced"),
        (one_tensor(numel=-6), "not -6 as announced"),
        (one_tensor(offset=1), "beyond its storage"),
        (one_tensor(offset=-1), "negative"),
        (one_tensor(shape=(3, 3)), "beyond its storage"),
        (one_tensor(strides=(4, 1)), "beyond its storage"),
        (one_tensor(strides=(-3, 1)), "negative"),
        (one_tensor(shape=(2**40, 2**40), strides=(0, 0)), "beyond its storage"),
        (one_tensor(shape=(2**62, 2**62, 0), strides=(0, 0, 0)), "damaged"),
        (one_tensor(shape=(6,)), "none of them negative"),
        (one_tensor(shape=("2", 3)), "none of them negative"),
        (one_tensor(shape=6), "a shape and strides"),
        (assemble({"w": Persistent(("module", "x"))}, {}), "persistent id"),
        (
            assemble({"w": Persistent(("storage", Global("torch", "FloatStorage"), "0", "cpu", 6, ("v", 0, 6)))}, {}),
            "whole",
        ),
        (assemble(Raw(b"}" + opcodes("w") + opcodes("w") + b"s" * 2), {}), "malformed"),
        (assemble(Raw(b"h\x05"), {}), "malformed.*5"),
        (assemble(Raw(b"u"), {}), "malformed"),
        (assemble({("w",): 1}, {}), "not a string"),
        (assemble(Raw(b"I5\n"), {}), "malformed.*KeyError"),
        (GOOD + b"\0", "1 bytes follow"),
    ],
)
def test_malformed_file_is_refused_with_the_reason(tmp_path, content, reason):
    with pytest.raises(InputError, match=reason):
        read_bytes(tmp_path, content)


@pytest.mark.parametrize("name", ["absent.pth", "."])
def test_unreadable_path_is_an_input_error(tmp_path, name):
    with pytest.raises(InputError, match="cannot be read"):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        HEADER
        + b"".join(map(pickled, (SYSTEM, {"w": tensor(storage("0", 2**40), 0, (2**40,), (1,))}, ["0"])))
        + struct.pack("<q", 2**40),
        assemble(Raw(b"}r\xff\xff\xff\xff"), {"0": MATRIX}),  # memo index 2**32 - 1
        assemble(Raw(b"}r\xff\xff\xff\x05"), {"0": MATRIX}),  # memo index 10**8
        assemble(Raw(b"X\xff\xff\xff\x7f"), {}),  # a string of 2 GiB
        assemble(Raw(b"\x8e" + b"\xff" * 7 + b"\x7f"), {}),  # bytes of 8 EiB
    ],
)
def test_lengths_that_lie_allocate_nothing(tmp_path, content):
    tracemalloc.start()
    try:
        refusal(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (b"}(" + b")" + b"\x85" * 40_000 + b"Nu", "not a string"),  # a key nested deeply: hashing it takes the stack
        (b"}" * 270_000, "more than 262,144 bytes of objects"),  # 64 bytes of memory for each of the file
        (b")" * 5_000_000, "more than 262,144 bytes of objects"),
        (b"}()q\0" + b"h\0h\0\x86q\0" * 60 + b"Nu", "not a string"),  # hashing it would take 2**60 steps
        (b"}\x8f(" + b"\x8f" * 9 + b"\x90Ns", "malformed"),  # a set hashes what enters it
        (b"}\x96" + b"\xff" * 5 + b"\0" * 3 + b"Ns", "malformed"),  # a bytearray of a TB, allocated at once
    ],
)
def test_small_files_take_neither_the_stack_nor_memory_nor_time(tmp_path, code, reason):
    assert reason in refusal(tmp_path, assemble(Raw(code), {}))


ORDERED_DICT, REBUILD = Global("collections", "OrderedDict"), Global("torch._utils", "_rebuild_tensor_v2")
ONE_TENSOR = tensor(storage("0", 6), 0, (6,), (1,))


@pytest.mark.parametrize(
    "code",
    [
        opcodes(Call(ORDERED_DICT, ([("w", 1)],))),
        opcodes(Call(REBUILD, ())),
        opcodes(Call(Global("torch", "FloatStorage"), (2**40,))),
        opcodes(REBUILD) + opcodes({"name": "x"}) + b"b",
        opcodes(REBUILD) + opcodes((None, {"__call__": "x", "name": "x"})) + b"b",  # the state of slots: setattr
        opcodes(ONE_TENSOR) + opcodes((None, {"shape": (2**40,)})) + b"b",
        opcodes(ONE_TENSOR) + opcodes(()) + b"R",
    ],
)
def test_allowed_names_can_be_neither_called_otherwise_nor_changed(tmp_path, code):
    refusal(tmp_path, assemble({"w": Raw(code)}, {"0": MATRIX}))
    np.testing.assert_array_equal(read_bytes(tmp_path, one_tensor())["w"], MATRIX.reshape(2, 3))


def test_digest_in_the_name_is_checked(tmp_path):
    path = tmp_path / f"weights-{hashlib.sha256(GOOD).hexdigest()[:8]}.pth"
    path.write_bytes(GOOD)
    assert len(read_tensors(path)) == 5
    path.write_bytes(GOOD[:-1] + b"\1")
    with pytest.raises(InputError, match="SHA-256"):
        read_tensors(path)


def test_truncated_anywhere_is_an_input_error(tmp_path):
    for length in range(len(GOOD)):
        refusal(tmp_path, GOOD[:length])


@settings(max_examples=500, deadline=None)
@given(position=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_any_changed_byte_gives_arrays_or_an_input_error(tmp_path_factory, position, value):
    content = GOOD[:position] + bytes([value]) + GOOD[position + 1 :]
    try:
        tensors = read_bytes(tmp_path_factory.getbasetemp(), content)
    except InputError:
        return
    assert all(isinstance(name, str) and isinstance(array, np.ndarray) for name, array in tensors.items())
