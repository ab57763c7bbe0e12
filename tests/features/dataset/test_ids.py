"""How the rows of a table are joined with images, whatever a spreadsheet or a script made of their names."""

import datetime
import unicodedata

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.common.errors import InputError
from features.dataset.dataset import read_dataset
from features.dataset.faults import Faults
from features.dataset.ids import NO_IMAGE, Pool, find_ids
from features.dataset.table import Table, read_table
from features.options import DatasetOptions
from tests.features.dataset.written import assert_says, make, message_of


def table_of(tmp_path, **columns):
    count = len(next(iter(columns.values())))
    return Table(tmp_path / "t.csv", tuple(columns), tuple(map(list, columns.values())), range(2, count + 2))


def joined(tmp_path, places, cells):
    """Join cells with images: the indices, and how."""
    pool = Pool([place.removeprefix("train/") for place in places], places)
    found = find_ids(table_of(tmp_path, name=cells, a=["0"] * len(cells)), pool, None)
    return found.images.tolist(), found.how


@pytest.mark.parametrize(
    ("places", "cells", "how"),
    [
        (["train/a1", "train/b2"], ["a1", "b2.png"], ""),
        (["train/a1", "train/b2"], ["train/a1", "train/b2.dcm"], "paths begin in the folder"),
        (
            ["train/p/a1", "train/q/a1"],
            ["Big-v1.0/train/p/a1.jpg", "Big-v1.0/train/q/a1.jpg"],
            "by the last 3 parts of paths",
        ),
        (["train/a1", "train/b2"], ["C:\\data\\a1.png", "C:\\data\\b2.png"], "by the file's name alone"),
        (["i_1/images/a1", "i_2/images/b2"], ["a1.png", "b2.png"], "by the file's name alone"),
        (["train/a1", "train/b2"], ["A1", "B2"], "ignoring case"),
        (["train/é1", "train/b2"], ["É1", "B2"], "ignoring case"),
        (["train/0007", "train/0012"], ["7", "12"], "ignoring leading zeros and .0"),
        (["train/7", "train/12"], ["7.0", "12.0"], "ignoring leading zeros and .0"),
    ],
)
def test_what_ids_may_have_lost(tmp_path, places, cells, how):
    images, said = joined(tmp_path, places, cells)
    assert images == [0, 1]
    assert how in said


def test_a_rewriting_never_joins_what_it_cannot_tell_apart(tmp_path):
    images, _ = joined(tmp_path, ["train/p/x", "train/q/x", "train/r/y", "train/r/z"], ["x", "y", "z"])
    assert images == [NO_IMAGE, 2, 3]
    images, _ = joined(tmp_path, ["train/1", "train/01", "train/2", "train/3"], ["1.0", "2.0", "3.0"])
    assert images == [NO_IMAGE, 2, 3]


def test_ids_that_a_spreadsheet_rounded_are_lost(tmp_path):
    make(tmp_path, "ID,a\n1.00E+12,1\n1.00E+12,0\n", train="1000000000001.png 1000000000002.png")
    assert_says(message_of(tmp_path), "a spreadsheet has rounded the ids to '1.00E+12'", "with the ids as text")


@pytest.mark.parametrize("folds", [2, 3, 4, 5])
def test_numbers_of_folds_are_neither_ids_nor_labels(tmp_path, folds):
    rows = "".join(f"{k},{k % folds},{k // 2 % 2}\n" for k in range(10))
    make(tmp_path, f"ID,fold,a\n{rows}", train=" ".join(f"{k}.png" for k in range(10)))
    dataset = read_dataset(tmp_path)
    assert (dataset.label_names, dataset.splits["train"].image_ids) == (("a",), tuple(str(k) for k in range(10)))


def test_a_patient_number_in_front_is_not_the_id(tmp_path):
    rows = "".join(f"{k // 2},{(k * 5) % 12}.png,{k % 2}\n" for k in range(12))
    make(tmp_path, f"patient,image,a\n{rows}", train=" ".join(f"{k}.png" for k in range(12)))
    train = read_dataset(tmp_path).splits["train"]
    assert train.image_ids == tuple(str((k * 5) % 12) for k in range(12))
    assert train.groups.tolist() == [str(k // 2) for k in range(12)]


def test_with_few_images_at_hand_the_best_candidate_is_named(tmp_path):
    rows = "".join(f"s{k},i{k},{k % 2}\n" for k in range(9))
    make(tmp_path, f"site,name,a\n{rows}", train="i3.png")
    assert_says(message_of(tmp_path), "column name: 8 of 9 ids have no image", "such as 'train/i3'", "--missing skip")


def test_rows_that_differ_are_never_to_be_removed(tmp_path):
    make(tmp_path, "name,a\nx,1\nx,0\ny,1\ny,1\n", train="x.png y.png")
    message = message_of(tmp_path)
    assert_says(message, "Line 2 has the same id ('train/x'), and other cells. Correct the wrong one")
    assert_says(message, "Line 4 has the same id ('train/y'). Remove one of the two rows")


# Tables as spreadsheets leave them


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.text("abcé ", max_size=5).map(str.strip), min_size=2, max_size=2), min_size=1, max_size=6),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "sep=", "# a comment"]),
)
def test_any_dialect_and_encoding_reads_the_same(tmp_path_factory, rows, separator, encoding, end, first):
    rows = [[f"x{place}", *row] for place, row in enumerate(rows)]
    lines = [separator.join(row) for row in [["ID", "é", "b"], *rows]]
    before = [first + separator] if first == "sep=" else [first] if first else []
    path = tmp_path_factory.mktemp("table") / "t.csv"
    path.write_bytes(end.join([*before, *lines]).encode(encoding))
    faults = Faults()
    table = read_table(path, faults)
    assert (table.header, faults.count) == (("ID", "é", "b"), 0)
    assert [list(row) for row in zip(*table.columns, strict=True)] == rows
    assert list(table.lines) == [len(before) + 2 + place for place in range(len(rows))]


def test_a_workbook_and_a_compressed_table_are_read(tmp_path):
    import gzip

    import openpyxl  # type: ignore[import-untyped]

    workbook = openpyxl.Workbook()
    for row in (("ID", "a", "age"), ("x", 1, 63.5), (7, True, datetime.date(2024, 3, 5)), ("y", 0.0, "old")):
        workbook.active.append(row)
    workbook.create_sheet("notes")
    workbook.save(tmp_path / "t.xlsx")
    (tmp_path / "t.xlsx").rename(tmp_path / "t.csv")  # whatever it is called
    faults = Faults()
    table = read_table(tmp_path / "t.csv", faults)
    assert (table.header, list(table.lines)) == (("ID", "a", "age"), [2, 3, 4])
    assert table.columns == (["x", "7", "y"], ["1", "True", "0"], ["63.5", "2024-03-05", "old"])
    assert_says(faults.warnings[0], "the sheet Sheet is read, the others are not: notes")
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write("ID,a\nx,1\n")
    assert read_table(tmp_path / "t.csv.gz").columns == (["x"], ["1"])


def test_a_title_above_the_header_is_passed_over_and_said(tmp_path):
    make(tmp_path, "Export of 2024;;\nID;a;b\nx;1;0\ny;0;1\n", train="x.png y.png")
    dataset = read_dataset(tmp_path)
    assert dataset.label_names == ("a", "b")
    assert_says(" ".join(dataset.understood), "line 1 is passed over, as a title: 'Export of 2024'")


def test_the_separator_is_not_taken_from_within_a_cell(tmp_path):
    (tmp_path / "t.csv").write_text("ID,labels\nx,a|b\ny,c|d\n")
    assert read_table(tmp_path / "t.csv").header == ("ID", "labels")
    (tmp_path / "t.csv").write_text('ID;"a, b"\nx;0,5\ny;1,5\n')
    assert read_table(tmp_path / "t.csv").columns == (["x", "y"], ["0,5", "1,5"])


def test_indices_are_those_of_brute_force(tmp_path):
    rng = np.random.default_rng(0)
    places = [f"train/{k:04d}" for k in range(50)]
    order = rng.permutation(50)
    assert joined(tmp_path, places, [places[k].removeprefix("train/") for k in order])[0] == order.tolist()


def test_a_column_that_counts_rows_is_not_the_id_where_another_names_images_loosely(tmp_path):
    numbers = [(k * 5) % 12 for k in range(12)]
    images = " ".join(f"{k}.png" for k in range(12))
    for cells in ([f"data/train/{k}.png" for k in numbers], [f"{k:03d}" for k in numbers], [f"{k}.0" for k in numbers]):
        rows = "".join(f"{row},{cell},{row % 2}\n" for row, cell in enumerate(cells))
        root = make(tmp_path, f"index,path,e\n{rows}", train=images)
        try:
            assert read_dataset(root).splits["train"].image_ids == tuple(map(str, numbers))
        except InputError as error:
            assert_says(str(error), "'index' and 'path' both name images, and differently", "--id-column")
    assert_says(message_of(tmp_path), "'index' and 'path' both name images, and differently")


def test_two_columns_that_name_as_many_of_a_few_images_are_refused(tmp_path):
    rows = "".join(f"{k},{99 - k},{k % 2}\n" for k in range(100))
    make(tmp_path, f"nr,image_id,e\n{rows}", train=" ".join(f"{k}.png" for k in range(40, 60)))
    assert_says(message_of(tmp_path, missing="skip"), "'nr' and 'image_id' both name images, and differently")


def test_letters_that_macos_takes_apart_are_the_same_in_files_folders_and_tables(tmp_path):
    apart = unicodedata.normalize("NFD", "Ödem")
    images = " ".join(f"{apart}/{name}.png" for name in "abcd") + " ok/e.png"
    make(
        tmp_path,
        "ID,übel\n" + "".join(f"Ödem/{name},{k % 2}\n" for k, name in enumerate("abcd")) + "ok/e,1\n",
        train=images,
    )
    dataset = read_dataset(tmp_path)
    assert dataset.splits["train"].image_ids[0] == "Ödem/a"
    assert dataset.splits["train"].paths[0].parent.name == apart
    assert "warning" not in " ".join(dataset.understood)
    apart = unicodedata.normalize("NFD", "übel")
    assert read_dataset(tmp_path, DatasetOptions(labels=apart)).label_names == ("übel",)


@pytest.mark.parametrize(
    ("head", "line"),
    [("#ID,a\n", 1), ("# made by hand\n#ID,a\n", 2), ("# ID,a\n", 1)],
)
def test_a_header_may_begin_as_a_comment(tmp_path, head, line):
    make(tmp_path, f"{head}x,1\ny,0\n", train="x.png y.png")
    dataset = read_dataset(tmp_path)
    assert (dataset.label_names, dataset.splits["train"].labels.tolist()) == (("a",), [[1], [0]])
    assert f"line {line} is the header, without its #" in " ".join(dataset.understood)


@pytest.mark.parametrize(
    "comment", ["# exported 2024, by hand\n", "# all of them\n", "#\n", "# labels,2024\n", "# old,names\n", "#v,2\n"]
)
def test_a_comment_before_the_header_stays_one(tmp_path, comment):
    make(tmp_path, f"{comment}ID,a\nx,1\ny,0\n", train="x.png y.png")
    assert read_dataset(tmp_path).label_names == ("a",)


def test_a_row_for_a_file_of_several_images_says_so(tmp_path):
    make(tmp_path, "ID,a\nscan,1\n", train="other.png")
    image = nibabel.Nifti1Image(np.zeros((4, 4, 3), np.int16), np.eye(4))
    nibabel.save(image, tmp_path / "train/scan.nii.gz")
    assert_says(message_of(tmp_path), "files of several images: give each image a row, such as 'scan#z00")


@pytest.mark.parametrize("written", ["images/{}", "{:04d}", "C:\\x\\{}", "scans/{}.jpg"])
def test_a_column_that_names_images_by_chance_is_refused_beside_one_that_names_them_in_another_form(tmp_path, written):
    rows = "".join(f"{written.format(k)},{9 - k},{k % 2}\n" for k in range(1, 9))
    make(tmp_path, f"file,patient_id,a\n{rows}", train=" ".join(f"{k}.png" for k in range(1, 9)))
    if written.endswith(".jpg"):
        assert read_dataset(tmp_path).splits["train"].image_ids == tuple(str(k) for k in range(1, 9))
    else:
        assert_says(message_of(tmp_path), "'patient_id' and 'file' both name images, and differently", "--id-column")


def test_cells_with_an_image_s_extension_that_name_nothing_are_not_passed_over(tmp_path):
    rows = "".join(f"IMG_{k}.jpg,{9 - k},{k % 2}\n" for k in range(1, 9))
    images = " ".join(f"{k}.png" for k in range(1, 9))
    make(tmp_path, f"file,patient_id,a\n{rows}", train=images)
    assert_says(message_of(tmp_path), "'file' have an image's extension, but name no image", "'patient_id' does")
    make(tmp_path, f"mask,ID,a\n{rows}", train=images)
    assert read_dataset(tmp_path).splits["train"].image_ids[0] == "8"
