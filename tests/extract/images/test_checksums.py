"""extract.images.checksums: damage is refused before decoders that pass it or print; what is sound is left alone."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from extract.images.checksums import check_png
from extract.images.decoding import decode
from extract.images.reading import Reading, UnreadableImage

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def write(kind: str, pixels: np.ndarray = PIXELS, **settings) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **settings)
    return file.getvalue()


PNG = write("PNG", icc_profile=b"no profile at all" * 9, dpi=(72, 72))


@given(st.integers(0, len(PNG) - 1), st.integers(1, 255))
def test_a_changed_byte_of_a_png_is_refused_or_has_no_part_in_the_pixels(place, change):
    damaged = bytearray(PNG)
    damaged[place] ^= change
    try:
        found, _ = decode(bytes(damaged), "a", Reading())
    except UnreadableImage:
        return
    np.testing.assert_array_equal(found, PIXELS)


def test_the_reason_names_the_chunk():
    damaged = bytearray(PNG)
    damaged[PNG.find(b"IDAT") + 30] ^= 1
    with pytest.raises(UnreadableImage, match="the PNG file is damaged: the checksum of a chunk IDAT is wrong"):
        check_png(bytes(damaged))
    with pytest.raises(UnreadableImage, match="its end chunk is missing"):
        check_png(PNG[:-1])


def test_libpng_prints_nothing_of_profiles_and_damage_beside_the_pixels(capfd):
    damaged = bytearray(PNG)
    damaged[PNG.find(b"pHYs") + 5] ^= 1
    for encoded in (PNG, bytes(damaged)):
        np.testing.assert_array_equal(decode(encoded, "a", Reading())[0], PIXELS)
    assert capfd.readouterr() == ("", "")
    sound = write("PNG")
    assert check_png(sound) is sound


@pytest.mark.parametrize("tiled", [{}, {"tiffinfo": {278: 16}}])
def test_changed_pixels_of_a_tiff_with_deflate_are_refused(tiled):
    whole = write("TIFF", compression="tiff_adobe_deflate", **tiled)
    np.testing.assert_array_equal(decode(whole, "a", Reading())[0], PIXELS)
    for place in np.random.default_rng(1).integers(20, PIXELS.size, 20):
        damaged = bytearray(whole)
        damaged[place] ^= 0x41
        with pytest.raises(UnreadableImage, match="the TIFF file is damaged: the checksum of its pixels is wrong"):
            decode(bytes(damaged), "a", Reading())


def zeros(size: int):
    """Damage: zeros over so many bytes from a place on."""
    return lambda whole, place: whole[:place] + bytes(size) + whole[place + size :]


def twice(whole: bytes, place: int) -> bytes:
    """Damage: some bytes are written twice."""
    return whole[: place + 16] + whole[place:]


@pytest.mark.parametrize(
    ("kind", "settings", "damage", "places"),
    [
        ("TIFF", {"compression": "tiff_lzw"}, zeros(12), range(1000, 2600, 50)),
        ("TIFF", {"compression": "packbits"}, zeros(12), range(1000, 2600, 50)),
        ("WEBP", {"lossless": True}, twice, range(7000, 12_000, 150)),
        ("JPEG2000", {"irreversible": False}, zeros(512), [13_551]),
    ],
)
def test_pixels_that_do_not_decode_to_their_end_are_refused_without_a_line_on_stderr(
    kind, settings, damage, places, capfd
):
    """OpenCV alone reads them, and leaves part of most of them black."""
    pixels = PIXELS // 64 * 60 if kind == "TIFF" else PIXELS
    whole, refused = write(kind, pixels, **settings), 0
    np.testing.assert_array_equal(decode(whole, "a", Reading())[0], pixels)
    for place in places:
        damaged = damage(whole, place)
        try:
            Image.open(io.BytesIO(damaged)).load()
            continue
        except OSError:
            refused += 1
        capfd.readouterr()  # what Pillow itself prints
        with pytest.raises(UnreadableImage, match=f"the {kind} file is damaged or cut off: its pixels do not decode"):
            decode(damaged, "a", Reading())
        assert capfd.readouterr() == ("", "")
    assert refused >= min(5, len(places))


def test_a_header_that_pillow_does_not_know_is_refused():
    """OpenCV takes the size of the header for granted, and the limit of pixels would not hold."""
    damaged = bytearray(write("BMP"))
    damaged[14] ^= 2
    with pytest.raises(UnreadableImage, match="its header is damaged, or it is not a PNG, JPEG, TIFF, BMP"):
        decode(bytes(damaged), "a", Reading())


def test_a_tiff_of_8_bits_whose_compression_nobody_knows_is_refused():
    """OpenCV gives a black image."""
    whole = write("TIFF")
    place = whole.index(b"\x03\x01\x03\x00\x01\x00\x00\x00\x01\x00")  # 259, one number of 2 bytes: 1
    damaged = whole[: place + 8] + b"\x88\x00" + whole[place + 10 :]
    with pytest.raises(UnreadableImage, match="its header is damaged, or it is not a PNG, JPEG, TIFF, BMP"):
        decode(damaged, "a", Reading())


@pytest.mark.parametrize("colours", [0, 256, 200, 128])
def test_a_bmp_whose_pixels_have_colours_that_its_palette_does_not_have_is_refused(colours):
    """OpenCV makes them black."""
    file = io.BytesIO()
    numbers = Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20))
    numbers.putpalette(np.random.default_rng(3).integers(0, 256, 768, np.uint8).tobytes())
    numbers.save(file, "BMP")
    whole = bytearray(file.getvalue())
    whole[46:50] = colours.to_bytes(4, "little")
    if colours == 128:
        with pytest.raises(UnreadableImage, match="the BMP file is damaged"):
            decode(bytes(whole), "a", Reading())
    else:
        np.testing.assert_array_equal(decode(bytes(whole), "a", Reading())[0], np.asarray(numbers.convert("RGB")))
