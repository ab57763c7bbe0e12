"""extract.images.resizing: every shape gets the size, without pixels being skipped."""

import numpy as np
import pytest

from extract.images.resizing import resize


def test_halving_is_exact_and_an_image_of_the_right_size_is_left_alone():
    image = np.random.default_rng(2).integers(0, 256, (64, 64), np.uint8)
    means = image.reshape(32, 2, 32, 2).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(image, 32)[..., 0], means, atol=0.51)
    colour = np.random.default_rng(3).integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(resize(colour, 32), colour)


@pytest.mark.parametrize("shape", [(40, 40), (17, 90), (300, 21), (1, 1), (1000, 10), (64, 65)])
def test_any_shape_gets_the_size_and_keeps_its_mean(shape):
    rows = np.linspace(40, 200, shape[0])[:, None]
    image = np.broadcast_to(rows, shape).astype(np.uint8)
    resized = resize(image, 32)
    assert resized.shape == (32, 32, 3)
    assert abs(resized.mean() - image.mean()) < 3


def test_reduction_does_not_skip_pixels():
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::8] = 255  # one column in eight: skipping would give 0 or 255, averaging gives 32
    np.testing.assert_allclose(resize(stripes, 32)[..., 0], 255 / 8, atol=1.5)
