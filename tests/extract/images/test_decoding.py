"""extract.images.decoding: bytes become pixels of the right colours, and a damaged file is refused."""

import io
import os
import re
import resource
import tracemalloc

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from extract.images import decoding
from extract.images.decoding import UnreadableImage, decode, grey_levels
from extract.images.reading import Reading, parse_range
from extract.images.resizing import resize
from features.common.errors import InputError
from features.store.images_table import ImageFacts

RED = np.full((12, 10, 3), (250, 20, 5), np.uint8)


def read(encoded: bytes, **settings) -> tuple[np.ndarray, ImageFacts]:
    return decode(encoded, "a17", Reading(**settings))


def encode(pixels: np.ndarray, ending: str = ".png") -> bytes:
    stored = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
    return cv2.imencode(ending, stored)[1].tobytes()


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".webp"])
def test_colours_come_out_as_rgb(ending):
    pixels, facts = read(encode(RED, ending))
    assert pixels.shape == (12, 10, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, RED, atol=3 if ending == ".webp" else 0)
    assert (facts.height, facts.width, facts.channels, facts.bit_depth) == (12, 10, 3, 8)


@pytest.mark.parametrize("kind", ["GIF", "JPEG2000", "AVIF", "WEBP", "TIFF", "PNG"])
def test_of_what_moves_or_has_pages_the_first_is_read_in_its_colours(kind):
    first, second = Image.new("RGB", (64, 80), (250, 20, 5)), Image.new("RGB", (64, 80), (0, 90, 250))
    file = io.BytesIO()
    several = {} if kind == "JPEG2000" else {"save_all": True, "append_images": [second]}
    first.save(file, kind, **several)
    pixels, facts = read(file.getvalue())
    assert pixels.shape == (80, 64, 3)
    assert abs(pixels.astype(int) - (250, 20, 5)).max() <= 6
    assert facts.bit_depth == 8
    with pytest.raises(UnreadableImage, match="80 x 64 pixels"):
        read(file.getvalue(), max_pixels=80 * 64 - 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_tags_of_orientation_are_followed_alike_in_all_formats(kind, tag):
    random = np.random.default_rng(tag)
    upright = np.kron(random.choice([0, 128, 255], (3, 4)), np.ones((16, 16))).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = tag
    # The reference turns back: of the tag's turn the inverse, by Pillow.
    back = {6: 8, 8: 6}.get(tag, tag)
    turned = Image.fromarray(upright)
    turned.getexif()[274] = back
    file = io.BytesIO()
    stored = ImageOps.exif_transpose(turned).convert("RGB")
    stored.save(file, kind, exif=exif, **({"quality": 95} if kind in ("JPEG", "WEBP", "AVIF") else {}))
    pixels, facts = read(file.getvalue())
    assert (facts.height, facts.width) == upright.shape
    assert abs(pixels[8::16, 8::16].astype(int) - upright[8::16, 8::16, None]).max() <= 12
    assert read(file.getvalue(), orientation="stored")[1].height == (48 if kind == "TIFF" else stored.height)


def test_jpeg_keeps_the_colour_within_its_loss():
    pixels, _ = read(encode(RED, ".jpg"))
    np.testing.assert_allclose(pixels, RED, atol=6)


def opened_by_opencv(encoded: bytes) -> np.ndarray:
    stored = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    assert isinstance(stored, np.ndarray)
    return stored if stored.ndim == 2 else stored[..., ::-1]


def write_jpeg(shape: tuple[int, ...], mode: str, **settings) -> bytes:
    """A JPEG file of smooth noise."""
    coarse = np.random.default_rng(sum(shape)).integers(0, 256, (9, 9, len(mode)), np.uint8)
    smooth = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    file = io.BytesIO()
    Image.fromarray(smooth, mode).save(file, "JPEG", **settings)
    return file.getvalue()


@pytest.mark.parametrize("shape", [(64, 80), (131, 77), (17, 5), (1, 1)])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("mode", "settings"),
    [("L", {}), *(("RGB", {"subsampling": kind}) for kind in (0, 1, 2)), ("RGB", {"keep_rgb": True}), ("CMYK", {})],
)
def test_jpeg_has_the_pixels_of_opencv(mode, settings, progressive, shape):
    encoded = write_jpeg(shape, mode, progressive=progressive, **settings)
    pixels, facts = read(encoded)
    np.testing.assert_array_equal(pixels, opened_by_opencv(encoded))
    assert facts.channels == (1 if mode == "L" else 3)


def test_damage_within_a_jpeg_is_refused_where_libjpeg_warns():
    whole = write_jpeg((128, 128), "RGB", quality=90)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(20):
        damaged = bytearray(whole)
        for place in random.integers(whole.find(b"\xff\xda") + 14, len(whole) - 2, 5):
            damaged[place] ^= int(random.integers(1, 256))
        try:
            read(bytes(damaged))
        except UnreadableImage as error:
            refused += 1
            assert str(error).startswith("the JPEG file is ")  # noqa: PT017 - not every damage is noticed
    assert refused >= 14


def test_what_libjpeg_warns_of_in_sound_files_is_read():
    whole = write_jpeg((64, 80), "RGB", progressive=False)
    scan = whole.find(b"\xff\xda")
    strange = bytearray(whole)
    strange[scan + 12] = 0  # the end of the spectrum, which has no meaning in sequential files
    np.testing.assert_array_equal(read(bytes(strange))[0], read(whole)[0])
    np.testing.assert_array_equal(read(whole + bytes(99))[0], read(whole)[0])


def test_jpeg_of_twelve_bits_is_refused_with_its_reason():
    deep = bytearray(write_jpeg((64, 80), "L"))
    deep[deep.find(b"\xff\xc0") + 4] = 12  # the precision (ITU T.81, B.2.2)
    with pytest.raises(UnreadableImage, match="not of a kind that is read: Unsupported JPEG data precision 12"):
        read(bytes(deep))


def test_grey_stays_one_channel_until_it_is_resized():
    ramp = np.arange(120, dtype=np.uint8).reshape(12, 10)
    pixels, facts = read(encode(ramp))
    np.testing.assert_array_equal(pixels, ramp)
    assert facts.channels == 1
    np.testing.assert_array_equal(resize(ramp[:10], 10), np.repeat(ramp[:10, :, None], 3, axis=2))


def test_sixteen_bits_are_cut_to_the_upper_eight_of_which_the_facts_are():
    deep = np.array([[0, 255, 256], [511, 40_000, 65_535]], np.uint16)
    pixels, facts = read(encode(deep))
    np.testing.assert_array_equal(pixels, [[0, 0, 1], [1, 156, 255]])
    assert facts.bit_depth == 16
    assert facts.mean == pytest.approx(pixels.mean())
    assert facts.std == pytest.approx(pixels.std())


@pytest.mark.parametrize(("low", "high"), [(0, 65_535), (0, 1), (31_744, 35_839), (100, 200), (65_534, 65_535)])
def test_a_range_of_sixteen_bits_becomes_the_bins_of_numpy_histogram(low, high):
    values = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    edges = np.linspace(low, high, 257)
    expected = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, 255)
    pixels, _ = read(encode(values), intensity_range=(low, high))
    np.testing.assert_array_equal(pixels, expected)


def test_the_whole_range_keeps_the_upper_eight_bits():
    values = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(read(encode(values))[0], values >> 8)


@pytest.mark.parametrize("text", ["", "a,b", "5", "5,5", "9,3", "-1,5", "0,65536", "1,2,3", "0.5,2"])
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(InputError, match=re.escape(f"--range {text!r}: expected two values")):
        parse_range(text)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_an_image_with_too_many_pixels_is_refused_by_its_header(ending, monkeypatch):
    encoded = encode(RED, ending)
    assert read(encoded, max_pixels=120)[1].height == 12
    monkeypatch.setattr(decoding, "decode_stored", lambda *arguments: pytest.fail("it was decoded"))
    with pytest.raises(UnreadableImage, match="12 x 10 pixels, more than --max-pixels 119"):
        read(encoded, max_pixels=119)


def test_transparency_is_dropped():
    pixels, facts = read(encode(np.dstack([RED, np.zeros((12, 10), np.uint8)])))
    np.testing.assert_array_equal(pixels, RED)
    assert facts.channels == 4


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("shape", [(13, 9), (1500, 1500)])
def test_transparency_beside_sixteen_bits_is_not_decoded_but_known(ending, shape):
    colours = np.random.default_rng(0).integers(0, 65_536, (*shape, 4), np.uint16)
    pixels, facts = read(encode(colours, ending), intensity_range=(9, 40_000))
    np.testing.assert_array_equal(pixels, grey_levels(9, 40_000)[colours[..., :3]])
    assert (facts.channels, facts.bit_depth) == (4, 16)


@pytest.mark.parametrize(
    ("ending", "dtype", "channels", "most"),
    [
        *((ending, np.uint8, channels, 3) for ending in (".png", ".jpg", ".tif", ".bmp") for channels in (1, 3)),
        (".png", np.uint8, 4, 4),
        (".png", np.uint16, 1, 2),
        (".png", np.uint16, 3, 6),
        (".tif", np.uint16, 3, 6),
        (".png", np.uint16, 4, 6),
        (".tif", np.uint16, 4, 6),
    ],
)
def test_decoding_takes_the_bytes_that_the_file_has_a_pixel(ending, dtype, channels, most, monkeypatch):
    side = 1500
    colours = np.arange(side, dtype=dtype)[:, None, None] % 251 * np.ones((side, channels), dtype)
    encoded = encode(colours[..., 0] if channels == 1 else colours, ending)
    grey_levels(0, 65_535)
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: pytest.fail("it keeps a copy that numpy does not know"))
    tracemalloc.start()  # numpy tells it of the arrays that OpenCV returns
    pixels, _ = read(encoded)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pixels.nbytes <= peak <= most * side**2 + (1 << 19)  # blocks of pixels
    if ending != ".jpg":
        shown = colours[..., 0] if channels == 1 else colours[..., :3]
        np.testing.assert_array_equal(pixels, shown if dtype == np.uint8 else shown >> 8)


def test_facts_are_those_of_numpy():
    image = np.random.default_rng(1).integers(0, 256, (9, 7, 3), np.uint8)
    _, facts = read(encode(image))
    assert facts == ImageFacts(9, 7, 3, 8, pytest.approx(image.mean()), pytest.approx(image.std()))


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_refused(ending, share):
    whole = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), ending)
    with pytest.raises(UnreadableImage):
        read(whole[: int(len(whole) * share)])


def test_a_png_with_a_flipped_byte_in_its_pixels_is_refused():
    whole = bytearray(encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
    whole[len(whole) // 2] ^= 0x10
    with pytest.raises(UnreadableImage):
        read(bytes(whole))


def test_what_is_no_image_is_refused_with_a_reason():
    with pytest.raises(UnreadableImage, match="not a PNG, JPEG, TIFF, BMP, WebP, GIF, JPEG 2000, AVIF or HEIC file"):
        read(b"ID,label\n1,0\n")
    with pytest.raises(UnreadableImage, match="float32"):
        read(encode(np.zeros((4, 4), np.float32), ".tif"))


def test_without_a_free_descriptor_a_large_image_is_not_called_damaged():
    encoded = encode(np.zeros((1500, 1500), np.uint8))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limit[1]))  # for the file in memory, but not to read it
    try:
        with pytest.raises(OSError, match="Too many open files"):
            read(encoded)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert read(encoded)[0].shape == (1500, 1500)
