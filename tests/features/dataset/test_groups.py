"""A file of groups: joined by id, every fault one message."""

import numpy as np
import pytest

from features.dataset.dataset import read_dataset
from features.dataset.faults import Faults
from features.dataset.groups import read_groups_file, write_groups_file
from features.options import DatasetOptions
from tests.features.dataset.written import assert_says, make, message_of

TRAIN = "ID,bleed,patient\na,0,p1\nsub/b,1,p1\nc,1,p2\n"


@pytest.fixture
def data(tmp_path):
    return make(tmp_path / "data", TRAIN, train="a.png sub/b.png c.png", test="x.png y.png")


def write(folder, text):
    path = folder / "groups.csv"
    path.write_text(text)
    return path


def test_groups_are_joined_by_id_and_stand_in_for_the_column(data, tmp_path, caplog):
    path = write(tmp_path, "group,ID\ng2,c.png\ng1,./sub/b\ng1,a\nlost,z\n")
    dataset = read_dataset(data, DatasetOptions(groups=path))
    assert dataset.label_names == ("bleed",)  # the column "patient" is still no label
    assert dataset.splits["train"].groups.tolist() == ["g1", "g1", "g2"]
    assert dataset.splits["test"].groups is None
    assert f"{path}: 1 of 4 rows name no image of the data set (first: 'z')" in caplog.text


def test_a_file_that_names_the_test_images_gives_them_groups_too(data, tmp_path):
    path = write(tmp_path, "ID,group\na,1\nsub/b,2\nc,3\ny,4\nx,1\n")
    assert read_dataset(data, DatasetOptions(groups=path)).splits["test"].groups.tolist() == ["1", "4"]


@pytest.mark.parametrize("safe", [False, True])
def test_what_is_written_is_read_again(safe, tmp_path):
    groups = {"a,b": "Müller", 'quote"': "2", "c/d": "proposed-00001", "=1+1": "@home"}
    write_groups_file(tmp_path / "groups.csv", groups, safe)
    faults = Faults()
    assert read_groups_file(tmp_path / "groups.csv", faults) == groups
    assert faults == Faults()
    assert ("'=1+1,'@home" in (tmp_path / "groups.csv").read_text()) == safe


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ID,patient\na,1\n", "has no column group. Its columns: ID, patient. A file of groups has the columns ID"),
        ("image,group\na,1\n", "has no column ID. Its columns: image, group"),
        ("ID,group\na,1\na.png,1\n", "line 3, column ID: received 'a.png'. Line 2 has the same id ('a')"),
        ("ID,group\na,\n", "line 2, column group: received a blank cell. Every image needs a group"),
        ("ID,group\n../a,1\n", "line 2, column ID: received '../a'. An id must stay inside the data set"),
        ("ID,group,group\na,1,1\n", "columns 2 and 3 are both called 'group'"),
        ("ID,group\na,1\nc,1\n", "no group for 1 of 3 train images (first: 'sub/b'). Add their rows"),
        ("ID,group\nx,1\n", "no group for 3 of 3 train images"),
        ("ID,group\na,1\nsub/b,1\nc,1\nx,1\n", "no group for 1 of 2 test images (first: 'y')"),
        ("", "is empty"),
    ],
)
def test_every_fault_is_one_message(data, tmp_path, text, says):
    path = write(tmp_path, text)
    assert_says(message_of(data, groups=path), path, says)


def test_a_file_and_a_column_exclude_each_other(data, tmp_path):
    message = message_of(data, groups=tmp_path / "groups.csv", group_column="patient")
    assert message == f"--groups {tmp_path}/groups.csv and --group-column patient: give one of them."


def test_a_file_that_is_not_there(data, tmp_path):
    assert_says(message_of(data, groups=tmp_path / "none.csv"), "none.csv cannot be read: No such file")


def test_groups_of_a_file_are_resampled_and_never_cut_like_those_of_a_column(data, tmp_path):
    groups = read_dataset(data).splits["train"].groups
    path = tmp_path / "groups.csv"
    write_groups_file(path, dict(zip(("c", "a", "sub/b"), np.roll(groups, 1), strict=True)), safe=False)
    np.testing.assert_array_equal(read_dataset(data, DatasetOptions(groups=path)).splits["train"].groups, groups)
