"""From DICOM files to the report, as a person runs it: exclusive classes with heat maps, and no trace of a patient."""

import csv
import json
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import classify.__main__
import extract.__main__
import features.__main__
from classify.models.heads import HeadSpec, write_presets
from features.common.keras_import import import_keras
from features.store.run_labels import read_run_labels
from tests.extract.scans.written import SECRETS, STUDY, dataset, file_bytes

APPS = {"extract": extract.__main__.app, "features": features.__main__.app, "classify": classify.__main__.app}
#: One begins like a formula.
CLASSES = ("=bleed", "healthy", "tumour")
PATIENTS = 12


def write_scans(folder: Path, patients: range, seed: int) -> None:
    """Write six slices of each patient, two of each class, in the folder of the class."""
    rng = np.random.default_rng(seed)
    for patient in patients:
        for number in range(6):
            name = CLASSES[number % 3]
            hu = rng.normal(30, 6, (64, 64))
            hu[20:40, 20:40] += {"=bleed": 30, "healthy": 0, "tumour": -20}[name]
            stored = (np.round(hu) + 1024).astype(np.uint16)
            scan = dataset(stored, bits=12, RescaleSlope=1, RescaleIntercept=-1024)
            scan.PatientID = f"{SECRETS['PatientID']}{patient}"
            path = folder / name / f"s{patient:02d}{number}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file_bytes(scan))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of all that was written but the scans and their model, and what was said."""
    root = tmp_path_factory.mktemp("scans")
    keras, data, work = import_keras(), root / "data", root / "work"
    keras.utils.set_random_seed(3)
    layers = [keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(8, 3), keras.layers.ReLU()]
    keras.Sequential(layers).save(root / "own.keras")
    write_scans(data / "train", range(PATIENTS), 0)
    write_scans(data / "test", range(PATIENTS, PATIENTS + 3), 1)
    broken = data / "train" / "healthy" / "s001.dcm"
    broken.write_bytes(broken.read_bytes()[:-50])
    work.mkdir()
    write_presets(work / "tiny.json", {"tiny": HeadSpec(learning_rate=1e-2, batch_size=16, epochs=30)})
    said = []

    def call(room: str, *words: object, codes: tuple[int, ...] = (0,)) -> None:
        result = CliRunner().invoke(APPS[room], [str(word) for word in words])
        assert result.exit_code in codes, result.output
        said.append(result.output)

    cache, run, new = work / "cache", work / "run", work / "new"
    by_model = ("--backbone", f"own={root / 'own.keras'}", "--window", "brain")
    call("extract", "run", data, *by_model, "--cache", cache, codes=(3,))
    call("features", "describe", data, "--cache", cache, "--out", work)
    words = (
        "--preset",
        work / "tiny.json",
        "--folds",
        3,
        "--select",
        "tiny/own.mid",
        "--note",
        "a note",
        "--excel-safe",
    )
    call("classify", "run", data, "--cache", cache, "--out", run, *words)
    call("extract", "heat", data, run)
    call("features", "audit", cache, "--data", data, "--run", run, "--excel-safe")
    call("classify", "report", run)
    call("classify", "predict", run, "--cache", cache, "--split", "test", "--out", new, "--heat", 2, "--excel-safe")
    call("extract", "heat", data, new)
    return work, "\n".join(said)


def read_all(path: Path) -> bytes:
    """The content of a file; of archives and HDF5 that of their parts, which may be compressed."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return b"".join(archive.read(name) for name in archive.namelist())
    if path.suffix == ".h5":
        parts = [path.read_bytes()]
        with h5py.File(path) as file:
            names: list[str] = []
            file.visit(names.append)
            parts += [file[name][()].tobytes() for name in names if isinstance(file[name], h5py.Dataset)]
        return b"".join(parts)
    return path.read_bytes()


def test_nothing_that_is_written_or_said_names_a_patient_or_a_date(made):
    work, said = made
    files = [path for path in work.rglob("*") if path.is_file()]
    wanted = {"own.h5", "images.csv", "rejected.csv", "labels.csv", "run.json", "gradients.h5", "report.html"}
    wanted |= {"group_scores.csv", "boxes.csv", "duplicates.csv", "groups.csv", "describe.html", "fold0.keras"}
    assert wanted <= {path.name for path in files}
    for secret in (*SECRETS.values(), STUDY):
        assert secret not in said
        assert not [path for path in files if secret.encode() in read_all(path)], secret
    groups = read_run_labels(work / "run" / "labels.csv")["train"].groups
    assert len({*groups}) == PATIENTS  # the patients are known apart all the same
    assert groups[0] in (work / "cache" / "train" / "images.csv").read_text()


def test_the_maps_of_a_head_that_ends_in_softmax_are_its_logits(made):
    work, said = made
    assert "classes: each labelled image has exactly one of 3 labels" in said
    models = json.loads((work / "run" / "run.json").read_text())["models"]
    assert models["tiny/own.mid"]["spec"]["output"] == "softmax"
    for cam in (work / "run" / "cam", work / "new" / "cam"):
        record = json.loads((cam / "cam.json").read_text())
        assert (record["model"], record["labels"]) == ("tiny/own.mid", list(CLASSES))
        assert record["largest_error"] < 1e-3
        assert len(list((cam / "heat" / "0").iterdir())) > 1
    # What speaks for a bleed is what is brighter than the rest: the hottest boxes lie about the middle.
    boxes = pd.read_csv(work / "run" / "cam" / "boxes.csv").query('label == "\'=bleed"')
    hottest = boxes.loc[boxes.groupby("ID")["heat"].idxmax()]
    middle = hottest[["x0", "x1"]].mean(axis=1).between(16, 48) & hottest[["y0", "y1"]].mean(axis=1).between(16, 48)
    assert middle.mean() > 0.7
    assert "the heat maps miss" not in said


def test_no_table_of_a_run_its_audit_and_its_heat_maps_holds_a_formula(made):
    work, _ = made
    seen = set()
    for path in [*(work / "run").rglob("*.csv"), *(work / "new").rglob("*.csv")]:
        with path.open(encoding="utf-8", newline="") as file:
            cells = {cell for row in csv.reader(file) for cell in row}
        assert not [cell for cell in cells if cell.startswith(("=", "@"))], path
        seen |= {path.name} if any(cell.startswith("'=bleed") for cell in cells) else set()
    assert seen >= {"pairs.csv", "boxes.csv", "images.csv", "groups.csv", "metrics.csv"}
    page = (work / "run" / "report.html").read_text()
    thumbnails = re.search(r'"thumbnails":({.*?})', page)
    images = pd.read_csv(work / "run" / "cam" / "images.csv", dtype=str)
    assert thumbnails is not None
    assert {*json.loads(thumbnails[1])} == {*images["file"]}  # the pictures of such ids are found
