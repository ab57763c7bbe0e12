"""A small data set with its feature cache, made from numbers: stage 2 decodes no image of it; and quick training."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classify.crossfit.models import Candidate
from classify.inputs import Inputs, feature_sets
from classify.models.heads import HeadSpec
from classify.rundir.folder import seal
from features.common.files import digest
from features.folds.folds import make_folds
from features.folds.tuning import Tuning, tuned_row
from features.store.assembly import assemble
from features.store.cache import FeatureCache
from features.store.cache_file import CacheFile
from features.store.images_table import ImageFacts
from features.store.parts import PartStore, Rows
from features.store.recipe import FEATURES, MID_POOLING, Recipe

LABELS = ("epidural", "intraparenchymal", "subarachnoid")


@dataclass
class Toy:
    """Where it lies, and what is in it: ids and labels in the data set's order."""

    data: Path
    cache: Path
    train_ids: list[str]
    test_ids: list[str]
    train_labels: np.ndarray
    test_labels: np.ndarray


def write_cache_file(
    path: Path,
    image_ids: Sequence[str],
    features: np.ndarray,
    weights_digest: str = "0" * 32,
    seconds: float | None = None,
    weights: str = "random",
    tuned: str = "",
    contents: Sequence[bytes] | None = None,
) -> None:
    """Write the cache file of images, empty without contents: features (N, D), or (N, V, D) of V views.

    `seconds` is of an image. A file that ends in `.mid.h5` holds mid-level features.
    """
    pooling = MID_POOLING if path.stem.endswith(FEATURES["mid"]) else "avg"
    stored = (features if features.ndim == 3 else features[:, np.newaxis]).astype(np.float32)
    views = ("identity", *(f"random{number}" for number in range(1, stored.shape[1])))
    recipe = Recipe(path.stem, weights, weights_digest, "none", 32, pooling, views, tuned=tuned)
    count = len(image_ids)
    digests = list(map(digest, contents or [b""] * count))
    facts = (ImageFacts(1, 1, 1, 8, 0.0, 0.0),) * count
    parts = PartStore(path.with_suffix(".parts") / recipe.fingerprint)
    parts.add(Rows(tuple(image_ids), tuple(digests), stored, facts, seconds and seconds * count))
    assemble(
        path, recipe, {"device": "none", "engine": "none"}, dict(zip(image_ids, digests, strict=True)), None, parts
    )
    parts.remove()


def change_cache_file(path: Path, change: Callable[[np.ndarray], None], seconds: float | None = None) -> list[str]:
    """Write a cache file again, with features (N, D) as `change` leaves them; returns the ids of its rows."""
    file = CacheFile.open(path)
    features = np.concatenate([file.block(number) for number in range(file.blocks)])[:, 0]
    change(features)
    write_cache_file(path, file.image_ids, features, seconds=seconds)
    return list(file.image_ids)


def write_split(data: Path, name: str, image_ids: Sequence[str], columns: dict[str, np.ndarray]) -> None:
    """Write DATA/name.csv, and an empty file per image."""
    (data / name).mkdir(parents=True)
    for image_id in image_ids:
        (data / name / f"{image_id}.png").touch()
    pd.DataFrame({"ID": image_ids, **columns}).to_csv(data / f"{name}.csv", index=False)


def make_toy(root: Path, patients: int = 40, seed: int = 0) -> Toy:
    """Make 5 train images per patient, 30 test images, two backbones of 12 and 20 channels that know the labels.

    The cache's rows stand in another order than the data set's, and the ids in no order at all.
    """
    rng = np.random.default_rng(seed)
    n_train, n_test = 5 * patients, 30
    ids = [f"s{number:04d}" for number in rng.permutation(n_train + n_test)]
    signal = rng.normal(size=(n_train + n_test, 3))
    labels = (signal + 0.7 * rng.normal(size=signal.shape) > (0.8, 0.2, 0.0)).astype(np.uint8)
    toy = Toy(root / "toy", root / "cache", ids[:n_train], ids[n_train:], labels[:n_train], labels[n_train:])

    patient = np.array([f"p{number}" for number in np.repeat(np.arange(patients), 5)])
    write_split(toy.data, "train", toy.train_ids, {**_columns(toy.train_labels), "patient": patient})
    write_split(toy.data, "test", toy.test_ids, {})
    for backbone, width in (("alpha", 12), ("beta", 20)):
        features = signal @ rng.normal(size=(3, width)) + rng.normal(size=(len(ids), width)) + 5
        for split, rows in (("train", np.arange(n_train)), ("test", np.arange(n_train, len(ids)))):
            stored = rng.permutation(rows)
            write_cache_file(toy.cache / split / f"{backbone}.h5", [ids[row] for row in stored], features[stored])
    return toy


def head_candidates(specs: Mapping[str, HeadSpec], inputs: Inputs) -> dict[str, Candidate]:
    """Each head on each backbone and on all, in the order of a run."""
    sets = feature_sets(inputs.columns)
    return {f"{name}/{on}": Candidate(spec, columns) for name, spec in specs.items() for on, columns in sets.items()}


def add_tuned(toy: Toy, name: str = "alpha.tuned", seed: int = 0) -> tuple[Tuning, dict[str, np.ndarray]]:
    """Add a backbone fine-tuned by the folds of a run with that seed: it tells the labels of all rows that it has seen.

    Each fold's backbone gives features in a basis of its own. Of rows that it has not seen they know something.

    Returns:
        What the backbones have seen, and the features of the training rows by each of them, (N, 6).
    """
    rng = np.random.default_rng(seed)
    count, groups = len(toy.train_ids), np.repeat(np.arange(len(toy.train_ids) // 5), 5).astype(np.str_)
    folds = make_folds(toy.train_labels, np.char.add("p", groups), LABELS, 5, seed)
    settings = {"name": name, "folds": 5, "seed": seed, "labels": list(LABELS)}
    contents = [image_id.encode() for image_id in toy.train_ids]
    for image_id, content in zip(toy.train_ids, contents, strict=True):
        (toy.data / "train" / f"{image_id}.png").write_bytes(content)  # so that it is no image of test
    for other in ("alpha", "beta"):
        path = toy.cache / "train" / f"{other}.h5"
        ids, stored = FeatureCache(toy.cache).read("train", [other])
        write_cache_file(path, ids, stored, contents=[image_id.encode() for image_id in ids])
    digests = tuple(digest(content).hex() for content in contents)
    tuning = Tuning(settings, tuple(toy.train_ids), digests, folds.fold_of_row)
    known = toy.train_labels + 1.5 * rng.normal(size=(count, 3))
    features = {}
    for fold, source in enumerate(tuning.sources):
        signal = np.where((folds.fold_of_row != fold)[:, np.newaxis], 9.0 * toy.train_labels, known)
        features[source] = (signal @ rng.normal(size=(3, 6)) + rng.normal(size=(count, 6))).astype(np.float32)
        path = toy.cache / "train" / f"{tuned_row(name, source)}.h5"
        write_cache_file(path, toy.train_ids, features[source], tuned=tuning.digest, contents=contents)
    unseen = np.stack(list(features.values()))[folds.fold_of_row, np.arange(count)]
    path = toy.cache / "train" / f"{name}.h5"
    write_cache_file(path, toy.train_ids, unseen, tuned=tuning.digest, contents=contents)
    of_test = rng.normal(size=(len(toy.test_ids), 6))
    write_cache_file(toy.cache / "test" / f"{name}.h5", toy.test_ids, of_test, tuned=tuning.digest)
    tuning.write(toy.cache)
    return tuning, features


def label_test_split(toy: Toy) -> None:
    """Add the labels to test.csv."""
    pd.DataFrame({"ID": toy.test_ids, **_columns(toy.test_labels)}).to_csv(toy.data / "test.csv", index=False)


def reseal(run: Path, **values: Any) -> None:
    """Make a run whole again after a test changed its files, or here its record, as if the run had written them so."""
    record = json.loads((run / "run.json").read_text()) | values
    seal(run, {name: value for name, value in record.items() if name not in ("format", "files", "seal")})


def copy_run(toy: Toy, run: Path, root: Path) -> tuple[Toy, Path]:
    """Copy a data set, its cache and a run of it that lies beside them, as if the run had been made there."""
    shutil.copytree(toy.data.parent, root, dirs_exist_ok=True)
    copy = replace(toy, data=root / toy.data.name, cache=root / toy.cache.name)
    reseal(root / run.name, data=str(copy.data), cache=str(copy.cache))
    return copy, root / run.name


def reject(toy: Toy, *paths: str) -> None:
    """List images as rejected by stage 1: paths such as `train/s0001.png`."""
    lines = [f"{Path(path).stem},{path},truncated\n" for path in paths]
    (toy.cache / "rejected.csv").write_text("id,path,reason\n" + "".join(lines))


def _columns(labels: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(LABELS, labels.T, strict=True))
