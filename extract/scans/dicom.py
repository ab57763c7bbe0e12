"""Decode one image of a DICOM file: stored values, HU, grey levels."""

import functools
import io
import logging
import math
import threading
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from extract.images.memory import naming_damage
from extract.images.reading import UnreadableImage
from extract.scans.codecs import OutOfMemory
from extract.scans.levels import show
from extract.scans.libjpeg import hearing_damage
from extract.scans.scan import Scan
from extract.scans.windows import OWN_WINDOW, WINDOWS, Window
from features.common.errors import naming_packages

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.tag import BaseTag

_preparing = threading.Lock()

#: What decodes each transfer syntax, by UID, "" where nothing is to be decoded: the fastest of those with a free
#: licence that give back what was stored (docs/decisions.md). Others are rejected by the syntax's name.
DECODERS = {
    "1.2.840.10008.1.2": "",  # implicit VR, little endian
    "1.2.840.10008.1.2.1": "",  # explicit VR, little endian
    "1.2.840.10008.1.2.1.99": "",  # the same, deflated
    "1.2.840.10008.1.2.2": "",  # explicit VR, big endian
    "1.2.840.10008.1.2.4.50": "gdcm",  # JPEG baseline, 8 bits
    "1.2.840.10008.1.2.4.51": "gdcm",  # JPEG extended; 8 bits only
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG lossless
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81": "pyjpegls",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90": "openjpeg",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91": "openjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.201": "openjpeg",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202": "openjpeg",  # HTJ2K lossless, by resolution
    "1.2.840.10008.1.2.4.203": "openjpeg",  # HTJ2K
    "1.2.840.10008.1.2.5": "rle",  # RLE lossless
}
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
#: What a file is, by its group 2: it stands there even where the file holds no image.
_KIND = "MediaStorageSOPClassUID"
_DICOMDIR = "1.2.840.10008.1.3.10"
# Pixel Data (7FE0,0010), in little and in big endian: pydicom gives nothing of a file that ends within an element.
_PIXELS_TAG = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
_DAMAGED = "the DICOM header is damaged or cut off. Export the file again"
#: What holds pixels but is not an image, by modality.
_NO_IMAGES = {"RTDOSE": "a radiotherapy dose", "SEG": "a segmentation"}
#: A CT of 12 unsigned bits needs an intercept near -1024 for air; those of the RSNA set above this one wrapped around.
_LEAST_INTERCEPT = -100
#: The largest CT number of 12 bits from -1024 on.
_MOST_HU = 3071
_TAGS = (
    "BitsAllocated", "BitsStored", "BluePaletteColorLookupTableData", "BluePaletteColorLookupTableDescriptor",
    "Columns", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "FloatPixelData",
    "GreenPaletteColorLookupTableData", "GreenPaletteColorLookupTableDescriptor", "ImagePositionPatient",
    "Modality", "ModalityLUTSequence", "NumberOfFrames", "PatientID", "PerFrameFunctionalGroupsSequence",
    "PhotometricInterpretation", "PixelData", "PixelRepresentation", "PlanarConfiguration",
    "RedPaletteColorLookupTableData", "RedPaletteColorLookupTableDescriptor", "RescaleIntercept", "RescaleSlope",
    "RescaleType", "Rows", "SOPClassUID", "SamplesPerPixel", "SharedFunctionalGroupsSequence", "StudyInstanceUID",
    "VOILUTFunction", "VOILUTSequence", "WindowCenter", "WindowWidth",
)  # fmt: skip

#: Elements of an image by what the options of pydicom's decoders call them.
_PIXEL_OPTIONS = {
    "BitsAllocated": "bits_allocated",
    "BitsStored": "bits_stored",
    "Columns": "columns",
    "PhotometricInterpretation": "photometric_interpretation",
    "PixelRepresentation": "pixel_representation",
    "PlanarConfiguration": "planar_configuration",
    "Rows": "rows",
    "SamplesPerPixel": "samples_per_pixel",
}


def read_dicom(encoded: bytes, frame: int | None, windows: Sequence[Window], max_pixels: int) -> Scan:
    """Decode one image of a DICOM file.

    Colour images, and 8-bit grey ones without HU, such as ultrasound, are taken as they are. CT is shown through the
    windows; so are other values (X-ray, MR), unless a window has a name: those are in HU. MONOCHROME1 is inverted.

    Args:
        encoded: content of the file.
        frame: number of the frame, from 1; None for the only one.
        windows: one, or three for the colour channels; none: the file's own window.
        max_pixels: rows x columns above which it is not decoded.

    Raises:
        UnreadableImage: it is damaged, not an image, compressed in a way that is not decoded, too large, or its values
            do not suit the windows.
    """
    header = _Header.read(encoded)
    _refuse_others(encoded, header, max_pixels)
    index = _frame_index(header, frame)
    groups = _functional_groups(header, index)
    stored = _decode(header, index)
    position = header.get("ImagePositionPatient") or groups.get("ImagePositionPatient")
    owner = str(header.get("PatientID") or "").strip() or str(header.get("StudyInstanceUID") or "").strip()
    repaired = False
    if stored.ndim == 3:
        pixels = _to_bytes(stored, header)
    else:
        table, repaired = _levels(header, groups, stored, windows)
        pixels = _look_up(stored, table)
    return Scan(pixels, owner, _third(position), repaired)


#: The last files of several frames, by their very bytes: readers ask for one frame after the other, and to parse what
#: such a file says of all its frames takes longer than to decode one.
_kept: deque[tuple[bytes, "_Header"]] = deque(maxlen=2)


def _prepare() -> None:
    """Import pydicom and its decoders once, whichever thread comes first; the others wait.

    Raises:
        InputError: one of them cannot be imported.
    """
    with _preparing:
        _prepare_once()


@functools.cache
def _prepare_once() -> None:
    """Import pydicom and its decoders: they make no noise, and ours stand beside them."""
    with naming_packages():  # pydicom would call pixels damaged whose decoder is missing
        import gdcm
        import jpeg_ls  # noqa: F401 - pydicom finds it
        import openjpeg  # noqa: F401 - for `codecs`
        import rle.rle  # noqa: F401 - as well
        from pydicom import config
        from pydicom.pixels import get_decoder

    # A file that pydicom warns of is read or rejected here by name, and its words may quote what concerns a person.
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    config.settings.reading_validation_mode = config.IGNORE
    for switch_off in (gdcm.Trace.DebugOff, gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff):
        switch_off()
    for syntax, plugin in DECODERS.items():
        if plugin:
            decoder = get_decoder(syntax)
            if plugin in decoder.available_plugins:
                decoder.remove_plugin(plugin)
            decoder.add_plugin(plugin, ("extract.scans.codecs", f"decode_{plugin}"))


@functools.cache
def _keywords() -> dict["BaseTag", str]:
    """`_TAGS` by number: looking the names up for every file took 0.3 ms."""
    from pydicom.tag import Tag

    return {Tag(name): name for name in _TAGS}


@dataclass(frozen=True)
class _Header:
    """What a file says of its image.

    Attributes:
        values: the values of the elements of `_TAGS`, by keyword; the pixels as they are stored. All are converted, and
            once: all damage shows here, and a pydicom Dataset takes 5 to 20 microseconds to give each value.
        parsed: the file, for functions of pydicom.
    """

    values: Mapping[str, Any]
    parsed: "Dataset"

    @classmethod
    def read(cls, encoded: bytes) -> "_Header":
        """Parse a file.

        Raises:
            UnreadableImage: it is damaged.
        """
        kept = next((header for of_file, header in tuple(_kept) if of_file is encoded), None)
        if kept is not None:
            return kept
        _prepare()
        import pydicom
        from pydicom.dataelem import RawDataElement, convert_raw_data_element

        with naming_damage(_DAMAGED):
            parsed = pydicom.dcmread(io.BytesIO(encoded), specific_tags=list(_keywords()))
            letters = parsed.original_character_set
            values = {
                _keywords()[one.tag]: convert_raw_data_element(one, encoding=letters, ds=parsed).value
                if isinstance(one, RawDataElement)
                else one.value
                for one in parsed.elements()
                if one.tag in _keywords()
            }
            values[_KIND] = parsed.file_meta.get(_KIND)
        header = cls(values, parsed)
        if (_number(header.get("NumberOfFrames")) or 1) > 1:
            _kept.append((encoded, header))
        return header

    def get(self, name: str) -> Any:
        """The value of an element; None where the file has none."""
        return self.values.get(name)

    def options(self) -> dict[str, Any]:
        """What pydicom's decoders ask of an image, where they are not given a Dataset."""
        options = {option: self.values[name] for name, option in _PIXEL_OPTIONS.items() if name in self.values}
        options["view_only"] = True  # no copy of uncompressed pixels, which nothing here changes
        options["number_of_frames"] = int(_number(self.get("NumberOfFrames")) or 1)
        if "ExtendedOffsetTable" in self.values:
            options["extended_offsets"] = (self.get("ExtendedOffsetTable"), self.get("ExtendedOffsetTableLengths"))
        return options | {"pixel_keyword": "PixelData", "pixel_vr": self.parsed["PixelData"].VR}


def _refuse_others(encoded: bytes, header: _Header, max_pixels: int) -> None:
    """Refuse what is not an image that is read here, in words of a person who knows scans, not files."""
    sop_class = header.get(_KIND)
    if sop_class == _DICOMDIR:
        raise UnreadableImage("it is a DICOMDIR: a list of other files, not an image")
    kind = _NO_IMAGES.get(str(header.get("Modality")))
    if kind is None and header.get("BitsAllocated") == 1:
        kind = "a mask of 1 bit a pixel"
    if kind is not None:
        raise UnreadableImage(f"it is {kind}, not an image")
    if "FloatPixelData" in header.values or "DoubleFloatPixelData" in header.values:
        raise UnreadableImage("its pixels are floating-point numbers; 8 and 16 bits are read")
    if "PixelData" not in header.values and any(tag in encoded for tag in _PIXELS_TAG):
        raise UnreadableImage("the file is damaged or cut off: its pixels are without their end")
    if not all(header.get(name) for name in ("Rows", "Columns", "PixelData")):
        name = getattr(header.get("SOPClassUID") or sop_class, "name", "")
        raise UnreadableImage(f"it holds no image{f' ({name})' if name else ''}")
    numbers = [header.get(name) for name in ("Rows", "Columns", "BitsAllocated", "BitsStored")]
    if not all(isinstance(number, int) for number in (*numbers, header.get("SamplesPerPixel") or 1)):
        raise UnreadableImage(_DAMAGED)
    rows, columns, bits, stored_bits = numbers
    if bits not in (8, 16) or not 1 <= stored_bits <= bits:
        raise UnreadableImage(f"its pixels have {stored_bits} of {bits} bits; 8 and 16 are read")
    if rows * columns > max_pixels:
        raise UnreadableImage(f"it has {rows:,} x {columns:,} pixels, more than --max-pixels {max_pixels} allows")


def _frame_index(header: _Header, frame: int | None) -> int:
    """Say which frame is meant, from 0."""
    frames = int(_number(header.get("NumberOfFrames")) or 1)
    if frames == 1:
        return 0
    if frame is None:
        raise UnreadableImage(f"it holds {frames} frames, and its id names none")
    if not 1 <= frame <= frames:
        raise UnreadableImage(f"it holds {frames} frames, and its id names frame {frame}")
    return frame - 1


def _decode(header: _Header, index: int) -> np.ndarray:
    """Decode the stored values of a frame: (H, W), or (H, W, 3) RGB; 8 or 16 bits, signed or not, in native order."""
    from pydicom.pixels import apply_color_lut, get_decoder
    from pydicom.uid import UID_dictionary

    syntax = str(header.parsed.file_meta.get("TransferSyntaxUID") or "")
    if not syntax:
        raise UnreadableImage("the DICOM header does not say how its pixels are stored. Export the file again")
    name = UID_dictionary[syntax][0] if syntax in UID_dictionary else f"of unknown kind ({syntax})"
    bits, shape = header.get("BitsStored"), (header.get("Rows"), header.get("Columns"))
    is_wide = syntax == _JPEG_EXTENDED and bits > 8
    if syntax not in DECODERS or is_wide:
        what = f"{name}, with {bits} bits a pixel" if is_wide else name
        raise UnreadableImage(f"its compression is not supported: {what}. Export it uncompressed")
    if not DECODERS[syntax]:
        _refuse_cut_off(header, index)
    plugin = DECODERS[syntax]
    hearing: AbstractContextManager[list[str]] = hearing_damage() if plugin == "gdcm" else nullcontext([])
    try:
        with naming_damage(f"its pixels are damaged or cut off: they do not decode as {name}"), hearing as said:
            stored, _ = get_decoder(syntax).as_array(
                header.get("PixelData"), index=index, decoding_plugin=plugin, **header.options()
            )
            if header.get("PhotometricInterpretation") == "PALETTE COLOR":
                stored = apply_color_lut(stored, header.parsed)
    except OutOfMemory:
        raise MemoryError from None
    if said:
        raise UnreadableImage(f"its pixels are damaged: {said[0]} ({name})")
    if stored.itemsize > 2 or stored.shape[:2] != shape:
        raise UnreadableImage(f"its pixels do not decode as {shape[0]} x {shape[1]} of 8 or 16 bits ({name})")
    return np.ascontiguousarray(stored, stored.dtype.newbyteorder("="))


def _refuse_cut_off(header: _Header, index: int) -> None:
    """Refuse uncompressed pixels without their end."""
    samples = header.get("SamplesPerPixel") or 1
    frame = header.get("Rows") * header.get("Columns") * samples * header.get("BitsAllocated") // 8
    if header.get("PhotometricInterpretation") == "YBR_FULL_422":
        frame = frame * 2 // 3
    needed, found = frame * (index + 1), len(header.get("PixelData"))
    if found < needed:
        raise UnreadableImage(f"its pixels are cut off: {found:,} of {needed:,} bytes are there")


def _to_bytes(colours: np.ndarray, header: _Header) -> np.ndarray:
    """Bring colours to 8 bits."""
    if colours.dtype == np.uint8:
        return colours
    bits = 16 if header.get("PhotometricInterpretation") == "PALETTE COLOR" else header.get("BitsStored")
    return np.right_shift(colours, max(0, bits - 8)).astype(np.uint8)


def _levels(
    header: _Header, groups: Mapping[str, Any], stored: np.ndarray, windows: Sequence[Window]
) -> tuple[np.ndarray, bool]:
    """Say which grey level each stored value becomes, and whether values of this image had wrapped around.

    Returns:
        uint8 (256,) or (65536,), by the bits of a stored value read as an unsigned number; with three windows one axis
        more, of three.
    """
    from pydicom.pixels import apply_modality_lut

    is_hu = header.get("Modality") == "CT" or _of(header, groups, "RescaleType") == "HU"
    bits = header.get("BitsStored")
    if bits <= 8 and not is_hu:
        bottom, top = (-128, 127) if stored.dtype == np.int8 else (0, 2**bits - 1)
        table = show([Window((bottom + top) / 2, top - bottom)], _all_values(stored.dtype))
        repaired = False
    else:
        if windows and not is_hu and (names := [window.name for window in windows if window.name]):
            raise UnreadableImage(
                f"its values are not HU (modality {header.get('Modality') or 'unknown'}), and the window "
                f"{names[0]} is in HU. Give --window {OWN_WINDOW}, or CENTRE/WIDTH in its values"
            )
        slope, intercept = (_number(_of(header, groups, name)) for name in ("RescaleSlope", "RescaleIntercept"))
        slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
        may_wrap = is_hu and bits == 12 and stored.dtype == np.uint16 and intercept > _LEAST_INTERCEPT
        repaired = may_wrap and bool(stored.max() > _MOST_HU)
        lookup = header.get("ModalityLUTSequence")
        if windows and not lookup:
            table = _table(stored.dtype, slope, intercept, repaired, tuple(windows))
        else:
            values = _rescaled(stored.dtype, slope, intercept, repaired)
            if lookup:
                with naming_damage(_DAMAGED):
                    values = np.asarray(apply_modality_lut(_all_values(stored.dtype), header.parsed), np.float64)
            table = show(windows, values) if windows else _own_levels(header, groups, values)
    return (255 - table if header.get("PhotometricInterpretation") == "MONOCHROME1" else table), repaired


def _look_up(stored: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Give each pixel the level that a table of all values, as they are few, has for it: exact.

    Args:
        stored: (H, W), of 8 or 16 bits.
        table: uint8 (V,), by the bits of a value; or (V, 3).

    Returns:
        uint8 (H, W) or (H, W, 3).
    """
    places = stored.view(np.dtype(f"u{stored.itemsize}"))
    channels = [cv2.LUT(places, np.ascontiguousarray(levels)) for levels in table.reshape(len(table), -1).T]
    return channels[0] if table.ndim == 1 else cv2.merge(channels)


@functools.lru_cache(maxsize=16)
def _table(dtype: np.dtype, slope: float, intercept: float, wrapped: bool, windows: tuple[Window, ...]) -> np.ndarray:
    """The grey level of each stored value, by its bits: the same for all slices of a series."""
    return show(windows, _rescaled(dtype, slope, intercept, wrapped))


def _all_values(dtype: np.dtype) -> np.ndarray:
    """All values of an integer type of 8 or 16 bits, in the order of their bits as unsigned numbers."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return np.arange(2 ** (8 * dtype.itemsize), dtype=np.uint32).astype(unsigned).view(dtype)


def _rescaled(dtype: np.dtype, slope: float, intercept: float, wrapped: bool) -> np.ndarray:
    """The value, in HU where it is CT, that each stored value means: float64, by its bits."""
    values = _all_values(dtype).astype(np.float64)
    if wrapped:
        values = np.where(values > _MOST_HU, values - 4096, values)
    return values * slope + intercept


def _own_levels(header: _Header, groups: Mapping[str, Any], values: np.ndarray) -> np.ndarray:
    """Show values through the first window of the file itself: DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3."""
    from pydicom.pixels import apply_voi

    centre, width = (_number(_of(header, groups, name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is not None and width is not None and width > 0:
        function = str(_of(header, groups, "VOILUTFunction") or "LINEAR")
        if function == "SIGMOID":
            return show([Window(0.5, 1)], 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))
        if function == "LINEAR":  # half a value lower, and a value narrower
            centre, width = centre - 0.5, max(width - 1, 1e-6)
        return show([Window(centre, width)], values)
    if header.get("VOILUTSequence"):
        with naming_damage(_DAMAGED):
            bits = header.parsed.VOILUTSequence[0].LUTDescriptor[2]
            levels = apply_voi(np.rint(values).astype(np.int64), header.parsed)
        return show([Window((2**bits - 1) / 2, 2**bits - 1)], levels)
    raise UnreadableImage(
        f"it has no window of its own. Give --window CENTRE/WIDTH in its values, or one of {', '.join(WINDOWS)} if it "
        "is CT"
    )


@naming_damage(_DAMAGED)  # pydicom converts the elements within a sequence as they are asked for
def _functional_groups(header: _Header, index: int) -> dict[str, Any]:
    """Read what enhanced multi-frame files say of a frame: rescaling, window and position."""
    found: dict[str, Any] = {}
    shared = header.get("SharedFunctionalGroupsSequence") or []
    of_frames = header.get("PerFrameFunctionalGroupsSequence") or []
    for group in [*shared[:1], *of_frames[index : index + 1]]:
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence", "PlanePositionSequence"):
            for item in (group.get(name) or [])[:1]:
                found |= {element.keyword: element.value for element in item}
    return found


def _of(header: _Header, groups: Mapping[str, Any], name: str) -> Any:
    """What a file says of the frame, or else of all of it; None where it says nothing."""
    return groups[name] if name in groups else header.get(name)


def _number(value: Any) -> float | None:
    """The first number of an element; None where there is none."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _third(position: Any) -> float | None:
    """The height of a position (x, y, z) in mm."""
    return _number(position[2]) if isinstance(position, Sequence) and len(position) == 3 else None
