"""`python -m classify cam`: each image by models that never saw it, members weighted as the ensemble weighs them."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import logit

from classify.cam.scores import score_images
from classify.ensembles.ensembles import ENSEMBLES
from classify.models.files import load_model
from classify.rundir.explanation import NO_FOLD, Explainer
from classify.rundir.saved_run import SavedRun
from features.common.errors import InputError
from features.store.cache import FeatureCache
from features.store.maps import maps_path
from tests.classify.cam.cam_runs import cam, edit_out_of_fold, make_run, make_small_run, write_maps
from tests.classify.test_run import run
from tests.classify.toy import LABELS, make_toy


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    toy, out = make_run(tmp_path_factory.mktemp("cam"))
    write_maps(toy, "train", toy.train_ids[:6])
    write_maps(toy, "test", toy.test_ids[:4])
    return toy, out


@pytest.fixture
def own(tmp_path):
    """What a test may spoil."""
    return make_small_run(tmp_path)


def logits_of(explainer: Explainer, features: np.ndarray, folds: np.ndarray) -> np.ndarray:
    found = explainer.explain(features, folds)
    return np.einsum("nld,nd->nl", found.gradients, features) + found.intercepts


def to_logit(probabilities: np.ndarray) -> np.ndarray:
    return logit(probabilities.astype(np.float64))


def assert_same_logits(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare within -6 to 6: nearer to 1, a float32 probability no longer tells its logit."""
    assert (np.abs(expected) < 6).mean() > 0.2
    np.testing.assert_allclose(found.clip(-6, 6), expected.clip(-6, 6), atol=1e-3)


@pytest.mark.parametrize("model", ["tiny/alpha", "deep/all", "logistic/beta"])
def test_a_training_image_is_explained_by_the_model_that_never_saw_it(model, finished):
    toy, out = finished
    saved = SavedRun.load(out)
    explainer = Explainer(saved, model)
    oof = pd.read_csv(out / "oof_probability.csv", dtype={"ID": str})
    table = oof[oof["model"] == model].set_index("ID").loc[toy.train_ids]
    _, features = FeatureCache(toy.cache).read("train", explainer.backbones, toy.train_ids)
    folds = table["fold"].to_numpy()
    assert set(folds) == {0, 1}
    found = logits_of(explainer, features, folds)
    suffix = ".keras" if "logistic" not in model else ".skops"
    for fold in (0, 1):
        alone = load_model(out / "models" / model.replace("/", "__") / f"fold{fold}{suffix}")
        expected = to_logit(alone.predict_proba(features[folds == fold]))
        assert_same_logits(found[folds == fold], expected)


def test_a_new_image_is_explained_by_the_mean_over_all_models_that_predict(finished):
    toy, out = finished
    saved = SavedRun.load(out)
    explainer = Explainer(saved, "tiny/alpha")
    _, features = FeatureCache(toy.cache).read("test", ["alpha"], toy.test_ids)
    files = saved.models["tiny/alpha"]["files"]
    assert len(files) == 4  # two folds, twice
    expected = np.mean([to_logit(load_model(out / file).predict_proba(features)) for file in files], axis=0)
    folds = np.full(len(features), NO_FOLD)
    assert_same_logits(logits_of(explainer, features, folds), expected)


@pytest.mark.parametrize("model", [name for name in ENSEMBLES if name != "stacking"])
def test_an_ensemble_is_the_mean_of_its_members_by_their_shares_without_those_that_have_no_gradient(model, finished):
    toy, out = finished
    saved = SavedRun.load(out)
    shares = {name: share for name, share in saved.models[model]["shares"].items() if share > 1e-6}
    with_gradient = {name: share for name, share in shares.items() if not name.startswith("knn")}
    if not with_gradient:  # fitted weights may give everything to k nearest neighbours
        with pytest.raises(InputError, match=f"{model} of .* cannot be shown as heat maps"):
            Explainer(saved, model)
        return
    explainer = Explainer(saved, model)
    assert explainer.weights.covered == pytest.approx(sum(with_gradient.values()) / sum(shares.values()))
    assert set(explainer.weights.left_out) == shares.keys() - with_gradient.keys()
    features = FeatureCache(toy.cache).read("test", explainer.backbones, toy.test_ids)[1]
    folds = np.full(len(features), NO_FOLD)
    expected = np.zeros((len(features), len(LABELS)))
    for name, share in with_gradient.items():
        member = Explainer(saved, name)
        seen = np.concatenate([features[:, explainer.columns[b]] for b in member.backbones], axis=1)
        expected += share * logits_of(member, seen, folds) / sum(with_gradient.values())
    assert_same_logits(logits_of(explainer, features, folds), expected)


def test_a_stacking_is_its_coefficients_times_the_logits_of_its_members(tmp_path):
    toy = make_toy(tmp_path)
    code, said, out = run(
        toy, "run", "--preset", "none", "--folds", "2", "--refit", "--select", "stacking", "--calibration", "platt"
    )
    assert code == 0, said
    saved = SavedRun.load(out)
    features = FeatureCache(toy.cache).read("test", ["alpha", "beta"], toy.test_ids)[1]
    expected = to_logit(saved.predict("stacking", features))
    for model in ("stacking", "stacking+platt"):  # a calibration is explained by what it calibrates
        found = logits_of(Explainer(saved, model), features, np.full(len(features), NO_FOLD))
        assert_same_logits(found, expected)  # members are one refitted model each


def test_the_files_of_a_run(finished):
    toy, out = finished
    code, said = cam(out)
    assert code == 0, said
    assert "10 images," in said
    folder = out / "cam"
    images = pd.read_csv(folder / "images.csv", dtype=str)
    assert list(images["split"]) == ["test"] * 4 + ["train"] * 6
    assert list(images["ID"]) == toy.test_ids[:4] + toy.train_ids[:6]
    assert list(images["file"]) == [f"{number:05d}" for number in range(10)]
    for place in ("thumbnails", *(f"{kind}/{label}" for kind in ("heat", "overlays") for label in range(3))):
        assert sorted(path.name for path in (folder / place).iterdir()) == [f"{file}.png" for file in images["file"]]
        assert Image.open(folder / place / "00003.png").size == (128, 256)
    record = json.loads((folder / "cam.json").read_text())
    assert (record["model"], record["labels"]) == ("mean", list(LABELS))
    assert len(record["members"]) == 9  # of 12, for three are k nearest neighbours
    assert set(record["left_out"]) == {"knn/alpha", "knn/beta", "knn/all"}
    assert record["covered"] == pytest.approx(0.75)
    assert "without a gradient, so left out: knn/alpha, knn/beta, knn/all (25% of the shares)" in said
    for label in LABELS:
        assert sum(weights[label] for weights in record["members"].values()) == pytest.approx(1)
    assert not (out / ".cam.partial").exists()
    assert not (out / ".cam.lock").exists()


def test_boxes_are_of_the_images_that_the_model_calls_positive_with_its_own_scores(finished):
    toy, out = finished
    assert cam(out, "--model", "logistic/all")[0] == 0
    boxes = pd.read_csv(out / "cam" / "boxes.csv", dtype={"ID": str})
    oof = pd.read_csv(out / "oof_probability.csv", dtype={"ID": str})
    oof = oof[oof["model"] == "logistic/all"].set_index("ID")
    thresholds = pd.read_csv(out / "thresholds.csv")
    thresholds = thresholds[thresholds["model"] == "logistic/all"].set_index("label")["threshold"]
    saved = SavedRun.load(out)
    features = FeatureCache(toy.cache).read("test", ["alpha", "beta"], toy.test_ids[:4])[1]
    scores = {("test", i): row for i, row in zip(toy.test_ids, saved.predict("logistic/all", features), strict=False)}
    scores |= {("train", i): oof.loc[i, list(LABELS)].to_numpy(np.float32) for i in toy.train_ids[:6]}
    expected = {
        (*image, label): score[index]
        for image, score in scores.items()
        for index, label in enumerate(LABELS)
        if score[index] >= thresholds[label]
    }
    found = {(row.split, row.ID, row.label): row.score for row in boxes.itertuples()}
    assert found == pytest.approx(expected, abs=1e-6)
    assert (boxes["x0"] >= 0).all()
    assert (boxes["x1"] <= 300).all()
    assert (boxes["y1"] <= 600).all()
    assert (boxes["y1"] > 256).any()  # in pixels of the image, not of its thumbnail
    assert (boxes["heat"] > 0).all()


def test_a_training_image_that_the_run_never_learnt_from_is_new(own):
    toy, out = own
    stranger = toy.train_ids[1]
    edit_out_of_fold(out, lambda table: table[table["ID"] != stranger])
    labels = pd.read_csv(out / "labels.csv", dtype=str)
    labels[labels["ID"] != stranger].to_csv(out / "labels.csv", index=False)
    features = FeatureCache(toy.cache).read("train", ["alpha", "beta"], toy.train_ids[:3])[1]
    folds, scores = score_images(SavedRun.load(out), "logistic/all", "train", toy.train_ids[:3], features)
    assert folds[1] == NO_FOLD
    assert set(folds[[0, 2]]) <= {0, 1}
    np.testing.assert_array_equal(scores[1], SavedRun.load(out).predict("logistic/all", features)[1])
    assert np.abs(scores - SavedRun.load(out).predict("logistic/all", features))[[0, 2]].max() > 1e-3
    assert cam(out)[0] == 0


def test_images_without_all_maps_or_of_another_file_are_left_out_and_said(own):
    toy, out = own
    wanted = [*toy.train_ids[1:3], "nowhere"]
    gallery = pd.read_csv(out / "gallery.csv", dtype=str).iloc[:3].assign(split="train", ID=wanted)
    gallery.to_csv(out / "gallery.csv", index=False)
    write_maps(toy, "train", toy.train_ids[1:5], ("beta",))
    with h5py.File(maps_path(toy.cache, "train", "beta"), "a") as file:
        file["image_digests"][1] = np.ones(16, np.uint8)
    write_maps(toy, "test", toy.test_ids[:1], ("alpha",))
    code, said = cam(out)
    assert code == 3, said
    assert list(pd.read_csv(out / "cam" / "images.csv")["ID"]) == [toy.train_ids[1]]
    left_out = json.loads((out / "cam" / "cam.json").read_text())["images_left_out"]
    assert left_out == {
        "train/nowhere": "no maps of it are cached",
        f"train/{toy.train_ids[0]}": "no map by beta",
        f"train/{toy.train_ids[2]}": "maps and features by beta are of different files",
        f"train/{toy.train_ids[3]}": "no map by alpha",
        f"train/{toy.train_ids[4]}": "no map by alpha",
        f"test/{toy.test_ids[0]}": "no map by beta",
    }
    stale = f"train/{toy.train_ids[2]}: maps and features by beta are of different files"
    assert f"not shown: 2 of the 3 images of the gallery (first: {stale}): cam.json lists them" in said
    assert "not shown: 4 images beside the gallery's, whose maps cannot be shown: cam.json says why" in said
    assert said.endswith(
        f"scripts/extract.sh DATA --cache {toy.cache}; "
        f"then python -m extract maps DATA --from {out} --cache {toy.cache}"
    )


def test_maps_of_other_files_alone_leave_the_pictures_of_before(own):
    toy, out = own
    assert cam(out)[0] == 0
    write_maps(toy, "train", toy.train_ids[:3], digest=bytes([7] * 16))
    code, said = cam(out)
    assert code == 2
    first = f"train/{toy.train_ids[0]}: maps and features by alpha, beta are of different files"
    assert f"could be shown on (of 3 images there are some; first: {first})" in said
    assert f"scripts/extract.sh DATA --cache {toy.cache}; then python -m extract maps DATA --from {out}" in said
    assert len(list((out / "cam" / "thumbnails").iterdir())) == 3


def test_a_second_time_replaces_the_first_and_a_new_run_removes_it(own):
    _, out = own
    assert cam(out)[0] == 0
    (out / "cam" / "heat" / "9").mkdir()
    assert cam(out, "--model", "logistic/alpha")[0] == 0
    assert json.loads((out / "cam" / "cam.json").read_text())["model"] == "logistic/alpha"
    assert not (out / "cam" / "heat" / "9").exists()
    toy = own[0]
    assert run(toy, "run", "--preset", "none", "--folds", "2", "--overwrite")[0] == 0
    assert not (out / "cam").exists()


def test_a_model_without_any_gradient_names_those_that_have_one(finished):
    _, out = finished
    code, said = cam(out, "--model", "knn/all")
    assert code == 2
    assert "knn/all of" in said
    assert "cannot be shown as heat maps" in said
    assert "logistic/alpha" in said
