"""Groups as people name them: columns of any spelling, ids, numbers; and the question where none are known."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.common.errors import InputError
from features.dataset.dataset import read_dataset
from features.dataset.formats import Listing
from features.dataset.groups import (
    GROUP_NAMES,
    align_groups,
    find_group_column,
    groups_from_ids,
    recognise_patients,
)
from features.options import DatasetOptions
from tests.features.dataset.written import assert_says, make, message_of

IDS = [f"i{k}" for k in range(20)]
IMAGES = " ".join(f"{one}.png" for one in IDS)


def table(column, cells):
    rows = "".join(f"{one},{k % 2},{cell}\n" for k, (one, cell) in enumerate(zip(IDS, cells, strict=True)))
    return f"ID,a,{column}\n{rows}"


@pytest.mark.parametrize(
    "name",
    ["patient", "Patient", "PatientID", "patient_id", "Patient ID", "SUBJECT-id", "StudyInstanceUID", "Patienten-ID"],
)
def test_any_spelling_of_a_group_column_is_recognised_and_said(tmp_path, name):
    make(tmp_path, table(name, [f"p{k // 2}" for k in range(20)]), train=IMAGES)
    dataset = read_dataset(tmp_path)
    assert dataset.splits["train"].groups.tolist() == [f"p{k // 2}" for k in range(20)]
    assert dataset.label_names == ("a",)
    assert_says(dataset.understood[-1], f"groups: {name!r} (10 groups of 20 images)")


@given(st.sampled_from(GROUP_NAMES), st.lists(st.sampled_from(["", " ", "_", "-"]), min_size=60, max_size=60))
def test_a_name_may_be_spelt_with_any_case_and_separators(name, between):
    spelt = "".join(letter.upper() + gap for letter, gap in zip(name, between, strict=False)).strip()
    listing = Listing(Path("t.csv"), np.empty(0, np.int64), [], header=("ID", spelt))
    assert find_group_column(listing, None, required=True) == spelt


def test_the_patient_goes_before_the_study(tmp_path):
    rows = "".join(f"{one},{k % 2},s{k},p{k // 4}\n" for k, one in enumerate(IDS))
    make(tmp_path, f"ID,a,StudyInstanceUID,Patient ID\n{rows}", train=IMAGES)
    assert len({*read_dataset(tmp_path).splits["train"].groups}) == 5


@pytest.mark.parametrize(
    ("column", "cells", "asked"),
    [
        ("site", [f"s{k // 3}" for k in range(20)], True),
        ("plant", [str(k // 4) for k in range(20)], True),
        ("record_no", [str(k % 7) for k in range(20)], True),
        ("age", [str(20 + (k * 7) % 9) for k in range(20)], False),
        ("sex", ["mf"[k % 2] for k in range(20)], False),
        ("note", [f"n{k}" for k in range(20)], False),
    ],
)
def test_a_column_that_repeats_as_groups_do_raises_a_question(tmp_path, caplog, column, cells, asked):
    make(tmp_path, table(column, cells), train=IMAGES)
    dataset = read_dataset(tmp_path, DatasetOptions(labels="a"))
    assert dataset.splits["train"].groups is None
    assert (f"the column {column!r} repeats" in caplog.text) == asked
    assert (f"--group-column {column}" in caplog.text) == asked


def test_ids_that_count_raise_a_question_and_a_pattern_answers_it(tmp_path, caplog):
    ids = [f"{k // 2:08d}_{k % 2:03d}" for k in range(20)]
    rows = "".join(f"{one},{k % 2}\n" for k, one in enumerate(ids))
    make(tmp_path, f"ID,a\n{rows}", train=" ".join(f"{one}.png" for one in ids))
    assert read_dataset(tmp_path).splits["train"].groups is None
    assert_says(caplog.text, "ids such as '00000000_000' suggest", "--group-from '([^/]+)[_-]\\d+$'")
    dataset = read_dataset(tmp_path, DatasetOptions(group_from="^(.+)[_-]"))
    assert dataset.splits["train"].groups.tolist() == [f"{k // 2:08d}" for k in range(20)]
    assert_says(message_of(tmp_path, group_from="^x"), "matches nothing in 20 of 20 ids", "'00000000_000'")
    assert_says(message_of(tmp_path, group_from="(", labels="a"), "is no regular expression")
    assert_says(message_of(tmp_path, group_from="x", group_column="a"), "give one of them")


def test_ids_that_name_patients_need_no_option():
    ids = ["patient00001/study1/view1", "patient00001/study2/view1", "patient00002/study1/view1"]
    assert recognise_patients(ids).tolist() == ["patient00001", "patient00001", "patient00002"]
    assert recognise_patients(["anon7/study1/v1", "anon7/study2/v1", "anon8/study1/v1"]) is None
    assert recognise_patients(["a/patient1/x", "a/patient1/y", "b/patient1/x"]).tolist() == ["a/patient1"] * 2 + [
        "b/patient1"
    ]
    assert recognise_patients([*ids, "other/view1"]) is None
    assert recognise_patients(["patient1/a", "patient1/b"]) is None
    assert recognise_patients(["case_1", "case_2"]) is None


def test_groups_are_compared_as_numbers_and_whatever_their_case_in_all_splits(tmp_path):
    aligned, joined = align_groups([np.array(["007", "12", ""]), np.array(["7.0", "13"])])
    assert ([own.tolist() for own in aligned], joined) == ([["7", "12", ""], ["7", "13"]], 1)
    aligned, joined = align_groups([np.array(["P3", "007", "x"]), np.array(["7", "p3", "1.5"])])
    assert ([own.tolist() for own in aligned], joined) == ([["P3", "7", "x"], ["7", "P3", "1.5"]], 2)
    make(tmp_path, "ID,a,patient\nx,1,P1\ny,0,p1\nz,1,p2\n", train="x.png y.png z.png")
    dataset = read_dataset(tmp_path)
    assert dataset.splits["train"].groups.tolist() == ["P1", "P1", "p2"]
    assert_says(" ".join(dataset.understood), "1 group of 'patient' differ from others in case")


def test_columns_of_groups_that_name_different_things_are_refused(tmp_path):
    make(tmp_path, "ID,a,patient\nx,1,1\ny,0,2\n", train="x.png y.png", valid="v.png w.png", test="t.png")
    (tmp_path / "valid.csv").write_text("ID,a,study\nv,1,1\nw,0,2\n")
    assert_says(message_of(tmp_path), "'patient' in train.csv and 'study' in valid.csv, which are not the same")
    (tmp_path / "valid.csv").write_text("ID,a,Patient ID\nv,1,1\nw,0,2\n")
    assert read_dataset(tmp_path).splits["train"].groups.tolist() == ["1", "2", "1", "2"]


def test_a_case_of_0_and_1_is_a_label(tmp_path):
    make(tmp_path, "ID,case,dog\nx,1,0\ny,0,0\nz,1,1\n", train="x.png y.png z.png")
    dataset = read_dataset(tmp_path)
    assert (dataset.label_names, dataset.splits["train"].groups) == (("case", "dog"), None)


def test_folders_that_repeat_as_patients_do_raise_a_question_unless_they_are_the_classes(tmp_path, caplog):
    names = [f"name{k // 3:02d}/{k}" for k in range(36)]
    rows = "".join(f"{name},{k % 2}\n" for k, name in enumerate(names))
    make(tmp_path / "patients", f"ID,a\n{rows}", train=" ".join(f"{name}.png" for name in names))
    assert read_dataset(tmp_path / "patients").splits["train"].groups is None
    assert_says(caplog.text, "the images lie in 12 folders, such as 'name00'", "--group-from '^(.+)/'")
    caplog.clear()
    make(tmp_path / "classes", train=" ".join(f"{name}.png" for name in names))
    assert len(read_dataset(tmp_path / "classes").label_names) == 12
    rows = "".join(f"{k},{'abcdef'[k % 6]}\n" for k in range(36))
    make(tmp_path / "column", f"ID,class\n{rows}", train=" ".join(f"{k}.png" for k in range(36)))
    assert len(read_dataset(tmp_path / "column").label_names) == 6
    assert not caplog.records


@given(st.lists(st.tuples(st.text("abc/_-", min_size=1, max_size=6), st.integers(0, 99)), min_size=1, max_size=8))
def test_a_group_is_what_the_pattern_matches(parts):
    ids = [f"{name}_{number}" for name, number in parts]
    assert groups_from_ids(ids, "^(.+)_").tolist() == [name for name, _ in parts]
    assert groups_from_ids(ids, r"\d+$").tolist() == [str(number) for _, number in parts]
    with pytest.raises(InputError, match="matches nothing"):
        groups_from_ids(ids, "Z")


def test_ids_of_which_some_name_patients_raise_a_question(tmp_path, caplog):
    ids = [*(f"patient{k // 2}/{k}" for k in range(8)), "lone", "other"]
    rows = "".join(f"{one},{k % 2}\n" for k, one in enumerate(ids))
    make(tmp_path, f"ID,a\n{rows}", train=" ".join(f"{one}.png" for one in ids))
    assert read_dataset(tmp_path).splits["train"].groups is None
    assert_says(caplog.text, "8 of 10 ids name a patient, such as 'patient0/0'; the others do not, such as 'lone'")
