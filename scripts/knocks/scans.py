"""Damaged DICOM files of each compression, with odd headers, and NIfTI volumes."""

import gzip
import io
import random
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from scripts.knocks.bulk import LOSSY, Specimen, play_bulk
from scripts.knocks.case import Case, Kind
from scripts.knocks.commands import EXTRACTING
from scripts.knocks.damage import DAMAGES, choose
from scripts.knocks.reference import read_dicom, read_nifti
from scripts.knocks.stage import SIDE

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataelem import RawDataElement

_EXPLICIT, _IMPLICIT, _BIG, _DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", (
    "1.2.840.10008.1.2.1.99"
)  # fmt: skip
_RLE, _JPEG_LS, _JPEG_2000 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
_BASELINE, _LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
#: How pixels are stored, in words: the transfer syntax.
SYNTAXES = {
    "explicit": _EXPLICIT,
    "implicit": _IMPLICIT,
    "big endian": _BIG,
    "deflated": _DEFLATED,
    "RLE": _RLE,
    "JPEG-LS": _JPEG_LS,
    "JPEG 2000": _JPEG_2000,
    "JPEG": _BASELINE,
    "JPEG lossless": _LOSSLESS,
}
#: Values that headers should not have, by keyword; None takes the element out.
_ODD: dict[str, tuple[object, ...]] = {
    "Rows": (0, 1, 65_535, 17, None),
    "Columns": (0, 1, 65_535, 33, None),
    "BitsAllocated": (0, 1, 8, 12, 32, 64, None),
    "BitsStored": (0, 1, 17, 255, None),
    "HighBit": (0, 40, None),
    "PixelRepresentation": (1, 2, None),
    "SamplesPerPixel": (0, 2, 3, 4, None),
    "PhotometricInterpretation": ("MONOCHROME1", "RGB", "YBR_FULL_422", "PALETTE COLOR", "NONSENSE", "", None),
    "NumberOfFrames": ("0", "2", "-1", "99999999", "x", None),
    "RescaleSlope": ("0", "1e308", "-1", "nan", "x", "1\\2", None),
    "RescaleIntercept": ("1e308", "inf", "x", "-5000", "0", None),
    "Modality": ("MR", "OT", "RTDOSE", "SEG", "", None),
    "PixelData": (b"", b"\0", b"\0\0\0", None),
    "PatientID": ("", "=1+1", "\x1b[31m", "x" * 65, None),
    "ImagePositionPatient": (["0", "0"], ["x", "y", "z"], ["nan", "0", "1e400"]),
    "WindowWidth": ("0", "-1", "x"),
    "SpecificCharacterSet": ("ISO_IR 192", "NONSENSE", "ISO 2022 IR 13"),
}


def _slice(generator: random.Random) -> np.ndarray:
    """A slice of stored values of 12 bits: uint16 (H, W), HU + 1024."""
    height, width = (generator.choice((SIDE, 24, 2 * SIDE + 5)) for _ in range(2))
    noise = np.frombuffer(generator.randbytes(height * width), np.uint8).reshape(height, width) % 6
    return (1024 + np.add.outer(np.arange(height), 2 * np.arange(width)) % 80 + noise).astype(np.uint16)


def dicom(syntax: str, pixels: np.ndarray, change: Callable[["Dataset"], None] = lambda _: None) -> bytes:
    """Write a DICOM file of CT.

    Args:
        syntax: how pixels are stored.
        pixels: uint16 (H, W); of JPEG baseline the lower 8 bits are stored.
        change: called with the header before it is written.
    """
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, CTImageStorage

    header = pydicom.Dataset()
    header.preamble = bytes(128)
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = UID("1.2.3")
    header.Modality, header.PatientID, header.StudyInstanceUID = "CT", "p1", "1.2.4"
    header.ImagePositionPatient = ["0", "0", "1"]
    header.Rows, header.Columns = pixels.shape
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PixelRepresentation = 1, "MONOCHROME2", 0
    header.RescaleSlope, header.RescaleIntercept = "1", "-1024"
    bits = 8 if syntax == _BASELINE else 12
    header.BitsStored, header.BitsAllocated, header.HighBit = bits, 8 if bits == 8 else 16, bits - 1
    header.file_meta.TransferSyntaxUID = UID(syntax)
    header.PixelData = pixels.tobytes()
    header["PixelData"].VR = "OW"
    if syntax == _BASELINE:
        header.RescaleIntercept = "0"
        jpeg = io.BytesIO()
        Image.fromarray((pixels & 255).astype(np.uint8)).save(jpeg, "JPEG", quality=95)
        header.PixelData = encapsulate([jpeg.getvalue()])
    elif syntax == _LOSSLESS:
        header.PixelData = encapsulate([_lossless_jpeg(pixels)])
    elif syntax == _JPEG_2000:
        header.BitsStored, header.HighBit = 16, 15  # Pillow writes no other depth
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG2000", no_jp2=True, irreversible=False)
        header.PixelData = encapsulate([stream.getvalue()])
    elif syntax in (_RLE, _JPEG_LS):
        header.file_meta.TransferSyntaxUID = UID(_EXPLICIT)
        plugin = {_RLE: "pydicom", _JPEG_LS: "pyjpegls"}[syntax]
        header.compress(UID(syntax), encoding_plugin=plugin, generate_instance_uid=False)
    elif syntax == _BIG:
        header.PixelData = pixels.astype(">u2").tobytes()
    header["PixelData"].is_undefined_length = syntax not in (_EXPLICIT, _IMPLICIT, _BIG, _DEFLATED)
    change(header)
    content = io.BytesIO()
    little = syntax != _BIG
    pydicom.dcmwrite(
        content,
        header,
        implicit_vr=syntax == _IMPLICIT,
        little_endian=little,
        force_encoding=True,
    )
    return content.getvalue()


def _lossless_jpeg(pixels: np.ndarray) -> bytes:
    """Compress as lossless JPEG of 12 bits, predicted from the left (ITU-T T.81, annex H), without a table to learn.

    Each of the 17 sizes of a difference has a code of 5 bits: longer than it need be, and simple.
    """
    height, width = pixels.shape
    sizes = bytes(range(17))
    table = b"\x00" + bytes([0, 0, 0, 0, 17, *[0] * 11]) + sizes
    frame = struct.pack(">BHHBBBB", 12, height, width, 1, 1, 0x11, 0)
    segments = [(0xC3, frame), (0xC4, table), (0xDA, b"\x01\x01\x00\x01\x00\x00")]
    head = b"\xff\xd8" + b"".join(bytes([0xFF, kind]) + struct.pack(">H", len(s) + 2) + s for kind, s in segments)
    values = pixels.astype(int)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << 11
    bits = []
    for difference in (values - predicted).reshape(-1).tolist():
        size = abs(difference).bit_length()
        low = difference if difference >= 0 else difference + (1 << size) - 1
        bits.append(f"{size:05b}" + (f"{low:0{size}b}" if size else ""))
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    body = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    return head + body + b"\xff\xd9"


def nifti(generator: random.Random, depth: int) -> bytes:
    """Write a NIfTI-1 volume of int16 HU, its axes to the right, front and head; compressed or not."""
    width, height = generator.choice((SIDE, 24)), generator.choice((SIDE, 20))
    values = np.frombuffer(generator.randbytes(width * height * depth), np.uint8).reshape(width, height, depth)
    volume = (np.add.outer(np.arange(width) * 3, np.arange(height))[..., None] % 70 + values % 10).astype("<i2")
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, width, height, depth, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 4, 16)
    struct.pack_into("<8f", head, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<3f", head, 108, 352, 1, 0)
    struct.pack_into("<2h", head, 252, 0, 1)  # sform: the axes as they are
    for row in range(3):
        struct.pack_into("<4f", head, 280 + 16 * row, *[float(row == column) for column in range(3)], 0)
    head[344:348] = b"n+1\0"
    content = bytes(head) + volume.tobytes(order="F")
    return gzip.compress(content, mtime=0) if generator.random() < 0.5 else content


def make(case: Case) -> Specimen:
    """Make the file of a case: one in five is NIfTI."""
    generator = case.random()
    name = f"c{case.number:06d}"
    damage = choose(generator)
    if case.number % 5 == 4:
        whole = nifti(generator, depth=1)
        suffix = ".nii.gz" if whole.startswith(b"\x1f\x8b") else ".nii"
        content = DAMAGES[damage](whole, generator)
        return Specimen(name + suffix, content, name, whole, _read_nifti, 1, f"NIfTI {suffix}, {damage}")
    told = list(SYNTAXES)[case.number % len(SYNTAXES)]
    syntax, pixels = SYNTAXES[told], _slice(generator)
    tolerance = LOSSY * 4 if syntax == _BASELINE else 1
    whole = dicom(syntax, pixels)
    if generator.random() < 0.4:
        keyword = generator.choice(list(_ODD))
        value = generator.choice(_ODD[keyword])
        content = dicom(syntax, pixels, partial(_change, keyword=keyword, value=value))
        damage = f"{keyword} is {str(value)[:20]!r}"
    else:
        content = DAMAGES[damage](whole, generator)
    suffix = generator.choice((".dcm", ".dcm", ".dicom", ""))
    return Specimen(name + suffix, content, name, whole, _read_dicom, tolerance, f"DICOM {told}, {damage}")


def _add_neighbour(folder: Path) -> None:
    """Add a whole file without an ending: beside such files, those that do not begin as DICOM are named."""
    (folder / "neighbour").write_bytes(dicom(_EXPLICIT, _slice(random.Random(0))))


def _change(header: "Dataset", keyword: str, value: object) -> None:
    """Give an element an odd value, as other programs write it, or take it out."""
    import pydicom
    import pydicom.encaps
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.tag import Tag

    tag = Tag(tag_for_keyword(keyword) or 0)
    if value is None:
        if tag in header:
            del header[tag]
        return
    if isinstance(value, bytes):
        header[tag].value = (
            pydicom.encaps.encapsulate([value.ljust(2, b"\0")]) if header[tag].is_undefined_length else value
        )
        return
    kind = dictionary_VR(tag)
    header[tag] = pydicom.DataElement(tag, kind, value) if kind in ("US", "LO", "CS") else _raw(tag, kind, value)


def _raw(tag: int, kind: str, value: object) -> "RawDataElement":
    """An element whose text pydicom does not check."""
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    text = "\\".join(value) if isinstance(value, list) else str(value)
    content = text.encode() + b" " * (len(text) % 2)
    return RawDataElement(Tag(tag), kind, len(content), content, 0, False, True)


def _read_dicom(content: bytes, frame: str) -> np.ndarray:
    """Read an image of a DICOM file by pydicom."""
    return read_dicom(content, SIDE, int(frame or 1) - 1)


def _read_nifti(content: bytes, frame: str) -> np.ndarray:
    """Read a slice of a NIfTI volume by its layout."""
    return read_nifti(content, SIDE, int(frame.removeprefix("z")))


SCANS = Kind(
    "scans",
    1250,
    "`extract run` over DICOM (uncompressed, deflated, RLE, JPEG, JPEG lossless, JPEG-LS, JPEG 2000) and, one "
    "in five, NIfTI: damaged bytes, and headers with values that they should not have",
    "as images, by pydicom with other decoders than Headbank's (but for lossless JPEG), and by the layout of NIfTI",
    play_bulk(make, ("--window", "brain"), _add_neighbour),
    batch=125,
    modules=EXTRACTING,
)
