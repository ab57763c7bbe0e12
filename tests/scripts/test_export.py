"""`python -m classify export`: what leaves the house gives the probabilities of the run, from pixels, without us."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from classify.rundir.saved_run import SavedRun
from extract.images.decoding import decode
from extract.images.reading import Reading
from extract.images.resizing import resize
from features.common.keras_import import import_keras
from tests.scripts.tiny_run import LABELS, call, make_run

RUN = ("--baselines", "logistic,ridge_regression,knn", "--preset", "linear", "--ensemble", "none")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two backbones, their mid-level features, and a calibrated ensemble."""
    options = ("--baselines", "logistic,ridge_regression", "--preset", "linear", "--ensemble", "logit_mean")
    return make_run(tmp_path_factory.mktemp("tiny"), *options, "--calibration", "platt", "--select", "logit_mean")


def pixels(run, size: int) -> np.ndarray:
    """The test images as an input of the file takes them, in the order of the CSV files: uint8 (N, size, size, 3)."""
    ids = pd.read_csv(run / "predictions_probability.csv")["ID"]
    paths = [run.parent / "data" / "test" / f"{image_id}.png" for image_id in ids]
    return np.stack([resize(decode(path.read_bytes(), path.stem, Reading())[0], size) for path in paths])


def expected(run) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and decisions of the CSV files."""
    tables = (pd.read_csv(run / f"predictions_{kind}.csv") for kind in ("probability", "binary"))
    probabilities, decisions = (table[list(LABELS)].to_numpy() for table in tables)
    assert len(np.unique(decisions)) == 2
    return probabilities, decisions


def check(run, probabilities, decisions) -> None:
    wanted, decided = expected(run)
    assert (probabilities.dtype, decisions.dtype) == (np.float32, np.uint8)
    np.testing.assert_allclose(probabilities, wanted, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(decisions, decided)


def check_facts(found) -> None:
    """What a file says of its outputs: the labels in their order, and the thresholds that decide."""
    assert json.loads(str(found["labels"])) == list(LABELS)
    thresholds = np.array(json.loads(str(found["thresholds"])), np.float32)
    np.testing.assert_array_equal(found["decisions"], found["probabilities"] >= thresholds)


def inputs_of(run) -> dict[str, np.ndarray]:
    return {f"images_{size}": pixels(run, size) for size in (16, 20)}


def export(run, out, *options) -> str:
    code, said = call("classify", "export", run, out, *options)
    assert code == 0, said
    return said


def test_a_keras_file_gives_the_probabilities_of_the_csv(run, tmp_path):
    out = tmp_path / "model.keras"
    said = export(run, out)
    assert "images_16 (N, 16, 16, 3), images_20 (N, 20, 20, 3)" in said
    assert "proved on 4 images" in said
    model = import_keras().saving.load_model(out)  # in safe mode: it holds no code
    found = model(inputs_of(run))
    check(run, np.asarray(found["probabilities"]), np.asarray(found["decisions"]))
    alone = model({name: images[:1] for name, images in inputs_of(run).items()})
    np.testing.assert_allclose(np.asarray(alone["probabilities"])[0], expected(run)[0][0], rtol=0, atol=1e-5)


ONNX = """
import sys, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
facts = session.get_modelmeta().custom_metadata_map
assert [(i.name, i.shape[0], i.type) for i in session.get_inputs()] == [
    ("images_16", "N", "tensor(uint8)"), ("images_20", "N", "tensor(uint8)")], session.get_inputs()
probabilities, decisions = session.run(["probabilities", "decisions"], dict(np.load(sys.argv[2])))
np.savez(sys.argv[3], probabilities=probabilities, decisions=decisions, **facts)
assert not {"tensorflow", "keras", "onnx", "classify", "extract"} & set(sys.modules)
"""


def test_an_onnx_file_gives_them_where_there_is_only_onnxruntime_and_numpy(run, tmp_path):
    pytest.importorskip("tf2onnx")
    onnx = pytest.importorskip("onnx")
    out = tmp_path / "model.onnx"
    export(run, out)
    assert {entry.domain: entry.version for entry in onnx.load(out).opset_import}[""] == 18
    np.savez(tmp_path / "in.npz", **inputs_of(run))
    words = [sys.executable, "-c", ONNX, out, tmp_path / "in.npz", tmp_path / "out.npz"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    check(run, found["probabilities"], found["decisions"])
    check_facts(found)


def test_a_saved_model_gives_them(run, tmp_path):
    import tensorflow as tf

    out = tmp_path / "model"
    export(run, out)
    export(run, out, "--overwrite")  # all that is in the folder is known to be of an export
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.md"]
    model = tf.saved_model.load(out)
    found = model.serve(inputs_of(run))
    check(run, found["probabilities"].numpy(), found["decisions"].numpy())


def test_an_openvino_file_gives_them(run, tmp_path):
    openvino = pytest.importorskip("openvino")
    out = tmp_path / "model.xml"
    export(run, out)
    compiled = openvino.Core().compile_model(out, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(inputs_of(run))
    check(run, found["probabilities"], found["decisions"])
    about = openvino.Core().read_model(out)
    facts = {name: about.get_rt_info(["headbank", name]).astype(str) for name in ("labels", "thresholds")}
    check_facts({name: found[name] for name in ("probabilities", "decisions")} | facts)
    assert (tmp_path / "model.bin").is_file()


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """One backbone, both kinds of features of two views, stored as float16; the final model cannot be exported."""
    how = ("--views", "hflip", "--dtype", "float16", "--features", "last,mid")
    root = tmp_path_factory.mktemp("mirrored")
    return make_run(root, *RUN, "--features", "last,mid", "--select", "knn/all", extract_options=how, sizes=(16,))


def test_views_kinds_of_features_and_storage_are_those_of_the_run(mirrored, tmp_path):
    out = tmp_path / "model.keras"
    export(mirrored, out, "--model", "logistic/all")
    code, said = call(
        "classify", "predict", mirrored, "--cache", mirrored.parent / "cache", "--split", "test", "--out",
        tmp_path / "predicted", "--model", "logistic/all",
    )  # fmt: skip
    assert code == 0, said
    found = import_keras().saving.load_model(out)(pixels(mirrored, 16))
    table = pd.read_csv(tmp_path / "predicted" / "predictions_probability.csv").set_index("ID")
    wanted = table.loc[pd.read_csv(mirrored / "predictions_probability.csv")["ID"], list(LABELS)]
    # A feature that lies between two numbers of float16 may be rounded to the other one: 5e-4 of its value.
    np.testing.assert_allclose(np.asarray(found["probabilities"]), wanted, rtol=0, atol=1e-4)


def test_a_model_that_cannot_be_exported_is_refused_and_the_best_that_can_is_named(mirrored, tmp_path):
    out = tmp_path / "model.keras"
    code, said = call("classify", "export", mirrored, out)
    ranked = pd.read_csv(mirrored / "leaderboard.csv")["model"]
    best = next(name for name in ranked if not name.startswith("knn"))
    assert (code, out.exists()) == (2, False)
    assert f"knn/all of {mirrored} cannot be exported: knn/all is neither a head nor a line" in said
    assert f"The best model of the leaderboard that can: --model {best}" in said


def test_features_that_no_graph_makes_are_named(run):
    from scripts.export import _obstacle

    saved = SavedRun.open(run)
    recipe = saved.record["backbones"]["tiny1.mid"]["recipe"]
    for change, message in (
        ({"views": ["identity", "random1", "random2"]}, "it reads the mean of 3 random views"),
        ({"weights": "own.onnx"}, "tiny1.mid is the .onnx file own.onnx, which Keras does not open"),
        ({"views": ["identity", "hflip"]}, ""),
    ):
        backbones = saved.record["backbones"] | {"tiny1.mid": {"width": 33, "recipe": recipe | change}}
        changed = SavedRun(run, {**saved.record, "backbones": backbones})
        assert _obstacle(changed, "logit_mean")[: len(message) or None] == message
        assert _obstacle(changed, "logistic/tiny0.mid") == ""


def test_a_format_that_fails_or_is_not_exact_leaves_nothing(run, tmp_path, monkeypatch):
    from dataclasses import replace

    from scripts import export as module

    def fail(model, path, facts):
        raise ValueError("no such operator\nat line 3")

    def miss(path):
        return lambda images: {"probabilities": np.full((4, 2), 0.5, np.float32), "decisions": np.zeros((4, 2))}

    for change, message in (
        ({"write": fail}, "cannot be written as keras: no such operator Choose another format."),
        ({"open": miss}, "is not written: its probabilities differ by "),
    ):
        monkeypatch.setitem(module.FORMATS, ".keras", replace(module.FORMATS[".keras"], **change))
        code, said = call("classify", "export", run, tmp_path / "model.keras", "--model", "logistic/tiny0.mid")
        assert (code, message in said) == (2, True), said
        assert list(tmp_path.iterdir()) == []
        monkeypatch.undo()


def test_an_out_that_cannot_be_written_is_refused_before_anything_is_built(run, tmp_path):
    (tmp_path / "there.keras").write_text("mine")
    (tmp_path / "card.keras.md").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "with_notes" / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "fingerprint.pb", "variables/variables.index", "variables/notes.txt"):
        (tmp_path / "with_notes" / name).write_text("mine")
    (tmp_path / "folder.keras.md").mkdir()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for name, options, message in (
        ("model.pt", (), "ends in .pt, which is no format. Expected one of: NAME.keras (keras), NAME.onnx"),
        ("there.keras", (), "there.keras is there already. Name another file, or replace it with --overwrite."),
        ("card.keras", (), "card.keras.md is there already."),
        ("mine", ("--overwrite",), "mine is a folder that is no SavedModel. Name another file."),
        ("with_notes", ("--overwrite",), "with_notes holds variables/notes.txt, which no export wrote"),
        ("folder.keras", ("--overwrite",), "folder.keras.md is a folder that is no SavedModel. Name another file."),
        ("m.keras", ("--model", "none"), "has no model 'none'"),
    ):
        code, said = call("classify", "export", run, tmp_path / name, *options)
        assert (code, message in said) == (2, True), said
    assert (tmp_path / "there.keras").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_the_old_one_stays_until_the_new_one_is_in(tmp_path, monkeypatch):
    from scripts.export import _publish
    from scripts.export_formats import FORMATS

    out, staged = tmp_path / "model", tmp_path / "staged"
    for folder, content in ((out, "old"), (staged / "model", "new")):
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_text(content)
    (staged / "model.md").write_text("new")
    rename = Path.rename

    def fail(path, target):
        assert target != out or path.name.endswith(".old"), "the disk is gone"
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(AssertionError, match="the disk is gone"):
        _publish(staged, out, FORMATS[""])
    assert (out / "saved_model.pb").read_text() == "old"
    monkeypatch.undo()
    _publish(staged, out, FORMATS[""])
    assert (out / "saved_model.pb").read_text() == (tmp_path / "model.md").read_text() == "new"
    assert (staged / "model.old" / "saved_model.pb").read_text() == "old"


def test_missing_packages_and_damaged_runs_are_named(run, tmp_path, monkeypatch):
    from scripts import export as module

    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "tf2onnx" else object())
    code, said = call("classify", "export", run, tmp_path / "model.onnx")
    assert (code, "needs tf2onnx: not installed. Run: " in said) == (2, True), said
    table = run / "thresholds.csv"
    kept = table.read_bytes()
    table.write_bytes(kept + b"\n")
    code, said = call("classify", "export", run, tmp_path / "model.keras")
    table.write_bytes(kept)
    assert (code, "thresholds.csv was changed by hand, or is damaged." in said) == (2, True), said
    assert list(tmp_path.iterdir()) == []


def test_the_card_says_what_it_is_and_how_to_call_it(run, tmp_path, monkeypatch):
    out = tmp_path / "model.keras"
    export(run, out)
    (tmp_path / "model.keras").touch()
    export(run, out, "--overwrite")
    card = (tmp_path / "model.keras.md").read_text(encoding="utf-8")
    front = dict(line.split(": ", 1) for line in card.split("---\n")[1].splitlines())
    assert json.loads(front["pipeline_tag"]) == "image-classification"
    assert json.loads(front["library_name"]) == "keras"
    assert json.loads(front["tags"])[-2:] == list(LABELS)
    saved = SavedRun.open(run)
    assert saved.recipes["tiny0.mid"].fingerprint in card
    assert "72 training images, of 12 groups; 3 folds" in card
    assert "squashed to the input size" in card
    metrics = pd.read_csv(run / "metrics.csv").set_index(["model", "split", "label", "metric"])
    value, low, high = metrics.loc[(saved.final_model, "oof", "macro", "roc_auc"), ["value", "low", "high"]]
    assert f"| out-of-fold | macro | {value:.3f} [{low:.3f}, {high:.3f}] |" in card
    code = card.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 5
    monkeypatch.chdir(tmp_path)
    exec(code, {})


def test_a_pruned_model_is_written_and_the_card_says_what_it_saves(run, tmp_path, monkeypatch):
    from classify.export import prune as module

    monkeypatch.setattr(module, "LOSS", 1.0)
    out = tmp_path / "model.keras"
    said = export(run, out, "--prune")
    assert "+platt in place of logit_mean+platt: on tiny" in said
    assert "seconds an image in place of" in said
    assert "images (N, " in said  # one backbone is left
    card = (tmp_path / "model.keras.md").read_text(encoding="utf-8")
    assert "Pruned: " in card
    assert "--prune" in card
    assert "made of its models when it was exported" in card
