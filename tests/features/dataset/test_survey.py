"""A data set with gaps is read as it is: what is missing is listed, not refused."""

import numpy as np
import pytest

from features.common.errors import InputError
from features.dataset.dataset import DatasetOptions, read_dataset
from features.dataset.survey import survey
from tests.features.dataset.written import make

GAPS = "ID,bleed,calc,age,patient\na,1,,40,p1\nb,0,1,50,\nlost,1,0,60,p2\nc,2,0,1,p1\n"


def test_a_whole_data_set_is_read_as_stage_2_reads_it(tmp_path):
    text = ",ID,bleed,patient\n0,a.png,1,p1\n1,b,0.0,p2\n"
    root = make(tmp_path, text, "ID,bleed\nx,1\n", train="a.png b.png", test="x.png")
    dataset, splits = read_dataset(root), survey(root, DatasetOptions())
    for split in splits:
        expected = dataset.splits[split.name]
        assert split.image_ids == expected.image_ids
        assert split.label_names == dataset.label_names
        np.testing.assert_array_equal(split.labels, expected.labels)
        assert (split.without_image, split.without_row, split.unlabelled) == ((), (), ())
    assert splits[0].groups.tolist() == ["p1", "p2"]
    assert splits[1].groups.tolist() == [""]


def test_gaps_are_listed(tmp_path):
    (train,) = survey(make(tmp_path, GAPS, train="a.png b.png c.png extra.png"), DatasetOptions())
    assert train.label_names == ("bleed", "calc")
    assert train.labels.tolist() == [[1, -1], [0, 1], [1, 0], [-1, 0]]
    assert train.unlabelled == ("a", "c")
    assert train.without_image == ("lost",)
    assert train.without_row == ("extra",)
    assert train.groups.tolist() == ["p1", "", "p2", "p1"]


def test_options_name_labels_and_groups(tmp_path):
    root = make(tmp_path / "data", GAPS, train="a.png b.png c.png lost.png")
    (tmp_path / "groups.csv").write_text("ID,group\na,g\nlost,g\n")
    options = DatasetOptions(labels=("calc",), groups_file=tmp_path / "groups.csv")
    (train,) = survey(root, options)
    assert train.label_names == ("calc",)
    assert train.groups.tolist() == ["g", "", "g", ""]
    (train,) = survey(root, DatasetOptions(group_column="age"))
    assert train.groups.tolist() == ["40", "50", "60", "1"]


def test_a_test_split_without_labels_or_csv(tmp_path):
    root = make(tmp_path, "ID,bleed\na,1\nb,0\n", "ID,bleed,new\ny,,1\nx,,0\n", train="a.png b.png", test="x.png y.png")
    _, test = survey(root, DatasetOptions())
    assert (test.image_ids, test.label_names, test.labels.shape) == (("y", "x"), (), (2, 0))
    (root / "test.csv").unlink()
    _, test = survey(root, DatasetOptions())
    assert (test.image_ids, test.label_names) == (("x", "y"), ())


def test_the_long_format_with_a_row_missing(tmp_path):
    rows = "ID_1_epidural,1\nID_1_any,1\nID_2_epidural,0\n"
    (train,) = survey(make(tmp_path, "ID,Label\n" + rows, train="ID_1.png ID_2.png"), DatasetOptions())
    assert train.label_names == ("epidural", "any")
    assert train.labels.tolist() == [[1, 1], [0, -1]]
    assert train.unlabelled == ("ID_2",)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (DatasetOptions(labels=("stroke",)), "--labels names stroke, which"),
        (DatasetOptions(group_column="clinic"), "has no column 'clinic'. Its columns: ID, bleed"),
        (DatasetOptions(id_column="name"), "has no column 'name'"),
    ],
)
def test_options_that_name_nothing_are_refused(tmp_path, options, says):
    root = make(tmp_path, GAPS, train="a.png b.png c.png")
    with pytest.raises(InputError, match=says):
        survey(root, options)


def test_no_data_set(tmp_path):
    with pytest.raises(InputError, match="neither a folder train nor a folder test"):
        survey(tmp_path, DatasetOptions())
