"""Draw what lies inside a synthetic brain: hindbrain, deep nuclei, dura and calcifications."""

import numpy as np

from scripts.phantom_canvas import Canvas, blob, mirrored, ribbon, smooth
from scripts.phantom_plan import Head

# Typical CT numbers in HU.
GREY_HU = 37.0
DURA_HU = 50.0
CALCIFICATION_HU = 260.0


def draw_hindbrain(canvas: Canvas, cisterns: np.ndarray, head: Head, level: float) -> None:
    """Draw cerebellum and brain stem, higher up the midbrain.

    Args:
        canvas: drawn upon.
        cisterns: uint8 canvas mask of CSF; the folds of the cerebellum are traced into it.
        head: anatomy.
        level: 0 skull base to 1 vertex.
    """
    scale = canvas.half_width / 66
    grey, white = GREY_HU - 1, GREY_HU - 0.6 * head.contrast
    if level < 0.26:
        wide = float(np.interp(level, (0, 0.15, 0.26), (44, 50, 22)))
        canvas.paint(blob((0, 38 * scale), (wide * scale, 33 * scale)), grey, 0.9, 1.5)
        for side in (1, -1):
            canvas.paint(blob((side * 0.42 * wide * scale, 33 * scale), (0.26 * wide, 13), side * 0.5), white, 0.9, 3)
            for arc in range(5):
                fold = [(6 + arc, 52 + 3.6 * arc), (0.5 * wide, 45 + 4.0 * arc), (0.85 * wide, 30 + 3.5 * arc)]
                line = smooth(np.array(mirrored(fold, side)) * scale, closed=False)
                canvas.trace(cisterns, line, 0.5, 0.10 + 0.25 * head.atrophy)
        canvas.paint(blob((0, 45 * scale), (4, 20)), grey + 2, 0.7, 1.5)
    canvas.paint(blob((0, 7 * scale), (13.5 * scale, (12 if level < 0.18 else 10) * scale)), white + 2, 0.95, 1.0)


def draw_deep_nuclei(canvas: Canvas, head: Head, level: float) -> None:
    """Draw caudate, lentiform nucleus, thalamus, insula and the capsules between them.

    Args:
        canvas: drawn upon.
        head: anatomy.
        level: 0.3-0.6, where they are seen.
    """
    grey, white = GREY_HU + 0.5, GREY_HU - head.contrast - 0.5
    scale, shown = canvas.half_width / 66, float(np.interp(level, (0.30, 0.36, 0.54, 0.60), (0.2, 1, 1, 0.2)))
    for side in (1, -1):
        capsule = [(15, -34), (17, -17), (13, -8), (19, 4), (24, 18)]
        shapes = (
            (ribbon(mirrored(capsule, side), [6, 6, 5, 6, 8]), white, 1.2),
            (ribbon(mirrored([(34, -22), (34.5, -8), (33, 8)], side), [2, 2.5, 2]), white, 0.8),
            (blob((side * 25.5, -9), (7, 15), -side * 0.28), grey, 1.0),
            (blob((side * 12.5, -24), (4.5, 8), side * 0.25), grey, 0.9),
            (blob((side * 10.5, 6), (7.5, 13), -side * 0.35), grey, 1.2),
        )
        for outline, value, blur in shapes:
            canvas.paint(outline * scale, value, 0.9 * shown, blur)


def draw_dura(canvas: Canvas, head: Head, level: float) -> None:
    """Draw falx, tentorium and the large sinuses, denser than brain.

    Args:
        canvas: drawn upon.
        head: anatomy.
        level: 0 skull base to 1 vertex.
    """
    thick, scale = 0.9 + 0.8 * head.calcified, canvas.half_width / 66
    front, back = -canvas.half_length, canvas.half_length
    if level > 0.24:
        canvas.paint(
            ribbon([(0, front), (0, 0.75 * front), (0, -40 if level < 0.64 else 0)], [2, thick, 0.7]), DURA_HU, 0.75
        )
    if level > 0.36:
        canvas.paint(
            ribbon([(0, back), (0, 0.7 * back), (0, 36 if level < 0.64 else 0)], [2.5, thick, 0.7]), DURA_HU, 0.75
        )
        sinus = [(-4.5, back - 1), (4.5, back - 1), (0, back - 10)]
        canvas.paint(smooth(np.array(sinus), closed=True), DURA_HU + 3, 0.9, 0.4)
    if level > 0.8:
        canvas.paint(
            smooth(np.array([(-3.5, front + 1), (3.5, front + 1), (0, front + 7)]), closed=True), DURA_HU, 0.8, 0.4
        )
    if 0.17 < level < 0.37:
        spread = float(np.interp(level, (0.17, 0.37), (46, 12)))
        for side in (1, -1):
            leaf = [
                (side * spread * scale, (20 + 0.5 * spread) * scale),
                (side * 0.5 * spread, 32 * scale),
                (0, 27 * scale),
            ]
            if level > 0.27:
                leaf = [
                    (side * spread * scale, (32 + spread) * scale),
                    (side * 0.35 * spread, 42 * scale),
                    (0, 30 * scale),
                ]
            canvas.paint(ribbon(leaf, [1.6, 1.0, 0.9]), DURA_HU - 2, 0.6)
        canvas.paint(ribbon([(0, back), (0, 0.85 * back)], [4, 1.5]), DURA_HU + 2, 0.8)


def draw_calcifications(canvas: Canvas, head: Head, level: float) -> None:
    """Draw pineal gland, choroid plexus, falx plaque and pallidum where the plan has them calcified.

    Args:
        canvas: drawn upon.
        head: anatomy.
        level: 0 skull base to 1 vertex.
    """
    scale, degree = canvas.half_width / 66, head.calcified
    if degree > 0.3 and 0.37 < level < 0.46:
        canvas.paint(blob((0.4, 20 * scale), (1.3 + 1.4 * degree, 1.6 + 1.2 * degree)), CALCIFICATION_HU * degree, 0.9)
    if degree > 0.42 and 0.44 < level < 0.58:
        for side in (1, -1):
            lump = np.array([[0.25, degree * 9], [0.2, side * 1.0]])
            canvas.paint(
                blob((side * 23.5 * scale, 31 * scale), (0.6 + 1.6 * degree, 1.2 + 2.2 * degree), side * 0.3, lump),
                CALCIFICATION_HU * degree,
                0.9,
            )
    if degree > 0.7 and abs(level - 0.6 - 2 * (degree - 0.7)) < 0.09:
        v = -canvas.half_length * (0.45 + 0.3 * np.sin(40 * degree))
        canvas.paint(ribbon([(0.5, v - 5), (0.8, v), (0.4, v + 6)], [0.8, 2.4, 0.8]), CALCIFICATION_HU * 1.5, 0.9)
    if degree > 0.85 and 0.36 < level < 0.48:
        for side in (1, -1):
            canvas.paint(blob((side * 21 * scale, -8 * scale), (2.0, 5.0), -side * 0.4), 75, 0.6, 0.8)
