"""The leaderboard: one line a model, best first, with the figures of metrics.csv, within 120 columns."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from classify.__main__ import app
from classify.rundir.console import list_useless, rank_models
from tests.classify.toy import LABELS, Toy, label_test_split, make_toy


@pytest.fixture
def toy(tmp_path) -> Toy:
    return make_toy(tmp_path)


def lines_of_leaderboard(toy: Toy, *options: str) -> tuple[list[str], list[list[str]]]:
    """Run without heads; the heading's lines, and the words of each model's line."""
    arguments = ["run", str(toy.data), "--cache", str(toy.cache), "--out", str(toy.data.parent / "run")]
    result = CliRunner().invoke(app, [*arguments, "--preset", "none", "--baselines", "logistic", *options])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("model "))
    end = next(number for number, line in enumerate(lines) if line.startswith("*: the final model"))
    assert max(len(line) for line in lines[start:end]) <= 120
    return lines[start - 1 : start + 1], [line.split() for line in lines[start + 1 : end]]


def test_one_line_a_model_best_first_with_the_figures_of_the_metrics(toy):
    label_test_split(toy)
    heading, lines = lines_of_leaderboard(toy, "--baselines", "logistic,prior")
    assert " ".join(heading[1].split()) == "model bones macro AUC AP loss F1 accuracy seconds test macro AUC"
    metrics = pd.read_csv(toy.data.parent / "run" / "metrics.csv").query("label == 'macro'")
    metrics = metrics.set_index(["model", "split", "metric"]).sort_index()
    final = json.loads((toy.data.parent / "run" / "run.json").read_text())["final_model"]

    assert sorted(words[0] for words in lines) == sorted({model for model, _, _ in metrics.index})
    assert [words[0] for words in lines if words[1] == "*"] == [final]
    aucs = [metrics.loc[(words[0], "oof", "roc_auc"), "value"] for words in lines]
    assert aucs == sorted(aucs, reverse=True)
    for model, *words in lines:
        shown = words[words[0] in "*=" :]
        backbones = {"prior": "0", "logistic/alpha": "1", "logistic/beta": "1"}.get(model, "2")
        assert shown[:3] == [backbones, "of", "2"]
        oof = metrics.loc[(model, "oof")]
        of_test = metrics.loc[(model, "test", "roc_auc")]
        expected = [
            *(f"{oof.loc['roc_auc', 'value']:.3f} [{oof.loc['roc_auc', 'low']:.3f}, ".split()),
            f"{oof.loc['roc_auc', 'high']:.3f}]",
            *(f"{oof.loc[metric, 'value']:.3f}" for metric in ("average_precision", "log_loss", "f1", "accuracy")),
            f"({oof.loc['constant_accuracy', 'value']:.3f})",
        ]
        assert shown[3:11] == expected
        assert shown[12:] == [f"{of_test['value']:.3f}", f"[{of_test['low']:.3f},", f"{of_test['high']:.3f}]"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "out-of-fold: 1 model an image; test: the mean of 5 models"),
        (("--folds", "2", "--repeats", "3"), "out-of-fold: 3 models an image; test: the mean of 6 models"),
        (("--refit",), None),
    ],
)
def test_how_many_models_score_an_image_is_said_beside_the_columns(toy, options, said):
    label_test_split(toy)
    arguments = ["run", str(toy.data), "--cache", str(toy.cache), "--out", str(toy.data.parent / "run")]
    result = CliRunner().invoke(app, [*arguments, "--preset", "none", "--backbones", "beta", *options])
    assert result.exit_code == 0, result.output
    found = [line for line in result.output.splitlines() if line.startswith("out-of-fold: ")]
    assert [line.startswith(said or "") for line in found] == ([] if said is None else [True])


@pytest.mark.parametrize(("baseline", "said"), [("prior", True), ("logistic", False)])
def test_a_model_that_may_be_no_better_than_chance_is_called_so(toy, baseline, said):
    arguments = ["run", str(toy.data), "--cache", str(toy.cache), "--out", str(toy.data.parent / "run")]
    options = ["--preset", "none", "--backbones", "beta", "--baselines", baseline]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == 0, result.output
    assert ("the final model may be no better than chance, a macro roc_auc of 0.5" in result.output) == said


def test_without_labels_of_test_there_is_no_column_of_it(toy):
    heading, lines = lines_of_leaderboard(toy, "--backbones", "beta", "--labels", LABELS[1])
    assert "test" not in " ".join(heading)
    assert [words[:5] for words in lines] == [["logistic/beta", "*", "1", "of", "1"]]


def test_models_without_a_score_come_last_and_equal_ones_keep_their_order():
    ordered = rank_models({"undefined": None, "nan": math.nan, "low": 0.6, "first": 0.7, "second": 0.7})
    assert ordered == ["first", "second", "low", "undefined", "nan"]


def test_thresholds_that_mark_nearly_every_image_are_named():
    costs = np.zeros((3, 6))
    costs[:, 2] = 0.013, 0.1, 0.5  # specificities
    assert list_useless(("epidural", "subdural", "any"), costs) == ["epidural (99%)"]


def test_a_mean_by_group_of_other_labels_than_by_image_is_not_printed(toy):
    table = pd.read_csv(toy.data / "train.csv")
    table.loc[::5, LABELS[1]] = 1  # the first image of each patient: no patient is without it
    table.to_csv(toy.data / "train.csv", index=False)
    arguments = ["run", str(toy.data), "--cache", str(toy.cache), "--out", str(toy.data.parent / "run")]
    result = CliRunner().invoke(app, [*arguments, "--preset", "none", "--backbones", "beta", "--baselines", "logistic"])
    assert result.exit_code == 0, result.output
    said = f"by group (40), macro AUC: none, as no AUC by group is defined for {LABELS[1]}; by image 0."
    assert said in " ".join(result.output.split())
