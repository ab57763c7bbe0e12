"""Which images a file holds: frames of DICOM files and slices of NIfTI volumes, from headers alone."""

import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from features.dataset.faults import Faults
from features.dataset.folder import collect_images
from features.dataset.frames import frame_suffixes, is_dicom_file


def bundled(name: str) -> Path:
    """The path of a file that comes with pydicom."""
    path = get_testdata_file(name, download=False)
    assert path is not None
    return Path(str(path))


def write_dicom(path: Path, frames: int | None, syntax: str, header: int = 0) -> Path:
    """Write a small DICOM image; `header` bytes of private data lie before the number of frames."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    if header:
        dataset.private_block(0x0019, "TEST", create=True).add_new(1, "OB", bytes(header))
    dataset.Rows = dataset.Columns = 2
    if frames is not None:
        dataset.NumberOfFrames = frames
    dataset.add_new(0x7FE00010, "OW", bytes(8 * (frames or 1)))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("CT_small.dcm", 0),
        ("JPEG2000.dcm", 0),  # says that it holds one frame
        ("rtdose.dcm", 15),
        ("rtdose_expb.dcm", 15),
        ("SC_rgb_rle_2frame.dcm", 2),
        ("examples_ybr_color.dcm", 30),  # behind 34 kB of header
        ("badVR.dcm", 0),  # "1A" frames
        ("rtplan.dcm", 0),
        ("no_meta.dcm", 0),
    ],
)
def test_frames_of_the_files_that_come_with_pydicom(name, frames):
    expected = tuple(f"#{number:04d}" for number in range(1, frames + 1)) or ("",)
    assert frame_suffixes(bundled(name)) == expected


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
@pytest.mark.parametrize("header", [0, 100_000])
@pytest.mark.parametrize(("frames", "suffixes"), [(None, ("",)), (1, ("",)), (2, ("#0001", "#0002"))])
def test_frames_are_found_in_every_form_of_header(tmp_path, syntax, header, frames, suffixes):
    path = write_dicom(tmp_path / "a.dcm", frames, syntax, header)
    assert is_dicom_file(path)
    assert frame_suffixes(path) == suffixes


def test_frames_are_written_with_as_many_digits_as_the_last_one_needs(tmp_path):
    suffixes = frame_suffixes(write_dicom(tmp_path / "a.dcm", 10_001, ExplicitVRLittleEndian))
    assert (suffixes[0], suffixes[-1], len(suffixes)) == ("#00001", "#10001", 10_001)
    assert sorted(suffixes) == list(suffixes)


def test_a_damaged_number_of_frames_makes_no_list_of_that_length(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", 2, ExplicitVRLittleEndian)
    damaged = pydicom.dcmread(path)
    damaged.NumberOfFrames = 2_000_000_000
    damaged.save_as(path)
    assert frame_suffixes(path) == ("",)


def test_a_file_of_one_frame_is_not_parsed(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", None, ExplicitVRLittleEndian)
    monkeypatch.setitem(sys.modules, "pydicom", None)  # importing it would fail
    assert frame_suffixes(path) == ("",)


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(128) + b"DICM", bytes(500)])
def test_what_is_not_dicom_is_one_image(tmp_path, content):
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    assert frame_suffixes(path) == ("",)
    assert is_dicom_file(path) == (content[128:132] == b"DICM")


def test_a_file_that_is_not_there_is_one_image(tmp_path):
    assert frame_suffixes(tmp_path / "a.dcm") == ("",)
    assert frame_suffixes(tmp_path / "a.nii.gz") == ("",)


def nifti(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> Path:
    """Write a volume of zeros."""
    nibabel.nifti1.save(nibabel.nifti1.Nifti1Image(np.zeros(shape, np.int16), affine), path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
def test_slices_of_a_volume_lie_along_the_body_whatever_its_axes(tmp_path, name):
    axial, sagittal = np.eye(4), np.eye(4)[[1, 2, 0, 3]]  # the first axis of the second runs from feet to head
    assert frame_suffixes(nifti(tmp_path / name, (5, 6, 3), axial)) == ("#z000", "#z001", "#z002")
    assert len(frame_suffixes(nifti(tmp_path / name, (5, 6, 3), sagittal))) == 5
    assert len(frame_suffixes(nifti(tmp_path / name, (5, 6, 3, 1), axial))) == 3
    assert frame_suffixes(nifti(tmp_path / name, (5, 6, 3, 2), axial)) == ("",)
    nibabel.nifti2.save(nibabel.nifti2.Nifti2Image(np.zeros((5, 6, 3), np.int16), axial), tmp_path / name)
    assert frame_suffixes(tmp_path / name) == ("#z000", "#z001", "#z002")


def test_a_damaged_volume_is_one_image_and_makes_no_noise(tmp_path, capfd):
    whole = nifti(tmp_path / "a.nii.gz", (5, 6, 3), np.eye(4)).read_bytes()
    plain = bytearray(nifti(tmp_path / "a.nii", (5, 6, 3), np.eye(4)).read_bytes())
    plain[70:72] = b"\x53\x00"  # a data type that there is not
    for content in (b"", whole[:40], whole[:20] + b"\xff" * 40, bytes(plain), bytes(348)):
        for name in ("a.nii", "a.nii.gz"):
            (tmp_path / name).write_bytes(content)
            assert frame_suffixes(tmp_path / name) == ("",)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_a_file_without_an_ending_that_does_not_begin_as_its_neighbours_is_warned_of(tmp_path):
    """It is damaged, or no scan: it must not vanish without a word."""
    for name in ("scans/IM1", "scans/IM2", "scans/1.2.3", "notes/README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_dicom(tmp_path / name, None, ExplicitVRLittleEndian)
    faults = Faults()
    assert len(collect_images(tmp_path, faults)) == 4
    assert faults.warnings == []
    for name in ("scans/IM2", "scans/1.2.3", "notes/README"):
        (tmp_path / name).write_bytes(b"")
    faults = Faults()
    assert set(collect_images(tmp_path, faults)) == {"scans/IM1"}
    assert faults.warnings == [
        f"{tmp_path}: 2 files without an ending do not begin as DICOM, as others beside them do, and are not read "
        f"(first: {tmp_path}/scans/1.2.3)."
    ]
