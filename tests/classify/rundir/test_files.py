"""The tables of a run come back as they were written."""

import numpy as np
import pytest

from classify.rundir.files import read_out_of_fold
from classify.rundir.folder import SealedRun, seal
from features.common.errors import InputError
from features.store import run_labels
from features.store.run_labels import OUT_OF_FOLD

#: Written by hand: the rows of models may be mixed, and what a spreadsheet would run has an apostrophe before it.
TABLE = """ID,model,fold,'=a,b
x,one,0,0.1,0.2
'-7,one,1,0.3,0.4
x,two,0,0.5,0.6
NA,one,1,0.7,
'-7,two,1,0.8,0.9
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / OUT_OF_FOLD).write_text(TABLE)
    seal(tmp_path, {"labels": ["=a", "b"]})
    return SealedRun.open(tmp_path)


@pytest.mark.parametrize("block", [1, 2, 100])
def test_out_of_fold_probabilities_are_joined_by_model_and_id_whatever_the_blocks(run, monkeypatch, block):
    monkeypatch.setattr(run_labels, "_BLOCK", block)
    found = read_out_of_fold(run, ["two", "one"], ["-7", "x"])
    assert list(found) == ["two", "one"]
    np.testing.assert_array_equal(found["two"], np.float32([[0.8, 0.9], [0.5, 0.6]]))
    np.testing.assert_array_equal(found["one"], np.float32([[0.3, 0.4], [0.1, 0.2]]))
    np.testing.assert_array_equal(read_out_of_fold(run, ["one"], ["NA"])["one"], np.float32([[0.7, np.nan]]))


def test_an_image_or_a_model_without_out_of_fold_probabilities_is_named_with_the_file(run):
    for models, image_ids in ((["one", "two"], ["NA"]), (["three"], ["x"])):
        with pytest.raises(InputError, match=f"{OUT_OF_FOLD} was changed by hand, or is damaged"):
            read_out_of_fold(run, models, image_ids)


@pytest.mark.parametrize(
    "table",
    [
        "",
        "ID,model,fold,'=a,b\n",
        "ID,model,fold,b\nx,one,0,0.1\n",
        TABLE + "x,one,0,0.9,0.9\n",
        TABLE + "x,one,0,0.9,0.9,7,8\n",
        TABLE.replace("0.3", "much"),
    ],
    ids=["empty", "no rows", "no column", "a row twice", "a long row", "a word"],
)
def test_a_table_that_somebody_sealed_again_is_named(tmp_path, table):
    (tmp_path / OUT_OF_FOLD).write_text(table)
    seal(tmp_path, {"labels": ["=a", "b"]})
    with pytest.raises(InputError, match=f"{OUT_OF_FOLD} was changed by hand, or is damaged"):
        read_out_of_fold(SealedRun.open(tmp_path), ["one"], ["x", "-7"])


def test_a_row_without_a_model_is_no_row_of_any(tmp_path):
    (tmp_path / OUT_OF_FOLD).write_text(TABLE + "x,,0,0.9,0.9\n")
    seal(tmp_path, {"labels": ["=a", "b"]})
    found = read_out_of_fold(SealedRun.open(tmp_path), ["one"], ["x"])
    np.testing.assert_array_equal(found["one"], np.float32([[0.1, 0.2]]))
