"""One label, exclusive classes, unknown labels, no groups: every command takes them, and its files can be read."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix
from typer.testing import CliRunner

from classify.__main__ import app
from classify.models.heads import HeadSpec, write_presets
from tests.classify.toy import LABELS, Toy, make_toy


def make_one_label(toy: Toy, table: pd.DataFrame) -> pd.DataFrame:
    """Few images have the only label."""
    table.loc[np.flatnonzero(table[LABELS[0]])[12:], LABELS[0]] = 0
    return table.drop(columns=list(LABELS[1:]))


def make_classes(toy: Toy, table: pd.DataFrame) -> pd.DataFrame:
    """Each image has exactly one label."""
    table[list(LABELS)] = np.eye(3, dtype=int)[(toy.train_labels * (3, 1, 2)).argmax(axis=1)]
    return table


def make_unknown(toy: Toy, table: pd.DataFrame) -> pd.DataFrame:
    """Of each label, every fifth cell is blank or -1."""
    for number, name in enumerate(LABELS):
        table.loc[number::10, name], table.loc[number + 5 :: 10, name] = pd.NA, -1
    return table


def make_lone_groups(toy: Toy, table: pd.DataFrame) -> pd.DataFrame:
    """Each group has one value of the only label, and fills a fold: no fold has pairs to rank."""
    table = table.drop(columns=list(LABELS[1:]))
    table["patient"] = [f"p{number}" for number in np.arange(len(table)) % 4]
    table[LABELS[0]] = np.arange(len(table)) % 2
    return table


#: Changes of a table, and options of the run.
KINDS = {
    "one label": (make_one_label, ()),
    "classes": (make_classes, ("--holdout", "0.2")),
    "unknown": (make_unknown, ("--gap",)),
    "no groups": (lambda toy, table: table.drop(columns="patient"), ()),
    "held out": (lambda toy, table: table, ("--holdout", "0.25", "--nested", "--permutations", "2")),
    "lone groups": (make_lone_groups, ("--gap", "--folds", "4")),
}


def call(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes, once, a run of a kind of labels, with its report; gives the data set, the run and what was said."""

    @cache
    def make(kind: str) -> tuple[Toy, Path, str]:
        change, options = KINDS[kind]
        toy = make_toy(tmp_path_factory.mktemp("kind"))
        table = change(toy, pd.read_csv(toy.data / "train.csv", dtype={"ID": str}))
        table.to_csv(toy.data / "train.csv", index=False)
        out, presets = toy.data.parent / "run", toy.data.parent / "tiny.json"
        write_presets(presets, {"tiny": HeadSpec(learning_rate=1e-2, batch_size=64, epochs=4)})
        words: tuple[object, ...] = () if "--folds" in options else ("--folds", 3)
        words += ("--preset", presets, "--ensemble", "mean", "--fits-gb", 0, "--jobs", 1, *options)
        said = call("run", toy.data, "--cache", toy.cache, "--out", out, *words)
        call("report", out)
        return toy, out, said

    return make


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


@pytest.mark.parametrize("kind", KINDS)
def test_every_record_is_json_that_any_program_reads(made, kind):
    toy, out, _ = made(kind)
    target = out / "predictions" / "again"
    call("predict", out, "--cache", toy.cache, "--split", "test", "--out", target)
    records = [*out.rglob("*.json")]
    assert {path.name for path in records} >= {"run.json", "prediction.json"}
    for path in records:
        json.loads(path.read_text(), parse_constant=refuse)


def test_a_gap_without_a_pair_to_rank_is_null(made):
    _, out, said = made("lone groups")
    gap = json.loads((out / "run.json").read_text())["gap"]
    assert gap["grouped"] == {"value": None, "low": None, "high": None}
    assert gap["by_label"][LABELS[0]]["random"] > 0
    assert gap["by_label"][LABELS[0]]["grouped"] is None
    assert "gap: - macro AUC" in said


@pytest.mark.parametrize(("kind", "output"), [("classes", "softmax"), ("unknown", "sigmoid"), ("one label", "sigmoid")])
def test_heads_are_searched_and_their_learning_curve_drawn(made, kind, output, monkeypatch):
    toy, out, _ = made(kind)
    study, again = toy.data.parent / "study", toy.data.parent / "again"
    said = call("search", toy.data, "--cache", toy.cache, "--out", study, "--trials", 3, "--batch", 3)
    labels = 1 if kind == "one label" else 3
    assert f"; {labels} label{'s' * (labels > 1)}; 32 features of alpha, beta" in said
    best = json.loads((study / "best.json").read_text())
    words = ("--preset", study / "best.json", "--folds", 2, "--ensemble", "none", "--fits-gb", 0)
    call("run", toy.data, "--cache", toy.cache, "--out", again, *words)
    models = json.loads((again / "run.json").read_text())["models"]
    assert {models[f"{name}/all"]["spec"]["output"] for name in best} == {output}
    # A hold-out is that of the run, whatever would be drawn today.
    monkeypatch.setattr("classify.validation.draw_part", lambda labels, *_: np.arange(len(labels)) % 2 == 0)
    said = call("learn", out, "--model", "tiny/alpha", "--draws", 1, "--fits-gb", 0)
    assert "tiny/alpha: 3 folds, 20%, 35%, 50%, 70%, 100% of their groups, 1 draw of each share but the last" in said
    curve = pd.read_csv(out / "learning_curve.csv")
    assert curve.loc[curve["kind"] == "measured", "value"].between(0.3, 1).all()


def test_accuracies_and_confusions_of_a_run_are_scikit_learns_of_its_own_files(made):
    _, out, _ = made("classes")
    record = json.loads((out / "run.json").read_text())
    labels = pd.read_csv(out / "labels.csv", dtype={"ID": str}).set_index("ID")
    oof = pd.read_csv(out / "oof_probability.csv", dtype={"ID": str}).query("model == @record['final_model']")
    test = pd.read_csv(out / "predictions_class.csv", dtype={"ID": str})
    metrics = pd.read_csv(out / "metrics.csv").set_index(["model", "split", "label", "metric"]).sort_index()["value"]
    confusions = pd.read_csv(out / "confusion_matrix.csv").set_index("split")
    predicted = {
        "oof": ("train", oof.set_index("ID")[list(LABELS)].idxmax(axis=1)),
        "test": ("test", test.set_index("ID")["class"]),
    }
    for name, (split, classes) in predicted.items():
        of_split = labels[labels["split"] == split].dropna(subset=LABELS)  # others are predicted alone
        truth = of_split[list(LABELS)].idxmax(axis=1)
        given = classes[truth.index].to_numpy()  # of the images that were held out, and no others
        assert len(truth) == {"train": 160, "test": 40}[split]
        matrix = confusions.loc[name, "images"].to_numpy().reshape(3, 3)
        np.testing.assert_array_equal(matrix, confusion_matrix(truth, given, labels=LABELS))
        shares = confusion_matrix(truth, given, labels=LABELS, normalize="true")
        np.testing.assert_allclose(confusions.loc[name, "share"].to_numpy().reshape(3, 3), shares)
        own = metrics[record["final_model"], name, "overall"]
        assert own["top1_accuracy"] == pytest.approx(accuracy_score(truth, given))
        assert own["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, given))
        by_group = pd.read_csv(out / "group_scores.csv").query("split == @name")["groups"].unique()
        assert by_group.tolist() == [of_split["group"].nunique()]
        most = truth.value_counts(normalize=True).max()
        assert own["majority_accuracy"] == pytest.approx(most)
        page = (out / "report.html").read_text(encoding="utf-8")
        assert "no label for any image" not in page
        if split == "train":  # beside the accuracy of heads, which is of classes too
            cell = f'<td class="number">{most * 100:.1f} %</td>'
            assert f'<th scope="row">the most frequent class for every image</th>{cell * 2}' in page


def test_of_one_label_console_table_and_report_give_the_mean_the_labels_own_interval(made):
    _, out, said = made("one label")
    record = json.loads((out / "run.json").read_text())
    metrics = pd.read_csv(out / "metrics.csv").set_index(["model", "split", "label", "metric"]).sort_index()
    of_final = metrics.loc[record["final_model"], "oof"]
    own, mean = of_final.loc[LABELS[0], "roc_auc"], of_final.loc["macro", "roc_auc"]
    assert own["interval"].startswith("Hanley-McNeil")
    assert own.to_list() == mean.to_list()
    figure = f"{own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}]"
    assert said.count(figure) >= 2  # the leaderboard and the table of labels
    others = "of labels with fewer than 30 groups of positives or of negatives: roc_auc by Hanley-McNeil"
    assert others in said
    nested = record["selection"]["nested"]
    if {*nested["chosen"]} == {record["final_model"]}:  # then it is the same figure
        assert [nested["value"], nested["low"], nested["high"]] == pytest.approx(own.to_list()[:3])
    page = (out / "report.html").read_text()
    assert others in page
    assert page.count(f"[{own['low']:.3f}, {own['high']:.3f}]") >= 2
