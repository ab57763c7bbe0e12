"""Read the markers of a JPEG frame (ITU T.81, annex B) before GDCM does: it ends the process where they are damaged."""

import re
import struct
from dataclasses import dataclass

#: A marker with its length; bytes 0xFF may fill up before it.
_SEGMENT = re.compile(rb"\xff+([\xc0-\xcf\xda-\xfe])(..)", re.DOTALL)
#: The marker behind the pixels of a scan: neither a stuffed byte nor a restart.
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_START, _END = b"\xff\xd8", b"\xd9"
_FRAMES = b"\xc0\xc1\xc2\xc3"  # baseline, extended, progressive, lossless; by Huffman's code
_DESCRIPTION = struct.Struct(">BHHB")
_SCAN, _JFIF, _ADOBE = b"\xda", b"\xe0", b"\xee"


@dataclass(frozen=True)
class JpegFrame:
    """What a JPEG frame says of itself.

    Attributes:
        bits: of a sample, 2 to 16.
        rows: of the image.
        columns: of the image.
        samples: of a pixel.
    """

    bits: int
    rows: int
    columns: int
    samples: int


def read_markers(encoded: bytes) -> JpegFrame:
    """Read the markers of a frame, as far as libjpeg relies on them.

    Args:
        encoded: from the start of an image to its end, or to where it is cut off within the pixels of a scan.

    Raises:
        ValueError: they are damaged.
    """
    if not encoded.startswith(_START):
        raise ValueError("it does not start as JPEG")
    frames, colours, place, is_scanned = [], {0, 1}, len(_START), False
    while segment := _SEGMENT.match(encoded, place):
        place = segment.start(2) + int.from_bytes(segment[2], "big")
        content = encoded[segment.end() : place]
        if not segment.end() <= place <= len(encoded):
            raise ValueError("a segment is too long or too short")
        if segment[1] in _FRAMES and len(content) >= _DESCRIPTION.size:
            frames.append(JpegFrame(*_DESCRIPTION.unpack_from(content)))
        elif segment[1] == _JFIF and content.startswith(b"JFIF\0") and content[5:6] != b"\1":
            raise ValueError("its JFIF version is damaged")
        elif segment[1] == _ADOBE and content.startswith(b"Adobe"):
            colours.update(content[11:12])
        elif segment[1] == _SCAN:
            is_scanned = True
            if (after := _MARKER.search(encoded, place)) is None or after[0].endswith(_END):
                break
            place = after.start()
    else:
        raise ValueError("a marker is missing")
    if len(frames) != 1 or not is_scanned or (frames[0].samples == 3 and not colours <= {0, 1}):
        raise ValueError("its header is damaged")
    return frames[0]
