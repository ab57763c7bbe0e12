"""Labels as words: one column of classes, several in a cell, lists, and the folders that images are in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.dataset.classes import read_classes
from features.dataset.dataset import read_dataset
from features.options import DatasetOptions
from tests.features.dataset.written import assert_says, make, message_of

SIX = "a.png b.png c.png d.png e.png f.png"


def labels_of(root, **options):
    dataset = read_dataset(root, DatasetOptions(**options))
    return dataset.label_names, dataset.splits["train"].labels.tolist(), dataset.understood[-1]


def column(name, *cells):
    return f"ID,{name}\n" + "".join(f'{image},"{cell}"\n' for image, cell in zip("abcdef", cells, strict=True))


def test_one_column_of_classes(tmp_path):
    make(tmp_path, column("Category", "dog", "cat", "dog", "cat", "owl", "owl"), train=SIX)
    names, labels, said = labels_of(tmp_path)
    assert names == ("cat", "dog", "owl")
    assert labels == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert_says(said, "labels: 3 classes from 'Category': cat, dog, owl")
    assert labels_of(tmp_path, labels="Category") == (names, labels, said)
    names, labels, said = labels_of(tmp_path, labels="owl,cat")
    assert (names, labels[0], labels[1], labels[4]) == (("owl", "cat"), [0, 0], [0, 1], [1, 0])
    message = message_of(tmp_path, labels="cat,bat")
    assert_says(message, "--labels names bat, which is no class of 'Category'", "Its classes: cat, dog, owl")
    assert_says(message_of(tmp_path, labels="bat"), "--labels names bat", "as a column or as a class", "Category")


@pytest.mark.parametrize("separator", ["|", ";", ",", " | ", ";;"])
def test_several_classes_in_a_cell_and_one_that_means_none(tmp_path, separator):
    cells = ["Edema|Mass", "No Finding", "Mass", "Edema", "No Finding", "Mass|Edema"]
    make(tmp_path, column("Finding Labels", *(cell.replace("|", separator) for cell in cells)), train=SIX)
    options = {} if separator in "|;," or separator == " | " else {"separator": separator}
    names, labels, said = labels_of(tmp_path, **options)
    assert names == ("Edema", "Mass")
    assert labels == [[1, 1], [0, 0], [0, 1], [1, 0], [0, 0], [1, 1]]
    assert_says(said, "2 from 'Finding Labels', split at", "'No Finding' means none of them")


def test_lists_as_python_and_json_write_them(tmp_path):
    cells = [
        "['Comedy', 'Drama']",
        "[]",
        "['Drama']",
        "[ 'Comedy' ]",
        "['It''s']".replace("''", ""),
        "['Its', 'Drama']",
    ]
    make(tmp_path, column("genres", *cells), train=SIX)
    names, labels, said = labels_of(tmp_path)
    assert names == ("Comedy", "Drama", "Its")
    assert labels == [[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 1]]
    assert_says(said, "3 from 'genres', lists")


def test_a_comma_inside_a_class_does_not_split_it(tmp_path):
    cells = [
        "pneumonia, viral",
        "healthy",
        "pneumonia, viral",
        "pneumonia, bacterial",
        "healthy",
        "pneumonia, bacterial",
    ]
    make(tmp_path, column("diagnosis", *cells), train=SIX)
    names, labels, said = labels_of(tmp_path)
    assert names == ("healthy", "pneumonia, bacterial", "pneumonia, viral")
    assert np.sum(labels, axis=1).tolist() == [1] * 6
    assert_says(said, "3 classes from 'diagnosis'")
    assert_says(read_dataset(tmp_path).understood[0], "'healthy' is a class like the others", "--labels")


def test_folders_are_classes_where_there_is_no_table(tmp_path):
    images = "cat/1.png cat/2.png dog/1.png dog/sub/2.png"
    make(tmp_path, Training=images, Testing="dog/9.png cat/8.png")
    dataset = read_dataset(tmp_path)
    train, test = dataset.splits.values()
    assert dataset.label_names == ("cat", "dog")
    assert train.image_ids == ("cat/1", "cat/2", "dog/1", "dog/sub/2")
    assert train.labels.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert (test.image_ids, test.labels.tolist()) == (("cat/8", "dog/9"), [[1, 0], [0, 1]])
    assert_says(dataset.understood[-1], "labels: 2 classes from the folders of the images: cat, dog")
    make(tmp_path, "ID,a\ncat/1,1\ncat/2,0\ndog/1,0\ndog/sub/2,1\n")
    assert read_dataset(tmp_path).label_names == ("a",)


def test_an_image_beside_the_folders_of_classes_is_a_fault(tmp_path):
    make(tmp_path, train="cat/1.png cat/2.png dog/1.png dog/2.png stray.png")
    assert_says(message_of(tmp_path), "1 of 5 images lie in no folder of a class (first: 'stray'). Move them")


def test_a_class_that_only_test_has_is_a_fault(tmp_path):
    make(tmp_path, column("class", *"xyxyxy"), "ID,class\nt,z\n", train=SIX, test="t.png")
    assert_says(message_of(tmp_path), "test.csv, line 2, column class: received 'z'")


def test_a_blank_class_is_not_known(tmp_path, caplog):
    make(tmp_path, column("class", "x", "y", "", "y", "x", "x"), train=SIX)
    assert_says(message_of(tmp_path), "line 4, column class: received a blank cell", "--unknown mask")
    _, labels, _ = labels_of(tmp_path, unknown="mask")
    assert labels[2] == [255, 255]
    assert_says(caplog.text, "2 of 12 are not known")


def test_two_readings_are_refused_and_both_named(tmp_path):
    rows = "".join(f"{image},{k % 2},{'xy'[k % 2]},{'pq'[k // 3]}\n" for k, image in enumerate("abcdef"))
    make(tmp_path, f"ID,bleed,class,site\n{rows}", train=SIX)
    assert_says(message_of(tmp_path), "columns of 0 and 1 (bleed)", "classes in 'class'", "--labels")
    assert labels_of(tmp_path, labels="bleed")[0] == ("bleed",)
    assert labels_of(tmp_path, labels="class")[0] == ("x", "y")
    make(tmp_path, f"ID,z,group1,site\n{rows.replace(',0,', ',m,').replace(',1,', ',n2,')}")
    assert_says(message_of(tmp_path), "z, group1, site", "may hold the classes", "--labels")


def test_a_column_of_sex_is_a_label_only_aloud(tmp_path, caplog):
    rows = "".join(f"{image},{k % 2},{k // 3}\n" for k, image in enumerate("abcdef"))
    make(tmp_path, f"ID,bleed,sex\n{rows}", train=SIX)
    assert labels_of(tmp_path)[0] == ("bleed", "sex")
    assert_says(caplog.text, "sex holds 0 and 1, so it is taken for a label", "--labels")


WORDS = st.sampled_from(["a", "b c", "Edema", "NO", "é", "1", "nothing at all"])


@settings(deadline=None)
@given(st.lists(st.lists(WORDS, min_size=0, max_size=3, unique=True), min_size=2, max_size=12), st.sampled_from("|;"))
def test_written_classes_are_read_back(rows, separator):
    cells = [separator.join(row) for row in rows]
    found = read_classes("class", cells, separator)
    assert [None if not row else tuple(row) for row in rows] == list(found.parts)
    lists = read_classes("class", [str(row) for row in rows], None)
    assert lists.separator == "[]"
    assert [tuple(row) for row in rows] == list(lists.parts)


@pytest.mark.parametrize("cells", ["010201", "000112", "012340"])
def test_whole_numbers_in_a_column_of_classes_are_classes(tmp_path, cells):
    make(tmp_path, column("diagnosis", *cells), train=SIX)
    for options in ({}, {"labels": "diagnosis"}):
        names, labels, said = labels_of(tmp_path, **options)
        assert names == tuple(sorted({*cells}))
        assert [names[row.index(1)] for row in labels] == list(cells)
        assert_says(said, "classes from 'diagnosis'")
    make(tmp_path, column("grade", *cells))
    assert labels_of(tmp_path, labels="grade")[0] == tuple(sorted({*cells}))


def test_all_that_is_learnt_from_says_which_classes_there_are(tmp_path):
    folders = tmp_path / "folders"
    make(folders, train="cat/1.png cat/2.png dog/1.png dog/2.png", valid="dog/3.png owl/1.png", test="owl/9.png")
    dataset = read_dataset(folders)
    assert dataset.label_names == ("cat", "dog", "owl")
    assert dataset.splits["train"].labels.sum(axis=0).tolist() == [2, 3, 1]
    assert dataset.splits["test"].labels.tolist() == [[0, 0, 1]]
    make(folders, test="bat/1.png bat/2.png")
    message = message_of(folders)
    assert_says(message, f"{folders}/test/bat: its images are of no class that is learnt", "cat, dog, owl")
    assert "line" not in message
    tables = make(tmp_path / "tables", column("class", *"xyxyxy"), train=SIX, valid="v.png w.png", test="t.png")
    (tables / "valid.csv").write_text("ID,class\nv,z\nw,x\n")
    assert read_dataset(tables).label_names == ("x", "y", "z")
    (tables / "test.csv").write_text("ID,class\nt,other\n")
    assert_says(message_of(tables), "received 'other'. The classes are x, y, z. Correct the cell")


def test_several_words_may_mean_none_of_the_classes(tmp_path):
    make(tmp_path, column("finding", "Edema|Mass", "No Finding", "Mass", "Normal", "Edema", "o. B."), train=SIX)
    names, labels, said = labels_of(tmp_path)
    assert names == ("Edema", "Mass")
    assert labels == [[1, 1], [0, 0], [0, 1], [0, 0], [1, 0], [0, 0]]
    assert_says(said, "'No Finding' and 'Normal' and 'o. B.' mean none of them")


def test_a_class_whose_name_holds_a_comma_is_named_in_quotes(tmp_path):
    cells = ("a, b", "x", "a, b", "y", "x", "y")
    make(tmp_path, column("class", *cells), train=SIX)
    names, labels, _ = labels_of(tmp_path, labels='"a, b",y')
    assert (names, labels) == (("a, b", "y"), [[1, 0], [0, 0], [1, 0], [0, 1], [0, 0], [0, 1]])


def test_folders_of_test_that_are_no_classes_are_said(tmp_path, caplog):
    make(tmp_path, train="Cat/1.png Cat/2.png unknown/1.png unknown/2.png", test="bird/1.png")
    dataset = read_dataset(tmp_path)
    assert (dataset.label_names, dataset.splits["test"].labels) == (("Cat", "unknown"), None)
    assert_says(caplog.text, "its folders (bird) are none of the classes (Cat, unknown): its images are predicted")


def test_classes_that_differ_in_case_alone_are_one_and_that_is_said(tmp_path):
    make(tmp_path / "folders", train="Cat/1.png Cat/2.png dog/1.png dog/2.png", test="cat/1.png DOG/1.png")
    dataset = read_dataset(tmp_path / "folders")
    assert dataset.splits["test"].labels.tolist() == [[0, 1], [1, 0]]
    assert_says(" ".join(dataset.understood), "the class 'cat' is read as 'Cat'", "the class 'DOG' is read as 'dog'")
    make(tmp_path / "table", column("class", "Normal", "normal", "Mass", "normal", "mass", "Mass"), train=SIX)
    dataset = read_dataset(tmp_path / "table")
    assert (dataset.label_names, dataset.splits["train"].labels[:, 0].tolist()) == (
        ("Mass", "normal"),
        [0, 0, 1, 0, 1, 1],
    )


def test_tables_that_are_learnt_from_show_the_separator_and_what_means_none_together(tmp_path):
    train = column("labels", "u, v", "v, w", "u", "w", "u, w", "none")
    make(tmp_path, train, train=SIX, valid="p.png q.png", test="x.png y.png")
    (tmp_path / "valid.csv").write_text('ID,labels\np,"u, v"\nq,none\n')
    (tmp_path / "test.csv").write_text('ID,labels\nx,"w, u"\ny,none\n')
    dataset = read_dataset(tmp_path)
    assert dataset.label_names == ("u", "v", "w")
    assert dataset.splits["train"].labels[-2:].tolist() == [[1, 1, 0], [0, 0, 0]]
    assert dataset.splits["test"].labels.tolist() == [[1, 0, 1], [0, 0, 0]]
    (tmp_path / "valid.csv").write_text('ID,labels\np,"u, none"\nq,w\n')  # so "none" is a class like the others
    assert read_dataset(tmp_path).label_names == ("none", "u", "v", "w")


def test_what_the_rows_to_learn_from_know_one_value_of_is_left_out_whatever_the_others_know(tmp_path, caplog):
    rows = "".join(f"{name},{k % 2},{int(k > 3)},{'test' if k > 3 else 'train'}\n" for k, name in enumerate("abcdef"))
    make(tmp_path, f"ID,x,y,split\n{rows}", train=SIX)
    assert read_dataset(tmp_path).label_names == ("x",)
    assert_says(caplog.text, "y left out")
