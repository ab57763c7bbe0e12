"""Tabulate what a threshold costs: specificity, predictive values and likelihood ratios at given sensitivities."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from classify.scores.metrics import ThresholdRule
from classify.scores.small import share_interval
from classify.scores.tables.splits import SplitReading
from features.common.arrays import UNKNOWN, Decisions, Thresholds

#: The sensitivities that thresholds are fitted for, beside the run's own rule.
SENSITIVITIES = ("0.90", "0.95", "0.99")
#: The figures of a point, in their order.
POINT_FIGURES = ("sensitivity", "specificity", "ppv", "npv", "lr_positive", "lr_negative")
#: A figure, the ends of its interval, and how that was made.
_Ends = tuple[float | None, float | None, float | None, str]


class OperatingFigure(NamedTuple):
    """One figure of one threshold of one label on one split; None where it is not defined.

    Attributes:
        at: the rule that the threshold is fitted for.
        prevalence: that the predictive values are for.
        figure: one of `POINT_FIGURES`.
        interval: how the 95 % interval was made; empty where there is none.
    """

    split: str
    label: str
    at: str
    threshold: float
    prevalence: float
    figure: str
    value: float | None
    low: float | None
    high: float | None
    interval: str


def list_operating_points(
    label_names: Sequence[str],
    splits: Sequence[SplitReading],
    run_rule: ThresholdRule,
    run_thresholds: Thresholds,
    fit: Callable[[ThresholdRule], tuple[Thresholds, Decisions]],
    prevalences: Mapping[str, float],
) -> list[OperatingFigure]:
    """Tabulate each label on each split, at each of `SENSITIVITIES` and at the run's threshold.

    Args:
        label_names: the L labels.
        splits: `oof` first.
        run_rule: what the run's thresholds are fitted for.
        run_thresholds: the final model's.
        fit: fits thresholds on all training images, and decides these cross-fitted.
        prevalences: by label, where its share among the images is not what predictive values are for.
    """
    rows = []
    rules = [ThresholdRule.parse(f"sensitivity={share}") for share in SENSITIVITIES]
    fitted = {rule.text: fit(rule) for rule in rules if rule.text != run_rule.text}
    for split in splits:
        points = {text: (cuts, binary if split.name == "oof" else None) for text, (cuts, binary) in fitted.items()}
        points[run_rule.text] = run_thresholds, split.binary
        for index, label in enumerate(label_names):
            known = split.labels[:, index] != UNKNOWN
            truth, units = split.labels[known, index], split.unit_of_row[known]
            prevalence = prevalences.get(label, float(truth.mean()) if len(truth) else 0.0)
            for text, (cuts, decided) in points.items():
                cut = float(cuts[index])
                binary = split.probabilities[known, index] >= cut if decided is None else decided[known, index]
                for figure, ends in measure_point(truth, binary, units, prevalence).items():
                    rows.append(OperatingFigure(split.name, label, text, cut, prevalence, figure, *ends))
    return rows


def measure_point(
    truth: np.ndarray, binary: np.ndarray, unit_of_row: np.ndarray, prevalence: float
) -> dict[str, _Ends]:
    """Compute `POINT_FIGURES` of decisions, each with its 95 % interval and how that was made.

    Shares have Wilson's interval, for as many images as they count for by the design effect of groups. The ratios' are
    made of those of the two shares by MOVER-R (Donner and Zou 2012; Newcombe 2016), as if these were independent.
    Predictive values are for a known prevalence: their odds are its odds times a likelihood ratio, and so are the ends.

    Args:
        truth: uint8 array (N,), 0 or 1.
        binary: array (N,), 0 or 1.
        unit_of_row: int64 array (N,), the groups.
        prevalence: 0 to 1.
    """
    nothing: _Ends = (None, None, None, "")
    if not len(truth) or truth.min() == truth.max():
        found: dict[str, _Ends] = dict.fromkeys(POINT_FIGURES, nothing)
        if len(truth):
            figure = "sensitivity" if truth[0] else "specificity"
            found[figure] = _share(binary == truth[0], unit_of_row)
        return found
    positive, negative = truth == 1, truth == 0
    hits, missed = (_share(binary[positive] == value, unit_of_row[positive]) for value in (1, 0))
    alarms, passed = (_share(binary[negative] == value, unit_of_row[negative]) for value in (1, 0))
    raised, cleared = _ratio(hits, alarms), _ratio(missed, passed)
    odds = prevalence / (1 - prevalence) if prevalence < 1 else math.inf
    return {
        "sensitivity": hits,
        "specificity": passed,
        "ppv": _predict(raised, odds),
        "npv": _flip(_predict(cleared, odds)),
        "lr_positive": raised,
        "lr_negative": cleared,
    }


def _share(hits: np.ndarray, unit_of_row: np.ndarray) -> _Ends:
    """A share of rows, with its interval."""
    low, high, how, _ = share_interval(hits.astype(np.uint8), unit_of_row)
    return float(hits.mean()), low, high, how


def _ratio(above: _Ends, below: _Ends) -> _Ends:
    """The ratio of two shares, maybe infinite; none of 0 to 0."""
    a, b = above[0], below[0]
    if a is None or b is None or a == b == 0:
        return None, None, None, ""
    value = a / b if b else math.inf
    (_, a_low, a_high, how), (_, b_low, b_high, _) = above, below
    if a_low is None or a_high is None or b_low is None or b_high is None:
        return value, None, None, ""
    least, most = b_high * (2 * b - b_high), b_low * (2 * b - b_low)  # the first may be below 0, not the second
    low = 0.0
    if a and least:
        low = (a * b - math.sqrt(max((a * b) ** 2 - a_low * (2 * a - a_low) * least, 0.0))) / least
    elif a:  # the equation of the end is linear
        low = a_low * (2 * a - a_low) / (2 * a * b)
    high = math.inf
    if most > 0:
        high = (a * b + math.sqrt(max((a * b) ** 2 - a_high * (2 * a - a_high) * most, 0.0))) / most
    return value, low, high, f"MOVER-R of two: {how}"


def _predict(ratio: _Ends, odds: float) -> _Ends:
    """The probability of the label after a result of a likelihood ratio."""
    value, low, high = (None if end is None else _to_share(end * odds) for end in ratio[:3])
    return value, low, high, ratio[3]


def _flip(share: _Ends) -> _Ends:
    """The rest of a share to 1."""
    value, low, high = (None if end is None else 1 - end for end in share[:3])
    return value, high, low, share[3]


def _to_share(odds: float) -> float:
    """Turn odds into a share."""
    return 1.0 if math.isinf(odds) else odds / (1 + odds)
