"""scripts.benchmark_cam: the slices bear one bleed each, and points are counted as they should be."""

import cv2
import numpy as np
import pytest

from scripts.benchmark_cam import KINDS, Target, _chances, _hits, draw_targets, grow


def test_slices_with_one_bleed_are_drawn_half_of_each_kind(tmp_path):
    targets = draw_targets(tmp_path, 4, seed=2)
    assert sorted(target.kind for target in targets) == [KINDS[0], KINDS[0], KINDS[1], KINDS[1]]
    assert {path.stem for path in tmp_path.iterdir()} == {target.image_id for target in targets}
    for target in targets:
        image = cv2.imread(str(tmp_path / f"{target.image_id}.png"), cv2.IMREAD_GRAYSCALE)
        x0, y0, x1, y1 = target.box
        assert image.shape == target.inside.shape
        within = image[y0:y1, x0:x1][target.inside[y0:y1, x0:x1]]
        assert within.mean() > image[target.inside].mean() + 20  # blood is bright


def test_a_box_grows_within_the_image():
    assert grow((10, 40, 20, 95), 0.1, 100) == (0, 30, 30, 100)


def test_points_in_and_beside_the_box_and_the_chance_of_a_random_one():
    inside = np.zeros((100, 100), bool)
    inside[:, :50] = True  # the skull is the left half
    targets = [Target("a", KINDS[0], (10, 10, 20, 20), inside), Target("b", KINDS[1], (40, 40, 60, 60), inside)]
    # Enlarged by 5: columns and rows 5 to 25 and 35 to 65; by 10: 0 to 30 and 30 to 70.
    assert _hits(targets, [(24.0, 24.0), (66.0, 50.0)]) == [1.0, 1.0, 0.0, 1.0]
    assert _hits(targets, [(25.0, 24.0), (69.0, 70.0)]) == [0.0, 1.0, 0.0, 0.0]
    assert _chances(targets) == pytest.approx([20 * 20 / 5000, 30 * 30 / 5000, 15 * 30 / 5000, 20 * 40 / 5000])
