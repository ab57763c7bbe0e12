"""`scripts/predict.sh`: a folder of images that no one has seen, extracted and predicted in one go."""

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from scripts.phantom import write_phantom
from scripts.pipeline import app
from tests import ROOT
from tests.scripts.tiny_run import make_run


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "scripts" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def step(name: str, *arguments: object) -> Result:
    """What a script does, within this process."""
    return CliRunner().invoke(app, [f"scripts/{name}", *map(str, arguments)])


def test_new_images_are_extracted_and_predicted_and_a_second_time_only_what_is_new(tmp_path):
    write_phantom(tmp_path / "data", {"train": 60, "test": 12}, size=64, seed=0, jobs=1)
    cache, run, images = tmp_path / "cache", tmp_path / "run", tmp_path / "new images"
    done = step("extract.sh", tmp_path / "data", "--backbones", "efficientnet_lite0", "--cache", cache)
    assert done.exit_code == 0, done.output
    options = ("--cache", cache, "--preset", "none", "--folds", "2", "--labels", "intraparenchymal,subarachnoid")
    assert step("classify.sh", tmp_path / "data", "--out", run, *options, "--no-pictures").exit_code == 0

    (tmp_path / "data" / "test").rename(images)
    done = step("predict.sh", run, images)
    assert done.exit_code == 0, done.output
    out = run / "predictions" / "new images"
    expected = pd.read_csv(run / "predictions_probability.csv").sort_values("ID").reset_index(drop=True)
    # In another order of rows, BLAS may round the last bit otherwise.
    pd.testing.assert_frame_equal(pd.read_csv(out / "predictions_probability.csv"), expected, rtol=0, atol=1e-6)

    (images / "broken.png").write_bytes((images / f"{expected['ID'][0]}.png").read_bytes()[:200])
    done = step("predict.sh", f"{run}/", f"{images}/")
    assert done.exit_code == 3, done.output
    assert "1 could not be read by stage 1" in done.output
    assert pd.read_csv(out / "predictions_binary.csv")["ID"].tolist() == ["broken", *expected["ID"]]

    done = step("predict.sh", run, tmp_path / "missing")
    assert done.exit_code == 2
    assert "missing is not a folder. Give the folder of the images to predict." in done.output
    (tmp_path / "other").mkdir()
    done = step("predict.sh", run, tmp_path / "other", "--out", out, "--overwrite", "--cache", tmp_path / "none")
    assert done.exit_code == 2
    assert "holds predictions of other images" in done.output
    assert not (tmp_path / "none").exists()  # known before anything is extracted


def test_bad_usage_is_one_message_and_exit_2(tmp_path):
    (tmp_path / "images").mkdir()
    for arguments, message in (
        ((), "Missing argument 'RUN'"),
        ((tmp_path / "run", tmp_path / "images"), "holds no finished run"),
        ((tmp_path / "run", tmp_path / "images", "--fold", "3"), "No such option: --fold"),
        ((tmp_path / "run", tmp_path / "images", "--out"), "Option '--out' requires an argument"),
    ):
        done = step("predict.sh", *arguments)
        assert (done.exit_code, message in done.output) == (2, True), done.output
    said = script("predict.sh", "--help").stdout
    assert "Usage: scripts/predict.sh" in said
    assert "Extract a folder of new images" in said


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A folder with a data set, and a run on a tiny backbone."""
    root = tmp_path_factory.mktemp("tiny")
    make_run(root, "--preset", "none", "--baselines", "ridge_regression", sizes=(16,))
    return root


@pytest.fixture
def watched(tiny, tmp_path) -> tuple[Path, Path, list[Path]]:
    """The run, a folder with four of its test images, and the eight others."""
    images = sorted((tiny / "data" / "test").glob("*.png"))
    (tmp_path / "ward").mkdir()
    for image in images[:4]:
        shutil.copy(image, tmp_path / "ward")
    shutil.rmtree(tiny / "run" / "predictions", ignore_errors=True)
    return tiny / "run", tmp_path / "ward", images[4:]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, but for locks, which say who held them last."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_predicting_again_changes_nothing_and_then_only_what_the_folder_changed(watched):
    run, images, others = watched
    assert step("predict.sh", run, images).exit_code == 0
    out = run / "predictions" / "ward"
    before = contents(out)
    again = step("predict.sh", run, images)
    assert (again.exit_code, "nothing left to do" in again.output) == (0, True), again.output
    assert contents(out) == before

    for image in others[:2]:
        shutil.copy(image, images / f"a{image.name}")  # before the others, by name
    (images / "t003.png").unlink()
    shutil.copy(others[2], images / "t002.png")
    done = step("predict.sh", run, images)
    assert done.exit_code == 0
    assert "3 rows extracted" in done.output  # of two new images and a changed one
    table = before["predictions_probability.csv"].decode().splitlines()
    now = (out / "predictions_probability.csv").read_text().splitlines()
    assert [line[: line.index(",")] for line in now] == ["ID", "at004", "at005", "t000", "t001", "t002"]
    assert (now[3:5], now[5] == table[3]) == (table[1:3], False)


def test_a_second_call_is_refused_while_the_first_extracts_and_the_first_ends_well(watched, monkeypatch):
    import extract.run

    run, images, _ = watched
    extract_images, seen = extract.run.run_extraction, []

    def extract_meanwhile(options):
        seen.append(step("predict.sh", run, images))
        return extract_images(options)

    monkeypatch.setattr(extract.run, "run_extraction", extract_meanwhile)
    first = step("predict.sh", run, images)
    assert [second.exit_code for second in seen] == [2]
    assert seen[0].output.count("\n") == 1
    assert f"{run}/predictions/ward is being worked on by process" in seen[0].output
    assert (first.exit_code, "4 of 4 images" in first.output) == (0, True), first.output
    assert not (run / "predictions" / "ward" / ".prediction.lock").exists()


def test_images_that_come_while_features_are_extracted_wait_for_the_next_call(watched, monkeypatch):
    import extract.run

    run, images, others = watched
    extract_images = extract.run.run_extraction

    def extract_meanwhile(options):
        code = extract_images(options)
        shutil.copy(others[0], images)
        return code

    with monkeypatch.context() as patch:
        patch.setattr(extract.run, "run_extraction", extract_meanwhile)
        done = step("predict.sh", run, images)
    assert done.exit_code == 0, done.output
    assert "1 image came while features were extracted: run again" in done.output
    table = run / "predictions" / "ward" / "predictions_probability.csv"
    assert pd.read_csv(table)["ID"].tolist() == ["t000", "t001", "t002", "t003"]
    assert "5 of 5 images" in step("predict.sh", run, images).output


def test_a_folder_without_an_image_that_can_be_read_says_so(watched):
    run, images, _ = watched
    for image in images.iterdir():
        image.write_bytes(image.read_bytes()[:100])
    done = step("predict.sh", run, images)
    assert done.exit_code == 2
    assert f"{images} holds no image that can be read" in done.output
    assert "cache/rejected.csv says why of 4 images. Replace or remove them, and run again." in done.output
