"""From scans to rows of features: windows, channels and frames as a backbone sees them; what is left in the cache."""

import gzip
import io
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
from rich.console import Console

from extract.extraction import ExtractionOptions, extract
from extract.images.reading import Reading
from extract.images.resizing import resize
from extract.pipeline import Images
from extract.run import choose_window
from extract.scans.levels import show
from extract.scans.windows import parse_windows
from features.common.errors import InputError
from features.store.cache import FeatureCache
from features.store.recipe import NO_WINDOW, Recipe, extract_options
from tests.extract.scans.written import dataset, file_bytes, slice_of_hu
from tests.extract.stand_ins import StandIns, backbone, features_of


def extract_scans(folder: Path, files: dict[str, bytes], window: str) -> FeatureCache:
    """Extract scans, given as the content of their files by id, with a stand-in that sees every pixel and channel."""
    paths = []
    for image_id, encoded in files.items():
        paths.append(folder / image_id.partition("#")[0])
        paths[-1].write_bytes(encoded)
    options = ExtractionOptions(folder / "cache", "float32", 2, Reading(window=window))
    console = Console(file=io.StringIO())
    extract([Images("train", list(files), paths)], [backbone()], options, StandIns(), console, threading.Event())
    return FeatureCache(folder / "cache")


@pytest.mark.parametrize("window", ["brain", "40/400", "brain,subdural,bone"])
def test_a_backbone_sees_hu_through_the_windows_as_its_channels(tmp_path, window):
    hu = slice_of_hu()
    stored = (hu + 1024).astype(np.uint16)
    encoded = file_bytes(dataset(stored, bits=12, RescaleSlope=1, RescaleIntercept=-1024))
    cache = extract_scans(tmp_path, {"a": encoded}, window)
    expected = features_of(resize(show(parse_windows(window), hu), 20), "tiny")
    _, features = cache.read("train", ["tiny"])
    np.testing.assert_array_equal(features, expected[None])
    assert cache.open("train", "tiny").recipe.window == window


def test_slices_of_a_volume_are_rows(tmp_path):
    volume = np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3)
    encoded = gzip.compress(nibabel.nifti1.Nifti1Image(volume, np.eye(4)).to_bytes())
    cache = extract_scans(tmp_path, {f"v#z{index:03d}": encoded for index in range(3)}, "brain")
    ids, features = cache.read("train", ["tiny"])
    assert list(ids) == ["v#z000", "v#z001", "v#z002"]
    for index in range(3):
        pixels = show(parse_windows("brain"), volume[::-1, ::-1, index].T)
        np.testing.assert_array_equal(features[index], features_of(resize(pixels, 20), "tiny"))


def test_scans_need_a_window_before_anything_long_starts():
    for name in ("a.dcm", "A.DCM", "v.nii.gz", "IM0001", "1.2.840.5"):
        images = [Images("train", ["p", "a"], [Path("p.png"), Path(name)])]
        with pytest.raises(InputError, match=rf"{name}: DICOM and NIfTI need an intensity window.*--window brain"):
            choose_window(None, images)
        assert choose_window(" Brain,BONE , 40/80.0", images) == "brain,bone,40/80"
    assert choose_window(None, [Images("train", ["p"], [Path("p.png")])]) == NO_WINDOW


def test_new_images_are_read_through_the_window_of_the_run():
    recipe = Recipe("resnet50", "imagenet", "0" * 32, "caffe", 224, window="40/80")
    (words,) = extract_options({"resnet50": recipe})
    assert words[-2:] == ["--window", "40/80"]
    assert "--window" not in extract_options({"resnet50": Recipe("resnet50", "imagenet", "0" * 32, "caffe", 224)})[0]
    others = [recipe, Recipe("resnet50", "imagenet", "0" * 32, "caffe", 224, window="brain")]
    assert len({other.fingerprint for other in others}) == 2
