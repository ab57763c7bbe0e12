"""Labels that are not known: refused, masked or taken for 0, and counted."""

import pytest

from features.common.arrays import UNKNOWN
from features.dataset.dataset import read_dataset
from features.options import DatasetOptions
from tests.features.dataset.written import assert_says, make, message_of

IMAGES = "a.png b.png c.png d.png"


def read(root, **options):
    dataset = read_dataset(root, DatasetOptions(**options))
    return dataset.label_names, dataset.splits["train"].labels.tolist()


@pytest.mark.parametrize("blank", ["", "nan", "NaN", "NA", "n/a", "null", "?", "unknown"])
def test_blanks_are_refused_with_the_options_named_unless_one_is_chosen(tmp_path, caplog, blank):
    make(tmp_path, f"ID,x,y\na,1,0\nb,0,1\nc,{blank},1\nd,1,{blank}\n", train=IMAGES)
    message = message_of(tmp_path)
    assert_says(message, "2 faults", "line 4, column x", "line 5, column y", "--unknown mask", "--unknown negative")
    assert message_of(tmp_path, unknown="error") == message
    assert read(tmp_path, unknown="mask") == (("x", "y"), [[1, 0], [0, 1], [UNKNOWN, 1], [1, UNKNOWN]])
    assert_says(caplog.text, "2 of 8 are not known: they are neither learnt from nor scored")
    assert read(tmp_path, unknown="negative") == (("x", "y"), [[1, 0], [0, 1], [0, 1], [1, 0]])
    assert_says(caplog.text, "2 of 8 are not known, and taken for 0")


@pytest.mark.parametrize("uncertain", ["-1", "-1.0", "-1.000"])
def test_uncertain_labels_are_masked_and_so_are_blanks_of_their_column(tmp_path, caplog, uncertain):
    make(tmp_path, f"ID,x,y\na,1,0\nb,0,1\nc,{uncertain},1\nd,,-1\n", train=IMAGES)
    assert read(tmp_path)[1] == [[1, 0], [0, 1], [UNKNOWN, 1], [UNKNOWN, UNKNOWN]]
    assert_says(caplog.text, "masked, because 2 cells are -1: --unknown negative takes all for 0")
    assert_says(message_of(tmp_path, unknown="error"), f"received '{uncertain}'")
    assert read(tmp_path, unknown="negative")[1] == [[1, 0], [0, 1], [0, 1], [0, 0]]


def test_a_blank_is_refused_in_a_column_that_knows_no_uncertainty_whatever_others_hold(tmp_path):
    make(tmp_path, "ID,x,y\na,1,0\nb,0,1\nc,-1,1\nd,1,\n", train=IMAGES)
    message = message_of(tmp_path)
    assert_says(message, "line 5, column y: received a blank cell", "--unknown mask")
    assert "column x" not in message


def test_a_label_of_which_one_value_is_known_is_left_out_unless_it_is_named(tmp_path, caplog):
    make(tmp_path, "ID,x,none,zero\na,1,1,0\nb,0,,0\nc,-1,1,0\nd,1,,0\n", train=IMAGES)
    assert read(tmp_path)[0] == ("x",)
    assert_says(caplog.text, "none, zero left out: all that is known of them is the same")
    assert read(tmp_path, labels="x,zero")[0] == ("x", "zero")
    assert read(tmp_path, unknown="negative")[0] == ("x", "none")
    make(tmp_path, None, "ID,x,none,zero\nt,1,0,1\nu,0,1,1\n", test="t.png u.png")
    assert read(tmp_path)[0] == ("x",)


def test_what_is_neither_a_label_nor_unknown_is_a_fault_under_any_rule(tmp_path):
    make(tmp_path, "ID,x\na,1\nb,0\nc,2\nd,\n", train=IMAGES)
    for rule in ("mask", "negative", "error"):
        assert_says(message_of(tmp_path, unknown=rule), "line 4, column x: received '2'")


def test_minus_one_beside_one_alone_may_be_zero_and_is_asked_for(tmp_path):
    make(tmp_path, "ID,x\na,1\nb,-1\nc,1\nd,-1\n", train=IMAGES)
    assert_says(message_of(tmp_path), "line 3, column x: received '-1'", "--unknown mask", "--unknown negative")
    assert read(tmp_path, unknown="negative")[1] == [[1], [0], [1], [0]]


def test_unknown_labels_of_test_are_masked_too(tmp_path):
    make(tmp_path, "ID,x\na,1\nb,0\n", "ID,x\nt,\nu,1\n", train="a.png b.png", test="t.png u.png")
    dataset = read_dataset(tmp_path, DatasetOptions(unknown="mask"))
    assert dataset.splits["test"].labels.tolist() == [[UNKNOWN], [1]]


def test_rows_that_are_skipped_say_nothing_of_labels_or_groups(tmp_path):
    text = "ID,x,patient\na,1,p\nlost,7,\nb,0,q\ngone,nonsense,\n"
    make(tmp_path, text, train="a.png b.png")
    dataset = read_dataset(tmp_path, DatasetOptions(missing="skip"))
    train = dataset.splits["train"]
    assert (dataset.label_names, train.labels.tolist(), train.groups.tolist()) == (("x",), [[1], [0]], ["p", "q"])
    assert train.without_image == ("lost", "gone")
