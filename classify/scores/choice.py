"""Choose the final model: the simplest of those that are tied with the best; and say what the choice flatters."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from classify.crossfit.plan import Prediction, in_threads
from classify.crossfit.store import Recall, make_now
from classify.inputs import Inputs
from classify.models.baselines import PRIOR
from classify.scores.metrics import CLASS_SELECTORS, DECIMALS, SELECTORS, sign_of
from classify.scores.resampling import Resampling, percentile_interval, resample
from classify.scores.scoring import ByFold, mean_over_labels, score_label
from classify.scores.small import auc_interval, few_units
from classify.scores.tables.classes import pick_classes, score_classes
from features.common.arrays import UNKNOWN, Labels, Probabilities
from features.common.text import count_things
from features.folds.folds import Folds

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


class Nested(NamedTuple):
    """What the choice of the final model is worth on rows that had no part in it.

    Attributes:
        chosen: the model that predicts each fold.
        value, low, high: the macro score of the rule, and its 95 % interval; None where it is not defined.
        refitted: whether all models were fitted again without the fold. Else those that the choice looked at learnt
            from the fold's rows, and a little of what flatters remains: 0.014 of AUC where there is nothing to learn.
    """

    chosen: tuple[str, ...]
    value: float | None
    low: float | None
    high: float | None
    refitted: bool

    def describe(self) -> dict[str, Any]:
        """The choice and its score as plain values, fit for JSON."""
        return {**self._asdict(), "chosen": list(self.chosen)}


def describe_nested(nested: Mapping[str, Any]) -> str:
    """Say in words how a nested score, as `Nested.describe` gives it, was made."""
    if nested["refitted"]:
        return "fitted and chosen again without each fold, and scored on it"
    return "chosen on the other folds and scored on each"


class Permutations(NamedTuple):
    """How well whole runs do where the labels have nothing to do with the images.

    Attributes:
        values: per run on shuffled labels the macro ROC-AUC of the model that it chose; those not defined are left out.
        p_value: (1 + runs that do as well as the true labels) / (1 + runs): Phipson and Smyth 2010. None where the
            true labels have no score.
    """

    values: tuple[float, ...]
    p_value: float | None

    def describe(self) -> dict[str, Any]:
        """The test as plain values, fit for JSON."""
        return {"runs": len(self.values), "p_value": self.p_value, "values": list(self.values)}


def may_be_chance(value: float | None, low: float | None) -> bool:
    """Whether an out-of-fold AUC, with the low end of its interval, may be chance, 0.5: also where either is unknown.

    Where nothing can be learnt, an out-of-fold score counts each pair of rows twice, once in each direction, and
    spreads sqrt(2) more than the interval of the fitted models says, which is widened here by so much.
    """
    return value is None or low is None or not value - math.sqrt(2) * (value - low) > 0.5  # also where it is NaN


def macro_labels(label_names: Sequence[str], train: Labels, test: Labels | None) -> dict[str, str]:
    """Choose the labels that means over labels are of, out-of-fold and on test alike.

    Returns:
        By label that is left out, why: fewer than `LEAST_POSITIVES` positives, or negatives, in train, or one value or
        none in test, among the known rows.
        Nothing is left out where nothing would remain.
    """
    left_out = {}
    for index, name in enumerate(label_names):
        counts = {"positive": int((train[:, index] == 1).sum()), "negative": int((train[:, index] == 0).sum())}
        value, count = min(counts.items(), key=lambda item: item[1])
        of_test = np.empty(0) if test is None else np.setdiff1d(test[:, index], UNKNOWN)
        if count < LEAST_POSITIVES:
            left_out[name] = f"{count_things(count, value)} in train"
        elif test is not None and len(of_test) < 2:
            left_out[name] = (
                f"all of test has the value {of_test[0]}" if len(of_test) else "not known of any test image"
            )
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
    sign = sign_of(metric)
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
    seed: int,
    jobs: int,
    recall: Recall = make_now,
) -> Nested:
    """Make the choice once for each fold, on the rows of the other folds, and score that fold by the model chosen.

    The final model's own score is of the rows that it was chosen on, which flatters it: of 18 models of noise the best
    has 0.534.

    Args:
        rule: one of `SELECTORS`.
        predictions: by model; of several repeats the first counts.
        ensembles: which of the models are ensembles.
        inputs: the truth.
        left_out: the labels that have no part in the macro score.
        folds: of the first repeat.
        seed: of the draws.
        jobs: models at a time.
        recall: gives the draws of a model if they are known, by what they are of.
    """
    labels, groups, splits = inputs.train_labels, inputs.train.groups, list(folds.split())
    on_others = [
        resample(len(learnt), None if groups is None else groups[learnt], seed, _NESTED_DRAWS) for learnt, _ in splits
    ]

    def draw(by_row: Probabilities) -> np.ndarray:
        of_folds = []
        for (learnt, _), resampling in zip(splits, on_others, strict=True):
            of_learnt = labels[learnt], by_row[learnt], folds.fold_of_row[learnt]
            of_folds.append(draw_macro(rule, *of_learnt, inputs.label_names, left_out, resampling))
        return np.array(of_folds)

    def recall_draws(by_row: Probabilities) -> np.ndarray:
        counted = [name not in left_out for name in inputs.label_names]
        return recall(("nested", rule, counted, folds.fold_of_row, seed, by_row), lambda: draw(by_row))

    drawn = in_threads(jobs, recall_draws, [(one.by_repeat[0],) for one in predictions.values()])
    chosen = [
        choose(rule, dict(zip(predictions, of_models, strict=True)), predictions, ensembles)[0]
        for of_models in zip(*drawn, strict=True)
    ]
    by_row = np.empty(inputs.train_labels.shape, np.float32)
    for (_, held_out), model in zip(splits, chosen, strict=True):
        by_row[held_out] = predictions[model].by_repeat[0, held_out]
    return score_nested(rule, chosen, by_row, inputs, left_out, folds, seed, refitted=False)


def score_nested(
    rule: str,
    chosen: Sequence[str],
    probabilities: Probabilities,
    inputs: Inputs,
    left_out: Collection[str],
    folds: Folds,
    seed: int,
    refitted: bool,
) -> Nested:
    """Score what the models chosen for each fold gave its rows; arguments as those of `choose_nested` and `Nested`."""
    resampling = resample(len(probabilities), inputs.train.groups, seed)
    known = inputs.train_labels, probabilities, folds.fold_of_row, inputs.label_names
    draws = draw_macro(rule, *known, left_out, resampling)
    value = None if np.isnan(draws[0]) else float(draws[0])
    low, high = percentile_interval(draws)
    counted = [index for index, name in enumerate(inputs.label_names) if name not in left_out]
    if value is not None and rule == "roc_auc" and len(counted) == 1 and resampling.several:
        # The figure of one label has the interval that the label's own has.
        truth, own = inputs.train_labels[:, counted[0]], probabilities[:, counted[0]]
        rows = np.flatnonzero(truth != UNKNOWN)
        units = np.unique(resampling.unit_of_row[rows], return_inverse=True)[1]
        if few_units(truth[rows], units):
            low, high, *_ = auc_interval(value, truth[rows], own[None, rows], folds.fold_of_row[None, rows], units)
    return Nested(tuple(chosen), value, low, high, refitted)


def draw_macro(
    metric: str,
    labels: Labels,
    probabilities: Probabilities,
    fold_of_row: np.ndarray,
    label_names: Sequence[str],
    left_out: Collection[str],
    resampling: Resampling,
) -> np.ndarray:
    """Compute the macro score of a model on some training rows, and on draws of them: float64 (1 + draws,)."""
    if metric in CLASS_SELECTORS:
        return score_classes(pick_classes(labels), pick_classes(probabilities), resampling)[metric]
    of_labels = {
        name: score_label(metric, truth, own, resampling, ByFold(own[None], fold_of_row[None]))
        for name, truth, own in zip(label_names, labels.T, probabilities.T, strict=True)
        if name not in left_out
    }
    return mean_over_labels(of_labels, ())
