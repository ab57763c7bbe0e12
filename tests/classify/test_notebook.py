"""Stage 2 in Python: a run by settings and by estimators of one's own, its tables, its predictions."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

import classify
from classify.__main__ import app
from classify.export.graph import find_obstacle
from classify.models import files
from classify.notebook import Run
from classify.rundir.saved_run import SavedRun
from features import FeatureCache, InputError, read_features
from tests.classify.toy import LABELS, make_toy


class Shares:
    """An estimator of nobody's library: the mean of the labels, and half of the first feature's sign."""

    def fit(self, X, y):
        self.share_ = float(np.mean(y))
        return self

    def predict_proba(self, X):
        positive = np.clip(self.share_ + 0.1 * np.sign(X[:, 0]), 0, 1)
        return np.column_stack([1 - positive, positive])


class Changed(GaussianNB):
    """Changes what it is given, so that scikit-learn cannot copy it."""

    def __init__(self, times=1):
        self.times = 2 * times


class FunctionTransformed(GaussianNB):
    """Holds a function without a name."""

    def __init__(self):
        self.function = lambda X: X


class LearnsFunction(Shares):
    """Learns a function without a name."""

    def fit(self, X, y):
        self.function_ = lambda X: X
        return super().fit(X, y)


#: What cannot name an estimator.
WRONG = ("", ".", "..", "a/b", "a,b", "a b", "a__b", "-a", "ä", "a\n", 'a"', "a" * 65, 5, None, ("a",))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("notebook"))


@pytest.fixture(scope="module")
def run(toy):
    """A run with an estimator of scikit-learn, one of our own making, and one of the table."""
    own = {"mine": make_pipeline(StandardScaler(), LogisticRegression()), "shares": Shares(), "logistic": None}
    return classify.train(
        toy.data, toy.data.parent / "run", cache=toy.cache, baselines=own, preset="none", folds=3, ensemble=["mean"]
    )


def test_an_estimator_of_ones_own_is_cross_fitted_as_those_of_the_table(run):
    assert {name.partition("/")[0] for name in run.models} == {"logistic", "mine", "shares", "mean"}
    fold = run.labels.loc["train", "fold"]
    assert sorted(fold.unique()) == [0, 1, 2]
    [name] = [name for name in run.models if name.startswith("mine/alpha")]
    found = run.out_of_fold(name)
    X = read_features(run.folder.parent / "cache", ["alpha"]).loc[found.index]
    labels = run.labels.loc["train"].loc[found.index]
    for label in LABELS:
        for held_out in range(3):
            learnt = (fold != held_out).to_numpy()
            model = make_pipeline(StandardScaler(), LogisticRegression())
            model.fit(X[learnt].to_numpy(), labels[label][learnt].to_numpy())
            expected = model.predict_proba(X[~learnt].to_numpy())[:, 1]
            np.testing.assert_allclose(found[label][~learnt], expected, rtol=1e-4, atol=1e-6)


def test_tables_are_those_of_the_files(run):
    leaderboard = pd.read_csv(run.folder / "leaderboard.csv")
    assert run.leaderboard.index.tolist() == leaderboard["model"].tolist()
    np.testing.assert_array_equal(run.leaderboard["value"], leaderboard["value"])
    assert run.thresholds.loc[(run.final_model, LABELS[0]), "threshold"] > 0
    assert {"oof"} <= set(run.metrics["split"])
    assert run.curves.empty
    with pytest.raises(InputError, match=r"has no table 'x\.csv'\. Choose one of .*leaderboard\.csv"):
        run.table("x.csv")
    with pytest.raises(InputError, match="has no model 'x'"):
        run.out_of_fold("x")


def test_predictions_of_a_cache_are_those_of_the_run(run, toy):
    found = run.predict(toy.cache)
    pd.testing.assert_frame_equal(found.loc[run.predictions.index], run.predictions, rtol=1e-6, check_dtype=False)
    decisions = run.table("predictions_binary.csv").set_index("ID")
    assert run.decide(found).loc[decisions.index].to_numpy().tolist() == decisions.to_numpy().tolist()


def test_where_there_is_no_probability_there_is_no_decision(run):
    probabilities = run.predictions.astype("float32")
    probabilities.iloc[2] = np.nan  # a rejected image
    decisions = run.decide(probabilities)
    rejected = decisions.index[2]
    assert decisions.loc[rejected].isna().all()
    assert (decisions.dtypes == "Int8").all()
    pd.testing.assert_frame_equal(decisions.drop(rejected), run.decide(probabilities.drop(rejected)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (pd.DataFrame.to_numpy, "decide: received ndarray"),
        (lambda frame: frame.drop(columns=LABELS[1]), f"decide: {LABELS[1]} is not a column of numbers"),
        (lambda frame: frame.astype({LABELS[2]: str}), f"decide: {LABELS[2]} is not a column of numbers"),
    ],
)
def test_what_holds_no_probabilities_is_not_decided(run, change, said):
    with pytest.raises(InputError, match=rf"{said}\. Expected a DataFrame .* for each of {', '.join(LABELS)}\."):
        run.decide(change(run.predictions))


def test_a_notebook_shows_the_report_and_its_figures(run):
    page = run._repr_html_()
    assert page.startswith("<iframe srcdoc=")
    assert "<" not in page.removeprefix("<iframe").removesuffix("></iframe>")
    assert run.figures
    assert all(figure._repr_png_().startswith(b"\x89PNG") for figure in run.figures.values())


def test_another_process_reads_types_of_ones_own_once_they_are_trusted(run, toy, monkeypatch):
    monkeypatch.setattr(files, "_WRITTEN_HERE", set())  # as another process has it
    [name] = [name for name in run.models if name.startswith("shares/alpha")]
    with pytest.raises(InputError, match=rf"{__name__}\.Shares.*call classify\.trust"):
        run.predict(toy.cache, model=name)
    monkeypatch.setattr(files, "_TRUSTED_HERE", set())
    classify.trust(Shares)
    assert run.predict(toy.cache, model=name).shape == (len(toy.test_ids), len(LABELS))


def test_an_estimator_of_ones_own_does_not_keep_other_models_from_being_exported(run, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_WRITTEN_HERE", set())  # as another process has it
    [name] = [name for name in run.models if name.startswith("shares/alpha")]
    saved = SavedRun.open(run.folder)
    assert find_obstacle(saved, name) == f"{name} is an estimator of one's own"
    ranked = [model for model in run.leaderboard.index if model.startswith("logistic")]
    assert [find_obstacle(saved, model) for model in ranked] == [""] * len(ranked)
    done = CliRunner().invoke(app, ["export", str(run.folder), str(tmp_path / "model.keras"), "--model", name])
    assert done.exit_code == 2
    assert f"estimator of one's own. The best model of the leaderboard that can: --model {ranked[0]}" in done.stderr


@pytest.mark.parametrize(
    ("name", "estimator", "said"),
    [
        ("logistic", GaussianNB(), "'logistic' has a meaning already"),
        ("greedy", GaussianNB(), "'greedy' has a meaning already"),
        ("none", GaussianNB(), "'none' has a meaning already"),
        *((name, GaussianNB(), f"{re.escape(repr(name))} cannot name an estimator of your own") for name in WRONG),
        ("mine", Changed(3), "mine cannot be copied for each fit: Cannot clone object .*Changed"),
        ("mine", FunctionTransformed(), "mine cannot be kept in a run: .*lambda"),
        ("mine", GaussianNB, "mine is a class. Give an unfitted estimator"),
        ("mine", StandardScaler(), "mine has no predict_proba"),
        ("mine", "logistic", "mine has no fit and no predict_proba"),
    ],
)
def test_what_is_no_estimator_is_refused_at_once(toy, tmp_path, name, estimator, said):
    with pytest.raises(InputError, match=said):
        classify.train(toy.data, tmp_path / "run", cache=toy.cache, baselines={name: estimator})
    assert not (tmp_path / "run").exists()


def test_what_was_learnt_and_could_not_be_read_again_ends_the_run(toy, tmp_path):
    with pytest.raises(InputError, match=r"mine: what fit has learnt cannot be kept in a run \(.*lambda"):
        classify.train(
            toy.data, tmp_path / "run", cache=toy.cache, baselines={"mine": LearnsFunction()}, preset="none", folds=2
        )
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": 1}, "Invalid value for '--folds': .* greater than or equal to 2"),
        ({"fold": 3}, "No such option: --fold .*--folds"),
        ({"baselines": ["what"]}, "what is not a baseline"),
        ({"baselines": "what"}, "--baselines 'what': what is not a baseline"),
        ({"baselines": 5}, "--baselines '5': 5 is not a baseline"),
        ({"help": True}, "No such option: --help"),
        ({"unlabelled": "what"}, "Invalid value for '--unlabelled'"),
    ],
)
def test_options_are_checked_as_those_of_the_command(toy, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        classify.train(toy.data, tmp_path / "run", cache=toy.cache, **options)


def test_a_baseline_and_a_cache_may_be_given_as_they_are(toy, tmp_path):
    given = {"baselines": "logistic", "preset": "none", "folds": 2, "backbones": "alpha"}
    run = classify.train(toy.data, tmp_path / "run", cache=FeatureCache(toy.cache), **given)
    assert run.models == ("logistic/alpha",)
    assert run.predict(FeatureCache(toy.cache)).shape == (len(toy.test_ids), len(LABELS))


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"folder: received 5\. Expected the path of a folder"):
        Run(5)
    with pytest.raises(InputError, match="holds no finished run"):
        Run(tmp_path)
