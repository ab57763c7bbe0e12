"""Say what the data are worth: the gain of each backbone, and how much a leak between folds would flatter."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from classify.bank.auc import mean_auc
from classify.crossfit.models import Candidate, CrossFit
from classify.crossfit.plan import FitPlan, Prediction, make_repeats, mean_probabilities
from classify.crossfit.store import KEEP_NONE, FitKeys, FitStore
from classify.inputs import Inputs
from classify.models.baselines import BASELINES
from classify.scores.resampling import Resampling, auc_within_folds, percentile_interval
from features.common.arrays import Labels

#: The model that is scored both ways, on all backbones side by side: quick, and by itself it has no folds within folds.
MODEL = "logistic"


@dataclass(frozen=True)
class BackboneReturn:
    """What one backbone adds to those before it.

    Attributes:
        macro_auc: out-of-fold macro ROC-AUC of the mean over this backbone and those before it.
        gain: how much of that it added; of the first, above 0.5.
        low, high: the 95 % bootstrap interval of the gain; None where nothing can be drawn, or no draw has every label.
    """

    backbone: str
    macro_auc: float
    gain: float
    low: float | None
    high: float | None


def rank_backbones(
    members: Mapping[str, Prediction], labels: Labels, fold_of_row: np.ndarray, resampling: Resampling
) -> list[BackboneReturn]:
    """Add backbones one by one, each time the one that raises the macro ROC-AUC of the mean over backbones the most.

    A backbone stands for the mean of its models. The order is chosen on the rows that the gains are
    of, which flatters the early ones a little; a mean has nothing else that could be fitted.

    Of the members, which are not ensembles, those count that see one backbone alone; every label has both values. Of
    equal backbones the first is first. The folds are int (R, N), of every repeat.
    """
    of_backbones: dict[str, list[np.ndarray]] = {}
    for prediction in members.values():
        if len(prediction.backbones) == 1:
            of_backbones.setdefault(prediction.backbones[0], []).append(prediction.by_repeat)
    left = {name: mean_probabilities(of_models).astype(np.float64) for name, of_models in of_backbones.items()}

    returns: list[BackboneReturn] = []
    total = np.zeros((len(fold_of_row), *labels.shape))
    before = np.full(1 + resampling.draws, 0.5)
    while left:
        candidates = np.stack([total + probabilities for probabilities in left.values()], axis=3)
        values = [mean_auc(own, labels, folds) for own, folds in zip(candidates, fold_of_row, strict=True)]
        best = list(left)[int(np.mean(values, axis=0).argmax())]
        total = total + left.pop(best)
        after = _macro(_aucs(labels, total, fold_of_row, resampling))
        gains = after - before
        low, high = percentile_interval(gains) if resampling.unit_count > 1 else (None, None)
        returns.append(BackboneReturn(best, float(after[0]), float(gains[0]), low, high))
        before = after
    return returns


def _aucs(labels: Labels, by_repeat: np.ndarray, fold_of_row: np.ndarray, resampling: Resampling) -> np.ndarray:
    """The ROC-AUC of each label, over the pairs within a fold: float64 (L, 1 + draws)."""
    of_labels = enumerate(labels.T)
    return np.stack([auc_within_folds(truth, by_repeat[:, :, n], fold_of_row, resampling) for n, truth in of_labels])


def _macro(aucs: np.ndarray) -> np.ndarray:
    """The mean over the labels that have one, of float64 (L, 1 + draws); few known rows may be no pair of any fold."""
    kept = aucs[~np.isnan(aucs[:, 0])]
    return kept.mean(axis=0) if len(kept) else np.full(aucs.shape[1], np.nan)


@dataclass(frozen=True)
class Figure:
    """A macro ROC-AUC, or a difference of two, and its 95 % interval; None where there is none."""

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """Such as `0.894 [0.858, 0.925]`."""
        value = "-" if self.value is None else f"{self.value:.3f}"
        return value + (f" [{self.low:.3f}, {self.high:.3f}]" if self.low is not None else "")


@dataclass(frozen=True)
class Gap:
    """Out-of-fold macro ROC-AUC by folds that know of no groups, and by folds that cut none.

    Attributes:
        gap: random minus grouped, over the same draws of groups.
        by_label: per label the two ROC-AUCs, random first; None where no fold has both values.
    """

    random: Figure
    grouped: Figure
    gap: Figure
    by_label: dict[str, tuple[float | None, float | None]]

    def describe(self) -> dict[str, Any]:
        """The figures as plain values, fit for JSON."""
        labels = {name: {"random": random, "grouped": grouped} for name, (random, grouped) in self.by_label.items()}
        about = {"model": f"{MODEL}, all backbones", "metric": "macro roc_auc, out-of-fold"}
        return about | asdict(self) | {"by_label": labels}


def measure_gap(
    inputs: Inputs,
    plan: FitPlan,
    seed: int,
    jobs: int,
    resampling: Resampling,
    on_fit: Callable[[], None],
    store: FitStore = KEEP_NONE,
) -> Gap:
    """Cross-fit the model by both kinds of folds: the same count, repeats and seed.

    The draws are of whole groups: by random folds, too, the rows of one group are not independent evidence. `on_fit` is
    called after each of the 2 * len(plan.fits()) fits; of a run that has the model, half of them are kept.
    """
    candidates = {MODEL: Candidate(BASELINES[MODEL].make(), slice(0, inputs.train.features.shape[1]))}
    ungrouped = replace(inputs, train=replace(inputs.train, groups=None))
    repeats = make_repeats(ungrouped, plan.repeats[0].count, len(plan.repeats), seed)
    labels = inputs.train_labels
    keys = FitKeys(inputs)
    aucs = []
    for own in (replace(plan, repeats=repeats), plan):
        by_repeat = CrossFit(candidates, inputs, own, seed, store, keys).run(jobs, on_fit).predictions[MODEL].by_repeat
        aucs.append(_aucs(labels, by_repeat, own.fold_of_row, resampling))
    both = ~np.isnan([own[:, 0] for own in aucs]).any(axis=0)
    random, grouped = (_macro(own[both]) for own in aucs)
    by_label = {name: (_known(aucs[0][row, 0]), _known(aucs[1][row, 0])) for row, name in enumerate(inputs.label_names)}
    return Gap(_figure(random), _figure(grouped), _figure(random - grouped), by_label)


def _figure(values: np.ndarray) -> Figure:
    """Make a figure of its value on the rows as they are, the first, and on the draws, the others."""
    return Figure(_known(values[0]), *percentile_interval(values))


def _known(value: float) -> float | None:
    """A plain number, None in place of NaN."""
    return None if np.isnan(value) else float(value)
