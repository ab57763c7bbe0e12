"""Read HEIC, as phones write it. Its library is imported when the first such file is met."""

from typing import Any

import numpy as np

from extract.images.header import Header
from extract.images.reading import UnreadableImage
from features.common.errors import naming_packages

#: Brands of HEVC pictures and of files that may hold them (ISO/IEC 23008-12, annex B and chapter 10).
_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
#: Channels by mode, as libheif's wrapper calls it.
_CHANNELS = {"L": 1, "BGR": 3, "BGRA": 4, "BGRa": 4}
#: What the wrapper raises of content that is not as it should be.
_FAULTS = (ValueError, EOFError, SyntaxError, RuntimeError)


def is_heic(encoded: bytes) -> bool:
    """Whether a file is HEIC; AVIF, which may bear the general brands too, is not."""
    brands = encoded[8 : min(64, int.from_bytes(encoded[:4], "big"))]
    return encoded[4:8] == b"ftyp" and encoded[8:12] in _BRANDS and b"avif" not in brands


def read_header(encoded: bytes) -> Header | None:
    """Read what the header says of the first picture; it has to be turned no more, for libheif turns it."""
    try:
        (width, height), _ = _first_picture(encoded).size_mode
    except (OSError, UnreadableImage, *_FAULTS):
        return None  # the decoder says why
    return Header("HEIF", width, height, is_deep=False, orientation=1)


def decode_heic(encoded: bytes) -> np.ndarray:
    """Decode the first picture: uint8 (H, W), or (H, W, 3 or 4) BGR; more than 8 bits become the upper 8.

    Raises:
        MemoryError: there is no room for its pixels.
        UnreadableImage: the content does not decode.
    """
    try:
        picture = _first_picture(encoded)
        levels = np.frombuffer(bytearray(picture.data), np.uint8)
        (width, height), mode = picture.size_mode
    except OSError:  # so the wrapper says it
        raise MemoryError from None
    except _FAULTS as error:
        raise UnreadableImage(f"the HEIC file is damaged, or not of a kind that is read: {error}") from None
    if mode == "I;16":  # grey of 10 or 12 bits, stretched to 16
        levels, mode = np.ascontiguousarray(levels[1::2]), "L"
    channels = _CHANNELS.get(mode, 0)
    if levels.size != height * width * channels:
        raise UnreadableImage(f"its pixels are of the kind {mode}; of HEIC, grey and colours are read")
    return levels.reshape((height, width) if channels == 1 else (height, width, channels))


def _first_picture(encoded: bytes) -> Any:
    """Open the main picture, undecoded.

    Not by `pi_heif.open_heif`, which reads EXIF and the like, too, and ends the process on damaged ones.
    """
    with naming_packages():
        import _pi_heif

    # One thread, colours of 8 bits, in the order BGR, rows without gaps, any decoder, within the limits of libheif.
    pictures = _pi_heif.load_file(encoded, 1, True, True, True, True, "", False)
    picture = next((picture for picture in pictures if picture is not None and picture.primary), None)
    if picture is None:
        raise UnreadableImage("the HEIC file holds no picture that is read")
    return picture
