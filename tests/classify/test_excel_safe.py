"""`classify run --excel-safe` and `predict --excel-safe`: no cell is a formula, and our readers see no difference."""

import csv

import pandas as pd
import pytest

from classify.rundir.files import read_run_table
from classify.rundir.saved_run import SavedRun
from tests.classify.test_predict import predict
from tests.classify.test_run import run
from tests.classify.toy import LABELS, make_toy

FORMULA = '=HYPERLINK("http://a")'


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    toy = make_toy(tmp_path_factory.mktemp("safe"), patients=20)
    path = toy.data / "train.csv"
    table = pd.read_csv(path).rename(columns={LABELS[0]: FORMULA})
    table.assign(patient="@" + table["patient"]).to_csv(path, index=False)
    return toy


def begins(folder):
    """The first characters of all cells that are not numbers."""
    cells = set()
    for path in folder.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            cells |= {cell for row in csv.reader(file) for cell in row if cell}
    return {cell[0] for cell in cells if not cell.lstrip("+-").replace(".", "").replace("e-", "").isdigit()}


def test_no_cell_is_a_formula_and_what_is_read_is_the_same(toy):
    options = ("--folds", "2", "--backbones", "alpha", "--ensemble", "none")
    code, said, plain = run(toy, "plain", *options)
    assert code == 0, said
    code, said, safe = run(toy, "safe", *options, "--excel-safe")
    assert code == 0, said
    assert {"=", "@"} <= begins(plain)
    assert not {"=", "@", "+", "-"} & begins(safe)
    plain_run, safe_run = SavedRun.open(plain), SavedRun.open(safe)
    for name in plain_run.record["files"]:
        if name.endswith(".csv") and name != "labels.csv":
            pd.testing.assert_frame_equal(read_run_table(plain_run, name), read_run_table(safe_run, name))
    code, said, folder = predict(toy, safe, "--excel-safe")
    assert code == 0, said
    (header, *rows), (of_run, *theirs) = ((of / "predictions_binary.csv").read_text().split() for of in (folder, safe))
    assert header == of_run
    assert header.startswith("ID,\"'=HYPERLINK(")
    assert sorted(rows) == sorted(theirs)
