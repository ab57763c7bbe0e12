"""Folders and tables by the names that people give them, and what each image is for."""

from pathlib import Path

import pytest

from features.common.errors import InputError
from features.dataset.dataset import read_dataset, read_images
from features.dataset.layout import split_word
from features.options import DatasetOptions
from tests.features.dataset.written import assert_says, make, message_of


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("TRAIN", "train"),
        ("stage_2_train", "train"),
        ("ISIC_2019_Training_Input", "train"),
        ("trainLabels", "train"),
        ("test-images", "test"),
        ("valid", "val"),
        ("Validation", "val"),
        ("train_masks", None),
        ("images", None),
        ("constrained", None),
        ("train_test", None),
    ],
)
def test_what_a_name_says(name, split):
    assert split_word(name) == split


def test_val_is_test_where_there_is_no_other_and_train_where_there_is(tmp_path):
    make(tmp_path / "two", train="x.png", valid="x.png")
    make(tmp_path / "three", train="c/x.png c/w.png d/x.png d/w.png", val="c/x.png d/y.png", test="z.png")
    dataset = read_dataset(tmp_path / "two")
    assert {name: split.image_ids for name, split in dataset.splits.items()} == {"train": ("x",), "test": ("x",)}
    assert_says(dataset.understood[0], "two/valid: taken for the test images")
    dataset = read_dataset(tmp_path / "three")
    train, test = dataset.splits.values()
    assert train.image_ids == ("c/w", "c/x", "d/w", "d/x", "val/c/x", "val/d/y")
    assert train.labels.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [1, 0], [0, 1]]
    assert test.image_ids == ("z",)
    assert_says(dataset.understood[0], "val: learnt from together with train")


def test_each_split_has_its_own_ids_and_tables(tmp_path):
    make(tmp_path, "ID,a\nx,1\n", "ID,a\nx,0\nt,1\n", train="x.png", test="x.png t.png", val="x.png")
    (tmp_path / "val.csv").write_text("ID,a\nx,0\n")
    train, test = read_dataset(tmp_path).splits.values()
    assert (train.image_ids, train.labels.tolist()) == (("x", "val/x"), [[1], [0]])
    assert (test.image_ids, test.labels.tolist()) == (("x", "t"), [[0], [1]])


def test_a_pool_of_images_with_one_table_and_a_column_of_splits(tmp_path):
    make(tmp_path, images="x.png y.png z.png")
    (tmp_path / "labels.csv").write_text("file,a,Split\nx.png,1,train\ny.png,0,TEST\nz.png,0,train\n")
    dataset = read_dataset(tmp_path)
    train, test = dataset.splits.values()
    assert (train.image_ids, train.labels.tolist(), train.stored.tolist()) == (("x", "z"), [[1], [0]], ["train"] * 2)
    assert (test.image_ids, test.labels.tolist(), test.stored.tolist()) == (("y",), [[0]], ["train"])
    assert_says(dataset.understood[-1], "splits: 'Split' (train 2, test 1)")
    assert list(read_images(tmp_path)) == ["train"]
    (tmp_path / "labels.csv").write_text("file,a,use\nx.png,1,train\ny.png,0,later\nz.png,0,train\n")
    message = message_of(tmp_path, split_column="use")
    assert_says(message, "line 3, column use: received 'later'. Write one of train")
    assert_says(message_of(tmp_path, split_column="set"), "no column 'set'", "file, a, use", "--split-column")


def test_tables_of_splits_over_one_pool(tmp_path):
    make(tmp_path, "ID,a\nx,1\ny,0\n", "ID\nz\n", jpg="x.png y.png z.png w.png")
    train, test = read_dataset(tmp_path).splits.values()
    assert (train.image_ids, test.image_ids) == (("x", "y"), ("z", "w"))
    make(tmp_path, None, "ID\ny\n")
    assert_says(message_of(tmp_path), "test.csv, line 2: 'jpg/y' is also in another table", "Keep it in one")


def test_one_id_of_two_images_that_a_column_brings_together_is_refused(tmp_path):
    make(tmp_path, train="x.png", test="x.png y.png")
    (tmp_path / "labels.csv").write_text("file,a,split\ntrain/x.png,1,test\ntest/x.png,0,test\ntest/y.png,0,train\n")
    assert_says(message_of(tmp_path), "train/x and test/x have the same id")


def test_a_wrapping_folder_is_looked_into(tmp_path):
    make(tmp_path / "CheXpert-v1.0", train="p/x.png", valid="p/y.png")
    (tmp_path / "CheXpert-v1.0" / "train.csv").write_text("Path,a\nCheXpert-v1.0/train/p/x.png,1\n")
    train, test = read_dataset(tmp_path).splits.values()
    assert (train.image_ids, train.labels.tolist(), test.image_ids) == (("p/x",), [[1]], ("p/y",))


def test_what_may_be_two_things_is_refused(tmp_path):
    make(tmp_path / "a", train_images="x.png", my_training="y.png")
    assert_says(message_of(tmp_path / "a"), "my_training, train_images may hold the train images", "Rename")
    make(tmp_path / "b", images="x.png")
    (tmp_path / "b" / "one.csv").write_text("ID,a\nx,1\n")
    (tmp_path / "b" / "two.csv").write_text("ID,b\nx,0\n")
    assert_says(message_of(tmp_path / "b"), "each of the tables one.csv, two.csv", "--table")
    assert read_dataset(tmp_path / "b", DatasetOptions(table=Path("two.csv"))).label_names == ("b",)
    assert read_dataset(tmp_path / "b", DatasetOptions(table=tmp_path / "b" / "one.csv")).label_names == ("a",)
    (tmp_path / "b" / "two.csv").rename(tmp_path / "b" / "metadata.csv")
    assert read_dataset(tmp_path / "b").label_names == ("a",)


def test_a_sample_submission_names_test_images_and_is_no_label(tmp_path, caplog):
    make(tmp_path, "id,cat,dog\nx,1,0\ny,0,1\n", train="x.png y.png", test="u.png t.png")
    (tmp_path / "sample_submission.csv").write_text("id,cat,dog\nt,0,0\nu,0,0\n")
    test = read_dataset(tmp_path).splits["test"]
    assert (test.image_ids, test.labels) == (("t", "u"), None)
    assert_says(caplog.text, "every label is 0, as in a sample submission")


def test_what_systems_leave_behind_is_passed_over_and_unread_images_are_named(tmp_path, caplog):
    make(
        tmp_path,
        train="x.png @eaDir/x.png __MACOSX/x.png ._x.png .DS_Store Thumbs.db DICOMDIR y.svg z.SVG w.tga notes.md",
    )
    assert read_images(tmp_path)["train"][0] == ("x",)
    assert_says(caplog.text, "3 files with an image's ending are not read (.svg 2, .tga 1; first:", "w.tga")


def test_a_dicom_file_needs_no_ending(tmp_path):
    make(tmp_path, train="x.png 1.2.840.113 IM0001 README")
    for name in ("1.2.840.113", "IM0001"):
        (tmp_path / "train" / name).write_bytes(b"\0" * 128 + b"DICM")
    assert read_images(tmp_path)["train"][0] == ("1.2.840.113", "IM0001", "x")


def test_a_folder_without_any_image_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no image\. Put images there \(\.png"):
        read_dataset(tmp_path)


def test_two_images_of_one_id_among_those_learnt_from_are_refused(tmp_path):
    make(tmp_path, train="valid/1.png other/2.png", valid="1.png", test="3.png")
    assert_says(message_of(tmp_path), "train/valid/1 and valid/1 have the same id ('valid/1')", "Rename")


def test_a_split_column_with_an_unknown_word_is_refused(tmp_path):
    make(tmp_path, images="a.png b.png c.png d.png")
    (tmp_path / "data.csv").write_text("ID,e,split\na,1,train\nb,0,train\nc,1,test\nd,0,\n")
    assert_says(message_of(tmp_path), "line 5, column split: received a blank cell. Write one of train")


def test_the_name_of_the_root_does_not_matter(tmp_path):
    for name in ("data", "testing", "train"):
        (tmp_path / name).mkdir()
        root = make(tmp_path / name, "ID,a\nx,1\ny,0\n", "ID,a\nz,1\n")
        for image in "xyz":
            (root / f"{image}.png").touch()
        train, test = read_dataset(root).splits.values()
        assert (train.image_ids, test.image_ids, test.labels.tolist()) == (("x", "y"), ("z",), [[1]])


def test_folders_that_are_not_chosen_are_named(tmp_path, caplog):
    make(tmp_path, train="x.png", Train="y.png", train_extra="z.png")
    assert read_images(tmp_path)["train"][0] == ("x",)
    assert_says(caplog.text, "train images are those of train, not of Train, train_extra")


def test_what_is_not_read_is_named(tmp_path, caplog):
    make(tmp_path, train="a.png b.png", masks="a.png", notes="x.txt", test="t.png")
    (tmp_path / "stray.png").touch()
    (tmp_path / "annotations.json").touch()
    (tmp_path / "groups.csv").write_text("ID,group\na,p\nb,q\n")
    (tmp_path / "train.csv").write_text("ID,x\na,1\nb,0\n")
    said = " ".join(read_dataset(tmp_path).understood)
    assert_says(
        said, "in no folder of a split: masks, stray.png", "tables that are not read: groups.csv, annotations.json"
    )
    assert not caplog.records
    make(tmp_path / "classes", cat="1.png 2.png", dog="1.png 2.png", test="t.png")
    assert list(read_dataset(tmp_path / "classes").splits) == ["test"]
    assert_says(caplog.text, "images that are not read, as they are in no folder of a split: cat, dog")


def test_folders_of_patients_are_no_classes(tmp_path):
    make(tmp_path, train=" ".join(f"patient{k // 2}/{k}.png" for k in range(8)))
    dataset = read_dataset(tmp_path)
    assert (dataset.label_names, len({*dataset.splits["train"].groups.tolist()})) == ((), 4)


def test_images_for_validation_need_labels_where_they_are_learnt_from(tmp_path):
    make(tmp_path, "ID,a,patient\nx,1,p\ny,0,q\n", None, train="x.png y.png", valid="v.png", test="t.png")
    assert_says(message_of(tmp_path), "valid", "its 1 images are to learn from, but have no labels", "valid.csv")
    (tmp_path / "valid.csv").write_text("ID,a\nv,1\n")
    train = read_dataset(tmp_path).splits["train"]
    assert (train.image_ids, train.groups.tolist()) == (("x", "y", "valid/v"), ["p", "q", "valid/v"])


def test_val_in_a_column_is_learnt_from_where_a_folder_holds_the_test_images(tmp_path):
    rows = "".join(
        f"{name},{label},{split}\n" for name, label, split in zip("abcd", "0101", ["train", "val"] * 2, strict=True)
    )
    make(tmp_path, f"ID,x,split\n{rows}", train="a.png b.png c.png d.png", test="t.png")
    splits = read_dataset(tmp_path).splits
    assert (splits["train"].image_ids, splits["test"].image_ids) == (tuple("abcd"), ("t",))
    (tmp_path / "train.csv").rename(tmp_path / "labels.csv")
    splits = read_dataset(tmp_path, DatasetOptions(unlabelled="ignore")).splits
    assert (splits["train"].image_ids, splits["test"].image_ids) == (("a", "c"), ("b", "d"))
    (tmp_path / "labels.csv").rename(tmp_path / "train.csv")
    (tmp_path / "test/t.png").unlink()
    (tmp_path / "test").rmdir()
    splits = read_dataset(tmp_path).splits
    assert (splits["train"].image_ids, splits["test"].image_ids) == (("a", "c"), ("b", "d"))
