"""extract.images.tiff: 16-bit TIFF files that OpenCV does not read as their tags say."""

import struct

import numpy as np
import pytest

from extract.images.decoding import decode
from extract.images.reading import Reading, UnreadableImage

RANDOM = np.random.default_rng(0)
INTERLEAVED, SEPARATE = 1, 2
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2


def write(pixels: np.ndarray, planes: int = INTERLEAVED, photometric: int = RGB, order: str = "<") -> bytes:
    """A TIFF file of uint8 or uint16 (H, W, C), uncompressed, by hand: no package in use writes planes."""
    height, width, channels = pixels.shape
    bits = 8 * pixels.itemsize
    stored = (pixels if planes == INTERLEAVED else pixels.transpose(2, 0, 1)).astype(f"{order}u{pixels.itemsize}")
    count = 1 if planes == INTERLEAVED else channels
    part = stored.nbytes // count
    lists = [
        (258, "H", [bits] * channels),
        (273, "I", [8 + part * index for index in range(count)]),
        (279, "I", [part] * count),
    ]
    entries = [(256, "H", [width]), (257, "H", [height]), (259, "H", [1]), (262, "H", [photometric])]
    entries += [(277, "H", [channels]), (278, "H", [height]), (284, "H", [planes])]
    entries += [(338, "H", [1])] if channels == 4 else []
    body, directory = stored.tobytes(), b""
    for tag, kind, values in sorted(lists + entries):
        packed = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(packed) > 4:
            place, body = 8 + len(body), body + packed
            packed = struct.pack(f"{order}I", place)
        number = {"H": 3, "I": 4}[kind]
        directory += struct.pack(f"{order}HHI", tag, number, len(values)) + packed.ljust(4, b"\0")
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(body))
    return start + body + struct.pack(f"{order}H", len(lists + entries)) + directory + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("side", [7, 1500])
def test_deep_channels_in_separate_planes_are_refused(channels, order, side):
    pixels = RANDOM.integers(0, 65_536, (side, side, channels), np.uint16)
    with pytest.raises(UnreadableImage, match=r"16 bits lie in separate planes .*: save it interleaved"):
        decode(write(pixels, SEPARATE, order=order), "a", Reading())
    found, _ = decode(write(pixels, INTERLEAVED, order=order), "a", Reading())
    np.testing.assert_array_equal(found, pixels[..., :3] >> 8)


@pytest.mark.parametrize("channels", [3, 4])
def test_channels_of_8_bits_in_separate_planes_are_read(channels):
    pixels = RANDOM.integers(0, 256, (7, 9, channels), np.uint8)
    np.testing.assert_array_equal(decode(write(pixels, SEPARATE), "a", Reading())[0], pixels[..., :3])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("side", [7, 1500])
@pytest.mark.parametrize(("dtype", "shift"), [(np.uint8, 0), (np.uint16, 8)])
def test_greys_of_which_the_least_is_white_are_inverted_at_any_depth(dtype, shift, side, order):
    pixels = RANDOM.integers(0, np.iinfo(dtype).max, (side, side, 1), dtype, endpoint=True)
    shown = (pixels >> shift)[..., 0]
    as_stored, _ = decode(write(pixels, photometric=BLACK_IS_ZERO, order=order), "a", Reading())
    np.testing.assert_array_equal(as_stored, shown)
    inverted, _ = decode(write(pixels, photometric=WHITE_IS_ZERO, order=order), "a", Reading())
    np.testing.assert_array_equal(inverted, 255 - shown)
    high, _ = decode(write(pixels, photometric=WHITE_IS_ZERO, order=order), "a", Reading(intensity_range=(0, 65_534)))
    np.testing.assert_allclose(high, 255 - shown, atol=1)


@pytest.mark.parametrize("seed", range(40))
def test_damage_in_the_tags_is_an_image_or_a_rejection(seed):
    whole = write(RANDOM.integers(0, 65_536, (5, 6, 3), np.uint16))
    random, damaged = np.random.default_rng(seed), bytearray(whole)
    for place in random.integers(5 * 6 * 6 + 8, len(whole), 3):
        damaged[place] = random.integers(256)
    try:
        assert decode(bytes(damaged), "a", Reading())[0].dtype == np.uint8
    except UnreadableImage as error:
        assert str(error)  # noqa: PT017 - either way is right
