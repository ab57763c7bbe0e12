"""Measure what a leak is worth: the same models scored by random folds and by folds that keep groups together."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from classify.crossfit.baselines import Candidate, cross_fit
from classify.crossfit.plan import FitPlan, make_repeats
from classify.inputs import Inputs
from classify.models.baselines import BASELINES
from classify.scores.bootstrap import Resampling
from classify.scores.metrics import ENDS
from classify.scores.ranking import rank_scores
from features.common.errors import InputError

#: The model that is scored both ways, on all backbones side by side: quick, and by itself it has no folds within folds.
MODEL = "logistic"


@dataclass(frozen=True)
class Figure:
    """A macro ROC-AUC, or a difference of two, with its 95 % interval.

    Attributes:
        value: the figure.
        low, high: the ends of the interval; None where no draw has every label.
    """

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """Such as `0.894 [0.858, 0.925]`."""
        return f"{self.value:.3f}" + (f" [{self.low:.3f}, {self.high:.3f}]" if self.low is not None else "")


@dataclass(frozen=True)
class Gap:
    """What random folds make of the same data.

    Attributes:
        random: out-of-fold macro ROC-AUC by folds that know of no groups.
        grouped: by folds that cut no group.
        gap: random minus grouped, over the same draws of groups.
        by_label: per label the two ROC-AUCs, random first.
    """

    random: Figure
    grouped: Figure
    gap: Figure
    by_label: dict[str, tuple[float, float]]

    def describe(self) -> dict[str, Any]:
        """The figures as plain values, fit for JSON."""
        labels = {name: {"random": random, "grouped": grouped} for name, (random, grouped) in self.by_label.items()}
        return {"model": f"{MODEL}, all backbones", "metric": "macro roc_auc, out-of-fold"} | {
            "random": asdict(self.random),
            "grouped": asdict(self.grouped),
            "gap": asdict(self.gap),
            "by_label": labels,
        }


def refuse_ungrouped(inputs: Inputs) -> None:
    """Refuse to measure a gap where no groups are known, or every image is a group of its own.

    Raises:
        InputError: there is nothing to compare.
    """
    groups = inputs.train.groups
    if groups is None:
        raise InputError("--gap compares random folds with grouped ones, but no groups are known. Name them: --groups.")
    if len(np.unique(groups)) == len(groups):
        raise InputError(
            f"--gap compares random folds with grouped ones, but each of the {len(groups)} groups holds one image, so "
            "both are the same. Name others with --groups or --group-column."
        )


def measure_gap(
    inputs: Inputs, plan: FitPlan, seed: int, jobs: int, resampling: Resampling, on_fit: Callable[[], None]
) -> Gap:
    """Cross-fit the model by both kinds of folds: the same count, repeats and seed.

    Args:
        inputs: whose training images have groups.
        plan: the grouped folds, and finished fits; of a run that has the model these are found, not fitted again.
        seed: that of the plan's folds.
        jobs: fits at a time.
        resampling: of whole groups, for the intervals of both: by random folds, too, the rows of one group are no
            independent evidence.
        on_fit: called after each of the 2 * len(plan.fits()) fits.
    """
    candidates = {MODEL: Candidate(BASELINES[MODEL], slice(None))}
    ungrouped = replace(inputs, train=replace(inputs.train, groups=None))
    repeats = make_repeats(ungrouped, plan.repeats[0].count, len(plan.repeats), seed)
    labels = inputs.train_labels
    aucs = []
    for own in (replace(plan, repeats=repeats), plan):
        out_of_fold = cross_fit(candidates, inputs, own, jobs, on_fit).predictions[MODEL].out_of_fold
        columns = zip(labels.T, out_of_fold.T, strict=True)
        aucs.append(np.stack([rank_scores(*column, resampling)[0] for column in columns]))
    random, grouped = (of_labels.mean(axis=0) for of_labels in aucs)
    by_label = {name: (float(aucs[0][row, 0]), float(aucs[1][row, 0])) for row, name in enumerate(inputs.label_names)}
    return Gap(_figure(random), _figure(grouped), _figure(random - grouped), by_label)


def _figure(values: np.ndarray) -> Figure:
    """Make a figure of its value on the rows as they are, the first, and on the draws, the others."""
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = (float(end) for end in np.percentile(drawn, ENDS)) if len(drawn) else (None, None)
    return Figure(float(values[0]), low, high)
