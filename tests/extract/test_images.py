"""extract.images: bytes become pixels of the right colours, and a damaged file is refused."""

import cv2
import numpy as np
import pytest

import extract.images
from extract.images import UnreadableImage, decode, resize
from features.store.images_table import ImageFacts

RED = np.full((12, 10, 3), (250, 20, 5), np.uint8)


def encode(pixels: np.ndarray, ending: str = ".png") -> bytes:
    stored = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
    return cv2.imencode(ending, stored)[1].tobytes()


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".webp"])
def test_colours_come_out_as_rgb(ending):
    pixels, facts = decode(encode(RED, ending))
    assert pixels.shape == (12, 10, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, RED, atol=3 if ending == ".webp" else 0)
    assert (facts.height, facts.width, facts.channels, facts.bit_depth) == (12, 10, 3, 8)


def test_jpeg_keeps_the_colour_within_its_loss():
    pixels, _ = decode(encode(RED, ".jpg"))
    np.testing.assert_allclose(pixels, RED, atol=6)


def test_grey_stays_one_channel_until_it_is_resized():
    ramp = np.arange(120, dtype=np.uint8).reshape(12, 10)
    pixels, facts = decode(encode(ramp))
    np.testing.assert_array_equal(pixels, ramp)
    assert facts.channels == 1
    np.testing.assert_array_equal(resize(ramp[:10], 10), np.repeat(ramp[:10, :, None], 3, axis=2))


def test_sixteen_bits_are_cut_to_the_upper_eight_and_the_facts_keep_the_stored_values():
    deep = np.array([[0, 255, 256], [511, 40_000, 65_535]], np.uint16)
    pixels, facts = decode(encode(deep))
    np.testing.assert_array_equal(pixels, [[0, 0, 1], [1, 156, 255]])
    assert facts.bit_depth == 16
    assert facts.mean == pytest.approx(deep.mean())
    assert facts.std == pytest.approx(deep.std())


def test_transparency_is_dropped():
    pixels, facts = decode(encode(np.dstack([RED, np.zeros((12, 10), np.uint8)])))
    np.testing.assert_array_equal(pixels, RED)
    assert facts.channels == 4


def test_facts_are_those_of_numpy():
    image = np.random.default_rng(1).integers(0, 256, (9, 7, 3), np.uint8)
    _, facts = decode(encode(image))
    assert facts == ImageFacts(9, 7, 3, 8, pytest.approx(image.mean()), pytest.approx(image.std()))


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_refused(ending, share):
    whole = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), ending)
    with pytest.raises(UnreadableImage):
        decode(whole[: int(len(whole) * share)])


def test_a_png_with_a_flipped_byte_in_its_pixels_is_refused():
    whole = bytearray(encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
    whole[len(whole) // 2] ^= 0x10
    with pytest.raises(UnreadableImage):
        decode(bytes(whole))


def test_what_is_no_image_is_refused_with_a_reason():
    with pytest.raises(UnreadableImage, match="not a PNG, JPEG, TIFF, BMP or WebP file"):
        decode(b"ID,label\n1,0\n")
    with pytest.raises(UnreadableImage, match="float32"):
        decode(encode(np.zeros((4, 4), np.float32), ".tif"))


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


def test_sixteen_bit_images_of_twelve_bits_are_warned_of_once(caplog):
    extract.images._warn_of_dim_images.cache_clear()
    for highest in (4095, 4095, 4096):
        decode(encode(np.array([[0, highest]], np.uint16)))
    assert caplog.text.count("16-bit images with no value above 4095") == 1
    extract.images._warn_of_dim_images.cache_clear()
    caplog.clear()
    decode(encode(np.array([[0, 4096]], np.uint16)))
    assert caplog.text == ""
