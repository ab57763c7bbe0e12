"""`python -m extract thumbnails`: pictures of plain images and scans, once, and what is left out is said."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import extract.pictures.thumbnails
from extract.__main__ import app
from features.common.files import digest_file
from features.map.thumbnails import Thumbnails
from features.store.parts import Rows
from tests.extract.scans.written import dataset, file_bytes
from tests.features.store.caches import RECIPE, facts_of, write_rows


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["thumbnails", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def write_data(root: Path, **files: bytes) -> dict[str, bytes]:
    """Write a data set of these training images and a cache of them; return the digests of the images."""
    (root / "data" / "train").mkdir(parents=True)
    digests = {}
    for name, content in files.items():
        image_id, _, ending = name.rpartition("_")
        path = root / "data" / "train" / f"{image_id}.{ending}"
        path.write_bytes(content)
        digests[image_id] = digest_file(path)
    rows = np.ones((len(digests), 1, 3), np.float32)
    facts = tuple(facts_of(image_id) for image_id in digests)
    recipe = replace(RECIPE, window="bone")
    write_rows(root / "cache", Rows(tuple(digests), tuple(digests.values()), rows, facts), recipe=recipe)
    return digests


def png(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1])


def decode(content: bytes) -> np.ndarray:
    """BGR, as OpenCV gives it."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels


@pytest.fixture
def digests(tmp_path) -> dict[str, bytes]:
    wide = np.zeros((100, 400, 3), np.uint8)
    wide[:, :200] = 200, 40, 90  # BGR
    hounsfield = np.full((64, 64), 300, np.int16)
    hounsfield[:32] = -1000
    return write_data(
        tmp_path, wide_png=png(wide), scan_dcm=file_bytes(dataset(hounsfield)), small_png=png(wide[:9, :9])
    )


def test_plain_images_and_scans_get_small_pictures_of_their_aspect(tmp_path, digests):
    code, said = call(tmp_path / "data", "--cache", tmp_path / "cache")
    assert code == 0, said
    assert "train: 3 of 3 images without a picture" in said
    pictures = Thumbnails(tmp_path / "cache", "train").read(digests.values())
    wide, scan, small = (decode(pictures[digests[name]]) for name in ("wide", "scan", "small"))
    assert (wide.shape, scan.shape, small.shape) == ((24, 96, 3), (64, 64, 3), (9, 9, 3))
    np.testing.assert_allclose(wide[5:20, 5:40].mean(axis=(0, 1)), (200, 40, 90), atol=6)
    assert scan[:28].max() < 8
    # The window of the cache: bone is 600 +- 1400, so that 300 HU is (300 + 800) / 2800 of white.
    np.testing.assert_allclose(scan[36:].mean(), 255 * 1100 / 2800, atol=3)


def test_only_what_is_missing_is_drawn(tmp_path, digests, monkeypatch):
    monkeypatch.setattr(extract.pictures.thumbnails, "_BLOCK", 2)
    call(tmp_path / "data", "--cache", tmp_path / "cache")
    folder = tmp_path / "cache" / "train" / "thumbnails"
    assert sorted(path.name for path in folder.glob("*.zip")) == ["00000.zip", "00001.zip"]
    (folder / "00000.zip").unlink()
    code, said = call(tmp_path / "data", "--cache", tmp_path / "cache")
    assert (code, "train: 2 of 3 images without a picture" in said) == (0, True)
    assert Thumbnails(tmp_path / "cache", "train").digests() == {*digests.values()}
    assert "train: 0 of 3 images without" in call(tmp_path / "data", "--cache", tmp_path / "cache")[1]


def test_an_image_that_changed_is_left_out_and_named(tmp_path, digests):
    (tmp_path / "data" / "train" / "wide.png").write_bytes(png(np.zeros((9, 9), np.uint8)))
    code, said = call(tmp_path / "data", "--cache", tmp_path / "cache")
    assert code == 3
    assert "left out: 1 image: train/wide: it has changed since its features were extracted" in said
    assert Thumbnails(tmp_path / "cache", "train").digests() == {digests["scan"], digests["small"]}


def test_a_cache_of_other_splits_is_refused(tmp_path, digests):
    (tmp_path / "cache" / "train").rename(tmp_path / "cache" / "new")
    code, said = call(tmp_path / "data", "--cache", tmp_path / "cache")
    assert code == 2
    assert "holds no features of" in said


def test_a_data_set_of_other_images_is_refused(tmp_path, digests):
    for path in (tmp_path / "data" / "train").iterdir():
        path.rename(path.with_name(f"new{path.name}"))
    code, said = call(tmp_path / "data", "--cache", tmp_path / "cache")
    assert code == 2
    assert f"holds no image of {tmp_path / 'data'}. Name the data set or the run that it is of." in said
