"""JPEG within DICOM: all that is legal is read, and a damaged header does not end the process, as GDCM alone would."""

import cv2
import numpy as np
import pytest
from pydicom import uid

from extract.images.reading import UnreadableImage
from extract.scans.scan import read_scan
from tests.extract.scans.written import dataset, file_bytes, lossless_jpeg, with_frame

GREY = np.random.default_rng(0).integers(0, 256, (12, 9), dtype=np.uint8)
COLOURS = cv2.resize(np.stack([GREY, GREY // 2, 255 - GREY], 2), (32, 24))
LOSSLESS = lossless_jpeg(GREY, 8)
COMMENT, ADOBE = b"\xff\xfe\0\x05abc", b"\xff\xee\0\x0eAdobe\0d\0\0\0\0\1"
JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def read(file: bytes) -> np.ndarray:
    """The pixels of a file, through its own window."""
    return read_scan(file, "a", "file", 1 << 20).pixels


def values(stored: np.ndarray, bits: int):
    """An image whose window shows all values of so many bits."""
    return dataset(stored, "US", bits, WindowCenter=2 ** (bits - 1), WindowWidth=2**bits)


def grey(frame: bytes) -> bytes:
    """A file of a lossless JPEG frame."""
    return with_frame(values(GREY, 8), frame, uid.JPEGLosslessSV1)


def colour(frame: bytes) -> bytes:
    """A file of a baseline JPEG frame in colour."""
    made = dataset(COLOURS, "US")
    made.PhotometricInterpretation = "YBR_FULL_422"
    return with_frame(made, frame, uid.JPEGBaseline8Bit)


def by_opencv(*options: int) -> bytes:
    """The colours as JPEG, with a JFIF header."""
    return cv2.imencode(".jpg", COLOURS[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95, *options])[1].tobytes()


@pytest.mark.parametrize("bits", range(2, 17))
def test_lossless_jpeg_of_any_number_of_bits_has_the_pixels_that_were_stored(bits):
    container = 8 if bits <= 8 else 16
    stored = np.random.default_rng(bits).integers(0, 2**bits, (12, 9)).astype(f"u{container // 8}")
    expected = read(file_bytes(values(stored, bits)))
    assert expected.max() > 200
    for jpeg_bits in range(bits, container + 1):
        file = with_frame(values(stored, bits), lossless_jpeg(stored, jpeg_bits), uid.JPEGLosslessSV1)
        np.testing.assert_array_equal(read(file), expected)


@pytest.mark.parametrize(
    "before", [COMMENT, ADOBE, JFIF, b"\xff\xdd\0\4\0\0", b"\xff\xff\xff"], ids=lambda segment: segment.hex()
)
def test_all_segments_may_stand_before_a_frame_and_bytes_may_fill_up(before):
    np.testing.assert_array_equal(read(grey(LOSSLESS[:2] + before + LOSSLESS[2:])), GREY)


@pytest.mark.parametrize(
    "options",
    [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 1), (cv2.IMWRITE_JPEG_OPTIMIZE, 1)],
)
def test_jpeg_of_several_scans_with_restarts_and_tables_of_its_own_is_read(options):
    frame = by_opencv(*options)
    decoded = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_allclose(read(colour(frame)), decoded, atol=3)
    assert frame.count(b"\xff\xda") == (10 if cv2.IMWRITE_JPEG_PROGRESSIVE in options else 1)


def without(frame: bytes, marker: int) -> bytes:
    """A frame without its first segment of a kind."""
    start = frame.index(bytes([0xFF, marker]))
    return frame[:start] + frame[start + 2 + int.from_bytes(frame[start + 2 : start + 4], "big") :]


@pytest.mark.parametrize(
    "damaged",
    [
        grey(LOSSLESS.replace(b"\x08\0\x0c\0\x09", b"\x79\0\x0c\0\x09")),  # bits: a segmentation fault in GDCM
        grey(LOSSLESS.replace(b"\x08\0\x0c\0\x09", b"\x01\0\x0c\0\x09")),
        grey(LOSSLESS.replace(b"\x08\0\x0c\0\x09", b"\x08\0\x0d\0\x09")),
        grey(LOSSLESS.replace(b"\x08\0\x0c\0\x09", b"\x08\0\x0c\0\x0a")),
        grey(lossless_jpeg(GREY, 12)),
        grey(by_opencv()),
        grey(b"\0" + LOSSLESS[1:]),
        grey(LOSSLESS.replace(b"\xff\xc4", b"\0\xc4")),  # markers: an exception of C++ in GDCM
        grey(LOSSLESS.replace(b"\xff\xc4", b"\xff\0")),
        grey(LOSSLESS[:2] + b"abc" + LOSSLESS[2:]),
        grey(LOSSLESS[:2] + b"\xff\xfe\xff\xff" + LOSSLESS[2:]),
        grey(LOSSLESS[:2] + b"\xff\xfe\0\1" + LOSSLESS[2:]),
        grey(LOSSLESS.replace(b"\xff\xc3\0\x0b", b"\xff\xc3\0\5")),
        grey(without(LOSSLESS, 0xC3)),
        grey(without(LOSSLESS, 0xDA)),
        grey(LOSSLESS[:2] + JFIF.replace(b"F\0\1", b"F\0\3") + LOSSLESS[2:]),
        colour(without(by_opencv(), 0xE0)[:2] + ADOBE[:-1] + b"\7" + without(by_opencv(), 0xE0)[2:]),
    ],
)  # fmt: skip
def test_damage_that_ends_gdcm_is_refused(damaged):
    with pytest.raises(UnreadableImage, match="its pixels are damaged or cut off: they do not decode as JPEG"):
        read(damaged)


@pytest.mark.parametrize("file", [grey(LOSSLESS), colour(by_opencv())], ids=["lossless", "baseline"])
def test_no_byte_of_a_header_ends_the_process(file):
    start, end = file.index(b"\xff\xd8"), file.index(b"\xff\xda") + 14
    for place in range(start, end, 1 if end - start < 100 else 7):
        for value in (0, 255, 17, file[place] ^ 1, file[place] ^ 128):
            why = ""
            try:
                assert read(file[:place] + bytes([value]) + file[place + 1 :]).dtype == np.uint8
            except UnreadableImage as error:
                why = str(error)
            assert why.startswith("its pixels are damaged") or not why
