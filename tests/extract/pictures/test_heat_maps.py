"""Heat maps are enlarged and added up exactly; boxes are where the heat is; pictures show it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from extract.images.resizing import WHOLE, edges_of, resize
from extract.pictures.heat_maps import (
    enlarge,
    find_regions,
    palette,
    save_heat,
    save_overlay,
    save_thumbnail,
    scale_box,
    to_levels,
    weigh_maps,
)


def test_enlarging_keeps_the_heat_in_the_middle_of_every_tile_and_adds_backbones_up():
    random = np.random.default_rng(2)
    coarse, fine = random.normal(size=(7, 7)), random.normal(size=(9, 9))
    large = enlarge([coarse], (7 * 15, 7 * 11), [WHOLE])
    assert large.shape == (105, 77)
    np.testing.assert_allclose(large[7::15, 5::11], coarse, atol=1e-6)
    np.testing.assert_allclose(
        enlarge([coarse, fine], (40, 60), [WHOLE, WHOLE]),
        enlarge([coarse], (40, 60), [WHOLE]) + enlarge([fine], (40, 60), [WHOLE]),
        atol=1e-5,
    )
    np.testing.assert_allclose(enlarge([np.full((3, 3), 2.5)], (16, 16), [WHOLE]), 2.5, rtol=1e-6)
    np.testing.assert_allclose(enlarge([np.array([[4.0]])], (5, 6), [WHOLE]), 4.0)


@pytest.mark.parametrize("shape", [(300, 300), (300, 170), (171, 420), (90, 301)])
@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_the_heat_lies_where_the_backbone_saw_a_bright_spot(fit, shape):
    size, tile = 96, 4
    (height, width), side = shape, min(shape)
    # Off the middle, and within the square that is cropped.
    y, x = height // 2 + side // 4, width // 2 - side // 4
    image = np.zeros(shape, np.uint8)
    image[y - 5 : y + 6, x - 5 : x + 6] = 255
    seen = resize(image, size, fit)[..., 0].astype(float)
    heat = seen.reshape(size // tile, tile, size // tile, tile).mean(axis=(1, 3))
    large = enlarge([heat], shape, [edges_of(fit, shape, size)])
    found = np.unravel_index(large.argmax(), shape)
    tiles = {"squash": shape, "pad": (max(shape),) * 2, "crop": (side,) * 2}[fit]
    for place, wanted, reach in zip(found, (y, x), tiles, strict=True):
        assert abs(place - wanted) <= reach * tile / size  # a tile of the map, in pixels of the image


def test_what_was_cropped_away_is_neither_hot_nor_cold():
    heat = np.random.default_rng(0).normal(size=(8, 8))
    large = enlarge([heat], (40, 100), [edges_of("crop", (40, 100), 64)])
    np.testing.assert_allclose(large[:, 30:70], enlarge([heat], (40, 40), [WHOLE]), atol=1e-6)
    np.testing.assert_allclose(large[:, :30], np.median(large), atol=1e-6)
    assert not to_levels(large, 1.0)[:, 70:].any()
    # Of a thread's width nothing may be seen between two places.
    assert np.ptp(enlarge([heat], (32, 32), [edges_of("crop", (10_000, 3), 64)])) == 0


def test_two_hot_spots_are_two_boxes_the_hotter_first():
    heat = np.zeros((20, 30), np.float32)
    heat[2:5, 3:9] = 8
    heat[3, 4] = 9
    heat[10:14, 20:22] = 10
    heat[16, 28] = 5.9  # below 0.6 of the way
    first, second = find_regions(heat)
    assert (first.box, first.heat) == ((20, 10, 22, 14), 10)
    assert (second.box, second.heat) == ((3, 2, 9, 5), 9)
    assert find_regions(np.full((4, 4), 3.0)) == []
    assert find_regions(heat + 100)[0] == first  # heat counts from the image's median


@given(st.integers(1, 256), st.integers(1, 256), st.integers(1, 3000), st.integers(1, 3000), st.data())
def test_a_box_in_pixels_of_the_image_is_the_least_that_holds_the_box(rows, columns, height, width, data):
    x0 = data.draw(st.integers(0, columns - 1))
    y0 = data.draw(st.integers(0, rows - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, columns)), data.draw(st.integers(y0 + 1, rows))
    a, b, c, d = scale_box((x0, y0, x1, y1), (rows, columns), (height, width))
    assert 0 <= a < c <= width
    assert 0 <= b < d <= height
    assert a * columns <= x0 * width < (a + 1) * columns
    assert (c - 1) * columns < x1 * width <= c * columns
    assert b * rows <= y0 * height < (b + 1) * rows
    assert (d - 1) * rows < y1 * height <= d * rows


def test_pictures_are_transparent_where_it_is_cold_and_show_the_image_there(tmp_path):
    heat = np.zeros((8, 8), np.float32)
    heat[2, 2], heat[5, 5] = 4, 2
    levels = to_levels(heat, 4.0)
    assert (levels[2, 2], levels[0, 0], levels[5, 5]) == (63, 0, 32)
    assert to_levels(heat, 2.0)[5, 5] == 63  # what is hotter than full stays the hottest colour
    save_heat(levels, tmp_path / "heat.png")
    found = np.asarray(Image.open(tmp_path / "heat.png").convert("RGBA"))
    np.testing.assert_array_equal(found, palette()[levels])
    assert (found[0, 0, 3], found[2, 2, 3]) == (0, 150)

    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8), 3, axis=2)
    save_thumbnail(grey, tmp_path / "grey.png")
    assert Image.open(tmp_path / "grey.png").mode == "L"
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "grey.png").convert("RGB")), grey)
    colour = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    save_thumbnail(colour, tmp_path / "colour.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "colour.png")), colour)
    save_overlay(colour, levels, [(4, 4, 7, 7)], tmp_path / "overlay.png")
    overlay = np.asarray(Image.open(tmp_path / "overlay.png"))
    np.testing.assert_array_equal(overlay[0], colour[0])
    blend = colour[2, 2] * (1 - 150 / 255) + palette()[63, :3] * (150 / 255)
    np.testing.assert_allclose(overlay[2, 2], blend, atol=1)
    assert (overlay[4, 4:7] == overlay[6, 4:7]).all()  # the outline lies on the box's own pixels
    assert (overlay[7] == colour[7]).all()


@pytest.mark.parametrize("sides", [(5, 3), (2, 7)])
def test_the_means_of_mid_level_heat_add_up_to_the_features_times_the_gradient(sides):
    random = np.random.default_rng(0)
    maps = [
        random.normal(size=(side, side, channels)).astype(np.float32)
        for side, channels in zip(sides, (4, 6), strict=True)
    ]
    maps[0][..., 1] = 0.5  # a channel that does not vary
    pooled = [pool(of_layer, axis=(0, 1)) for of_layer in maps for pool in (np.mean, np.max, np.std)]
    vector = random.normal(size=30)
    heats = weigh_maps(maps, vector, "avg,max,std")
    assert [heat.shape for heat in heats] == [(side, side) for side in sides]
    assert sum(heat.mean() for heat in heats) == pytest.approx(np.concatenate(pooled) @ vector, rel=1e-5)


def test_each_pooling_puts_its_heat_where_it_comes_from():
    of_layer = np.zeros((3, 3, 1), np.float32)
    of_layer[2, 0] = 9
    of_layer[0, 1] = -9
    average, largest, deviation = (
        weigh_maps([of_layer, of_layer], np.eye(6)[number], "avg,max,std")[0] for number in range(3)
    )
    np.testing.assert_allclose(average, of_layer[..., 0])
    np.testing.assert_allclose(largest, np.where(of_layer[..., 0] == 9, 81, 0))
    np.testing.assert_allclose(deviation, of_layer[..., 0] ** 2 / of_layer.std())


def test_heat_of_the_deviation_follows_its_gradient():
    """Against the numerical gradient of the standard deviation."""
    values = np.random.default_rng(1).normal(size=(4, 4, 1))
    step = 1e-6
    gradient = np.zeros((4, 4))
    for place in np.ndindex(4, 4):
        moved = values.copy()
        moved[place] += step
        gradient[place] = (moved.std() - values.std()) / step
    heat = weigh_maps([values, values], np.eye(6)[2], "avg,max,std")[0]
    np.testing.assert_allclose(heat, 16 * gradient * (values[..., 0] - values.mean()), rtol=1e-3, atol=1e-5)
