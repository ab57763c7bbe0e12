"""features.store.gradients: what is written comes back; damage is refused."""

import random
from pathlib import Path

import h5py
import numpy as np
import pytest

from features.common.errors import InputError
from features.store.gradients import GRADIENTS, Gradients, Pair, read_gradients, rounded, write_gradients
from features.store.recipe import Recipe


def gradients_of(count: int, widths: dict[str, int]) -> Gradients:
    generator = np.random.default_rng(0)
    return Gradients(
        run="0" * 32,
        model="mean",
        label_names=("blood", "Brüche"),
        chosen_of=1000,
        members={"ridge/a": (0.25, 0.5), "ridge/b": (0.75, 0.5)},
        left_out={"knn/a": "it has no gradient"},
        covered=0.5,
        no_heat="" if widths else "knn has no gradient",
        instead=() if widths else ("ridge/a",),
        recipes={name: Recipe(name, "random", "0" * 32, "none", 32) for name in widths},
        pairs=tuple(
            Pair("train", f"sub/ü{row}", "f" * 32, row % 2, (("example", row), ("surest", 2)), 0.1, True, 3.0, -1.0)
            for row in range(count)
        ),
        vectors={name: rounded(generator.normal(size=(count, width))) for name, width in widths.items()},
    )


@pytest.mark.parametrize("widths", [{"alpha": 5, "beta": 300}, {}])
def test_what_is_written_comes_back(widths, tmp_path):
    written = gradients_of(70, widths)
    write_gradients(tmp_path, gradients_of(1, {}))
    write_gradients(tmp_path, written)
    found = read_gradients(tmp_path)
    for name, vectors in written.vectors.items():
        np.testing.assert_array_equal(found.vectors[name], vectors)
        assert found.vectors[name].dtype == np.float32
    assert {**vars(found), "vectors": None} == {**vars(written), "vectors": None}
    assert found.count == "70 of 2,000 pairs of image and label (70 of 1,000 images)"
    assert [path.name for path in tmp_path.iterdir()] == [GRADIENTS]


def test_rounding_keeps_eleven_bits_and_any_magnitude_and_halves_the_file(tmp_path):
    values = (np.random.default_rng(1).normal(size=(500, 1280)) * 1e-9).astype(np.float32)
    kept = rounded(values)
    np.testing.assert_allclose(kept, values, rtol=2**-11)
    np.testing.assert_array_equal(rounded(kept), kept)
    assert rounded(np.zeros((1, 1)))[0, 0] == 0
    many = gradients_of(500, {"alpha": 1280})
    write_gradients(tmp_path, Gradients(**vars(many) | {"vectors": {"alpha": kept}}))
    assert (tmp_path / GRADIENTS).stat().st_size < 0.55 * values.nbytes


def test_every_flipped_byte_of_the_gradients_is_found(tmp_path):
    write_gradients(tmp_path, gradients_of(200, {"alpha": 64}))
    path = tmp_path / GRADIENTS
    with h5py.File(path) as file:
        chunks = [file["gradients/alpha"].id.get_chunk_info(index) for index in range(4)]
        chunks.append(file["about"].id.get_chunk_info(0))
    whole, generator = path.read_bytes(), random.Random(5)
    for _ in range(20):
        chunk = generator.choice(chunks)
        damaged = bytearray(whole)
        damaged[chunk.byte_offset + generator.randrange(chunk.size)] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{path} is damaged .*python -m classify gradients {tmp_path}"):
            read_gradients(tmp_path)


def test_a_missing_file_and_another_layout_name_what_to_run(tmp_path):
    with pytest.raises(InputError, match=r"gradients.h5 is not there.*python -m classify gradients"):
        read_gradients(tmp_path)
    (tmp_path / GRADIENTS).write_text("text")
    with pytest.raises(InputError, match="is damaged"):
        read_gradients(tmp_path)
    with h5py.File(tmp_path / GRADIENTS, "w") as file:
        file["about"] = np.frombuffer(b'{"schema_version": 3, "recipes": {}}', np.uint8)
    with pytest.raises(InputError, match="has layout 3, but this Headbank reads 2"):
        read_gradients(tmp_path)


def test_locks_and_a_notebook_that_has_the_file_open_do_not_matter(tmp_path):
    write_gradients(tmp_path, gradients_of(3, {"alpha": 5}))
    with h5py.File(tmp_path / GRADIENTS, "r+") as file:  # it holds HDF5's lock, and marks the file as open
        file.flush()
        assert len(read_gradients(tmp_path).pairs) == 3


def test_what_the_system_refuses_is_not_called_damage(tmp_path, monkeypatch):
    write_gradients(tmp_path, gradients_of(1, {}))

    def refuse(_: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(
        InputError, match=r"gradients\.h5 cannot be read: Input/output error\. The disk, or the network"
    ):
        read_gradients(tmp_path)


def test_more_values_than_the_file_can_hold_are_refused_before_they_are_read(tmp_path):
    with h5py.File(tmp_path / GRADIENTS, "w") as file:
        file.create_dataset("about", (1, 1, 1 << 40), np.uint8, chunks=(1, 1, 1 << 20))
    with pytest.raises(InputError, match=r"is damaged \(about has shape \(1, 1, 1099511627776\), too much for"):
        read_gradients(tmp_path)
