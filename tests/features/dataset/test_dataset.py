"""What the data-set reader reads: ids, paths, labels and groups, and which column is what."""

from pathlib import Path

import numpy as np
import pytest

from features.common.errors import InputError
from features.dataset.dataset import read_dataset, read_images
from features.dataset.folder import IMAGE_SUFFIXES
from features.options import DatasetOptions, ImageOptions
from tests.features.dataset.written import assert_says, images_message_of, make, message_of

# What is read


def test_wide_file_gives_ids_paths_labels_and_groups_in_its_order(tmp_path):
    make(tmp_path, "ID,b,a,patient\nz,1,0,p2\na,0,1,p1\n", train="a.png z.jpg", test="t2.png t1.bmp")
    dataset = read_dataset(tmp_path)
    assert dataset.root == tmp_path
    assert dataset.label_names == ("b", "a")
    assert list(dataset.splits) == ["train", "test"]
    train, test = dataset.splits.values()
    assert train.name == "train"
    assert train.image_ids == ("z", "a")
    assert train.paths == (tmp_path / "train/z.jpg", tmp_path / "train/a.png")
    assert train.labels is not None
    assert train.labels.dtype == np.uint8
    assert train.labels.tolist() == [[1, 0], [0, 1]]
    assert train.groups is not None
    assert train.groups.dtype.kind == "U"
    assert train.groups.tolist() == ["p2", "p1"]
    assert (test.name, test.image_ids, test.labels, test.groups) == ("test", ("t1", "t2"), None, None)


def test_splits_without_csv_are_sorted_and_unlabelled(tmp_path):
    make(tmp_path, train="b.png a.png sub/c.png")
    dataset = read_dataset(tmp_path)
    assert dataset.label_names == ()
    assert list(dataset.splits) == ["train"]
    assert dataset.splits["train"].image_ids == ("a", "b", "sub/c")
    assert dataset.splits["train"].labels is None
    assert read_images(tmp_path) == {"train": (("a", "b", "sub/c"), dataset.splits["train"].paths)}


def test_only_a_test_folder_is_a_data_set(tmp_path):
    make(tmp_path, test="b.png a.png")
    assert list(read_dataset(tmp_path).splits) == ["test"]
    assert read_images(tmp_path)["test"][0] == ("a", "b")


def test_every_image_suffix_is_read_in_either_case(tmp_path):
    names = [f"i{k}{suffix}" for k, suffix in enumerate(IMAGE_SUFFIXES)] + ["I.PNG", "J.JpEg"]
    make(tmp_path, train=" ".join(names) + " notes.txt noextension .hidden.png ._x.png .git/y.png")
    ids, paths = read_images(tmp_path)["train"]
    assert {path.name for path in paths} == set(names)
    assert ids == tuple(sorted(name.rpartition(".")[0] for name in names))


def test_labels_accept_four_spellings_and_blanks_around(tmp_path):
    make(tmp_path, 'ID, a ,"b"\n x , 1 ,0.0\n y ,1.0, "0" \n', train="x.png y.png")
    dataset = read_dataset(tmp_path)
    assert dataset.label_names == ("a", "b")
    assert dataset.splits["train"].image_ids == ("x", "y")
    assert dataset.splits["train"].labels.tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize("index", ["", "Unnamed: 0", " ", "Unnamed: 0.1"])
def test_an_unnamed_index_column_is_ignored(tmp_path, index, caplog):
    make(tmp_path, f"{index},ID,a\n0,x,1\n1,y,0\n", train="x.png y.png")  # the index itself holds 0 and 1
    dataset = read_dataset(tmp_path)
    assert dataset.label_names == ("a",)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("cell", "file"),
    [
        ("x.png", "x.png"),
        ("x.PNG", "x.jpg"),
        ("x.dcm", "x.png"),
        ("./s//x", "s/x.png"),
        ("s/x.tif", "s/x.tif"),
        ("1.2.840", "1.2.840.png"),
    ],
)
def test_an_id_may_carry_an_extension_and_folders(tmp_path, cell, file):
    make(tmp_path, f"ID,a\n{cell},1\n", train=file)
    assert read_dataset(tmp_path).splits["train"].image_ids == (file.rpartition(".")[0],)


def test_byte_order_mark_and_line_ends_do_not_matter(tmp_path):
    for number, end in enumerate(("\n", "\r\n", "\r")):
        content = b"\xef\xbb\xbf" + end.join(["ID,a", "", "x,1", "é,0"]).encode()
        root = make(tmp_path / str(number), content, train="x.png é.png")
        train = read_dataset(root).splits["train"]
        assert (train.image_ids, train.labels.tolist()) == (("x", "é"), [[1], [0]])


# Which column is what


@pytest.mark.parametrize("header", ["id,a", "Id,a"])
def test_the_id_column_may_be_written_in_another_case(tmp_path, header):
    make(tmp_path, f"{header}\nx,1\n", train="x.png")
    assert read_dataset(tmp_path).splits["train"].image_ids == ("x",)


def test_exact_id_goes_before_another_case(tmp_path):
    make(tmp_path, "id,ID,a\ny,x,1\n", train="x.png")
    assert read_dataset(tmp_path).splits["train"].image_ids == ("x",)


def test_two_columns_that_name_the_images_differently_are_ambiguous(tmp_path):
    make(tmp_path, "id,Id,a\nx,y,1\ny,x,0\n", train="x.png y.png")
    message = message_of(tmp_path)
    assert_says(message, tmp_path / "train.csv", "'id' names train/x, 'Id' names train/y", "line 2", "--id-column")
    make(tmp_path, "id,Id,a\nx,x,1\ny,,0\n")
    assert read_dataset(tmp_path).splits["train"].image_ids == ("x", "y")


def test_cells_with_an_extension_win_and_that_is_said(tmp_path):
    make(tmp_path, "row,patient,image,a\n0,1,1.png,1\n1,1,0.png,0\n2,0,2.png,0\n", train="0.png 1.png 2.png")
    dataset = read_dataset(tmp_path)
    assert dataset.splits["train"].image_ids == ("1", "0", "2")
    assert dataset.splits["train"].groups.tolist() == ["1", "1", "0"]
    assert_says(dataset.understood[-1], "id: 'image'", "'row' names other images", "labels: 1: a", "groups: 'patient'")


def test_without_id_the_first_column_that_names_the_images_is_taken(tmp_path):
    make(tmp_path, "site,file,copy,a\nq,x.png,x,1\nq,y.png,y,0\n", train="x.png y.png")
    dataset = read_dataset(tmp_path)
    assert dataset.splits["train"].image_ids == ("x", "y")
    assert dataset.label_names == ("a",)


def test_a_column_that_names_most_images_is_the_id_column_and_the_rest_is_missing(tmp_path):
    make(tmp_path, "file,a\nx,1\ny,0\nz,0\n", train="x.png y.png")
    assert_says(message_of(tmp_path), "column file: 1 of 3 ids have no image", "'z' in line 4", "Add the images")


def test_no_id_column(tmp_path):
    make(tmp_path, "site,a\nq,1\n", train="x.png")
    assert_says(message_of(tmp_path), tmp_path / "train.csv", "no id column", "'x'", "site, a", "--id-column")


def test_id_column_asked_for(tmp_path):
    make(tmp_path, "ID,file,a\n7,x,1\n", train="x.png")
    assert read_dataset(tmp_path, DatasetOptions(id_column="file")).splits["train"].image_ids == ("x",)
    assert read_images(tmp_path, ImageOptions(id_column="file"))["train"][0] == ("x",)
    for message in (message_of(tmp_path, id_column="slice"), images_message_of(tmp_path, "slice")):
        assert_says(message, tmp_path / "train.csv", "no column 'slice'", "ID, file, a", "--id-column")


def test_other_columns_are_ignored_and_that_is_said(tmp_path, caplog):
    make(tmp_path, "ID,age,a,sex,\nx,63,1,m,q\ny,71,0,f,q\n", train="x.png y.png")
    assert read_dataset(tmp_path).label_names == ("a",)
    assert caplog.records == []
    assert f"{tmp_path / 'train.csv'}: not labels: age, sex, column 5 (no name)" in read_dataset(tmp_path).understood


def test_a_comma_at_the_end_of_each_line_is_not_worth_a_warning(tmp_path, caplog):
    make(tmp_path, "ID,a,\nx,1,\n", train="x.png")
    assert read_dataset(tmp_path).label_names == ("a",)
    assert caplog.records == []


def test_labels_asked_for_are_read_in_that_order(tmp_path, caplog):
    make(tmp_path, "ID,a,b,c\nx,1,0,1\ny,0,0,7\n", train="x.png y.png")
    dataset = read_dataset(tmp_path, DatasetOptions(labels="b,a"))
    assert dataset.label_names == ("b", "a")
    assert dataset.splits["train"].labels.tolist() == [[0, 1], [0, 0]]
    assert caplog.records == []
    assert_says(message_of(tmp_path, labels="c"), "train.csv, line 3, column c", "'7'", "0 or 1")


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        ("a,z", ("--labels names z", "does not have", "groups: a, b")),
        ("ID", ("--labels names ID",)),
        ("patient", ("--labels names patient",)),
    ],
)
def test_labels_asked_for_in_vain(tmp_path, labels, parts):
    make(tmp_path, "ID,a,b,patient\nx,1,0,1\n", train="x.png")
    assert_says(message_of(tmp_path, labels=labels), *parts)


def test_group_column_asked_for(tmp_path):
    make(tmp_path, "ID,a,scan\nx,1,s1\n", "ID,a\nt,1\n", train="x.png", test="t.png")
    splits = read_dataset(tmp_path, DatasetOptions(group_column="scan")).splits
    assert splits["train"].groups.tolist() == ["s1"]
    assert splits["test"].groups is None
    message = message_of(tmp_path, group_column="site")
    assert_says(message, "train.csv has no column 'site'", "ID, a, scan", "--group-column")


def test_columns_to_split_by_are_cells_by_image_and_no_labels_unless_named(tmp_path, caplog):
    make(tmp_path, "ID,a,sex,site\nx,1,0,n\ny,0,1,\n", "ID,a,site\nt,1,s\n", train="x.png y.png", test="t.png")
    dataset = read_dataset(tmp_path, DatasetOptions(), ("sex", "site"))
    assert dataset.label_names == ("a",)
    train, test = dataset.splits["train"].columns, dataset.splits["test"].columns
    assert {name: cells.tolist() for name, cells in train.items()} == {"sex": ["0", "1"], "site": ["n", ""]}
    assert {name: cells.tolist() for name, cells in test.items()} == {"site": ["s"]}
    assert "sex holds 0 and 1, but is named to split the images by, so it is not a label" in caplog.text
    (tmp_path / "test.csv").write_text("ID\nt\n")
    assert read_dataset(tmp_path, DatasetOptions(labels="a,sex"), ("sex",)).label_names == ("a", "sex")
    with pytest.raises(InputError, match=r"train\.csv has no column 'age' to split the images by\. Its columns: ID, a"):
        read_dataset(tmp_path, DatasetOptions(), ("age",))


def test_blank_group(tmp_path):
    make(tmp_path, "ID,a,patient\nx,1,p\ny,0, \n", train="x.png y.png")
    assert_says(message_of(tmp_path), "train.csv, line 3, column patient: received a blank cell", "--group-column")


@pytest.mark.parametrize("option", [{"id_column": "a"}, {"group_column": "a"}, {"split_column": "a"}])
def test_columns_named_without_any_csv(tmp_path, option):
    make(tmp_path, train="x.png")
    assert_says(message_of(tmp_path, **option), "--" + next(iter(option)).replace("_", "-"), tmp_path, "no train.csv")


def test_id_column_named_without_any_csv_for_images(tmp_path):
    make(tmp_path, test="x.png")
    assert_says(images_message_of(tmp_path, "a"), "--id-column", tmp_path, "no train.csv")


# test.csv


TRAIN = "ID,a,b,fold\nx,1,0,3\n"


def make_both(root: Path, test_csv: str) -> Path:
    return make(root, TRAIN, test_csv, train="x.png", test="t.png u.png")


def test_test_csv_gives_order_labels_and_groups(tmp_path):
    test = read_dataset(make_both(tmp_path, "ID,a,b,patient\nu,0,1,p1\nt,1,1,p2\n")).splits["test"]
    assert test.image_ids == ("u", "t")
    assert test.labels.tolist() == [[0, 1], [1, 1]]
    assert test.groups.tolist() == ["p1", "p2"]


@pytest.mark.parametrize(
    "test_csv",
    ["ID\nu\nt\n", "ID,c\nu,1\nt,0\n", "ID,age\nu,63\nt,71\n", "ID,a,b\nu,0.5,0.5\nt,0.5,0.5\n", "ID,a,b\nu,,\nt,,\n"],
)
def test_test_csv_without_the_labels_of_train_gives_ids_only(tmp_path, test_csv):
    dataset = read_dataset(make_both(tmp_path, test_csv))
    assert dataset.label_names == ("a", "b")
    assert dataset.splits["test"].image_ids == ("u", "t")
    assert dataset.splits["test"].labels is None


@pytest.mark.parametrize(
    ("test_csv", "names"),
    [("ID,a\nu,0\nt,1\n", "a"), ("ID,a,b,c\nu,0,1,1\nt,1,1,0\n", "a, b, c")],
)
def test_test_csv_with_other_labels_than_train(tmp_path, test_csv, names):
    message = message_of(make_both(tmp_path, test_csv))
    assert_says(message, f"{tmp_path / 'test.csv'}: received the labels {names}, but {tmp_path / 'train.csv'} has a, b")
    assert_says(message, "Give both the same label columns")


def test_label_columns_are_joined_by_name_whatever_their_order(tmp_path):
    dataset = read_dataset(make_both(tmp_path, "ID,b,a\nu,0,1\nt,1,1\n"))
    assert (dataset.label_names, dataset.splits["test"].labels.tolist()) == (("a", "b"), [[1, 0], [1, 1]])


def test_a_column_that_is_no_label_in_train_is_none_in_test(tmp_path):
    dataset = read_dataset(make_both(tmp_path, "ID,a,b,fold\nu,0,1,0\nt,1,1,0\n"))
    assert dataset.splits["test"].labels.tolist() == [[0, 1], [1, 1]]


def test_labels_asked_for_are_joined_by_name(tmp_path):
    make_both(tmp_path, "ID,b,c,a\nu,0,1,1\nt,0,1,1\n")
    dataset = read_dataset(tmp_path, DatasetOptions(labels="a,b"))
    assert dataset.splits["test"].labels.tolist() == [[1, 0], [1, 0]]


def test_a_bad_label_in_test_csv(tmp_path):
    make_both(tmp_path, "ID,a,b\nu,0,1\nt,1,\n")
    assert_says(message_of(tmp_path), "test.csv, line 3, column b: received a blank cell", "--unknown mask")


def test_test_csv_alone_may_give_the_labels(tmp_path):
    make(tmp_path, None, "ID,a\nt,1\n", train="x.png", test="t.png")
    dataset = read_dataset(tmp_path)
    assert dataset.label_names == ("a",)
    assert dataset.splits["train"].labels is None
    assert dataset.splits["test"].labels.tolist() == [[1]]


def test_images_without_a_row_are_predicted_left_out_or_refused(tmp_path, caplog):
    make(tmp_path, "ID,a,patient\nx,1,p\n", "ID\nt\n", train="x.png y.png", test="t.png u.png")
    dataset = read_dataset(tmp_path)
    train, test = dataset.splits.values()
    assert (train.image_ids, train.stored.tolist()) == (("x",), ["train"])
    assert (test.image_ids, test.stored.tolist()) == (("t", "y", "u"), ["test", "train", "test"])
    assert (test.without_row, test.labels, test.groups) == (("y", "u"), None, None)
    assert read_images(tmp_path)["train"][0] == ("x", "y")
    assert_says(caplog.text, "2 of 4 images", "y.png", "predicted", "--unlabelled ignore")
    caplog.clear()
    ignored = DatasetOptions(unlabelled="ignore")
    assert read_dataset(tmp_path, ignored).splits["test"].image_ids == ("t",)
    assert read_images(tmp_path, ignored)["train"][0] == ("x",)
    assert_says(caplog.text, "they are left out")
    assert_says(message_of(tmp_path, unlabelled="error"), "2 of 4 images have no row in train.csv, test.csv", "y.png")


def test_an_image_without_a_row_is_a_group_of_its_own(tmp_path):
    make(tmp_path, None, "ID,patient\nt,p\nu,p\n", test="t.png u.png v.png w.png")
    assert read_dataset(tmp_path).splits["test"].groups.tolist() == ["p", "p", "v", "w"]


def test_rows_without_an_image_may_be_skipped(tmp_path, caplog):
    make(tmp_path, "ID,a\nx,1\nlost,1\ny,0\n", train="x.png y.png")
    dataset = read_dataset(tmp_path, DatasetOptions(missing="skip"))
    assert dataset.splits["train"].image_ids == ("x", "y")
    assert dataset.splits["train"].labels.tolist() == [[1], [0]]
    assert dataset.splits["train"].without_image == ("lost",)
    assert_says(caplog.text, "1 of 3 ids have no image", "'lost' in line 3", "skipped")


def test_ids_of_test_csv_need_images(tmp_path):
    make(tmp_path, None, "ID\nt\nu\n", test="t.png")
    assert_says(message_of(tmp_path), "test.csv, column ID: 1 of 2 ids have no image", "'u' in line 3")
