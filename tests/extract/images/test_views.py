"""extract.images.views: the plain view is as before, random ones move as far as their ranges say, by the image's id."""

import cv2
import numpy as np
import pytest

from extract.images.reading import Ranges, Reading, name_views
from extract.images.resizing import resize
from extract.images.views import draw_views
from features.common.errors import InputError

NOTHING = {"hflip": 0, "vflip": 0, "rotate": 0, "scale": 0, "shift": 0, "brightness": 0}
SIZE = 64


def views_of(pixels, count=9, fit="squash", image_id="a", size=SIZE, **ranges):
    reading = Reading(fit=fit, views=name_views(str(count)), ranges=str(Ranges(**{**NOTHING, **ranges})))
    return draw_views(pixels, size, reading, image_id)


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (150, 100, 3), np.uint8)


@pytest.fixture
def dot():
    """A blurred dot right of and above the middle, 20 pixels from it."""
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[SIZE // 2 - 16, SIZE // 2 + 12] = 255
    return cv2.GaussianBlur(image, (9, 9), 2) * 12


def places(views):
    """Where the dot is in each view, from the middle: right, down."""
    grid = np.arange(SIZE) + 0.5 - SIZE / 2
    weights = views[..., 0].astype(float)
    total = weights.sum(axis=(1, 2))
    return np.column_stack([(weights.sum(axis=1) @ grid) / total, (weights.sum(axis=2) @ grid) / total])


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_the_first_view_is_the_plain_image_and_the_mirror_image_its_mirror(noise, fit):
    plain = resize(noise, SIZE, fit)
    for views in (views_of(noise, fit=fit, rotate=90), draw_views(noise, SIZE, Reading(fit), "a")):
        np.testing.assert_array_equal(views[0], plain)
    pair = draw_views(noise, SIZE, Reading(fit, views=name_views("hflip")), "a")
    np.testing.assert_array_equal(pair, [plain, plain[:, ::-1]])


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("shape", [(64, 64), (150, 100, 3), (70, 90), (31, 40)])
def test_a_random_view_without_ranges_is_the_plain_image(fit, shape):
    smooth = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, shape, np.uint8), (15, 15), 5)
    views = views_of(smooth, 2, fit).astype(int)
    assert views.shape == (2, SIZE, SIZE, 3)
    inside = views[0].max(axis=2) > 0  # at the edge of black bars interpolation differs
    if fit == "pad":  # as is the edge of the square there
        inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5)), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    assert np.abs(views[1] - views[0])[inside].max() <= 2


def test_views_depend_on_the_image_id_and_the_number_of_the_view_alone(noise):
    views = views_of(noise, rotate=15)
    np.testing.assert_array_equal(views_of(noise, 5, rotate=15), views[:5])
    assert len({view.tobytes() for view in (*views, *views_of(noise, rotate=15, image_id="b"))}) == 17


def test_a_rotation_keeps_the_distance_from_the_middle_and_stays_within_its_angle(dot):
    found = places(views_of(dot, 40, rotate=30))
    np.testing.assert_allclose(np.hypot(*found.T), np.hypot(*found[0]), atol=0.3)
    angles = np.degrees(np.arctan2(*found.T) - np.arctan2(*found[0]))
    assert -30.5 < angles.min() < -20
    assert 20 < angles.max() < 30.5


def test_a_scale_keeps_the_direction_and_a_shift_the_shape(dot):
    found = places(views_of(dot, 40, scale=0.2))
    ratio = np.hypot(*found.T) / np.hypot(*found[0])
    np.testing.assert_allclose(found, ratio[:, None] * found[0], atol=0.3)
    assert 0.79 < ratio.min() < 0.9
    assert 1.1 < ratio.max() < 1.21
    moved = places(views_of(dot, 40, shift=0.1)) - found[0]
    assert 4 < np.abs(moved).max() < 6.5
    assert np.corrcoef(moved[1:].T)[0, 1] ** 2 < 0.3  # across and down are drawn apart


def test_flips_come_as_often_as_they_are_asked_for(dot):
    right, down = places(views_of(dot, 60, hflip=0.5))[1:].T
    np.testing.assert_allclose(np.abs(right), np.abs(right[0]), atol=0.1)
    np.testing.assert_allclose(down, down[0], atol=0.1)
    assert 0.3 < (right > 0).mean() < 0.7
    right, down = places(views_of(dot, 5, vflip=1))[1:].T
    assert (down > 0).all()
    assert (right > 0).all()


def test_brightness_scales_the_levels_and_no_more():
    grey = np.full((SIZE, SIZE), 100, np.uint8)
    views = views_of(grey, 40, brightness=0.3)
    levels = views.reshape(len(views), -1)
    assert (levels.min(axis=1) == levels.max(axis=1)).all()
    assert 70 <= levels.min() < 80
    assert 120 < levels.max() <= 130


def test_what_lies_beyond_an_image_is_its_reflection_but_black_beside_padding():
    white = np.full((80, 40), 200, np.uint8)
    assert views_of(white, 9, rotate=45, shift=0.2).min() >= 199
    assert views_of(white, 9, "pad", rotate=45, shift=0.2)[1:].min(axis=(1, 2, 3)).max() == 0


def test_ranges_read_back_as_they_are_written_and_bad_ones_are_refused():
    assert Ranges.parse(str(Ranges(rotate=30, hflip=0))) == Ranges(rotate=30, hflip=0)
    assert Ranges.parse("rotate=30") == Ranges(rotate=30)
    for text in ("rotate", "rotate=x", "rotate=200", "hflip=-1", "turn=3", "rotate=1,rotate=2", "rotate=nan", ""):
        with pytest.raises(InputError, match=r"--ranges .* is not NAME=VALUE, each once, of hflip \(0 to 1\)"):
            Ranges.parse(text)
    assert name_views("3") == ("identity", "random1", "random2")
    for text in ("0", "65", "x", "-1", "1.5", "²"):
        with pytest.raises(InputError, match=r"--views .*: expected a number from 1 to 64, or hflip"):
            name_views(text)
