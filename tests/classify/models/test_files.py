"""Every model is saved and loaded with equal probabilities, without pickle, and nothing else is loaded."""

import io
import json
import os
import pickle
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skops.io import dump, get_untrusted_types

from classify.ensembles.ensembles import CALIBRATIONS, ENSEMBLES
from classify.models.baselines import BASELINES
from classify.models.estimators import OneVsRest
from classify.models.files import TRUSTED, SavedEstimator, dump_trusted, load_model, load_trusted, model_path, save_fits
from classify.models.heads import HeadSpec
from classify.models.trained_head import Curves, TrainedHead
from features.common.errors import InputError
from features.common.keras_import import import_keras

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(80, 70)).astype(np.float32)  # wider than the 64 components that some keep
LABELS = (FEATURES[:, :3] + RNG.normal(size=(80, 3)) > 0).astype(np.uint8)
LABELS[:, 2] = np.arange(80) < 2  # too few for some: they keep a constant
PROBABILITIES = RNG.random((80, 3, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> dict[str, tuple[BaseEstimator, np.ndarray]]:
    """Every estimator of a run by name, and what it predicts for."""
    seen = dict.fromkeys(BASELINES, FEATURES)
    seen |= dict.fromkeys(ENSEMBLES, PROBABILITIES) | dict.fromkeys(CALIBRATIONS, PROBABILITIES[:, :, 0])
    estimators = {name: row.make() for name, row in BASELINES.items()}
    estimators |= {name: row.make() for name, row in (ENSEMBLES | CALIBRATIONS).items()}
    estimators["forest"].set_params(classifier__n_estimators=20)
    estimators["boosting"].set_params(classifier__max_iter=20)
    return {name: (estimator.fit(seen[name], LABELS), seen[name]) for name, estimator in estimators.items()}


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory) -> dict[str, Path]:
    """The file of each."""
    models = tmp_path_factory.mktemp("run") / "models"
    files = {
        name: save_fits(models, f"{name}/alpha", {"fold0": SavedEstimator(model)})["fold0"]
        for name, (model, _) in fitted.items()
    }
    assert files["forest"] == model_path(models, "forest/alpha", "fold0", ".skops")
    return files


def make_head(hidden_units: tuple[int, ...] = (), batch_norm: bool = True) -> TrainedHead:
    widths = [70, *hidden_units, 3]
    weights = [RNG.random(70, np.float32) + 0.5 for _ in range(4 * batch_norm)]
    for inputs, outputs in pairwise(widths):
        weights += [RNG.normal(size=shape).astype(np.float32) for shape in ((inputs, outputs), (outputs,))]
    none = np.zeros(0, np.float32)
    return TrainedHead(HeadSpec(hidden_units, batch_norm), weights, Curves(*[none] * 6), 1, 0.0)


@pytest.mark.parametrize("name", [*BASELINES, *ENSEMBLES, *CALIBRATIONS])
def test_every_estimator_comes_back_with_equal_probabilities(fitted, saved, name):
    estimator, seen = fitted[name]
    loaded = load_model(saved[name])
    assert type(loaded) is type(estimator)
    np.testing.assert_array_equal(loaded.predict_proba(seen), estimator.predict_proba(seen))


@pytest.mark.parametrize("head", [make_head(), make_head((5, 4)), make_head((6,), batch_norm=False)])
def test_every_head_comes_back_with_equal_probabilities_and_keras_gives_them_too(tmp_path, head):
    (path,) = save_fits(tmp_path, "mine/alpha", {"refit": head}).values()
    assert path == tmp_path / "mine__alpha" / "refit.keras"
    probabilities = head.predict_proba(FEATURES)
    np.testing.assert_array_equal(load_model(path).predict_proba(FEATURES), probabilities)
    by_keras = import_keras().saving.load_model(path).predict(FEATURES, verbose=0)
    # A logit is a sum of 70 products of up to 5 or so: float32 sums in another order differ by some 1e-5 of it, and a
    # probability by a quarter of that at most.
    np.testing.assert_allclose(by_keras, probabilities, rtol=0, atol=1e-5)


def test_a_head_is_written_as_keras_writes_it(tmp_path):
    head = make_head((5, 4))
    (ours,) = save_fits(tmp_path, "mine/alpha", {"refit": head}).values()
    model = import_keras().saving.load_model(ours)
    model.save(tmp_path / "keras.keras")
    with zipfile.ZipFile(tmp_path / "keras.keras") as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    kinds = [(layer["class_name"], layer["config"].get("activation")) for layer in layers]
    assert kinds == [
        ("InputLayer", None), ("BatchNormalization", None), ("Dropout", None), ("Dense", "relu"), ("Dropout", None),
        ("Dense", "relu"), ("Dropout", None), ("Dense", "sigmoid"),
    ]  # fmt: skip
    assert [layer["config"]["rate"] for layer in layers if layer["class_name"] == "Dropout"] == [head.spec.dropout] * 3
    penalties = [
        layer["config"]["kernel_regularizer"]["config"]["l2"] for layer in layers if "units" in layer["config"]
    ]
    np.testing.assert_allclose(penalties, head.spec.l2)
    for loaded in (load_model(ours), load_model(tmp_path / "keras.keras")):
        assert loaded.batch_norm
        for weight, same, theirs in zip(head.weights, loaded.weights, model.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, same)
            np.testing.assert_array_equal(weight, theirs)


def test_the_types_that_are_trusted_are_those_that_are_needed(fitted, saved):
    needed = {name for path in saved.values() for name in get_untrusted_types(file=path)}
    assert sorted(name for name in needed if not name.startswith("classify.")) == sorted(TRUSTED)


def assert_no_pickle(path: Path) -> None:
    """A model's file is a zip of JSON, of arrays that are no objects, and of HDF5."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith(".npy"):
                np.load(io.BytesIO(content), allow_pickle=False)
            elif name.endswith(".json"):
                json.loads(content)
            else:
                assert (path.suffix, content[:4]) == (".keras", b"\x89HDF"), name


def test_no_file_holds_a_pickle(saved, tmp_path):
    (head,) = save_fits(tmp_path, "mine/alpha", {"fold0": make_head()}).values()
    for path in (*saved.values(), head):
        assert_no_pickle(path)


class Stranger(BaseEstimator):
    """An estimator that no run has."""


@pytest.mark.parametrize(
    ("estimator", "named"),
    [
        (Stranger(), f"{__name__}.Stranger"),
        (FunctionTransformer(os.system), f"{os.system.__module__}.system"),
        (FunctionTransformer(dump_trusted), "classify.models.files.dump_trusted"),
        (OneVsRest(Stranger()), f"{__name__}.Stranger"),
    ],
)
def test_a_file_that_names_another_type_is_not_read(tmp_path, estimator, named):
    path = tmp_path / "fold0.skops"
    dump(estimator, path)
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert str(caught.value) == (
        f"{path} holds types that no estimator of Headbank has (first: {named}), so it is not read. "
        "Make the run again on this machine; or, if it is your own, call classify.trust with the type before."
    )


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    if how == "missing":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "cut": content[:middle], "text": b"no archive"}[how])


@pytest.mark.parametrize("how", ["missing", "folder", "empty", "cut", "text"])
@pytest.mark.parametrize("suffix", [".skops", ".keras"])
def test_a_damaged_file_is_one_message(fitted, tmp_path, suffix, how):
    model = make_head() if suffix == ".keras" else SavedEstimator(fitted["logistic"][0])
    (path,) = save_fits(tmp_path, "mine/alpha", {"fold0": model}).values()
    damage(path, how)
    with pytest.raises(InputError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path} ")
    assert message.endswith("ake the run again.")
    assert "\n" not in message


class Command:
    """Removes the file whose name it has when its pickle is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.remove, (str(self.path),)


@pytest.mark.parametrize("loader", ["TypeNode", "FunctionNode", "MethodNode", "ReduceNode", "NoNode", "a pickle"])
def test_an_archive_that_is_none_of_skops_is_one_message_and_runs_nothing(tmp_path, loader):
    path, canary = tmp_path / "fold0.skops", tmp_path / "canary"
    canary.touch()
    schema = {"__class__": "remove", "__module__": "os", "__loader__": loader, "__id__": 1, "content": str(canary)}
    content = pickle.dumps(Command(canary)) if loader == "a pickle" else json.dumps(schema | {"protocol": 2}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", content)
    with pytest.raises(InputError, match=rf"^{path} (is not a file of skops|holds types that no) .*again.*\.$"):
        load_model(path)
    assert canary.exists()


@pytest.mark.parametrize("other", [{"a": 1}, StandardScaler()])
def test_what_skops_trusts_but_is_no_model_of_a_run_is_refused(tmp_path, other):
    path = tmp_path / "fold0.skops"
    dump(other, path)
    with pytest.raises(InputError, match=rf"^{path} holds a {type(other).__name__}, not .*Make the run again\.$"):
        load_model(path)


def keras_models() -> dict[str, object]:
    keras = import_keras()
    layers = keras.layers

    def stack(*of_layers: object) -> object:
        return keras.Sequential([keras.Input((70,)), *of_layers])

    features = keras.Input((70,))
    return {
        "another layer": stack(layers.LayerNormalization(), layers.Dense(3, "sigmoid")),
        "another activation": stack(layers.Dense(3, "softplus")),
        "another hidden activation": stack(layers.Dense(4, "tanh"), layers.Dense(3, "sigmoid")),
        "no bias": stack(layers.Dense(3, "sigmoid", use_bias=False)),
        "batch norm of another epsilon": stack(layers.BatchNormalization(epsilon=0.1), layers.Dense(3, "sigmoid")),
        "batch norm without a scale": stack(layers.BatchNormalization(scale=False), layers.Dense(3, "sigmoid")),
        "batch norm only": stack(layers.BatchNormalization()),
        "a function": stack(layers.Lambda(lambda x: x), layers.Dense(3, "sigmoid")),
        "two paths": keras.Model(
            features, layers.add([layers.Dense(3, "sigmoid")(features), layers.Dense(3, "sigmoid")(features)])
        ),
    }


def test_a_keras_model_that_is_no_head_is_refused(tmp_path):
    for name, model in keras_models().items():
        path = tmp_path / f"{name.replace(' ', '_')}.keras"
        model.save(path)
        with pytest.raises(InputError, match=r"^\S+ is (a Keras model, but )?not a head .*Make the run again\.$"):
            load_model(path)


def test_threads_load_one_at_a_time(fitted, monkeypatch):
    """See `classify.models.files._LOADING`: what two threads parse at a time can fail."""
    content = dump_trusted(fitted["logistic"][0])
    inside, most = [], []

    def loads(*_, **__):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return fitted["logistic"][0]

    monkeypatch.setattr("skops.io.loads", loads)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: load_trusted(content, Path("logistic.skops")), range(4)))
    assert most == [1] * 4
