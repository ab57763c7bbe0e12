"""Whole runs made again: nothing of a fold reaches its prediction, and p-values are those of shuffled labels."""

from dataclasses import replace

import numpy as np
import pytest

from classify.experiment import Experiment, run_experiment
from classify.inputs import Inputs
from classify.settings import Settings, check_settings, count_steps
from classify.validation import shuffle_labels, validate
from features.common.errors import InputError
from tests.classify.test_experiment import make_inputs

PATIENTS, SLICES = 24, 4


def simulate(seed: int, strength: float) -> Inputs:
    """Two labels of slices of patients; the first backbone knows the first label, if any does."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(PATIENTS), SLICES).astype(str)
    labels = (rng.random((len(groups), 2)) < 0.4).astype(np.uint8)
    features = rng.normal(size=(len(groups), 8))
    features[:, 0] += strength * labels[:, 0]
    return make_inputs(features, labels, groups, {"alpha": slice(0, 4), "beta": slice(4, 8)})


def run(inputs: Inputs, **choices) -> tuple[Experiment, int]:
    settings = Settings(folds=3, ensembles=("mean",), **choices)
    check_settings(settings, inputs)
    steps: list[None] = []
    experiment = run_experiment(inputs, settings, lambda: steps.append(None))
    found = validate(inputs, settings, experiment, lambda: steps.append(None))
    assert len(steps) == count_steps(settings, inputs.columns)
    return found, len(steps)


def test_a_model_of_a_fold_is_fitted_and_chosen_without_a_trace_of_it():
    inputs = simulate(0, 2.0)
    first, _ = run(inputs, nested=True)
    held_out = first.folds.fold_of_row == 1
    turned, moved = inputs.train_labels.copy(), inputs.train.features.copy()
    turned[held_out], moved[held_out] = 1 - turned[held_out], -moved[held_out]
    other = replace(inputs, train=replace(inputs.train, features=moved), train_labels=turned)
    settings = Settings(folds=3, ensembles=("mean",), nested=True)
    second = validate(other, settings, first, lambda: None)  # by the folds of the first
    assert first.nested
    assert second.nested
    assert first.nested.refitted
    assert first.nested.chosen[1] == second.nested.chosen[1]
    assert first.nested.value != second.nested.value


def test_fitting_again_without_each_fold_finds_what_is_known():
    known, _ = run(simulate(1, 3.0), nested=True)
    assert known.nested
    assert known.nested.value is not None
    # The first label's AUC is Phi(3 / sqrt(2)) = 0.983, nothing knows the second: 0.74 on average.
    assert known.nested.value == pytest.approx(0.74, abs=0.08)


def test_a_label_of_one_value_without_a_fold_gets_its_share():
    inputs = simulate(0, 2.0)
    folds = run(inputs)[0].folds.fold_of_row
    rare = inputs.train_labels.copy()
    rare[:, 1] = 0
    rare[np.flatnonzero(folds == 0)[:3], 1] = 1
    inputs = replace(inputs, train_labels=rare)
    settings = Settings(folds=3, nested=True)
    experiment = run_experiment(inputs, settings, lambda: None)
    found = validate(inputs, settings, experiment, lambda: None)
    assert found.nested
    assert found.nested.value is not None
    with pytest.raises(InputError, match=r"--nested .* use --folds 3 or more"):
        check_settings(Settings(folds=2, nested=True), inputs)


def test_the_p_value_counts_the_shuffled_runs_that_do_as_well():
    known, _ = run(simulate(2, 3.0), permutations=4)
    assert known.permutations
    assert len(known.permutations.values) == 4
    assert known.permutations.p_value == pytest.approx(0.2)  # 1 / (1 + 4)
    nothing, _ = run(simulate(3, 0.0), permutations=4)
    assert nothing.permutations
    auc = nothing.macro(nothing.chosen_model, "roc_auc").value
    as_well = sum(value >= auc for value in nothing.permutations.values)
    assert nothing.permutations.p_value == pytest.approx((1 + as_well) / 5)


def test_labels_are_shuffled_by_group():
    labels = np.arange(12, dtype=np.uint8)[:, None]
    groups = np.array([*"abcabcabcabc"])
    shuffled = shuffle_labels(labels, groups, np.random.default_rng(0))
    assert sorted(shuffled[:, 0]) == list(range(12))
    dealt = {group: shuffled[groups == group, 0].tolist() for group in "abc"}
    assert sorted(dealt.values()) == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert dealt != {group: labels[groups == group, 0].tolist() for group in "abc"}
    alone = shuffle_labels(labels, None, np.random.default_rng(0))
    assert sorted(alone[:, 0]) == list(range(12))
    assert (alone != labels).any()
