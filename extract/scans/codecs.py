"""Decoders that pydicom has no plugin for, or a slow one: RLE, JPEG 2000, and JPEG 2000 with high throughput."""

import struct
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

#: pydicom asks a plugin for this: what the decoders need, by transfer syntax. They are direct dependencies.
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = {}


def is_available(syntax: str) -> bool:
    """Whether the decoders work: pydicom asks a plugin."""
    return True


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
