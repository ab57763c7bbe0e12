"""Turn the bytes of one image file into pixels."""

import functools
import hashlib
import os

os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # a damaged file is reported by us, with its name

import cv2
import numpy as np
import simplejpeg

from extract.images.checksums import check_pixels, check_png, check_tiff
from extract.images.header import Header
from extract.images.heic import decode_heic, is_heic, read_header
from extract.images.memory import naming_memory
from extract.images.reading import Reading, UnreadableImage
from extract.images.tiff import invert_where_white_is_zero, is_deep_tiff, read_tags, refuse_planes
from extract.scans.scan import is_scan, read_scan
from features.store.images_table import ImageFacts

_FORMATS = "PNG, JPEG, TIFF, BMP, WebP, GIF, JPEG 2000, AVIF or HEIC"
#: How files begin, PNG and JPEG, whose headers are checked elsewhere than in `Header`, which does not know all.
_STRICT = (b"\x89PNG", b"\xff\xd8")
#: Pixels from which on memory counts more than half a millisecond.
_LARGE = 1 << 21
#: Pixels that change their form at a time.
_BLOCK = 1 << 16
#: What libjpeg warns of in headers of sound files, by the first words; it decodes them as any other reader does.
_HARMLESS = ("Invalid SOS parameters for sequential JPEG", "Warning: unknown JFIF revision", "Unknown Adobe color")
#: How OpenCV decodes the colours as they are stored, without transparency; tags of orientation are ours to follow.
_COLOURS_ALONE = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


@naming_memory()
def decode(encoded: bytes, image_id: str, reading: Reading) -> tuple[np.ndarray, ImageFacts]:
    """Decode one image.

    Args:
        encoded: content of a PNG, JPEG, TIFF, BMP, WebP, ... file, of a DICOM file or a NIfTI volume. Of a file with
            several pages: the first; of several frames or slices: the one that the id names.
        image_id: the image's id.
        reading: how its pixels are read.

    Returns:
        Pixels, uint8 0-255: (H, W) where the image is grey, else (H, W, 3) RGB; transparency is dropped, 16 bits a
        channel become 8 by the reading's range. Tags of orientation are followed as the reading says.
        And the facts of the image.

    Raises:
        MemoryError: there is no room for its pixels.
        UnreadableImage: the content does not decode, is cut off, or has too many pixels. A damaged byte within is
            noticed by checksums (PNG, TIFF with Deflate) and where libjpeg warns; not in every other file.
    """
    if not encoded:
        raise UnreadableImage("the file is empty")
    if is_scan(encoded):
        return _decode_scan(encoded, image_id, reading)
    header = read_header(encoded) if is_heic(encoded) else Header.of(encoded)
    if header is not None and header.width * header.height > reading.max_pixels:
        size = f"{header.height:,} x {header.width:,} pixels"
        raise UnreadableImage(f"it has {size}, more than --max-pixels {reading.max_pixels} allows")
    stored = decode_stored(encoded, header)
    channels = 4 if header is not None and header.has_deep_alpha else 1 if stored.ndim == 2 else stored.shape[2]
    if channels not in (1, 3, 4):
        raise UnreadableImage(f"it has {channels} channels; 1, 3 or 4 are read")
    bit_depth = 8 * stored.dtype.itemsize
    pixels = _to_rgb(stored, reading.intensity_range)
    if header is not None and header.kind != "TIFF" and reading.orientation == "exif":  # libtiff has turned it already
        pixels = _turn_upright(pixels, header.orientation)
    means, deviations = cv2.meanStdDev(pixels)
    mean = float(means.mean())
    deviation = float(np.sqrt(max(0.0, float((deviations**2 + means**2).mean()) - mean**2)))
    return pixels, ImageFacts(pixels.shape[0], pixels.shape[1], channels, bit_depth, mean, deviation)


def _to_rgb(stored: np.ndarray, intensity_range: tuple[int, int]) -> np.ndarray:
    """Make the pixels of a backbone of those of a file, in their place: large images would not fit twice.

    Args:
        stored: uint8 or uint16 (H, W), (H, W, 1), or (H, W, 3 or 4) BGR; its content is lost.
        intensity_range: the values of 16 bits that become black and white.

    Returns:
        uint8 (H, W), or (H, W, 3) RGB.
    """
    height, width = stored.shape[:2]
    is_colour = stored.ndim == 3 and stored.shape[2] > 1
    if stored.dtype == np.uint8 and not is_colour:
        return stored.reshape(height, width)
    shape = (height, width, 3) if is_colour else (height, width)
    pixels = stored.reshape(-1).view(np.uint8)[: np.prod(shape)].reshape(shape)
    rows = max(1, _BLOCK // width)
    for start in range(0, height, rows):
        block = stored[start : start + rows]  # its bytes lie where the pixels of this block do, or behind
        levels = block if stored.dtype == np.uint8 else cv2.LUT(block, grey_levels(*intensity_range))
        if is_colour:
            levels = cv2.cvtColor(levels, cv2.COLOR_BGR2RGB if stored.shape[2] == 3 else cv2.COLOR_BGRA2RGB)
        pixels[start : start + rows] = levels.reshape(pixels[start : start + rows].shape)
    return pixels


def decode_stored(encoded: bytes, header: Header | None) -> np.ndarray:
    """Decode the pixels of a plain image as they are stored.

    Args:
        encoded: content of the file.
        header: what its header says; None where it says nothing.

    Returns:
        uint8 or uint16: (H, W) where the image is grey, else (H, W, 3) BGR, or (H, W, 4) with transparency; with 16
        bits transparency is left out, for it would take 8 bytes a pixel.

    Raises:
        UnreadableImage: the content does not decode.
    """
    if encoded.startswith(b"\xff\xd8") and (pixels := _decode_jpeg(encoded)) is not None:
        return pixels
    if is_heic(encoded):
        return decode_heic(encoded)
    if encoded.startswith(b"\x89PNG"):
        encoded = check_png(encoded)
    tags = read_tags(encoded) if encoded.startswith((b"II", b"MM")) else {}
    if header is None and not encoded.startswith(_STRICT) and not is_deep_tiff(tags):
        raise UnreadableImage(f"its header is damaged, or it is not a {_FORMATS} file")
    refuse_planes(tags)
    check_tiff(encoded, tags)
    check_pixels(encoded, header, tags)
    try:
        with naming_memory():
            stored = _open(encoded, header)
    except cv2.error as error:
        raise UnreadableImage(f"OpenCV cannot decode it: {getattr(error, 'err', error)}") from None
    if stored is None:
        raise UnreadableImage(f"OpenCV cannot decode it: it is damaged, or not a {_FORMATS} file")
    if stored.dtype not in (np.uint8, np.uint16):
        raise UnreadableImage(f"its pixels are {stored.dtype}; 8 or 16 bits a channel are read")
    invert_where_white_is_zero(stored, tags)
    return stored


def _open(encoded: bytes, header: Header | None) -> np.ndarray | None:
    """Let OpenCV decode an image; None where it cannot.

    Decoding from bytes it copies all pixels once more, from a file it need not; but it cannot turn a TIFF file then.
    """
    is_turned = header is not None and header.kind == "TIFF" and header.orientation >= 5
    flags = _COLOURS_ALONE if header is not None and header.has_deep_alpha else cv2.IMREAD_UNCHANGED
    if header is None or is_turned or header.width * header.height < _LARGE:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    with os.fdopen(os.memfd_create("image"), "wb") as file:
        file.write(encoded)
        file.flush()
        path = f"/proc/self/fd/{file.fileno()}"
        stored = cv2.imread(path, None, flags)
        if stored is None:
            os.close(os.open(path, os.O_RDONLY))  # where there is no descriptor more, that is the reason
        return stored


def _decode_jpeg(encoded: bytes) -> np.ndarray | None:
    """Decode a JPEG file to the pixels of OpenCV, bit by bit; None where OpenCV has to, for a harmless warning.

    OpenCV reads what libjpeg warns of, such as data that end early or are left over, as if nothing were.
    """
    if encoded.rfind(b"\xff\xd9") < encoded.rfind(b"\xff\xda"):
        raise UnreadableImage("the JPEG file is cut off: its end marker is missing")
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        if colours == "Gray":
            return simplejpeg.decode_jpeg(encoded, "GRAY")[..., 0]
        return simplejpeg.decode_jpeg(encoded, "BGR")
    except ValueError as error:
        if str(error).startswith(_HARMLESS):
            return None
        raise UnreadableImage(f"the JPEG file is damaged, or not of a kind that is read: {error}") from None


def _decode_scan(encoded: bytes, image_id: str, reading: Reading) -> tuple[np.ndarray, ImageFacts]:
    """Decode an image of a scan; its facts are those of the pixels in the window."""
    scan = read_scan(encoded, image_id, reading.window, reading.max_pixels)
    height, width = scan.pixels.shape[:2]
    mean, deviation = float(scan.pixels.mean()), float(scan.pixels.std())
    channels = 1 if scan.pixels.ndim == 2 else 3
    group = hashlib.blake2b(scan.owner.encode(), key=reading.salt, digest_size=8).hexdigest() if scan.owner else ""
    return scan.pixels, ImageFacts(height, width, channels, 8, mean, deviation, group, scan.position, scan.repaired)


@functools.cache
def grey_levels(low: int, high: int) -> np.ndarray:
    """Say which grey level each 16-bit value becomes: uint8 (65536,), 0 up to `low`, 255 from `high` on.

    256 steps of the same width, as those of `numpy.histogram`; from 0 to 65535 they are the upper 8 bits.
    """
    values = np.clip(np.arange(65_536, dtype=np.int64), low, high)
    return np.minimum((values - low) * 256 // (high - low), 255).astype(np.uint8)


def _turn_upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image (H, W) or (H, W, C) as its tag says (EXIF 2.32, 4.6.4, tag 274: where row 0 and column 0 lie)."""
    if orientation >= 5:
        stored = stored.swapaxes(0, 1)
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(stored[:: -1 if rows else 1, :: -1 if columns else 1])
