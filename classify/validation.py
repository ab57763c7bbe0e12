"""Say what the final model is worth, and whether by chance: on images set aside, without a fold, on shuffled labels."""

from collections.abc import Callable
from dataclasses import replace
from itertools import compress

import numpy as np

from classify.crossfit.store import KEEP_NONE, FitStore
from classify.experiment import Experiment, run_experiment
from classify.inputs import Inputs, SplitInputs
from classify.models.baselines import PRIOR
from classify.models.estimators import expect_shares
from classify.scores.choice import Nested, Permutations, score_nested
from classify.settings import Settings
from features.common.arrays import UNKNOWN, Groups, Labels, find_varied
from features.common.errors import InputError
from features.common.text import count_things, first_few
from features.folds.folds import draw_part
from features.store.mapped import join_rows

#: Part of the share wanted by which the share set aside may differ without a word.
_ASIDE = 0.1


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


def hold_out(inputs: Inputs, share: float, seed: int) -> tuple[Inputs, str]:
    """Set training images aside: whole groups, as near as can be to a share of the images and of each label.

    Args:
        inputs: what a run learns from and predicts; its test images are not labelled; they stay in test.
        share: of the training images, above 0 and below 1.
        seed: of the folds. The same inputs, share and seed set the same images aside.

    Returns:
        The inputs without the images in `train` and with them in `test`, and what was set aside, in words.

    Raises:
        InputError: test images are labelled already, two images have one id, or there are too few rows or groups.
    """
    train, test = inputs.train, inputs.test
    if test is not None and test.labels is not None:
        raise InputError("--holdout: there are labelled test images already, so nothing is set aside. Leave it out.")
    clashes = sorted({*train.image_ids} & {*(test.image_ids if test else ())})
    if clashes:
        raise InputError(
            f"--holdout: {count_things(len(clashes), 'id')} of a training and of a test image "
            f"({first_few(clashes, 3)}), so that the predictions could not tell them apart. Rename one of each pair."
        )
    if not 0 < share < 1:
        raise InputError(f"--holdout {share:g} is not a share. Give a number between 0 and 1, such as 0.2.")
    held = draw_part(inputs.train_labels, train.groups, share, seed)
    said = f"test: {held.sum():,} of {len(held):,} training images set aside (--holdout {share:g}"
    if train.groups is not None:
        said += f"; {len(np.unique(train.groups[held])):,} of {len(np.unique(train.groups)):,} groups"
    said += ")"
    if abs(held.mean() - share) > _ASIDE * share:
        said += f": that is {held.mean():.1%}, "
        if abs(held.sum() - share * len(held)) <= 0.5:
            said += "the nearest there is"
        else:
            whole = "" if train.groups is None else "groups stay whole and "
            said += f"as {whole}both sides should have images with and without each label"
    without = [
        name
        for name, column in zip(inputs.label_names, inputs.train_labels[held].T, strict=True)
        if not (column == 1).any()
    ]
    if without:
        said += f"; without a positive of {first_few(without)}"
    kept, aside = inputs.select(np.flatnonzero(~held)), train.take(np.flatnonzero(held))
    varied = find_varied(kept.train_labels)
    if not varied.all():
        names = [name for name, both in zip(inputs.label_names, varied, strict=True) if not both]
        raise InputError(
            f"--holdout {share:g} leaves only one value of {first_few(names)} to learn from. Choose another share or "
            "--seed, or leave such labels out with --labels."
        )
    rejected = train.rejected_ids  # they stay with the images to learn from, which report them
    learnt = replace(
        kept.train,
        image_ids=(*kept.train.image_ids, *rejected),
        has_features=np.concatenate([kept.train.has_features, np.zeros(len(rejected), bool)]),
    )
    return replace(kept, train=learnt, test=aside if test is None else _join(test, aside)), said


def _join(test: SplitInputs, aside: SplitInputs) -> SplitInputs:
    """Put images set aside behind test images without labels."""
    assert aside.labels is not None
    unknown = np.full((len(test.used_ids), aside.labels.shape[1]), UNKNOWN, np.uint8)
    groups = None
    if aside.groups is not None:
        # An image without a known group is one of its own.
        of_test = np.array(test.used_ids, np.str_) if test.groups is None else test.groups
        groups = np.concatenate([of_test, aside.groups])
    ids = (len(test.used_ids), len(aside.used_ids))
    stored = [np.full(ids[0], "test") if test.stored is None else test.stored]
    stored.append(np.full(ids[1], "train") if aside.stored is None else aside.stored)
    columns = {
        name: np.concatenate([test.columns.get(name, np.full(ids[0], "")), cells])
        for name, cells in aside.columns.items()
    }
    return replace(
        test,
        image_ids=(*test.image_ids, *aside.image_ids),
        has_features=np.concatenate([test.has_features, aside.has_features]),
        features=join_rows([test.features, aside.features]),
        labels=np.concatenate([unknown, aside.labels]),
        groups=groups,
        columns=columns,
        stored=np.concatenate(stored),
    )
