"""Say what more groups would bring: a power law through the scores of models that learnt from fewer."""

from typing import NamedTuple

import numpy as np

from classify.scores.resampling import percentile_interval

#: Exponents of the power law that are tried. Learning curves mostly have 0.1 to 1 (Viering and Loog 2021, section 4);
#: steeper ones are allowed, as they promise less.
_EXPONENTS = np.geomspace(0.05, 2, 40)
#: How far beyond the groups at hand the law is drawn.
REACH = 2.0
#: Sizes at which the law is drawn.
_POINTS = 25


class CurvePoint(NamedTuple):
    """A macro ROC-AUC, or a difference of two, for models that learn from so many groups; None where not defined.

    Attributes:
        groups: mean over the folds.
        low, high: the 95 % interval.
    """

    groups: float
    value: float
    low: float | None
    high: float | None


class LearningCurve(NamedTuple):
    """What models score by the groups that they learnt from.

    Attributes:
        measured: fewest groups first; the last learnt from all.
        law: the power law, from the fewest groups to `REACH` times all.
        rise: what the measured score gained from about half of the groups to all.
        gain: what the law gains from all groups to `REACH` times as many.
    """

    measured: tuple[CurvePoint, ...]
    law: tuple[CurvePoint, ...]
    rise: CurvePoint
    gain: CurvePoint

    @property
    def says_nothing(self) -> bool:
        """Whether the bands are too wide to say anything of the gain.

        By a power law of exponent 1, the steepest that large models follow, twice the groups halve the error at most.
        The band of the gain may cover half of what is thus possible, that of the rise all of it: where the last
        doubling cannot be measured, a law that is none below 0 still has a narrow band for the next.
        """
        return self.doubts_rise or self._wider(self.gain, (1 - self.measured[-1].value) / 4)

    @property
    def doubts_rise(self) -> bool:
        """Whether the band of the rise is too wide."""
        return self._wider(self.rise, (1 - self.measured[-1].value) / 2)

    @staticmethod
    def _wider(point: CurvePoint, limit: float) -> bool:
        """Whether the band of a point is wider than so much, or not known."""
        return point.low is None or point.high is None or point.high - point.low > limit


def make_curve(groups: np.ndarray, draws: np.ndarray) -> LearningCurve:
    """Fit an inverse power law (Figueroa et al. 2012) to the error, 1 - score, and to that of every bootstrap draw.

    Args:
        groups: float64 array (S,), ascending, at least 3: how many groups the models learnt from; the last is all.
        draws: float64 array (S, 1 + B): their scores, on the rows as they are and on bootstrap draws of groups; NaN
            where not defined.
    """
    kept = draws[:, ~np.isnan(draws).any(axis=0)]
    spread = np.maximum(kept[:, 1:].std(axis=1), 1e-6) if kept.shape[1] > 2 else np.ones(len(groups))
    sizes = np.geomspace(groups[0], REACH * groups[-1], _POINTS)
    ends = np.append(sizes, groups[-1])
    law = 1 - _extrapolate(groups, 1 - kept, spread, ends)
    half = int(np.abs(groups - groups[-1] / 2).argmin())
    return LearningCurve(
        tuple(_point(size, own) for size, own in zip(groups, kept, strict=True)),
        tuple(_point(size, own) for size, own in zip(sizes, law, strict=False)),
        _point(groups[-1], kept[-1] - kept[half]),
        _point(REACH * groups[-1], law[-2] - law[-1]),
    )


def _extrapolate(groups: np.ndarray, errors: np.ndarray, spread: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Fit a + b * groups ** -c, none below 0, to each column of errors (S, B) by weighted least squares.

    Returns:
        float64 array (len(sizes), B): the law at other sizes.
    """
    scale = groups[-1]  # so that powers stay near 1
    weights = 1 / spread**2 / (1 / spread**2).sum()
    best = np.full(errors.shape[1], np.inf)
    found = np.empty((len(sizes), errors.shape[1]))
    for exponent in _EXPONENTS:
        powers = (groups / scale) ** -exponent
        mean, of_errors = weights @ powers, weights @ errors
        variance = weights @ (powers - mean) ** 2
        slope = np.maximum((weights * (powers - mean)) @ (errors - of_errors) / variance, 0)
        floor = of_errors - slope * mean
        through_zero = floor < 0
        slope = np.where(through_zero, (weights * powers) @ errors / (weights @ powers**2), slope)
        floor = np.where(through_zero, 0, floor)
        lost = weights @ (errors - floor - np.outer(powers, slope)) ** 2
        better = lost < best
        best = np.where(better, lost, best)
        found[:, better] = (floor + np.outer((sizes / scale) ** -exponent, slope))[:, better]
    return found


def _point(groups: float, values: np.ndarray) -> CurvePoint:
    """Make a point of its value on the rows as they are, the first, and on the draws, the others."""
    return CurvePoint(float(groups), float(values[0]), *percentile_interval(values))
