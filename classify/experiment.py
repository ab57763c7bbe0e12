"""Run stage 2 in memory: folds, models, ensembles, the final model, thresholds, scores, and what the final one says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator

from classify.crossfit.models import Candidate, CrossFit
from classify.crossfit.plan import FitPlan, Prediction, in_threads, make_repeats
from classify.crossfit.store import KEEP_NONE, FitKeys, FitStore, Recall, describe_reuse, digest_parts
from classify.ensembles.crossfit import calibrate, combine
from classify.inputs import Inputs, feature_sets, warn_shared_groups
from classify.models.baselines import BASELINES, PRIOR
from classify.models.estimators import OfOnesOwn
from classify.models.files import SavedEstimator
from classify.models.trained_head import TrainedHead
from classify.scores.choice import Comparison, Nested, Permutations, choose, choose_nested, macro_labels
from classify.scores.gains import BackboneReturn, Gap, measure_gap, rank_backbones
from classify.scores.metrics import SELECTORS, Score, ThresholdRule, find_macro
from classify.scores.resampling import resample
from classify.scores.scoring import SCORING, ByFold, rank_labels, score
from classify.scores.tables.classes import tabulate_confusions
from classify.scores.tables.groups import score_groups
from classify.scores.tables.operating_points import list_operating_points
from classify.scores.tables.readings import Readings
from classify.scores.tables.splits import SplitReading
from classify.scores.tables.subgroups import score_subgroups
from classify.scores.thresholds import (
    cross_fit_binary,
    fit_thresholds,
    make_promises,
    put_on_scale,
    to_binary,
    warn_few_positives,
)
from classify.settings import Settings, list_models
from features.common.arrays import Decisions, Probabilities, Thresholds
from features.folds.folds import Folds


@dataclass(frozen=True)
class Experiment:
    """What a run of stage 2 found.

    Attributes:
        predictions: by model: baselines, heads, ensembles, and the final model calibrated where that was asked for.
        models: by model that sees features, the fitted baseline or trained head of each fit of the plan.
        ensembles: by model that sees other models' probabilities, the ensemble or calibration fitted on all of them.
        members: by that model, the models whose probabilities it sees, in order.
        final_model: the model whose test predictions are handed in.
        thresholds: by model, fitted on all out-of-fold probabilities.
        decisions: by model, of each training row, by thresholds that the row's own fold had no part in.
        returns: what each backbone adds; empty of a single one.
        scores: by model and split: `oof`, of `decisions`, or, where the test images are labelled, `test`, of decisions
            by `thresholds`.
        comparisons: by model that was chosen among, how it stands beside the final one.
        nested: what the choice is worth on rows that had no part in it; None where nothing was chosen.
        left_out: the labels that have no part in means over labels, and why.
        warnings: what a reader of the scores has to know.
        gap: what a leak would be worth; None where it was not asked for.
        permutations: how well chance does; None where it was not asked for.
        readings: what else the final model's predictions say; `read_final` adds it.
    """

    settings: Settings
    plan: FitPlan
    predictions: dict[str, Prediction]
    models: dict[str, tuple[SavedEstimator | TrainedHead, ...]]
    ensembles: dict[str, SavedEstimator]
    members: dict[str, tuple[str, ...]]
    final_model: str
    thresholds: dict[str, Thresholds]
    decisions: dict[str, Decisions]
    returns: list[BackboneReturn]
    scores: dict[tuple[str, str], list[Score]]
    comparisons: dict[str, Comparison]
    nested: Nested | None
    left_out: dict[str, str]
    warnings: tuple[str, ...]
    gap: Gap | None = None
    permutations: Permutations | None = None
    readings: Readings = Readings()  # noqa: RUF009 - it cannot change

    @property
    def chosen_model(self) -> str:
        """The final model before its calibration."""
        return self.members[self.final_model][0] if self.settings.calibration else self.final_model

    @property
    def selector(self) -> str:
        """The metric that models are compared by: that of the rule, or the ROC-AUC where it names a model."""
        return self.settings.select if self.settings.select in SELECTORS else "roc_auc"

    def macro(self, model: str, metric: str, split: str = "oof") -> Score:
        """What stands for a whole model: the mean of a metric over the labels, or what it is of whole rows."""
        return find_macro(self.scores[model, split], metric)

    @property
    def before_calibration(self) -> tuple[Probabilities, BaseEstimator | None]:
        """The final model's out-of-fold probabilities before its calibration, and that, fitted on all of them."""
        calibration = self.ensembles[self.final_model].estimator if self.settings.calibration else None
        return self.predictions[self.chosen_model].out_of_fold, calibration

    @property
    def folds(self) -> Folds:
        """Of the first repeat, by which thresholds are cross-fitted."""
        return self.plan.repeats[0]

    @property
    def heads(self) -> dict[str, tuple[TrainedHead, ...]]:
        """By model that is a head, the trained head of each fit of the plan."""
        heads = {name: tuple(m for m in models if isinstance(m, TrainedHead)) for name, models in self.models.items()}
        return {name: of_model for name, of_model in heads.items() if of_model}


def run_experiment(
    inputs: Inputs,
    settings: Settings,
    on_step: Callable[[], None],
    store: FitStore = KEEP_NONE,
    say: Callable[[str], None] | None = None,
    on_model: Callable[[str, float], None] = lambda name, seconds: None,
) -> Experiment:
    """Make folds, cross-fit baselines, heads and ensembles, score each, choose the final one by the rule, calibrate it.

    Args:
        inputs: the joined data set and features.
        settings: what was chosen, as `check_settings` lets it pass.
        on_step: called `count_steps` times, from any thread: per fit, per ensemble and per model scored.
        store: the fits and scores of earlier runs; new ones are added.
        say: called with a line, before the first fit, that says which fits are kept and which are to be made, and why.
        on_model: called with the name of each model when it is fitted, and the seconds that took, from any thread.
    """
    baselines, heads, ensembles = list_models(settings, inputs.columns)
    seen = {"": slice(0, 0), **feature_sets(inputs.columns)}  # the prior's name has no backbone
    rows = len(inputs.train_labels)
    specs = {name: spec.for_rows(rows).for_classes(settings.exclusive) for name, spec in settings.heads.items()}
    candidates = {}
    for name in baselines + heads:
        kind, _, on = name.partition("/")
        if own := settings.estimators.get(kind):
            candidates[name] = Candidate(OfOnesOwn(own, kind), seen[on], known=False)
        else:
            candidates[name] = Candidate(specs[kind] if name in heads else BASELINES[kind].make(), seen[on])
    repeats = make_repeats(inputs, settings.folds, settings.repeats, settings.seed)
    plan = FitPlan(repeats, settings.refit)
    keys = FitKeys(inputs)
    cross_fit = CrossFit(candidates, inputs, plan, settings.seed, store, keys)
    if say:
        changed = store.compare(keys.parts | {"folds": digest_parts(plan.fold_of_row), "the seed": repr(settings.seed)})
        if said := describe_reuse(store, cross_fit.list_keys(), changed):
            say(said)
    prior = CrossFit({PRIOR: Candidate(BASELINES[PRIOR].make(), seen[""])}, inputs, plan).run(1)
    cross_fitted = cross_fit.run(settings.jobs, on_step, on_model)
    scored = inputs.test if inputs.test and inputs.test.labels is not None else None
    shared = warn_shared_groups(inputs.train.groups, scored.groups if scored else None)
    few = warn_few_positives(inputs.label_names, inputs.train_labels)
    warnings = [*shared, *few, *(w for folds in repeats for w in folds.warnings), *cross_fitted.warnings]
    predictions = dict(cross_fitted.predictions)
    members = {name: prediction for name, prediction in predictions.items() if name != PRIOR}
    labels = inputs.train_labels
    draws = resample(len(labels), inputs.train.groups, settings.seed)
    returns = rank_backbones(members, labels, plan.fold_of_row, draws) if len(inputs.columns) > 1 else []
    gap = None
    if settings.gap:
        gap = measure_gap(inputs, plan, settings.seed, settings.jobs, draws, on_step, store)
    combined = combine(ensembles, members, labels, repeats, settings.jobs, on_step, store, keys)
    predictions |= {name: own.prediction for name, own in combined.items()}
    fitted = {name: own.fitted for name, own in combined.items()}

    left_out = macro_labels(inputs.label_names, labels, scored.labels if scored else None)
    of_scores = keys.of_scores(SCORING, settings.seed)

    def recall(what: Sequence[Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        return store.recall((*of_scores, *what), make)

    judge = partial(_judge_models, inputs, plan, settings, prior.predictions[PRIOR], left_out, recall)
    judged = judge(predictions, on_step)
    rule = settings.select if settings.select in SELECTORS else "roc_auc"
    draws_of = {name: found.draws[rule] for name, found in judged.items()}
    final, beside = choose(settings.select, draws_of, predictions, combined)
    nested = None
    if len(predictions) > 1 and settings.select in SELECTORS:
        of_choice = repeats[0], settings.seed, settings.jobs, recall
        nested = choose_nested(rule, predictions, combined, inputs, left_out, *of_choice)
    members_of = dict.fromkeys(combined, tuple(members))
    if settings.calibration is not None:
        chosen, final = final, f"{final}+{settings.calibration}"
        predictions[final], calibration = calibrate(settings.calibration, predictions[chosen], labels, repeats)
        fitted[final] = SavedEstimator(calibration)
        members_of[final] = (chosen,)
        judged |= judge({final: predictions[final]}, lambda: None, (predictions[chosen].out_of_fold, calibration))
    return Experiment(
        settings=settings,
        plan=plan,
        predictions=predictions,
        models=cross_fitted.models,
        ensembles=fitted,
        members=members_of,
        final_model=final,
        thresholds={name: found.thresholds for name, found in judged.items()},
        decisions={name: found.decisions for name, found in judged.items()},
        returns=returns,
        scores={(name, split): scores for name, found in judged.items() for split, scores in found.scores.items()},
        comparisons=beside,
        nested=nested,
        left_out=left_out,
        warnings=tuple(dict.fromkeys(warnings)),  # repeats may miss the same labels
        gap=gap,
    )


class _Judged(NamedTuple):
    """The thresholds of a model, its decisions of the training rows, its scores by split, the draws beside them."""

    thresholds: Thresholds
    decisions: Decisions
    scores: dict[str, list[Score]]
    draws: dict[str, np.ndarray]


def _judge_models(
    inputs: Inputs,
    plan: FitPlan,
    settings: Settings,
    prior: Prediction,
    left_out: Mapping[str, str],
    recall: Recall,
    predictions: dict[str, Prediction],
    on_step: Callable[[], None],
    calibrated: tuple[Probabilities, BaseEstimator] | None = None,
) -> dict[str, _Judged]:
    """Fit thresholds out-of-fold and score each model, in their order; all models meet the same draws.

    Of a single model that is calibrated come the probabilities before that, and the calibration fitted on all of them.
    """
    labels, names, rule, groups = inputs.train_labels, inputs.label_names, settings.threshold, inputs.train.groups
    train_draws = resample(len(labels), inputs.train.groups, settings.seed)
    test_labels = inputs.test.labels if inputs.test else None
    if inputs.test and test_labels is not None:
        test_draws = resample(len(test_labels), inputs.test.groups, settings.seed)

    def judge(prediction: Prediction) -> _Judged:
        before, calibration = calibrated or (prediction.out_of_fold, None)
        thresholds = fit_thresholds(labels, put_on_scale(before, calibration), rule, groups)
        decisions = cross_fit_binary(labels, before, rule, plan.repeats[0], groups, calibration)
        by_fold = ByFold(prediction.by_repeat, plan.fold_of_row[: len(prediction.by_repeat)])
        known = names, train_draws, by_fold, left_out
        ranked = recall(
            ("oof", prediction.out_of_fold, *by_fold),
            lambda: rank_labels(labels, prediction.out_of_fold, train_draws, by_fold),
        )
        whole = ranked, settings.exclusive
        scores, draws = score(labels, prediction.out_of_fold, decisions, prior.out_of_fold, *known, *whole)
        of_splits = {"oof": scores}
        if test_labels is not None and prediction.test is not None and prior.test is not None:
            truth, test = test_labels, prediction.test
            ranked = recall(("test", truth, test, test_draws.unit_of_row), lambda: rank_labels(truth, test, test_draws))
            binary = to_binary(test, thresholds)
            whole = ranked, settings.exclusive
            scored = score(truth, test, binary, prior.test, names, test_draws, None, left_out, *whole)
            of_splits["test"] = scored.scores
        on_step()
        return _Judged(thresholds, decisions, of_splits, draws)

    judged = in_threads(settings.jobs, judge, zip(predictions.values()))
    return dict(zip(predictions, judged, strict=True))


def read_final(inputs: Inputs, experiment: Experiment) -> Experiment:
    """Give the experiment with the tables of its final model, on each labelled split of the inputs that it had."""
    labels, groups, names = inputs.train_labels, inputs.train.groups, inputs.label_names
    settings, folds, splits = experiment.settings, experiment.folds, _list_splits(inputs, experiment)
    before, calibration = experiment.before_calibration
    scaled = put_on_scale(before, calibration)

    def fit(rule: ThresholdRule) -> tuple[Thresholds, Decisions]:
        decisions = cross_fit_binary(labels, before, rule, folds, groups, calibration)
        return fit_thresholds(labels, scaled, rule, groups), decisions

    columns = {name: {"oof": cells} for name, cells in inputs.train.columns.items()}
    if len(splits) > 1 and inputs.test is not None:
        for name, cells in inputs.test.columns.items():
            columns[name]["test"] = cells
    rule, thresholds = settings.threshold, experiment.thresholds[experiment.final_model]
    readings = Readings(
        make_promises(labels, scaled, rule, groups) if rule.confidence else (),
        list_operating_points(names, splits, rule, thresholds, fit, settings.prevalences),
        score_groups(names, splits, scaled, rule, folds, experiment.left_out),
        score_subgroups(names, splits, columns),
        [
            figure
            for split in splits * settings.exclusive
            for figure in tabulate_confusions(split.name, names, split.labels, split.probabilities, split.unit_of_row)
        ],
    )
    return replace(experiment, readings=readings)


def _list_splits(inputs: Inputs, experiment: Experiment) -> list[SplitReading]:
    """List the labelled splits with what the final model says of them."""
    final, seed = experiment.predictions[experiment.final_model], experiment.settings.seed
    labels, groups = inputs.train_labels, inputs.train.groups
    by_fold = ByFold(final.by_repeat, experiment.plan.fold_of_row[: len(final.by_repeat)])
    decisions = experiment.decisions[experiment.final_model]
    drawn = resample(len(labels), groups, seed)
    splits = [SplitReading("oof", labels, final.out_of_fold, decisions, groups, drawn, by_fold)]
    test = inputs.test
    if test is not None and test.labels is not None and final.test is not None:
        decisions = to_binary(final.test, experiment.thresholds[experiment.final_model])
        drawn = resample(len(test.labels), test.groups, seed)
        splits.append(SplitReading("test", test.labels, final.test, decisions, test.groups, drawn, None))
    return splits
