"""Draw the healthy head of a synthetic patient at one level: skull, brain, ventricles, sulci, falx, calcifications."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from scripts.phantom_canvas import CANVAS_SHAPE, PIXELS_PER_MM, Canvas, Push, blob, mirrored, ribbon, smooth
from scripts.phantom_interior import GREY_HU, draw_calcifications, draw_deep_nuclei, draw_dura, draw_hindbrain
from scripts.phantom_plan import Head, Patient
from scripts.phantom_skull import draw_base, draw_skull

SULCI = 44  # candidates around the brain; a slice takes as many as its perimeter has room for
# Typical CT numbers in HU.
CSF_HU = 7.0


@dataclass
class Anatomy:
    """A drawn head, with what the bleeds need to know of it.

    Attributes:
        canvas: the CT numbers, drawn upon further by the bleeds.
        inner: float64 array (N, 2), u and v in mm of the inner skull, clockwise from the forehead.
        inward: float64 array (N, 2), unit normals of `inner` towards the brain.
        inside: uint8 canvas mask of the inside of the skull.
        ventricles: uint8 canvas mask.
        cisterns: uint8 canvas mask of all CSF outside the ventricles.
        sulci: middle lines in mm of the sulci and fissures, after which subarachnoid blood is drawn.
    """

    canvas: Canvas
    inner: np.ndarray
    inward: np.ndarray
    inside: np.ndarray
    ventricles: np.ndarray
    cisterns: np.ndarray
    sulci: list[np.ndarray] = field(default_factory=list)


def inner_skull(patient: Patient, level: float) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Outline the inside of the skull.

    Args:
        patient: the plan.
        level: 0 skull base to 1 vertex.

    Returns:
        The outline, float64 (180, 2) in mm, clockwise from the forehead; its inward unit normals, same shape; half
        width and half length in mm.
    """
    head = patient.head
    grid = (0.0, 0.15, 0.3, 0.5, 0.65, 0.8, 0.92, 1.0)
    half_width = head.width * float(np.interp(level, grid, (60, 63, 66, 67, 65, 56, 42, 30)))
    half_length = head.length * float(np.interp(level, grid, (76, 80, 83, 84, 80, 69, 53, 38)))
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    sine, cosine = np.sin(angle), np.cos(angle)
    power = 2 / 2.12  # superellipse: a skull is a little squarer than an ellipse
    u = half_width * np.sign(sine) * np.abs(sine) ** power
    v = -half_length * np.sign(cosine) * np.abs(cosine) ** power
    u = u * (1 + head.egg * v / half_length)
    rng = np.random.default_rng(np.random.SeedSequence([patient.seed, patient.number, 1]))
    scale = np.ones_like(angle)
    for lobes in range(2, 7):
        scale += rng.normal(0, 0.016 / lobes) * np.cos(lobes * angle + rng.uniform(0, 2 * np.pi) + level)
    outline = np.column_stack([u * scale, v * scale])
    tangent = np.roll(outline, -2, axis=0) - np.roll(outline, 2, axis=0)
    tangent /= np.hypot(tangent[:, 0], tangent[:, 1])[:, None]
    return outline, np.column_stack([-tangent[:, 1], tangent[:, 0]]), half_width, half_length


def draw_head(patient: Patient, level: float, pushes: tuple[Push, ...]) -> Anatomy:
    """Draw everything but blood.

    Args:
        patient: the plan.
        level: 0 skull base to 1 vertex.
        pushes: mass effects of the bleeds to come.

    Returns:
        The drawn head. Bone of the skull base is left to `finish`, which covers whatever bleeds near it.
    """
    head = patient.head
    inner, inward, half_width, half_length = inner_skull(patient, level)
    canvas = Canvas(half_width, half_length)
    draw_skull(canvas, head, level, inner, inward)
    inside = canvas.mask(inner)
    canvas.paint(inner, CSF_HU)
    canvas.pushes = pushes
    anatomy = Anatomy(canvas, inner, inward, inside, np.zeros_like(inside), np.zeros_like(inside))
    rind = 0.7 + 1.6 * head.atrophy * (1.3 if level > 0.5 else 0.7)
    brain = canvas.mask(inner + inward * rind)
    _draw_sulci(anatomy, patient, level)
    _draw_cisterns(anatomy, head, level)
    _draw_cortex(anatomy, patient, level, brain)
    if level < 0.36:
        draw_hindbrain(canvas, anatomy.cisterns, head, level)
    if 0.30 < level < 0.60:
        draw_deep_nuclei(canvas, head, level)
    if head.infarct and 0.3 < level < 0.8:
        canvas.paint(
            blob((head.infarct * 0.6 * half_width, 0.35 * half_length), (13, 20), 0.2 * head.infarct), 17, 0.8, 3
        )
    _draw_ventricles(anatomy, head, level)
    covered = cv2.subtract(cv2.max(anatomy.cisterns, cv2.subtract(inside, brain)), anatomy.ventricles)
    anatomy.cisterns = cv2.min(cv2.GaussianBlur(covered, (0, 0), 0.45 * PIXELS_PER_MM), inside)
    weight = anatomy.cisterns * np.float32(1 / 255)
    canvas.hu += (np.float32(CSF_HU) - canvas.hu) * weight
    weight = anatomy.ventricles * np.float32(1 / 255)
    canvas.hu += (np.float32(CSF_HU - 1) - canvas.hu) * weight
    return anatomy


def finish(anatomy: Anatomy, patient: Patient, level: float) -> None:
    """Draw what lies above blood: dura, calcifications and the bone of the skull base.

    Args:
        anatomy: drawn head; its canvas is drawn upon.
        patient: the plan.
        level: 0 skull base to 1 vertex.
    """
    head = patient.head
    draw_dura(anatomy.canvas, head, level)
    draw_calcifications(anatomy.canvas, head, level)
    anatomy.canvas.pushes = ()
    draw_base(anatomy.canvas, patient, level)


def _draw_sulci(anatomy: Anatomy, patient: Patient, level: float) -> None:
    """Trace the sulci of the convexity and, higher up, of the medial wall."""
    canvas, head = anatomy.canvas, patient.head
    rng = np.random.default_rng(np.random.SeedSequence([patient.seed, patient.number, 2]))
    draws = rng.random((SULCI, 14))
    steps = np.diff(np.vstack([anatomy.inner, anatomy.inner[:1]]), axis=0)
    along = np.concatenate([[0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])
    reach = min(canvas.half_width / 66, 1.0)
    count = min(int(along[-1] / 13.5), SULCI)
    visible = np.interp(level, (0.0, 0.2, 0.5, 0.8), (0.35, 0.55, 0.8, 1.0))
    for order, draw in enumerate(draws[:count]):
        position = (order + 0.75 * draw[0] + 1.5 * level) / count % 1.0 * along[-1]
        point = min(int(np.searchsorted(along, position, side="right")) - 1, len(anatomy.inner) - 1)
        start, inward = anatomy.inner[point], anatomy.inward[point]
        depth = reach * (8 + 15 * draw[1]) * (0.8 + 0.4 * np.sin(9 * level + 6 * draw[2]))
        _trace_sulcus(anatomy, start, inward, depth, draw, head, visible)
    if level > 0.56:
        for order, draw in enumerate(rng.random((14, 14))):
            side = 1 if order % 2 else -1
            v = canvas.half_length * (-0.78 + 1.56 * (order + 0.8 * draw[0]) / 14)
            depth = reach * (6 + 11 * draw[1]) * float(np.interp(level, (0.56, 0.66), (0.5, 1)))
            _trace_sulcus(anatomy, np.array([0.0, v]), np.array([side, 0.0]), depth, draw, head, visible)


def _trace_sulcus(
    anatomy: Anatomy,
    start: np.ndarray,
    inward: np.ndarray,
    depth: float,
    draw: np.ndarray,
    head: Head,
    visible: float,
) -> None:
    """Trace one winding sulcus, at times with a branch; `draw` holds 14 numbers of 0-1."""
    tilt = (draw[3] - 0.5) * 1.2
    forward = np.array(
        [inward[0] * np.cos(tilt) - inward[1] * np.sin(tilt), inward[0] * np.sin(tilt) + inward[1] * np.cos(tilt)]
    )
    across = np.array([-forward[1], forward[0]])
    wiggle = (draw[4:8] - 0.5) * 6.5
    wiggle[0] *= 0.3
    points = np.array([start + forward * depth * part + across * wiggle[i] for i, part in enumerate((0, 0.35, 0.7, 1))])
    lines = [smooth(points, closed=False)]
    if draw[8] < 0.6:
        turn = (1 if draw[9] < 0.5 else -1) * (0.5 + draw[10])
        tip = points[2] + (forward * 0.4 + across * turn) * (4 + 7 * draw[11])
        lines.append(smooth(np.array([points[2], 0.5 * (points[2] + tip) + across * 1.0, tip]), closed=False))
    coverage = float(np.clip(0.22 + 0.75 * head.atrophy + 0.25 * (draw[12] - 0.5), 0.12, 1)) * visible
    width = 0.5 + 2.4 * head.atrophy * draw[13]
    for line in lines:
        anatomy.sulci.append(line)
        anatomy.canvas.trace(anatomy.cisterns, line, width, coverage)


def _draw_cisterns(anatomy: Anatomy, head: Head, level: float) -> None:
    """Trace the fissures and the basal cisterns."""
    canvas, width = anatomy.canvas, 1.0 + 2.2 * head.atrophy
    scale = canvas.half_width / 66

    def add(points: Sequence[tuple[float, float]], wide: float, coverage: float = 0.9) -> None:
        line = smooth(np.array(points, np.float64) * scale, closed=False)
        anatomy.sulci.append(line)
        canvas.trace(anatomy.cisterns, line, wide, coverage)

    def fill(points: Sequence[tuple[float, float]], widths: list[float], wide: float) -> None:
        anatomy.sulci.append(smooth(np.array(points, np.float64) * scale, closed=False))
        band = ribbon([(u * scale, v * scale) for u, v in points], [wide * width for width in widths])
        anatomy.cisterns = cv2.max(anatomy.cisterns, canvas.mask(band))

    front, back = -canvas.half_length / scale, canvas.half_length / scale
    if level > 0.2:
        add([(0, front + 2), (0.5, -60), (0, -38 if level < 0.62 else 0)], width, 0.7)
    if level > 0.36:
        add([(0, back - 2), (0, 52), (0, 34 if level < 0.62 else 0)], 0.8 * width, 0.5)
    for side in (1, -1):
        if 0.18 < level < 0.60:
            bow = 3 * np.sin(20 * level + side)
            sylvian = [(63, -26 + bow), (52, -20), (43, -15 + bow), (38, -6), (38.5, 4), (42, 12 + bow)]
            open_ = width * float(np.interp(level, (0.2, 0.4, 0.6), (1.4, 1.2, 0.5)))
            fill(mirrored(sylvian, side), [2.0, 0.7, 1.3, 1.5, 0.8, 0.2], open_)
        if 0.17 < level < 0.30:
            fill(mirrored([(8, -13), (18, -16), (30, -17), (40, -14)], side), [1.5, 0.9, 1.2, 0.5], width)
        if 0.16 < level < 0.31:
            crus = [(4, -6), (11, -4), (16, 3), (14.5, 11), (9.5, 17), (5, 18.5)]
            fill(mirrored(crus, side), [0.5, 0.35, 0.55, 1.0, 0.9, 0.5], 0.5 + width)
            fill(mirrored([(14.5, 10), (20, 14), (24, 12)], side), [0.9, 0.6, 0.2], 0.5 + width)
        if level < 0.16:
            fill(mirrored([(0, -8), (9, -7), (17, 2), (24, 8)], side), [1.0, 0.8, 1.4, 0.6], 0.8 + width)
    if 0.15 < level < 0.30:
        size = 0.75 + 0.4 * head.atrophy
        star = [(0, -21), (4, -14), (13, -13), (8, -8), (9, -2), (3, -3), (0, -1)]
        outline = np.array([*star, *mirrored(star[::-1], -1)], np.float64) * size * scale
        anatomy.cisterns = cv2.max(anatomy.cisterns, canvas.mask(smooth(outline, closed=True)))
        add([(-8, -12), (0, -9), (8, -12)], 2.0)
    if 0.19 < level < 0.40:
        fill([(-8, 18), (-4, 21), (0, 22.5), (4, 21), (8, 18)], [0.4, 1.1, 1.8, 1.1, 0.4], 0.8 + width)


def _draw_cortex(anatomy: Anatomy, patient: Patient, level: float, brain: np.ndarray) -> None:
    """Fill the brain: grey matter along surface and sulci, white matter deeper."""
    canvas, head = anatomy.canvas, patient.head
    solid = ((brain > 127) & (anatomy.cisterns <= 25)).astype(np.uint8)
    depth = cv2.distanceTransform(solid, cv2.DIST_L2, 3)
    rng = np.random.default_rng(np.random.SeedSequence([patient.seed, patient.number, 3, int(level * 1000)]))
    texture = _field(rng, (26, 21))
    mottle = _field(rng, (104, 84))
    white = np.clip((depth - (7.5 + 1.6 * texture)) * 0.4, 0, 1)
    value = GREY_HU - head.contrast * white + 0.7 * texture + 0.5 * mottle
    if level > 0.38:  # pale white matter around the ventricles of the old
        value -= 9 * head.atrophy**2 * np.clip((depth - 30) / 25, 0, 1)
    canvas.hu += (value - canvas.hu) * (brain * np.float32(1 / 255))


def _field(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw a smooth random field over the canvas, of about unit variance."""
    coarse = rng.standard_normal(shape, np.float32)
    return cv2.resize(coarse, CANVAS_SHAPE[::-1], interpolation=cv2.INTER_CUBIC)


def _draw_ventricles(anatomy: Anatomy, head: Head, level: float) -> None:
    """Fill the ventricles' mask."""
    canvas, wide = anatomy.canvas, head.ventricles
    scale = canvas.half_width / 66

    def add(outline: np.ndarray) -> None:
        anatomy.ventricles = cv2.max(anatomy.ventricles, canvas.mask(outline * scale))

    if level < 0.17:
        add(blob((0, 24), (6.5 * wide, 3.2 * wide)))
        add(blob((0, 22), (2.5 * wide, 4.0 * wide)))
    for side in (1, -1):

        def band(points: Sequence[tuple[float, float]], widths: list[float], side: int = side) -> None:
            shade = 1 + 0.12 * side * np.sin(7 * head.width * 10)  # the two sides are never quite alike
            add(ribbon(mirrored(points, side), [wide * shade * width for width in widths]))

        if 0.17 < level < 0.32:
            band([(29, -10), (33, -2), (35, 7)], [0.4, 1.8 * wide - 0.4, 0.6])
        if 0.36 < level < 0.58:
            grow = float(np.interp(level, (0.36, 0.42, 0.58), (0.5, 1, 1)))
            band([(4 + 8 * wide, -36), (5 + 3 * wide, -29), (4, -21), (2.5, -13)], [2, 6.5 * grow, 4.5 * grow, 1])
        if 0.42 < level < 0.60:
            grow = float(np.interp(level, (0.42, 0.48, 0.6), (0.6, 1, 0.8)))
            band([(15, 15), (22, 23), (25, 31), (22, 42), (19, 50)], [2, 7 * grow, 8.5 * grow, 5 * grow, 1])
        if 0.56 < level < 0.70:
            grow = float(np.interp(level, (0.56, 0.6, 0.7), (0.6, 1, 0.45)))
            line = [(9, -32), (8, -20), (8.5, -6), (12, 8), (18, 21), (22, 30)]
            band(line, [1.5, 5.5 * grow, 6.5 * grow, 6.5 * grow, 7 * grow, 1.5])
    if 0.33 < level < 0.46:
        add(ribbon([(0, -13), (0, -2), (0, 11)], [1.0, 3.2 * wide, 1.4 * wide]))
