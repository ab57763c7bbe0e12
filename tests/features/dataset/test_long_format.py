"""The long format of RSNA 2019: one row for each image and label."""

import numpy as np
import pytest

from features.dataset.dataset import read_dataset, read_images
from features.options import DatasetOptions
from tests.features.dataset.written import assert_says, images_message_of, make, message_of

SUBTYPES = ("epidural", "subdural", "any")


def long_csv(labels: dict[str, str], subtypes: tuple[str, ...] = SUBTYPES) -> str:
    rows = [
        f"{name}_{subtype},{label}"
        for name, row in labels.items()
        for subtype, label in zip(subtypes, row, strict=True)
    ]
    return "\n".join(["ID,Label", *rows]) + "\n"


def test_long_format(tmp_path):
    make(tmp_path, long_csv({"ID_b": "010", "ID_a": "101"}), train="ID_a.png ID_b.png")
    dataset = read_dataset(tmp_path)
    assert dataset.label_names == SUBTYPES
    assert dataset.splits["train"].image_ids == ("ID_b", "ID_a")
    assert dataset.splits["train"].labels.tolist() == [[0, 1, 0], [1, 0, 1]]
    assert dataset.splits["train"].labels.dtype == np.uint8
    assert dataset.splits["train"].groups is None


def test_long_rows_may_come_in_any_order(tmp_path):
    rows = ["ID_a_any,1", "ID_b_epidural,1", "ID_a_epidural,0", "ID_b_any,0"]
    make(tmp_path, "\n".join(["ID,Label", *rows]), train="ID_a.png ID_b.png")
    dataset = read_dataset(tmp_path)
    assert dataset.label_names == ("any", "epidural")
    assert dataset.splits["train"].labels.tolist() == [[1, 0], [0, 1]]


def test_long_format_with_labels_asked_for(tmp_path):
    make(tmp_path, long_csv({"ID_b": "01x", "ID_a": "10x"}), train="ID_a.png ID_b.png")
    dataset = read_dataset(tmp_path, DatasetOptions(labels="subdural,epidural"))
    assert dataset.splits["train"].labels.tolist() == [[1, 0], [0, 1]]
    assert_says(message_of(tmp_path, labels="a"), "names a", "epidural, subdural, any")


def test_one_label_called_label_is_a_wide_file(tmp_path):
    make(tmp_path, "ID,Label\nx_1,1\nx_2,0\n", train="x_1.png x_2.png")
    dataset = read_dataset(tmp_path)
    assert dataset.label_names == ("Label",)
    assert dataset.splits["train"].image_ids == ("x_1", "x_2")


def test_an_image_of_the_whole_id_makes_the_file_wide(tmp_path):
    make(tmp_path, "ID,Label\nx,1\nx_1,0\n", train="x.png x_1.png")
    assert read_dataset(tmp_path).splits["train"].image_ids == ("x", "x_1")


def test_the_first_contradiction_in_the_file_is_named(tmp_path):
    repeats = "ID_b_any,0\n" * 200
    make(
        tmp_path,
        long_csv({"ID_a": "000", "ID_b": "000"}) + repeats + "ID_b_any,1\nID_a_any,1\n",
        train="ID_a.png ID_b.png",
    )
    assert_says(message_of(tmp_path), "line 208, column Label: received '1'. Line 7 has '0'", "(ID_b, any)")


def test_long_format_accepts_equal_duplicates_with_one_warning(tmp_path, caplog):
    csv = long_csv({"ID_a": "101"}) + "ID_a_any,1\nID_a_epidural,1.0\nID_a_any,1\n"
    make(tmp_path, csv, train="ID_a.png")
    assert read_dataset(tmp_path).splits["train"].labels.tolist() == [[1, 0, 1]]
    assert len(caplog.records) == 1
    assert_says(caplog.text, tmp_path / "train.csv", "3 row(s) repeat", "line 5")


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ("ID_a_subdural,1\n", ("line 5, column Label: received '1'", "Line 3 has '0'", "ID_a, subdural", "Remove")),
        ("ID_a_any,2\n", ("line 5, column Label: received '2'", "0 or 1")),
        ("ID_a_any,\n", ("line 5, column Label: received a blank cell",)),
        (
            "ID_b_any,1\n",
            ("2 faults", "1 of 2 ids have no row for epidural (first: 'ID_b' in line 5)", "subdural", "Add the rows"),
        ),
    ],
)
def test_errors_of_long_labels_stop_only_who_reads_labels(tmp_path, rows, parts):
    images = "ID_a.png ID_b.png" if "ID_b" in rows else "ID_a.png"
    make(tmp_path, long_csv({"ID_a": "101"}) + rows, train=images)
    assert_says(message_of(tmp_path), tmp_path / "train.csv", *parts)
    assert read_images(tmp_path)["train"][0] == tuple(name[:-4] for name in images.split())


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ("IDa,1\n", ("line 5, column ID: received 'IDa'", "ends in its label")),
        ("ID_a_,1\n", ("line 5, column ID: received 'ID_a_'", "ends in its label")),
        ("../x_any,1\n", ("line 5, column ID: received '../x'", "inside the data set")),
        ("ID_b_any,1\n", ("column ID: 1 of 2 ids have no image", "'ID_b' in line 5")),
    ],
)
def test_errors_of_long_ids(tmp_path, rows, parts):
    make(tmp_path, long_csv({"ID_a": "101"}) + rows, train="ID_a.png")
    for message in (message_of(tmp_path), images_message_of(tmp_path)):
        assert_says(message, tmp_path / "train.csv", *parts)


def test_long_format_without_any_of_its_images_is_still_known(tmp_path):
    make(tmp_path, long_csv({"ID_a": "101", "ID_b": "000"}), train="x.png")
    assert_says(message_of(tmp_path), "2 of 2 ids have no image", "'ID_a' in line 2, 'ID_b' in line 5")


def test_a_sample_submission_in_long_format_gives_ids_only(tmp_path):
    sample = "\n".join(["ID,Label", *(f"ID_t_{name},0.5" for name in SUBTYPES)])
    make(tmp_path, long_csv({"ID_a": "101"}), sample, train="ID_a.png", test="ID_t.png")
    dataset = read_dataset(tmp_path)
    assert dataset.splits["test"].image_ids == ("ID_t",)
    assert dataset.splits["test"].labels is None
    assert dataset.label_names == SUBTYPES


def test_a_long_train_csv_without_labels(tmp_path):
    make(tmp_path, "ID,Label\nID_a_any,0.5\n", train="ID_a.png")
    assert_says(message_of(tmp_path), "no label column", "any (line 2: '0.5')")


def test_a_long_test_csv_goes_with_a_wide_train_csv(tmp_path):
    make(tmp_path, "ID,epidural,any\nx,1,1\n", "ID,Label\nt_epidural,0\nt_any,1\n", train="x.png", test="t.png")
    assert read_dataset(tmp_path).splits["test"].labels.tolist() == [[0, 1]]


def test_a_row_that_says_something_goes_before_a_blank_one(tmp_path):
    rows = "ID_b_epidural,\n" + long_csv({"ID_a": "000", "ID_b": "111"}).partition("\n")[2]
    make(tmp_path, "ID,Label\n" + rows, train="ID_a.png ID_b.png")
    dataset = read_dataset(tmp_path, DatasetOptions(unknown="mask"))
    labels = dict(zip(dataset.splits["train"].image_ids, dataset.splits["train"].labels.tolist(), strict=True))
    assert labels == {"ID_a": [0, 0, 0], "ID_b": [1, 1, 1]}
