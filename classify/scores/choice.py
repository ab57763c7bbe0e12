"""Choose the final model: the simplest of those that are tied with the best; and say what the choice flatters."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from classify.crossfit.plan import Folds, Prediction, in_threads
from classify.inputs import Inputs
from classify.models.baselines import PRIOR
from classify.scores.metrics import DECIMALS, METRICS, SELECTORS
from classify.scores.resampling import Resampling, percentile_interval, resample
from classify.scores.scoring import ByFold, mean_over_labels, score_label
from classify.settings import Settings
from features.common.arrays import Labels

#: Positives in train below which a label has no part in the mean over the labels: its scores are chance.
LEAST_POSITIVES = 10
#: Draws by which models are called tied where the choice is made again without a fold.
_NESTED_DRAWS = 200


class Comparison(NamedTuple):
    """A model beside the final one, by the macro score of the rule, on the same draws.

    Attributes:
        difference: its score minus the final model's.
        low, high: the 95 % interval of the difference; None where nothing can be drawn.
        won: share of the draws in which it is better than the final model; half of the equal ones count.
        tied: whether the interval of its difference from the best model holds 0.
    """

    difference: float
    low: float | None
    high: float | None
    won: float
    tied: bool


def may_be_chance(value: float, low: float) -> bool:
    """Whether an out-of-fold AUC, with the low end of its interval, may be chance, 0.5.

    Where nothing can be learnt, an out-of-fold score counts each pair of rows twice, once in each direction, and
    spreads sqrt(2) more than the interval of the fitted models says, which is widened here by so much.
    """
    return not value - math.sqrt(2) * (value - low) > 0.5  # also where there is no interval


def macro_labels(label_names: Sequence[str], train: Labels, test: Labels | None) -> dict[str, str]:
    """Choose the labels that means over labels are of, out-of-fold and on test alike.

    Returns:
        By label that is left out, why: it has fewer than `LEAST_POSITIVES` positives in train, or one value in test.
        Nothing is left out where nothing would remain.
    """
    left_out = {}
    for index, name in enumerate(label_names):
        positives = int(train[:, index].sum())
        if positives < LEAST_POSITIVES:
            left_out[name] = f"{positives} positives in train"
        elif test is not None and np.ptp(test[:, index]) == 0:
            left_out[name] = f"all of test has the value {test[0, index]}"
    return left_out if len(left_out) < len(label_names) else {}


def choose(
    rule: str, draws: Mapping[str, np.ndarray], predictions: Mapping[str, Prediction], ensembles: Collection[str]
) -> tuple[str, dict[str, Comparison]]:
    """Choose by a rule of `SELECTORS`, or the model that the rule names.

    Models are tied whose difference from the best has a 95 % interval that holds 0. Of these the one on the fewest
    backbones is taken; of as many a single model, not an ensemble; then the best, of equal ones the first. The prior,
    which sees no features, is only taken where there is nothing else.

    Args:
        rule: checked by `check_rule`.
        draws: by model, the macro score, float64 (1 + draws,); of a rule that names a model the macro ROC-AUC.
        predictions: by model.
        ensembles: which of the models are ensembles.

    Returns:
        The final model, and each model beside it.
    """
    metric = rule if rule in SELECTORS else "roc_auc"
    sign = METRICS[metric].sign
    # Rounding must not look like a difference.
    values = {
        model: np.round(sign * own[0], DECIMALS) if not np.isnan(own[0]) else -np.inf for model, own in draws.items()
    }
    candidates = [model for model in draws if model != PRIOR] or list(draws)
    best = max(candidates, key=lambda model: values[model])
    tied = {model: _is_tied(sign * (draws[best] - draws[model])) or values[model] == values[best] for model in draws}

    def cost(model: str) -> tuple[int, bool, float]:
        return len(predictions[model].backbones), model in ensembles, -values[model]

    final = rule if rule in draws else min((model for model in candidates if tied[model]), key=cost)
    return final, {model: _compare(draws[model] - draws[final], sign, tied[model]) for model in draws}


def _is_tied(behind: np.ndarray) -> bool:
    """Whether a difference from the best model, float64 (1 + draws,), may be chance."""
    low, _ = percentile_interval(behind)
    return low is not None and low <= 0


def _compare(difference: np.ndarray, sign: int, tied: bool) -> Comparison:
    """Describe a difference from the final model, float64 (1 + draws,)."""
    drawn = sign * difference[1:][~np.isnan(difference[1:])]
    won = float(((drawn > 0) + (drawn == 0) / 2).mean()) if len(drawn) else float("nan")
    low, high = percentile_interval(difference)
    return Comparison(float(difference[0]), low, high, won, tied)


def choose_nested(
    rule: str,
    predictions: Mapping[str, Prediction],
    ensembles: Collection[str],
    inputs: Inputs,
    left_out: Collection[str],
    folds: Folds,
    settings: Settings,
) -> tuple[Prediction, tuple[str, ...]]:
    """Make the choice once for each fold, on the rows of the other folds, and predict that fold by the model chosen.

    The final model's own score is of the rows that it was chosen on, which flatters it: of 18 models of noise the best
    has 0.534. The score of this prediction is of rows that had no part in the choice.

    Args:
        rule: one of `SELECTORS`.
        predictions: by model; of several repeats the first counts.
        ensembles: which of the models are ensembles.
        inputs: the truth.
        left_out: the labels that have no part in the macro score.
        folds: of the first repeat.
        settings: seed of the draws, jobs.

    Returns:
        The prediction, and which model predicts each fold.
    """
    labels, groups = inputs.train_labels, inputs.train.groups

    def choose_without(learnt: np.ndarray, held_out: np.ndarray) -> str:
        truth = dict(zip(inputs.label_names, labels[learnt].T, strict=True))
        own_groups = None if groups is None else groups[learnt]
        resampling = resample(len(learnt), own_groups, settings.seed, _NESTED_DRAWS)
        draws = {
            model: _draw(rule, truth, one.by_repeat[0, learnt], left_out, folds.fold_of_row[learnt], resampling)
            for model, one in predictions.items()
        }
        return choose(rule, draws, predictions, ensembles)[0]

    splits = list(folds.split())
    chosen = in_threads(settings.jobs, choose_without, splits)
    by_repeat = np.empty((1, *labels.shape), np.float32)
    for (_, held_out), model in zip(splits, chosen, strict=True):
        by_repeat[0, held_out] = predictions[model].by_repeat[0, held_out]
    return Prediction(by_repeat, None), tuple(chosen)


def _draw(
    metric: str,
    labels: Mapping[str, np.ndarray],
    probabilities: np.ndarray,
    left_out: Collection[str],
    fold_of_row: np.ndarray,
    resampling: Resampling,
) -> np.ndarray:
    """The macro score of a model on some rows: float64 (1 + draws,)."""
    of_labels = {
        name: score_label(metric, truth, own, resampling, ByFold(own[None], fold_of_row[None]))
        for (name, truth), own in zip(labels.items(), probabilities.T, strict=True)
        if name not in left_out
    }
    return mean_over_labels(of_labels, ())
