"""Read HEIC, as phones write it. Its library is imported when the first such file is met."""

import numpy as np

from extract.images.header import Header
from extract.images.reading import UnreadableImage

#: The format, as `Header` calls it.
HEIF = "HEIF"
#: Brands of HEVC pictures and of files that may hold them (ISO/IEC 23008-12, annex B and chapter 10).
_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


def is_heic(encoded: bytes) -> bool:
    """Whether a file is HEIC; AVIF, which may bear the general brands too, is not."""
    brands = encoded[8 : min(64, int.from_bytes(encoded[:4], "big"))]
    return encoded[4:8] == b"ftyp" and encoded[8:12] in _BRANDS and b"avif" not in brands


def read_header(encoded: bytes) -> Header | None:
    """Read what the header says of the first picture; it has to be turned no more, for libheif turns it."""
    from pi_heif import open_heif

    try:
        width, height = open_heif(encoded).size
    except (ValueError, EOFError, SyntaxError, RuntimeError):
        return None
    return Header(HEIF, width, height, is_deep=False, orientation=1)


def decode_heic(encoded: bytes) -> np.ndarray:
    """Decode the first picture: uint8 (H, W), or (H, W, 3 or 4) BGR; more than 8 bits become 8.

    Raises:
        UnreadableImage: the content does not decode.
    """
    from pi_heif import open_heif

    try:
        picture = open_heif(encoded, bgr_mode=True, convert_hdr_to_8bit=True)
        stored = np.array(picture)
    except (ValueError, EOFError, SyntaxError, RuntimeError) as error:
        raise UnreadableImage(f"the HEIC file is damaged, or not of a kind that is read: {error}") from None
    if stored.dtype != np.uint8:  # libheif leaves grey of more bits as it is
        raise UnreadableImage(f"its pixels are {stored.dtype}; of HEIC, 8 bits of grey are read")
    return stored
