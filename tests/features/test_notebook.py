"""The data set and the cache as tables, joined by id."""

import numpy as np
import pandas as pd
import pytest

from features import FeatureCache, InputError, open_dataset, read_features
from tests.features.store.caches import digests_of, matrix_of, rows_of, write_rows


@pytest.fixture
def data(tmp_path):
    """Three images to learn from, one to predict; a label of one is not known, and a label's name is hostile."""
    folder = tmp_path / "<data>"
    for split, names in (("train", "abc"), ("test", "x")):
        (folder / split).mkdir(parents=True)
        for name in names:
            (folder / split / f"{name}.png").touch()
    rows = {"ID": ["b", "a", "c"], "one": [1, 0, 1], "<b>two</b>": [0, None, 1], "patient": ["p", "q", "p"]}
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)
    return folder


def test_a_split_is_a_table_by_id(data):
    dataset = open_dataset(data, unknown="mask", group_column="patient")
    frame = dataset.frame()
    assert frame.index.tolist() == ["b", "a", "c"]
    assert frame.columns.tolist() == ["path", "group", "one", "<b>two</b>"]
    assert frame["one"].tolist() == [1, 0, 1]
    assert frame["<b>two</b>"].isna().tolist() == [False, True, False]
    assert frame.loc["a", "path"] == data / "train" / "a.png"
    assert frame["group"].tolist() == ["p", "q", "p"]
    assert dataset.frame("test").columns.tolist() == ["path"]
    with pytest.raises(InputError, match=r"has no split 'valid'\. Choose one of train, test\."):
        dataset.frame("valid")


def test_a_notebook_shows_counts_and_what_was_understood_and_runs_nothing_of_it(data):
    page = open_dataset(str(data), unknown="mask", group_column="patient")._repr_html_()
    assert "&lt;b&gt;two&lt;/b&gt;" in page
    assert "<b>two" not in page
    assert "&lt;data&gt;" in page
    cells = [cell.partition("<")[0] for cell in page.split("<td>")[1:]]
    assert cells == ["3", "2", "2", "1", "1", "", "", ""]
    assert page.count("<li>") == len(open_dataset(data, unknown="mask", group_column="patient").understood) > 0


def test_a_console_shows_them_too_and_no_id(data):
    said = repr(open_dataset(data, unknown="mask", group_column="patient"))
    assert [line.split() for line in said.splitlines()[2:4]] == [["train", "3", "2", "2", "1"], ["test", "1"]]
    assert "groups: 'patient' (2 groups of 3 images)" in said
    assert "image_ids" not in said


def test_a_cache_says_where_it_is_and_what_it_holds(tmp_path):
    write_rows(tmp_path, rows_of(digests_of("a")))
    assert repr(FeatureCache(tmp_path)) == f"cache {tmp_path}; train: net"


def test_options_are_checked_as_those_of_a_command(data):
    for options in ({"group": "patient"}, {"group": None}, {"help": True}, {"help": False}):
        with pytest.raises(InputError, match=f"No such option: --{next(iter(options))}"):
            open_dataset(data, **options)


@pytest.mark.parametrize("wrong", [5, None, ["data"]])
def test_what_is_no_path_is_refused(wrong):
    with pytest.raises(InputError, match=r"^data: received .*\. Expected the path of a folder\.$"):
        open_dataset(wrong)
    with pytest.raises(InputError, match=r"^cache: received .*\. Expected the path of a folder\.$"):
        read_features(wrong)


def test_features_are_a_table_by_id(tmp_path):
    digests = digests_of(["b", "a", "c"])
    write_rows(tmp_path, rows_of(digests))
    for cache in (tmp_path, str(tmp_path), FeatureCache(tmp_path)):
        found = read_features(cache)
        assert found.columns.tolist() == ["net:0", "net:1", "net:2"]
        np.testing.assert_array_equal(found.loc[[*digests]], matrix_of(digests.values()))
    with pytest.raises(InputError, match="holds no features of a split 'test'"):
        read_features(tmp_path, split="test")
    with pytest.raises(InputError, match="other"):
        read_features(tmp_path, ["other"])
    pd.testing.assert_frame_equal(read_features(tmp_path, "net"), found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tta": "foo"}, "tta: 'foo' is none of mean, none"),
        ({"tta": "all"}, "tta: 'all' is none of mean, none"),
        ({"backbones": ["net", "net"]}, "backbones: net, net: a name is duplicated"),
        ({"backbones": ["../train/net"]}, "backbones: '../train/net' is not the name of a backbone"),
        ({"backbones": "/net"}, "backbones: '/net' is not the name of a backbone"),
        ({"backbones": [""]}, "backbones: '' is not the name of a backbone"),
        ({"backbones": [5]}, "backbones: 5 is not the name of a backbone"),
        ({"backbones": 5}, "backbones: 5 is not the name of a backbone"),
        ({"split": "../train"}, "split: '../train' is not the name of a split"),
        ({"split": 5}, "split: 5 is not the name of a split"),
    ],
)
def test_what_names_no_features_is_refused(tmp_path, options, said):
    write_rows(tmp_path, rows_of(digests_of("abc")))
    with pytest.raises(InputError) as refused:
        read_features(tmp_path, **options)
    assert str(refused.value).startswith(f"{said}. ") or str(refused.value) == f"{said}."


def test_a_notebook_shows_the_message_alone():
    assert InputError("the disk is full")._render_traceback_() == ["error: the disk is full"]
