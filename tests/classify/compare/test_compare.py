"""Runs beside each other: the images that all have, paired differences that hold, and what was set otherwise."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from typer.testing import CliRunner

from classify.__main__ import app
from classify.compare.differences import few_labels, score_runs
from classify.compare.runs import join_runs
from classify.scores.metrics import MACRO
from features.common.errors import InputError
from tests.classify.test_run import FEW, run
from tests.classify.toy import LABELS, Toy, make_toy, reseal

HOSTILE = "<b>bold</b> & [red]"


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("compared"))


@pytest.fixture(scope="module")
def first(toy) -> Path:
    """A run on both backbones."""
    code, said, out = run(toy, "first", *FEW, "--select", "logistic/all")
    assert code == 0, said
    return out


@pytest.fixture(scope="module")
def second(toy) -> Path:
    """The same on one backbone, with a note."""
    options = ("--backbones", "alpha", "--select", "logistic/alpha", "--note", HOSTILE)
    code, said, out = run(toy, "second", *FEW, *options)
    assert code == 0, said
    return out


@pytest.fixture
def changed(second, tmp_path) -> Path:
    """A copy of the second run that a test may change."""
    return shutil.copytree(second, tmp_path / "changed")


def compare(*words: Path | str):
    result = CliRunner().invoke(app, ["compare", *map(str, words)])
    return result.exit_code, " ".join(result.output.split())


def edit(folder: Path, name: str, change) -> None:
    """Change a table of a run as if the run had written it so."""
    table = pd.read_csv(folder / name, dtype={"fold": "Int64", "group": "object"})
    change(table).to_csv(folder / name, index=False)
    reseal(folder)


def scored(*folders: Path):
    joined = join_runs(folders, None)
    return joined, *score_runs(joined, lambda: None)


def test_figures_are_those_of_the_leaderboard_and_differences_their_differences(first, second):
    joined, runs, left_out = scored(first, second)
    assert [row.run.name for row in runs] == ["first", "second"]  # two backbones know more than one
    assert (joined.caveats, left_out, len(joined.image_ids)) == ((), {}, 200)
    for row in runs:
        board = pd.read_csv(row.run.run.folder / "leaderboard.csv").set_index("model").loc[row.run.model]
        figure = row.figures[MACRO, "roc_auc"]
        np.testing.assert_allclose(figure[:3], board[["value", "low", "high"]].astype(float), atol=1e-12)
    mine, other = (row.figures for row in runs)
    for key, figure in other.items():
        assert figure.difference == pytest.approx(figure.value - mine[key].value, abs=1e-12)
        assert figure.difference_low < figure.difference < figure.difference_high
    assert mine[MACRO, "roc_auc"].difference is None
    figure = other[MACRO, "roc_auc"]
    # Paired draws: the interval of the difference is narrower than of independent runs.
    alone = np.hypot(figure.high - figure.low, mine[MACRO, "roc_auc"].high - mine[MACRO, "roc_auc"].low)
    assert figure.difference_high - figure.difference_low < 0.9 * alone
    assert (figure.verdict, other[MACRO, "log_loss"].verdict) == ("worse", "worse")
    assert figure.won < 0.025  # the interval of the difference excludes 0


def test_the_mean_of_one_label_is_that_label_with_its_interval(first, second):
    joined = join_runs((first, second), None)
    rare = joined.labels[:, :1].copy()
    rare[np.flatnonzero(rare)[12:]] = 0
    cut = [replace(own, probabilities=own.probabilities[:, :1]) for own in joined.runs]
    one = replace(joined, label_names=LABELS[:1], labels=rare, runs=cut)
    assert few_labels(one) == [LABELS[0]]
    for row in score_runs(one, lambda: None)[0]:
        for metric in ("roc_auc", "log_loss"):
            assert row.figures[MACRO, metric] == row.figures[LABELS[0], metric]


def test_per_label_figures_equal_those_of_scikit_learn(first, second):
    joined, runs, _ = scored(first, second)
    own = runs[1].run
    for index, label in enumerate(LABELS):
        truth, probability = joined.labels[:, index], own.probabilities[:, index].astype(float)
        lost = pairs = 0.0
        for fold in np.unique(own.fold_of_row):
            rows = own.fold_of_row == fold
            count = truth[rows].sum() * (1 - truth[rows]).sum()
            lost, pairs = lost + count * (1 - roc_auc_score(truth[rows], probability[rows])), pairs + count
        assert runs[1].figures[label, "roc_auc"].value == pytest.approx(1 - lost / pairs)
        found = runs[1].figures[label, "average_precision"].value
        assert found == pytest.approx(average_precision_score(truth, probability))
        assert runs[1].figures[label, "log_loss"].value == pytest.approx(log_loss(truth, probability))


def test_what_was_set_otherwise_is_said_and_the_note_is_no_setting(first, second):
    _, runs, _ = scored(first, second)
    settings = {row.run.name: row.settings for row in runs}
    assert settings["second"] == {"select": "logistic/alpha", "backbones": "alpha"}
    assert settings["first"] == {"select": "logistic/all", "backbones": "alpha, beta"}
    assert {row.run.name: row.run.note for row in runs} == {"first": "", "second": HOSTILE}


def test_a_spec_a_recipe_and_a_version_that_differ_are_said(first, changed, tmp_path):
    folder = shutil.copytree(first, tmp_path / "spec")
    for path, rate, version in ((folder, 0.1, "1"), (changed, 0.2, "2")):
        record = json.loads((path / "run.json").read_text())
        head = {"spec": {"learning_rate": rate, "dropout": 0.5}, "best_epochs": [1, 1]}
        record["models"][record["final_model"]] |= head
        record["backbones"]["alpha"]["recipe"]["input_size"] = 32 + int(version)
        reseal(path, **{**record, "versions": {**record["versions"], "numpy": version}})
    settings = scored(folder, changed)[1][1].settings
    assert settings["logistic: learning rate"] == "0.2"
    assert (settings["alpha: input size"], settings["version of numpy"]) == ("34", "2")
    assert not any("dropout" in name for name in settings)


def test_the_command_writes_a_page_and_a_table(first, second, tmp_path):
    page = tmp_path / "deep" / "page.html"
    code, said = compare(first, second, "--out", page)
    assert code == 0, said
    assert "compared: 2 runs on 200 training images of 40 groups and 3 labels" in said
    assert f"second differs in: select logistic/alpha, backbones alpha written: {page}" in said
    assert HOSTILE in said
    text = page.read_text()
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; [red]" in text
    assert "<b>bold" not in text
    assert not any(address in text for address in ('src="http', 'href="http', "url(http"))


def test_a_page_of_ours_is_replaced_and_nothing_else(first, second, tmp_path):
    page = tmp_path / "page.html"
    assert compare(first, second, "--out", page)[0] == 0
    assert compare(second, first, "--out", page)[0] == 0
    assert "Differences are from second" in page.read_text()
    page.write_text("mine")
    for out, says in ((page, "was not written by this command"), (tmp_path, "is a folder")):
        code, said = compare(first, second, "--out", out)
        assert (code, said) == (
            2,
            f"error: {out} {says}{', and would be replaced' * (out == page)}. Name another file with --out.",
        )
    assert page.read_text() == "mine"


def test_a_model_may_be_named_that_all_runs_have(first, second, tmp_path):
    joined = join_runs((first, second), "logistic/alpha")
    assert [own.model for own in joined.runs] == ["logistic/alpha"] * 2
    np.testing.assert_array_equal(joined.runs[0].probabilities, joined.runs[1].probabilities)
    code, said = compare(first, second, "--model", "logistic/beta")
    assert (code, "has no model 'logistic/beta'" in said) == (2, True)


def test_only_images_whose_truth_is_the_same_count(first, changed):
    def flip(table):
        return table.assign(epidural=np.where(table.index < 3, 1 - table["epidural"], table["epidural"]))

    whole = join_runs((first, changed), None)
    edit(changed, "labels.csv", flip)
    joined = join_runs((first, changed), None)
    assert joined.image_ids == whole.image_ids[3:]
    assert joined.caveats == (
        "The truth of 3 of the 200 images is not the same in all runs; they are left out: "
        f"{', '.join(whole.image_ids[:3])}.",
    )
    np.testing.assert_array_equal(joined.runs[1].probabilities, whole.runs[1].probabilities[3:])


def test_only_images_that_all_runs_have_count_whatever_their_order(first, changed):
    whole = join_runs((first, changed), None)
    edit(changed, "labels.csv", lambda table: table.iloc[::-1][:150])
    joined = join_runs((first, changed), None)
    assert joined.image_ids == whole.image_ids[50:]
    assert joined.caveats == ("first learnt from 200 images; it is scored on the 150 that all runs have.",)
    np.testing.assert_array_equal(joined.labels, whole.labels[50:])
    np.testing.assert_array_equal(joined.runs[1].fold_of_row, whole.runs[1].fold_of_row[50:])


def test_labels_are_joined_by_name(toy, first):
    code, said, two = run(toy, "two", *FEW, "--labels", "subarachnoid,epidural", "--seed", "1")
    assert code == 0, said
    joined = join_runs((first, two), None)
    assert joined.label_names == ("epidural", "subarachnoid")
    np.testing.assert_array_equal(joined.labels, toy.train_labels[:, [0, 2]])
    for own in joined.runs:
        assert roc_auc_score(joined.labels, own.probabilities) > 0.8
    left_out, other_folds = joined.caveats
    assert left_out == "Labels that not all runs have are left out: intraparenchymal."
    assert other_folds.startswith("Other folds than those of first: two.")


def test_folds_with_other_numbers_are_the_same_folds(first, changed):
    edit(changed, "labels.csv", lambda table: table.assign(fold=1 - table["fold"]))
    assert join_runs((first, changed), None).caveats == ()


def test_groups_are_joined_so_that_no_draw_cuts_one_of_any_run(first, changed, tmp_path):
    whole = join_runs((first, changed), None)
    edit(changed, "labels.csv", lambda table: table.assign(group=table["group"].replace({"p1": "p0"})))
    joined = join_runs((first, changed), None)
    assert len(np.unique(joined.groups)) == len(np.unique(whole.groups)) - 1
    merged = np.isin(whole.groups, ["p0", "p1"])
    assert len(np.unique(joined.groups[merged])) == 1
    assert joined.caveats == (
        "The groups are not the same in all runs: here images are together that are together in any of them, in 39 "
        "groups.",
    )
    edit(changed, "labels.csv", lambda table: table.assign(group=""))
    joined = join_runs((first, changed), None)
    np.testing.assert_array_equal(joined.groups, whole.groups)
    assert joined.caveats == ("No groups are known to changed, whose folds may cut them.",)


def test_a_label_of_few_groups_is_named_and_its_interval_is_wider(first, changed):
    def few(table):
        return table.assign(epidural=(table.index < 20).astype(int))  # 4 patients

    copy = shutil.copytree(first, changed.parent / "copy")
    for folder in (copy, changed):
        edit(folder, "labels.csv", few)
    joined, runs, _ = scored(copy, changed)
    assert few_labels(joined) == ["epidural"]
    found = runs[1].figures["epidural", "roc_auc"]
    by_t = pytest.approx(3.182 / 1.96, rel=1e-3)  # of 3 degrees of freedom
    plain = _plain_interval(joined, runs)
    assert (found.difference_high - found.difference_low) / (plain[1] - plain[0]) == by_t


def _plain_interval(joined, runs):
    """The bootstrap's own interval of the difference in AUC of the first label."""
    from classify.scores.resampling import auc_within_folds, percentile_interval, resample

    draws = resample(len(joined.image_ids), joined.groups, 0)
    own, other = (
        auc_within_folds(joined.labels[:, 0], row.probabilities[None, :, 0], row.fold_of_row[None], draws)
        for row in joined.runs
    )
    return percentile_interval(other - own)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "run.json").unlink(), "holds no finished run"),
        (lambda folder: (folder / "run.json").write_text("{}"), "is of another version of Headbank"),
        (lambda folder: (folder / "labels.csv").unlink(), "labels.csv is missing"),
        (lambda folder: (folder / "oof_probability.csv").write_text("a"), "oof_probability.csv was changed by hand"),
        (lambda folder: shutil.rmtree(folder), "holds no finished run"),
    ],
)
def test_a_folder_that_holds_no_whole_run_is_one_message(first, changed, change, says, tmp_path):
    change(changed)
    code, said = compare(first, changed, "--out", tmp_path / "page.html")
    assert (code, said.count("error:")) == (2, 1)
    assert says in said
    assert not (tmp_path / "page.html").exists()


def test_one_run_or_one_twice_is_refused(first, tmp_path):
    with pytest.raises(InputError, match="at least two runs"):
        join_runs((first,), None)
    with pytest.raises(InputError, match="is named twice"):
        join_runs((first, first.parent / "." / first.name), None)


def test_runs_without_anything_in_common_are_refused(first, changed):
    edit(changed, "labels.csv", lambda table: table.assign(ID="other" + table["ID"]))
    with pytest.raises(InputError, match="no training image in common"):
        join_runs((first, changed), None)
    record = json.loads((changed / "run.json").read_text())
    splits, folds = record["splits"], record["folds"]
    splits["train"]["positives"], folds["positives"] = dict.fromkeys("xyz", 1), dict.fromkeys("xyz", folds["rows"])
    reseal(changed, labels=["x", "y", "z"], splits=splits, folds=folds)
    with pytest.raises(InputError, match=r"no label in common \(first: epidural, .*; changed: x, y, z\)"):
        join_runs((first, changed), None)


def test_a_note_decides_no_fit(toy, first, second):
    """Two runs that differ in nothing else have equal tables; the report's command has it."""
    options = ("--backbones", "alpha", "--select", "logistic/alpha")
    code, said, out = run(toy, "unnoted", *FEW, *options)
    assert code == 0, said
    assert json.loads((out / "run.json").read_text())["note"] is None
    assert json.loads((second / "run.json").read_text())["note"] == HOSTILE
    for name in ("oof_probability.csv", "metrics.csv"):
        assert (out / name).read_bytes() == (second / name).read_bytes()
