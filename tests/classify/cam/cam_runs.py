"""Runs of a small data set with maps, for the tests of `classify cam`, and ways to spoil them."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from typer.testing import CliRunner

from classify.__main__ import app
from classify.models.heads import HeadSpec, write_presets
from features.store.assembly import Provenance
from features.store.cache import FeatureCache
from features.store.maps import THUMBNAIL, MapRows, maps_path
from features.store.maps_writer import MapsWriter
from features.store.recipe import Recipe
from tests.classify.test_run import run
from tests.classify.toy import Toy, make_toy

HEAD = HeadSpec(dropout=0.2, learning_rate=3e-3, batch_size=64, epochs=3)


def write_maps(toy: Toy, split: str, image_ids: list[str], backbones=("alpha", "beta"), digest=bytes(16)) -> None:
    """Write maps of 4 x 4 (alpha) and 3 x 3 (beta) positions whose means are the cached features."""
    random = np.random.default_rng(0)
    for backbone in backbones:
        side = {"alpha": 4, "beta": 3}[backbone]
        _, features = FeatureCache(toy.cache).read(split, [backbone], image_ids)
        noise = random.normal(size=(len(image_ids), side, side, features.shape[1]))
        maps = features[:, None, None] + noise - noise.mean(axis=(1, 2), keepdims=True)
        recipe = Recipe(backbone, "random", "0" * 32, "none", 32)
        thumbnails = random.integers(0, 256, (len(image_ids), THUMBNAIL, THUMBNAIL, 3), np.uint8)
        sizes = np.tile(np.array([[600, 300]], np.int32), (len(image_ids), 1))
        with MapsWriter(maps_path(toy.cache, split, backbone), recipe, Provenance("3", "none", "none")) as writer:
            writer.append(
                MapRows(tuple(image_ids), (digest,) * len(image_ids), maps.astype(np.float16), thumbnails, sizes)
            )


def cam(run_folder: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["cam", str(run_folder), *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def edit_out_of_fold(out: Path, edit) -> None:
    table = pd.read_csv(out / "oof_probability.csv", dtype=str)
    edit(table).to_csv(out / "oof_probability.csv", index=False)


def change_maps(toy: Toy, backbone: str, edit) -> None:
    with h5py.File(maps_path(toy.cache, "train", backbone), "a") as file:
        maps = edit(file["maps"][:])
        del file["maps"]
        file["maps"] = maps


def make_run(root: Path) -> tuple[Toy, Path]:
    toy = make_toy(root)
    write_presets(root / "mine.json", {"tiny": HEAD, "deep": replace(HEAD, hidden_units=(6,))})
    options = (
        "--preset",
        str(root / "mine.json"),
        "--folds",
        "2",
        "--baselines",
        "logistic,knn,prior",
        "--repeats",
        "2",
    )
    code, said, out = run(toy, "run", *options, "--select", "mean")
    assert code == 0, said
    return toy, out


def make_small_run(root: Path) -> tuple[Toy, Path]:
    """Make a data set, its cache and a run with one logistic regression per backbone; maps of three train images."""
    toy = make_toy(root)
    code, said, out = run(toy, "run", "--preset", "none", "--folds", "2", "--select", "logistic/all")
    assert code == 0, said
    write_maps(toy, "train", toy.train_ids[:3])
    return toy, out
