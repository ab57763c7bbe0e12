"""Run stage 2 again, without a fold or on shuffled labels: what the final model is worth, and whether by chance."""

from collections.abc import Callable
from dataclasses import replace
from itertools import compress

import numpy as np

from classify.crossfit.store import KEEP_NONE, FitStore
from classify.experiment import Experiment, run_experiment
from classify.inputs import Inputs
from classify.models.baselines import PRIOR
from classify.models.estimators import expect_shares
from classify.scores.choice import Nested, Permutations, score_nested
from classify.settings import Settings
from features.common.arrays import Groups, Labels, find_varied


def validate(
    inputs: Inputs,
    settings: Settings,
    experiment: Experiment,
    on_step: Callable[[], None],
    store: FitStore = KEEP_NONE,
) -> Experiment:
    """Run stage 2 again as often as `--nested` and `--permutations` ask for; gives the experiment with what they found.

    Args:
        inputs: what the experiment learnt from.
        settings: its settings.
        experiment: what it found.
        on_step: called after each step of each run.
        store: the fits of earlier runs; new ones are added.
    """
    if settings.nested and experiment.nested:
        experiment = replace(experiment, nested=_leave_folds_out(inputs, settings, experiment, on_step, store))
    if settings.permutations:
        experiment = replace(experiment, permutations=_permute(inputs, settings, experiment, on_step, store))
    return experiment


def _leave_folds_out(
    inputs: Inputs, settings: Settings, experiment: Experiment, on_step: Callable[[], None], store: FitStore
) -> Nested:
    """Run once without each fold, and predict it as a test split: nested cross-validation (Varma and Simon 2006)."""
    folds, chosen = experiment.folds, []
    predicted = np.empty(inputs.train_labels.shape, np.float32)
    for learnt, held_out in folds.split():
        within = inputs.select(learnt, held_out)
        varied = find_varied(within.train_labels)
        # A label of one value can be learnt by nobody: its share, as every baseline has it.
        predicted[held_out] = expect_shares(within.train_labels)
        if not varied.any():
            chosen.append(PRIOR)
            continue
        names = tuple(compress(inputs.label_names, varied))
        within = replace(within, label_names=names, train_labels=within.train_labels[:, varied])
        found = run_experiment(_unlabelled(within), settings.within_fold(), on_step, store)
        predicted[np.ix_(held_out, varied)] = found.predictions[found.final_model].test
        chosen.append(found.final_model)
    return score_nested(
        experiment.selector, chosen, predicted, inputs, experiment.left_out, folds, settings.seed, refitted=True
    )


def _unlabelled(inputs: Inputs) -> Inputs:
    """The same inputs without the labels of test, so that nothing is scored that is not needed."""
    return inputs if inputs.test is None else replace(inputs, test=replace(inputs.test, labels=None))


def _permute(
    inputs: Inputs, settings: Settings, experiment: Experiment, on_step: Callable[[], None], store: FitStore
) -> Permutations:
    """Run on shuffled labels, and count how often chance does as well."""
    values = []
    for number in range(settings.permutations):
        rng = np.random.default_rng([settings.seed, number])
        shuffled = shuffle_labels(inputs.train_labels, inputs.train.groups, rng)
        permuted = replace(inputs, train_labels=shuffled, test=None)
        found = run_experiment(permuted, settings.once_more(), on_step, store)
        auc = found.macro(found.chosen_model, "roc_auc").value
        if auc is not None:
            values.append(auc)
    true = experiment.macro(experiment.chosen_model, "roc_auc").value
    p_value = None if true is None else (1 + sum(value >= true for value in values)) / (1 + len(values))
    return Permutations(tuple(values), p_value)


def shuffle_labels(labels: Labels, groups: Groups | None, rng: np.random.Generator) -> Labels:
    """Deal the labels of rows to other rows: those of a group stay together, in their order.

    Groups are put into a random order, and their labels dealt to the rows in the order of the groups. Where groups
    differ in size, some are dealt to the rows of two or more; the labels of slices of one patient stay alike.

    Args:
        labels: the truth.
        groups: of the rows; None where no groups are known, and each row is dealt by itself.
        rng: what shuffles.
    """
    if groups is None:
        return labels[rng.permutation(len(labels))]
    rows = np.argsort(groups, kind="stable")
    members = np.split(rows, np.unique(groups[rows], return_index=True)[1][1:])
    shuffled = np.empty_like(labels)
    shuffled[rows] = labels[np.concatenate([members[group] for group in rng.permutation(len(members))])]
    return shuffled
