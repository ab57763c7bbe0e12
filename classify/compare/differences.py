"""Score compared runs on the same bootstrap draws, and say in what they were made differently."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from joblib import cpu_count
from scipy.stats import t as student

from classify.compare.runs import ComparedRun, JoinedRuns
from classify.crossfit.plan import in_threads
from classify.scores.choice import macro_labels
from classify.scores.metrics import MACRO, OVERALL, sign_of
from classify.scores.resampling import Resampling, percentile_interval, resample
from classify.scores.scoring import ByFold, mean_over_labels, score_label
from classify.scores.small import FEW_UNITS, count_units, few_units
from classify.scores.tables.classes import pick_classes, score_classes

#: The metrics by which runs are compared, of `SELECTORS`, and what their columns are called. The first sorts the runs.
COMPARED = {"roc_auc": "AUC", "average_precision": "AP", "log_loss": "log loss"}


class Beside(NamedTuple):
    """A figure of a run, and beside that of the first run on the same draws; None where it is not defined.

    Attributes:
        value, low, high: the figure and its 95 % interval.
        difference, difference_low, difference_high: from the first run's; None of the first run itself.
        won: share of the draws in which it is better than the first run's; half of the equal ones count.
        verdict: `better` or `worse` where the interval of the difference does not hold 0; else empty.
    """

    value: float | None
    low: float | None
    high: float | None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    won: float | None = None
    verdict: str = ""


class ScoredRun(NamedTuple):
    """A run, its figures by label (or `MACRO`, `OVERALL`) and metric, and how it was made other than the first.

    Attributes:
        settings: by name what it has; of the first run, all in which any run differs; of the others, their own.
    """

    run: ComparedRun
    figures: dict[tuple[str, str], Beside]
    settings: dict[str, str]


def score_runs(joined: JoinedRuns, on_step: Callable[[], None]) -> tuple[list[ScoredRun], dict[str, str]]:
    """Score each run, and subtract the first; on the draws of the first run, so that all meet the same ones.

    A label with fewer than `FEW_UNITS` groups of either value has an interval widened by Student's t of as many groups,
    as the bootstrap's is too narrow there.

    Args:
        joined: of R runs.
        on_step: called R * labels times, from any thread.

    Returns:
        The runs, best first by the macro AUC; and the labels that have no part in the macro scores, and why.
    """
    seed = joined.runs[0].run.record["intervals"]["seed"]
    resampling = resample(len(joined.image_ids), joined.groups, seed)
    left_out = _left_out(joined)

    def score_one(run: ComparedRun, index: int) -> dict[str, np.ndarray]:
        probability = run.probabilities[:, index]
        by_fold = ByFold(probability[None], run.fold_of_row[None])
        truth = joined.labels[:, index]
        found = {metric: score_label(metric, truth, probability, resampling, by_fold) for metric in COMPARED}
        on_step()
        return found

    calls = [(run, index) for run in joined.runs for index in range(len(joined.label_names))]
    scored = iter(in_threads(cpu_count(), score_one, calls))
    draws = [{name: next(scored) for name in joined.label_names} for _ in joined.runs]
    widths = {name: _widen(truth, resampling) for name, truth in zip(joined.label_names, joined.labels.T, strict=True)}
    counted = [name for name in joined.label_names if name not in left_out]
    widths[MACRO] = widths[counted[0]] if len(counted) == 1 else 1.0  # the mean of one label is that label
    widths[OVERALL] = 1.0
    truth = pick_classes(joined.labels)
    exclusive = all(own.run.exclusive for own in joined.runs) and bool((joined.labels.sum(axis=1) == 1).all())
    for run, of_run in zip(joined.runs, draws, strict=True):
        if exclusive:
            of_run[OVERALL] = score_classes(truth, pick_classes(run.probabilities), resampling)
        of_run[MACRO] = {
            metric: mean_over_labels({name: of_run[name][metric] for name in joined.label_names}, left_out)
            for metric in COMPARED
        }
    settings = _describe_settings([own.run.record for own in joined.runs])
    runs = []
    for place, (run, of_run) in enumerate(zip(joined.runs, draws, strict=True)):
        figures = {
            (label, metric): _stand_beside(values, draws[0][label][metric] if place else None, metric, widths[label])
            for label, of_label in of_run.items()
            for metric, values in of_label.items()
        }
        runs.append(ScoredRun(run, figures, settings[place]))

    def rank(scored_run: ScoredRun) -> float:
        value = scored_run.figures[MACRO, next(iter(COMPARED))].value
        return float("inf") if value is None else -value

    return sorted(runs, key=rank), left_out


def _left_out(joined: JoinedRuns) -> dict[str, str]:
    """The labels that have no part in the means, of any run or on the images here, and why."""
    left_out: dict[str, str] = {}
    for own in joined.runs:
        left_out |= own.run.record["selection"]["left_out"]
    left_out |= macro_labels(joined.label_names, joined.labels, None)
    kept = {name: why for name, why in left_out.items() if name in joined.label_names}
    return kept if len(kept) < len(joined.label_names) else {}


def few_labels(joined: JoinedRuns) -> list[str]:
    """Name the labels that few groups have, or lack."""
    units = resample(len(joined.image_ids), joined.groups, 0, 1).unit_of_row
    return [name for name, truth in zip(joined.label_names, joined.labels.T, strict=True) if few_units(truth, units)]


def _widen(truth: np.ndarray, resampling: Resampling) -> float:
    """How many times wider than the bootstrap's the intervals of a label are: infinite of a single group."""
    groups = count_units(truth, resampling.unit_of_row)
    if groups >= FEW_UNITS:
        return 1.0
    return float(student.ppf(0.975, groups - 1) / student.ppf(0.975, np.inf)) if groups > 1 else float("inf")


def _stand_beside(own: np.ndarray, first: np.ndarray | None, metric: str, width: float) -> Beside:
    """Describe draws, float64 (1 + draws,), and their difference from the first run's, None of the first run itself."""
    if np.isnan(own[0]):
        return Beside(None, None, None)
    alone = Beside(float(own[0]), *_interval(own, width))
    if first is None:
        return alone
    difference, sign = own - first, sign_of(metric)
    drawn = sign * difference[1:][~np.isnan(difference[1:])]
    won = float(((drawn > 0) + (drawn == 0) / 2).mean()) if len(drawn) else None
    low, high = _interval(difference, width)
    verdict = ""
    if low is not None and high is not None and (low > 0 or high < 0):
        verdict = "better" if sign * low > 0 else "worse"
    return Beside(*alone[:3], float(difference[0]), low, high, won, verdict)


def _interval(values: np.ndarray, width: float) -> tuple[float | None, float | None]:
    """The 95 % interval of a figure, so many times as wide."""
    low, high = percentile_interval(values)
    if low is None or high is None or not np.isfinite(width):
        return None, None
    return float(values[0] + width * (low - values[0])), float(values[0] + width * (high - values[0]))


def _describe_settings(records: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Say of each run in what it differs from the first; of the first, what any other has otherwise.

    What only one of two runs has (the spec of a head, how a backbone's features were made) is not a difference of its
    own: its preset or backbone is.
    """
    first, *others = [_settings(record) for record in records]
    differ = [{name: value for name, value in own.items() if first.get(name, value) != value} for own in others]
    return [{name: value for name, value in first.items() if any(name in own for own in differ)}, *differ]


def _settings(record: Mapping[str, Any]) -> dict[str, str]:
    """What made a run, by name: arguments, data, backbones, the specs of its heads, versions; as texts."""
    # Of the arguments that are here in full, or that change no result, there is no second word.
    words = {k: v for k, v in record["arguments"].items() if k not in ("labels", "backbones", "cache", "jobs")}
    found: dict[str, Any] = {name.replace("_", "-"): value for name, value in words.items()}
    found |= {"backbones": record["backbones"], "labels": record["labels"]}
    found |= {"data": record["data"], "cache": record["cache"], "groups known": record["folds"]["groups"]}
    found |= {f"images of {name}": split["images"] for name, split in record["splits"].items()}
    for model, entry in record["models"].items():
        spec = entry.get("spec") or {}
        found |= {f"{model.partition('/')[0]}: {name.replace('_', ' ')}": value for name, value in spec.items()}
    for backbone, entry in record["backbones"].items():
        recipe = entry["recipe"]
        found |= {f"{backbone}: {name.replace('_', ' ')}": value for name, value in recipe.items()}
    found |= {f"version of {name}": value for name, value in record["versions"].items()}
    return {name: _text(value) for name, value in found.items()}


def _text(value: Any) -> str:
    """Write a setting: `none` where there is none, `on` and `off` of a switch."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | Mapping):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
