"""classify.explain: each image by models that never saw it, members weighted as the ensemble weighs them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from typer.testing import CliRunner

from classify.__main__ import app
from classify.ensembles.ensembles import ENSEMBLES
from classify.explain import NO_FIT, Explainer
from classify.models.files import load_model
from classify.models.heads import HeadSpec, write_presets
from classify.rundir.folder import hold_run
from classify.rundir.saved_run import SavedRun
from features.common.files import digest
from features.store.cache import FeatureCache
from features.store.gradients import Gradients, read_gradients
from tests.classify.models.test_gradients import LABELS as HEAD_LABELS
from tests.classify.models.test_gradients import WIDTH, head
from tests.classify.test_run import run
from tests.classify.toy import (
    LABELS,
    Toy,
    change_cache_file,
    copy_run,
    label_test_split,
    make_toy,
    write_cache_file,
)

HEAD = HeadSpec(hidden_units=(6,), dropout=0.2, learning_rate=3e-3, batch_size=64, epochs=3)


def gradients(run_folder, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["gradients", str(run_folder), *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two repeats of two folds, on labelled test images, with heads and models without gradients."""
    root = tmp_path_factory.mktemp("explain")
    toy = make_toy(root)
    label_test_split(toy)
    write_presets(root / "mine.json", {"deep": HEAD})
    options = ("--folds", "2", "--baselines", "logistic,knn,prior", "--repeats", "2", "--select", "mean")
    code, said, out = run(toy, "run", "--preset", str(root / "mine.json"), *options)
    assert code == 0, said
    return toy, out


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Toy, Path]:
    """A small run of logistic models."""
    toy = make_toy(tmp_path_factory.mktemp("plain"))
    code, said, out = run(toy, "run", "--folds", "2", "--select", "logistic/all", "--ensemble", "mean")
    assert code == 0, said
    return toy, out


@pytest.fixture
def own(plain, tmp_path) -> tuple[Toy, Path]:
    """A copy of it that a test may spoil."""
    toy, out = plain
    return copy_run(toy, out, tmp_path)


def logits_of(explainer: Explainer, features: np.ndarray, fits: np.ndarray) -> np.ndarray:
    found = explainer.explain(features, fits)
    return np.einsum("nld,nd->nl", found.gradients, features) + found.intercepts


def to_logit(probabilities: np.ndarray) -> np.ndarray:
    return logit(probabilities.astype(np.float64))


def assert_same_logits(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare within -6 to 6: nearer to 1, a float32 probability no longer tells its logit."""
    assert (np.abs(expected) < 6).mean() > 0.2
    np.testing.assert_allclose(np.clip(found, -6, 6), np.clip(expected, -6, 6), atol=1e-3)


def new(count: int) -> np.ndarray:
    return np.full((count, 1), NO_FIT)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_on_a_linear_head_the_mean_of_the_map_and_the_bias_are_the_logit(batch_norm):
    maps = np.random.default_rng(1).normal(size=(4, 7, 5, WIDTH)).astype(np.float32)
    pooled = maps.mean(axis=(1, 2))
    model = head((), batch_norm)
    heat = np.einsum("nhwc,nlc->nlhw", maps, model.linearise(pooled).gradients)
    weights = [values.astype(np.float64) for values in model.weights]
    if batch_norm:  # Ioffe and Szegedy 2015, with Keras' epsilon
        gamma, beta, mean, variance = weights[:4]
        scale = gamma / np.sqrt(variance + 1e-3)
        kernel, bias = weights[4] * scale[:, None], weights[5] + (beta - mean * scale) @ weights[4]
    else:
        kernel, bias = weights
        # Without batch norm the heat is Zhou et al. 2016, equation 2, to the letter.
        np.testing.assert_allclose(heat, np.einsum("nhwc,cl->nlhw", maps, kernel), atol=1e-5)
    logits = np.log(p := model.predict_proba(pooled).astype(np.float64)) - np.log1p(-p)
    assert heat.shape == (4, HEAD_LABELS, 7, 5)
    np.testing.assert_allclose(heat.mean(axis=(2, 3)) + bias, logits, atol=1e-4)
    np.testing.assert_allclose(heat.mean(axis=(2, 3)), pooled @ kernel, atol=1e-4)


def assert_maps_and_rests_are_logits(found: Gradients, cache: FeatureCache) -> np.ndarray:
    """Multiply maps whose means are the cached features, 3 x 4 and 3 x 3 positions; return the logits."""
    random = np.random.default_rng(0)
    for number, pair in enumerate(found.pairs):
        total = pair.rest
        for name, side in zip(found.recipes, (4, 3), strict=False):
            _, features = cache.read(pair.split, [name], [pair.image_id])
            noise = random.normal(size=(3, side, features.shape[1]))
            maps = (features[0] + noise - noise.mean(axis=(0, 1))).astype(np.float32)
            total += (maps @ found.vectors[name][number]).mean(dtype=np.float64)
        assert total == pytest.approx(pair.logit, abs=1e-4)
    return np.array([pair.logit for pair in found.pairs])


@pytest.mark.parametrize("model", ["deep/alpha", "deep/all", "logistic/beta", "mean", "logit_mean"])
def test_the_gradients_of_a_run_are_of_its_gallery_and_give_the_logits(model, finished):
    toy, out = finished
    assert gradients(out, "--model", model)[0] == 0
    found, cache = read_gradients(out), FeatureCache(toy.cache)
    gallery = pd.read_csv(out / "gallery.csv")
    assert {(p.split, p.image_id, LABELS[p.label], *reason) for p in found.pairs for reason in p.reasons} == {
        tuple(row) for row in gallery.itertuples(index=False)
    }
    assert len({(p.split, p.image_id, p.label) for p in found.pairs}) == len(found.pairs)
    assert_maps_and_rests_are_logits(found, cache)
    table = pd.read_csv(out / "oof_probability.csv", dtype={"ID": str})
    of_fold = table[table["model"] == model].set_index("ID")
    thresholds = pd.read_csv(out / "thresholds.csv")
    thresholds = thresholds[thresholds["model"] == model].set_index("label")["threshold"]
    for pair in found.pairs:
        if pair.split == "train":
            assert pair.score == pytest.approx(of_fold.loc[pair.image_id, LABELS[pair.label]], abs=1e-6)
        assert pair.positive == (pair.score >= thresholds[LABELS[pair.label]])


def test_of_a_run_on_the_first_view_alone_it_is_explained_and_the_recipe_has_no_other(tmp_path):
    toy = make_toy(tmp_path)
    for split, ids in (("train", toy.train_ids), ("test", toy.test_ids)):
        views = np.random.default_rng(len(ids)).normal(size=(len(ids), 3, 4)).astype(np.float32)
        write_cache_file(toy.cache / split / "alpha.h5", ids, views)
    choice = ("--folds", "2", "--select", "logistic/alpha", "--ensemble", "none")
    for tta, count in (("none", 1), ("mean", 3)):
        code, said, out = run(toy, tta, *choice, "--tta", tta)
        assert code == 0, said
        found = read_gradients(out)
        assert len(found.recipes["alpha"].views) == count
        if tta == "none":
            assert_maps_and_rests_are_logits(found, FeatureCache(toy.cache))


@pytest.mark.parametrize("model", ["deep/alpha", "deep/all", "logistic/beta"])
def test_a_training_image_is_explained_by_the_mean_of_the_models_that_never_saw_it(model, finished):
    toy, out = finished
    assert gradients(out, "--model", model)[0] == 0
    found = read_gradients(out)
    suffix = ".keras" if "logistic" not in model else ".skops"
    models = [load_model(out / "models" / model.replace("/", "__") / f"fold{fold}{suffix}") for fold in range(4)]
    of_rows = pd.read_csv(out / "labels.csv", dtype={"ID": str}).set_index(["split", "ID"])["fold"]
    seen = set()
    for pair in [pair for pair in found.pairs if pair.split == "train"]:
        _, features = FeatureCache(toy.cache).read("train", tuple(found.recipes), [pair.image_id])
        lines = [one.linearise(features) for one in models]
        logits = [float(line.gradients[0, pair.label] @ features[0] + line.intercepts[0, pair.label]) for line in lines]
        first = int(of_rows["train", pair.image_id])
        means = {fold: (logits[first] + logits[fold]) / 2 for fold in (2, 3)}
        second = min(means, key=lambda fold: abs(means[fold] - pair.logit))
        assert pair.logit == pytest.approx(means[second], abs=1e-3)
        seen |= {(first, second)}
        # The probability is the mean over both repeats: so that of the other fold of the second is told apart.
        probabilities = [one.predict_proba(features)[0, pair.label] for one in models]
        assert pair.score == pytest.approx(np.mean([probabilities[first], probabilities[second]]), abs=1e-5)
    assert len(seen) > 2


def test_a_new_image_is_explained_by_the_mean_over_all_models_that_predict(finished):
    toy, out = finished
    saved = SavedRun.open(out)
    explainer = Explainer(saved, "deep/alpha")
    _, features = FeatureCache(toy.cache).read("test", ["alpha"], toy.test_ids)
    files = saved.models["deep/alpha"]["files"]
    assert len(files) == 4  # two folds, twice
    expected = np.mean([to_logit(load_model(out / file).predict_proba(features)) for file in files], axis=0)
    assert_same_logits(logits_of(explainer, features, new(len(features))), expected)


@pytest.mark.parametrize("model", [name for name in ENSEMBLES if name != "stacking"])
def test_an_ensemble_is_the_mean_of_its_members_by_their_shares_without_those_that_have_no_gradient(model, finished):
    toy, out = finished
    saved = SavedRun.open(out)
    shares = {name: share for name, share in saved.models[model]["shares"].items() if share > 1e-6}
    with_gradient = {name: share for name, share in shares.items() if not name.startswith("knn")}
    explainer = Explainer(saved, model)
    assert set(explainer.weights.members) == with_gradient.keys()
    assert explainer.weights.covered == pytest.approx(sum(with_gradient.values()) / sum(shares.values()))
    assert set(explainer.weights.left_out) == shares.keys() - with_gradient.keys()
    if not with_gradient:  # fitted weights may give everything to k nearest neighbours
        return
    features = FeatureCache(toy.cache).read("test", explainer.backbones, toy.test_ids)[1]
    expected = np.zeros((len(features), len(LABELS)))
    for name, share in with_gradient.items():
        member = Explainer(saved, name)
        seen = np.concatenate([features[:, explainer.columns[b]] for b in member.backbones], axis=1)
        expected += share * logits_of(member, seen, new(len(seen))) / sum(with_gradient.values())
    assert_same_logits(logits_of(explainer, features, new(len(features))), expected)


def test_a_stacking_is_its_coefficients_times_the_logits_of_its_members(tmp_path):
    toy = make_toy(tmp_path)
    options = ("--folds", "2", "--refit", "--select", "stacking", "--calibration", "platt")
    code, said, out = run(toy, "run", "--preset", "none", *options)
    assert code == 0, said
    saved = SavedRun.open(out)
    features = FeatureCache(toy.cache).read("test", ["alpha", "beta"], toy.test_ids)[1]
    expected = to_logit(saved.predict("stacking", features))
    for model in ("stacking", "stacking+platt"):  # a calibration is explained by what it calibrates
        found = logits_of(Explainer(saved, model), features, new(len(features)))
        assert_same_logits(found, expected)  # members are one refitted model each


def test_images_of_ones_own_choice_are_shown_at_all_labels_in_every_split(own):
    toy, out = own
    clinic = ["b", toy.train_ids[0]]
    for name, width in (("alpha", 12), ("beta", 20)):
        write_cache_file(toy.cache / "clinic" / f"{name}.h5", clinic, np.ones((2, width)) * 5)
    code, said = gradients(out, "--ids", f"{toy.train_ids[0]}.png,b", "--cache", str(toy.cache))
    assert code == 0, said
    assert (
        "gradients.h5: 9 of 9 pairs of image and label (3 of 3 images) for logistic/all. To draw them: .venv/bin/python"
        in said
    )
    found = read_gradients(out)
    assert {(pair.split, pair.image_id) for pair in found.pairs} == {
        ("clinic", "b"),
        ("clinic", toy.train_ids[0]),
        ("train", toy.train_ids[0]),
    }
    assert [pair.label for pair in found.pairs] == [0, 1, 2] * 3
    saved = SavedRun.open(out)
    expected = saved.predict("logistic/all", np.full((1, 32), 5, np.float32))[0]
    np.testing.assert_allclose([pair.score for pair in found.pairs[:3]], expected, rtol=1e-6)
    assert_maps_and_rests_are_logits(found, FeatureCache(toy.cache))


def test_the_digest_is_that_of_the_file_that_was_extracted(own):
    toy, out = own
    code, said = gradients(out, "--ids", toy.train_ids[0])
    assert code == 0, said
    empty = digest((toy.data / "train" / f"{toy.train_ids[0]}.png").read_bytes()).hex()
    assert {pair.digest for pair in read_gradients(out).pairs} == {empty}


@pytest.mark.parametrize("baseline", ["knn", "prior"])
def test_a_final_model_without_gradient_has_pairs_without_them_and_says_which_models_have(baseline, tmp_path):
    toy = make_toy(tmp_path)
    baselines = ("--baselines", f"logistic,{baseline}", "--select", "prior" if baseline == "prior" else "knn/all")
    code, said, out = run(toy, "run", "--preset", "none", "--folds", "2", *baselines, "--calibration", "platt")
    assert code == 0, said
    final = json.loads((out / "run.json").read_text())["final_model"]
    assert f"thumbnails only, neither {final} nor a member of it has a gradient" in said
    found = read_gradients(out)
    assert (found.vectors, found.recipes, found.covered) == ({}, {}, 0)
    assert found.instead == ("logistic/alpha", "logistic/beta", "logistic/all")
    assert list(found.left_out) == [final.removesuffix("+platt")]
    assert {pair.split for pair in found.pairs} == {"train"}
    code, said = gradients(out, "--model", final)
    assert (code, "Name one of logistic/alpha, logistic/beta, logistic/all." in said) == (2, True), said
    assert gradients(out, "--model", "logistic/all")[0] == 0
    assert read_gradients(out).vectors["beta"].shape == (len(read_gradients(out).pairs), 20)


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda toy, out: (out / "run.json").unlink(), (), "holds no finished run"),
        (lambda toy, out: None, ("--model", "huge"), "has no model 'huge'"),
        (lambda toy, out: None, ("--cache", "/no/such"), "/no/such is not there"),
        (lambda toy, out: toy.cache.rename(toy.cache.with_name("away")), (), "is not there as seen from"),
        (lambda toy, out: (toy.cache / "train" / "beta.h5").unlink(), (), "beta.h5 is not there (cached for train:"),
        (lambda toy, out: None, ("--ids", "zz,yy"), "--ids names 2 images that"),
    ],
)
def test_what_cannot_be_explained_is_one_message(spoil, options, message, own):
    toy, out = own
    before = (out / "gradients.h5").read_bytes()
    spoil(toy, out)
    code, said = gradients(out, *options)
    assert (code, message in said) == (2, True), said
    assert (out / "gradients.h5").read_bytes() == before


def test_gradients_are_not_written_into_a_run_that_another_process_works_on(own):
    _, out = own
    before = (out / "gradients.h5").read_bytes()
    with hold_run(out):
        code, said = gradients(out)
    assert (code, f"{out} is being worked on by" in said) == (2, True)
    assert (out / "gradients.h5").read_bytes() == before


def test_predictions_have_the_gradients_of_their_surest_images(own):
    toy, out = own
    folder = toy.data.parent / "new"

    def predict(*options):
        arguments = ["predict", str(out), "--cache", str(toy.cache), "--split", "test", "--out", str(folder), *options]
        assert CliRunner().invoke(app, arguments).exit_code == 0

    predict("--heat", "4")
    found = read_gradients(folder)
    table = pd.read_csv(folder / "predictions_probability.csv", dtype={"ID": str}).set_index("ID")
    for number, label in enumerate(LABELS):
        of_label = sorted((pair for pair in found.pairs if pair.label == number), key=lambda pair: pair.reasons[0][1])
        assert [pair.image_id for pair in of_label] == list(table[label].nlargest(4).index)
        assert [pair.reasons for pair in of_label] == [(("surest", rank),) for rank in range(1, 5)]
        np.testing.assert_allclose([p.score for p in of_label], table[label].nlargest(4), rtol=1e-5)
    assert {pair.split for pair in found.pairs} == {"test"}
    assert_maps_and_rests_are_logits(found, FeatureCache(toy.cache))
    (folder / "cam").mkdir()
    (folder / "cam" / "cam.json").touch()
    predict("--overwrite")
    assert not (folder / "gradients.h5").exists()
    assert not (folder / "cam").exists()


def test_another_image_of_the_same_id_does_not_get_the_out_of_fold_score(own, tmp_path):
    toy, out = own
    other = tmp_path / "other"
    shutil.copytree(toy.cache, other)
    ids = change_cache_file(other / "train" / "beta.h5", lambda features: np.copyto(features, features[::-1].copy()))
    before = (out / "gradients.h5").read_bytes()
    for options, first in (((), ""), (("--ids", ids[3]), f"{ids[3]}). Name the cache that it learnt from")):
        code, said = gradients(out, "--cache", str(other), *options)
        assert (code, f"{other} does not hold the train images that {out} learnt from" in said) == (2, True), said
        assert f"get another score by logistic/all than in the run (first: {first}" in said
    assert (out / "gradients.h5").read_bytes() == before


@pytest.mark.parametrize("changed", [False, True])
def test_predictions_of_a_split_called_train_are_those_of_new_images(changed, own, tmp_path):
    toy, out = own
    if changed:
        change_cache_file(toy.cache / "train" / "beta.h5", lambda features: np.copyto(features, features[::-1].copy()))
    arguments = ["predict", str(out), "--cache", str(toy.cache), "--split", "train", "--out", str(tmp_path / "new")]
    assert CliRunner().invoke(app, [*arguments, "--heat", "4"]).exit_code == 0
    table = pd.read_csv(tmp_path / "new" / "predictions_probability.csv", dtype={"ID": str}).set_index("ID")
    found = read_gradients(tmp_path / "new")
    assert len(found.pairs) == 12
    for pair in found.pairs:
        assert pair.score == pytest.approx(table.loc[pair.image_id, LABELS[pair.label]], abs=1e-6)
    saved = SavedRun.open(out)
    _, features = FeatureCache(toy.cache).read("train", ["alpha", "beta"], [pair.image_id for pair in found.pairs])
    expected = logits_of(Explainer(saved, "logistic/all"), features, new(len(features)))
    assert_same_logits(
        np.array([pair.logit for pair in found.pairs]), expected[range(12), [pair.label for pair in found.pairs]]
    )
