"""Render one slice of a synthetic patient as a scanner would show it, in CT numbers and in the brain window."""

from dataclasses import dataclass

import cv2
import numpy as np

from scripts.phantom_anatomy import Anatomy, draw_head, finish, inner_skull
from scripts.phantom_bleeds import draw_bleeds, shape_bleed
from scripts.phantom_canvas import AIR_HU, CANVAS_CENTRE, PIXELS_PER_MM
from scripts.phantom_plan import Head, Lesion, Patient, plan_patient

BRAIN_WINDOW = (40.0, 80.0)  # centre, width in HU
LEAST_COVERAGE = 110  # of 255: a pixel that is nearly half blood counts as blood
HEADREST_HU = 180.0
REFERENCE_SIZE = 512
TISSUES = ("outside", "brain", "cistern", "ventricle")


@dataclass(frozen=True)
class Slice:
    """A rendered slice; S is its side in pixels.

    Attributes:
        hu: float32 array (S, S), CT numbers with noise, air -1000.
        labels: 0 or 1 for epidural, intraparenchymal, subarachnoid.
        lesions: the lesions in it.
        masks: for each lesion, bool array (S, S).
        boxes: for each lesion, x0, y0, x1, y1 in pixels; x1 and y1 are the first column and row past it.
        tissue: uint8 array (S, S), index into TISSUES, of the head before it bled.
    """

    hu: np.ndarray
    labels: tuple[int, int, int]
    lesions: tuple[Lesion, ...]
    masks: tuple[np.ndarray, ...]
    boxes: tuple[tuple[int, int, int, int], ...]
    tissue: np.ndarray


def render_slice(seed: int, patient: int, slice_index: int, size: int) -> Slice:
    """Render a slice; nothing but the four arguments has a say in it.

    Args:
        seed: seed of the data set.
        patient: number of the patient.
        slice_index: 0 to the number of the patient's slices - 1.
        size: side of the image in pixels.

    Returns:
        The slice.
    """
    return render(plan_patient(seed, patient), slice_index, size)


def render(patient: Patient, slice_index: int, size: int) -> Slice:
    """Render a slice of a plan.

    Args:
        patient: the plan.
        slice_index: 0 to the number of the patient's slices - 1.
        size: side of the image in pixels.

    Returns:
        The slice.
    """
    level = patient.levels[slice_index]
    lesions = patient.seen(slice_index)
    inner, inward, _, _ = inner_skull(patient, level)
    bleeds = [shape_bleed(lesion, level, inner, inward) for lesion in lesions]
    anatomy = draw_head(patient, level, tuple(bleed.push for bleed in bleeds if bleed.push))
    tissue = _tissue(anatomy)
    coverages = draw_bleeds(anatomy, bleeds)
    finish(anatomy, patient, level)

    rng = np.random.default_rng(np.random.SeedSequence([patient.seed, patient.number, 5, slice_index]))
    columns, rows = _sampling(patient, level, size)
    hu = _scan(anatomy, patient.head, level, columns, rows, rng)
    bone = anatomy.canvas.hu > 150
    masks = []
    for coverage in coverages:
        coverage[bone] = 0
        masks.append(cv2.remap(coverage, columns, rows, cv2.INTER_LINEAR) >= LEAST_COVERAGE)
    boxes = tuple(_box(mask) for mask in masks)
    tissue = cv2.remap(tissue, columns, rows, cv2.INTER_NEAREST)
    return Slice(hu, patient.labels(slice_index), lesions, tuple(masks), boxes, tissue)


def brain_window(hu: np.ndarray) -> np.ndarray:
    """Show CT numbers as a radiologist looks at the brain: centre 40, width 80.

    Args:
        hu: float array of any shape, CT numbers.

    Returns:
        uint8 array of the same shape: 0 at 0 HU and below, 255 at 80 HU and above.
    """
    centre, width = BRAIN_WINDOW
    return np.round(np.clip((hu - (centre - width / 2)) / width, 0, 1) * 255).astype(np.uint8)


def _tissue(anatomy: Anatomy) -> np.ndarray:
    tissue = np.where(anatomy.inside > 127, np.uint8(1), np.uint8(0))
    tissue[(anatomy.cisterns > 64) & (tissue > 0)] = 2  # a narrow sulcus shares its pixels with the cortex
    tissue[anatomy.ventricles > 127] = 3
    return tissue


def _sampling(patient: Patient, level: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Say where on the canvas each output pixel looks: head turned, off centre and a little warped."""
    head = patient.head
    step = head.field_mm / size
    axis = (np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)) * np.float32(step)
    x, y = axis[None] - np.float32(head.offset[0]), axis[:, None] - np.float32(head.offset[1])
    cosine, sine = np.float32(np.cos(head.turn)), np.float32(np.sin(head.turn))
    rng = np.random.default_rng(np.random.SeedSequence([patient.seed, patient.number, 6]))
    low, high = rng.normal(0, 1.7, (2, 2, 6, 6)).astype(np.float32)
    warp = low * np.float32(np.cos(1.5 * level)) + high * np.float32(np.sin(1.5 * level))
    bend = [cv2.resize(component, (size, size), interpolation=cv2.INTER_CUBIC) for component in warp]
    u, v = cosine * x + sine * y + bend[0], cosine * y - sine * x + bend[1]
    scale = np.float32(PIXELS_PER_MM)
    return u * scale + np.float32(CANVAS_CENTRE[0]), v * scale + np.float32(CANVAS_CENTRE[1])


def _scan(
    anatomy: Anatomy, head: Head, level: float, columns: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Blur, sample, harden the beam and add noise."""
    size = len(rows)
    step = head.field_mm / size
    depth = cv2.distanceTransform((anatomy.inside > 127).astype(np.uint8), cv2.DIST_L2, 3)
    hu: np.ndarray = anatomy.canvas.hu.copy()
    hu += np.float32(head.cupping) * np.exp(depth * np.float32(-1 / (8 * PIXELS_PER_MM))) * (depth > 0)
    if level < 0.2:
        hu += _petrous_streaks(anatomy, rng) * (depth > 0)
    blur = np.hypot(head.blur_mm, 0.45 * step)  # a pixel averages over its own width
    hu = cv2.GaussianBlur(hu, (0, 0), blur * PIXELS_PER_MM)
    if head.motion_mm:
        shift = np.array([[1, 0, head.motion_mm * PIXELS_PER_MM], [0, 1, 0]], np.float32)
        moved = cv2.warpAffine(hu, shift, (hu.shape[1], hu.shape[0]), borderValue=AIR_HU)
        hu = 0.72 * hu + np.float32(0.28) * moved
    image = cv2.remap(hu, columns, rows, cv2.INTER_LINEAR, borderValue=AIR_HU)
    _draw_headrest(image, head)
    grain = rng.standard_normal((size, size), np.float32)
    kernel = 0.55 + 0.5 * head.blur_mm
    grain = cv2.GaussianBlur(grain, (0, 0), kernel) * np.float32(2 * np.sqrt(np.pi) * kernel)  # back to unit variance
    fine = min(1.0, np.sqrt(size / REFERENCE_SIZE))  # larger pixels collect more photons
    return np.maximum(image + grain * np.float32(head.noise * fine), np.float32(AIR_HU - 24))


def _petrous_streaks(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Dark and bright bands between the petrous bones, (rows, 1) float32 in HU."""
    rows = anatomy.canvas.hu.shape[0]
    bands = cv2.resize(rng.standard_normal((40, 1), np.float32), (1, rows), interpolation=cv2.INTER_CUBIC)
    v = (np.arange(rows, dtype=np.float32)[:, None] - np.float32(CANVAS_CENTRE[1])) / np.float32(PIXELS_PER_MM)
    return (bands * 3 - 5) * np.exp(-(((v - 2) / 14) ** 2))


def _draw_headrest(image: np.ndarray, head: Head) -> None:
    """Draw the holder under the head; it does not turn with the head."""
    size = len(image)
    per_mm = size / head.field_mm
    lowest = (116 + 0.5 * head.offset[1]) * per_mm + size / 2
    radius = 150 * per_mm
    holder = np.zeros(image.shape, np.uint8)
    centre = (round(size / 2 * 16), round((lowest - radius) * 16))
    cv2.ellipse(
        holder,
        centre,
        (round(radius * 16), round(radius * 16)),
        0,
        35,
        145,
        255,
        max(1, round(2 * per_mm)),
        cv2.LINE_AA,
        4,
    )
    air = image < -500
    image[air] += (holder * np.float32((HEADREST_HU - AIR_HU) / 255))[air]


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (0, 0, 0, 0)
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
