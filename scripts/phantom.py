"""Make a data set of synthetic head-CT slices with labelled bleeds: `python scripts/phantom.py OUT`."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from os import getpid
from pathlib import Path
from typing import Annotated, Literal

import cv2
import joblib
import numpy as np
import pandas as pd
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # run as a file, this folder is on the path, not its parent

from features.common.errors import InputError
from features.common.text import make_console
from scripts.phantom_plan import LABELS, SLICE_LIMIT, Patient, plan_patient
from scripts.phantom_slice import brain_window, render

FIRST_PATIENT = {"train": 0, "test": 30_000}  # far enough apart that the splits share no patient
LIMITS = {  # least and most of every number that the command takes
    "train": (1, 100_000),
    "test": (0, 100_000),
    "size": (64, 1024),
    "seed": (0, 2**32 - 1),
    "jobs": (1, 256),
}
BOX = ("x0", "y0", "x1", "y1")
NOTICE = """\
SYNTHETIC IMAGES. NOT FOR CLINICAL USE.

The images in this folder are drawn by a program: no patient was ever scanned for them. They look like head-CT slices
in the brain window (centre 40, width 80 HU), some with blood, so that Headbank can be tried without real images.
A score on them says that the software works; it says nothing of real scans.

Made by: python scripts/phantom.py {out} --train {train} --test {test} --size {size} --seed {seed}
The same seed gives the same images, byte for byte; more images go on where fewer ended.

train.csv, test.csv  a running number, ID (the image is train/ID.png or test/ID.png), epidural, intraparenchymal,
                     subarachnoid as 0 or 1, and patient. No patient is in both.
lesions.csv          every bleed of every image: ID, split, kind and its box in pixels (x0, y0 the first column and row,
                     x1, y1 the first past it). Kinds subdural and intraventricular are drawn too, but are no labels.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Job:
    """One patient's images to write.

    Attributes:
        patient: the plan.
        count: how many of its slices, from the first.
        split: "train" or "test".
    """

    patient: Patient
    count: int
    split: str


def image_id(patient: int, slice_index: int) -> str:
    """Name an image; the numbers have gaps, as patients have fewer than SLICE_LIMIT slices."""
    return f"phantom_{patient * SLICE_LIMIT + slice_index:06d}"


def plan_split(seed: int, split: str, images: int) -> Iterator[Job]:
    """Plan the patients of a split until it has its images; draws nothing.

    Args:
        seed: seed of the data set.
        split: "train" or "test".
        images: number of images; the last patient may be cut short.

    Yields:
        One job per patient.
    """
    for number in count(FIRST_PATIENT[split]):
        if images <= 0:
            return
        patient = plan_patient(seed, number)
        yield Job(patient, min(len(patient.levels), images), split)
        images -= len(patient.levels)


def write_dicom(path: Path, job: Job, index: int, hu: np.ndarray) -> None:
    """Write a slice as DICOM: CT of 16 unsigned bits, in steps of 0.1 HU from -1024 on, so that no grey level is lost.

    Args:
        path: the file.
        job: whose slice it is.
        index: its number.
        hu: float array (H, W), CT numbers.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    number = job.patient.number
    made = Dataset()
    made.SOPClassUID, made.Modality = CTImageStorage, "CT"
    made.StudyInstanceUID = f"2.25.{number + 1}"
    made.SOPInstanceUID = f"2.25.{number + 1}.{index + 1}"
    made.PatientID = patient_name(number)
    made.ImagePositionPatient, made.InstanceNumber = [0, 0, index], index + 1
    made.Rows, made.Columns = hu.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.RescaleSlope, made.RescaleIntercept, made.RescaleType = "0.1", "-1024", "HU"
    stored = np.clip(np.rint((hu.astype(np.float64) + 1024) * 10), 0, 65_535)
    made.add_new("PixelData", "OW", stored.astype("<u2").tobytes())
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.save_as(path, enforce_file_format=True)


def patient_name(number: int) -> str:
    """Name a patient."""
    return f"phantom_patient_{number:05d}"


def write_patient(
    job: Job, folder: Path, size: int, image_format: str = "png"
) -> tuple[list[dict[str, str | int]], list[dict[str, str | int]]]:
    """Render a patient's slices and write them as 8-bit grey PNG, or as DICOM.

    Args:
        job: which slices.
        folder: the data set; `folder/split` is there.
        size: side of the images in pixels.
        image_format: "png" or "dicom".

    Returns:
        The patient's rows of the split's CSV, and of lesions.csv.
    """
    cv2.setNumThreads(1)  # the processes share the cores already
    rows: list[dict[str, str | int]] = []
    lesions: list[dict[str, str | int]] = []
    for index in range(job.count):
        rendered = render(job.patient, index, size)
        name = image_id(job.patient.number, index)
        if image_format == "dicom":
            write_dicom(folder / job.split / f"{name}.dcm", job, index, rendered.hu)
        else:
            _, encoded = cv2.imencode(".png", brain_window(rendered.hu))
            (folder / job.split / f"{name}.png").write_bytes(encoded.tobytes())
        labels = dict(zip(LABELS, rendered.labels, strict=True))
        rows.append({"ID": name, **labels, "patient": patient_name(job.patient.number)})
        for lesion, box in zip(rendered.lesions, rendered.boxes, strict=True):
            if box[2] > box[0]:  # one of several bleeds may lie wholly under bone
                corners = dict(zip(BOX, box, strict=True))
                lesions.append({"ID": name, "split": job.split, "kind": lesion.kind, **corners})
    return rows, lesions


def write_phantom(
    out: Path, images: dict[str, int], size: int, seed: int, jobs: int, image_format: str = "png"
) -> None:
    """Write a data set, whole or not at all.

    Args:
        out: the folder to make; absent or empty.
        images: number of images of "train" and of "test"; a split of none gets neither folder nor CSV.
        size: side of the images in pixels.
        seed: seed of everything that is random.
        jobs: processes; -1 for one per core.
        image_format: "png" or "dicom".

    Raises:
        InputError: `out` is a file or holds something, or cannot be written.
    """
    if out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None):
        raise InputError(f"{out} exists and is not an empty folder. Name another folder, or remove this one first.")
    whole = out.resolve()
    partial = whole.with_name(f".{whole.name}.{getpid()}.partial")
    try:
        for split in (split for split, number in images.items() if number):
            (partial / split).mkdir(parents=True)
        _write_files(partial, images, size, seed, jobs, image_format)
        notice = NOTICE.format(out=out, train=images["train"], test=images["test"], size=size, seed=seed)
        if image_format == "dicom":
            notice = notice.replace(f"--seed {seed}", f"--seed {seed} --format dicom").replace("ID.png", "ID.dcm")
            notice = notice.replace("in the brain window (centre 40, width 80 HU)", "in CT numbers (HU)")
        (partial / "README.txt").write_text(notice, encoding="utf-8")
        partial.replace(whole)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error}. Make room, or name a folder that can be written.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_files(folder: Path, images: dict[str, int], size: int, seed: int, jobs: int, image_format: str) -> None:
    """Write images and tables, with progress on stderr."""
    planned = [job for split, number in images.items() for job in plan_split(seed, split, number)]
    calls = (joblib.delayed(write_patient)(job, folder, size, image_format) for job in planned)
    results = joblib.Parallel(n_jobs=jobs, return_as="generator")(calls)
    tables: dict[str, list[dict[str, str | int]]] = {split: [] for split, number in images.items() if number}
    lesions: list[dict[str, str | int]] = []
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=make_console(stderr=True)) as bar:
        task = bar.add_task("drawing", total=sum(images.values()), rate="")
        for job, (rows, found) in zip(planned, results, strict=True):
            tables[job.split] += rows
            lesions += found
            bar.advance(task, len(rows))
            bar.update(task, rate=f"{bar.tasks[0].speed or 0:.0f} images/s")
    for split, rows in tables.items():
        pd.DataFrame(rows, columns=["ID", *LABELS, "patient"]).to_csv(folder / f"{split}.csv")
    pd.DataFrame(lesions, columns=["ID", "split", "kind", *BOX]).to_csv(folder / "lesions.csv", index=False)


def _help(name: str, meaning: str) -> typer.models.OptionInfo:
    low, high = LIMITS[name]
    return typer.Option(help=f"{meaning} ({low} to {high}).")


@app.command()
def main(
    out: Annotated[Path, typer.Argument(help="Folder to make; absent or empty.", show_default=False)],
    train: Annotated[int, _help("train", "Number of training images")] = 600,
    test: Annotated[int, _help("test", "Number of test images")] = 200,
    size: Annotated[int, _help("size", "Side of the images in pixels")] = 512,
    seed: Annotated[int, _help("seed", "The same seed gives the same images")] = 0,
    image_format: Annotated[
        Literal["png", "dicom"], typer.Option("--format", help="PNG in the brain window, or DICOM in HU.")
    ] = "png",
    jobs: Annotated[int | None, _help("jobs", "Processes; none given: one per core; no say in the images")] = None,
) -> None:
    """Draw synthetic head-CT slices with epidural, intraparenchymal and subarachnoid bleeds, in the challenge's layout.

    The images are synthetic: good for trying Headbank and for its tests, not for clinical use.
    """
    try:
        for name, value in (("train", train), ("test", test), ("size", size), ("seed", seed), ("jobs", jobs)):
            low, high = LIMITS[name]
            if value is not None and not low <= value <= high:
                raise InputError(f"--{name} is {value}. Give a number from {low} to {high}.")
        write_phantom(out, {"train": train, "test": test}, size, seed, -1 if jobs is None else jobs, image_format)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{out}: {train} training and {test} test images, synthetic, seed {seed}. Read {out / 'README.txt'}.")


if __name__ == "__main__":
    app()
