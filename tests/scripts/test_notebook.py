"""scripts/headbank.ipynb runs from top to bottom where Colab has its folders; what it calls knows Kaggle's, too."""

import importlib.metadata
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from typer.testing import CliRunner

import features
from features.store.cache import FeatureCache
from scripts import phantom
from scripts.environment import find_data, find_environment, install_missing
from tests import ROOT
from tests.scripts.tiny_run import call, write_backbone, write_data

NOTEBOOK = ROOT / "scripts" / "headbank.ipynb"


def test_the_notebook_is_kept_without_outputs():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


def test_the_notebook_runs_from_top_to_bottom_on_an_archive_in_content(tmp_path, monkeypatch):
    content = tmp_path / "content"
    made = CliRunner().invoke(
        phantom.app, [str(tmp_path / "ich"), "--train", "60", "--test", "6", "--size", "64", "--jobs", "1"]
    )
    assert made.exit_code == 0, made.output
    content.mkdir()
    shutil.make_archive(str(content / "images"), "zip", tmp_path, "ich")
    monkeypatch.setenv("HEADBANK_ROOT", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    chosen = notebook.cells[1]
    chosen.source = chosen.source.replace('"efficientnet_lite0", "efficientnet_lite1", ', "").replace(
        '"linear_l2", "challenge"', '"linear"'
    )
    assert 'BACKBONES = ["efficientnet_lite2"]\n' in chosen.source
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()

    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "environment: Colab" in said
    assert "installed: nothing was missing" in said
    work = content / "headbank"
    for name in ("predictions_probability.csv", "predictions_binary.csv"):
        table = pd.read_csv(work / "run" / name)
        assert table.columns.tolist() == ["ID", "epidural", "intraparenchymal", "subarachnoid"]
        assert len(table) == 6
    shown = [output["data"] for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in data for data in shown) >= 2
    assert any("<iframe srcdoc=" in data.get("text/html", "") for data in shown)
    assert any("understood" in data.get("text/html", "") or "<li>" in data.get("text/html", "") for data in shown)


@pytest.fixture(scope="module")
def two_machines(tmp_path_factory):
    """Two machines, each with the images, of which each has extracted one backbone."""
    root = tmp_path_factory.mktemp("machines")
    write_data(root / "first" / "data")
    shutil.copytree(root / "first" / "data", root / "second" / "data", copy_function=shutil.copyfile)
    for number, machine in enumerate(("first", "second")):
        write_backbone(root / f"tiny{number}.keras", 16 + 4 * number, number)
        extract_tiny(root, number, root / machine)
    return root


def extract_tiny(root, number, machine):
    option = f"tiny{number}={root}/tiny{number}.keras"
    code, said = call("extract", "run", machine / "data", "--backbone", option, "--cache", machine / "cache")
    assert code == 0, said


def bring(other, cache):
    """What the notebook does with OTHER_CACHES: it copies and verifies."""
    [cell] = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if "OTHER_CACHES:" in cell.source]
    known = {"OTHER_CACHES": [other], "cache": FeatureCache(cache), "headbank": ROOT, "features": features}
    exec(cell.source, known | {"Path": Path, "subprocess": subprocess, "sys": sys})


def classify_both(machine, out):
    options = ("--preset", "none", "--baselines", "ridge_regression", "--folds", 2)
    return call("classify", "run", machine / "data", "--cache", machine / "cache", "--out", out, *options)


def test_caches_of_two_machines_become_one_and_stage_2_reads_both(two_machines, tmp_path, capfd):
    shutil.copytree(two_machines / "first", tmp_path / "first")
    own, other = FeatureCache(tmp_path / "first" / "cache"), FeatureCache(two_machines / "second" / "cache")
    tables = {split: (own.root / split / "images.csv").read_bytes() for split in ("train", "test")}
    expected = other.read("train", ["tiny1.mid"])
    bring(other.root, own.root)
    assert "8 files checked, 336 rows whole, 0 files damaged." in capfd.readouterr().out
    assert {split: (own.root / split / "images.csv").read_bytes() for split in tables} == tables
    ids, rows = FeatureCache(own.root).read("train", ["tiny1.mid"], expected[0])
    assert (ids, rows.tolist()) == (expected[0], expected[1].tolist())
    code, said = classify_both(tmp_path / "first", tmp_path / "run")
    assert code == 0, said
    models = pd.read_csv(tmp_path / "run" / "leaderboard.csv")["model"].tolist()
    assert {f"ridge_regression/{name}" for name in ("tiny0.mid", "tiny1.mid", "all")} <= {*models}


def test_a_cache_of_other_images_is_refused(two_machines, tmp_path):
    shutil.copytree(two_machines / "first", tmp_path / "changed")
    shutil.copytree(two_machines / "second" / "data", tmp_path / "second" / "data")
    image = tmp_path / "second" / "data" / "train" / "t007.png"
    image.write_bytes((image.parent / "t008.png").read_bytes())
    extract_tiny(two_machines, 1, tmp_path / "second")
    bring(tmp_path / "second" / "cache", tmp_path / "changed" / "cache")
    code, said = classify_both(tmp_path / "changed", tmp_path / "run")
    assert code == 2
    assert "1 image of train changed since" in said
    assert "cache/train/tiny1.mid.h5 was extracted (first: t007)" in said

    shutil.copytree(two_machines / "first", tmp_path / "fewer")
    write_data(tmp_path / "others" / "data", train=30, test=6, seed=1)
    extract_tiny(two_machines, 1, tmp_path / "others")
    bring(tmp_path / "others" / "cache", tmp_path / "fewer" / "cache")
    code, said = classify_both(tmp_path / "fewer", tmp_path / "run")
    assert code == 2
    assert "cache/train/tiny1.mid.h5: 42 of 72 images are missing (first: t030)" in said


def write_set(folder):
    (folder / "train").mkdir(parents=True)
    (folder / "train.csv").write_text("ID,a\n")
    return folder


def test_the_environment_is_known_by_its_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = find_environment(tmp_path)
    assert (here.name, here.inputs, here.work) == ("this machine", (tmp_path,), tmp_path / "headbank")
    (tmp_path / "content").mkdir()
    assert find_environment(tmp_path).inputs == (tmp_path / "content",)
    (tmp_path / "kaggle" / "input").mkdir(parents=True)
    kaggle = find_environment(tmp_path)
    assert (kaggle.name, kaggle.work) == ("Kaggle", tmp_path / "kaggle" / "working")
    assert str(kaggle).startswith("Kaggle, ")


def test_the_data_set_is_found_in_a_folder_before_archives_are_unpacked(tmp_path):
    inputs, place = tmp_path / "kaggle" / "input", find_environment
    inputs.mkdir(parents=True)
    (inputs / "broken.zip").write_bytes(b"no archive")
    found = write_set(inputs / "owner" / "ich")
    assert find_data(place(tmp_path)) == found
    other = write_set(inputs / "other")
    with pytest.raises(ValueError, match=rf"found {other}, {found}\. Name it in DATA\."):
        find_data(place(tmp_path))
    assert find_data(place(tmp_path), str(other)) == other


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_an_archive_is_unpacked_once(tmp_path, kind):
    write_set(tmp_path / "packed" / "ich")
    (tmp_path / "content").mkdir()
    shutil.make_archive(str(tmp_path / "content" / "Images"), kind, tmp_path / "packed")
    here = find_environment(tmp_path)
    found = find_data(here)
    assert found.name == "ich"
    assert found.is_relative_to(here.work)
    (found / "mark").touch()
    assert find_data(here) == found
    assert (found / "mark").exists()


def test_an_archive_writes_nothing_outside_of_its_folder(tmp_path):
    (tmp_path / "content").mkdir()
    with tarfile.open(tmp_path / "content" / "evil.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../../../../evil"), io.BytesIO())
    with pytest.raises(ValueError, match=r"evil\.tar holds \.\./\.\./\.\./\.\./evil, which lies outside of it"):
        find_data(find_environment(tmp_path))
    assert not (tmp_path / "evil").exists()


def test_without_a_data_set_it_says_what_it_looked_for(tmp_path):
    (tmp_path / "content").mkdir()
    with pytest.raises(ValueError, match=r"content should hold one folder with train\.csv and train/.* found none"):
        find_data(find_environment(tmp_path))


def test_packages_that_are_missing_are_installed_in_the_versions_of_the_requirements(monkeypatch):
    commands = []
    version = importlib.metadata.version

    def lacking(name):
        if name == "skops":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    def run(command, **how):
        commands.append(command)
        return subprocess.CompletedProcess(command, len(commands) - 1, "", "no route")

    assert install_missing() == []
    monkeypatch.setattr(importlib.metadata, "version", lacking)
    monkeypatch.setattr(subprocess, "run", run)
    [installed] = install_missing()
    assert installed in (ROOT / "requirements.txt").read_text().splitlines()
    assert commands[0][-1] == installed
    assert installed.startswith("skops==")
    with pytest.raises(RuntimeError, match=r"pip could not install skops==.*: no route"):
        install_missing()
