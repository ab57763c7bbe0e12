"""Stage 2 and fine-tuned backbones: no model is scored on rows that a backbone has seen."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from classify.__main__ import app
from classify.models.baselines import BASELINES
from classify.notebook import Run
from classify.rundir import files
from features.common.errors import InputError
from features.folds.tuning import Tuning
from features.store.cache import FeatureCache
from features.store.gradients import read_gradients
from tests.classify.test_predict import predict
from tests.classify.test_run import run
from tests.classify.toy import LABELS, Toy, add_tuned, make_toy, write_cache_file

NAME = "alpha.tuned"


@pytest.fixture
def toy(tmp_path) -> Toy:
    return make_toy(tmp_path)


def out_of_fold(out, model: str) -> np.ndarray:
    table = pd.read_csv(out / "oof_probability.csv")
    return table[table["model"] == model][list(LABELS)].to_numpy(np.float32)


def test_each_fold_learns_and_predicts_by_the_backbone_that_has_not_seen_it(toy, monkeypatch):
    compared: list[str] = []
    monkeypatch.setattr(files, "find_duplicates", lambda _, columns, __: compared.extend(columns) or [])
    tuning, features = add_tuned(toy)
    code, said, out = run(toy, "run", "--backbones", f"alpha,{NAME}", "--ensemble", "mean")
    assert code == 0, said
    expected = np.empty((len(toy.train_ids), 3), np.float32)
    for fold in range(5):
        held_out = tuning.fold_of_row == fold
        own = features[f"fold{fold}"]
        model = BASELINES["logistic"].make().fit(own[~held_out], toy.train_labels[~held_out], None)
        expected[held_out] = model.predict_proba(own[held_out])
    np.testing.assert_allclose(out_of_fold(out, f"logistic/{NAME}"), expected, atol=2e-4)
    record = json.loads((out / "run.json").read_text())
    assert record["arguments"]["refit"] is True  # test needs the backbone of all rows
    assert record["models"].keys() >= {f"logistic/{NAME}", "logistic/alpha", "logistic/all", "mean"}
    assert compared == ["alpha"]  # fine-tuned rows of several folds have no distances
    for model in (f"logistic/{NAME}", "logistic/all"):  # on rows that were seen it would be 1
        assert 0.6 < roc_auc_score(toy.train_labels, out_of_fold(out, model)) < 0.95


@pytest.mark.parametrize(
    "options",
    [
        ["--seed", "1"],
        ["--folds", "4"],
        ["--group-column", "none"],
        ["--labels", "epidural,subarachnoid"],
    ],
)
def test_other_folds_than_those_of_the_fine_tuning_are_refused(toy, options):
    add_tuned(toy)
    if "none" in options:
        pd.read_csv(toy.data / "train.csv").drop(columns="patient").to_csv(toy.data / "train.csv", index=False)
        options = []
    code, said, out = run(toy, "run", *options)
    assert code == 2
    assert "alpha.tuned was fine-tuned by other folds than those of this run" in said
    assert "--folds 5 and --seed 0" in said
    assert not (out / "run.json").exists()


@pytest.mark.parametrize("option", ["--gap", "--nested", "--permutations", "--repeats", "--holdout"])
def test_whatever_holds_other_rows_out_is_refused(toy, option):
    add_tuned(toy)
    value = {"--permutations": ["2"], "--repeats": ["2"], "--holdout": ["0.2"]}.get(option, [])
    code, said, _ = run(toy, "run", option, *value)
    assert code == 2
    assert f"{option}" in said
    assert "was fine-tuned on rows that would be held out" in said
    assert "--backbones alpha,beta" in said


def test_without_a_record_of_what_was_seen_nothing_is_learnt(toy):
    tuning, features = add_tuned(toy)
    path = toy.cache / "train" / f".{NAME}.all.h5"
    contents = [image_id.encode() for image_id in toy.train_ids]
    write_cache_file(path, toy.train_ids, features["all"], "1" * 32, tuned=tuning.digest, contents=contents)
    code, said, _ = run(toy, "run")
    assert code == 2
    assert f".{NAME}.all.h5 is of another fine-tuning" in said
    other = Tuning({**tuning.settings, "seed": 1}, tuning.image_ids, tuning.image_digests, tuning.fold_of_row)
    other.write(toy.cache)
    code, said, _ = run(toy, "run")
    assert code == 2
    assert "is of another fine-tuning than alpha.tuned" in said
    (toy.cache / "tuned" / NAME / "tuning.json").unlink()
    code, said, _ = run(toy, "run")
    assert code == 2
    assert "Run extract finetune again" in said
    text = json.dumps({"digest": tuning.digest, "settings": {}, "rows": tuning._rows()})
    (toy.cache / "tuned" / NAME / "tuning.json").write_text(text)
    code, said, _ = run(toy, "run")
    assert code == 2
    assert "is not what was written" in said


def test_images_that_were_seen_are_neither_tested_nor_predicted(toy):
    tuning, _ = add_tuned(toy)
    code, said, out = run(toy, "run", "--backbones", NAME)
    assert code == 0, said
    code, said, _ = predict(toy, out)
    assert code == 0, said
    code, said, _ = predict(toy, out, split="train", out="seen")
    assert code == 2
    assert "train: alpha.tuned was fine-tuned on 200 of 200 images" in said
    with pytest.raises(InputError, match=r"train: alpha\.tuned was fine-tuned on 200 of 200 images"):
        Run(out).predict(toy.cache, split="train")
    (toy.data / "test" / f"{toy.test_ids[3]}.png").write_bytes(toy.train_ids[0].encode())
    contents = [b""] * 3 + [toy.train_ids[0].encode()] + [b""] * 26
    for name in ("alpha", "beta", NAME):
        ids, stored = FeatureCache(toy.cache).read("test", [name], toy.test_ids)
        tuned = tuning.digest if name == NAME else ""
        write_cache_file(toy.cache / "test" / f"{name}.h5", ids, stored, tuned=tuned, contents=contents)
    code, said, _ = predict(toy, out, out="again")
    assert code == 2
    assert "was fine-tuned on 1 of 30 images" in said
    code, said, _ = run(toy, "other")
    assert code == 2
    assert f"test images: {NAME} was fine-tuned on 1 of 30 images ({toy.test_ids[3]})" in said


def test_search_and_learning_curves_are_refused(toy):
    add_tuned(toy)
    arguments = ["search", str(toy.data), "--cache", str(toy.cache), "--out", str(toy.data.parent / "s")]
    result = CliRunner().invoke(app, [*arguments, "--trials", "2"])
    assert result.exit_code == 2
    assert "classify search: alpha.tuned was fine-tuned" in " ".join(result.output.split())
    _, _, out = run(toy, "run", "--backbones", NAME)
    result = CliRunner().invoke(app, ["learn", str(out)])
    assert result.exit_code == 2
    assert "fine-tuned on all groups" in " ".join(result.output.split())


def test_no_gradient_is_of_a_fine_tuned_backbone(toy):
    add_tuned(toy)
    options = ["--baselines", "logistic", "--preset", "none", "--ensemble", "mean", "--select", "mean"]
    code, said, out = run(toy, "run", "--backbones", f"alpha,{NAME}", *options)
    assert code == 0, said
    found = read_gradients(out)
    assert (list(found.members), list(found.recipes), list(found.vectors)) == (["logistic/alpha"], ["alpha"], ["alpha"])
    why = f"{NAME} is fine-tuned, with a backbone for each fold"
    assert found.left_out == {f"logistic/{NAME}": why, "logistic/all": why}
    assert found.covered == pytest.approx(1 / 3)
    for pair, vector in zip(found.pairs, found.vectors["alpha"], strict=True):
        features = FeatureCache(toy.cache).read(pair.split, ["alpha"], [pair.image_id])[1][0]
        assert vector @ features + pair.rest == pytest.approx(pair.logit, abs=1e-3)
    result = CliRunner().invoke(app, ["gradients", str(out), "--model", f"logistic/{NAME}"])
    assert result.exit_code == 2
    assert f"has a gradient: {why}. Name one of logistic/alpha." in " ".join(result.output.split())
