"""Plan a synthetic patient: head, scanner, lesions and slices, before any pixel is drawn."""

from dataclasses import dataclass

import numpy as np

LABELS = ("epidural", "intraparenchymal", "subarachnoid")
DISTRACTORS = ("subdural", "intraventricular")

# Which labels a patient has, and how often. Together with the share of slices that a lesion covers these give the
# challenge's prevalences (341, 3192, 2958 and two or more 1372 of 8542 images).
CASES: tuple[tuple[tuple[str, ...], float], ...] = (
    (("epidural",), 0.066),
    (("intraparenchymal",), 0.272),
    (("subarachnoid",), 0.228),
    (("intraparenchymal", "subarachnoid"), 0.280),
    (("epidural", "intraparenchymal"), 0.010),
    (("epidural", "subarachnoid"), 0.020),
    (("epidural", "intraparenchymal", "subarachnoid"), 0.008),
    ((), 0.126),
)
# Levels (0 skull base, 1 vertex) between which a lesion of each kind can be drawn.
LEVELS = {
    "epidural": (0.24, 0.86),
    "intraparenchymal": (0.07, 0.90),
    "subarachnoid": (0.08, 0.92),
    "subdural": (0.26, 0.90),
    "intraventricular": (0.37, 0.67),
}
GOLDEN_RATIO = 0.6180339887498949
SLICE_LIMIT = 16  # slices per patient never reach it, so patient * 16 + index numbers the images, with gaps


@dataclass(frozen=True)
class Lesion:
    """One bleed, as it reaches over neighbouring slices.

    Attributes:
        kind: one of LABELS or DISTRACTORS.
        middle: level of its largest section, 0-1.
        half_height: how far it reaches up and down, in levels.
        side: 1 right of the image, -1 left.
        hu: CT number of the blood.
        size: 0-1, from the smallest to the largest of its kind.
        place: 0-1, where it lies; each kind reads it in its own way.
        shape: seed of the irregularities of its outline.
    """

    kind: str
    middle: float
    half_height: float
    side: int
    hu: float
    size: float
    place: float
    shape: int

    def section(self, level: float) -> float:
        """Say how large the section at a level is.

        Args:
            level: 0 skull base to 1 vertex.

        Returns:
            0.5-1 of the largest section, or 0 where the lesion is not seen.
        """
        offset = abs(level - self.middle) / self.half_height
        low, high = LEVELS[self.kind]
        return float(np.sqrt(1 - offset**2)) if offset < 0.87 and low <= level <= high else 0.0


@dataclass(frozen=True)
class Head:
    """What stays the same over a patient's slices: anatomy and scanner.

    Attributes:
        width, length: scale of the skull, about 1.
        egg: how much wider the back of the head is than the front.
        bone: mm of skull.
        scalp: mm of scalp.
        atrophy: 0 young and tight to 1 wide sulci and ventricles.
        ventricles: scale of the ventricles, about 1.
        contrast: HU between grey and white matter.
        calcified: 0-1; above thresholds of their own, pineal, choroid plexus, falx and pallidum are calcified.
        bruise: side of a swollen scalp, 1 or -1, or 0 for none.
        infarct: side of an old infarct, 1 or -1, or 0 for none.
        turn: radians by which the head is turned in the scanner.
        offset: mm by which it is off centre, right and down.
        field_mm: field of view in mm.
        noise: HU, standard deviation in the brain.
        blur_mm: standard deviation in mm of the reconstruction kernel.
        cupping: HU by which the rim of the brain is too bright.
        motion_mm: mm that the head moved during a slice.
    """

    width: float
    length: float
    egg: float
    bone: float
    scalp: float
    atrophy: float
    ventricles: float
    contrast: float
    calcified: float
    bruise: int
    infarct: int
    turn: float
    offset: tuple[float, float]
    field_mm: float
    noise: float
    blur_mm: float
    cupping: float
    motion_mm: float


@dataclass(frozen=True)
class Patient:
    """A planned patient.

    Attributes:
        seed, number: what the plan follows from.
        head: anatomy and scanner.
        lesions: all bleeds.
        levels: level of every slice, from the base up.
    """

    seed: int
    number: int
    head: Head
    lesions: tuple[Lesion, ...]
    levels: tuple[float, ...]

    def seen(self, index: int) -> tuple[Lesion, ...]:
        """List the lesions that slice `index` cuts."""
        return tuple(lesion for lesion in self.lesions if lesion.section(self.levels[index]) > 0)

    def labels(self, index: int) -> tuple[int, int, int]:
        """Give 0 or 1 for each of LABELS in slice `index`."""
        kinds = {lesion.kind for lesion in self.seen(index)}
        return (int(LABELS[0] in kinds), int(LABELS[1] in kinds), int(LABELS[2] in kinds))


def plan_patient(seed: int, number: int) -> Patient:
    """Plan one patient; costs no drawing.

    Args:
        seed: seed of the whole data set, 0 or more.
        number: number of the patient, 0 or more.

    Returns:
        The plan, the same for the same two numbers.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, number]))
    kinds = _case(seed, number)
    count = int(rng.integers(4, 7))
    span = (count - 1) * rng.uniform(0.05, 0.075)
    # Bleeds that only part of the head can show pull the slices there.
    lowest, highest = (0.24, 0.82 - span) if "epidural" in kinds else (0.06, 0.92 - span)
    start = rng.uniform(lowest, highest)
    levels = tuple(np.linspace(start, start + span, count).tolist())
    lesions = [lesion for kind in kinds for lesion in _lesions(rng, kind, start, span)]
    for kind, chance in (("subdural", 0.16 if not kinds else 0.08), ("intraventricular", 0.14)):
        if rng.random() < chance and start < LEVELS[kind][1] and start + span > LEVELS[kind][0]:
            lesions += _lesions(rng, kind, start, span)
    return Patient(seed, number, _head(rng, lesions), tuple(lesions), levels)


def _case(seed: int, number: int) -> tuple[str, ...]:
    """Choose a patient's labels from an additive recurrence, so that even few patients come near the prevalences."""
    start = np.random.default_rng(np.random.SeedSequence([seed])).random()
    position = (start + number * GOLDEN_RATIO) % 1.0
    edges = np.cumsum([share for _, share in CASES])
    return CASES[min(int(np.searchsorted(edges, position * edges[-1], side="right")), len(CASES) - 1)][0]


def _lesions(rng: np.random.Generator, kind: str, start: float, span: float) -> list[Lesion]:
    """Draw the lesions of one kind: one, or for contusions up to three."""
    several = kind == "intraparenchymal" and rng.random() < 0.22
    low, high = LEVELS[kind]
    middle = float(np.clip(start + span * rng.uniform(0.25, 0.75), low + 0.03, high - 0.03))
    tall = 0.6 if kind == "epidural" else 1.0
    half_height = max(span * rng.uniform(0.34, 0.62), 0.055) * tall
    side = int(rng.choice([-1, 1]))
    hu = float(rng.uniform(50, 57) if rng.random() < 0.15 else rng.uniform(57, 75))  # some are subtle
    found = []
    for order in range(int(rng.integers(2, 4)) if several else 1):
        found.append(
            Lesion(
                kind=kind,
                middle=middle + (order > 0) * float(rng.uniform(-0.03, 0.03)),
                half_height=half_height * (0.5 if order else 1.0),
                side=side if order == 0 or rng.random() < 0.6 else -side,
                hu=hu,
                size=float(rng.random()) * (0.45 if several else 1.0),
                place=float(rng.random()),
                shape=int(rng.integers(2**31)),
            )
        )
    return found


def _head(rng: np.random.Generator, lesions: list[Lesion]) -> Head:
    """Draw anatomy and scanner; the scalp is often swollen over an extra-axial bleed."""
    atrophy = float(rng.beta(1.3, 1.7))
    outer = [lesion.side for lesion in lesions if lesion.kind in ("epidural", "subdural")]
    bruised = rng.random() < (0.7 if outer else 0.12)
    side = int(rng.choice([-1, 1]))
    return Head(
        width=float(rng.normal(1.0, 0.04)),
        length=float(rng.normal(1.0, 0.035)),
        egg=float(rng.uniform(0.03, 0.11)),
        bone=float(rng.uniform(4.5, 8.0)),
        scalp=float(rng.uniform(3.5, 7.0)),
        atrophy=atrophy,
        ventricles=float(0.7 + 0.9 * atrophy * rng.uniform(0.6, 1.2)),
        contrast=float(rng.uniform(6.0, 9.5)),
        calcified=float(rng.random()),
        bruise=(outer[0] if outer else side) if bruised else 0,
        infarct=int(rng.choice([-1, 1])) if rng.random() < 0.05 else 0,
        turn=float(rng.normal(0, 0.09)),
        offset=(float(rng.normal(0, 3)), float(rng.normal(-3, 4))),
        field_mm=float(rng.uniform(214, 240)),
        noise=float(rng.uniform(1.8, 4.2)),
        blur_mm=float(rng.uniform(0.42, 0.8)),
        cupping=float(rng.uniform(1.0, 6.0)),
        motion_mm=float(rng.uniform(1.0, 3.0)) if rng.random() < 0.08 else 0.0,
    )
