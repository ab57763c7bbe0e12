"""Exclusive classes: what counts as such, and what a run of them does."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix
from typer.testing import CliRunner

from classify.__main__ import app
from classify.experiment import run_experiment
from classify.inputs import Inputs, SplitInputs
from classify.models.heads import PRESETS
from classify.report.run_files import RunFiles
from classify.report.tables import describe_classes
from classify.rundir.classes import print_confusions, write_classes
from classify.scores.metrics import OVERALL
from classify.scores.tables.classes import ConfusionFigure
from classify.settings import Settings, check_settings, choose_exclusive
from features.common.arrays import UNKNOWN
from features.common.errors import InputError
from features.common.text import make_console
from tests.classify.toy import LABELS, Toy, label_test_split, make_toy, reseal


def make_classes(classes, labelled_test=None, seed: int = 0) -> Inputs:
    """Images of as many classes as there are numbers; test has classes of its own."""
    rng = np.random.default_rng(seed)
    count = int(max(classes)) + 1

    def split(own, name) -> tuple[SplitInputs, np.ndarray]:
        y = np.eye(count, dtype=np.uint8)[np.asarray(own)]
        features = (y @ rng.normal(size=(count, 8)) * 0.8 + rng.normal(size=(len(y), 8))).astype(np.float32)
        ids = tuple(f"{name}{row}" for row in range(len(y)))
        return SplitInputs(ids, np.ones(len(y), bool), features, y, None, {}), y

    train, y = split(classes, "i")
    test = None if labelled_test is None else split(labelled_test, "t")[0]
    return Inputs(tuple(f"class{index}" for index in range(count)), {"alpha": slice(0, 8)}, train, y, test)


def change(inputs: Inputs, row: int, cells) -> Inputs:
    labels = inputs.train_labels.copy()
    labels[row] = cells
    return replace(inputs, train_labels=labels)


ONE_EACH = make_classes([0, 1, 2, 1, 0], [2, 1])
NOT_SO = {
    "i2 has no label": change(ONE_EACH, 2, [0, 0, 0]),
    "i3 has class0 and class2": change(ONE_EACH, 3, [1, 0, 1]),
    "i1 has a label that is not known": change(ONE_EACH, 1, [0, 1, UNKNOWN]),
    "i4 has a label that is not known": change(ONE_EACH, 4, [0, UNKNOWN, 0]),
}


def test_images_with_one_label_each_are_of_exclusive_classes():
    said = "classes: each labelled image has exactly one of 3 labels, so they are exclusive"
    for choice in ("auto", "yes"):
        exclusive, line = choose_exclusive(choice, ONE_EACH)
        assert exclusive
        assert line.startswith(said)
    assert choose_exclusive("no", ONE_EACH) == (False, "")
    unlabelled = replace(ONE_EACH, test=replace(ONE_EACH.test, labels=None))
    assert choose_exclusive("auto", unlabelled)[0]


@pytest.mark.parametrize("what", NOT_SO)
def test_an_image_with_none_or_several_is_named_where_it_must_not_be(what):
    assert choose_exclusive("auto", NOT_SO[what]) == (False, "")
    with pytest.raises(InputError, match=f"--exclusive yes: train image {what}"):
        choose_exclusive("yes", NOT_SO[what])


def test_labels_of_test_that_are_not_so_are_said():
    other = replace(ONE_EACH.test, labels=np.array([[0, 0, 1], [1, 1, 0]], np.uint8))
    exclusive, line = choose_exclusive("auto", replace(ONE_EACH, test=other))
    assert not exclusive
    assert "test image t1 has class0 and class1" in line


def test_test_images_of_which_nothing_is_known_are_not_labelled():
    other = replace(ONE_EACH.test, labels=np.array([[UNKNOWN] * 3, [0, 1, 0]], np.uint8))
    assert choose_exclusive("yes", replace(ONE_EACH, test=other))[0]
    partial = replace(ONE_EACH.test, labels=np.array([[UNKNOWN] * 3, [0, 1, UNKNOWN]], np.uint8))
    with pytest.raises(InputError, match="--exclusive yes: test image t1 has a label that is not known"):
        choose_exclusive("yes", replace(ONE_EACH, test=partial))


def test_one_label_alone_is_no_class():
    alone = make_classes([0, 0, 0])
    assert choose_exclusive("auto", alone) == (False, "")
    with pytest.raises(InputError, match="there is one label alone, class0"):
        choose_exclusive("yes", alone)


def test_softmax_is_refused_where_classes_are_not_exclusive():
    heads = {"mine": replace(PRESETS["linear"], output="softmax")}
    with pytest.raises(InputError, match="--preset: the output of mine is softmax"):
        check_settings(Settings(heads=heads), ONE_EACH)


def test_a_head_without_an_output_follows_the_data():
    spec = PRESETS["linear-l2"]
    assert [spec.for_classes(exclusive).output for exclusive in (True, False)] == ["softmax", "sigmoid"]
    sigmoid = replace(spec, output="sigmoid")
    assert sigmoid.for_classes(True) is sigmoid


def test_a_run_scores_classes_and_may_choose_by_them():
    classes = np.random.default_rng(1).choice(4, 240, p=(0.4, 0.3, 0.2, 0.1))
    of_test = (classes[::-1] + 1) % 4  # other shares: its largest class is not that of train
    inputs = make_classes(classes, of_test)
    heads = {"quick": replace(PRESETS["linear"], learning_rate=1e-2, batch_size=64, epochs=15)}
    choices = {"heads": heads, "ensembles": ("mean",), "exclusive": True}
    found = run_experiment(inputs, Settings(jobs=2, select="top1_accuracy", **choices), lambda: None)
    assert found.heads["quick/alpha"][0].spec.output == "softmax"
    assert found.selector == "top1_accuracy"
    right = {}
    for model, prediction in found.predictions.items():
        for split, given, truth in (("oof", prediction.out_of_fold, classes), ("test", prediction.test, of_test)):
            of_rows = {s.metric: s for s in found.scores[model, split] if s.label == OVERALL}
            picked = given.argmax(axis=1)
            assert of_rows["top1_accuracy"].value == pytest.approx(accuracy_score(truth, picked))
            assert of_rows["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(truth, picked))
            assert of_rows["majority_accuracy"].value == pytest.approx(np.bincount(truth).max() / len(truth))
            top1 = of_rows["top1_accuracy"]
            assert top1.low < top1.value < top1.high
        right[model] = found.macro(model, "top1_accuracy").value
        assert found.comparisons[model].difference == pytest.approx(right[model] - right[found.final_model])
    assert min(right.values()) > 0.5
    best = max(right.values())
    assert all(found.comparisons[model].tied for model in right if right[model] == best)
    np.testing.assert_allclose(found.predictions["quick/alpha"].out_of_fold.sum(axis=1), 1, atol=1e-5)
    assert found.nested.value == pytest.approx(
        np.mean(
            [
                found.predictions[model].by_repeat[0, row].argmax() == classes[row]
                for fold, model in enumerate(found.nested.chosen)
                for row in np.flatnonzero(found.folds.fold_of_row == fold)
            ]
        )
    )


def test_of_classes_of_one_size_the_largest_has_its_share_though_each_fold_learnt_from_more_of_another():
    settings = Settings(folds=3, jobs=2, ensembles=(), exclusive=True)
    found = run_experiment(make_classes(np.arange(100) % 4), settings, lambda: None)
    of_rows = {s.metric: s for s in found.scores[found.final_model, "oof"] if s.label == OVERALL}
    assert of_rows["majority_accuracy"].value == 0.25


def test_metrics_of_classes_choose_nothing_where_there_are_none():
    with pytest.raises(InputError, match="--select balanced_accuracy is for exclusive classes"):
        check_settings(Settings(select="balanced_accuracy"), ONE_EACH)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    """A data set of one label each, whose test is labelled."""
    toy = make_toy(tmp_path_factory.mktemp("classes"))
    for name in ("train", "test"):
        labels = getattr(toy, f"{name}_labels")
        setattr(toy, f"{name}_labels", np.eye(3, dtype=np.uint8)[(labels * (3, 1, 2)).argmax(axis=1)])
    table = pd.read_csv(toy.data / "train.csv", dtype=str)
    table[list(LABELS)] = toy.train_labels
    table.to_csv(toy.data / "train.csv", index=False)
    label_test_split(toy)
    return toy


def call(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def said(toy) -> str:
    presets = toy.data.parent / "mine.json"
    presets.write_text('{"mine": {"learning_rate": 0.01, "batch_size": 64, "epochs": 5}}')
    options = ("--folds", 2, "--ensemble", "mean", "--preset", presets, "--fits-gb", 0, "--jobs", 1)
    return call("run", toy.data, "--cache", toy.cache, "--out", toy.data.parent / "run", *options)


def test_a_run_says_that_classes_are_exclusive_before_all_else(said, toy):
    assert " classes: each labelled image has exactly one of 3 labels, so they are exclusive" in said
    assert said.index("classes: each") < said.index("fitted: ")
    record = json.loads((toy.data.parent / "run" / "run.json").read_text())
    assert record["exclusive"] is True
    assert record["arguments"]["exclusive"] == "auto"
    assert record["models"]["mine/all"]["spec"]["output"] == "softmax"


def test_the_console_shows_accuracy_and_the_confusion_matrix(said, toy):
    oof = pd.read_csv(toy.data.parent / "run" / "oof_probability.csv")
    final = json.loads((toy.data.parent / "run" / "run.json").read_text())["final_model"]
    picked = oof[oof["model"] == final][list(LABELS)].to_numpy().argmax(axis=1)
    truth = toy.train_labels.argmax(axis=1)
    assert f"top-1 accuracy out-of-fold: {accuracy_score(truth, picked):.3f} [" in said
    assert f"balanced (the mean over classes): {balanced_accuracy_score(truth, picked):.3f} [" in said
    assert "top-1 in brackets: of giving every image the largest class" in said
    for name, row in zip(LABELS, confusion_matrix(truth, picked), strict=True):
        assert f"{name} {' '.join(map(str, row))} {row[LABELS.index(name)] / row.sum():.3f} " in said


def test_predictions_hold_a_class_for_every_test_image(said, toy):
    run = toy.data.parent / "run"
    table = pd.read_csv(run / "predictions_class.csv")
    probabilities = pd.read_csv(run / "predictions_probability.csv")
    assert list(table.columns) == ["ID", "class", "probability"]
    assert list(table["ID"]) == toy.test_ids
    of_labels = probabilities[list(LABELS)].to_numpy()
    assert list(table["class"]) == [LABELS[place] for place in of_labels.argmax(axis=1)]
    np.testing.assert_array_equal(table["probability"], of_labels.max(axis=1))
    matrix = pd.read_csv(run / "confusion_matrix.csv")
    counts = matrix.pivot_table(index=["split", "truth"], columns="predicted", values="images", sort=False)
    expected = confusion_matrix(toy.test_labels.argmax(axis=1), of_labels.argmax(axis=1))
    np.testing.assert_array_equal(counts.loc["test"].loc[list(LABELS), list(LABELS)], expected)


def test_predict_gives_new_images_their_class(said, toy, tmp_path):
    run, out = toy.data.parent / "run", tmp_path / "new"
    words = call("predict", run, "--cache", toy.cache, "--split", "test", "--out", out)
    assert "predictions_binary.csv, predictions_class.csv, prediction.json" in words
    ours, of_run = (pd.read_csv(folder / "predictions_class.csv").set_index("ID") for folder in (out, run))
    pd.testing.assert_frame_equal(ours.loc[of_run.index], of_run)
    record = json.loads((run / "run.json").read_text())
    multilabel = shutil.copytree(run, tmp_path / "multilabel")
    reseal(multilabel, exclusive=False)
    call("predict", multilabel, "--cache", toy.cache, "--split", "test", "--out", out, "--overwrite")
    assert record["exclusive"]
    assert not (out / "predictions_class.csv").exists()


def test_a_rejected_image_has_an_empty_class(tmp_path):
    probabilities = np.array([[0.2, 0.5], [0.25, 0.125]], np.float32)
    write_classes(tmp_path, ["a", "b", "c"], ["a", "c"], probabilities, ("x", "007"))
    expected = "ID,class,probability\na,007,0.5\nb,,\nc,x,0.25\n"
    assert (tmp_path / "predictions_class.csv").read_text() == expected


def test_many_classes_show_their_most_frequent_confusions(capsys):
    counts = np.eye(9, dtype=int) * 20
    counts[2, 7], counts[8, 0] = 5, 3
    names = [f"class{number}" for number in range(9)]
    figures = [
        ConfusionFigure(
            "oof", truth, taken, int(counts[row, column]), counts[row, column] / counts[row].sum(), *[None] * 2, ""
        )
        for row, truth in enumerate(names)
        for column, taken in enumerate(names)
    ]
    print_confusions(make_console(), figures)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "classes out-of-fold, the most frequent of 2 confusions (confusion_matrix.csv has all):",
        "  class2 taken for class7: 5 images, 20.0% of class2",
        "  class8 taken for class0: 3 images, 13.0% of class8",
    ]


def test_the_report_shows_accuracy_and_the_confusion_matrix(said, toy):
    run = toy.data.parent / "run"
    call("report", run)
    page = (run / "report.html").read_text()
    own = page[page.index('<section id="classes"') :].split("</section>")[0]
    words = " ".join(re.sub(r"<[^>]+>", " ", own).split())
    metrics = pd.read_csv(run / "metrics.csv")
    final = json.loads((run / "run.json").read_text())["final_model"]
    of_run = metrics[(metrics["model"] == final) & (metrics["label"] == "overall")].set_index(["split", "metric"])
    for split in ("oof", "test"):
        for metric in ("top1_accuracy", "balanced_accuracy", "majority_accuracy"):
            value, low, high = of_run.loc[(split, metric), ["value", "low", "high"]]
            assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in words
    board = page[page.index('<table id="leaderboard"') :].split("</table>")[0]
    assert ">top-1<" in board
    assert f"{of_run.loc[('oof', 'top1_accuracy'), 'value']:.3f}</td>" in board
    matrix = pd.read_csv(run / "confusion_matrix.csv")
    for split, name in ((split, name) for split in ("oof", "test") for name in LABELS):
        row = matrix[(matrix["split"] == split) & (matrix["truth"] == name)]
        cells = " ".join(f"{cell.images} {100 * cell.share:.1f} %" for cell in row.itertuples())
        assert f"{name} {cells}" in words


def test_runs_are_compared_by_accuracy_too(said, toy, tmp_path):
    options = ("--folds", 2, "--ensemble", "none", "--preset", "none", "--fits-gb", 0, "--backbones", "alpha")
    other, page = tmp_path / "other", tmp_path / "compare.html"
    call("run", toy.data, "--cache", toy.cache, "--out", other, *options)
    words = call("compare", toy.data.parent / "run", other, "--out", page)
    right = []
    for run in (toy.data.parent / "run", other):
        oof, final = pd.read_csv(run / "oof_probability.csv"), json.loads((run / "run.json").read_text())["final_model"]
        picked = oof[oof["model"] == final][list(LABELS)].to_numpy().argmax(axis=1)
        right.append(accuracy_score(toy.train_labels.argmax(axis=1), picked))
    assert f"top-1 accuracy of run: {right[0]:.3f} [" in words
    assert f"top-1 accuracy of other: {right[1]:.3f} [" in words
    assert f"], {right[1] - right[0]:+.3f} [" in words
    assert f"op-1 accuracy of other: {right[1]:.3f} [" in page.read_text()


def test_a_report_of_many_classes_lists_the_most_frequent_confusions(said, toy, monkeypatch):
    monkeypatch.setattr("classify.report.tables._MATRIX", 2)
    section, _ = describe_classes(RunFiles.read(toy.data.parent / "run"))
    assert section["matrix"] == []
    images = [cell["images"] for cell in section["confusions"]]
    assert images == sorted(images, reverse=True)
    assert all(cell["truth"] != cell["predicted"] for cell in section["confusions"])
