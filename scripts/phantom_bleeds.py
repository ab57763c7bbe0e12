"""Draw bleeds into a synthetic head: the three labels, and the two that are no labels."""

from dataclasses import dataclass

import cv2
import numpy as np

from scripts.phantom_anatomy import Anatomy
from scripts.phantom_canvas import CANVAS_CENTRE, CANVAS_SHAPE, PIXELS_PER_MM, Canvas, Push, blob
from scripts.phantom_plan import Lesion

OEDEMA_HU = 19.0


@dataclass(frozen=True)
class Bleed:
    """A lesion's section in one slice.

    Attributes:
        lesion: what it is a section of.
        section: 0.35-1 of the lesion's largest section.
        outline: float array (M, 2) in mm; None where the blood follows a space of the head instead.
        push: its mass effect, or None.
    """

    lesion: Lesion
    section: float
    outline: np.ndarray | None
    push: Push | None


def shape_bleed(lesion: Lesion, level: float, inner: np.ndarray, inward: np.ndarray) -> Bleed:
    """Work out where a lesion lies in a slice, before anything is drawn.

    Args:
        lesion: a lesion that the slice cuts.
        level: 0 skull base to 1 vertex.
        inner: float array (180, 2), the inner skull in mm, clockwise from the forehead.
        inward: float array (180, 2), its unit normals.

    Returns:
        The section with its outline and its mass effect.
    """
    section = lesion.section(level)
    rng = np.random.default_rng(lesion.shape)
    if lesion.kind in ("epidural", "subdural"):
        return _shape_extra_axial(lesion, section, inner, inward, rng)
    if lesion.kind == "intraparenchymal":
        return _shape_intraparenchymal(lesion, section, level, inner, rng)
    return Bleed(lesion, section, None, None)


def _shape_extra_axial(
    lesion: Lesion, section: float, inner: np.ndarray, inward: np.ndarray, rng: np.random.Generator
) -> Bleed:
    """Outline a lens (epidural) or a crescent (subdural) on the inner skull, within one half of the head."""
    radius = float(np.hypot(inner[:, 0], inner[:, 1]).mean())
    if lesion.kind == "epidural":
        half_arc = section * (30 + 15 * lesion.size)
        # An arc sags by its square over twice the radius: a lens must be thicker than that.
        thickness = max(section * (17 + 13 * lesion.size), 1.7 * half_arc**2 / (2 * radius))
        half_angle = half_arc / radius
        middle = np.pi * (0.38 + 0.27 * lesion.place)  # under the temple, as most are
    else:
        half_angle = 0.75 + 0.5 * lesion.size
        thickness = section * (3.5 + 7 * lesion.size)
        middle = 0.12 + half_angle + lesion.place * max(np.pi - 0.24 - 2 * half_angle, 0)
    angle = middle + half_angle * np.linspace(-1, 1, 41)
    across = (angle - middle) / half_angle
    taper = np.clip(1 - across ** (2 if lesion.kind == "epidural" else 4), 0, 1)
    profile = taper ** (0.85 if lesion.kind == "epidural" else 0.7)
    profile = profile * (1 + 0.10 * np.sin(3 * across + rng.uniform(0, 6)))
    turn = (angle if lesion.side == 1 else 2 * np.pi - angle) / (2 * np.pi) * len(inner)
    steps = np.arange(len(inner) + 1)
    wall = np.column_stack([np.interp(turn, steps, np.append(inner[:, i], inner[0, i])) for i in (0, 1)])
    normal = np.column_stack([np.interp(turn, steps, np.append(inward[:, i], inward[0, i])) for i in (0, 1)])
    outline = np.vstack([wall - 0.6 * normal, (wall + normal * (thickness * profile)[:, None])[::-1]])
    centre = wall[20] - 12 * normal[20]
    push = Push((float(centre[0]), float(centre[1])), 12 + thickness, 0.7 * thickness)
    return Bleed(lesion, section, outline, push)


def _shape_intraparenchymal(
    lesion: Lesion, section: float, level: float, inner: np.ndarray, rng: np.random.Generator
) -> Bleed:
    """Outline a lumpy blob inside the brain; small ones lie anywhere, large ones deeper."""
    half_width, half_length = float(np.abs(inner[:, 0]).max()), float(np.abs(inner[:, 1]).max())
    radius = section * (9.0 + 16.0 * lesion.size**1.3)
    if level < 0.15:
        u, v = (0.22 + 0.30 * rng.random(), 0.45 + 0.2 * rng.random()) if lesion.place < 0.6 else (0.58, -0.18)
    elif level < 0.36:
        u, v = (0.55 + 0.15 * rng.random(), -0.2 + 0.5 * lesion.place)
    elif lesion.place < 0.45 and level < 0.6:
        u, v = 0.20 + 0.26 * rng.random(), -0.15 + 0.25 * rng.random()  # basal ganglia, thalamus
    else:
        bearing = (
            np.pi * (0.12 + 0.76 * (lesion.place - 0.45) / 0.55)
            if lesion.place >= 0.45
            else np.pi * lesion.place / 0.45
        )
        far = 0.45 + 0.3 * rng.random()
        u, v = far * np.sin(bearing), -far * np.cos(bearing)
    room = max(0.86 - 1.15 * radius / half_width, 0.12)
    u, v = np.array([u, v]) * min(1.0, room / float(np.hypot(u, v)))
    centre = (lesion.side * max(u * half_width, 0.9 * radius + 1.5), v * half_length)
    waves = np.column_stack([rng.normal(0, (0.12, 0.10, 0.07, 0.05)), rng.uniform(0, 6.3, 4)])
    stretch = rng.uniform(1.0, 1.55)
    outline = blob(centre, (radius / np.sqrt(stretch), radius * np.sqrt(stretch)), rng.uniform(-0.7, 0.7), waves)
    return Bleed(lesion, section, outline, Push(centre, radius, 0.38 * radius))


def draw_bleeds(anatomy: Anatomy, bleeds: list[Bleed]) -> list[np.ndarray]:
    """Draw the blood of one slice.

    Args:
        anatomy: the healthy head, drawn with the bleeds' pushes; its canvas is drawn upon.
        bleeds: the sections.

    Returns:
        One uint8 canvas mask (coverage, 0-255) for each bleed, in the same order.
    """
    canvas, pushes = anatomy.canvas, anatomy.canvas.pushes
    canvas.pushes = ()  # outlines are already where the blood lies
    masks = []
    for bleed in bleeds:
        if bleed.outline is None:
            canvas.pushes = pushes
            draw = _fill_ventricles if bleed.lesion.kind == "intraventricular" else _fill_sulci
            masks.append(draw(anatomy, bleed))
            canvas.pushes = ()
        else:
            masks.append(_fill_outline(anatomy, bleed))
    return masks


def _blend(canvas: Canvas, mask: np.ndarray, value: float | np.ndarray) -> None:
    canvas.hu += (np.float32(1) * value - canvas.hu) * (mask * np.float32(1 / 255))


def _fill_outline(anatomy: Anatomy, bleed: Bleed) -> np.ndarray:
    """Fill a blob, lens or crescent; a blob gets a dark rim of oedema first."""
    assert bleed.outline is not None
    canvas, lesion = anatomy.canvas, bleed.lesion
    mask = cv2.min(canvas.mask(bleed.outline), anatomy.inside)
    if lesion.kind == "intraparenchymal":
        rng = np.random.default_rng(lesion.shape + 1)
        reach = float(rng.uniform(0.8, 4.5))
        halo = cv2.GaussianBlur(cv2.dilate(mask, _disc(reach * 1.6)), (0, 0), 1.2 * PIXELS_PER_MM)
        brain = cv2.subtract(anatomy.inside, cv2.max(anatomy.cisterns, anatomy.ventricles))
        _blend(canvas, (cv2.min(halo, brain) * np.float32(rng.uniform(0.35, 0.8))), OEDEMA_HU)
        mask = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(0.5, 1.1)) * PIXELS_PER_MM)
        _blend(canvas, mask, lesion.hu + _clots(lesion, 2.5))
    else:
        _blend(canvas, mask, lesion.hu + _clots(lesion, 3.0))
    return mask


def _clots(lesion: Lesion, spread: float) -> np.ndarray:
    """Draw the unevenness of clotted and liquid blood: float32 field over the canvas, in HU."""
    coarse = np.random.default_rng(lesion.shape + 2).standard_normal((26, 21), np.float32) * np.float32(spread)
    return cv2.resize(coarse, CANVAS_SHAPE[::-1], interpolation=cv2.INTER_CUBIC)


def _disc(radius_mm: float) -> np.ndarray:
    size = 2 * max(1, round(radius_mm * PIXELS_PER_MM)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


def _fill_ventricles(anatomy: Anatomy, bleed: Bleed) -> np.ndarray:
    """Fill one side of the ventricles, or let the blood settle at the back of both."""
    lesion, scale = bleed.lesion, anatomy.canvas.half_width / 66
    rows = (np.arange(CANVAS_SHAPE[0], dtype=np.float32) - CANVAS_CENTRE[1]) / PIXELS_PER_MM
    columns = (np.arange(CANVAS_SHAPE[1], dtype=np.float32) - CANVAS_CENTRE[0]) / PIXELS_PER_MM
    if lesion.place < 0.5:
        front = (14 + 20 * (1 - lesion.size)) * scale
        weight = np.repeat(np.clip(rows - front, 0, 1)[:, None], CANVAS_SHAPE[1], axis=1)
    else:
        weight = np.repeat(np.clip(lesion.side * columns + 2, 0, 1)[None], CANVAS_SHAPE[0], axis=0)
    mask = (anatomy.ventricles * weight).astype(np.uint8)
    _blend(anatomy.canvas, mask, lesion.hu - 4)
    return mask


def _fill_sulci(anatomy: Anatomy, bleed: Bleed) -> np.ndarray:
    """Let blood run along the sulci, fissures and cisterns near its source."""
    canvas, lesion = anatomy.canvas, bleed.lesion
    blood: np.ndarray = np.zeros(CANVAS_SHAPE, np.uint8)
    trail = np.zeros(CANVAS_SHAPE, np.uint8)
    foci = _foci(anatomy, lesion)
    reach = (34 + 20 * lesion.size) * (0.6 + 0.4 * bleed.section)
    rng = np.random.default_rng(lesion.shape)
    width = 2.0 + 1.7 * rng.random()
    for line in anatomy.sulci:
        away = np.min(np.hypot(*(line[:, None] - foci[None]).transpose(2, 0, 1)), axis=1)
        thin = float(rng.uniform(0.7, 1.0))
        for low, part in ((0.6, 1.0), (0.85, 0.85), (1.0, 0.6)):  # the blood thins out away from its source
            near = away < reach * low
            if near.sum() > 1:
                canvas.trace(trail, line[near], width * part, part * thin)
                blood = cv2.max(blood, trail)
                trail[:] = 0
    distance = np.full(CANVAS_SHAPE, 255, np.uint8)
    for u, v in canvas.place(foci):
        cv2.circle(distance, (round(u), round(v)), round(reach * PIXELS_PER_MM), 0, -1)
    pooled = np.clip(2.0 * anatomy.cisterns - 140, 0, 255).astype(np.uint8)
    mask = cv2.max(blood, cv2.min(pooled, cv2.bitwise_not(distance)))
    mask = cv2.GaussianBlur(cv2.min(mask, anatomy.inside), (0, 0), 0.65 * PIXELS_PER_MM)
    _blend(canvas, mask, lesion.hu + 5 + _clots(lesion, 2.0))
    return mask


def _foci(anatomy: Anatomy, lesion: Lesion) -> np.ndarray:
    """Choose the sources: the basal cisterns of an aneurysm, or one place on the convexity after a blow.

    Returns:
        float64 array (F, 2), u and v in mm.
    """
    half_width = anatomy.canvas.half_width
    if lesion.place < 0.5 and lesion.middle < 0.5:
        foci = [(0, -12), (lesion.side * 24, -17), (lesion.side * 42, -14), (lesion.side * 50, 0)]
        if lesion.size > 0.5:
            foci += [(-lesion.side * 24, -17), (-lesion.side * 42, -12), (0, 16)]
        return np.array(foci, np.float64) * half_width / 66
    turn = (0.18 + 0.64 * lesion.place) / 2
    index = int((turn if lesion.side == 1 else 1 - turn) * len(anatomy.inner))
    return (anatomy.inner[index] + 9 * anatomy.inward[index])[None]
