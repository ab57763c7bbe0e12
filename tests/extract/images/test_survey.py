"""extract.images.survey: the range of 16-bit images is that of their pixels, and 8-bit ones cost no reading."""

import cv2
import numpy as np
import pytest

from extract.images.survey import survey_deep_images
from features.store.images_table import FactsTable, ImageFacts, SeenImage, Stamp


def survey(folder, facts=None, max_pixels=10_000, stop=lambda: False):
    pairs = [(path.stem, path) for path in sorted(folder.glob("*.*"))]
    return survey_deep_images(pairs, facts or FactsTable(folder / "none"), max_pixels, 2, lambda count: None, stop)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_the_range_leaves_out_one_pixel_in_ten_thousand_at_either_end(tmp_path, ending):
    random = np.random.default_rng(0)
    deep = [random.integers(31_744, 35_840, (60, 70), np.uint16) for _ in range(5)]
    deep[0][0, 0], deep[1][0, 0] = 0, 65_535  # a burnt-in mark, a hot pixel
    for number, image in enumerate(deep):
        cv2.imwrite(str(tmp_path / f"a{number}.{ending}"), image)
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((60, 70), np.uint8))
    (tmp_path / "c.png").write_bytes(b"\x89PNG broken")
    found = survey(tmp_path)
    values = np.sort(np.concatenate(deep, axis=None))
    assert found.count == 5
    assert found.range == (values[len(values) // 10_000], values[-1 - len(values) // 10_000])
    assert survey(tmp_path, max_pixels=4_000).count == 0
    assert survey(tmp_path, stop=lambda: True).count == 0


@pytest.mark.parametrize(("value", "expected"), [(0, (0, 1)), (7, (7, 8)), (65_535, (65_534, 65_535))])
def test_one_value_alone_is_a_range_too(tmp_path, value, expected):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((9, 9), value, np.uint16))
    assert survey(tmp_path).range == expected


def test_transparency_is_no_value(tmp_path):
    colours = np.full((9, 9, 4), 65_535, np.uint16)
    colours[..., :3] = np.arange(1000, 1243).reshape(9, 9, 3)
    cv2.imwrite(str(tmp_path / "a.png"), colours)
    assert survey(tmp_path).range == (1000, 1242)


def test_an_image_that_is_known_to_have_8_bits_is_not_opened(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((9, 9), np.uint8))
    path = tmp_path / "a.png"
    facts = FactsTable(tmp_path / "facts" / "images.csv")
    facts.add({"a": SeenImage(b"a" * 16, Stamp.of(path), ImageFacts(9, 9, 1, 8, 0.0, 0.0))}, ["a"])
    monkeypatch.setattr("extract.images.survey.Header", None)
    assert survey(tmp_path, facts).count == 0
