"""What the data-set reader refuses: each error with its place, what was received, and the remedy."""

import pytest

from features.dataset.dataset import read_dataset, read_images
from tests.features.dataset.written import assert_says, images_message_of, make, message_of

# Label errors


@pytest.mark.parametrize(("cell", "shown"), [("2", "'2'"), ("maybe", "'maybe'"), ("0.5", "'0.5'"), ("1e0", "'1e0'")])
def test_a_column_that_is_mostly_binary_is_ambiguous(tmp_path, cell, shown):
    make(tmp_path, f"ID,a,b\nx,1,0\ny,1,{cell}\n", train="x.png y.png")
    message = message_of(tmp_path)
    assert_says(message, f"{tmp_path / 'train.csv'}, line 3, column b: received {shown}")
    assert_says(message, "1 of the 2 cells", "Correct the cell", "--labels")
    assert read_images(tmp_path)["train"][0] == ("x", "y")


def test_a_column_that_is_mostly_not_binary_is_no_label(tmp_path, caplog):
    make(tmp_path, "ID,a,count\nx,1,0\ny,1,2\nz,0,3\n", train="x.png y.png z.png")
    assert read_dataset(tmp_path).label_names == ("a",)
    assert caplog.records == []
    assert f"{tmp_path / 'train.csv'}: not labels: count" in read_dataset(tmp_path).understood


def test_a_label_that_few_rows_have_yet_is_not_dropped(tmp_path):
    make(tmp_path, "ID,a,b\nx,1,0\ny,1,\nz,0,\n", train="x.png y.png z.png")
    assert_says(message_of(tmp_path), "train.csv, line 3, column b: received a blank cell")


def test_no_label_column_tells_what_was_seen(tmp_path):
    make(tmp_path, "ID,age,sex\nx,63,m\ny,71,f\n", train="x.png y.png")
    assert_says(message_of(tmp_path), "no label column", "age (line 2: '63')", "sex (line 2: 'm')", "--labels")
    assert read_images(tmp_path)["train"][0] == ("x", "y")


def test_no_label_column_where_there_are_only_ids(tmp_path):
    make(tmp_path, "ID\nx\n", train="x.png")
    assert_says(message_of(tmp_path), "no label column", "none beside the ids")


def test_a_duplicate_label_name_stops_only_who_reads_labels(tmp_path):
    make(tmp_path, "ID,a, a \nx,1,0\n", train="x.png")
    assert_says(message_of(tmp_path), tmp_path / "train.csv", "columns 2 and 3", "'a'", "Rename")
    assert read_images(tmp_path)["train"][0] == ("x",)


def test_a_duplicate_group_column_is_refused_also_with_labels_asked_for(tmp_path):
    make(tmp_path, "ID,a,patient,patient\nx,1,p,q\n", train="x.png")
    assert_says(message_of(tmp_path, labels="a"), "columns 3 and 4", "'patient'")


def test_a_duplicate_id_column_stops_both(tmp_path):
    make(tmp_path, "ID,a,ID\nx,1,x\n", train="x.png")
    for message in (message_of(tmp_path), images_message_of(tmp_path)):
        assert_says(message, "columns 1 and 3", "'ID'")


# Errors of ids and images: the same for who reads labels and who reads images only


@pytest.mark.parametrize(
    ("content", "images", "parts"),
    [
        ("ID,a\nx,1\nq,0\nr,1\n", "x.png", ("2 of 3 ids have no image", "'q' in line 3, 'r' in line 4", "Add the im")),
        (
            "x,1\ny,0\n",
            "x.png y.png",
            ("line 1: the first line names an image (x, 1), so there", "no header", "first line"),
        ),
        (
            "ID,a\nx,1\ny,0\nx.png,0\n",
            "x.png y.png",
            ("line 4, column ID: received 'x.png'", "Line 2", "and other cells"),
        ),
        ("ID,a\nx,1\n", "x.png x.jpg", ("x.jpg: x.png has the same id, 'x'", "rename")),
        ('ID,a\n"x\ny",1\n\nx,1,\n', "x.png", ("line 5: received 3 cells", "header has 2", "begins with 'x'")),
        ("ID,a\nx\n", "x.png", ("line 2: received 1 cells", "header has 2", "one cell for each column")),
        ("ID,a\n ,1\n", "x.png", ("line 2, column ID: received a blank cell", "remove the row")),
        ("ID,a\n./,1\n", "x.png", ("line 2, column ID: received './'", "needs an id")),
        ("", "x.png", ("train.csv is empty", "Write a header")),
        ("\n \n", "x.png", ("train.csv is empty",)),
        ("ID,a\n\n", "x.png", ("holds a header but no row",)),
        (b"\xff\xfeI\0D\0\n", "x.png", ("is not text in UTF-16", "Save it as UTF-8")),
        ("ID,a\n" + "y,0\n" * 500 + "x\0,1\n", "x.png", ("line 502: received a NUL byte",)),
        (b"PAR1aaaa", "x.png", ("is a Parquet file", "Save the table as CSV")),
        (b"PK\x03\x04 no workbook", "x.png", ("cannot be read as a workbook of Excel",)),
        (b"\x1f\x8b\x08 no gzip", "x.png", ("train.csv cannot be read",)),
        ('ID,a\nx,1\n"y,0\nz,1\n', "x.png", ("line 3", "a quoted cell does not end", "Close the quote")),
        ('ID,a\nx,1\n"' + "y,0\n" * 40_000, "x.png", ("line 3", "field larger", "Close the quote")),
        ("ID,a\nx,1\n", "", ("train holds no image", ".png", "remove it")),
        ("ID,a\nx,1\n", "notes.txt .x.png", ("train holds no image",)),
        ("ID,a\nx,1\n", "x\\y.png", ("holds a backslash", "Rename")),
        ('ID,a\n"x\ry",1\n', "x.png", ("line 2", "must not hold a carriage return: remove it")),
    ],
)
def test_errors_of_ids_and_images(tmp_path, content, images, parts):
    make(tmp_path, content, train=images)
    for message in (message_of(tmp_path), images_message_of(tmp_path)):
        assert_says(message, tmp_path, *parts)


def test_a_file_whose_name_the_tables_could_not_hold_is_a_fault(tmp_path):
    make(tmp_path, "ID,a\nx,1\n", train="x.png")
    (tmp_path / "train" / "y\rz.png").write_bytes(b"")
    assert_says(message_of(tmp_path), "y\\rz.png", "the name holds a carriage return. Rename the file or folder.")


@pytest.mark.parametrize("cell", ["/etc/x", "../x", "s/../../x", "..", "s\\x", "C:x", "c:/x"])
def test_an_id_cannot_lead_outside(tmp_path, cell):
    make(tmp_path, f"ID,a\nx,1\n{cell},1\n", train="x.png")
    for message in (message_of(tmp_path), images_message_of(tmp_path)):
        assert_says(message, "train.csv, line 3, column ID", repr(cell), "must stay inside the data set")


def test_long_cells_are_cut_in_messages(tmp_path):
    make(tmp_path, f"ID,a\nx,{'9' * 1000}\n", train="x.png")
    assert len(message_of(tmp_path, labels="a")) < 400


def test_lines_count_as_in_an_editor(tmp_path):
    make(tmp_path, 'ID,a,note\n\nx,1,"two\r\nlines"\n\n\ny,2,n\n', train="x.png y.png")
    assert_says(message_of(tmp_path, labels="a"), "train.csv, line 7, column a: received '2'")


def test_a_dicom_file_beside_its_png_is_no_error(tmp_path):
    make(tmp_path, train="x.dcm x.png")
    assert read_images(tmp_path)["train"] == (("x",), (tmp_path / "train/x.png",))


@pytest.mark.parametrize(
    ("prepare", "parts"),
    [
        (lambda root: root / "nowhere", ("nowhere does not exist", "Give the folder")),
        (lambda root: make(root, "ID\nx\n", train="x.png") / "train.csv", ("train.csv is not a folder",)),
        (lambda root: root, ("holds no image", "Put images there")),
        (lambda root: make(root, "ID\nx\n"), ("holds no image",)),
        (lambda root: make(root, None, "ID\nx\n", train="x.png"), ("test.csv: there is no folder",)),
    ],
)
def test_what_is_no_data_set(tmp_path, prepare, parts):
    root = prepare(tmp_path)
    for message in (message_of(root), images_message_of(root)):
        assert_says(message, *parts)


def test_a_folder_in_place_of_the_csv(tmp_path):
    make(tmp_path, train="x.png")
    (tmp_path / "train.csv").mkdir()
    assert_says(message_of(tmp_path), "train.csv cannot be read", "Is a directory")


def test_links_of_the_owner_are_followed(tmp_path):
    make(tmp_path / "far", train="x.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test").mkdir()
    (tmp_path / "data/train").symlink_to(tmp_path / "far/train")
    (tmp_path / "data/test/sub").symlink_to(tmp_path / "far/train")
    (tmp_path / "data/test/one.png").symlink_to(tmp_path / "far/train/x.png")
    ids = {name: ids for name, (ids, _) in read_images(tmp_path / "data").items()}
    assert ids == {"train": ("x",), "test": ("one", "sub/x")}


def test_a_csv_that_is_a_link_to_nowhere(tmp_path):
    make(tmp_path, train="x.png")
    (tmp_path / "train.csv").symlink_to(tmp_path / "gone.csv")
    assert_says(message_of(tmp_path), "train.csv cannot be read", "No such file")


def test_links_that_lead_nowhere_or_in_a_circle(tmp_path):
    make(tmp_path, train="x.png")
    (tmp_path / "train/loop").symlink_to(tmp_path / "train")
    assert_says(images_message_of(tmp_path), "train/loop is a link to a folder that contains it", "Remove the link")
    (tmp_path / "train/loop").unlink()
    (tmp_path / "train/y.png").symlink_to(tmp_path / "gone.png")
    assert_says(images_message_of(tmp_path), "y.png: it is not a file, or it is a link that leads nowhere")


def test_a_name_that_is_not_utf8(tmp_path):
    make(tmp_path, train="x.png")
    try:
        (tmp_path / "train/\udce9.png").touch()
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert_says(images_message_of(tmp_path), "is not UTF-8", "Rename")


def test_what_the_file_system_refuses(tmp_path):
    assert_says(images_message_of(tmp_path / ("x" * 300)), "cannot be read: File name too long")
    make(tmp_path, train="x.png")
    (tmp_path / "train/y.png").symlink_to("y.png")
    assert_says(
        images_message_of(tmp_path), "train/y.png cannot be read: Too many levels of symbolic links", "remove it"
    )
