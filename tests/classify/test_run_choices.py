"""`python -m classify run`: ensembles, calibration and thresholds are as asked for."""

import json

import numpy as np
import pandas as pd
import pytest

from classify.scores.metrics import ThresholdRule
from classify.scores.thresholds import cross_fit_binary, fit_thresholds
from features.folds.folds import Folds
from tests.classify.test_run import LOGISTIC, run
from tests.classify.toy import LABELS, Toy, change_cache_file, label_test_split, make_toy


@pytest.fixture
def toy(tmp_path) -> Toy:
    return make_toy(tmp_path)


def test_thresholds_are_those_of_the_rule_and_their_cost_is_said(toy):
    _, said, out = run(toy, "run", "--threshold", "sensitivity=0.9", "--select", "log_loss")
    record = json.loads((out / "run.json").read_text())
    final = record["final_model"]
    table = pd.read_csv(out / "thresholds.csv").set_index(["model", "label"])
    out_of_fold = pd.read_csv(out / "oof_probability.csv", dtype=dict.fromkeys(LABELS, np.float32))
    out_of_fold = out_of_fold[out_of_fold["model"] == final]
    probabilities, rule = out_of_fold[list(LABELS)].to_numpy(), ThresholdRule.parse("sensitivity=0.9")
    expected = fit_thresholds(toy.train_labels, probabilities, rule)
    np.testing.assert_allclose(table.loc[final]["threshold"], expected)
    of_final = table.loc[final]["threshold"].to_dict()
    assert record["thresholds"] == {"rule": rule.text, "of_final_model": of_final, "promises": {}}
    folds = Folds(out_of_fold["fold"].to_numpy(), 5, 40, ())
    found = cross_fit_binary(toy.train_labels, probabilities, rule, folds)[toy.train_labels[:, 1] == 1, 1].mean()
    row = table.loc[final, LABELS[1]]
    assert row["sensitivity"] == pytest.approx(found)
    assert row["sensitivity_at_half"] == pytest.approx((probabilities[toy.train_labels[:, 1] == 1, 1] >= 0.5).mean())
    assert (
        f"final model: {final} (the fewest backbones of the models tied with the lowest cross-fitted macro log_loss)"
        in said
    )
    assert "its thresholds, for sensitivity=0.9, cross-fitted on the training images" in said
    cells = " ".join(f"{value:.3f}" for value in row.drop("rule"))
    assert cells in said


def test_ensembles_and_calibration_are_as_asked_for(toy):
    _, said, out = run(toy, "run", "--ensemble", "greedy,mean", "--select", "greedy", "--calibration", "platt")
    record = json.loads((out / "run.json").read_text())
    assert list(record["models"]) == [*LOGISTIC, "mean", "greedy", "greedy+platt"]
    assert record["final_model"] == "greedy+platt"
    assert sum(record["models"]["greedy"]["shares"].values()) == pytest.approx(1)
    assert record["selection"]["means"] == "named by --select greedy"
    assert record["selection"]["nested"] is None
    assert "predicted by greedy+platt" in said
    run(toy, "bare", "--ensemble", "none")
    assert list(json.loads((out.parent / "bare" / "run.json").read_text())["models"]) == LOGISTIC


def test_a_promise_a_prevalence_and_subgroups_are_in_the_files_and_said(toy):
    label_test_split(toy)
    train = pd.read_csv(toy.data / "train.csv")
    train["sex"] = np.arange(len(train)) // 5 % 2
    train["scanner"] = np.where(np.arange(len(train)) < 10, "new", "old")
    train.to_csv(toy.data / "train.csv", index=False)
    options = ("--threshold", "sensitivity>=0.9@95", "--prevalence", "epidural=0.01", "--by", "sex,scanner")
    _, said, out = run(toy, "run", *options, "--baselines", "logistic", "--backbones", "beta")
    record = json.loads((out / "run.json").read_text())
    assert record["labels"] == list(LABELS)
    assert record["arguments"]["prevalence"] == ["epidural=0.01"]
    for label, promise in record["thresholds"]["promises"].items():
        assert f"sensitivity>=0.9@95 of {label} rests on: {promise['rests_on']}" in said
    points = pd.read_csv(out / "operating_points.csv").set_index(["split", "label", "at", "figure"])
    assert points.loc["oof", "epidural"]["prevalence"].unique() == [0.01]
    assert points.loc["test", "subarachnoid"]["prevalence"].unique() == [pytest.approx(toy.test_labels[:, 2].mean())]
    cuts = record["thresholds"]["of_final_model"]
    assert points.loc["oof", "epidural", "sensitivity>=0.9@95"]["threshold"].unique() == [
        pytest.approx(cuts["epidural"])
    ]
    groups = pd.read_csv(out / "group_scores.csv")
    assert set(groups["split"]) == {"oof"}  # no groups are known of test
    assert "by group (40), macro AUC: " in said
    subgroups = pd.read_csv(out / "subgroups.csv", dtype={"subgroup": str})
    sizes = subgroups.groupby(["column", "subgroup"])["images"].first().to_dict()
    assert sizes == {("sex", "0"): 100, ("sex", "1"): 100, ("scanner", "new"): 10, ("scanner", "old"): 190}
    assert "subgroups of fewer than 20 images, not scored: scanner new (oof, 10)" in said
    assert "the table of test does not have sex, scanner: not scored by that on test" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--by", "site"), "has no column 'site' to split the images by. Its columns: ID, epidural"),
        (("--by", "patient"), "--by patient: the column has 40 different values"),
        (("--prevalence", "subdural=0.1"), "--prevalence names 'subdural', which is not a label. The labels: epidural"),
    ],
)
def test_what_the_data_set_does_not_have_is_one_message(options, message, toy):
    code, said, _ = run(toy, "run", *options)
    assert code == 2
    assert message in said


def test_the_return_of_each_backbone_is_listed_with_its_megabytes_and_seconds(toy):
    for split, name, seconds in (("train", "alpha", 0.25), ("test", "alpha", 0.5), ("train", "beta", 2.0)):
        change_cache_file(toy.cache / split / f"{name}.h5", lambda features: None, seconds)
    _, said, out = run(toy)
    table = pd.read_csv(out / "backbones.csv")
    columns = ["backbone", "macro_auc", "gain", "low", "high", "megabytes", "gain_per_megabyte"]
    columns += ["seconds", "gain_per_second", "views"]
    assert list(table.columns) == columns
    assert set(table["backbone"]) == {"alpha", "beta"}
    metrics = pd.read_csv(out / "metrics.csv").set_index(["model", "label", "metric"])["value"]
    alone = [metrics[f"logistic/{name}", "macro", "roc_auc"] for name in ("alpha", "beta")]
    assert table["macro_auc"][0] == pytest.approx(max(alone))
    sizes = [
        sum((toy.cache / s / f"{name}.h5").stat().st_size for s in ("train", "test")) for name in table["backbone"]
    ]
    np.testing.assert_allclose(table["megabytes"], np.array(sizes) / 1e6)
    np.testing.assert_allclose(table["gain_per_megabyte"], table["gain"] / table["megabytes"])
    by_name = table.set_index("backbone")
    assert by_name["seconds"]["alpha"] == 200 * 0.25 + 30 * 0.5
    assert by_name["gain_per_second"]["alpha"] == pytest.approx(by_name["gain"]["alpha"] / 65)
    assert by_name.loc["beta", ["seconds", "gain_per_second"]].isna().all()  # its test file does not say
    steps = (f"{r.backbone} {r.macro_auc:.3f} ({r.gain:+.3f})" for r in table.itertuples())
    assert f"macro AUC (gain): {', '.join(steps)}" in said
    run(toy, "lone", "--backbones", "alpha")
    assert not (out.parent / "lone" / "backbones.csv").exists()


def test_baselines_are_fitted_per_backbone_and_the_prior_is_a_floor_outside_the_ensembles(toy):
    _, _, out = run(toy, "run", "--baselines", "prior,knn,logistic", "--ensemble", "mean")
    models = json.loads((out / "run.json").read_text())["models"]
    assert list(models) == [*LOGISTIC, *(name.replace("logistic", "knn") for name in LOGISTIC), "prior", "mean"]
    assert set(models["mean"]["shares"]) == set(models) - {"prior", "mean"}
    assert models["prior"]["backbones"] == []
    run(toy, "floor", "--baselines", "prior")
    assert list(json.loads((out.parent / "floor" / "run.json").read_text())["models"]) == ["prior"]
