"""extract.images.resizing: every shape gets the size, without pixels being skipped."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.images.resizing import edges_of, resize


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


def test_bicubic_interpolation_is_that_of_opencv_after_the_halving():
    image = np.random.default_rng(4).integers(0, 256, (40, 40, 3), np.uint8)
    expected = cv2.resize(image, (32, 32), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(resize(image, 32, interpolation="bicubic"), expected)
    assert (resize(image, 32) != expected).any()


def test_reduction_does_not_skip_pixels():
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::8] = 255  # one column in eight: skipping would give 0 or 255, averaging gives 32
    np.testing.assert_allclose(resize(stripes, 32)[..., 0], 255 / 8, atol=1.5)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 40), st.booleans())
def test_padding_adds_black_around_the_whole_image_of_its_own_aspect(height, width, size, colour):
    image = np.full((height, width, 3) if colour else (height, width), 200, np.uint8)
    padded = resize(image, size, "pad")
    assert padded.shape == (size, size, 3)
    top, bottom, left, right = (round(edge * size) for edge in edges_of("pad", image.shape, size))
    expected = np.zeros_like(padded)
    expected[top:bottom, left:right] = 200
    np.testing.assert_array_equal(padded, expected)
    assert max(bottom - top, right - left) == size
    assert abs((bottom - top) - max(1.0, size * height / max(height, width))) <= 0.5
    assert abs((right - left) - max(1.0, size * width / max(height, width))) <= 0.5
    assert 0 <= size - bottom - top <= 1
    assert 0 <= size - right - left <= 1


@given(st.integers(1, 120), st.integers(1, 120), st.integers(1, 40), st.booleans())
def test_cropping_resizes_the_square_in_the_middle(height, width, size, colour):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3) if colour else (height, width), np.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    np.testing.assert_array_equal(resize(image, size, "crop"), resize(square, size))
    edges = edges_of("crop", image.shape, size)
    np.testing.assert_allclose(np.multiply(edges, side), [-top, height - top, -left, width - left], atol=1e-9)


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_a_square_is_the_same_for_every_fit_and_grey_the_same_as_colour(fit):
    image = np.random.default_rng(4).integers(0, 256, (90, 90), np.uint8)
    np.testing.assert_array_equal(resize(image, 32, fit), resize(image, 32))
    oblong = np.random.default_rng(5).integers(0, 256, (61, 130), np.uint8)
    colour = np.repeat(oblong[..., None], 3, axis=2)
    np.testing.assert_array_equal(resize(oblong, 32, fit), resize(colour, 32, fit))


def test_what_memory_has_no_room_for_is_a_memory_error(monkeypatch):
    def refuse(*arguments, **settings):
        error = cv2.error("Failed to allocate 400 bytes")
        error.code = -4
        raise error

    monkeypatch.setattr(cv2, "resize", refuse)
    with pytest.raises(MemoryError):
        resize(np.zeros((64, 64), np.uint8), 20)
