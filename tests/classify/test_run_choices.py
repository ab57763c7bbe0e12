"""`python -m classify run`: ensembles, calibration and thresholds are as asked for."""

import json

import numpy as np
import pandas as pd
import pytest

from classify.crossfit.plan import Folds
from classify.scores.metrics import ThresholdRule
from classify.scores.thresholds import cross_fit_binary, fit_thresholds
from tests.classify.test_run import LOGISTIC, run
from tests.classify.toy import LABELS, Toy, change_cache_file, make_toy


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
    assert record["thresholds"] == {"rule": rule.text, "of_final_model": table.loc[final]["threshold"].to_dict()}
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


def test_the_return_of_each_backbone_is_listed_with_its_megabytes_and_seconds(toy):
    for split, name, seconds in (("train", "alpha", 0.25), ("test", "alpha", 0.5), ("train", "beta", 2.0)):
        change_cache_file(toy.cache / split / f"{name}.h5", lambda features: None, seconds)
    _, said, out = run(toy)
    table = pd.read_csv(out / "backbones.csv")
    columns = ["backbone", "macro_auc", "gain", "low", "high", "megabytes", "gain_per_megabyte"]
    columns += ["seconds", "gain_per_second"]
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
