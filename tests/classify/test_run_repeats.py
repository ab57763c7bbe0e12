"""`python -m classify run --repeats --refit`: what stands in the tables, in models/ and in run.json."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from classify.models.files import load_model
from classify.models.heads import HeadSpec, write_presets
from features.store.cache import FeatureCache
from tests.classify.models.test_files import assert_no_pickle
from tests.classify.test_run import run
from tests.classify.toy import LABELS, Toy, make_toy

TINY = HeadSpec(learning_rate=3e-3, batch_size=64, epochs=4)
MODELS = ("logistic/alpha", "tiny/alpha")
FOLDS = [f"fold{index}" for index in range(4)]


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    toy = make_toy(tmp_path_factory.mktemp("repeats"))
    write_presets(toy.data.parent / "mine.json", {"tiny": TINY})
    return toy


@pytest.fixture(scope="module")
def runs(toy) -> dict[str, Path]:
    """Two folds, twice: without and with a refit."""
    mine = str(toy.data.parent / "mine.json")
    # With this seed all folds are of one size, so that their heads compile once.
    folds = ("--folds", "2", "--repeats", "2", "--seed", "1")
    options = ("--backbones", "alpha", "--preset", mine, *folds, "--select", "tiny/alpha")
    plain, refit = run(toy, "plain", *options), run(toy, "refit", *options, "--refit")
    assert (plain[0], refit[0]) == (0, 0)
    return {"plain": plain[2], "refit": refit[2]}


def probabilities(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=dict.fromkeys(LABELS, np.float32))


@pytest.mark.parametrize(("name", "fits"), [("plain", FOLDS), ("refit", [*FOLDS, "refit"])])
def test_a_file_per_fold_of_every_repeat_and_one_of_the_refit(runs, name, fits):
    record = json.loads((runs[name] / "run.json").read_text())
    for model, suffix in zip(MODELS, (".skops", ".keras"), strict=True):
        folder = runs[name] / "models" / model.replace("/", "__")
        assert sorted(path.name for path in folder.iterdir()) == [f"{fit}{suffix}" for fit in fits]
        predicting = fits[-1:] if name == "refit" else fits
        assert record["models"][model]["files"] == [f"models/{folder.name}/{fit}{suffix}" for fit in predicting]
    assert len(record["models"]["tiny/alpha"]["best_epochs"]) == len(fits)
    assert record["refit"] is (name == "refit")
    assert record["folds"]["repeats"] == record["arguments"]["repeats"] == 2
    assert record["models"]["mean"]["files"] == ["models/mean.skops"]
    assert record["models"]["mean"]["members"] == list(MODELS)


def test_out_of_fold_is_the_mean_over_the_repeats_and_its_fold_that_of_the_first(runs, toy):
    table = probabilities(runs["refit"] / "oof_probability.csv")
    _, features = FeatureCache(toy.cache).read("train", ["alpha"], toy.train_ids)
    for model, suffix in zip(MODELS, (".skops", ".keras"), strict=True):
        folder = runs["refit"] / "models" / model.replace("/", "__")
        rows = table[table["model"] == model]
        of_folds = [load_model(folder / f"{fit}{suffix}").predict_proba(features) for fit in FOLDS]
        found = rows[list(LABELS)].to_numpy()
        first = np.where((rows["fold"] == 0).to_numpy()[:, None], of_folds[0], of_folds[1])
        # Which fold of the second repeat held a row out is not told: its probability is one of two.
        either = [(first + second) / 2 for second in of_folds[2:]]
        nearest = np.minimum(*(np.abs(found - mean).max(axis=1) for mean in either))
        np.testing.assert_allclose(nearest, 0, atol=1e-6)
        assert (np.abs(found - first).max(axis=1) > 1e-4).mean() > 0.9


def test_a_refit_changes_test_alone(runs):
    for name in ("oof_probability.csv", "metrics.csv", "thresholds.csv", "curves.csv"):
        assert (runs["plain"] / name).read_bytes() == (runs["refit"] / name).read_bytes(), name
    plain, refit = (probabilities(runs[name] / "predictions_probability.csv") for name in ("plain", "refit"))
    assert (np.abs(plain[list(LABELS)] - refit[list(LABELS)]).to_numpy().max(axis=1) > 1e-4).all()


@pytest.mark.parametrize(("name", "fits"), [("plain", FOLDS), ("refit", ["refit"])])
def test_test_is_predicted_by_the_mean_over_the_folds_or_by_the_refit(runs, toy, name, fits):
    _, features = FeatureCache(toy.cache).read("test", ["alpha"], toy.test_ids)
    folder = runs[name] / "models" / "tiny__alpha"
    expected = np.mean([load_model(folder / f"{fit}.keras").predict_proba(features) for fit in fits], axis=0)
    found = probabilities(runs[name] / "predictions_probability.csv")[list(LABELS)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_the_curves_are_those_of_the_folds_over_all_repeats(runs):
    curves = pd.read_csv(runs["refit"] / "curves.csv")
    assert set(curves["fold"]) == {0, 1, 2, 3}
    best = json.loads((runs["refit"] / "run.json").read_text())["models"]["tiny/alpha"]["best_epochs"]
    for fold, rows in curves.groupby("fold"):
        assert rows["epoch"].iloc[rows["validation_loss"].to_numpy().argmin()] == best[fold]


def test_no_file_of_a_run_is_or_holds_a_pickle(runs):
    files = [path for path in runs["refit"].rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".csv", ".json", ".h5", ".keras", ".skops"}
    for path in files:
        if path.suffix in {".keras", ".skops"}:
            assert_no_pickle(path)
        elif path.suffix == ".h5":
            assert path.read_bytes().startswith(b"\x89HDF\r\n\x1a\n")
        else:
            path.read_text(encoding="utf-8")  # a pickle is no text: its first byte is 0x80


def test_repeats_below_one_are_refused(toy):
    code, said, _ = run(toy, "none", "--repeats", "0")
    assert code == 2
    assert "greater than or equal to 1" in said
