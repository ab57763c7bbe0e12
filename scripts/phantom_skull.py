"""Draw the skull, the scalp and the bony base with orbits and air cells of a synthetic head."""

import numpy as np

from scripts.phantom_canvas import Canvas, blob, mirrored, ribbon, smooth
from scripts.phantom_plan import Head, Patient

CORTICAL_HU = 1300.0
DIPLOE_HU = 750.0
FAT_HU = -90.0
MUSCLE_HU = 52.0
SKIN_HU = 46.0
SWELLING_HU = 48.0


def draw_skull(canvas: Canvas, head: Head, level: float, inner: np.ndarray, inward: np.ndarray) -> None:
    """Draw scalp, muscles and the vault.

    Args:
        canvas: drawn upon.
        head: anatomy.
        level: 0 skull base to 1 vertex.
        inner: float array (180, 2), the inner skull in mm, clockwise from the forehead.
        inward: float array (180, 2), its unit normals towards the brain.
    """
    angle = np.linspace(0, 2 * np.pi, len(inner), endpoint=False)
    front, back, sides = np.cos(angle), -np.cos(angle), np.abs(np.sin(angle))
    oblique = float(np.interp(level, (0.7, 0.95), (1.0, 2.1)))  # the vault is cut ever more aslant
    bone = head.bone * oblique * (1 + 0.25 * np.clip(back, 0, 1) ** 4 - 0.22 * sides**6)
    bone = bone + 5.5 * np.clip(front, 0, 1) ** 14 * float(np.interp(level, (0.1, 0.2, 0.35, 0.45), (1.1, 1.2, 1, 0)))
    muscle = np.exp(-(((sides - 1.0) / 0.16) ** 2)) * np.exp(-(((front - 0.25) / 0.45) ** 2))
    muscle = muscle * float(np.interp(level, (0.1, 0.3, 0.55), (9, 7, 0)))
    nape = np.clip(back, 0, 1) ** 3 * float(np.interp(level, (0.0, 0.2), (9, 0)))
    scalp = head.scalp * (1 + 0.25 * np.clip(back, 0, 1)) + muscle + nape
    swelling = np.zeros_like(scalp)
    if head.bruise:
        swelling = 8 * np.exp(-(((np.sin(angle) * head.bruise - 0.9) / 0.35) ** 2)) * (level > 0.2)
    outer = inner - inward * bone[:, None]
    canvas.paint(outer - inward * (scalp + swelling)[:, None], SKIN_HU)
    canvas.paint(outer - inward * (scalp + swelling - 2.4)[:, None], FAT_HU)
    if head.bruise:
        canvas.paint(
            outer - inward * np.minimum(1.0 + 0.85 * swelling, scalp + swelling - 2.5)[:, None], SWELLING_HU, 0.85, 1.2
        )
    canvas.paint(outer - inward * (0.9 + 0.8 * (muscle + nape))[:, None], MUSCLE_HU, 0.9, 0.4)
    canvas.paint(outer, CORTICAL_HU)
    canvas.paint(outer + inward * (0.33 * bone)[:, None], DIPLOE_HU)
    canvas.paint(outer + inward * (0.68 * bone)[:, None], CORTICAL_HU)
    if 0.12 < level < 0.36 and head.calcified < 0.8:
        _draw_frontal_sinus(canvas, outer + inward * (0.5 * bone)[:, None], bone[0], level, head)


def _draw_frontal_sinus(canvas: Canvas, middle: np.ndarray, bone: float, level: float, head: Head) -> None:
    """Hollow the frontal bone out into two lobes of air along its `middle`, float (180, 2) in mm."""
    size = float(np.interp(level, (0.12, 0.2, 0.36), (0.8, 1.0, 0.35)))
    thick = 0.58 * bone * size
    for side in (1, -1):
        steps = max(3, int(size * (5 + 6 * head.calcified + 2 * side * np.sin(head.turn * 50))))
        lobe = [(float(u), float(v)) for u, v in middle[[side * (2 + step) // 2 for step in range(steps)]]]
        lobe[0] = (side * 1.2, lobe[0][1])
        canvas.paint(ribbon(lobe, [0.5 * thick, thick, 0.8 * thick, 0.55 * thick, 0.2 * thick]), -950)


def draw_base(canvas: Canvas, patient: Patient, level: float) -> None:
    """Draw orbits, petrous bones, sphenoid wings and air cells; nothing above level 0.27.

    Args:
        canvas: drawn upon.
        patient: the plan.
        level: 0 skull base to 1 vertex.
    """
    if level >= 0.27:
        return
    rng = np.random.default_rng(np.random.SeedSequence([patient.seed, patient.number, 4, int(level * 1000)]))
    scale = canvas.half_width / 63
    if level < 0.15:
        _draw_face(canvas, rng, level, scale)
    else:
        _draw_orbital_roofs(canvas, rng, level, scale)
    _draw_petrous(canvas, rng, level, scale)
    _draw_sella(canvas, level, scale)


def _draw_face(canvas: Canvas, rng: np.random.Generator, level: float, scale: float) -> None:
    """Draw orbits with eyes and muscles, the ethmoid cells, the nose and the sphenoid wings."""

    def paint(outline: np.ndarray, value: float, opacity: float = 1.0, blur: float = 0.3) -> None:
        canvas.paint(outline * scale, value, opacity, blur)

    wing = [(64, -34), (50, -44), (34, -36), (14, -26)]
    front = [(0, -92), (22, -90), (44, -80), (60, -60), (66, -38)]
    edge = [*wing, *mirrored(wing[::-1], -1), *mirrored(front[::-1], -1), *front[1:]]
    paint(smooth(np.array(edge, np.float64), closed=True), FAT_HU)
    nose = [(-15, -86), (-9, -98), (0, -108), (9, -98), (15, -86)]
    paint(smooth(np.array(nose, np.float64), closed=True), SKIN_HU)
    paint(smooth(np.array([(-11, -80), (0, -98), (11, -80)], np.float64), closed=True), 700, 0.9)
    paint(smooth(np.array([(-5, -80), (0, -93), (5, -80)], np.float64), closed=True), -900, 0.9)
    paint(blob((0, -60), (13, 28)), 350)
    for row in range(6):
        for column in (-1, 0, 1):
            cell = rng.uniform(0.7, 1.0, 2) * (3.8, 4.3)
            u = column * 8 + rng.normal(0, 0.7)
            paint(
                blob((u, -80 + 8.6 * row + rng.normal(0, 0.8)), (cell[0], cell[1])), -900 if rng.random() < 0.88 else 20
            )
    paint(blob((0, -30), (11, 8)), -900 if rng.random() < 0.7 else 500)
    for side in (1, -1):
        eye = (side * 32.0, -76.0 + rng.normal(0, 1))
        size = float(np.interp(level, (0.0, 0.05, 0.13), (9, 12, 9)))
        paint(ribbon(mirrored([(45, -88), (32, -92), (18, -90)], side), [3, 3, 3]), SKIN_HU)
        for muscle in ([(43, -76), (40, -60), (17, -38)], [(20, -76), (18, -58), (13, -38)]):
            paint(ribbon(mirrored(muscle, side), [2.0, 4.2, 1.5]), 45)
        paint(ribbon(mirrored([(31, -66), (24, -52), (13, -36)], side), [3.5, 3.8, 3.5]), 38)
        paint(blob(eye, (size + 0.3, size + 0.3)), 48)
        paint(blob(eye, (size - 1.4, size - 1.4)), 10)
        paint(blob((eye[0], eye[1] - 0.62 * size), (3.6, 1.6)), 75, blur=0.6)
        paint(ribbon(mirrored([(46, -70), (45, -58), (38, -44), (24, -35)], side), [4, 5, 6, 7]), 1000)
        paint(ribbon(mirrored([(47, -74), (58, -66), (62, -52)], side), [5, 6, 4]), 1000)
        paint(ribbon(mirrored([(15, -80), (14, -58), (13, -36)], side), [1.2, 1.2, 2]), 600)
        paint(blob((side * 56, -50), (6.5, 12), side * 0.3), MUSCLE_HU, 0.95)
        paint(ribbon(mirrored([(67, -26), (54, -34), (38, -36), (22, -30), (12, -24)], side), [6, 4, 4, 6, 6]), 1100)


def _draw_orbital_roofs(canvas: Canvas, rng: np.random.Generator, level: float, scale: float) -> None:
    """Draw the uneven bone over the orbits, seen through in part."""
    shown = float(np.interp(level, (0.15, 0.27), (1.0, 0.0)))
    for side in (1, -1):
        for u, v, wide in ((24, -62, 13), (36, -58, 12), (29, -50, 12), (42, -46, 9)):
            waves = np.column_stack([rng.normal(0, 0.14, 5), rng.uniform(0, 6, 5)])
            where = (side * (u + rng.normal(0, 3)) * scale, (v + rng.normal(0, 3)) * scale)
            size = wide * scale * max(shown - rng.uniform(0, 0.35), 0.02)
            if size > 3:
                canvas.paint(blob(where, (size, 0.8 * size), side * 0.5, waves), 500, 0.85, 1.0)
        if level < 0.2:
            waves = np.column_stack([rng.normal(0, 0.12, 5), rng.uniform(0, 6, 5)])
            fat = blob((side * 31 * scale, -57 * scale), (13 * shown * scale, 9 * shown * scale), side * 0.5, waves)
            canvas.paint(fat, FAT_HU, 0.95, 1.0)
        wing = mirrored([(66, -30), (50, -33), (32, -27), (14, -20)], side)
        canvas.paint(
            ribbon([(u * scale, v * scale) for u, v in wing], [5 * shown, 4 * shown, 3 * shown, 4 * shown]),
            900,
            shown**1.5,
            0.8,
        )


def _draw_petrous(canvas: Canvas, rng: np.random.Generator, level: float, scale: float) -> None:
    """Draw the petrous ridges with the mastoid air cells."""
    shown = float(np.interp(level, (0.0, 0.1, 0.17, 0.23), (1.25, 1.0, 0.55, 0.0)))
    if shown <= 0.05:
        return
    for side in (1, -1):
        course = [(64, 16), (52, 10), (36, 3), (22, -4), (13, -9)]
        kept = float(np.interp(level, (0.14, 0.23), (1.0, 0.15)))  # the tips sink from view before the mastoids
        ridge = mirrored([(64 - (64 - u) * kept, 16 - (16 - v) * kept) for u, v in course], side)
        widths = [24 * shown, 19 * shown, 12 * shown, 9 * shown, 3 * shown]
        outline = ribbon([(u * scale, v * scale) for u, v in ridge], widths)
        canvas.paint(outline + rng.normal(0, 0.5, outline.shape), 1150, min(1.0, shown + 0.1), 0.6)
        for _ in range(int(26 * shown)):
            u, v = side * rng.uniform(42, 63), rng.uniform(5, 24)
            size = rng.uniform(0.8, 2.6) * shown
            canvas.paint(blob((u * scale, v * scale), (size, size * 1.3), rng.uniform(0, 3)), -850, 0.9, 0.3)
        if level < 0.14:
            canvas.paint(blob((side * 38 * scale, 6 * scale), (3.2, 1.6), -side * 0.4), -700, 0.9, 0.3)


def _draw_sella(canvas: Canvas, level: float, scale: float) -> None:
    """Draw clivus, dorsum sellae and the clinoid processes."""
    if level < 0.14:
        canvas.paint(ribbon([(-15, -16), (0, -13), (15, -16)], [9, 10, 9]) * scale, 900, 1.0, 0.8)
    elif level < 0.22:
        canvas.paint(ribbon([(-7, -8), (0, -7), (7, -8)], [3, 3.5, 3]) * scale, 900, 0.9, 0.5)
        for side in (1, -1):
            canvas.paint(ribbon(mirrored([(16, -26), (10, -20), (8, -15)], side), [6, 4, 2]) * scale, 1000, 0.9, 0.5)
