"""Tabulate what the final model of an experiment says: what thresholds cost, by group, by subgroup."""

from dataclasses import replace

from classify.experiment import Experiment
from classify.inputs import Inputs
from classify.scores.metrics import ThresholdRule
from classify.scores.resampling import resample
from classify.scores.scoring import ByFold
from classify.scores.tables.classes import tabulate_confusions
from classify.scores.tables.groups import score_groups
from classify.scores.tables.operating_points import list_operating_points
from classify.scores.tables.readings import Readings
from classify.scores.tables.splits import SplitReading
from classify.scores.tables.subgroups import score_subgroups
from classify.scores.thresholds import cross_fit_binary, fit_thresholds, make_promises, put_on_scale, to_binary
from features.common.arrays import Decisions, Thresholds


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
