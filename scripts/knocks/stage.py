"""What the cases share: a small data set, a backbone that gives pixels back, and what undisturbed commands make."""

import csv
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.knocks.case import LOST, WRONG, Verdict
from scripts.knocks.commands import Surroundings, run
from scripts.knocks.protobuf import bytes_field as _bytes
from scripts.knocks.protobuf import varint_field as _number

#: Height and width of what the backbone takes; its features are the 3 x SIDE x SIDE pixels themselves.
SIDE = 16
WIDTH = 3 * SIDE * SIDE
NAME = "pixels"
LABELS = ("a", "b")
#: Options of short runs and searches; a killed one has the same result as another.
RUN_OPTIONS = ("--folds", "2", "--baselines", "ridge_regression,prior", "--ensemble", "mean", "--jobs", "1")
SEARCH_OPTIONS = ("--folds", "2", "--trials", "6", "--batch", "3")
#: What each command makes, and which commands come before it.
MAKES = {"extract": "cache", "run": "run", "predict": "predicted", "search": "study", "report": "run/report.html"}
AFTER: dict[str, tuple[str, ...]] = {
    "extract": (),
    "run": ("extract",),
    "search": ("extract",),
    "predict": ("extract", "run"),
    "report": ("extract", "run"),
}


@dataclass
class Stage:
    """What lies in the folder of the campaign.

    Attributes:
        root: the folder.
        is_kept: whether the files of the cases stay.
        seconds: how long each undisturbed command took.
    """

    root: Path
    is_kept: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The data set."""
        return self.root / "data"

    @property
    def model(self) -> Path:
        """The backbone: an .onnx file."""
        return self.root / "pixels.onnx"

    @property
    def preset(self) -> Path:
        """A preset of one quick head."""
        return self.root / "quick.json"

    def extract(self, data: Path, cache: Path, *options: str) -> list[str]:
        """Write the command that extracts a data set."""
        model = f"{NAME}={self.model}"
        words = ["extract", "run", str(data), "--backbone", model, "--features", "last", "--cache", str(cache)]
        return [*words, "--range", "0,65535", *options]

    def command(self, name: str, place: Path) -> list[str]:
        """Write a command on a copy of the stage, by name."""
        run_folder, cache = str(place / "run"), ["--cache", str(place / "cache")]
        data = str(place / "data")
        return {
            "extract": self.extract(place / "data", place / "cache", "--batch-size", "4", "--workers", "2"),
            "run": ["classify", "run", data, *cache, "--out", run_folder, "--preset", str(self.preset), *RUN_OPTIONS],
            "predict": [
                "classify",
                "predict",
                run_folder,
                *cache,
                "--split",
                "test",
                "--out",
                str(place / "predicted"),
            ],
            "search": ["classify", "search", data, *cache, "--out", str(place / "study"), *SEARCH_OPTIONS],
            "report": ["classify", "report", run_folder],
        }[name]

    def prepare(self, needs: tuple[str, ...]) -> None:
        """Make what is needed and not there yet: `data`, or what a command makes, by its name.

        Raises:
            RuntimeError: an undisturbed command failed.
        """
        if not self.data.exists():
            write_data(self.data)
            self.model.write_bytes(onnx_model())
            self.model.with_suffix(".json").write_text(json.dumps({"size": SIDE, "layout": "NHWC"}))
            head = {"dropout": 0.2, "learning_rate": 3e-3, "batch_size": 32, "epochs": 4}
            self.preset.write_text(json.dumps({"quick": head}))
        for name in (one for one in MAKES if any(one in (need, *AFTER.get(need, ())) for need in needs)):
            if not (self.root / MAKES[name]).exists():
                ended = run(self.command(name, self.root), Surroundings(self.root / "tmp", limit=300))
                if ended.code:
                    raise RuntimeError(f"{name} failed undisturbed, with exit code {ended.code}:\n{ended.said}")
                self.seconds[name] = ended.seconds

    def copy(self, place: Path, name: str) -> None:
        """Copy what a command needs, and nothing that it makes."""
        shutil.copytree(self.data, place / "data")
        for earlier in AFTER[name]:
            source = self.root / MAKES[earlier]
            shutil.copytree(source, place / MAKES[earlier], ignore=shutil.ignore_patterns("fits", "report*"))

    @cached_property
    def results(self) -> dict[str, dict[str, object]]:
        """What each undisturbed command made."""
        made = {name: self.root / path for name, path in MAKES.items()}
        return {name: RESULTS[name](path) for name, path in made.items() if path.exists()}

    def compare(self, name: str, place: Path) -> Verdict | None:
        """Say where what a command made differs from what it makes undisturbed; None if nowhere."""
        found, expected = RESULTS[name](place / MAKES[name]), self.results[name]
        if missing := sorted(expected.keys() - found.keys()):
            return Verdict(LOST, f"{name} lost {', '.join(missing[:3])}")
        if other := sorted(key for key in found if found[key] != expected.get(key)):
            return Verdict(WRONG, f"{name} made other values: {', '.join(other[:3])}")
        if left := leftovers(place):
            return Verdict(LOST, f"{name} left {', '.join(left[:3])} behind")
        return None


def leftovers(place: Path) -> list[str]:
    """List what only a command that was stopped may leave."""
    endings = (".tmp", ".partial", ".replacing", ".held", ".parts")
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.name.endswith(endings))


def rows_of(cache: Path, split: str) -> dict[str, np.ndarray]:
    """Read the rows of a cache, by its own reader: id -> float32 (WIDTH,)."""
    from features.store.cache import FeatureCache

    ids, features = FeatureCache(cache).read(split, [NAME])
    return dict(zip(ids, features, strict=True))


def _cache_result(cache: Path) -> dict[str, object]:
    """The rows of a cache."""
    return {
        f"{split}/{key}": row.tobytes() for split in ("train", "test") for key, row in rows_of(cache, split).items()
    }


def _run_result(folder: Path) -> dict[str, object]:
    """The tables of a run or of predictions, and the names of the models."""
    tables = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    models = {str(path.relative_to(folder)): True for path in folder.glob("models/**/*") if path.is_file()}
    return {**tables, **models}


def _study_result(folder: Path) -> dict[str, object]:
    """The best heads of a study."""
    return {"best.json": (folder / "best.json").read_bytes()} if (folder / "best.json").exists() else {}


def _report_result(path: Path) -> dict[str, object]:
    """The report without the names of its folders, which differ."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8").replace(str(path.parents[1]), "")
    return {"report.html": len(text.splitlines())}


RESULTS: dict[str, Callable[[Path], dict[str, object]]] = {
    "extract": _cache_result,
    "run": _run_result,
    "predict": _run_result,
    "search": _study_result,
    "report": _report_result,
}


def write_data(folder: Path, patients: int = 24, slices: int = 4, tests: int = 24) -> None:
    """Write a data set of small images whose brightness knows the labels."""
    generator = random.Random(7)
    rows = []
    for split, count in (("train", patients * slices), ("test", tests)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            labels = [generator.randint(0, 1) for _ in LABELS]
            level = 60 + 40 * labels[0] + 80 * labels[1]
            noise = np.frombuffer(generator.randbytes(WIDTH), np.uint8).reshape(SIDE, SIDE, 3)
            Image.fromarray((level + noise % 60).astype(np.uint8)).save(folder / split / f"{split}{number:03d}.png")
            if split == "train":
                rows.append([f"train{number:03d}", *labels, f"p{number // slices}"])
    with (folder / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["ID", *LABELS, "patient"], *rows])


def onnx_model(side: int = SIDE, width: int = WIDTH) -> bytes:
    """Write a model without the package onnx: uint8 (N, side, side, 3) -> the same numbers, float32 (N, width)."""
    cast = _bytes(1, b"images") + _bytes(2, b"numbers") + _bytes(4, b"Cast")
    cast += _bytes(5, _bytes(1, b"to") + _number(3, 1) + _number(20, 2))
    flatten = _bytes(1, b"numbers") + _bytes(2, b"features") + _bytes(4, b"Flatten")
    sides = b"".join(_bytes(1, _bytes(2, b"N") if size is None else _number(1, size)) for size in (None, side, side, 3))
    images = _bytes(1, b"images") + _bytes(2, _bytes(1, _number(1, 2) + _bytes(2, sides)))
    shape = _bytes(2, _bytes(1, _bytes(2, b"N")) + _bytes(1, _number(1, width)))
    features = _bytes(1, b"features") + _bytes(2, _bytes(1, _number(1, 1) + shape))
    graph = _bytes(1, cast) + _bytes(1, flatten) + _bytes(2, b"pixels") + _bytes(11, images) + _bytes(12, features)
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 17))
