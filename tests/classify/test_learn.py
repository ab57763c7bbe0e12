"""A learning curve finds what more groups bring, where that is known; and stands in the run's folder and report."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from typer.testing import CliRunner

from classify.__main__ import app
from classify.inputs import Inputs, SplitInputs
from classify.learn import SHARES, measure_curve
from classify.models.baselines import BASELINES
from classify.report.learning import draw_curve
from classify.report.page import write_report
from classify.rundir.learning_curve import describe_curve, read_learning_curve
from features.common.errors import InputError
from features.folds.folds import make_folds
from tests.classify.test_run import FEW, run
from tests.classify.toy import make_toy

MODEL = "ridge_regression"
#: How far the means of two Gaussian classes are apart, and in how many dimensions.
DISTANCE, WIDTH = 1.8, 20


def gaussian(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two Gaussian classes with unit variance, a row a group."""
    labels = rng.permutation(np.arange(count) % 2).astype(np.uint8)
    features = rng.normal(size=(count, WIDTH)).astype(np.float32)
    features[:, 0] += DISTANCE * labels
    return features, labels[:, None]


def expected_auc(count: int, rng: np.random.Generator) -> float:
    """The AUC on new rows of a model that learnt from `count`, the mean over 15 of them, by its direction alone."""
    aucs = []
    for _ in range(15):
        features, labels = gaussian(count, rng)
        with threadpool_limits(1, user_api="blas"):  # so small, threads only wait for each other
            model = BASELINES[MODEL].make().fit(features, labels, None)
        ends = model.predict_proba(np.vstack([np.zeros(WIDTH), np.eye(WIDTH)]).astype(np.float32))[:, 0]
        logits = np.log(ends / (1 - ends))
        direction = logits[1:] - logits[0]
        aucs.append(norm.cdf(direction[0] * DISTANCE / np.sqrt(2 * (direction**2).sum())))
    return float(np.mean(aucs))


def test_the_curve_of_gaussian_classes_is_found_and_so_is_what_twice_the_rows_bring():
    rng = np.random.default_rng(0)
    features, labels = gaussian(200, rng)
    train = SplitInputs(tuple(map(str, range(200))), np.ones(200, bool), features, labels, None, {})
    inputs = Inputs(("blood",), {"alpha": slice(0, WIDTH)}, train, labels, None)
    folds = make_folds(labels, None, ("blood",), 5, 0)
    known: Any = SimpleNamespace(
        record={"arguments": {"seed": 0}, "selection": {"left_out": {}}}, models={f"{MODEL}/alpha": {}}
    )
    steps: list[int] = []
    curve = measure_curve(known, f"{MODEL}/alpha", inputs, folds, 2, 1, lambda: steps.append(1))
    assert len(steps) == (4 * 2 + 1) * 5
    assert [point.groups for point in curve.measured] == [160 * share for share in SHARES]
    truth = [expected_auc(round(point.groups), rng) for point in curve.measured]
    assert truth == sorted(truth)
    assert truth[-1] - truth[0] > 0.05
    for point, expected in zip(curve.measured, truth, strict=True):
        assert point.low is not None
        assert point.high is not None
        assert point.low <= expected <= point.high
    assert curve.rise.low is not None
    gain = expected_auc(320, rng) - truth[-1]
    assert curve.gain.low is not None
    assert curve.gain.high is not None
    assert curve.gain.low <= gain <= curve.gain.high
    assert abs(curve.gain.value - gain) < 0.02


def learn(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["learn", *words])
    return result.exit_code, " ".join(result.output.split())


def test_the_curve_of_a_run_is_written_shown_and_removed_with_the_run(tmp_path):
    toy = make_toy(tmp_path)
    code, said, out = run(toy, "run", *FEW, "--select", "mean", "--baselines", MODEL)
    assert code == 0, said
    code, said = learn(str(out), "--draws", "1")
    assert code == 0, said
    board = pd.read_csv(out / "leaderboard.csv").set_index("model")
    best = next(model for model in board.index if model != "mean")  # of the ensemble the best single model
    assert said.startswith(f"{best}: 2 folds, 20%, 35%, 50%, 70%, 100% of their groups, 1 draw of each share")
    found = read_learning_curve(out)
    assert found is not None
    model, curve = found
    assert model == best
    # All groups, by the run's own folds: the run's own figure.
    np.testing.assert_allclose(curve.measured[-1][1:], board.loc[best, ["value", "low", "high"]].astype(float))
    assert curve.measured[-1].groups == 20
    write_report(out)
    page = (out / "report.html").read_text()
    assert 'id="learning-title"' in page
    assert describe_curve(curve, "patient")[0] in page.replace("&#39;", "'")
    assert draw_curve(curve, "patient").axes[0].get_xlabel() == "patients that a fold's model learns from"

    path = out / "learning_curve.csv"
    path.write_text(path.read_text().replace("gain", "loss"))
    with pytest.raises(InputError, match=r"learning_curve\.csv cannot"):
        read_learning_curve(out)
    table = pd.read_csv(toy.data / "train.csv")
    table.assign(epidural=1 - table["epidural"]).to_csv(toy.data / "train.csv", index=False)
    code, said = learn(str(out))
    assert (code, "other training images or labels" in said) == (2, True)
    assert run(toy, "run", *FEW, "--overwrite")[0] == 0
    assert not path.exists()
    assert learn(str(tmp_path))[0] == 2
