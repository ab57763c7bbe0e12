"""One small run, with heads and pictures, that the tests of the report share; and its page in a browser."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from classify.models.heads import HeadSpec, write_presets
from classify.report.page import write_report
from tests.classify.test_run import run
from tests.classify.toy import Toy, label_test_split, make_toy, reseal

#: What the audit of the features leaves in a run's folder.
_PAIRS = {"exact": 3, "near": 17, "across_folds": 5, "labels_differ": 2}
AUDIT = {
    "backbones": ["alpha", "beta"],
    "threshold": {"distance": 0.1234},
    "pairs": {"within train": _PAIRS, "between train and test": _PAIRS | {"across_folds": 0}},
    "groups": {"on_several_sides": ["p7"]},
}
#: What `run --gap` measures, as run.json holds it.
GAP = {
    "model": "logistic, all backbones",
    "random": {"value": 0.95, "low": 0.93, "high": 0.97},
    "grouped": {"value": 0.72, "low": None, "high": None},
    "gap": {"value": 0.23, "low": 0.2, "high": 0.25},
}
#: What a person might call an image to take over a page; it stands in the gallery of the shared run.
HOSTILE = "<img src=x onerror=alert(1)>"
HOSTILE_GROUP = "</script><script>alert(2)</script>"


def rename(run_folder: Path, old: str, new: str) -> None:
    """Call an image otherwise, wherever the run names it."""
    for name in ("labels.csv", "gallery.csv", "oof_probability.csv"):
        path = run_folder / name
        path.write_text(path.read_text().replace(f"{old},", f"{new},"))
    reseal(run_folder)


def seal_of(run_folder: Path) -> str:
    """The seal of a run; nothing where a test needs no run."""
    path = run_folder / "run.json"
    return str(json.loads(path.read_text())["seal"]) if path.exists() else ""


def write_pictures(run_folder: Path, without: str = "") -> None:
    """Write RUN/cam as `extract heat` does: grey thumbnails, heat with a palette that is transparent where cold."""
    gallery, cam = pd.read_csv(run_folder / "gallery.csv"), run_folder / "cam"
    images = gallery.loc[gallery["ID"] != without, ["split", "ID"]].drop_duplicates()
    images["file"] = [f"{number:05d}" for number in range(len(images))]
    (cam / "thumbnails").mkdir(parents=True)
    images.to_csv(cam / "images.csv", index=False)
    left_out = dict.fromkeys(("forest/all", "knn/all"), "no gradient")
    about = {"run": seal_of(run_folder), "model": "greedy", "left_out": left_out, "no_heat": ""}
    (cam / "cam.json").write_text(json.dumps(about))
    palette = np.arange(256, dtype=np.uint8)
    for label in range(3):
        (cam / "heat" / str(label)).mkdir(parents=True)
        for number, file in enumerate(images["file"]):
            levels = np.full((40, 32), 10 * label + number % 7, np.uint8)
            levels[:20] = 200
            heat = Image.fromarray(levels)
            heat.putpalette(np.repeat(palette, 3).tobytes())
            heat.save(cam / "heat" / str(label) / f"{file}.png", transparency=palette.tobytes())
            if label == 0:
                Image.fromarray(np.full((40, 32), 90, np.uint8)).save(cam / "thumbnails" / f"{file}.jpg")


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Toy:
    toy = make_toy(tmp_path_factory.mktemp("report"))
    label_test_split(toy)
    table = pd.read_csv(toy.data / "train.csv").replace({"patient": {"p3": HOSTILE_GROUP}})
    table.to_csv(toy.data / "train.csv", index=False)
    return toy


@pytest.fixture(scope="session")
def plain_run(toy) -> Path:
    """A finished run that nobody made a report of."""
    spec = HeadSpec(dropout=0.2, learning_rate=3e-3, batch_size=64, epochs=4)
    write_presets(toy.data.parent / "tiny.json", {"tiny": spec})
    code, said, out = run(toy, "run", "--preset", str(toy.data.parent / "tiny.json"), "--folds", "2")
    assert code == 0, said
    return out


@pytest.fixture(scope="session")
def reported(plain_run, tmp_path_factory) -> Path:
    """A run with pictures, an audit, a gap, a hostile id in its gallery, and its report."""
    out = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(plain_run, out)
    gallery = pd.read_csv(out / "gallery.csv")
    surest = gallery[(gallery["split"] == "train") & (gallery["outcome"] == "true_positive")]
    rename(out, surest["ID"].iloc[0], HOSTILE)
    (out / "audit.json").write_text(json.dumps(AUDIT))
    reseal(out, gap=GAP)
    write_pictures(out, without=surest["ID"].iloc[1])
    write_report(out)
    return out
