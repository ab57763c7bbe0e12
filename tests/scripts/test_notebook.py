"""scripts/headbank.ipynb runs from top to bottom where Colab has its folders; what it calls knows Kaggle's, too."""

import importlib.metadata
import io
import json
import shutil
import subprocess
import tarfile

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from typer.testing import CliRunner

from scripts import phantom
from scripts.environment import find_data, find_environment, install_missing
from tests import ROOT

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
    with pytest.raises(tarfile.OutsideDestinationError):
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
