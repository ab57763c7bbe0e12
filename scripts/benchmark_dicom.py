"""Measure what decoding DICOM costs, beside the decoder alone: `scripts/benchmark.py dicom`."""

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from extract.runtime import cores
from extract.scans.scan import read_scan
from features.common.text import make_console
from scripts.phantom import Job, write_dicom
from scripts.phantom_plan import plan_patient
from scripts.phantom_slice import render

_SIDE = 512


def benchmark_dicom(repeats: int) -> None:
    """Print the CPU milliseconds of both ways for one phantom slice by syntax, their ratio, and our throughput.

    Args:
        repeats: of both ways, alternating; the first, which imports the decoders, is not counted.
    """
    import pydicom
    from pydicom.pixels import get_decoder

    from extract.scans.dicom import DECODERS

    console = make_console()
    console.print(f"one phantom slice of {_SIDE} x {_SIDE}, 16 bits; CPU ms, medians of {repeats} alternating repeats")
    for encoded in _files():
        header = pydicom.dcmread(io.BytesIO(encoded))
        syntax = header.file_meta.TransferSyntaxUID

        def alone(encoded: bytes = encoded, syntax: str = syntax) -> None:
            parsed = pydicom.dcmread(io.BytesIO(encoded))
            get_decoder(syntax).as_array(parsed, index=0, decoding_plugin=DECODERS[syntax])

        def ours(encoded: bytes = encoded) -> None:
            read_scan(encoded, "a", "brain", _SIDE * _SIDE)

        ours()  # brings our decoders to pydicom
        spent: dict[Callable[[], None], list[float]] = {alone: [], ours: []}
        for _ in range(repeats + 1):
            for way, seconds in spent.items():
                start = time.process_time()
                way()
                seconds.append(1000 * (time.process_time() - start))
        ratios = [own / plain for own, plain in zip(spent[ours][1:], spent[alone][1:], strict=True)]
        start = time.monotonic()
        with ThreadPoolExecutor(cores()) as threads:
            list(threads.map(lambda _: ours(), range(repeats * cores())))
        rate = repeats * cores() / (time.monotonic() - start)
        console.print(
            f"{syntax.name}: pydicom with the same decoder {statistics.median(spent[alone][1:]):.1f}, ours with HU and "
            f"window {statistics.median(spent[ours][1:]):.1f}: {statistics.median(ratios):.2f} times; "
            f"{rate:,.0f} images/s by {cores()} threads"
        )


def _files() -> list[bytes]:
    """Write the slice uncompressed, by RLE, JPEG-LS, JPEG 2000 and lossless JPEG: the content of each file."""
    import gdcm
    import pydicom
    from openjpeg.utils import encode_array
    from pydicom import uid
    from pydicom.encaps import encapsulate

    patient = plan_patient(0, 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        write_dicom(path, Job(patient, 1, "train"), 0, render(patient, 5, _SIDE).hu)
        files = [path.read_bytes()]
        for syntax in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless):
            made = pydicom.dcmread(path)
            if syntax == uid.JPEG2000Lossless:
                made.PixelData = encapsulate([encode_array(made.pixel_array)])
                made["PixelData"].is_undefined_length = True
                made.file_meta.TransferSyntaxUID = syntax
            else:
                made.compress(syntax)
            buffer = io.BytesIO()
            made.save_as(buffer, enforce_file_format=True)
            files.append(buffer.getvalue())
        reader, writer, change = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
        reader.SetFileName(str(path))
        reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.Write()
        return [*files, path.read_bytes()]
