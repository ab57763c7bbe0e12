"""The graph of a model gives what the run predicts, whatever the model is made of."""

import numpy as np
import pytest
from typer.testing import CliRunner

from classify.__main__ import app
from classify.export.graph import build_deciding, find_obstacle
from classify.rundir.saved_run import SavedRun
from classify.scores.thresholds import to_binary
from tests.classify.toy import make_toy


def run_on(toy, out, *options):
    arguments = ["run", toy.data, "--cache", toy.cache, "--out", out, "--folds", 2, "--jobs", 2, *options]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return SavedRun.open(out)


def largest_gap(saved, model):
    """The largest difference of a probability, on features far inside and outside of those learnt from."""
    rng = np.random.default_rng(1)
    features = {name: rng.normal(5, 3, (50, saved.widths[name])).astype(np.float32) for name in saved.needs(model)}
    found = {name: np.asarray(values) for name, values in build_deciding(saved, model)(features).items()}
    expected = saved.predict(model, np.concatenate([*features.values()], axis=1))
    clear = np.abs(expected - saved.thresholds(model)) > 1e-5
    decided = to_binary(expected, saved.thresholds(model))
    assert found["decisions"].dtype == np.uint8
    assert (found["decisions"] == decided)[clear].all()
    assert len(np.unique(decided)) == 2  # or the thresholds had no say
    assert found["probabilities"].shape == expected.shape
    return np.abs(found["probabilities"] - expected).max()


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("toy"), patients=16)


@pytest.fixture(scope="module")
def saved(toy, tmp_path_factory):
    """A run of all kinds of models, whose final one is calibrated by steps."""
    options = ("--baselines", "logistic,ridge_regression,svm,knn,prior", "--preset", "linear,deep")
    return run_on(
        toy, tmp_path_factory.mktemp("run") / "run", *options, "--calibration", "isotonic", "--select", "logistic/all"
    )


def test_every_model_that_is_a_head_or_a_line_or_made_of_such_gives_what_the_run_predicts(saved):
    plain = [name for name in saved.models if "/" in name and not name.startswith("knn")]
    assert len(plain) == 5 * 3 + 1  # each on either backbone and on both; and the calibrated one
    gaps = {name: largest_gap(saved, name) for name in plain}
    steep = {name: gaps.pop(name) for name in plain if name.endswith("+isotonic")}
    assert {name: gap for name, gap in gaps.items() if gap > 1e-6} == {}
    assert max(steep.values()) < 1e-5


def test_ensembles_of_all_kinds_give_what_the_run_predicts(toy, tmp_path):
    saved = run_on(toy, tmp_path / "run", "--baselines", "logistic,prior", "--preset", "linear", "--backbones", "alpha")
    ensembles = [name for name, entry in saved.models.items() if entry["members"]]
    assert ensembles == ["mean", "logit_mean", "rank_mean", "weights", "greedy", "stacking"]
    gaps = {name: largest_gap(saved, name) for name in ensembles}
    assert {name: gap for name, gap in gaps.items() if gap > 1e-6} == {}


@pytest.mark.parametrize("calibration", ["temperature", "platt"])
def test_a_calibrated_ensemble_gives_what_the_run_predicts(toy, tmp_path, calibration):
    options = ("--baselines", "logistic,ridge_regression", "--preset", "none", "--refit")
    saved = run_on(toy, tmp_path / "run", *options, "--calibration", calibration, "--select", "logit_mean")
    assert saved.final_model == f"logit_mean+{calibration}"
    assert largest_gap(saved, saved.final_model) < 1e-6


def test_what_is_no_graph_is_said(saved):
    assert find_obstacle(saved, "knn/alpha") == "knn/alpha is neither a head nor a line through the features"
    assert find_obstacle(saved, "mean") == "knn/alpha is neither a head nor a line through the features"
    assert find_obstacle(saved, "prior") == "prior sees no features"
    assert find_obstacle(saved, "svm/all") == ""
