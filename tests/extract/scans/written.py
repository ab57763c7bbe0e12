"""DICOM files that tests write, in all transfer syntaxes that can be written here."""

import copy
import io
import struct
import tempfile
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from openjpeg.utils import encode_array
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

#: What an image of a person must never leave behind.
SECRETS = {"PatientName": "Quisling^Zacharias", "PatientID": "SECRETID4711", "StudyDate": "19470813"}
STUDY = "1.2.826.0.1.3680043.8.498.4711"
#: `slice_of_hu` as codestreams of HTJ2K, which no package in use can write (by imagecodecs 2026.3.6): unsigned, with
#: 1024 added, and signed.
HTJ2K = [(Path(__file__).parent / "data" / f"slice_{kind}.j2c").read_bytes() for kind in ("unsigned", "signed")]


def slice_of_hu() -> np.ndarray:
    """Smooth anatomy with noise, int16 (64, 64), -1024 to 3071."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:64, :64]
    hu = 60 * np.sin(rows / 7) + 40 * np.cos(columns / 5) + rng.normal(0, 4, (64, 64))
    hu[:4], hu[4:8] = -1024, 3071
    return np.round(hu).astype(np.int16)


def dataset(stored: np.ndarray, modality: str = "CT", bits: int | None = None, **elements: Any) -> Dataset:
    """Make a DICOM image of stored values (H, W), or RGB (H, W, 3); other elements by keyword."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = uid.CTImageStorage, "1.2.3.4"
    made.StudyInstanceUID, made.Modality = STUDY, modality
    for keyword, value in SECRETS.items():
        setattr(made, keyword, value)
    made.Rows, made.Columns = stored.shape[:2]
    made.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    made.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = 8 * stored.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    made.add_new(0x7FE00010, "OW" if stored.itemsize == 2 else "OB", stored.tobytes())
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def file_bytes(made: Dataset) -> bytes:
    """The content of its file."""
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def with_frame(made: Dataset, frame: bytes, syntax: uid.UID) -> bytes:
    """The content of the file of an image whose pixels are a compressed frame."""
    made = copy.deepcopy(made)
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encapsulate([frame])
    made["PixelData"].is_undefined_length = True
    return file_bytes(made)


def in_syntax(made: Dataset, syntax: uid.UID) -> bytes:
    """The content of the file of a grey 16-bit image in a transfer syntax, by whatever can write it."""
    stored = np.frombuffer(made.PixelData, "<i2" if made.PixelRepresentation else "<u2").reshape(
        made.Rows, made.Columns
    )
    made = copy.deepcopy(made)
    made.file_meta.TransferSyntaxUID = syntax
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return _by_gdcm(made, syntax)
    if syntax in (uid.JPEG2000Lossless, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL):
        is_high = syntax != uid.JPEG2000Lossless
        encoded = HTJ2K[bool(made.PixelRepresentation)] if is_high else encode_array(stored)
        return with_frame(made, encoded, syntax)
    if syntax == uid.ExplicitVRBigEndian:
        made.PixelData = stored.astype(stored.dtype.newbyteorder(">")).tobytes()
    elif syntax.is_compressed and not syntax.is_deflated:
        made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        made.compress(syntax, generate_instance_uid=False)
    return file_bytes(made)


def _by_gdcm(made: Dataset, syntax: uid.UID) -> bytes:
    """Write a file again by GDCM, which encodes lossless JPEG."""
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        path.write_bytes(file_bytes(made))
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return path.read_bytes()


def lossless_jpeg(stored: np.ndarray, bits: int) -> bytes:
    """Encode grey values as lossless JPEG, first-order prediction, of any number of bits: GDCM writes 8 and 16 only."""
    above = np.concatenate([[[1 << (bits - 1), *stored[0, :-1]]], np.column_stack([stored[:-1, 0], stored[1:, :-1]])])
    stream = ""
    for difference in ((stored.astype(int) - above + 32768) % 65536 - 32768).ravel().tolist():
        length = abs(difference).bit_length()  # its code, of 5 bits; the difference follows
        low = difference + (1 << length) - 1 if difference < 0 else difference
        stream += f"{length:05b}" + (f"{low:0{length}b}" if 0 < length < 16 else "")
    stream += "1" * (-len(stream) % 8)
    pixels = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHB3B", bits, *stored.shape, 1, 1, 0x11, 0)
    codes = bytes([0, *(17 if length == 5 else 0 for length in range(1, 17)), *range(17)])
    scan = bytes([1, 1, 0, 1, 0, 0])
    segments = ((0xC3, frame), (0xC4, codes), (0xDA, scan))
    header = b"".join(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in segments)
    return b"\xff\xd8" + header + pixels + b"\xff\xd9"
