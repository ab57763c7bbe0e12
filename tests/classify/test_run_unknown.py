"""`python -m classify run` on labels of which some are not known: what it writes, says and shows."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from classify import run as run_module
from classify.compare.differences import score_runs
from classify.compare.runs import join_runs
from classify.report.page import write_report
from classify.rundir.saved_run import SavedRun
from classify.scores.metrics import MICRO, OVERALL
from features.common.arrays import UNKNOWN
from features.dataset.run_labels import read_run_labels
from tests.classify.test_run import run
from tests.classify.toy import LABELS, label_test_split, make_toy


def mask(labels, shares, seed):
    """Hide some cells of each label, and all of every tenth row."""
    hidden = np.random.default_rng(seed).random(labels.shape) < shares
    hidden[::10] = True
    return np.where(hidden, UNKNOWN, labels).astype(np.uint8)


@pytest.fixture(scope="module")
def unknown(tmp_path_factory):
    """A run, what it said, and the labels by split."""
    toy = make_toy(tmp_path_factory.mktemp("unknown"))
    label_test_split(toy)
    labels = {"train": mask(toy.train_labels, (0.1, 0.5, 0.0), 1), "test": mask(toy.test_labels, (0.3, 0.0, 0.2), 2)}
    read = run_module.read_dataset

    def read_masked(*words):
        dataset = read(*words)
        splits = {name: replace(split, labels=labels[name]) for name, split in dataset.splits.items()}
        return replace(dataset, splits=splits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "read_dataset", read_masked)
        code, said, out = run(toy, "run", "--folds", "3", "--ensemble", "mean,weights")
    assert code == 0, said
    return out, said, labels, toy


def test_unknown_cells_are_blank_and_read_again(unknown):
    out, _, labels, _ = unknown
    table = pd.read_csv(out / "labels.csv")
    found = read_run_labels(out / "labels.csv")
    for split, own in labels.items():
        written = table.loc[table["split"] == split, list(LABELS)].fillna(UNKNOWN).to_numpy(np.uint8)
        np.testing.assert_array_equal(written, own)
        np.testing.assert_array_equal(found[split].labels, own)


def test_every_image_is_predicted_and_the_known_ones_are_scored(unknown):
    out, _, labels, toy = unknown
    probabilities = pd.read_csv(out / "predictions_probability.csv")
    assert list(probabilities["ID"]) == toy.test_ids
    assert probabilities.notna().all().all()
    binary = pd.read_csv(out / "predictions_binary.csv")
    record = json.loads((out / "run.json").read_text())
    metrics = pd.read_csv(out / "metrics.csv").set_index(["model", "split", "label", "metric"]).sort_index()
    final = metrics.loc[record["final_model"], "test"]
    for index, name in enumerate(LABELS):
        own = labels["test"][:, index] != UNKNOWN
        truth = labels["test"][own, index]
        assert final["value"][name, "roc_auc"] == pytest.approx(roc_auc_score(truth, probabilities.loc[own, name]))
        assert final["value"][name, "accuracy"] == pytest.approx(accuracy_score(truth, binary.loc[own, name]))


def test_known_rows_are_counted_in_the_metrics_the_record_and_the_console(unknown):
    out, said, labels, _ = unknown
    metrics = pd.read_csv(out / "metrics.csv")
    record = json.loads((out / "run.json").read_text())
    for split, name in (("train", "oof"), ("test", "test")):
        known = labels[split] != UNKNOWN
        counts = dict(zip(LABELS, known.sum(axis=0).tolist(), strict=True))
        positives = dict(zip(LABELS, (labels[split] == 1).sum(axis=0).tolist(), strict=True))
        assert record["splits"][split]["known"] == counts
        assert record["splits"][split]["positives"] == positives
        own = metrics[metrics["split"] == name].groupby("label")["known"].unique()
        expected = counts | {MICRO: known.sum(), OVERALL: known.all(axis=1).sum()}
        assert {label: own[label].tolist() for label in expected} == {label: [n] for label, n in expected.items()}
        assert f"{LABELS[0]} {positives[LABELS[0]]} of {counts[LABELS[0]]} known" in said
    assert {name: sum(of_folds) for name, of_folds in record["folds"]["known"].items()} == record["splits"]["train"][
        "known"
    ]
    share = record["splits"]["train"]["positives"][LABELS[1]] / record["splits"]["train"]["known"][LABELS[1]]
    assert SavedRun.open(out).learnt_share(LABELS[1]) == share


def test_neither_the_gallery_nor_the_likely_errors_show_unknown_cells(unknown):
    out, _, labels, toy = unknown
    known = {
        (split, image_id, name)
        for split, ids in (("train", toy.train_ids), ("test", toy.test_ids))
        for row, image_id in enumerate(ids)
        for column, name in enumerate(LABELS)
        if labels[split][row, column] != UNKNOWN
    }
    shown = pd.read_csv(out / "gallery.csv")
    assert {*shown[["split", "ID", "label"]].itertuples(index=False, name=None)} <= known
    errors = pd.read_csv(out / "label_errors.csv")
    assert {("train", row.ID, row.label) for row in errors.itertuples()} <= known


def test_the_report_counts_the_known_rows(unknown):
    out, _, labels, _ = unknown
    write_report(out)
    page = (out / "report.html").read_text()
    positives, known = (labels["train"][:, 1] == 1).sum(), (labels["train"][:, 1] != UNKNOWN).sum()
    assert f"{positives} of {known} known" in page
    hidden = (labels["train"] == UNKNOWN).any(axis=1).sum()
    assert f"train: some label of {hidden} images is not known" in page
    assert ", others not known" in page


def test_runs_are_compared_on_the_known_rows(unknown, tmp_path):
    out, _, _, _ = unknown
    shutil.copytree(out, tmp_path / "again")
    joined = join_runs([out, tmp_path / "again"], None)
    runs, _ = score_runs(joined, lambda: None)
    metrics = pd.read_csv(out / "metrics.csv").set_index(["model", "split", "label", "metric"])["value"]
    for own in runs:
        expected = metrics[own.run.model, "oof", LABELS[1], "average_precision"]
        assert own.figures[LABELS[1], "average_precision"].value == pytest.approx(expected, abs=1e-9)
        assert own.figures[LABELS[1], "average_precision"].difference in (None, 0.0)


def test_groups_are_positive_by_a_known_positive(unknown):
    out, _, labels, _ = unknown
    table = pd.read_csv(out / "group_scores.csv")
    own = table[(table["split"] == "oof") & (table["label"] == LABELS[1])]
    of_patients = labels["train"][:, 1].reshape(-1, 5)  # five images on end
    assert own["positives"].unique().tolist() == [(of_patients == 1).any(axis=1).sum()]
    assert ((of_patients != 1).all(axis=1) & (of_patients == UNKNOWN).any(axis=1)).any()
