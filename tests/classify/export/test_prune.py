"""Pruning: the cheapest model that is as good, what it costs, and that it predicts as a model of the run does."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from classify.export import prune as module
from classify.export.graph import find_obstacle
from classify.export.prune import prune
from features.common.errors import InputError
from features.store.cache_file import CacheFile
from tests.classify.export.test_graph import largest_gap, run_on
from tests.classify.toy import change_cache_file, make_toy, write_cache_file

OPTIONS = ("--baselines", "logistic,ridge_regression", "--preset", "none", "--ensemble", "mean", "--select", "mean")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Two backbones that know the labels, and a third that knows nothing and costs the most."""
    toy = make_toy(tmp_path_factory.mktemp("toy"), patients=30)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, seconds in (("alpha", 0.25), ("beta", 0.5)):
            ids = change_cache_file(toy.cache / split / f"{name}.h5", lambda features: None, seconds)
        write_cache_file(toy.cache / split / "noise.h5", ids, rng.normal(size=(len(ids), 9)), seconds=1.0)
    assert CacheFile.open(toy.cache / "train" / "noise.h5").seconds_per_image == 1.0
    return toy


@pytest.fixture(scope="module")
def saved(toy, tmp_path_factory):
    return run_on(toy, tmp_path_factory.mktemp("run") / "run", *OPTIONS)


def macro_auc(toy, saved, probabilities) -> float:
    """By scikit-learn, over the pairs within folds: the mean over labels."""
    known = saved.labels["train"]
    aucs = []
    for truth, column in zip(known.labels.T, probabilities.T, strict=True):
        pairs, won = 0, 0.0
        for fold in np.unique(known.folds):
            rows = known.folds == fold
            count = int(truth[rows].sum()) * int((1 - truth[rows]).sum())
            pairs, won = pairs + count, won + count * roc_auc_score(truth[rows], column[rows])
        aucs.append(won / pairs)
    return float(np.mean(aucs))


def test_an_ensemble_loses_the_backbone_that_adds_nothing(toy, saved, monkeypatch):
    assert prune(saved, "mean", {}).model == "mean"  # 200 images tell no two ensembles apart by 0.005
    monkeypatch.setattr(module, "LOSS", 0.01)
    pruning = prune(saved, "mean", {})  # none of the run's own models
    assert pruning.model == "mean-pruned"
    assert (pruning.seconds, pruning.seconds_before) == pytest.approx((0.75, 1.75))
    assert pruning.run.needs(pruning.model) == ("alpha", "beta")
    assert -0.01 <= pruning.low < 0 < pruning.high
    members = pruning.run.models["mean-pruned"]["members"]
    assert members == [f"{name}/{on}" for name in ("logistic", "ridge_regression") for on in ("alpha", "beta")]
    table = pd.read_csv(saved.folder / "oof_probability.csv")
    own = [table[table["model"] == member].iloc[:, 3:].to_numpy() for member in members]
    assert pruning.auc == pytest.approx(macro_auc(toy, saved, np.mean(own, axis=0)), abs=1e-6)
    assert find_obstacle(pruning.run, "mean-pruned") == ""
    assert largest_gap(pruning.run, "mean-pruned") < 1e-6


def test_of_models_that_cost_the_same_the_best_is_taken(saved, monkeypatch):
    monkeypatch.setattr(module, "LOSS", 1.0)
    singles = {f"{name}/alpha": True for name in ("logistic", "ridge_regression")}
    pruning = prune(saved, "mean", {**singles, "logistic/beta": True, "logistic/noise": True})
    leaderboard = pd.read_csv(saved.folder / "leaderboard.csv").set_index("model")["value"]
    both = prune(saved, "logistic/all", singles)
    assert both.model == max(singles, key=lambda name: leaderboard[name])
    assert both.auc == pytest.approx(leaderboard[both.model])
    assert pruning.seconds == both.seconds == pytest.approx(0.25)
    assert pruning.run.needs(pruning.model) == ("alpha",)


def test_where_nothing_is_as_good_the_model_stays(saved, monkeypatch):
    monkeypatch.setattr(module, "LOSS", -1.0)
    pruning = prune(saved, "mean", dict.fromkeys(saved.models, True))
    assert (pruning.model, pruning.run, pruning.seconds) == ("mean", saved, pruning.seconds_before)
    assert "no cheaper model is within" in pruning.describe("mean")


def test_a_calibrated_model_stays_calibrated(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOSS", 0.015)
    saved = run_on(toy, tmp_path / "run", *OPTIONS, "--calibration", "platt")
    assert saved.final_model == "mean+platt"
    pruning = prune(saved, "mean+platt", {})
    assert pruning.model == "mean-pruned+platt"
    assert pruning.run.needs(pruning.model) == ("beta",)
    assert largest_gap(pruning.run, pruning.model) < 1e-6
    assert "mean-pruned+platt in place of mean+platt: on beta; AUC 0." in pruning.describe("mean+platt")
    assert "0.5 seconds an image in place of 1.8, which saves 71%" in pruning.describe("mean+platt")
    monkeypatch.setattr(module, "LOSS", 1.0)
    single = prune(saved, "mean+platt", {"logistic/alpha": True, "ridge_regression/alpha": False})
    assert single.run.models[single.model]["members"] in (["logistic/alpha"], ["mean-pruned"])
    assert single.seconds == pytest.approx(0.25)


def test_a_run_that_does_not_say_what_backbones_cost_is_refused(tmp_path):
    toy = make_toy(tmp_path, patients=16)
    saved = run_on(toy, tmp_path / "run", *OPTIONS)
    with pytest.raises(InputError, match=r"--prune: .*backbones\.csv does not say what alpha costs"):
        prune(saved, "mean", {})
