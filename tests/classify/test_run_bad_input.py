"""`python -m classify run` on bad input: exit 2, one message that says what, where and what to do, and no run."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from classify.models.baselines import BASELINES
from classify.models.heads import HeadSpec, write_presets
from features.store.cache import FeatureCache
from tests.classify.test_run import run
from tests.classify.toy import LABELS, Toy, label_test_split, make_toy, write_cache_file
from tests.test_rooms import HEAVY, RUN, packages_loaded

Change = Callable[[Toy], None]


@pytest.fixture
def toy(tmp_path) -> Toy:
    return make_toy(tmp_path)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (f"report {'long' * 75}", f"{'long' * 75}/run.json: File name too long. Give a shorter"),
        ("run DATA --cache CACHE --out RUN --folds 41", "41 folds need at least 41 groups; there are 40."),
        ("run DATA --cache CACHE --out RUN --select logistic/gamma", "--select 'logistic/gamma': expected a metric"),
        ("predict RUN --cache CACHE --split test --out DIR", "RUN holds no finished run"),
        ("report RUN", "RUN holds no finished run"),
        ("gradients RUN", "RUN holds no finished run"),
        ("search DATA --cache CACHE --out CACHE", "CACHE is not a study: it holds test, but no study.journal."),
    ],
)
def test_what_is_wrong_is_said_before_the_imports_that_take_seconds(toy, command, says):
    places = {"DATA": str(toy.data), "CACHE": str(toy.cache)}
    done, loaded = packages_loaded(RUN, "classify", *(places.get(word, word) for word in command.split()))
    assert (done.returncode, done.stderr.replace(str(toy.cache), "CACHE").partition(says)[0]) == (2, "error: ")
    assert loaded & {*HEAVY, "pandas", "sklearn", "scipy", "optuna", "matplotlib"} == set()


def of_cache(split: str, change: Callable[[np.ndarray], np.ndarray], rows: slice = slice(None), **recipe) -> Change:
    """Write alpha's file anew: some of its rows, changed."""

    def apply(toy: Toy) -> None:
        ids, features = FeatureCache(toy.cache).read(split, ["alpha"])
        write_cache_file(toy.cache / split / "alpha.h5", list(ids)[rows], change(features[rows]), **recipe)

    return apply


def of_table(split: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Change:
    """Write a CSV file anew; test.csv with its labels."""

    def apply(toy: Toy) -> None:
        label_test_split(toy)
        change(pd.read_csv(toy.data / f"{split}.csv")).to_csv(toy.data / f"{split}.csv", index=False)

    return apply


def keep_images(count: int) -> Change:
    """Leave the first images of train only."""

    def apply(toy: Toy) -> None:
        of_table("train", lambda table: table[:count])(toy)
        for image_id in toy.train_ids[count:]:
            (toy.data / "train" / f"{image_id}.png").unlink()

    return apply


def same(features: np.ndarray) -> np.ndarray:
    return features


def constant(features: np.ndarray) -> np.ndarray:
    return np.tile(features[:1], (len(features), 1))


ALL_CONSTANT = "all features are the same for each of 200 images, so alpha can tell none apart. Look at the images, "
OTHER_COLUMNS = "Give both the same label columns, remove all of them from the test file, or name"

FAULTS: dict[str, tuple[Change, Sequence[str], Sequence[str]]] = {
    "the cache lacks rows of train.csv": (
        of_cache("train", same, slice(3, None)),
        (),
        ("train/alpha.h5: 3 of 200 images are missing (first: s", "toy --backbones alpha,beta --"),
    ),
    "the cache lacks rows of test": (
        of_cache("test", same, slice(0, -1)),
        (),
        ("test/alpha.h5: 1 of 30 images are missing (first: s", "Run: scripts/extract.sh"),
    ),
    "train and test of different fingerprints": (
        of_cache("test", same, weights_digest="1" * 32),
        (),
        (
            "train/alpha.h5 and ",
            "test/alpha.h5 were extracted differently (weights_digest",
            "Run with one set of options",
        ),
    ),
    "test of another width": (
        of_cache("test", lambda features: features[:, :5]),
        (),
        ("test/alpha.h5 has 5 features an image, but ", "train/alpha.h5 has 12. Remove both files and extract again."),
    ),
    "a backbone that gives all images the same": (
        of_cache("train", constant),
        (),
        ("train/alpha.h5: ", ALL_CONSTANT + "remove the file and extract again; or leave it out: --backbones beta"),
    ),
    "the only backbone gives all images the same": (
        of_cache("train", constant),
        ("--backbones", "alpha"),
        (ALL_CONSTANT + "remove the file and extract again.",),
    ),
    "a label without positives that was asked for": (
        of_table("train", lambda table: table.assign(epidural=0)),
        ("--labels", ",".join(LABELS)),
        (
            "toy: epidural is positive in 0 of 200 images with features",
            "Leave it out: --labels intraparenchymal,subarachnoid",
        ),
    ),
    "labels that are all the same": (
        of_table("train", lambda table: table.assign(epidural=0, intraparenchymal=1, subarachnoid=0)),
        (),
        (
            "toy: epidural is positive in 0, intraparenchymal is positive in 200, subarachnoid is positive in 0",
            "nothing to tell apart. Add other images.",
        ),
    ),
    "one image": (keep_images(1), (), ("of 1 images with features, so there is nothing to tell apart", "Add other")),
    "one group": (
        of_table("train", lambda table: table.assign(patient="p")),
        (),
        ("5 folds need at least 5 groups; there are 1. Add data, or give other groups: --group-column",),
    ),
    "other labels in test.csv": (
        of_table("test", lambda table: table.rename(columns={"epidural": "subdural"})),
        (),
        ("test.csv: received the labels subdural, intraparenchymal, subarachnoid, but ", OTHER_COLUMNS),
    ),
    "a label fewer in test.csv": (
        of_table("test", lambda table: table.drop(columns="epidural")),
        (),
        ("test.csv: received the labels intraparenchymal, subarachnoid, but ", OTHER_COLUMNS),
    ),
    "train.csv without rows": (
        of_table("train", lambda table: table[:0]),
        (),
        ("train.csv holds a header but no row. Write one row for each image, or remove the file.",),
    ),
    "test.csv without rows": (
        of_table("test", lambda table: table[:0]),
        (),
        ("test.csv holds a header but no row. Write one row for each image, or remove the file.",),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_exits_2_with_one_message_and_writes_nothing(toy, fault):
    change, options, messages = FAULTS[fault]
    change(toy)
    code, said, out = run(toy, "run", *options)
    assert code == 2, said
    for message in messages:
        assert message in said
    assert said.startswith(("error: ", "WARNING: "))
    assert said.count("error: ") == 1
    assert sorted(path.name for path in out.parent.iterdir()) == ["cache", "toy"]


def test_a_label_with_fewer_positives_than_folds_is_named_with_its_counts(toy):
    def few(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(epidural=np.isin(np.arange(200), [0, 1, 60]).astype(int))

    of_table("train", few)(toy)
    code, said, out = run(toy, "run", "--baselines", "logistic,svm,knn")
    assert code == 0
    warning = "epidural: 3 positive rows in 2 groups; none in 3 of 5 folds"
    assert said.count("warning: ") == 2
    assert said.count(f"warning: {warning}") == said.count("warning: epidural: its threshold is fitted on 3 pos") == 1
    assert warning in json.loads((out / "run.json").read_text())["warnings"]


def test_dead_channels_are_ordinary_for_every_baseline_and_head(toy, few_trees):
    """As ReLU leaves them: 0 in every image; and one that is alive in test only."""
    of_cache("train", lambda features: np.where(np.arange(12) < 4, 0, features))(toy)
    of_cache("test", lambda features: np.where(np.arange(12) < 3, 0, features))(toy)
    plain = HeadSpec(batch_norm=False, dropout=0.0, learning_rate=1e-2, batch_size=20, epochs=80, patience=1.0)
    heads = {"plain": plain, "norm": replace(plain, batch_norm=True), "hidden": replace(plain, hidden_units=(8,))}
    write_presets(toy.data.parent / "mine.json", heads)
    mine = str(toy.data.parent / "mine.json")
    options = ("--baselines", ",".join(BASELINES), "--preset", mine, "--backbones", "alpha", "--folds", "2")
    code, said, out = run(toy, "run", *options)
    assert code == 0, said
    assert "warning" not in said
    metrics = pd.read_csv(out / "metrics.csv").query("label == 'macro' and metric == 'roc_auc'").set_index("model")
    alone = [f"{name}/alpha" for name in [*BASELINES, *heads] if name != "prior"]
    assert (metrics["value"][[*alone, "greedy", "stacking"]] > 0.6).all(), metrics["value"]
    out_of_fold = pd.read_csv(out / "oof_probability.csv")[list(LABELS)].to_numpy()
    of_test = pd.read_csv(out / "predictions_probability.csv")[list(LABELS)].to_numpy()
    for probabilities in (out_of_fold, of_test):
        assert ((probabilities >= 0) & (probabilities <= 1)).all()
