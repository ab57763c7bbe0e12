"""From scans to rows of features: windows, channels and frames as a backbone sees them; what is left in the cache."""

import gzip
import io
import threading
from dataclasses import replace
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
from features.dataset.dataset import Dataset, Split
from features.store.cache import FeatureCache
from features.store.images_table import FactsTable
from features.store.recipe import NO_WINDOW, Recipe, extract_options
from features.store.scan_groups import with_scan_groups
from tests.extract.scans.written import SECRETS, STUDY, dataset, file_bytes, slice_of_hu
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


def test_groups_are_patients_hashed_with_the_salt_of_the_cache_and_nobody_is_named(tmp_path, caplog):
    files = {}
    for number, patient in enumerate(("P1", "P2", "P1")):
        made = dataset(slice_of_hu(), PatientID=f"{SECRETS['PatientID']}{patient}", ImagePositionPatient=[0, 0, number])
        files[f"a{number}"] = file_bytes(made)
    files["broken"] = files["a0"][:-50]
    facts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        cache = extract_scans(tmp_path / name, files, "brain")
        table = FactsTable.of_split(cache.root, "train")
        facts.append([table[f"a{number}"] for number in range(3)])
        assert [found.position for found in facts[-1]] == [0, 1, 2]
        groups = [found.group for found in facts[-1]]
        assert groups[0] == groups[2] != groups[1]
    assert facts[0][0].group != facts[1][0].group  # another salt
    written = [path for name in ("one", "two") for path in (tmp_path / name / "cache").rglob("*") if path.is_file()]
    assert {path.name for path in written} >= {"tiny.h5", "images.csv", "rejected.csv", "group.salt"}
    for content in (*(path.read_bytes() for path in written), caplog.text.encode()):
        for secret in (*SECRETS.values(), STUDY):
            assert secret.encode() not in content

    split = Split("train", tuple(files), tuple(map(Path, files)), None, None, np.full(len(files), "train"))
    grouped, said = with_scan_groups(Dataset(tmp_path, (), {"train": split}), tmp_path / "two" / "cache")
    assert grouped.splits["train"].groups.tolist() == [*groups, ""]  # the rejected one has no features either
    assert said == "groups: the patient (or else the study or volume) of the scans, hashed (2 groups)"
    given = Dataset(tmp_path, (), {"train": replace(split, groups=np.array(["x"] * 4))})
    assert with_scan_groups(given, tmp_path / "two" / "cache") == (given, "")


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
