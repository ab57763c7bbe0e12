"""features.common.cells: what a spreadsheet would run is written so that it does not, and read back exactly."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.common.cells import protect_tables, read_cell, write_cell
from features.store.run_labels import RUN_LABELS, RunLabels, read_run_labels, write_run_labels

TEXTS = st.text(st.sampled_from("'=+-@\t\ra1,\"\n."), max_size=5)
#: Without a lone carriage return, which the csv module does not quote.
WRITTEN = TEXTS.filter(lambda text: "\r" not in text)


@given(TEXTS, st.booleans())
def test_every_text_comes_back_whatever_was_asked_for(text, safe):
    cell = write_cell(text, safe)
    assert read_cell(cell) == text
    assert cell in (text, f"'{text}")
    if safe:
        assert cell[:1] not in ("=", "@", "\t", "\r")
        assert cell[:1] not in ("+", "-") or float(cell) is not None


@pytest.mark.parametrize("number", ["-1", "+2.5", "-3e-05", "-inf", "-0.0", "0.5", "-nan"])
def test_numbers_are_not_touched(number):
    assert write_cell(number, safe=True) == number


@given(
    st.lists(st.tuples(WRITTEN.filter(bool), WRITTEN), min_size=1, max_size=4, unique_by=lambda row: row[0]),
    st.booleans(),
)
def test_labels_of_a_run_come_back(tmp_path_factory, rows, safe):
    folder = tmp_path_factory.mktemp("run")
    ids = tuple(image_id for image_id, _ in rows)
    groups = np.array([group for _, group in rows])
    known = groups if (groups != "").any() else None
    labels = np.zeros((len(rows), 1), np.uint8)
    write_run_labels(folder, ["=1+1"], {"train": RunLabels(ids, known, np.zeros(len(rows), np.int64), labels)})
    protect_tables(folder, safe)
    read = read_run_labels(folder / RUN_LABELS)["train"]
    assert read.image_ids == ids
    assert (None if read.groups is None else read.groups.tolist()) == (None if known is None else known.tolist())
    with (folder / RUN_LABELS).open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file))[-1] == ("'=1+1" if safe else "=1+1")


def test_files_without_such_cells_keep_their_bytes(tmp_path):
    content = b'ID,"a, b"\nx,-0.25\ny,\n'
    (tmp_path / "table.csv").write_bytes(content)
    protect_tables(tmp_path, safe=True)
    assert (tmp_path / "table.csv").read_bytes() == content
