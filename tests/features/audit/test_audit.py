"""`python -m features audit`: planted duplicates, contradicting labels, groups on both sides, proposed groups."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from features.__main__ import app
from features.audit import report
from features.common.arrays import UNKNOWN
from features.common.files import digest
from features.dataset.dataset import read_dataset
from features.options import DatasetOptions
from features.store.images_table import FactsTable, ImageFacts, Rejection, SeenImage, Stamp, replace_rejections
from features.store.parts import Rows
from tests.features.dataset.written import make
from tests.features.store.caches import digest_of_image, write_rows

TRAIN = [f"t{number:03d}" for number in range(150)]
TEST = [f"e{number:03d}" for number in range(60)]
FACTS = ImageFacts(100, 100, 1, 8, 60.0, 40.0)
BLANK = ImageFacts(100, 100, 1, 8, 0.0, 0.5)


class Planted:
    """A data set of unrelated images with a cache; what a test plants is written by `write`."""

    def __init__(self, root: Path) -> None:
        rng = np.random.default_rng(0)
        self.data, self.cache = root / "data", root / "cache"
        self.features = {i: rng.normal(size=20).astype(np.float32) for i in (*TRAIN, *TEST)}
        self.digests = {i: digest_of_image(i) for i in self.features}
        self.facts = dict.fromkeys(self.features, FACTS)
        self.labels = {i: [number % 2, number % 3 % 2] for number, i in enumerate(self.features)}
        self.patients: dict[str, str] | None = {i: f"p{number // 3}" for number, i in enumerate(self.features)}

    def copy(self, original: str, copied: str, noise: float = 0.0) -> None:
        """Make an image a copy of another one, by its bytes or, with noise, by its features; labels too."""
        self.labels[copied] = list(self.labels[original])
        random = np.random.default_rng(1).normal(size=20).astype(np.float32)
        self.features[copied] = self.features[original] + noise * random
        if not noise:
            self.digests[copied] = self.digests[original]

    def write(self) -> None:
        for split, ids in (("train", TRAIN), ("test", TEST)):
            columns = {"ID": ids, "bleed": [self.labels[i][0] for i in ids], "calc": [self.labels[i][1] for i in ids]}
            if self.patients is not None:
                columns["patient"] = [self.patients[i] for i in ids]
            make(self.data, **{split: " ".join(f"{i}.png" for i in ids)})
            pd.DataFrame(columns).to_csv(self.data / f"{split}.csv", index=False)
            features = np.stack([self.features[i] for i in ids])[:, None]
            rows = Rows(tuple(ids), tuple(self.digests[i] for i in ids), features, tuple(self.facts[i] for i in ids))
            write_rows(self.cache, rows, split)
            (self.cache / split / "images.csv").unlink(missing_ok=True)
            seen = {i: SeenImage(self.digests[i], Stamp(1, 1, 1), self.facts[i]) for i in ids}
            FactsTable.of_split(self.cache, split).add(seen, ids)

    def some(self) -> Rows:
        """The rows of one training image."""
        return Rows((TRAIN[0],), (self.digests["t000"],), self.features["t000"][None, None], (self.facts["t000"],))

    def audit(self, *options: str):
        """Write, run the command; return what it said, duplicates.csv, groups.csv and audit.json."""
        self.write()
        result = CliRunner().invoke(app, ["audit", str(self.cache), "--data", str(self.data), *options])
        assert result.exit_code == 0, result.output
        out = self.cache / "audit"
        groups = pd.read_csv(out / "groups.csv").set_index("ID")["group"].to_dict()
        record = json.loads((out / "audit.json").read_text())
        return " ".join(result.output.split()), pd.read_csv(out / "duplicates.csv"), groups, record


@pytest.fixture
def planted(tmp_path) -> Planted:
    return Planted(tmp_path)


def test_unrelated_images_are_no_duplicates(planted):
    said, duplicates, groups, record = planted.audit()
    assert len(duplicates) == 0
    assert record["pairs"]["between train and test"]["near"] == record["pairs"]["within train"]["exact"] == 0
    assert record["images"] == {"train": 150, "test": 60}
    assert groups == planted.patients
    assert f"nearer than {record['threshold']['distance']:.3f}" in said
    assert record["pairs"]["within train"]["nearest_beyond"] >= record["threshold"]["distance"]
    assert "groups: 70 given; with images in several splits: none" in said


def test_exact_and_near_duplicates_are_found_where_they_lie(planted):
    planted.copy("t000", "t100")
    planted.copy("t010", "t110", noise=0.02)
    planted.copy("t020", "e000")
    planted.copy("t030", "e010", noise=0.02)
    planted.copy("e020", "e050", noise=0.02)
    _, duplicates, groups, record = planted.audit()
    found = duplicates[["kind", "scope", "first_ID", "second_ID"]].to_numpy().tolist()
    assert sorted(found) == [
        ["exact", "between train and test", "t020", "e000"],
        ["exact", "within train", "t000", "t100"],
        ["near", "between train and test", "t030", "e010"],
        ["near", "within test", "e020", "e050"],
        ["near", "within train", "t010", "t110"],
    ]
    assert (duplicates.query("kind == 'exact'")["distance"] == 0).all()
    assert (duplicates.query("kind == 'near'")["distance"] < record["threshold"]["distance"]).all()
    assert (duplicates["same_group"] == 0).all()
    assert groups["t000"] == groups["t001"] == groups["t100"] == "p0+p33"
    assert groups["t020"] == groups["e000"]
    assert record["groups"]["given"] == 70
    assert record["groups"]["proposed"] == 65


def test_contradicting_labels_are_told_by_name(planted):
    planted.copy("t000", "t100")
    planted.copy("t020", "e000", noise=0.02)
    planted.labels["t100"] = [1 - label for label in planted.labels["t100"]]
    said, duplicates, _, record = planted.audit()
    assert duplicates["labels_differ"].fillna("").tolist() == ["bleed + calc", ""]
    assert record["pairs"]["within train"]["labels_differ"] == 1
    assert record["pairs"]["between train and test"]["labels_differ"] == 0
    assert "exact within train t000 t100 0.000 bleed + calc" in said


def test_a_label_that_is_not_known_contradicts_none(planted, monkeypatch):
    def read_masked(*words):
        dataset = read_dataset(*words)
        train = dataset.splits["train"]
        labels = train.labels.copy()
        labels[TRAIN.index("t000"), 0] = UNKNOWN
        return replace(dataset, splits={**dataset.splits, "train": replace(train, labels=labels)})

    monkeypatch.setattr(report, "read_dataset", read_masked)
    planted.copy("t000", "t100")
    planted.labels["t100"] = [1 - label for label in planted.labels["t100"]]
    _, duplicates, _, _ = planted.audit()
    assert duplicates["labels_differ"].tolist() == ["calc"]


def test_pairs_with_an_image_that_is_not_labelled_say_so(planted):
    planted.copy("t000", "t100")
    planted.copy("t020", "e000")
    planted.write()
    (planted.data / "test.csv").write_text("ID,patient\n" + "".join(f"{i},{planted.patients[i]}\n" for i in TEST))
    result = CliRunner().invoke(app, ["audit", str(planted.cache), "--data", str(planted.data)])
    said = " ".join(result.output.split())
    assert result.exit_code == 0, said
    assert "exact within train t000 t100 0.000 -" in said
    assert "exact between train and test t020 e000 0.000 not labelled" in said


def test_slices_of_one_patient_are_no_finding_but_hide_none(planted):
    planted.copy("t000", "t001", noise=0.02)  # of one patient, and the nearest of both
    planted.copy("t000", "t100", noise=0.06)
    _, duplicates, _, _ = planted.audit()
    assert duplicates[["first_ID", "second_ID"]].to_numpy().tolist() in ([["t000", "t100"]], [["t001", "t100"]])


def test_patients_on_both_sides_are_named(planted):
    for image_id in TEST[:9]:
        planted.patients[image_id] = "p0" if image_id < "e003" else "p7"
    said, _, _, record = planted.audit()
    assert record["groups"]["on_several_sides"] == ["p0", "p7"]
    assert "with images in several splits: 2 (p0, p7)" in said


def test_without_groups_linked_images_are_one_proposed_group_that_reads_back(planted):
    planted.patients = None
    planted.copy("t000", "t050", noise=0.02)
    planted.copy("t050", "e000")
    said, _, groups, record = planted.audit()
    assert groups["t000"] == groups["t050"] == groups["e000"] != groups["t001"]
    assert all(name.startswith("proposed-") for name in groups.values())
    assert record["groups"]["proposed"] <= 208
    assert "groups: none (--group-column" in said
    options = DatasetOptions(groups=planted.cache / "audit" / "groups.csv")
    read = read_dataset(planted.data, options).splits
    assert read["train"].groups[0] == read["train"].groups[50] == read["test"].groups[0]


def test_blank_images_are_exact_duplicates_at_most_and_link_no_patients(planted):
    planted.copy("t000", "t100")
    planted.copy("t000", "t110", noise=0.01)
    planted.facts |= dict.fromkeys(("t000", "t100", "t110"), BLANK)
    said, duplicates, groups, record = planted.audit()
    assert duplicates["kind"].tolist() == ["exact"]
    assert record["blank"] == {"train": 3, "test": 0}
    assert "3 images are blank or nearly so" in said
    assert groups == planted.patients


def write_run(folder: Path, labels: str) -> None:
    """Write the labels.csv of a run, and the record of its digest."""
    (folder / "labels.csv").write_text(labels)
    (folder / "run.json").write_text(json.dumps({"files": {"labels.csv": digest(labels.encode()).hex()}}))


def test_labels_of_a_run_that_were_changed_are_refused(planted, tmp_path):
    planted.write()
    write_run(tmp_path, "split,ID,group,fold,stored\ntrain,t000,g,0,train\n")
    (tmp_path / "labels.csv").write_text("split,ID,group,fold,stored\ntrain,t000,g,1,train\n")
    result = CliRunner().invoke(app, ["audit", str(planted.cache), "--data", str(planted.data), "--run", str(tmp_path)])
    assert (result.exit_code, "labels.csv was changed by hand, or is damaged." in result.stderr) == (2, True)


def test_groups_that_were_given_are_never_replaced(planted, tmp_path):
    planted.write()
    groups = "ID,group\n" + "".join(f"{i},g{number}\n" for number, i in enumerate((*TRAIN, *TEST)))
    (tmp_path / "groups.csv").write_text(groups)
    options = ["--groups", str(tmp_path / "groups.csv"), "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["audit", str(planted.cache), "--data", str(planted.data), *options])
    assert (result.exit_code, "would be replaced by the groups proposed" in result.stderr) == (2, True)
    assert (tmp_path / "groups.csv").read_text() == groups


def test_images_that_a_run_set_aside_are_its_test_images(planted, tmp_path):
    planted.copy("t000", "t100")
    run = tmp_path / "run"
    run.mkdir()
    rows = [
        f"{'test' if i == 't100' else 'train'},{i},,{'' if i == 't100' else k % 5},train\n" for k, i in enumerate(TRAIN)
    ]
    write_run(run, "split,ID,group,fold,stored\n" + "".join(rows))
    said, duplicates, _, record = planted.audit("--run", str(run), "--out", str(planted.cache / "audit"))
    assert duplicates[["first_ID", "second_ID", "scope"]].to_numpy().tolist() == [
        ["t000", "t100", "between train and test"]
    ]
    assert record["pairs"]["between train and test"]["exact"] == 1
    assert "did not hold" not in said


def test_the_folds_of_a_run_are_audited_too(planted, tmp_path):
    planted.copy("t000", "t100")
    planted.copy("t010", "t110", noise=0.02)
    run = tmp_path / "run"
    run.mkdir()
    folds = {i: number % 5 for number, i in enumerate(TRAIN)} | {"t110": 1}
    lines = [f"train,{i},,{fold},train\n" for i, fold in folds.items()]
    write_run(run, "split,ID,group,fold,stored\n" + "".join(lines))
    said, duplicates, _, record = planted.audit("--run", str(run), "--out", str(planted.cache / "audit"))
    assert duplicates.set_index("first_ID")["across_folds"].to_dict() == {"t000": 0, "t010": 1}
    assert record["pairs"]["within train"]["across_folds"] == 1
    assert record["run"] == str(run)
    assert "within train 1 1 1 0" in said

    write_run(
        run, "split,ID,group,fold,stored\ntest,t000,,,test\n" + "".join(f"train,{i},g,{i[-1]},train\n" for i in TRAIN)
    )
    planted.write()
    CliRunner().invoke(app, ["audit", str(planted.cache), "--data", str(planted.data), "--run", str(run)])
    assert json.loads((run / "audit.json").read_text())["pairs"]["within train"]["across_folds"] == 0
    assert {path.name for path in run.iterdir()} >= {"audit.json", "duplicates.csv", "groups.csv"}


def test_groups_that_only_the_run_knows_are_the_runs(planted, tmp_path):
    planted.patients = None
    rows = [f"train,{i},p{number // 3},{number % 5},train\n" for number, i in enumerate(TRAIN)]
    rows += [f"test,{i},{'p0' if i == 'e000' else 'q'},,test\n" for i in TEST]
    write_run(tmp_path, "split,ID,group,fold,stored\n" + "".join(rows))
    said, _, groups, record = planted.audit("--run", str(tmp_path), "--out", str(planted.cache / "audit"))
    assert record["groups"]["given"] == 51
    assert "with images in several splits: 1 (p0)" in said
    assert groups == {i: row.split(",")[2] for i, row in zip((*TRAIN, *TEST), rows, strict=True)}
    write_run(tmp_path, "split,ID,fold\n" + "".join(f"train,{i},0\n" for i in TRAIN))
    options = ["audit", str(planted.cache), "--data", str(planted.data), "--run", str(tmp_path)]
    result = CliRunner().invoke(app, options)
    assert (result.exit_code, "expected split, ID, group, fold, stored and the labels" in result.stderr) == (2, True)


def test_rejected_images_and_splits_without_features_are_left_out_and_told(planted):
    planted.write()
    replace_rejections(planted.cache, ["train"], [Rejection("t000", "train/t000.png", "empty", "")])
    (planted.cache / "test" / "net.h5").unlink()
    result = CliRunner().invoke(app, ["audit", str(planted.cache), "--data", str(planted.data)])
    assert result.exit_code == 0
    assert f"test: {planted.cache} holds no features of it, so it is left out" in result.output
    assert "train: 1 image without features" in result.output
    record = json.loads((planted.cache / "audit" / "audit.json").read_text())
    assert record["images"] == {"train": 149}
    assert record["without_features"] == {"train": 1}
    assert record["splits_without_features"] == ["test"]
    file = planted.cache / "audit" / "groups.csv"
    assert pd.read_csv(file).set_index("ID")["group"].to_dict() == {i: planted.patients[i] for i in TRAIN}
    groups = read_dataset(planted.data, DatasetOptions(groups=file)).splits["train"].groups
    assert groups[:3].tolist() == ["p0", "p0", "p0"]


def test_too_few_images_have_exact_duplicates_only(planted, monkeypatch):
    monkeypatch.setattr("features.audit.audit.LEAST_IMAGES", 500)
    planted.copy("t000", "t100")
    planted.copy("t010", "t110", noise=0.02)
    said, duplicates, _, record = planted.audit()
    assert duplicates["kind"].tolist() == ["exact"]
    assert record["threshold"] is None
    assert "near duplicates: not searched" in said
    assert "exact duplicates: none" not in said
    planted.patients = None
    said, _, groups, _ = planted.audit()
    assert "groups.csv: 209 groups, in which only exact duplicates and images with the same id are joined" in said
    assert "--groups groups.csv" not in said
    assert groups["t000"] == groups["t100"]


def test_no_pairs_and_no_search_for_near_ones_is_said_without_a_table(planted, monkeypatch):
    monkeypatch.setattr("features.audit.audit.LEAST_IMAGES", 500)
    said, _, _, record = planted.audit()
    assert record["pairs"] == {}
    assert "exact duplicates: none" in said
    assert "nearest beyond" not in said


def test_proposed_groups_are_advised_by_a_path_that_can_be_pasted(planted):
    planted.patients = None
    planted.cache = planted.cache.parent / "my cache's"
    said, _, _, _ = planted.audit()
    (words,) = re.findall(r"otherwise use (.*?groups\.csv\S*)", said)
    assert shlex.split(words) == ["classify", "run", "--groups", str(planted.cache / "audit" / "groups.csv")]


def test_every_copy_of_an_image_is_named(planted):
    for copied, noise in (("t100", 0.01), ("t120", 0.02), ("e000", 0.015), ("e010", 0.03)):
        planted.copy("t000", copied, noise)
    _, duplicates, groups, _ = planted.audit()
    assert set(duplicates["first_ID"]) | set(duplicates["second_ID"]) == {"t000", "t100", "t120", "e000", "e010"}
    across = duplicates[duplicates["scope"] == "between train and test"]
    assert set(across["second_ID"]) == {"e000", "e010"}
    assert len({groups[i] for i in ("t000", "t100", "t120", "e000", "e010")}) == 1


def test_images_that_are_all_alike_are_all_named_and_the_record_is_json(planted):
    alike = planted.features["t000"]
    planted.features = dict.fromkeys(planted.features, alike)
    said, duplicates, groups, record = planted.audit()
    named = set(duplicates["first_ID"]) | set(duplicates["second_ID"])
    assert named == {*TRAIN, *TEST}
    assert "nearer than 1e-05" in said
    assert len(set(groups.values())) == 1
    assert record["threshold"]["exponent"] is None  # infinity is no JSON


def test_a_group_that_joins_many_is_called_after_some_of_them(planted):
    planted.features = dict.fromkeys(planted.features, planted.features["t000"])
    _, _, groups, record = planted.audit()
    [name] = set(groups.values())
    assert name.split("+")[-1] == f"{record['groups']['given'] - 8} more"
    assert name.startswith("p0+")
    assert name.count("+") == 8


def test_a_joined_group_is_called_as_no_other(planted):
    planted.patients |= {"t140": "p0+p33", "t141": "proposed-00001"}
    planted.copy("t000", "t100")
    _, _, groups, _ = planted.audit()
    assert groups["t000"] == groups["t001"] == groups["t100"] == "p0+p33+"
    assert groups["t140"] == "p0+p33"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: (p.cache / "train" / "net.h5").rename(p.cache / "train" / "other.h5"), "no backbone for all splits"),
        (
            lambda p: [(p.cache / s / "net.h5").unlink() for s in ("train", "test")],
            "holds no features of train or test",
        ),
        (lambda p: (p.data / "train.csv").write_text("ID,bleed\nt000,2\n"), "train.csv"),
        (lambda p: write_rows(p.cache, p.some(), "train"), "149 of 150 images are missing (first: t001)"),
    ],
)
def test_what_cannot_be_audited_is_one_message(planted, change, says):
    planted.write()
    change(planted)
    result = CliRunner().invoke(app, ["audit", str(planted.cache), "--data", str(planted.data)])
    assert result.exit_code == 2
    assert says in result.stderr
    assert not (planted.cache / "audit").exists()


def test_a_run_without_folds_is_refused(planted, tmp_path):
    planted.write()
    options = ["audit", str(planted.cache), "--data", str(planted.data), "--run", str(tmp_path)]
    result = CliRunner().invoke(app, options)
    assert (
        result.exit_code,
        "is not a run: run.json or labels.csv is missing. Give the folder" in result.stderr,
    ) == (2, True)
    write_run(tmp_path, "split,ID,group\ntrain,t000,g\n")
    result = CliRunner().invoke(app, options)
    assert (result.exit_code, "its columns are split, ID, group, expected split, ID, group, fold" in result.stderr) == (
        2,
        True,
    )


def test_a_run_of_another_data_set_is_refused_and_one_of_a_part_is_told(planted, tmp_path):
    planted.write()
    options = ["audit", str(planted.cache), "--data", str(planted.data), "--run", str(tmp_path)]
    write_run(tmp_path, "split,ID,group,fold,stored\ntrain,other,g,0,train\n")
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 2
    assert f"{tmp_path} held none of the 150 training images of {planted.data} out" in result.stderr
    assert not (tmp_path / "audit.json").exists()
    write_run(tmp_path, "split,ID,group,fold,stored\ntrain,t000,g,0,train\ntrain,t001,g,1,train\n")
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0
    assert f"train: {tmp_path} did not hold 148 of 150 images out" in result.output
