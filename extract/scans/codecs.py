"""Our plugins for pydicom: decoders that it has none for, a slow one, or one that hides a lack of memory."""

import functools
import struct
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from extract.scans.jpeg import read_markers

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

_Decode = Callable[[bytes, "DecodeRunner"], bytes | bytearray]

#: pydicom asks a plugin for this: what the decoders need, by transfer syntax. They are direct dependencies.
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = {}


def is_available(syntax: str) -> bool:
    """Whether the decoders work: pydicom asks a plugin."""
    return True


class OutOfMemory(BaseException):
    """A decoder found no memory. pydicom takes each Exception of a decoder for damage, and lets this one pass."""


def _passing_memory(decode: _Decode) -> _Decode:
    """Decorate a decoder: it raises OutOfMemory for MemoryError."""

    @functools.wraps(decode)
    def passing(encoded: bytes, runner: "DecodeRunner") -> bytes | bytearray:
        try:
            return decode(encoded, runner)
        except MemoryError:
            raise OutOfMemory from None

    return passing


@_passing_memory
def decode_rle(encoded: bytes, runner: "DecodeRunner") -> bytearray:
    """Decode a frame of RLE Lossless (DICOM PS3.5, annex G); ten times as fast as pydicom's own decoder.

    Segment by segment: the package's decoder of whole frames ends in a panic of Rust where segments are damaged.

    Raises:
        ValueError: the frame is damaged.
    """
    from rle.rle import decode_segment

    samples, width = runner.samples_per_pixel, runner.bits_allocated // 8
    count, *offsets = struct.unpack_from("<16L", encoded)
    bounds = [*offsets[:count], len(encoded)]
    if count != samples * width or any(start >= end for start, end in pairwise(bounds)):
        raise ValueError("the offsets of the segments are damaged")
    pixels = runner.rows * runner.columns
    frame = bytearray(samples * pixels * width)
    for number, (start, end) in enumerate(pairwise(bounds)):
        segment = decode_segment(encoded[start:end])
        if len(segment) < pixels:
            raise ValueError("a segment is too short")
        sample, byte = divmod(number, width)  # the highest byte comes first, and goes last
        place = slice(sample * pixels * width + width - 1 - byte, (sample + 1) * pixels * width, width)
        frame[place] = segment[:pixels]
    runner.set_option("planar_configuration", 1)
    return frame


@_passing_memory
def decode_gdcm(encoded: bytes, runner: "DecodeRunner") -> bytes | bytearray:
    """Decode a frame of JPEG, by pydicom's own plugin.

    Raises:
        ValueError: the frame is damaged, or not of the image that the DICOM header describes.
    """
    from pydicom.pixels.decoders import gdcm

    frame = read_markers(encoded)
    described = (runner.rows, runner.columns, runner.samples_per_pixel)
    if (frame.rows, frame.columns, frame.samples) != described or not 2 <= frame.bits <= runner.bits_allocated:
        raise ValueError("the headers of JPEG and DICOM disagree")
    stored = runner.bits_stored
    # GDCM has three decoders, takes the one for the bits that it is told, and ends the process where they are others.
    runner.set_option("bits_stored", next(bits for bits in (8, 12, 16) if frame.bits <= bits))
    try:
        return gdcm._decode_frame(encoded, runner)
    finally:
        runner.set_option("bits_stored", stored)


@_passing_memory
def decode_pyjpegls(encoded: bytes, runner: "DecodeRunner") -> bytes | bytearray:
    """Decode a frame of JPEG-LS, by pydicom's own plugin."""
    from pydicom.pixels.decoders import pyjpegls

    return pyjpegls._decode_frame(encoded, runner)


@_passing_memory
def decode_openjpeg(encoded: bytes, runner: "DecodeRunner") -> bytes:
    """Decode a frame of JPEG 2000, also of high throughput (HTJ2K).

    Raises:
        RuntimeError: the frame is damaged.
    """
    import openjpeg

    frame = openjpeg.decode_pixel_data(encoded, version=2, **runner.options)
    precision = runner.get_option("j2k_precision", runner.bits_stored)
    runner.set_option("bits_allocated", 8 if precision <= 8 else 16)  # the container that openjpeg chose
    if runner.samples_per_pixel > 1:
        runner.set_option("photometric_interpretation", "RGB")
    return bytes(frame)
