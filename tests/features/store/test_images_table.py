"""images.csv: what is written is read, and two extractions that end together lose nothing."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from features.common.errors import InputError
from features.store.images_table import FactsTable, ImageFacts
from tests.features.store.caches import ODD_IDS, digest_of_image, facts_of

HEADER = "id,digest,height,width,channels,bit_depth,mean,std\n"


def found(*image_ids: str, version: int = 0) -> dict[str, tuple[bytes, ImageFacts]]:
    return {image_id: (digest_of_image(image_id, version), facts_of(image_id)) for image_id in image_ids}


def ids_in(path: Path) -> list[str]:
    return [line.split(",")[0] for line in path.read_text().splitlines()[1:]]


def add_alone(path: Path, image_id: str) -> None:
    """Add one image; the body of another process."""
    FactsTable(path).add(found(image_id), [])


def test_a_missing_file_is_an_empty_table(tmp_path):
    table = FactsTable(tmp_path / "images.csv")
    assert len(table) == 0
    assert not table.knows("a", digest_of_image("a"))
    with pytest.raises(KeyError):
        table["a"]


def test_what_is_written_is_read_back_to_the_last_bit(tmp_path):
    path = tmp_path / "train" / "images.csv"
    ids = (*ODD_IDS, 'quote", comma', "two\nlines")
    FactsTable(path).add(found(*ids), ids)
    table = FactsTable(path)
    assert len(table) == len(ids)
    assert {image_id: table[image_id] for image_id in ids} == {image_id: facts_of(image_id) for image_id in ids}
    assert all(table.knows(image_id, digest_of_image(image_id)) for image_id in ids)


def test_a_white_image_whose_mean_is_rounded_up_is_read(tmp_path):
    white = ImageFacts(480, 640, 1, 8, float(np.nextafter(255, 256)), 0.0)
    FactsTable(tmp_path / "images.csv").add({"a": (digest_of_image("a"), white)}, ["a"])
    assert FactsTable(tmp_path / "images.csv")["a"] == white


def test_facts_are_of_one_digest(tmp_path):
    path = tmp_path / "images.csv"
    FactsTable(path).add(found("a"), ["a"])
    assert not FactsTable(path).knows("a", digest_of_image("a", version=1))
    FactsTable(path).add(found("a", version=1), ["a"])
    assert FactsTable(path).knows("a", digest_of_image("a", version=1))
    assert ids_in(path) == ["a"]


def test_images_stand_in_the_order_of_the_data_set_then_the_others(tmp_path):
    path = tmp_path / "images.csv"
    FactsTable(path).add(found("c", "gone", "a"), ["a", "b", "c"])
    FactsTable(path).add(found("b"), ["a", "b", "c"])
    assert ids_in(path) == ["a", "b", "c", "gone"]


def test_a_table_read_earlier_does_not_undo_what_another_added(tmp_path):
    path = tmp_path / "images.csv"
    early, other = FactsTable(path), FactsTable(path)
    other.add(found("a"), ["a", "b"])
    early.add(found("b"), ["a", "b"])
    assert ids_in(path) == ["a", "b"]
    assert early.knows("a", digest_of_image("a"))


def test_processes_that_add_at_once_lose_nothing(tmp_path):
    path = tmp_path / "images.csv"
    names = [f"image{number}" for number in range(12)]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(add_alone, [(path, name) for name in names], chunksize=1)
    assert sorted(ids_in(path)) == sorted(names)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"id,digest\n",
        HEADER.encode() + b"a,00,1,2\n",
        HEADER.encode() + b"a,00,tall,2,3,8,1,1\n",
        HEADER.encode() + b"\n",
        HEADER.encode() + b"a,00,1,2,3,8,1\n",
        HEADER.encode() + b"a,00,1,2,3,8,1,1,1\n",
        HEADER.encode() + b"a,00,1,2,3,8,1,nan\n",
        HEADER.encode() + b"a,00,1,2,3,8,256,1\n",
        HEADER.encode() + b"a,00,1,2,3,5000,1,1\n",
        HEADER.encode() + b"a,00,1,2,3,0,0,0\n",
        HEADER.encode() + b"a,00,0,2,3,8,1,1\n",
        HEADER.encode() + b"\xff,00,1,2,3,8,1,1\n",
    ],
)
def test_a_damaged_table_is_named_with_what_to_do(tmp_path, content):
    path = tmp_path / "images.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        FactsTable(path)
    assert str(caught.value).startswith(f"{path} cannot be read: ")
    assert str(caught.value).endswith("Remove it: the next extraction writes it again.")
