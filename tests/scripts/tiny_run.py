"""A tiny run made from images: two small backbones of one's own, of two input sizes, and stage 2 on their features."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from typer.testing import CliRunner

import classify.__main__
import extract.__main__
from features.common.keras_import import import_keras

LABELS = ("bright", "striped")


def call(room: str, *arguments: object) -> tuple[int, str]:
    """Run a command of stage 1 or 2 within this process: its exit code and what it said."""
    app = {"extract": extract.__main__.app, "classify": classify.__main__.app}[room]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def write_data(data: Path, train: int = 72, test: int = 12, seed: int = 0) -> None:
    """Write grey noise that is brighter where the one label is, and has stripes where the other is; 6 a patient."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        (data / split).mkdir(parents=True)
        labels = random.integers(0, 2, (count, 2))
        ids = [f"{split[0]}{number:03d}" for number in range(count)]
        for image_id, (bright, striped) in zip(ids, labels, strict=True):
            side = int(random.integers(20, 60))
            pixels = random.normal(90 + 25 * bright, 40, (side, side + 7))
            pixels[::4] += 25 * striped
            cv2.imwrite(str(data / split / f"{image_id}.png"), np.clip(pixels, 0, 255).astype(np.uint8))
        table = pd.DataFrame({"ID": ids, **dict(zip(LABELS, labels.T, strict=True))})
        if split == "train":
            table["patient"] = [f"p{number // 6}" for number in range(count)]
        (table if split == "train" else table[["ID"]]).to_csv(data / f"{split}.csv", index=False)


def write_backbone(path: Path, size: int, seed: int) -> None:
    """Write a small frozen model: size x size pixels to maps of 6 channels, with maps of two resolutions."""
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    images = keras.Input((size, size, 3))
    scaled = layers.Rescaling(1 / 127.5, -1)(images)
    fine = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(5, 3, strides=2)(scaled)))
    grouped = layers.Conv2D(10, 1, groups=5)(fine)  # which Keras leaves to XLA
    coarse = layers.Conv2D(6, 3, strides=2)(grouped)
    keras.Model(images, coarse).save(path)


def make_run(
    root: Path, *options: object, extract_options: Sequence[object] = (), sizes: Sequence[int] = (16, 20)
) -> Path:
    """Make data, backbones, features and a run below a folder; `options` are of `classify run`."""
    write_data(root / "data")
    backbones: list[object] = []
    for number, size in enumerate(sizes):
        write_backbone(root / f"tiny{number}.keras", size, number)
        backbones += ["--backbone", f"tiny{number}={root}/tiny{number}.keras"]
    cache, run = root / "cache", root / "run"
    code, said = call("extract", "run", root / "data", *backbones, "--cache", cache, *extract_options)
    assert code == 0, said
    code, said = call("classify", "run", root / "data", "--out", run, "--cache", cache, "--folds", 3, *options)
    assert code == 0, said
    return run
