"""rejected.csv: each split renews its own lines, and no rejection means no file."""

import pytest

from features.common.errors import InputError
from features.store.rejections import Rejection, read_rejections, replace_rejections

TRAIN = Rejection("a 1", "train/a 1.png", "it is cut off, at byte 7")
SUB = Rejection("sub/ä", "train/sub/ä.dcm", "no pixels")
TEST = Rejection("t", "test/t.png", "empty")


def test_without_a_file_nothing_was_rejected(tmp_path):
    assert read_rejections(tmp_path) == []


def test_rejections_are_read_back_in_order(tmp_path):
    replace_rejections(tmp_path, ["train"], [TRAIN, SUB])
    assert read_rejections(tmp_path) == [TRAIN, SUB]
    assert (tmp_path / "rejected.csv").read_text().splitlines()[0] == "id,path,reason"


def test_a_split_renews_its_own_lines_only(tmp_path):
    replace_rejections(tmp_path, ["train"], [TRAIN, SUB])
    replace_rejections(tmp_path, ["test"], [TEST])
    replace_rejections(tmp_path, ["train"], [SUB])
    assert read_rejections(tmp_path) == [TEST, SUB]


def test_a_split_whose_name_begins_another_leaves_it_alone(tmp_path):
    longer = Rejection("x", "train2/x.png", "empty")
    replace_rejections(tmp_path, ["train2"], [longer])
    replace_rejections(tmp_path, ["train"], [])
    assert read_rejections(tmp_path) == [longer]


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
    assert str(caught.value).endswith("Remove it and run the extraction again.")
