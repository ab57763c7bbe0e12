"""`python -m classify predict`: a finished run gives new images what it would have given them itself."""

import errno
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from classify.__main__ import app
from classify.ensembles.ensembles import ENSEMBLES
from classify.experiment import Experiment
from classify.models.heads import HeadSpec, write_presets
from classify.rundir.files import write_files
from classify.rundir.folder import hold_run
from classify.rundir.saved_run import SavedRun
from classify.scores.thresholds import to_binary
from features.store.cache import FeatureCache
from features.store.gradients import read_gradients
from tests.classify.test_run import run
from tests.classify.toy import LABELS, Toy, copy_run, make_toy, reject, reseal, write_cache_file

TABLES = ("predictions_probability.csv", "predictions_binary.csv")
HEAD = HeadSpec(hidden_units=(6,), dropout=0.2, learning_rate=3e-3, batch_size=64, epochs=3)


def predict(toy: Toy, run_folder, *options: str, split="test", out="new"):
    folder = toy.data.parent / out
    arguments = ["predict", str(run_folder), "--cache", str(toy.cache), "--split", split, "--out", str(folder)]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split()), folder


def assert_same_predictions(ours: Path, theirs: Path) -> None:
    """Compare by id: in another order of rows, BLAS may round the last bit otherwise."""
    for name in TABLES:
        tables = [pd.read_csv(folder / name).sort_values("ID").reset_index(drop=True) for folder in (ours, theirs)]
        assert list(tables[0].columns) == ["ID", *LABELS]
        pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-6 if name == TABLES[0] else 0)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("predict"))


@pytest.fixture(scope="module")
def fitted(toy) -> tuple[Experiment, Path]:
    """What a run found in memory, and its folder."""
    seen = []

    def watch(folder, inputs, experiment, record):
        seen.append(experiment)
        write_files(folder, inputs, experiment, record)

    write_presets(toy.data.parent / "mine.json", {"deep": HEAD})
    options = ("--preset", str(toy.data.parent / "mine.json"), "--folds", "2", "--baselines", "logistic,knn,prior")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("classify.rundir.files.write_files", watch)
        code, said, out = run(toy, "run", *options, "--select", "stacking", "--calibration", "isotonic")
    assert code == 0, said
    return seen[0], out


@pytest.fixture(scope="module")
def finished(fitted) -> Path:
    return fitted[1]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Toy, Path]:
    """A data set, its cache and a run of logistic models."""
    toy = make_toy(tmp_path_factory.mktemp("plain"))
    code, said, out = run(toy, "run", "--folds", "2")
    assert code == 0, said
    return toy, out


@pytest.fixture
def own(plain, tmp_path) -> tuple[Toy, Path]:
    """A copy of them that a test may spoil."""
    toy, out = plain
    return copy_run(toy, out, tmp_path)


@pytest.mark.parametrize(
    "model",
    ["logistic/alpha", "knn/all", "prior", "deep/beta", "deep/all", *ENSEMBLES],
)
def test_every_kind_of_model_gives_the_test_split_the_probabilities_of_the_run(model, toy, fitted, tmp_path):
    experiment, finished = fitted  # the run's files hold the test predictions of its final model only
    options = ("--model", model, "--images", str(toy.data / "test"), "--overwrite")
    code, said, out = predict(toy, finished, *options)
    assert code == 0, said
    of_run, cuts = experiment.predictions[model].test, experiment.thresholds[model]
    for name, values in zip(TABLES, (of_run, to_binary(of_run, cuts)), strict=True):
        expected = pd.DataFrame(values, columns=LABELS)
        expected.insert(0, "ID", toy.test_ids)
        expected.to_csv(tmp_path / name, index=False)
    assert_same_predictions(out, tmp_path)


def test_the_final_model_is_the_default_calibrated_and_cut_as_in_the_run(toy, finished):
    code, said, out = predict(toy, finished, out="final_model")
    assert code == 0
    assert "30 of 30 images of test predicted by stacking+isotonic" in said
    assert_same_predictions(out, finished)
    record = json.loads((out / "prediction.json").read_text())
    assert (record["model"], record["split"], record["predicted"], record["rejected"]) == (
        "stacking+isotonic",
        "test",
        30,
        [],
    )
    assert set(record["fingerprints"]) == {"alpha", "beta"}


def test_a_prevalence_shifts_the_odds_of_its_label_and_no_decision(toy, finished):
    ours = predict(toy, finished, "--model", "logistic/all", out="as_learnt")[2]
    code, said, folder = predict(toy, finished, "--model", "logistic/all", "--prevalence", "epidural=0.01", out="rare")
    assert code == 0
    learnt = toy.train_labels[:, 0].mean()
    assert (
        f"epidural: probabilities are for a prevalence of 0.01, shifted from the {learnt:.4g} of the training" in said
    )
    before, after = (pd.read_csv(path / TABLES[0]) for path in (ours, folder))
    odds = before["epidural"] / (1 - before["epidural"]) * (0.01 / 0.99) / (learnt / (1 - learnt))
    np.testing.assert_allclose(after["epidural"], odds / (1 + odds), rtol=1e-5)
    for name in LABELS[1:]:
        np.testing.assert_array_equal(after[name], before[name])
    assert (ours / TABLES[1]).read_bytes() == (folder / TABLES[1]).read_bytes()
    assert json.loads((folder / "prediction.json").read_text())["prevalences"] == {"epidural": 0.01}
    code, said, _ = predict(toy, finished, "--prevalence", "subdural=0.01", out="none")
    assert code == 2
    assert "--prevalence names 'subdural', which is not a label. The labels: epidural" in said


def test_only_the_backbones_that_the_model_needs_have_to_be_there(own):
    toy, finished = own
    (toy.cache / "test" / "beta.h5").unlink()
    assert predict(toy, finished, "--model", "logistic/alpha")[0] == 0
    code, said, _ = predict(toy, finished, "--model", "logistic/all", out="other")
    assert code == 2
    assert "beta.h5 is not there" in said


def test_another_split_of_another_cache_is_predicted_in_its_order(own):
    toy, finished = own
    rng = np.random.default_rng(1)
    for name, width in (("alpha", 12), ("beta", 20)):
        write_cache_file(toy.cache / "clinic" / f"{name}.h5", ["b", "a", "c"], rng.normal(size=(3, width)) + 5)
    code, _, out = predict(toy, finished, split="clinic")
    assert code == 0
    assert list(pd.read_csv(out / TABLES[0])["ID"]) == ["b", "a", "c"]


def test_features_of_another_fingerprint_are_refused_with_the_difference_and_the_remedy(own):
    toy, finished = own
    write_cache_file(toy.cache / "new" / "alpha.h5", ["x"], np.zeros((1, 12)), weights_digest="1" * 32)
    (toy.cache / "train" / "alpha.h5").unlink()  # the cache itself would refuse first
    (toy.cache / "test" / "alpha.h5").unlink()
    code, said, out = predict(toy, finished, "--model", "logistic/alpha", split="new")
    assert code == 2
    assert "new/alpha.h5 was extracted otherwise than what" in said
    assert f"weights_digest {'0' * 32} -> {'1' * 32}" in said
    assert "--backbones alpha --weights random --features last --precision float32 --dtype float32" in said
    assert not out.exists()


def test_rejected_images_have_empty_cells_and_exit_3(own):
    toy, finished = own
    lost = toy.test_ids[4]
    reject(toy, f"test/{lost}.png", f"train/{toy.train_ids[0]}.png")
    for options in ((), ("--images", str(toy.data / "test"))):
        code, said, out = predict(toy, finished, *options, out=f"new{len(options)}")
        assert code == 3
        assert "1 could not be read by stage 1" in said
        table = pd.read_csv(out / TABLES[0]).set_index("ID")
        assert len(table) == 30
        assert table.isna().all(axis=1).to_dict() == {image_id: image_id == lost for image_id in table.index}


def test_images_that_are_gone_are_not_predicted_and_new_ones_must_be_extracted(own):
    toy, finished = own
    (toy.data / "test" / f"{toy.test_ids[0]}.png").unlink()
    code, _, out = predict(toy, finished, "--images", str(toy.data / "test"))
    assert code == 0
    assert list(pd.read_csv(out / TABLES[0])["ID"]) == sorted(toy.test_ids[1:])
    (toy.data / "test" / "newcomer.png").touch()
    code, said, _ = predict(toy, finished, "--images", str(toy.data / "test"), out="other")
    assert (code, "1 of 30 images are missing (first: newcomer)" in said) == (2, True)


def test_predictions_are_replaced_only_where_they_are_the_same_ones_and_it_is_asked_for(own):
    toy, finished = own
    images = ("--images", str(toy.data / "test"))
    assert predict(toy, finished, *images)[0] == 0
    for options, message in (
        (images, "holds predictions. Name"),
        (("--overwrite",), "holds predictions of other images"),
    ):
        code, said, _ = predict(toy, finished, *options)
        assert (code, message in said) == (2, True), said
    assert predict(toy, finished, *images, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("run.json", "gradients.h5", "cam/cam.json"), "holds a run, which predictions would spoil"),
        (
            ("gradients.h5",),
            "holds gradients.h5 that `predict` did not write (prediction.json is missing). Name another",
        ),
        (("cam/cam.json", "cam/photo.jpg"), "holds cam that `predict` did not write"),
        (TABLES, "holds predictions_probability.csv, predictions_binary.csv that `predict` did not write"),
        (("prediction.json",), "prediction.json cannot be read (Expecting value"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused_and_stays_as_it_was(names, message, toy, finished, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    code, said, _ = predict(toy, finished, "--overwrite", out=tmp_path)
    assert (code, message in said) == (2, True), said
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {*names}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_disk_that_fills_up_keeps_the_earlier_predictions_or_none(toy, finished, monkeypatch, tmp_path):
    options, write = ("--model", "logistic/alpha"), pd.DataFrame.to_csv

    def fill(table, path, **options):
        write(table, path, **options)
        if "binary" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    def predict_on_a_full_disk(*options):
        with monkeypatch.context() as patch:
            patch.setattr(pd.DataFrame, "to_csv", fill)
            code, said, _ = predict(toy, finished, *options, out=tmp_path / "new")
        assert (code, "predictions_binary.csv cannot be written: No space left on device." in said) == (2, True), said

    predict_on_a_full_disk(*options)
    assert not (tmp_path / "new").exists()
    assert predict(toy, finished, *options, "--heat", "2", out=tmp_path / "new")[0] == 0
    before = contents(tmp_path / "new")
    assert before.keys() == {*TABLES, "prediction.json", "gradients.h5"}
    predict_on_a_full_disk("--model", "prior", "--overwrite")
    assert contents(tmp_path / "new") == before


@pytest.mark.parametrize("place", range(3))
def test_what_was_stopped_while_it_took_its_place_is_finished_by_the_same_command(
    place, toy, finished, monkeypatch, tmp_path
):
    options, replace_file, placed = ("--model", "logistic/alpha"), Path.replace, []

    def stop(path, target):
        if path.parent.name == ".prediction.partial" and target.parent == tmp_path / "new":
            placed.append(target.name)
            if len(placed) > place:
                raise KeyboardInterrupt
        return replace_file(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        assert predict(toy, finished, *options, out=tmp_path / "new")[0] == 130
    assert not (tmp_path / "new" / "prediction.json").exists()
    code, said, _ = predict(toy, finished, *options, "--images", str(toy.data / "test"), out=tmp_path / "new")
    assert (code, "holds predictions of other images" in said) == ((2, True) if place else (0, False))
    if place:
        assert predict(toy, finished, *options, out=tmp_path / "new")[0] == 0
    assert contents(tmp_path / "new").keys() == {*TABLES, "prediction.json"}
    assert not (tmp_path / "new" / ".prediction.partial").exists()


def test_two_at_once_do_not_write_to_one_folder(toy, finished, tmp_path):
    with hold_run(tmp_path, ".prediction.lock"):
        code, said, _ = predict(toy, finished, out=tmp_path)
    assert (code, f"{tmp_path} is being worked on by process" in said) == (2, True), said
    assert not any(tmp_path.iterdir())


def change(out, **values):
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | values))


def strip(out):
    """Leave what an earlier version of Headbank would have written."""
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({k: v for k, v in record.items() if k not in ("format", "files", "seal")}))


def test_features_of_another_width_are_refused_whatever_their_fingerprint(own):
    toy, finished = own
    for name, width in (("alpha", 20), ("beta", 12)):  # the widths of the run, exchanged
        write_cache_file(toy.cache / "new" / f"{name}.h5", ["x"], np.ones((1, width)))
    for model in ("logistic/alpha", "logistic/all"):
        code, said, _ = predict(toy, finished, "--model", model, split="new")
        assert (code, "alpha.h5 has 20 features an image, but" in said) == (2, True), said


def test_labels_may_be_called_like_numbers_and_missing_values(tmp_path):
    toy = make_toy(tmp_path)
    names = dict(zip(LABELS, ("1", "NA", "nan"), strict=True))
    pd.read_csv(toy.data / "train.csv").rename(columns=names).to_csv(toy.data / "train.csv", index=False)
    finished = run(toy, "run", "--folds", "2", "--ensemble", "mean")[2]
    code, said, out = predict(toy, finished)
    assert code == 0, said
    assert list(pd.read_csv(out / TABLES[1]).columns) == ["ID", "1", "NA", "nan"]


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda out: (out / "run.json").unlink(), (), "run.json is missing. Give the folder that"),
        (lambda out: (out / "run.json").write_text("[1"), (), "run.json cannot be read"),
        (lambda out: (out / "run.json").write_text("[1]"), (), "run.json cannot be read (it is not a JSON object)"),
        (strip, (), "its format is older than 2, expected 3. Make the run again with the options"),
        (lambda out: change(out, format=4), (), "its format is 4, expected 3. Make the run again"),
        (lambda out: change(out, final_model="mean"), (), "run.json was changed by hand, or is damaged. Put the"),
        (
            lambda out: (out / "thresholds.csv").unlink(),
            (),
            "thresholds.csv is missing. Put the original back, or make",
        ),
        (lambda out: (out / "thresholds.csv").write_text(""), (), "thresholds.csv was changed by hand, or is damaged."),
        (
            lambda out: (out / "models/logistic__alpha/fold0.skops").unlink(),
            (),
            "logistic__alpha/fold0.skops is missing",
        ),
        (
            lambda out: (out / "models/logistic__alpha/fold0.skops").write_bytes(b"PK"),
            (),
            "logistic__alpha/fold0.skops was changed by hand, or is damaged",
        ),
        (lambda out: None, ("--model", "huge"), "has no model 'huge'. Choose one of logistic/alpha, logistic/beta"),
        (
            lambda out: None,
            ("--split", "nowhere"),
            "holds no split 'nowhere'. Choose one of those that it has: test, train.",
        ),
        (lambda out: None, ("--images", "/no/such"), "/no/such is not a folder"),
    ],
)
def test_a_run_or_split_that_cannot_be_used_is_one_message(spoil, options, message, own):
    toy, finished = own
    spoil(finished)
    model = () if "--model" in options else ("--model", "logistic/alpha")
    code, said, out = predict(toy, finished, *model, *options)
    assert (code, message in said) == (2, True), said
    assert not any((out / name).exists() for name in TABLES)


def test_the_options_of_a_run_are_those_of_the_backbones_that_its_model_needs(own):
    _, finished = own
    saved = SavedRun.open(finished)
    saved.record["models"]["prior"] = {"members": [], "backbones": [], "shares": {}}  # it sees which images there are
    for model, names in (("logistic/beta", "beta"), ("mean", "alpha,beta"), ("prior", "alpha")):
        expected = f"--backbones {names} --weights random --features last --precision float32 --dtype float32 "
        expected += "--views 1 --range 0,65535 --fit squash --orientation stored"
        assert saved.extract_options(model) == [expected.split()]


def test_a_weighted_mean_needs_the_members_that_have_a_share_only(own):
    _, finished = own
    record = json.loads((finished / "run.json").read_text())
    record["models"]["greedy"]["shares"] = {"logistic/beta": 1.0}
    reseal(finished, models=record["models"])
    (options,) = SavedRun.open(finished).extract_options("greedy")
    assert options[:2] == ["--backbones", "beta"]


def test_labels_of_the_run_are_the_columns(own):
    toy, finished = own
    _, _, out = predict(toy, finished)
    assert list(pd.read_csv(out / TABLES[1]).columns) == ["ID", *LABELS]


def test_a_run_on_mid_level_features_is_named_by_them_predicts_and_explains(tmp_path):
    toy = make_toy(tmp_path)
    rng = np.random.default_rng(5)
    for split, ids in (("train", toy.train_ids), ("test", toy.test_ids)):
        write_cache_file(toy.cache / split / "alpha.mid.h5", ids, rng.normal(size=(len(ids), 9)))
    code, _, out = run(toy, "run", "--select", "logistic/alpha.mid")
    assert code == 0
    record = json.loads((out / "run.json").read_text())
    assert {name: entry["width"] for name, entry in record["backbones"].items()} == {"alpha.mid": 9, "beta": 20}
    assert (out / "models" / "logistic__alpha.mid").is_dir()
    code, _, folder = predict(toy, out, "--heat", "1")
    assert code == 0
    assert_same_predictions(folder, out)
    gradients = read_gradients(folder)
    assert {name: vectors.shape for name, vectors in gradients.vectors.items()} == {"alpha.mid": (len(LABELS), 9)}


@pytest.mark.parametrize(("tta", "said_views"), [("mean", "mean of 3"), ("none", "first of 3")])
def test_new_images_are_predicted_by_the_views_that_the_run_read(tmp_path, tta, said_views):
    toy = make_toy(tmp_path)
    known = FeatureCache(toy.cache)
    splits = (("train", toy.train_ids), ("test", toy.test_ids))
    for split, ids, own in [(split, ids, known.read(split, ["alpha"], ids)[1]) for split, ids in splits]:
        others = own[:, np.newaxis] + np.random.default_rng(1).normal(size=(len(ids), 3, own.shape[1]))
        write_cache_file(toy.cache / split / "alpha.h5", ids, others)
    code, _, out = run(toy, "run", "--select", "logistic/alpha", "--tta", tta)
    assert code == 0
    code, _, folder = predict(toy, out, "--heat", "1")
    assert code == 0
    assert_same_predictions(folder, out)
    assert json.loads((folder / "prediction.json").read_text())["views"] == {"alpha": said_views}
    assert pd.read_csv(out / "backbones.csv").set_index("backbone")["views"].to_dict() == {
        "alpha": said_views,
        "beta": "1",
    }
    saved, cache = SavedRun.open(out), FeatureCache(toy.cache)
    features = cache.read("test", ["alpha"], toy.test_ids, tta)[1]
    expected = pd.read_csv(out / TABLES[0])[list(LABELS)].to_numpy()
    np.testing.assert_allclose(saved.predict("logistic/alpha", features), expected, atol=1e-6)
    other = cache.read("test", ["alpha"], toy.test_ids, "none" if tta == "mean" else "mean")[1]
    assert np.abs(saved.predict("logistic/alpha", other) - expected).max() > 0.01
