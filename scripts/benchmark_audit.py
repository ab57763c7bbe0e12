"""Plant near duplicates among phantom slices and count what the audit finds: `scripts/benchmark.py audit`."""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from features.audit.audit import NEAR, find_leaks, gather
from features.common.text import make_console
from features.dataset.dataset import read_dataset
from features.store.cache import FeatureCache
from scripts.phantom import write_phantom

_ROOT = Path(__file__).resolve().parents[1]


def _rotate(image: np.ndarray) -> np.ndarray:
    """Turn by 3 degrees about the middle; black comes in at the corners."""
    height, width = image.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 3, 1)
    return cv2.warpAffine(image, turn, (width, height))


def _compress(image: np.ndarray) -> np.ndarray:
    """Write as JPEG of quality 60 and read again."""
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])
    return _read(encoded)


def _read(encoded: np.ndarray) -> np.ndarray:
    """Decode the bytes of an image, uint8 (n,), to grey: uint8 (H, W)."""
    image = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return image


def _crop(image: np.ndarray) -> np.ndarray:
    """Cut 4 % of height and width away, half on each side, and bring what is left to the old size."""
    height, width = image.shape
    top, left = round(0.02 * height), round(0.02 * width)
    return cv2.resize(image[top : height - top, left : width - left], (width, height), interpolation=cv2.INTER_LINEAR)


#: What a copy differs by: uint8 (H, W) to uint8 (H, W).
COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "flip": lambda image: cv2.flip(image, 1),
    "rotation": _rotate,
    "brightness": lambda image: np.clip(1.15 * image + 8, 0, 255).astype(np.uint8),
    "jpeg": _compress,
    "crop": _crop,
}


@dataclass(frozen=True)
class Found:
    """What an audit made of planted copies.

    Attributes:
        planted: copies planted by kind.
        found: copies paired with their original, by kind.
        wrong: other pairs between train and test.
        threshold: distance below which pairs are near duplicates.
    """

    planted: Counter[str]
    found: Counter[str]
    wrong: int
    threshold: float


def plant_and_audit(folder: Path, train: int, test: int, copies: int, backbones: str, seed: int, size: int) -> Found:
    """Draw a phantom, add copies of training slices to test, extract, audit.

    Args:
        folder: empty folder to work in.
        train: training slices.
        test: test slices, without the copies.
        copies: as many copies of different training slices, of all kinds in turn.
        backbones: names between commas.
        seed: of the phantom and of the choice of slices.
        size: side of the slices, in pixels.
    """
    data, cache = folder / "data", folder / "cache"
    write_phantom(data, {"train": train, "test": test}, size=size, seed=seed, jobs=-1)
    table, tested = (pd.read_csv(data / f"{name}.csv", index_col=0) for name in ("train", "test"))
    chosen = np.random.default_rng(seed).choice(train, copies, replace=False)
    kinds = [list(COPIES)[number % len(COPIES)] for number in range(copies)]
    copied = table.iloc[chosen].assign(ID=[f"copy_{number:03d}" for number in range(copies)])
    copied["patient"] = copied["ID"]  # as if nobody knew
    for original, copy, kind in zip(table["ID"].iloc[chosen], copied["ID"], kinds, strict=True):
        image = _read(np.fromfile(data / "train" / f"{original}.png", np.uint8))
        cv2.imwrite(str(data / "test" / f"{copy}.png"), COPIES[kind](image))
    pd.concat([tested, copied], ignore_index=True).to_csv(data / "test.csv")

    command = [sys.executable, "-m", "extract", "run", data, "--backbones", backbones, "--cache", cache]
    subprocess.run([str(part) for part in command], cwd=_ROOT, check=True, capture_output=True)
    images, features, *_ = gather(read_dataset(data), FeatureCache(cache), {})
    result = find_leaks(images, features)
    assert result.threshold is not None
    kind_of = dict(zip(zip(table["ID"].iloc[chosen], copied["ID"], strict=True), kinds, strict=True))
    near = result.pairs[(result.pairs["kind"] == NEAR) & (result.pairs["scope"] == "between train and test")]
    pairs = list(zip(near["first_ID"], near["second_ID"], strict=True))
    right = [kind_of[pair] for pair in pairs if pair in kind_of]
    return Found(Counter(kinds), Counter(right), len(pairs) - len(right), result.threshold.distance)


def benchmark_audit(seeds: list[int], backbones: str) -> None:
    """Print what is found of 50 copies among 700 training and 250 test slices of 512 x 512, seed by seed."""
    console = make_console()
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            found = plant_and_audit(Path(folder), 700, 250, 50, backbones, seed, 512)
        by_kind = ", ".join(f"{kind} {found.found[kind]} of {count}" for kind, count in found.planted.items())
        console.print(
            f"seed {seed}: {found.found.total()} of {found.planted.total()} copies found ({by_kind}); {found.wrong} "
            f"wrong pairs between train and test; threshold {found.threshold:.3f}"
        )
