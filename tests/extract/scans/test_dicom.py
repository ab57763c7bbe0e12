"""DICOM images: every syntax, every kind of value, and what is not an image."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.sequence import Sequence

from extract.images.reading import UnreadableImage
from extract.scans.dicom import DECODERS
from extract.scans.levels import grey_levels_in
from extract.scans.scan import Scan, is_scan, read_scan
from extract.scans.windows import WINDOWS
from features.dataset.frames import frame_suffixes
from tests import ROOT
from tests.extract.scans.written import SECRETS, STUDY, dataset, file_bytes, in_syntax, slice_of_hu

LOSSLESS = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.RLELossless,
)
BRAIN = WINDOWS["brain"]


def read(encoded: bytes, window: str = "brain", image_id: str = "a") -> Scan:
    """Read one image of any size."""
    return read_scan(encoded, image_id, window, 10**9)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("signed", [True, False])
def test_a_slice_has_the_same_pixels_in_every_lossless_syntax(syntax, signed):
    hu = slice_of_hu()
    stored = hu if signed else (hu + 1024).astype(np.uint16)
    made = dataset(stored, bits=16 if signed else 12, RescaleIntercept=0 if signed else -1024, RescaleSlope=1)
    scan = read(in_syntax(made, syntax))
    np.testing.assert_array_equal(scan.pixels, grey_levels_in(BRAIN, hu))
    assert not scan.repaired


def test_the_syntaxes_of_the_test_and_of_the_table_are_all_that_the_decoders_can_read():
    lossy = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K}
    assert set(DECODERS) == set(LOSSLESS) | lossy


def test_decoding_equals_that_of_pydicom_and_hu_an_independent_computation():
    path = get_testdata_file("CT_small.dcm", download=False)
    made = pydicom.dcmread(path)
    hu = apply_modality_lut(made.pixel_array, made)
    for name, window in WINDOWS.items():
        expected = np.floor(np.clip((hu - (window.centre - window.width / 2)) / window.width, 0, 1) * 255 + 0.5)
        difference = read(Path(str(path)).read_bytes(), name).pixels - expected
        halves = (hu - window.centre) * 255 / window.width % 1 == 0  # numpy rounds these to even
        assert (difference[~halves] == 0).all()
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (0.5, -1000.25), (2, 0), (-1, 500)])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int8, np.uint8])
def test_every_stored_value_is_rescaled_to_hu(slope, intercept, dtype):
    info = np.iinfo(dtype)
    stored = np.arange(info.min, info.max + 1).astype(dtype).reshape(-1, 16)
    scan = read(file_bytes(dataset(stored, RescaleSlope=slope, RescaleIntercept=intercept)), "bone")
    np.testing.assert_array_equal(
        scan.pixels, grey_levels_in(WINDOWS["bone"], stored.astype(float) * slope + intercept)
    )


def test_values_that_wrapped_around_come_back_exactly_over_the_whole_range():
    """The RSNA fault: HU from -1024 to 3071 in 12 unsigned bits without an offset, so that air became 3072 and more."""
    hu = np.arange(-1024, 3072).reshape(64, 64)
    wrapped = (hu % 4096).astype(np.uint16)
    scan = read(file_bytes(dataset(wrapped, bits=12, RescaleIntercept=-1, RescaleSlope=1)), "bone")
    np.testing.assert_array_equal(scan.pixels, grey_levels_in(WINDOWS["bone"], hu - 1))
    assert scan.repaired


@pytest.mark.parametrize("change", [{"bits": 16}, {"RescaleIntercept": -1024}, {"modality": "MR"}])
def test_values_that_did_not_wrap_around_stay(change):
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    elements = {"modality": "CT", "bits": 12, "RescaleIntercept": 0, "RescaleSlope": 1, **change}
    scan = read(file_bytes(dataset(stored, **elements)), "600/2800")
    expected = grey_levels_in(WINDOWS["bone"], stored.astype(float) + elements["RescaleIntercept"])
    np.testing.assert_array_equal(scan.pixels, expected)
    assert not scan.repaired


def test_padding_outside_of_the_scan_is_black_and_changes_nothing_else():
    hu = slice_of_hu()
    padded = hu.copy()
    padded[-3:] = -2000  # without PixelPaddingValue
    pixels = read(file_bytes(dataset(padded, RescaleIntercept=0, RescaleSlope=1))).pixels
    np.testing.assert_array_equal(pixels[:-3], grey_levels_in(BRAIN, hu)[:-3])
    assert (pixels[-3:] == 0).all()


def test_readers_that_start_together_prepare_the_decoders_once():
    program = (
        "import sys, threading; from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "from extract.scans.scan import read_scan\n"
        "sys.setswitchinterval(1e-6); encoded = sys.stdin.buffer.read(); together = threading.Barrier(8)\n"
        "def read(number): together.wait(); return read_scan(encoded, 'a', 'brain', 10**9).pixels.shape\n"
        "print(set(Pool(8).map(read, range(8))))"
    )
    encoded = file_bytes(dataset(slice_of_hu()))
    done = subprocess.run([sys.executable, "-c", program], input=encoded, capture_output=True, cwd=ROOT, check=False)
    assert (done.stdout, done.stderr) == (b"{(64, 64)}\n", b"")


def test_monochrome1_is_inverted():
    made = dataset(slice_of_hu())
    upright = read(file_bytes(made)).pixels
    made.PhotometricInterpretation = "MONOCHROME1"
    np.testing.assert_array_equal(read(file_bytes(made)).pixels, 255 - upright)


def test_colour_and_8_bit_grey_of_ultrasound_are_taken_as_they_are():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read(file_bytes(dataset(colours, "US"))).pixels, colours)
    np.testing.assert_array_equal(read(file_bytes(dataset(colours[..., 0], "US"))).pixels, colours[..., 0])


def test_windows_in_hu_are_refused_where_values_are_not_hu():
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    made = dataset(stored, "DX", 12)
    with pytest.raises(UnreadableImage, match=r"not HU \(modality DX\).*--window file, or CENTRE/WIDTH"):
        read(file_bytes(made))
    pixels = read(file_bytes(made), "2048/4096").pixels
    np.testing.assert_array_equal(pixels, np.rint(stored / 4096 * 255).astype(np.uint8))
    with pytest.raises(UnreadableImage, match="no window of its own"):
        read(file_bytes(made), "file")


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_file_s_own_window_is_that_of_pydicom(function, photometric):
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    made = dataset(stored, "CR", 12, WindowCenter=[1800, 40], WindowWidth=[2500, 80])
    made.PhotometricInterpretation = photometric
    if function:
        made.VOILUTFunction = function
    expected = apply_windowing(stored, made) / 4095 * 255
    pixels = read(file_bytes(made), "file").pixels
    if photometric == "MONOCHROME1":
        expected = 255 - expected
    assert np.abs(pixels - expected).max() <= 0.5 + 1e-6


def test_a_file_s_own_lookup_table_is_used_where_it_has_no_window():
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16)
    made = dataset(stored, "DX", 12)
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [256, 0, 12], [(value * 16) ^ 0xFF0 for value in range(256)]
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
    made.VOILUTSequence = Sequence([item])
    expected = np.rint(((stored.astype(int) * 16) ^ 0xFF0) / 4095 * 255)
    np.testing.assert_array_equal(read(file_bytes(made), "file").pixels, expected)


def test_frames_are_those_that_the_id_names_with_their_own_rescaling():
    frames = np.stack([np.full((4, 4), value, np.int16) for value in (10, 20, 30)])
    made = dataset(frames[0], NumberOfFrames=3, PixelData=frames.tobytes())
    made["PixelData"].VR = "OW"
    made.PerFrameFunctionalGroupsSequence = Sequence()
    for number in range(3):
        group, rescaling, plane = Dataset(), Dataset(), Dataset()
        rescaling.RescaleSlope, rescaling.RescaleIntercept, rescaling.RescaleType = 1, number, "HU"
        plane.ImagePositionPatient = [0, 0, 5 * number]
        group.PixelValueTransformationSequence, group.PlanePositionSequence = Sequence([rescaling]), Sequence([plane])
        made.PerFrameFunctionalGroupsSequence.append(group)
    for number, hu in enumerate((10, 21, 32)):
        scan = read(file_bytes(made), "brain", f"sub/a#{number + 1:04d}")
        assert (scan.pixels == grey_levels_in(BRAIN, np.array(hu))).all()
        assert scan.position == 5 * number
    with pytest.raises(UnreadableImage, match="holds 3 frames, and its id names none"):
        read(file_bytes(made))
    with pytest.raises(UnreadableImage, match="holds 3 frames, and its id names frame 4"):
        read(file_bytes(made), image_id="a#0004")


def test_owner_is_the_patient_or_else_the_study_and_position_the_height():
    made = dataset(slice_of_hu(), ImagePositionPatient=[1, 2, -33.5])
    scan = read(file_bytes(made))
    assert (scan.owner, scan.position) == (SECRETS["PatientID"], -33.5)
    made.PatientID = ""
    assert read(file_bytes(made)).owner == STUDY
    del made.PatientID, made.StudyInstanceUID
    assert read(file_bytes(made)).owner == ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"Modality": "RTDOSE"}, "it is a radiotherapy dose, not an image"),
        ({"Modality": "SEG"}, "it is a segmentation, not an image"),
        ({"BitsAllocated": 1}, "it is a mask of 1 bit a pixel, not an image"),
        ({"BitsAllocated": 32}, "32 bits; 8 and 16 are read"),
        ({"BitsStored": 0}, "0 of 16 bits"),
        ({"Rows": 65}, "its pixels are cut off: 8,192 of 8,320 bytes are there"),
        ({"FloatPixelData": b"1234"}, "floating-point"),
    ],
)
def test_what_is_not_read_is_rejected_in_words(change, says):
    made = dataset(slice_of_hu())
    for keyword, value in change.items():
        setattr(made, keyword, value)
    with pytest.raises(UnreadableImage, match=says):
        read(file_bytes(made))


def test_damage_of_what_a_file_says_it_is_is_refused():
    encoded = file_bytes(dataset(slice_of_hu()))
    kind = b"\2\0\2\0UI"  # (0002,0002), and the type of its value
    assert encoded.count(kind) == 1
    with pytest.raises(UnreadableImage, match="the DICOM header is damaged or cut off"):
        read(encoded.replace(kind, kind[:4] + b"UH"))


def nesting(name: str) -> bytes:
    """The content of a file without a window of its own, whose sequence `name` says how its values are shown."""
    made, table, rescaling, frame = dataset(slice_of_hu(), "DX"), Dataset(), Dataset(), Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 16], list(range(256))
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    rescaling.RescaleSlope, rescaling.RescaleIntercept = 1, 0
    frame.PixelValueTransformationSequence = Sequence([rescaling])
    setattr(made, name, Sequence([frame if name == "SharedFunctionalGroupsSequence" else table]))
    return file_bytes(made)


@pytest.mark.parametrize(
    ("encoded", "element", "kind"),
    [
        (nesting("SharedFunctionalGroupsSequence"), b"\x28\0\x53\x10DS", b"XX"),  # (0028,1053), the slope
        (nesting("VOILUTSequence"), b"\x28\0\x02\x30US", b"XX"),  # (0028,3002), what the table is like
        (nesting("VOILUTSequence"), b"\x28\0\x06\x30US", b"XX"),  # (0028,3006), the table
        (nesting("ModalityLUTSequence"), b"\x28\0\x06\x30US", b"XX"),
        (file_bytes(dataset(slice_of_hu())), b"\x28\0\x02\0US", b"LO"),  # (0028,0002), colours a pixel: text
    ],
)
def test_damage_of_elements_is_refused_also_within_sequences(encoded, element, kind):
    assert encoded.count(element) == 1
    with pytest.raises(UnreadableImage, match="the DICOM header is damaged or cut off"):
        read(encoded.replace(element, element[:4] + kind), "file")


def test_compressions_that_are_not_decoded_are_named():
    made = dataset(slice_of_hu())
    made.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    made["PixelData"].is_undefined_length = True
    made.BitsStored = 12
    for syntax, says in ((uid.JPEGExtended12Bit, "JPEG Extended .* 12 bits"), (uid.MPEG2MPML, "MPEG2 Main Profile")):
        made.file_meta.TransferSyntaxUID = syntax
        with pytest.raises(UnreadableImage, match=f"its compression is not supported: {says}.*Export it uncompressed"):
            read(file_bytes(made))


def test_an_image_above_the_limit_is_refused_before_it_is_decoded():
    with pytest.raises(UnreadableImage, match="64 x 64 pixels, more than --max-pixels 1000"):
        read_scan(file_bytes(dataset(slice_of_hu())), "a", "brain", 1000)
    with pytest.raises(UnreadableImage, match=r"no window is given\. Give --window brain, subdural, bone"):
        read(file_bytes(dataset(slice_of_hu())), "none")


def test_what_a_file_says_of_its_frames_is_parsed_once(monkeypatch):
    frames = np.stack([np.full((4, 4), value, np.int16) for value in (10, 20, 30)])
    encoded = file_bytes(dataset(frames[0], NumberOfFrames=3, PixelData=frames.tobytes()))
    parsed, parse = [], pydicom.dcmread
    monkeypatch.setattr(pydicom, "dcmread", lambda *given, **named: parsed.append(1) or parse(*given, **named))
    for content, count in ((encoded, 1), (encoded[:-2] + b"\x28\0", 2)):
        values = [read(content, "20/40", f"a#000{number}").pixels[-1, -1] for number in (1, 2, 3)]
        assert values == [64, 128, 191 if content is encoded else 255]
        assert len(parsed) == count


BUNDLED = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent


def test_every_file_that_comes_with_pydicom_is_an_image_or_a_rejection_that_names_no_person(capfd):
    read_files, rejected = [], {}
    for path in sorted(path for path in BUNDLED.rglob("*") if path.is_file() and "TINY_ALPHA" not in path.parts):
        encoded = path.read_bytes()
        if not is_scan(encoded) or path.suffix == ".gz":
            continue
        for window in ("brain", "file"):
            try:
                scan = read(encoded, window, path.name + frame_suffixes(path)[0])
                assert scan.pixels.dtype == np.uint8
                read_files.append(path.name)
            except UnreadableImage as error:
                rejected.setdefault(path.name, []).append(str(error))
    assert len(set(read_files)) > 60
    reasons = {reason for name, found in rejected.items() if name not in read_files for reason in found}
    kinds = ("not an image", "holds no image", "compression is not supported", "cut off", "32 of 32 bits", "not HU",
             "no window of its own", "DICOMDIR")  # fmt: skip
    assert [reason for reason in reasons if not any(kind in reason for kind in kinds)] == []
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


ENCODED = {syntax: in_syntax(dataset(slice_of_hu()), syntax) for syntax in LOSSLESS}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(LOSSLESS), st.integers(0, 2**32 - 1), st.booleans())
def test_damage_is_an_image_or_a_rejection_and_nothing_else(syntax, seed, cut):
    rng = np.random.default_rng(seed)
    damaged = bytearray(ENCODED[syntax])
    if cut:
        del damaged[int(rng.integers(132, len(damaged))) :]
    else:
        for place in rng.integers(132, len(damaged), 4):
            damaged[place] = rng.integers(256)
    try:
        said = str(read(bytes(damaged)).pixels.dtype)
    except UnreadableImage as error:
        said = str(error)
    assert not any(secret in said for secret in (*SECRETS.values(), STUDY))


def test_a_file_without_its_end_is_called_cut_off():
    for encoded in ENCODED.values():
        with pytest.raises(UnreadableImage, match="cut off"):
            read(encoded[: len(encoded) * 3 // 4])


@pytest.mark.parametrize(
    ("syntax", "decoder"),
    [
        (uid.ExplicitVRLittleEndian, "pydicom.dcmread"),
        (uid.JPEGLosslessSV1, "pydicom.pixels.decoders.gdcm._decode_frame"),
        (uid.JPEGLSLossless, "pydicom.pixels.decoders.pyjpegls._decode_frame"),
        (uid.JPEG2000Lossless, "openjpeg.decode_pixel_data"),
        (uid.RLELossless, "rle.rle.decode_segment"),
    ],
)
def test_a_lack_of_memory_is_not_called_damage(syntax, decoder, monkeypatch):
    encoded = in_syntax(dataset(slice_of_hu()), syntax)
    read_scan(encoded, "a", "brain", 1 << 20)

    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(decoder, fail)
    with pytest.raises(MemoryError):
        read_scan(encoded, "a", "brain", 1 << 20)
