"""PyTorch's zip format: files of PyTorch itself, and files written by hand that lie."""

import io
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.backbones.tensors.files import read_tensors
from features.common.errors import InputError
from tests.extract.backbones.tensors.test_files import (
    MATRIX,
    STEPS,
    Call,
    Global,
    Raw,
    pickled,
    read_bytes,
    refusal,
    storage,
    tensor,
)

TENSORS = {
    "matrix": tensor(storage("0", 6), 0, (2, 3), (3, 1)),
    "transposed": tensor(storage("0", 6), 0, (3, 2), (1, 3)),
    "steps": tensor(storage("1", 1, "Long"), 0, (), ()),
}
MEMBERS = {
    "x/data.pkl": pickled(TENSORS),
    "x/byteorder": b"little",
    "x/data/0": MATRIX.tobytes(),
    "x/data/1": STEPS.tobytes(),
}


def archive(members: dict[str, bytes] = MEMBERS, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Write a zip file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file:
        for name, member in members.items():
            file.writestr(name, member)
    return content.getvalue()


GOOD = archive()


def test_a_file_of_pytorch_is_read_with_its_types_strides_and_parameters():
    tensors = read_tensors(Path(__file__).parent / "data" / "torch_2_13.pth")
    assert list(tensors) == ["weight", "transposed", "steps", "parameter"]
    np.testing.assert_array_equal(tensors["weight"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(tensors["transposed"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(tensors["parameter"], [1.5, 2.5])
    assert tensors["steps"] == 7
    assert [tensors[name].dtype for name in ("weight", "steps", "parameter")] == [np.float32, np.int64, np.float64]


def test_files_written_by_hand_are_read(tmp_path):
    tensors = read_bytes(tmp_path, GOOD)
    np.testing.assert_array_equal(tensors["transposed"], MATRIX.reshape(2, 3).T)
    assert np.shares_memory(tensors["matrix"], tensors["transposed"])


def test_a_call_of_a_foreign_function_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "marker"
    evil = pickled({"w": Call(Global("os", "mkdir"), (str(marker),))})
    assert "os.mkdir" in refusal(tmp_path, archive(MEMBERS | {"x/data.pkl": evil}))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (archive(compression=zipfile.ZIP_DEFLATED), "is compressed"),
        (archive(MEMBERS | {"y/data.pkl": b""}), "2 members NAME/data.pkl"),
        (archive({"x/data/0": b""}), "0 members NAME/data.pkl"),
        (archive(MEMBERS | {"x/byteorder": b"big"}), "byteorder"),
        (archive({name: MEMBERS[name] for name in list(MEMBERS)[:-1]}), "storage '1' is missing"),
        (archive(MEMBERS | {"x/data/0": MATRIX[:5].tobytes()}), "storage '0' has 20 bytes, not 6 values"),
        (
            archive(MEMBERS | {"x/data.pkl": pickled({"w": tensor(storage("0", 6), 1, (6,), (1,))})}),
            "beyond its storage",
        ),
        (archive(MEMBERS | {"x/data.pkl": pickled({"w": tensor(storage("0", -6), 0, (), ())})}), "not -6 values"),
        (archive(MEMBERS | {"x/data.pkl": pickled({"epoch": 3})}), "'epoch' is of type int"),
        (archive(MEMBERS | {"x/data.pkl": pickled(Raw(b"}" * 270_000))}), "more than 262,144 bytes of objects"),
        (archive({f"x/{number}": b"" for number in range(10_001)}), "more than 10,000 members"),
        (GOOD[:-30], "not whole"),
        (GOOD.replace(MATRIX.tobytes(), MATRIX[::-1].tobytes()), "CRC"),
    ],
)
def test_malformed_file_is_refused_with_the_reason(tmp_path, content, reason):
    assert reason in refusal(tmp_path, content)


def test_two_members_of_one_name_are_refused(tmp_path):
    content = io.BytesIO(GOOD)
    with warnings.catch_warnings(), zipfile.ZipFile(content, "a") as file:
        warnings.simplefilter("ignore")
        file.writestr("x/data/0", MATRIX.tobytes())
    assert "two of one name" in refusal(tmp_path, content.getvalue())


def test_many_entries_of_one_large_member_take_no_memory(tmp_path):
    """Each of 500 storages names the same MB of the file."""
    large = np.zeros(1 << 18, np.float32)
    tensors = {f"w{key}": tensor(storage(str(key), large.size), 0, (large.size,), (1,)) for key in range(500)}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("x/data.pkl", pickled(tensors))
        file.writestr("x/data/0", large.tobytes())
        member = file.getinfo("x/data/0")
        for key in range(1, 500):
            copy = zipfile.ZipInfo(f"x/data/{key}")
            copy.header_offset, copy.CRC = member.header_offset, member.CRC
            copy.file_size = copy.compress_size = member.file_size
            file.filelist.append(copy)
    tracemalloc.start()
    try:
        assert "together larger than the file" in refusal(tmp_path, content.getvalue())
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


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
    assert all(isinstance(array, np.ndarray) for array in tensors.values())
