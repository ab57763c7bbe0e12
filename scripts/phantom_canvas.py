"""Draw smooth outlines, given in millimetres of the head, on a canvas of CT numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

PIXELS_PER_MM = 2.0
CANVAS_SHAPE = (520, 420)  # rows, columns: 260 mm from nose to neck, 210 mm from ear to ear
CANVAS_CENTRE = (210.0, 265.0)  # x, y of the middle of the brain
SUBPIXEL_BITS = 4
AIR_HU = -1000.0


@dataclass(frozen=True)
class Push:
    """Mass effect: tissue gives way to a lesion, less so with distance.

    Attributes:
        centre: u, v of the lesion in mm.
        radius: mm within which the push is full.
        distance: mm of displacement at the lesion's rim.
    """

    centre: tuple[float, float]
    radius: float
    distance: float


class Canvas:
    """An axial slice of CT numbers in the head's own frame: u to the right of the image, v to the back, in mm.

    Attributes:
        hu: float32 array (520, 420), CT numbers, air to begin with.
        half_width: mm from the midline to the inner skull; displacement fades out towards it.
        half_length: mm from the middle to the inner skull in front and behind.
        pushes: the mass effects that move whatever is drawn; empty while bone is drawn.
    """

    def __init__(self, half_width: float, half_length: float) -> None:
        self.hu = np.full(CANVAS_SHAPE, AIR_HU, np.float32)
        self.half_width = half_width
        self.half_length = half_length
        self.pushes: tuple[Push, ...] = ()

    def place(self, points: np.ndarray) -> np.ndarray:
        """Turn points in mm into pixels.

        Args:
            points: float array (N, 2) of u, v in mm.

        Returns:
            float64 array (N, 2) of x, y in pixels, after the mass effects.
        """
        moved = np.asarray(points, np.float64)
        for push in self.pushes:
            offset = moved - push.centre
            distance = np.maximum(np.hypot(offset[:, 0], offset[:, 1]), 1e-6)
            towards_skull = np.hypot(moved[:, 0] / self.half_width, moved[:, 1] / self.half_length)
            fade = np.exp(-((np.maximum(distance - push.radius, 0) / 42.0) ** 2)) * np.clip(
                (1 - towards_skull) / 0.3, 0, 1
            )
            moved = moved + offset * (push.distance * fade / distance)[:, None]
        return moved * PIXELS_PER_MM + CANVAS_CENTRE

    def mask(self, points: np.ndarray) -> np.ndarray:
        """Fill an outline on an empty canvas.

        Args:
            points: float array (N, 2) of u, v in mm.

        Returns:
            uint8 array of the canvas' shape: coverage, 0-255.
        """
        mask = np.zeros(CANVAS_SHAPE, np.uint8)
        cv2.fillPoly(mask, [_fixed_point(self.place(points))], 255, cv2.LINE_AA, SUBPIXEL_BITS)
        return mask

    def paint(self, points: np.ndarray, value: float, opacity: float = 1.0, blur_mm: float = 0.0) -> None:
        """Blend a CT number into an outline.

        Args:
            points: float array (N, 2) of u, v in mm.
            value: CT number in HU.
            opacity: 0-1, how much of what lies below is replaced.
            blur_mm: standard deviation in mm of the edge; 0 leaves it sharp to a pixel.
        """
        pixels = self.place(points)
        margin = 2 + int(3 * blur_mm * PIXELS_PER_MM)
        low = np.maximum(np.floor(pixels.min(axis=0)).astype(int) - margin, 0)
        high = np.minimum(np.ceil(pixels.max(axis=0)).astype(int) + margin, (CANVAS_SHAPE[1], CANVAS_SHAPE[0]))
        if (high <= low).any():
            return
        coverage = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillPoly(coverage, [_fixed_point(pixels - low)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
        if blur_mm > 0:
            coverage = cv2.GaussianBlur(coverage, (0, 0), blur_mm * PIXELS_PER_MM)
        below = self.hu[low[1] : high[1], low[0] : high[0]]
        below += (np.float32(value) - below) * (coverage * np.float32(opacity / 255))

    def trace(self, mask: np.ndarray, points: np.ndarray, width_mm: float, coverage: float) -> None:
        """Draw an open line into a mask.

        Args:
            mask: uint8 array of the canvas' shape; drawn upon.
            points: float array (N, 2) of u, v in mm.
            width_mm: width of the line in mm; half a millimetre is the least.
            coverage: 0-1, how opaque the line is.
        """
        thickness = max(1, round(width_mm * PIXELS_PER_MM))
        line = _fixed_point(self.place(points))
        cv2.polylines(mask, [line], False, int(255 * coverage), thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _fixed_point(pixels: np.ndarray) -> np.ndarray:
    return np.round(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)


def smooth(points: np.ndarray, closed: bool, rounds: int = 2) -> np.ndarray:
    """Round the corners of a line.

    Args:
        points: float array (N, 2).
        closed: whether the last point joins the first.
        rounds: how often every corner is cut (Chaikin 1974).

    Returns:
        float64 array (M, 2), M > N.
    """
    line = np.asarray(points, np.float64)
    for _ in range(rounds):
        following = np.roll(line, -1, axis=0) if closed else line[1:]
        current = line if closed else line[:-1]
        cut = np.stack([0.75 * current + 0.25 * following, 0.25 * current + 0.75 * following], axis=1).reshape(-1, 2)
        line = cut if closed else np.vstack([line[:1], cut, line[-1:]])
    return line


def ribbon(points: Sequence[tuple[float, float]], widths: list[float]) -> np.ndarray:
    """Outline a curved band.

    Args:
        points: u, v in mm along the middle of the band.
        widths: mm, one for each point.

    Returns:
        float64 array (M, 2): the closed outline.
    """
    middle = smooth(np.column_stack([np.asarray(points, np.float64)]), closed=False)
    along = np.linspace(0, 1, len(middle))
    half = 0.5 * np.interp(along, np.linspace(0, 1, len(widths)), widths)
    tangent = np.gradient(middle, axis=0)
    tangent /= np.maximum(np.hypot(tangent[:, 0], tangent[:, 1]), 1e-6)[:, None]
    normal = np.column_stack([-tangent[:, 1], tangent[:, 0]]) * half[:, None]
    return np.vstack([middle + normal, (middle - normal)[::-1]])


def blob(
    centre: tuple[float, float],
    radii: tuple[float, float],
    turn: float = 0.0,
    waves: np.ndarray | None = None,
) -> np.ndarray:
    """Outline an ellipse, lumpy if asked.

    Args:
        centre: u, v in mm.
        radii: half axes in mm along u and v before the turn.
        turn: radians, clockwise as seen in the image.
        waves: float array (K, 2), amplitude (of the radius) and phase of K waves of 2, 3, ... lobes; None for a
            plain ellipse.

    Returns:
        float64 array (48, 2): the closed outline.
    """
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = np.ones_like(angle)
    if waves is not None:
        for lobes, (amplitude, phase) in enumerate(waves, start=2):
            radius += amplitude * np.cos(lobes * angle + phase)
    u, v = radii[0] * radius * np.cos(angle), radii[1] * radius * np.sin(angle)
    return np.column_stack(
        [centre[0] + u * np.cos(turn) - v * np.sin(turn), centre[1] + u * np.sin(turn) + v * np.cos(turn)]
    )


def mirrored(points: Sequence[tuple[float, float]], side: int) -> list[tuple[float, float]]:
    """Put points given for the right of the image on one side.

    Args:
        points: u, v in mm, u positive to the right of the image.
        side: 1 keeps them, -1 mirrors them over the midline.

    Returns:
        The points on that side.
    """
    return [(side * u, v) for u, v in points]
