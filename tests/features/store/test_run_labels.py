"""labels.csv comes back as it was written; what is not such a table is one message."""

import numpy as np
import pytest

from features.common.arrays import UNKNOWN
from features.common.errors import InputError
from features.store import run_labels
from features.store.run_labels import (
    NO_FOLD,
    RUN_LABELS,
    RunLabels,
    find_run_labels,
    read_run_labels,
    write_run_labels,
)


@pytest.mark.parametrize("block", [1, 2, 100])
def test_comes_back_as_it_was_written_whatever_words_it_holds(tmp_path, monkeypatch, block):
    monkeypatch.setattr(run_labels, "_BLOCK", block)
    train = RunLabels(
        ("007", 'a,"b"', "NA"),
        np.array(["p1", "", "1e3"]),
        np.array([0, 1, 0]),
        np.array([[1, 0], [0, 0], [1, 1]], np.uint8),
    )
    held_out = np.array(["train"])
    test = RunLabels(("x",), None, np.array([NO_FOLD]), np.array([[0, 1]], np.uint8), held_out)
    write_run_labels(tmp_path, ("fold", "nan"), {"train": train, "test": test})
    text = (tmp_path / RUN_LABELS).read_text()
    assert text == (
        'split,ID,group,fold,stored,fold,nan\ntrain,007,p1,0,train,1,0\ntrain,"a,""b""",,1,train,0,0\n'
        "train,NA,1e3,0,train,1,1\ntest,x,,,train,0,1\n"
    )
    found = read_run_labels(tmp_path / RUN_LABELS)
    assert list(found) == ["train", "test"]
    for name, expected in (("train", train), ("test", test)):
        assert found[name].image_ids == expected.image_ids
        np.testing.assert_array_equal(found[name].folds, expected.folds)
        np.testing.assert_array_equal(found[name].labels, expected.labels)
        assert found[name].labels.dtype == np.uint8
    assert found["train"].groups.tolist() == ["p1", "", "1e3"]
    assert found["test"].groups is None
    assert (found["train"].stored.tolist(), found["test"].stored.tolist()) == (["train"] * 3, ["train"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("split,ID,fold\n", "its columns are split, ID, fold, expected split, ID, group, fold, stored and the labels"),
        ("split,ID,group,fold,stored,a\ntrain,x,,0\n", "a row does not have 6 cells"),
        ("split,ID,group,fold,stored,a\ntrain,x,,one,train,0\n", "invalid literal for int"),
        ("split,ID,group,fold,stored,a\ntrain,x,,0,train,yes\n", "invalid literal for int"),
        ("split,ID,group,fold,stored,a\ntrain,x,,0,train,2\n", "a label is neither 0, 1 nor empty"),
        ("split,ID,group,fold,stored,a\ntrain,x,,0,train,300\n", "out of bounds"),
        (f"split,ID,group,fold,stored,a\ntrain,x,,{'9' * 20},train,1\n", "too large"),
        ("split,ID,group,fold,stored,a\ntrain,x,,0,train,1\ntrain,x,,1,train,0\n", "an image has two rows"),
    ],
)
def test_what_is_not_such_a_table_is_one_message(tmp_path, text, message):
    (tmp_path / RUN_LABELS).write_text(text)
    with pytest.raises(InputError, match=rf"labels\.csv cannot be read \(.*{message}.*\)\. Make the run again\."):
        read_run_labels(tmp_path / RUN_LABELS)


def test_a_folder_without_it_is_not_a_run(tmp_path):
    with pytest.raises(InputError, match=r"is not a run: run\.json or labels\.csv is missing"):
        find_run_labels(tmp_path)


def test_an_unknown_label_is_a_blank_cell_and_read_as_one(tmp_path):
    labels = np.array([[1, UNKNOWN], [UNKNOWN, UNKNOWN], [0, 1]], np.uint8)
    write_run_labels(tmp_path, ("a", "b"), {"train": RunLabels(("x", "y", "z"), None, np.arange(3), labels)})
    assert (tmp_path / RUN_LABELS).read_text().splitlines()[1:] == [
        "train,x,,0,train,1,",
        "train,y,,1,train,,",
        "train,z,,2,train,0,1",
    ]
    np.testing.assert_array_equal(read_run_labels(tmp_path / RUN_LABELS)["train"].labels, labels)
