"""All faults of a data set are collected; strict readers show the first ten, and what can be read is read."""

import pytest

from features.common.arrays import UNKNOWN
from features.common.errors import InputError
from features.dataset.dataset import read_dataset, read_with_faults
from features.dataset.faults import Fault
from features.dataset.formats import FORMATS
from features.options import DatasetOptions
from tests.features.dataset.written import assert_says, images_message_of, make, message_of

GAPS = "ID,bleed,calc,age,patient\na,1,,40,p1\nb,0,1,50,\nlost,1,0,60,p2\nc,2,0,1,p1\n"


def test_a_whole_data_set_is_read_as_stage_2_reads_it(tmp_path):
    text = ",ID,bleed,patient\n0,a.png,1,p1\n1,b,0.0,p2\n"
    root = make(tmp_path, text, "ID,bleed\nx,1\n", train="a.png b.png", test="x.png")
    expected = read_dataset(root)
    dataset, faults = read_with_faults(root)
    assert (faults.count, faults.kept, faults.warnings) == (0, [], [])
    assert dataset.label_names == expected.label_names
    for split, other in zip(dataset.splits.values(), expected.splits.values(), strict=True):
        assert (split.image_ids, split.paths) == (other.image_ids, other.paths)
        assert split.labels.tolist() == other.labels.tolist()
        assert (split.without_image, split.without_row) == ((), ())


def test_what_is_there_is_read_and_what_is_not_is_a_fault(tmp_path):
    root = make(tmp_path, GAPS, train="a.png b.png c.png extra.png")
    dataset, faults = read_with_faults(root)
    train, test = dataset.splits.values()
    assert dataset.label_names == ("bleed", "calc")
    assert train.image_ids == ("a", "b", "c")
    assert train.labels.tolist() == [[1, UNKNOWN], [0, 1], [UNKNOWN, 0]]
    assert train.groups.tolist() == ["p1", "", "p1"]
    assert (train.without_image, train.without_row) == (("lost",), ())
    assert (test.image_ids, test.without_row) == (("extra",), ("extra",))
    csv = root / "train.csv"
    assert [(fault.kind, fault.path, fault.line, fault.column) for fault in faults.kept] == [
        ("image", csv, None, "ID"),
        ("group", csv, 3, "patient"),
        ("label", csv, 5, "bleed"),
        ("label", csv, 2, "calc"),
    ]
    assert faults.kept[2].what == "received '2'"
    assert len(faults.warnings) == 1
    assert_says(faults.warnings[0], f"{root}: 1 of 4 images have no row in train.csv", "extra.png", "predicted")
    assert dataset.understood == (
        f"{csv}: not labels: age",
        "id: 'ID'; labels: 2: bleed, calc; groups: 'patient' (1 group of 2 images)",
    )


def test_a_fault_says_where_what_and_what_to_do(tmp_path):
    fault = Fault("label", tmp_path / "train.csv", "received '2'", "Correct the cell.", 3, "bleed")
    assert str(fault) == f"{tmp_path}/train.csv, line 3, column bleed: received '2'. Correct the cell."
    assert str(Fault("image", tmp_path, "nothing", "Add it.")) == f"{tmp_path}: nothing. Add it."


def test_faults_of_all_kinds_and_splits_are_in_one_message(tmp_path):
    root = make(tmp_path, GAPS, "ID,bleed,calc\n../x,1,1\ny,0,\n", train="a.png b.png c.png lost.png", test="y.png")
    lines = message_of(root).splitlines()
    assert lines[0] == "5 faults:"
    for line, place in zip(
        lines[1:],
        (
            "test.csv, line 2, column ID: received '../x'",
            "train.csv, line 3, column patient: received a blank cell",
            "train.csv, line 5, column bleed: received '2'",
            "train.csv, line 2, column calc: received a blank cell",
            "test.csv, line 3, column calc: received a blank cell",
        ),
        strict=True,
    ):
        assert line.startswith(f"  {root}/{place}")
    assert images_message_of(root) == lines[1].strip()


def test_the_message_shows_ten_faults_and_counts_the_others(tmp_path):
    rows = "".join(f"i{number},{number}\n" for number in range(500))
    root = make(tmp_path / "my data", f"ID,a\n{rows}", train=" ".join(f"i{number}.png" for number in range(500)))
    lines = message_of(root, labels="a").splitlines()
    assert (len(lines), lines[0]) == (12, "498 faults:")
    assert "line 4, column a: received '2'" in lines[1]
    assert "line 13, column a: received '11'" in lines[10]
    assert lines[11] == f"  and 488 more: .venv/bin/python -m features describe '{root}' --labels a lists them all"


def test_all_rows_with_a_wrong_number_of_cells_are_named_at_once(tmp_path):
    make(tmp_path, "ID,a\nx,1\ny,0,2\nz\nw,1,3\n", train="x.png y.png z.png w.png")
    assert_says(message_of(tmp_path), "3 faults", "line 3: received 3", "line 4: received 1", "line 5: received 3")


def test_all_faults_of_a_folder_are_named_at_once(tmp_path):
    make(tmp_path, train="x.png x.jpg a\\b.png y.bmp y.tif")
    (tmp_path / "train" / "far.png").symlink_to("nowhere")
    message = message_of(tmp_path)
    assert_says(message, "4 faults", "same id, 'x'", "same id, 'y'", "backslash", "leads nowhere")


def test_two_names_that_occur_twice_are_named_at_once(tmp_path):
    make(tmp_path, "ID,a,a,b,b\nx,1,1,0,0\n", train="x.png")
    assert_says(message_of(tmp_path), "2 faults", "columns 2 and 3", "columns 4 and 5")


def test_a_file_of_groups_with_several_faults(tmp_path):
    root = make(tmp_path / "data", "ID,a\nx,1\ny,0\n", train="x.png y.png")
    path = tmp_path / "groups.csv"
    path.write_text("ID,group\nx,g\nx,h\ny,\n")
    dataset, faults = read_with_faults(root, DatasetOptions(groups=path))
    assert dataset.splits["train"].groups.tolist() == ["g", ""]
    assert [(fault.kind, fault.line) for fault in faults.kept] == [("id", 3), ("group", 4), ("group", None)]


def test_options_name_labels_and_groups(tmp_path):
    root = make(tmp_path / "data", GAPS, train="a.png b.png c.png lost.png")
    (tmp_path / "groups.csv").write_text("ID,group\na,g\nlost,g\n")
    dataset, _ = read_with_faults(root, DatasetOptions(labels="calc", groups=tmp_path / "groups.csv"))
    assert dataset.label_names == ("calc",)
    assert dataset.splits["train"].groups.tolist() == ["g", "", "g", ""]
    dataset, _ = read_with_faults(root, DatasetOptions(group_column="age"))
    assert dataset.splits["train"].groups.tolist() == ["40", "50", "60", "1"]


def test_a_test_split_with_some_labels_of_train(tmp_path):
    root = make(tmp_path, "ID,a,b\nx,1,0\n", "ID,b\nt,1\n", train="x.png", test="t.png")
    dataset, faults = read_with_faults(root)
    assert dataset.splits["test"].labels.tolist() == [[UNKNOWN, 1]]
    assert faults.count == 1


def test_a_test_split_whose_cells_are_blank_is_not_labelled(tmp_path):
    root = make(tmp_path, "ID,bleed\na,1\nb,0\n", "ID,bleed,new\ny,,1\nx,,0\n", train="a.png b.png", test="x.png y.png")
    dataset, faults = read_with_faults(root)
    assert (dataset.splits["test"].image_ids, dataset.splits["test"].labels) == (("y", "x"), None)
    assert faults.count == 0


def test_without_labels_in_train_those_of_test_are_read(tmp_path):
    root = make(tmp_path, "ID,age\na,40\n", "ID,bleed\nx,1\n", train="a.png", test="x.png")
    dataset, faults = read_with_faults(root)
    assert (dataset.label_names, dataset.splits["train"].labels) == (("bleed",), None)
    assert dataset.splits["test"].labels.tolist() == [[1]]
    assert [fault.kind for fault in faults.kept] == ["label"]


def test_the_long_format_with_a_row_missing_and_a_contradiction(tmp_path):
    rows = "ID_1_epidural,1\nID_1_any,1\nID_2_epidural,0\nID_1_any,0\n"
    dataset, faults = read_with_faults(make(tmp_path, "ID,Label\n" + rows, train="ID_1.png ID_2.png"))
    assert dataset.label_names == ("epidural", "any")
    assert dataset.splits["train"].labels.tolist() == [[1, 1], [0, UNKNOWN]]
    assert [fault.line for fault in faults.kept] == [5, None]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (DatasetOptions(labels="stroke"), "--labels names stroke, which"),
        (DatasetOptions(group_column="clinic"), "has no column 'clinic'. Its columns: ID, bleed"),
        (DatasetOptions(id_column="name"), "has no column 'name'"),
    ],
)
def test_options_that_name_nothing_are_refused(tmp_path, options, says):
    root = make(tmp_path, GAPS, train="a.png b.png c.png")
    with pytest.raises(InputError, match=says):
        read_with_faults(root, options)


def test_no_data_set(tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        read_with_faults(tmp_path)


def test_every_format_has_a_name():
    assert list(FORMATS) == ["long", "wide"]
