"""`scripts/predict.sh`: a folder of images that no one has seen, extracted and predicted in one go."""

import subprocess

import pandas as pd
from typer.testing import CliRunner, Result

from scripts.phantom import write_phantom
from scripts.pipeline import app
from tests import ROOT


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
