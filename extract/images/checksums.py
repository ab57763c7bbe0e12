"""Refuse damage that OpenCV does not heed: by checksums, and by a stricter decoder."""

import io
import zlib
from collections.abc import Mapping

from PIL import Image

from extract.images.header import Header
from extract.images.memory import naming_damage
from extract.images.reading import UnreadableImage
from extract.scans.libjpeg import hearing_damage

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Chunks of a PNG file that may change its pixels: what begins with a capital, and transparency.
_OF_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})
#: Tags of TIFF 6.0: where the strips or tiles of the pixels lie, how long they are, and their compression.
_PLACES, _COMPRESSION, _DEFLATE = ((273, 279), (324, 325)), 259, ((8,), (32_946,))
_UNCOMPRESSED = (1,)
#: Bytes that are inflated at a time: what comes out is at most a thousand times as much.
_BLOCK = 1 << 16


def check_png(encoded: bytes) -> bytes:
    """Check the checksum of each chunk of a PNG file.

    Returns:
        The file, without what has no part in the pixels and makes libpng print warnings that name no file: colour
        profiles, and damaged chunks of that kind.

    Raises:
        UnreadableImage: a chunk that decides pixels is damaged, or the file is cut off.
    """
    if not encoded.startswith(_PNG_SIGNATURE):
        raise UnreadableImage("the PNG file is damaged: its first 8 bytes are not those of PNG")
    view, start, kind, dropped = memoryview(encoded), len(_PNG_SIGNATURE), b"", []
    while kind != b"IEND":
        size = int.from_bytes(view[start : start + 4], "big")
        stop = start + 12 + size  # length, kind, content, checksum (PNG specification, 5.3)
        if stop > len(view):
            raise UnreadableImage("the PNG file is cut off: its end chunk is missing")
        kind = bytes(view[start + 4 : start + 8])
        is_whole = zlib.crc32(view[start + 4 : stop - 4]) == int.from_bytes(view[stop - 4 : stop], "big")
        if not is_whole and kind in _OF_PIXELS:
            raise UnreadableImage(f"the PNG file is damaged: the checksum of a chunk {kind.decode()} is wrong")
        if not is_whole or kind == b"iCCP":
            dropped.append((start, stop))
        start = stop
    for first, last in reversed(dropped):
        encoded = encoded[:first] + encoded[last:]
    return encoded


def check_tiff(encoded: bytes, tags: Mapping[int, tuple[int, ...]]) -> None:
    """Check the checksums of the pixels of a TIFF file; only those compressed by Deflate have them.

    Raises:
        UnreadableImage: they are damaged.
    """
    if tags.get(_COMPRESSION) not in _DEFLATE:
        return
    view = memoryview(encoded)
    for offsets, sizes in _PLACES:
        for offset, size in zip(tags.get(offsets, ()), tags.get(sizes, ()), strict=False):
            if not _is_whole(view[offset : offset + size]):
                raise UnreadableImage("the TIFF file is damaged: the checksum of its pixels is wrong")


def check_pixels(encoded: bytes, header: Header | None, tags: Mapping[int, tuple[int, ...]]) -> None:
    """Refuse WebP, JPEG 2000 and compressed TIFF whose pixels Pillow does not decode to their end, and some BMP.

    OpenCV ignores what libtiff says of damage in channels of 8 bits, and leaves the rest of the image black; of
    JPEG 2000 and WebP it passes some damage, too. Of BMP, colours that the palette does not have are black.

    Args:
        encoded: content of the file.
        header: what its header says; where it says nothing, nothing is checked.
        tags: those of a TIFF file.

    Raises:
        UnreadableImage: they do not.
    """
    if header is None or header.kind not in ("TIFF", "WEBP", "JPEG2000", "BMP"):
        return
    if header.kind == "TIFF" and (header.is_deep or tags.get(_COMPRESSION) in (*_DEFLATE, _UNCOMPRESSED)):
        return
    damaged = f"the {header.kind} file is damaged or cut off: its pixels do not decode to their end"
    with hearing_damage(), naming_damage(damaged), Image.open(io.BytesIO(encoded)) as image:
        image.load()
        if header.kind == "BMP" and image.mode in ("P", "L") and max(image.tobytes(), default=0) >= _colours(encoded):
            raise ValueError  # by which it is called damaged


def _colours(bmp: bytes) -> int:
    """How many colours the palette of a BMP file has: BITMAPINFOHEADER, biSize and biClrUsed, 0 for all."""
    size, colours = (int.from_bytes(bmp[place : place + 4], "little") for place in (14, 46))
    return colours if size >= 40 and colours else 256


def _is_whole(deflated: memoryview) -> bool:
    """Whether a zlib stream (RFC 1950) ends where it should, with its checksum."""
    stream = zlib.decompressobj()
    try:
        for start in range(0, len(deflated), _BLOCK):
            stream.decompress(deflated[start : start + _BLOCK])
    except zlib.error:
        return False
    return stream.eof
