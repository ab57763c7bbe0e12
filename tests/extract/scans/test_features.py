"""From scans to rows of features: windows, channels and frames as a backbone sees them; what is left in the cache."""

import gzip
import io
import re
import threading
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from rich.console import Console

from extract.choices import choose_window
from extract.extraction import ExtractionOptions, extract
from extract.images.reading import Reading
from extract.images.resizing import resize
from extract.pipeline import Images
from extract.scans.levels import show
from extract.scans.windows import parse_windows
from features.common.errors import InputError
from features.dataset.dataset import Dataset, Split
from features.store.cache import FeatureCache
from features.store.images_table import FactsTable, ImageFacts, SeenImage, Stamp
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


def test_images_that_name_nobody_are_groups_of_their_own_unless_most_do(tmp_path):
    facts = ImageFacts(9, 9, 1, 8, 100.0, 9.0)
    ids = ("s0", "s1", "s2", "s3", "p", "rejected")
    seen = dict.fromkeys(ids[:5], SeenImage(b"a" * 16, Stamp(1, 2, 3), facts))
    seen |= {f"s{number}": replace(seen["p"], facts=replace(facts, group="gh"[number % 2])) for number in range(4)}
    FactsTable.of_split(tmp_path, "train").add(seen, ids)
    split = Split("train", ids, tuple(map(Path, ids)), None, None, np.full(len(ids), "train"))
    grouped, said = with_scan_groups(Dataset(tmp_path, (), {"train": split}), tmp_path)
    assert grouped.splits["train"].groups.tolist() == ["g", "h", "g", "h", "train/p", ""]
    assert said.endswith("hashed (2 groups); 1 image without one, each a group of its own (first: train/p)")

    seen |= dict.fromkeys(("s1", "s2", "s3"), seen["p"])
    FactsTable.of_split(tmp_path, "train").add(seen, ids)
    same, said = with_scan_groups(Dataset(tmp_path, (), {"train": split}), tmp_path)
    assert same.splits["train"].groups is None
    assert "4 of 5 images have none. Give --groups, --group-column or --group-from" in said


def test_groups_that_cut_patients_of_the_scans_give_way_if_they_were_guessed_else_a_warning_says_so(tmp_path, caplog):
    facts = ImageFacts(9, 9, 1, 8, 100.0, 9.0)
    ids = ("study1/a", "study1/b", "study2/a", "study3/a")
    seen = {
        one: SeenImage(b"a" * 16, Stamp(1, 2, 3), replace(facts, group=own))
        for one, own in zip(ids, "ppqp", strict=True)
    }
    FactsTable.of_split(tmp_path, "train").add(seen, ids)
    groups = np.array([one.partition("/")[0] for one in ids])
    split = Split("train", ids, tuple(map(Path, ids)), None, groups, np.full(len(ids), "train"))
    guessed = Dataset(tmp_path, (), {"train": split}, groups_guessed=True)
    grouped, said = with_scan_groups(guessed, tmp_path)
    assert grouped.splits["train"].groups.tolist() == ["p", "p", "q", "p"]
    assert said.endswith("hashed (2 groups); those from the ids would cut 1 of them")
    assert not caplog.records
    given = replace(guessed, groups_guessed=False, groups_from="'study'")
    assert with_scan_groups(given, tmp_path) == (given, "")
    assert (
        "1 owner (patient, or else study or volume) in several groups ('study'), such as study1 and study3"
        in caplog.text
    )
    caplog.clear()
    anonymous = {one: replace(image, facts=replace(facts, group="p")) for one, image in seen.items()}
    FactsTable.of_split(tmp_path, "train").add(anonymous, ids)
    assert with_scan_groups(given, tmp_path) == (given, "")
    assert with_scan_groups(guessed, tmp_path) == (guessed, "")
    assert not caplog.records


def choose(option, *paths, cache=None):
    said = []
    window = choose_window(option, [Images("train", [path.name for path in paths], list(paths))], cache, said.append)
    return window, said


@pytest.mark.parametrize(
    ("name", "modality", "part", "doubt"),
    [
        ("a.dcm", "CT", "", ""),
        ("IM0001", "CT", "HEAD W/O", ""),
        ("1.2.840.5", "CT", "Brain", ""),
        ("A.DCM", "CT", "CHEST", "A.DCM is not of the head (body part CHEST)"),
        ("a.dcm", "MR", "HEAD", "a.dcm is not CT (modality MR)"),
        ("a.dcm", "", "", "0.dcm does not say that it is CT"),
        ("v.nii.gz", "", "", "v.nii.gz is NIfTI, which does not say what its values are"),
    ],
)
def test_only_ct_of_the_head_has_a_window_by_default(tmp_path, name, modality, part, doubt):
    path, damaged = tmp_path / name, tmp_path / "0.dcm"
    path.write_bytes(file_bytes(dataset(slice_of_hu(), modality, BodyPartExamined=part)))
    damaged.write_bytes(b"\0" * 128 + b"DICM")
    if doubt:
        with pytest.raises(InputError, match=re.escape(f"{doubt}, so an intensity window is needed: --window brain")):
            choose(None, Path("p.png"), damaged, path)
    else:
        window, (said,) = choose(None, Path("p.png"), damaged, path)
        assert window == "brain"
        assert said.startswith("window: brain, as the scans are CT")
    assert choose(" Brain,BONE , 40/80.0", path) == ("brain,bone,40/80", [])


def test_the_window_of_the_cache_goes_on(tmp_path):
    cache = extract_scans(tmp_path, {"a.dcm": file_bytes(dataset(slice_of_hu(), "MR"))}, "40/400").root
    assert choose(None, tmp_path / "a.dcm", cache=cache) == ("40/400", [f"window: 40/400, as in {cache}"])
    assert choose("file", tmp_path / "a.dcm", cache=cache) == ("file", [])


def test_plain_images_have_no_window():
    assert choose(None, Path("p.png")) == choose("none", Path("p.png")) == (NO_WINDOW, [])


def test_scans_are_not_predicted_by_what_learnt_from_plain_images():
    with pytest.raises(InputError, match=r"a\.dcm is a scan.*Write the scans as plain images first.*extract convert"):
        choose("none", Path("p.png"), Path("a.dcm"))


def test_new_images_are_read_through_the_window_of_the_run():
    recipe = Recipe("resnet50", "imagenet", "0" * 32, "caffe", 224, window="40/80")
    (words,) = extract_options({"resnet50": recipe})
    assert words[-2:] == ["--window", "40/80"]
    assert "--window" not in extract_options({"resnet50": Recipe("resnet50", "imagenet", "0" * 32, "caffe", 224)})[0]
    others = [recipe, Recipe("resnet50", "imagenet", "0" * 32, "caffe", 224, window="brain")]
    assert len({other.fingerprint for other in others}) == 2
