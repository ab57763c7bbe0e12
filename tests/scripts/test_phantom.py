"""The synthetic head-CT slices: seeded, labelled as drawn, and with the challenge's prevalences."""

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from typer.testing import CliRunner

from extract.images.decoding import decode
from extract.images.reading import Reading
from scripts.phantom import BOX, FIRST_PATIENT, LIMITS, app, image_id, plan_split, write_phantom
from scripts.phantom_anatomy import inner_skull
from scripts.phantom_plan import DISTRACTORS, LABELS, SLICE_LIMIT, Lesion, Patient, plan_patient
from scripts.phantom_slice import TISSUES, Slice, brain_window, render, render_slice

SIZE = 192
# 341, 3192, 2958 and two or more 1372 of the challenge's 8542 images.
PREVALENCES = (0.040, 0.374, 0.346)
TWO_OR_MORE = 0.161


@cache
def planned_labels(seed: int, split: str, images: int) -> np.ndarray:
    jobs = plan_split(seed, split, images)
    return np.array([job.patient.labels(index) for job in jobs for index in range(job.count)])


def patient_with(level: float, lesions: tuple[Lesion, ...] = (), **head: Any) -> Patient:
    """A patient of one noise-free slice."""
    plan = plan_patient(5, 2)
    still: dict[str, Any] = {"noise": 0.0, "motion_mm": 0.0, "cupping": 0.0, "bruise": 0, "calcified": 0.0}
    quiet = dataclasses.replace(plan.head, **(still | head))
    return dataclasses.replace(plan, head=quiet, lesions=lesions, levels=(level,))


def lesion(kind: str, level: float, place: float = 0.6, size: float = 0.6) -> Lesion:
    return Lesion(kind, middle=level, half_height=0.1, side=1, hu=66.0, size=size, place=place, shape=11)


def tissue_hu(rendered: Slice, tissue: str) -> np.ndarray:
    return rendered.hu[rendered.tissue == TISSUES.index(tissue)]


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)) > 0


@pytest.mark.parametrize(("patient", "index"), [(0, 0), (3, 2), (30_001, 3)])
def test_a_slice_follows_from_its_numbers_alone(patient: int, index: int):
    first, again = render_slice(7, patient, index, 128), render_slice(7, patient, index, 128)
    np.testing.assert_array_equal(first.hu, again.hu)
    assert first.boxes == again.boxes
    assert not np.array_equal(first.hu, render_slice(8, patient, index, 128).hu)
    assert not np.array_equal(first.hu, render_slice(7, patient, index - 1 if index else 1, 128).hu)


def test_images_are_the_same_bytes_whatever_the_count_and_the_processes(tmp_path: Path):
    write_phantom(tmp_path / "few", {"train": 7, "test": 3}, 96, 4, jobs=1)
    write_phantom(tmp_path / "more", {"train": 15, "test": 5}, 96, 4, jobs=2)
    few = sorted(path.relative_to(tmp_path / "few") for path in (tmp_path / "few").rglob("*.png"))
    assert len(few) == 10
    for name in few:
        assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "more" / name).read_bytes(), name
    shorter, longer = (pd.read_csv(tmp_path / name / "train.csv", index_col=0) for name in ("few", "more"))
    pd.testing.assert_frame_equal(shorter, longer.iloc[:7])


@pytest.mark.parametrize("level", [0.12, 0.3, 0.45, 0.6, 0.8])
def test_tissues_have_their_ct_numbers(level: float):
    rendered = render(patient_with(level), 0, SIZE)
    assert 25 < np.median(tissue_hu(rendered, "brain")) < 42
    assert 20 < np.clip(tissue_hu(rendered, "brain"), -20, 100).mean() < 45
    assert np.percentile(rendered.hu, 99) > 500  # bone
    assert rendered.hu.min() == -1000
    assert rendered.hu[0, 0] == -1000


def test_the_skull_is_bone_all_around():
    patient = patient_with(0.5, turn=0.0)
    rendered = render(patient, 0, SIZE)
    inside = rendered.tissue > 0
    ring = grown(inside, 2) & ~grown(inside, 1)
    assert rendered.hu[ring].min() > 500


def test_ventricles_hold_fluid():
    rendered = render(patient_with(0.5, ventricles=1.6), 0, SIZE)
    ventricle = tissue_hu(rendered, "ventricle")
    assert len(ventricle) > 100
    assert 0 < np.median(ventricle) < 15


def test_noise_has_the_planned_strength():
    quiet = patient_with(0.5)
    noisy = dataclasses.replace(quiet, head=dataclasses.replace(quiet.head, noise=4.0))
    difference = render(noisy, 0, 512).hu - render(quiet, 0, 512).hu
    assert difference[200:300, 200:300].std() == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("kind", [*LABELS, *DISTRACTORS])
def test_blood_is_dense_and_brighter_than_before(kind: str):
    rendered = render(patient_with(0.5, (lesion(kind, 0.5),)), 0, SIZE)
    healthy = render(patient_with(0.5), 0, SIZE)
    (mask,) = rendered.masks
    assert mask.sum() > 40
    core = rendered.hu[mask]
    assert 50 < np.median(core) < 90
    assert np.median(core) > np.median(healthy.hu[mask]) + 12
    if kind in ("intraparenchymal", "intraventricular"):  # the others touch bone
        assert np.percentile(core, 2) > 41  # half blood, half brain at the edge
        assert np.percentile(core, 98) < 90
    assert rendered.labels == tuple(int(kind == label) for label in LABELS)


def test_epidural_blood_is_a_lens_on_the_inner_skull():
    rendered = render(patient_with(0.5, (lesion("epidural", 0.5),), turn=0.0), 0, SIZE)
    (mask,) = rendered.masks
    rim = (rendered.tissue > 0) & ~(cv2.erode((rendered.tissue > 0).astype(np.uint8), np.ones((5, 5))) > 0)
    assert (mask & rim).sum() > 20
    x0, *_ = rendered.boxes[0]
    assert x0 > SIZE / 2  # on its side of the midline
    hull = cv2.convexHull(np.argwhere(mask).astype(np.int32))
    assert mask.sum() > 0.9 * cv2.contourArea(hull)  # convex on both faces


def test_subdural_blood_is_a_crescent():
    rendered = render(patient_with(0.5, (lesion("subdural", 0.5),), turn=0.0), 0, SIZE)
    (mask,) = rendered.masks
    hull = cv2.convexHull(np.argwhere(mask).astype(np.int32))
    assert mask.sum() < 0.7 * cv2.contourArea(hull)


@pytest.mark.parametrize(("level", "place"), [(0.25, 0.2), (0.45, 0.2), (0.5, 0.7), (0.8, 0.6)])
def test_subarachnoid_blood_lies_in_sulci_and_cisterns(level: float, place: float):
    # Wide sulci, so that the tissue map shows them.
    rendered = render(patient_with(level, (lesion("subarachnoid", level, place),), atrophy=1.0), 0, 384)
    (mask,) = rendered.masks
    cistern = rendered.tissue == TISSUES.index("cistern")
    assert (mask & grown(cistern, 3)).sum() > 0.85 * mask.sum()
    deep = cv2.distanceTransform((rendered.tissue == 1).astype(np.uint8), cv2.DIST_L2, 3)
    assert deep[mask].max() < 12


def test_intraparenchymal_blood_lies_inside_the_brain_and_pushes_the_ventricles():
    bleed = lesion("intraparenchymal", 0.45, place=0.2, size=0.9)
    bled, healthy = (render(patient_with(0.45, lesions, ventricles=1.5), 0, SIZE) for lesions in ((bleed,), ()))
    (mask,) = bled.masks
    assert (mask & (healthy.tissue > 0)).sum() == mask.sum()
    ventricles = [
        np.argwhere(rendered.tissue == TISSUES.index("ventricle"))[:, 1].mean() for rendered in (bled, healthy)
    ]
    assert ventricles[0] < ventricles[1] - 0.5  # away from a bleed on the right


def test_boxes_hold_the_lesions_pixels_exactly():
    found = 0
    for number in range(12):
        for index in range(3):
            rendered = render_slice(1, number, index, 128)
            for mask, (x0, y0, x1, y1) in zip(rendered.masks, rendered.boxes, strict=True):
                rows, columns = np.nonzero(mask)
                if len(rows):
                    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x0, y0, x1, y1)
                    found += 1
    assert found > 15


def test_every_label_has_blood_to_show():
    for number in range(25):
        patient = plan_patient(2, number)
        for index in (0, len(patient.levels) // 2):
            rendered = render(patient, index, 128)
            for label, positive in zip(LABELS, rendered.labels, strict=True):
                pixels = sum(
                    mask.sum()
                    for item, mask in zip(rendered.lesions, rendered.masks, strict=True)
                    if item.kind == label
                )
                assert (pixels >= 8) == bool(positive), (number, index, label, pixels)


def test_bleeds_reach_over_neighbouring_slices():
    runs = []
    for number in range(100):
        patient = plan_patient(0, number)
        for bleed in patient.lesions:
            seen = [index for index, level in enumerate(patient.levels) if bleed.section(level) > 0]
            assert seen == list(range(min(seen, default=0), min(seen, default=0) + len(seen)))
            runs.append(len(seen))
    assert 2 < np.mean(runs) < 5


@pytest.mark.parametrize("seed", [0, 1, 17])
@pytest.mark.parametrize("split", ["train", "test"])
def test_prevalences_are_near_the_challenges(seed: int, split: str):
    labels = planned_labels(seed, split, 2000)
    assert labels.shape == (2000, 3)
    np.testing.assert_allclose(labels.mean(axis=0), PREVALENCES, atol=0.03)
    assert labels[:, 0].mean() == pytest.approx(PREVALENCES[0], abs=0.012)
    assert (labels.sum(axis=1) >= 2).mean() == pytest.approx(TWO_OR_MORE, abs=0.025)


def test_even_the_default_test_split_has_every_label():
    assert (planned_labels(0, "test", 200).sum(axis=0) >= 4).all()


def test_patients_have_several_slices_and_are_disjoint_between_the_splits():
    numbers = {split: {job.patient.number for job in plan_split(0, split, 2000)} for split in ("train", "test")}
    assert numbers["train"].isdisjoint(numbers["test"])
    counts = [len(plan_patient(0, number).levels) for number in range(200)]
    assert 4 <= min(counts) < max(counts) < SLICE_LIMIT
    assert FIRST_PATIENT["test"] - FIRST_PATIENT["train"] > LIMITS["train"][1] / min(counts)  # whatever is asked for


def test_image_ids_are_unique_with_gaps():
    ids = [image_id(job.patient.number, index) for job in plan_split(0, "train", 500) for index in range(job.count)]
    assert len(set(ids)) == 500
    assert ids == sorted(ids)
    assert int(ids[-1].removeprefix("phantom_")) > 600
    assert ids[0] == "phantom_000000"


def test_the_brain_window_ends_at_0_and_80():
    np.testing.assert_array_equal(brain_window(np.array([-1000.0, 0, 20, 40, 80, 1300])), [0, 0, 64, 128, 255, 255])


def test_the_command_writes_the_challenges_layout(tmp_path: Path):
    out = tmp_path / "phantom"
    result = CliRunner().invoke(
        app, [str(out), "--train", "12", "--test", "6", "--size", "96", "--seed", "3", "--jobs", "1"]
    )
    assert result.exit_code == 0, result.output
    assert "12 training and 6 test images, synthetic" in result.output
    lesions = pd.read_csv(out / "lesions.csv")
    assert list(lesions.columns) == ["ID", "split", "kind", *BOX]
    assert set(lesions.kind) <= {*LABELS, *DISTRACTORS}
    for split, images in (("train", 12), ("test", 6)):
        table = pd.read_csv(out / f"{split}.csv")
        assert list(table.columns) == ["Unnamed: 0", "ID", *LABELS, "patient"]
        assert list(table["Unnamed: 0"]) == list(range(images))
        assert sorted(path.stem for path in (out / split).iterdir()) == sorted(table.ID)
        for row in table.itertuples():
            image = cv2.imread(str(out / split / f"{row.ID}.png"), cv2.IMREAD_UNCHANGED)
            assert image is not None
            assert (image.shape, image.dtype) == ((96, 96), np.uint8)
            kinds = set(lesions[(lesions.ID == row.ID) & (lesions.split == split)].kind)
            assert kinds & set(LABELS) == {label for label in LABELS if getattr(row, label)}
    notice = (out / "README.txt").read_text(encoding="utf-8")
    assert "SYNTHETIC" in notice
    assert "NOT FOR CLINICAL USE" in notice
    assert "--train 12 --test 6 --size 96 --seed 3" in notice
    assert b"tEXt" not in next((out / "train").iterdir()).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"phantom"}  # no leavings


def test_a_folder_that_holds_something_is_refused(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("keep")
    result = CliRunner().invoke(app, [str(tmp_path), "--train", "2", "--test", "0", "--size", "64"])
    assert result.exit_code == 2
    assert f"{tmp_path} exists and is not an empty folder. Name another folder" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_full_disk_is_a_message_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(patient: Patient, index: int, size: int) -> Slice:
        if index == 2:
            raise OSError(28, "No space left on device")
        return render(patient, index, size)

    monkeypatch.setattr("scripts.phantom.render", fail)
    result = CliRunner().invoke(app, [str(tmp_path / "out"), "--train", "8", "--size", "64", "--jobs", "1"])
    assert result.exit_code == 2
    assert f"cannot write {tmp_path / 'out'}: [Errno 28] No space left on device" in result.output
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken_and_a_file_refused(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    arguments = ["--train", "1", "--test", "0", "--size", "64", "--jobs", "1"]
    assert CliRunner().invoke(app, [str(tmp_path / "empty"), *arguments]).exit_code == 0
    assert len(list((tmp_path / "empty" / "train").iterdir())) == 1
    (tmp_path / "file").write_text("keep")
    assert CliRunner().invoke(app, [str(tmp_path / "file"), *arguments]).exit_code == 2
    result = CliRunner().invoke(app, [str(tmp_path / "file" / "below"), *arguments])
    assert result.exit_code == 2
    assert "cannot write" in result.output


@pytest.mark.parametrize(
    ("option", "value", "limits"),
    [
        ("--size", "32", "64 to 1024"),
        ("--size", "5000", "64 to 1024"),
        ("--train", "0", "1 to 100000"),
        ("--test", "-1", "0 to 100000"),
        ("--seed", "-1", "0 to 4294967295"),
        ("--jobs", "0", "1 to 256"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, option: str, value: str, limits: str):
    result = CliRunner().invoke(app, [str(tmp_path / "out"), option, value])
    assert result.exit_code == 2
    assert f"error: {option} is {value}. Give a number from {limits}." in result.output
    assert not (tmp_path / "out").exists()


def test_the_inner_skull_is_an_outline_with_normals_towards_the_brain():
    outline, inward, half_width, half_length = inner_skull(plan_patient(0, 1), 0.5)
    np.testing.assert_allclose(np.hypot(inward[:, 0], inward[:, 1]), 1.0)
    assert (np.einsum("ij,ij->i", outline, inward) < 0).all()
    assert 50 < half_width < half_length < 105


def test_a_split_of_no_images_gets_neither_folder_nor_csv(tmp_path):
    write_phantom(tmp_path / "out", {"train": 2, "test": 0}, size=64, seed=0, jobs=1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.txt",
        "lesions.csv",
        "train",
        "train.csv",
    ]


def test_dicom_in_the_brain_window_is_the_png_within_a_grey_level(tmp_path):
    for image_format in ("png", "dicom"):
        write_phantom(tmp_path / image_format, {"train": 3, "test": 1}, 64, 4, 1, image_format)
    for name in ("train.csv", "test.csv", "lesions.csv"):
        assert (tmp_path / "png" / name).read_bytes() == (tmp_path / "dicom" / name).read_bytes()
    assert "--format dicom" in (tmp_path / "dicom" / "README.txt").read_text()
    pngs = sorted((tmp_path / "png").glob("*/*.png"))
    assert len(pngs) == 4
    for png in pngs:
        path = tmp_path / "dicom" / png.parent.name / f"{png.stem}.dcm"
        pixels, facts = decode(path.read_bytes(), png.stem, Reading(window="brain"))
        expected = cv2.imread(str(png), cv2.IMREAD_UNCHANGED)
        assert np.abs(pixels.astype(int) - expected).max() <= 1
        assert (pixels != expected).mean() < 0.05
        assert facts.group
        table = pd.read_csv(tmp_path / "dicom" / f"{png.parent.name}.csv", index_col="ID")
        assert pydicom.dcmread(path).PatientID == table.loc[png.stem, "patient"]
