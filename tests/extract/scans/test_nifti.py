"""Slices of NIfTI volumes: which way they lie, their values, and the cache of volumes."""

import gzip
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations, product

import nibabel
import numpy as np
import pytest

from extract.images.reading import UnreadableImage
from extract.scans import nifti
from extract.scans.levels import grey_levels_in
from extract.scans.scan import Scan, is_scan, read_scan
from extract.scans.windows import WINDOWS

BRAIN = WINDOWS["brain"]


def volume() -> np.ndarray:
    """HU by place, int16 (4, 5, 3): axes to the right, to the front and to the head."""
    x, y, z = np.mgrid[:4, :5, :3]
    return (x + 5 * y + 20 * z).astype(np.int16)


def encode(stored: np.ndarray, affine: np.ndarray, version: int = 1, **header: float) -> bytes:
    """The content of a .nii file."""
    module = nibabel.nifti1.Nifti1Image if version == 1 else nibabel.nifti2.Nifti2Image
    image = module(stored, affine)
    for name, value in header.items():
        image.header[name] = value
    return image.to_bytes()


def read(encoded: bytes, index: int, window: str = "brain") -> Scan:
    """Read one slice of any size."""
    return read_scan(encoded, f"sub/a#z{index:03d}", window, 10**9)


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product((1, -1), repeat=3)))
def test_every_orientation_gives_the_same_radiological_view(axes, flips):
    """The right is on the left, the front at the top, slices go from the feet to the head."""
    stored = volume()[:: flips[0], :: flips[1], :: flips[2]].transpose(axes)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, of_world in enumerate(axes):
        affine[of_world, axis] = 2 * flips[of_world]
    encoded = encode(stored, affine)
    for index in range(3):
        expected = np.array([[x + 5 * y + 20 * index for x in (3, 2, 1, 0)] for y in (4, 3, 2, 1, 0)])
        scan = read(encoded, index)
        np.testing.assert_array_equal(scan.pixels, grey_levels_in(BRAIN, expected))
        assert scan.position == index


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("compressed", [True, False])
def test_versions_and_compression_are_recognised(version, compressed):
    encoded = encode(volume(), np.eye(4), version)
    encoded = gzip.compress(encoded) if compressed else encoded
    assert is_scan(encoded)
    expected = grey_levels_in(BRAIN, volume()[::-1, ::-1, 1].T)
    np.testing.assert_array_equal(read(encoded, 1).pixels, expected)


def test_values_are_rescaled_and_what_is_not_a_number_is_black():
    stored = volume().astype(np.float32)
    stored[0, 0, 0] = np.nan
    encoded = bytearray(encode(stored, np.eye(4)))
    header = nibabel.nifti1.Nifti1Header(bytes(encoded[:348]))
    header["scl_slope"], header["scl_inter"] = 2, -10
    encoded[:348] = header.binaryblock
    expected = grey_levels_in(BRAIN, stored[::-1, ::-1, 0].T.astype(float) * 2 - 10)
    assert expected[-1, -1] == 0
    np.testing.assert_array_equal(read(bytes(encoded), 0).pixels, expected)


def test_the_range_of_the_header_is_the_own_window():
    encoded = encode(volume(), np.eye(4), cal_min=10, cal_max=50)
    expected = np.rint(np.clip((volume()[::-1, ::-1, 2].T - 10.0) / 40, 0, 1) * 255)
    np.testing.assert_array_equal(read(encoded, 2, "file").pixels, expected)
    with pytest.raises(UnreadableImage, match=r"no range to show.*--window CENTRE/WIDTH"):
        read(encode(volume(), np.eye(4)), 2, "file")


def test_a_volume_is_decoded_once_though_many_threads_ask_for_its_slices(monkeypatch):
    decoded = []
    decode = nifti._decode
    monkeypatch.setattr(nifti, "_decode", lambda encoded: decoded.append(1) or decode(encoded))
    encoded = gzip.compress(encode(np.ones((30, 30, 40), np.int16), np.eye(4)))
    with ThreadPoolExecutor(8) as threads:
        scans = list(threads.map(lambda index: read(encoded, index), range(40)))
    assert len(decoded) == 1
    assert len({scan.owner for scan in scans}) == 1
    assert read(encode(volume(), np.eye(4)), 0).owner != scans[0].owner


def test_what_is_not_one_volume_is_rejected_in_words():
    whole = encode(volume(), np.eye(4))
    for encoded, says in (
        (encode(np.zeros((4, 5, 3, 2), np.int16), np.eye(4)), "not one volume: its shape is 4 x 5 x 3 x 2"),
        (encode(np.zeros((4, 5, 3), np.complex64), np.eye(4)), "not plain numbers"),
        (whole[:400], "damaged or cut off"),
        (gzip.compress(whole)[:60], "damaged or cut off"),
        (gzip.compress(b"a report"), "damaged or cut off"),
    ):
        with pytest.raises(UnreadableImage, match=says):
            read(encoded, 0)
    with pytest.raises(UnreadableImage, match="the volume has 3 slices, and the id names 3"):
        read(whole, 3)
    with pytest.raises(UnreadableImage, match="5 x 4 pixels, more than --max-pixels 19"):
        read_scan(whole, "a#z000", "brain", 19)


def test_damage_anywhere_in_the_header_is_a_volume_or_a_rejection(capfd):
    whole = encode(volume(), np.eye(4))
    rng = np.random.default_rng(5)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, 344, 3):
            damaged[place] = rng.integers(256)
        try:
            assert read(bytes(damaged), 0).pixels.dtype == np.uint8
        except UnreadableImage as error:
            assert str(error)  # noqa: PT017 - either way is right
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_a_volume_takes_no_more_memory_than_its_header_names():
    whole = encode(volume(), np.eye(4))
    extended = bytearray(whole[:348]) + b"\1\0\0\0" + (1 << 16).to_bytes(4, "little") + bytes((1 << 16) - 4)
    extended[108:112] = np.float32(len(extended)).tobytes()  # vox_offset
    for encoded in (whole + bytes(1 << 20), bytes(extended) + whole[352:]):
        np.testing.assert_array_equal(read(gzip.compress(encoded), 1).pixels, read(whole, 1).pixels)
    bomb = gzip.compress(whole + bytes(200_000_000), 1)
    tracemalloc.start()
    with pytest.raises(UnreadableImage, match="far more than the voxels that its header names"):
        read(bomb, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60_000_000
    many = bytearray(whole)
    many[42:48] = np.array([30_000] * 3, "<i2").tobytes()  # dim
    for encoded in (bytes(many), gzip.compress(many)):
        with pytest.raises(UnreadableImage, match="names more voxels than it holds"):
            read(encoded, 0)


def test_a_lack_of_memory_is_not_called_damage(monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(nibabel.nifti1.Nifti1Image, "from_bytes", fail)
    with pytest.raises(MemoryError):
        read(encode(volume(), 3 * np.eye(4)), 0)
