"""images.csv: what is written is read, and two extractions that end together lose nothing."""

import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.common.errors import InputError
from features.common.files import digest_file
from features.store import images_table
from features.store.images_table import (
    FactsTable,
    ImageFacts,
    Rejection,
    SeenImage,
    Stamp,
    read_rejections,
    replace_rejections,
)
from tests.features.store.caches import ODD_IDS, digest_of_image, facts_of

HEADER = "id,digest,size,mtime_ns,ctime_ns,height,width,channels,bit_depth,mean,std,group,position,is_repaired\n"


def found(*image_ids: str, version: int = 0, mtime: int = 10**18 + 1) -> dict[str, SeenImage]:
    stamp = Stamp(len(image_ids), mtime, 7)
    return {i: SeenImage(digest_of_image(i, version), stamp, facts_of(i)) for i in image_ids}


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


def test_the_digest_is_given_for_the_stamp_with_which_the_image_was_seen(tmp_path):
    path = tmp_path / "images.csv"
    FactsTable(path).add(found("a", "b"), ["a", "b"])
    table = FactsTable(path)
    assert table.digest("a", Stamp(2, 10**18 + 1, 7)) == digest_of_image("a")
    for image_id, *stamp in (
        ("a", 3, 10**18 + 1, 7),
        ("a", 2, 10**18, 7),
        ("a", 2, 10**18 + 1, 8),
        ("c", 2, 10**18 + 1, 7),
    ):
        assert table.digest(image_id, Stamp(*stamp)) is None
    table.add(found("a", mtime=5), ["a", "b"])
    assert FactsTable(path).digest("a", Stamp(1, 5, 7)) == digest_of_image("a")


def test_what_is_known_already_is_not_written_again(tmp_path, monkeypatch):
    path = tmp_path / "images.csv"
    FactsTable(path).add(found("a", "b"), ["a", "b"])
    monkeypatch.setattr("features.store.images_table.replacing", lambda path: pytest.fail(f"{path} was written"))
    FactsTable(path).add({"b": found("a", "b")["b"]}, ["a", "b"])
    assert len(FactsTable(path)) == 2


def test_a_table_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path, reads = tmp_path / "images.csv", []
    FactsTable(path).add(found("a"), ["a"])
    read = images_table._read_csv
    monkeypatch.setattr(images_table, "_read_csv", lambda *of: reads.append(path) or read(*of))
    assert len(FactsTable(path)) == len(FactsTable(path)) == len(reads) == 1
    FactsTable(path).add(found("b"), ["a", "b"])
    assert len(FactsTable(path)) == 2
    assert len(reads) == 3  # once to add, once again


def test_a_white_image_whose_mean_is_rounded_up_is_read(tmp_path):
    white = ImageFacts(480, 640, 1, 8, float(np.nextafter(255, 256)), 0.0)
    FactsTable(tmp_path / "images.csv").add({"a": SeenImage(b"a" * 16, Stamp(9, 9, 9), white)}, ["a"])
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


@pytest.mark.parametrize("has_scans", [False, True])
def test_a_file_of_before_the_last_change_of_a_file_was_kept_is_read_and_matches_no_stamp(tmp_path, has_scans):
    path = tmp_path / "images.csv"
    digest = digest_of_image("a").hex()
    header = HEADER.replace("ctime_ns,", "").replace(",is_repaired", "")
    header, cells = (header, ",,") if has_scans else (header.replace(",group,position", ""), "")
    path.write_text(f"{header}a,{digest},7,8,1,2,3,8,1,1{cells}\n")
    table = FactsTable(path)
    assert table.knows("a", digest_of_image("a"))
    assert table.digest("a", Stamp(7, 8, 0)) is None
    table.renew({"a": Stamp(7, 8, 9)})
    assert FactsTable(path).digest("a", Stamp(7, 8, 9)) == digest_of_image("a")
    assert path.read_text().startswith(HEADER)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"id,digest\n",
        HEADER.encode() + b"a,00,7,8,9,1,2,,,\n",
        HEADER.encode() + b"a,00,7,8,9,tall,2,3,8,1,1,,,\n",
        HEADER.encode() + b"\n",
        HEADER.encode() + b"a,0,7,8,9,1,2,3,8,1,1,,,\n",
        HEADER.encode() + b"a,00,7,late,9,1,2,3,8,1,1,,,\n",
        b"id,digest,height,width,channels,bit_depth,mean,std\na,00,1,2,3,8,1,1\n",
        HEADER.encode() + b"a,00,7,8,9,1,2,3,8,1,,,\n",
        HEADER.encode() + b"a,00,7,8,9,1,2,3,8,1,1,1,,,\n",
        HEADER.encode() + b"a,00,7,8,9,1,2,3,8,1,nan,,,\n",
        HEADER.encode() + b"a,00,7,8,9,1,2,3,8,256,1,,,\n",
        HEADER.encode() + b"a,00,7,8,9,1,2,3,5000,1,1,,,\n",
        HEADER.encode() + b"a,00,7,8,9,1,2,3,0,0,0,,,\n",
        HEADER.encode() + b"a,00,7,8,9,0,2,3,8,1,1,,,\n",
        HEADER.encode() + b"\xff,00,7,8,9,1,2,3,8,1,1\n",
    ],
)
def test_a_damaged_table_is_named_with_what_to_do(tmp_path, content):
    path = tmp_path / "images.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        FactsTable(path)
    assert str(caught.value).startswith(f"{path} cannot be read: ")
    assert str(caught.value).endswith("Remove it: the next extraction writes it again.")


TRAIN = Rejection("a 1", "train/a 1.png", "it is cut off, at byte 7", "00" * 16)
SUB = Rejection("sub/ä", "train/sub/ä.dcm", "no pixels", "")
TEST = Rejection("t", "test/t.png", "empty", "ab" * 16)


def test_without_a_file_nothing_was_rejected(tmp_path):
    assert read_rejections(tmp_path) == []


def test_rejections_are_read_back_in_order(tmp_path):
    replace_rejections(tmp_path, ["train"], [TRAIN, SUB])
    assert read_rejections(tmp_path) == [TRAIN, SUB]
    assert (tmp_path / "rejected.csv").read_text().splitlines()[0] == "id,path,reason,digest"


def test_a_split_renews_its_own_lines_only(tmp_path):
    replace_rejections(tmp_path, ["train"], [TRAIN, SUB])
    replace_rejections(tmp_path, ["test"], [TEST])
    replace_rejections(tmp_path, ["train"], [SUB])
    assert read_rejections(tmp_path) == [TEST, SUB]


def test_a_split_whose_name_begins_another_leaves_it_alone(tmp_path):
    longer = Rejection("x", "train2/x.png", "empty", "")
    replace_rejections(tmp_path, ["train2"], [longer])
    replace_rejections(tmp_path, ["train"], [])
    assert read_rejections(tmp_path) == [longer]


def test_a_rejected_image_is_outdated_once_its_bytes_are_others(tmp_path):
    image = tmp_path / "a.png"
    unread = Rejection("a", "train/a.png", "the file cannot be read: Permission denied", "")
    assert not unread.is_outdated(image)
    image.write_bytes(b"broken")
    assert unread.is_outdated(image)
    assert not Rejection("a", "train/a.png", "cut off", digest_file(image).hex()).is_outdated(image)
    (tmp_path / "rejected.csv").write_text("id,path,reason\na,train/a.png,cut off\n")  # older than the digests
    (early,) = read_rejections(tmp_path)
    assert not early.is_outdated(image)
    replace_rejections(tmp_path, ["test"], [])
    assert read_rejections(tmp_path) == [early]


def test_the_file_goes_with_the_last_rejection(tmp_path):
    replace_rejections(tmp_path, ["train", "test"], [TRAIN, TEST])
    replace_rejections(tmp_path, ["train"], [])
    assert read_rejections(tmp_path) == [TEST]
    replace_rejections(tmp_path, ["test"], [])
    assert not (tmp_path / "rejected.csv").exists()


@pytest.mark.parametrize("content", [b"", b"id,path\na,b\n", b"id,path,reason\na,b\n", b"id,path,reason\n\xff,b,c\n"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "rejected.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_rejections(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'rejected.csv'} cannot be read: ")
    assert str(caught.value).endswith("Remove it: the next extraction writes it again.")


def test_times_of_any_year_and_scans_are_given_back_as_they_were(tmp_path):
    facts = replace(facts_of("a"), group="Größe", position=-12.5, is_repaired=True)
    for stamp in (Stamp(0, -(10**18), -5), Stamp(1 << 40, 1 << 70, 1 << 62)):  # 1938, the year 39,000
        seen = {
            "a": SeenImage(digest_of_image("a"), stamp, facts),
            "b": SeenImage(digest_of_image("b"), stamp, facts_of("b")),
        }
        FactsTable(tmp_path / "images.csv").add(seen, ["a", "b"])
        table = FactsTable(tmp_path / "images.csv")
        assert (table["a"], table["b"]) == (facts, facts_of("b"))
        assert table.digest("a", stamp) == digest_of_image("a")
        assert table.digest("a", replace(stamp, ctime_ns=8)) is None
        assert table.digest("c", stamp) is None


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("digest", "ab" * 17),
        ("digest", "ab" * 15),
        ("height", str(1 << 31)),
        ("mtime_ns", str(1 << 95)),
        ("mean", "nan"),
    ],
)
def test_a_line_of_what_no_image_has_is_refused(tmp_path, column, cell):
    path = tmp_path / "images.csv"
    FactsTable(path).add(found("a"), ["a"])
    header, line = path.read_text().splitlines()
    cells = dict(zip(header.split(","), line.split(","), strict=True)) | {column: cell}
    path.write_text(f"{header}\n{','.join(cells.values())}\n")
    with pytest.raises(InputError, match="the line of a holds what no image has"):
        FactsTable(path)
