"""`python -m classify run --preset`: heads are models of a run, with their curves and their Keras files."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from classify.models.files import HEAD_SUFFIX, model_path
from classify.models.heads import HeadSpec, write_presets
from features.common.keras_import import import_keras
from features.store.cache import FeatureCache
from tests import ROOT
from tests.classify.test_run import FEW, LOGISTIC, run
from tests.classify.toy import LABELS, Toy, make_toy, write_cache_file

TINY = HeadSpec(dropout=0.2, learning_rate=3e-3, batch_size=64, epochs=4)
MIXED = replace(TINY, hidden_units=(6,), class_weight="balanced")
HEADS = [f"{spec}/{seen}" for spec in ("tiny", "mixed") for seen in ("alpha", "beta", "all")]


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    toy = make_toy(tmp_path_factory.mktemp("heads"))
    write_presets(toy.data.parent / "mine.json", {"tiny": TINY, "mixed": MIXED})
    return toy


@pytest.fixture(scope="module")
def done(toy):
    code, said, out = run(toy, "run", "--preset", str(toy.data.parent / "mine.json"), "--folds", "2")
    assert code == 0
    return said, out


def test_heads_stand_in_every_table_beside_the_baselines(done, toy):
    said, out = done
    ensembles = ["mean", "logit_mean", "rank_mean", "weights", "greedy", "stacking"]
    for name in ("oof_probability.csv", "metrics.csv", "thresholds.csv"):
        assert list(pd.read_csv(out / name)["model"].unique()) == [*LOGISTIC, *HEADS, *ensembles]
    record = json.loads((out / "run.json").read_text())
    assert set(record["models"]["mean"]["shares"]) == {*LOGISTIC, *HEADS}
    assert record["models"]["mixed/all"]["spec"] == {**asdict(MIXED), "hidden_units": [6], "output": "sigmoid"}
    assert len(record["models"]["mixed/all"]["best_epochs"]) == 2
    assert "spec" not in record["models"]["logistic/all"]
    assert {"keras"} < set(record["versions"])
    metrics = pd.read_csv(out / "metrics.csv").set_index(["model", "label", "metric"]).sort_index()
    macro = metrics.loc[("tiny/all", "macro")]
    auc, precision, loss = (macro.loc[metric] for metric in ("roc_auc", "average_precision", "log_loss"))
    shown = f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}] {precision['value']:.3f} {loss['value']:.3f}"
    assert f"tiny/all 2 of 2 {shown}" in said or f"tiny/all * 2 of 2 {shown}" in said


def test_a_run_that_trains_heads_loads_no_tensorflow_and_no_stage_1(toy):
    program = (
        "import sys; from typer.testing import CliRunner; from classify.__main__ import app; "
        "result = CliRunner().invoke(app, sys.argv[1:]); assert result.exit_code == 0, result.output; "
        "print(sorted(name for name in sys.modules if name.split('.')[0] in {'tensorflow', 'keras', 'extract', 'cv2'}))"
    )
    options = ("--cache", toy.cache, "--out", toy.data.parent / "light", "--fits-gb", "0", "--folds", "2")
    options += ("--preset", toy.data.parent / "mine.json", "--backbones", "alpha", "--ensemble", "mean")
    command = [sys.executable, "-c", program, "run", toy.data, *options]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.splitlines()[-1] == "[]"


def test_every_epoch_of_every_head_is_in_the_curves(done):
    _, out = done
    curves = pd.read_csv(out / "curves.csv")
    numbers = ["loss", "auc", "validation_loss", "validation_auc", "accuracy", "validation_accuracy"]
    assert list(curves.columns) == ["model", "fold", "epoch", *numbers]
    assert list(curves["model"].unique()) == HEADS
    models = json.loads((out / "run.json").read_text())["models"]
    for (model, fold), rows in curves.groupby(["model", "fold"]):
        assert rows["epoch"].tolist() == list(range(1, len(rows) + 1))
        assert np.isfinite(rows[numbers].to_numpy()).all()
        assert rows["epoch"].iloc[rows["validation_loss"].to_numpy().argmin()] == models[model]["best_epochs"][fold]
    assert len(curves.groupby(["model", "fold"])) == 6 * 2


def test_plain_keras_loads_every_head_and_gives_the_probabilities_of_the_run(done, toy):
    _, out = done
    keras = import_keras()
    cache = FeatureCache(toy.cache)
    out_of_fold = pd.read_csv(out / "oof_probability.csv", dtype=dict.fromkeys(LABELS, np.float32))
    files = sorted((out / "models").rglob("*.keras"))
    assert files == sorted(
        model_path(out / "models", model, f"fold{fold}", HEAD_SUFFIX) for model in HEADS for fold in range(2)
    )
    assert files[0] == out / "models" / "mixed__all" / "fold0.keras"
    for model in HEADS:
        seen = model.split("/")[1]
        _, features = cache.read("train", ["alpha", "beta"] if seen == "all" else [seen], toy.train_ids)
        rows = out_of_fold[out_of_fold["model"] == model]
        for fold in range(2):
            held_out = (rows["fold"] == fold).to_numpy()
            head = keras.saving.load_model(model_path(out / "models", model, f"fold{fold}", HEAD_SUFFIX))
            probabilities = head(features[held_out], training=False)
            np.testing.assert_allclose(rows[list(LABELS)].to_numpy()[held_out], probabilities, rtol=0, atol=1e-6)


def test_equal_runs_have_equal_bytes_and_a_run_without_heads_takes_their_files_away(done, toy):
    _, out = done
    mine = str(toy.data.parent / "mine.json")
    _, _, again = run(toy, "again", "--preset", mine, "--folds", "2", "--jobs", "1")
    tables = sorted(path.name for path in out.glob("*.csv"))
    assert len(tables) == 13
    for name in tables:
        assert (out / name).read_bytes() == (again / name).read_bytes()
    assert run(toy, "again", *FEW, "--preset", "none", "--overwrite")[0] == 0
    assert list((again / "models").rglob("*.keras")) == []
    assert not (again / "curves.csv").exists()


def test_presets_that_cannot_be_are_refused(toy):
    root = toy.data.parent
    mine = str(root / "mine.json")
    write_presets(root / "twin.json", {"tiny": TINY})
    write_presets(root / "logistic.json", {"logistic": TINY})
    for choice, message in (
        (
            "huge",
            "--preset 'huge': huge is not a preset. Expected some of challenge, challenge-sgd, linear, linear-l2",
        ),
        ("ridge", "ridge is not a preset (it is called linear-l2 now). Expected some of"),
        ("none,linear", "none is not a preset"),
        ("linear,linear", "expected different names between commas"),
        (f"{mine},{root / 'twin.json'}", "'tiny' is duplicated"),
        (str(root / "logistic.json"), "'logistic' is another model's name"),
        (str(root / "gone.json"), "gone.json cannot be read: No such file or directory"),
    ):
        code, said, out = run(toy, "refused", "--preset", choice)
        assert (code, message in said, out.exists()) == (2, True, False), said


def test_heads_learn_from_all_views_and_it_is_in_the_files(tmp_path):
    toy, rng = make_toy(tmp_path), np.random.default_rng(6)
    for split, ids in (("train", toy.train_ids), ("test", toy.test_ids)):
        views = rng.normal(size=(len(ids), 3, 5)).astype(np.float32)
        write_cache_file(toy.cache / split / "gamma.h5", ids, views)
    write_presets(tmp_path / "mine.json", {"tiny": TINY})
    options = ("--preset", str(tmp_path / "mine.json"), "--folds", "2", "--ensemble", "none", "--fits-gb", "1")
    tables = {}
    for name, more in (("plain", ()), ("drawn", ("--augment",)), ("again", ("--augment", "--jobs", "1"))):
        code, _, out = run(toy, name, *options, *more)
        assert code == 0
        record = json.loads((out / "run.json").read_text())
        tables[name] = pd.read_csv(out / "oof_probability.csv").set_index(["model", "ID"])[list(LABELS)]
        views_of = {backbone: entry["views"] for backbone, entry in record["backbones"].items()}
        of_gamma = "mean of 3; heads learn from all" if more else "mean of 3"
        assert views_of == {"alpha": "1", "beta": "1", "gamma": of_gamma}
    for model in ("logistic/gamma", "logistic/all", "tiny/alpha"):
        pd.testing.assert_frame_equal(tables["plain"].loc[model], tables["drawn"].loc[model])
    assert (tables["plain"].loc["tiny/gamma"] - tables["drawn"].loc["tiny/gamma"]).abs().max().max() > 0.001
    pd.testing.assert_frame_equal(tables["drawn"], tables["again"])
    code, said, out = run(toy, "none", "--augment", "--preset", "none")
    assert (code, out.exists()) == (2, False)
    assert "--augment is for heads, and --preset none trains none" in " ".join(said.split())


def test_heads_cannot_draw_views_where_there_is_one(toy):
    code, said, out = run(toy, "bare", "--augment", "--backbones", "alpha")
    assert code == 2
    assert "--augment: " in said
    assert "holds one view of each image" in said
    assert not out.exists()
