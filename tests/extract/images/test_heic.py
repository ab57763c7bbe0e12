"""extract.images.heic: what phones write is read upright, and damage is refused.

Two files hold the same picture, 64 rows by 96 columns: red on the left, blue on the right, a white square in the upper
left corner; that of `turned.heic` is stored on its side. `grey.heic` has as many pixels of 10 bits, grey, from black on
the left to white on the right.
"""

from pathlib import Path

import numpy as np
import pytest

from extract.images.decoding import decode
from extract.images.heic import is_heic
from extract.images.reading import Reading, UnreadableImage
from features.dataset.folder import scan_images

DATA = Path(__file__).parent / "data"
UPRIGHT = (DATA / "upright.heic").read_bytes()


def test_grey_of_ten_bits_is_read_in_eight():
    pixels, facts = decode((DATA / "grey.heic").read_bytes(), "a", Reading())
    assert (facts.height, facts.width, facts.channels, facts.bit_depth) == (64, 96, 1, 8)
    np.testing.assert_array_equal(pixels, np.tile(np.linspace(0, 65_535, 96).astype(np.uint16) >> 8, (64, 1)))


@pytest.mark.parametrize("name", ["upright", "turned"])
@pytest.mark.parametrize("orientation", ["exif", "stored"])
def test_a_picture_is_read_upright_in_its_colours(name, orientation):
    pixels, facts = decode((DATA / f"{name}.heic").read_bytes(), "a", Reading(orientation=orientation))
    assert (facts.height, facts.width, facts.channels, facts.bit_depth) == (64, 96, 3, 8)
    expected = np.full((64, 96, 3), (220, 30, 30))
    expected[:, 48:] = 20, 40, 200
    expected[:24, :24] = 250
    middles = np.s_[12::24, 12::24]
    assert abs(pixels[middles].astype(int) - expected[middles]).max() <= 8


def test_its_size_is_known_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr("extract.images.decoding.decode_heic", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(UnreadableImage, match="64 x 96 pixels, more than --max-pixels 6143"):
        decode(UPRIGHT, "a", Reading(max_pixels=6143))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_file_that_is_cut_off_is_refused(share):
    with pytest.raises(UnreadableImage):
        decode(UPRIGHT[: int(len(UPRIGHT) * share)], "a", Reading())


def test_avif_is_not_taken_for_heic():
    assert is_heic(UPRIGHT)
    assert not is_heic(b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf")
    assert not is_heic(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf")


def test_its_endings_are_those_of_images():
    assert set(scan_images(DATA)) == {"grey", "upright", "turned"}


def test_no_damage_ends_the_process():
    random = np.random.default_rng(0)
    whole = (DATA / "turned.heic").read_bytes()
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 2):
            damaged[place] ^= int(random.integers(1, 256))
        try:
            decode(bytes(damaged), "a", Reading(max_pixels=10_000))
        except UnreadableImage:
            refused += 1
    assert 50 < refused < 300
