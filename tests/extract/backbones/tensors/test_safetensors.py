"""The safetensors format: a file of its own package, and files that lie."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract.backbones.tensors.files import read_tensors
from features.common.errors import InputError

ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
MATRIX = np.arange(6, dtype="<f4")


def write(path: Path, header: Any, data: bytes = MATRIX.tobytes()) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_a_file_of_the_package_is_read():
    tensors = read_tensors(Path(__file__).parent / "data" / "safetensors_0_8.safetensors")
    np.testing.assert_array_equal(tensors["weight"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(tensors["transposed"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(tensors["parameter"], [1.5, 2.5])
    assert tensors["steps"] == 7
    assert [tensors[name].dtype for name in ("weight", "steps", "parameter")] == [np.float32, np.int64, np.float64]


def test_a_file_written_by_hand_is_read(tmp_path):
    path = write(tmp_path / "w.safetensors", {"__metadata__": {"format": "pt"}, "w": ENTRY})
    (found,) = read_tensors(path).items()
    assert found[0] == "w"
    np.testing.assert_array_equal(found[1], MATRIX.reshape(2, 3))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ([], "not a JSON object"),
        (b"{", "damaged"),
        (b"[" * 200_000, "nests too deeply"),
        (b" " * 262_145, "more than the file or than 262,144"),
        ({"w": 1}, "no dtype, shape and data_offsets"),
        ({"w": ENTRY | {"dtype": "BF16"}}, "is of type 'BF16'; save it as float32"),
        ({"w": ENTRY | {"shape": [2, -3]}}, "no dtype, shape"),
        ({"w": ENTRY | {"shape": [2, True]}}, "no dtype, shape"),
        ({"w": ENTRY | {"shape": [2, 4]}}, "does not lie in its bytes 0 to 24"),
        ({"w": ENTRY | {"shape": [2**40], "data_offsets": [0, 2**42]}}, "does not lie in its bytes"),
        ({"w": ENTRY | {"shape": [2, 2], "data_offsets": [8, 24]}}, "do not fill the file"),
        ({"w": ENTRY | {"shape": [2, 2], "data_offsets": [0, 16]}}, "do not fill the file"),
        ({"w": ENTRY, "v": ENTRY}, "do not fill the file"),
    ],
)
def test_malformed_file_is_refused_with_the_reason(tmp_path, header, reason):
    with pytest.raises(InputError, match=reason):
        read_tensors(write(tmp_path / "w.safetensors", header))


def test_truncated_anywhere_is_an_input_error(tmp_path):
    content = write(tmp_path / "w.safetensors", {"w": ENTRY}).read_bytes()
    for length in range(len(content)):
        (tmp_path / "w.safetensors").write_bytes(content[:length])
        with pytest.raises(InputError, match=r"w\.safetensors is damaged"):
            read_tensors(tmp_path / "w.safetensors")
