"""Repeated folds and refitted models: which rows each fit learns from, and whose probabilities count."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from classify.bank import train as bank
from classify.crossfit.models import Candidate, CrossFit, CrossFitted
from classify.crossfit.plan import FitPlan, in_threads, make_repeats
from classify.experiment import Experiment, run_experiment
from classify.inputs import Inputs, SplitInputs
from classify.models.baselines import BASELINES
from classify.models.heads import HeadSpec
from classify.settings import Settings, count_steps
from features.common.errors import InputError
from features.folds.folds import Folds, split_rows
from tests.classify.toy import head_candidates

QUICK = HeadSpec(dropout=0.0, learning_rate=0.3, batch_size=20, epochs=9, patience=4)
FOLDS, REPEATS = 3, 2


def split_inputs(features: np.ndarray, groups: np.ndarray | None = None) -> SplitInputs:
    ids = tuple(f"i{row}" for row in range(len(features)))
    return SplitInputs(ids, np.ones(len(ids), bool), features.astype(np.float32), None, groups, {})


def make_inputs() -> Inputs:
    rng = np.random.default_rng(0)
    features, test = rng.normal(size=(60, 8)), rng.normal(size=(7, 8))
    labels = (features[:, [0, 5]] + rng.normal(size=(60, 2)) > 0).astype(np.uint8)
    groups = np.repeat([f"p{number}" for number in range(20)], 3)
    return Inputs(("a", "b"), {"alpha": slice(0, 8)}, split_inputs(features, groups), labels, split_inputs(test))


INPUTS = make_inputs()
EVERY = np.arange(60)


def repeats_of(count: int, seed: int = 0) -> tuple[Folds, ...]:
    return make_repeats(INPUTS, FOLDS, count, seed)


def fit_logistic(plan: FitPlan) -> CrossFitted:
    return CrossFit({"logistic": Candidate(BASELINES["logistic"].make(), slice(0, 8))}, INPUTS, plan).run(2)


def test_no_group_is_in_two_folds_of_any_repeat_and_every_repeat_is_another():
    repeats = repeats_of(4)
    for folds in repeats:
        of_groups = folds.fold_of_row.reshape(20, 3)
        np.testing.assert_array_equal(of_groups, np.repeat(of_groups[:, :1], 3, axis=1))
        assert set(folds.fold_of_row) == set(range(FOLDS))
    assert len({folds.fold_of_row.tobytes() for folds in repeats}) == 4
    again, fewer, other = repeats_of(4), repeats_of(2), repeats_of(4, seed=1)
    for first, same in zip(repeats, again, strict=True):
        np.testing.assert_array_equal(first.fold_of_row, same.fold_of_row)
    for first, same in zip(repeats, fewer, strict=False):  # so one more repeat leaves the fits of the others alone
        np.testing.assert_array_equal(first.fold_of_row, same.fold_of_row)
    assert not {folds.fold_of_row.tobytes() for folds in other} & {folds.fold_of_row.tobytes() for folds in repeats}


def test_the_fits_are_the_folds_of_all_repeats_and_at_last_the_one_on_all_rows():
    repeats = repeats_of(REPEATS)
    plain, refit = FitPlan(repeats).fits(), FitPlan(repeats, refit=True).fits()
    assert [rows.name for rows in plain] == [f"fold{index}" for index in range(FOLDS * REPEATS)]
    assert [rows.name for rows in refit] == [*(rows.name for rows in plain), "refit"]
    assert [rows.predicts_test for rows in plain] == [True] * 6
    assert [rows.predicts_test for rows in refit] == [False] * 6 + [True]
    for index, rows in enumerate(plain):
        held_out = repeats[index // FOLDS].fold_of_row == index % FOLDS
        np.testing.assert_array_equal(rows.held_out, np.flatnonzero(held_out))
        np.testing.assert_array_equal(rows.learnt, np.flatnonzero(~held_out))
    np.testing.assert_array_equal(refit[-1].learnt, EVERY)
    assert len(refit[-1].held_out) == 0


def test_probabilities_of_repeats_are_the_mean_over_those_of_each():
    repeats = repeats_of(REPEATS)
    both = fit_logistic(FitPlan(repeats))
    alone = [fit_logistic(FitPlan((folds,))).predictions["logistic"] for folds in repeats]
    together = both.predictions["logistic"]
    np.testing.assert_allclose(together.out_of_fold, np.mean([p.out_of_fold for p in alone], axis=0), rtol=1e-6)
    np.testing.assert_allclose(together.test, np.mean([p.test for p in alone], axis=0), rtol=1e-6)
    assert (alone[0].out_of_fold != alone[1].out_of_fold).all()
    for index, model in enumerate(both.models["logistic"]):
        held_out = np.flatnonzero(repeats[index // FOLDS].fold_of_row == index % FOLDS)
        expected = model.predict_proba(INPUTS.train.features[held_out])
        np.testing.assert_array_equal(alone[index // FOLDS].out_of_fold[held_out], expected)


def test_a_refitted_baseline_learns_from_all_rows_as_scikit_learn_does():
    plain, refit = (fit_logistic(FitPlan(repeats_of(1), refit)) for refit in (False, True))
    found, before = refit.predictions["logistic"], plain.predictions["logistic"]
    np.testing.assert_array_equal(found.out_of_fold, before.out_of_fold)
    assert INPUTS.test is not None
    assert found.test is not None
    C = BASELINES["logistic"].make().fit(INPUTS.train.features, INPUTS.train_labels, INPUTS.train.groups).C_
    for label in range(2):
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-8, max_iter=5000))
        pipeline.fit(INPUTS.train.features.astype(np.float64), INPUTS.train_labels[:, label])
        expected = pipeline.predict_proba(INPUTS.test.features.astype(np.float64))[:, 1]
        np.testing.assert_allclose(found.test[:, label], expected, atol=1e-4)
        assert np.abs(before.test[:, label] - expected).max() > 1e-3  # the mean over the folds is not the same
    np.testing.assert_array_equal(found.test, refit.models["logistic"][-1].predict_proba(INPUTS.test.features))


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_is_refitted(few_trees, name):
    candidates = {name: Candidate(BASELINES[name].make(), slice(0, 8))}
    plan = FitPlan((Folds(EVERY // 3 % 2, 2, None, ()),), refit=True)
    found = CrossFit(candidates, INPUTS, plan).run(2)
    assert INPUTS.test is not None
    expected = found.models[name][-1].predict_proba(INPUTS.test.features)
    np.testing.assert_array_equal(found.predictions[name].test, expected)
    assert len(found.models[name]) == 3


@pytest.fixture(scope="module")
def heads() -> tuple[CrossFitted, CrossFitted]:
    """Heads without and with a refit, of repeated folds."""
    repeats = repeats_of(REPEATS)
    candidates = head_candidates({"quick": QUICK, "slow": replace(QUICK, learning_rate=1e-3)}, INPUTS)
    plain, refit = (CrossFit(candidates, INPUTS, FitPlan(repeats, r)).run(2) for r in (False, True))
    return plain, refit


def test_a_refit_changes_no_bit_of_the_folds_heads(heads):
    plain, refit = heads
    for name, of_folds in plain.models.items():
        np.testing.assert_array_equal(plain.predictions[name].out_of_fold, refit.predictions[name].out_of_fold)
        assert len(of_folds) == FOLDS * REPEATS
        assert len(refit.models[name]) == FOLDS * REPEATS + 1
        for one, same in zip(of_folds, refit.models[name], strict=False):
            assert one.best_epoch == same.best_epoch
            for weight, other in zip(one.weights, same.weights, strict=True):
                np.testing.assert_array_equal(weight, other)


def test_a_refitted_head_trains_on_all_rows_for_the_median_of_the_best_epochs(heads):
    _, refit = heads
    specs = []
    for name, of_fits in refit.models.items():
        best = [head.best_epoch for head in of_fits[:-1]]
        assert of_fits[-1].spec == replace(of_fits[0].spec, epochs=int(np.median(best)), patience=1.0)
        assert len(of_fits[-1].curves.loss) == int(np.median(best)), name
        specs.append(of_fits[-1].spec)
    assert specs[0].epochs < specs[1].epochs == QUICK.epochs  # one of them stopped early
    assert INPUTS.test is not None
    for spec, (name, of_fits) in zip(specs, refit.models.items(), strict=True):
        [head] = bank.train_bank([spec], INPUTS.train.features, INPUTS.train_labels, bank.HeadSplit(EVERY, EVERY), 0)
        for weight, same in zip(head.weights, of_fits[-1].weights, strict=True):
            np.testing.assert_array_equal(weight, same)
        np.testing.assert_array_equal(refit.predictions[name].test, head.predict_proba(INPUTS.test.features))


def test_heads_of_repeats_have_their_own_validation_and_the_mean_of_the_probabilities(heads):
    plain, _ = heads
    total = np.zeros((60, 2))
    for rows, head in zip(FitPlan(repeats_of(REPEATS)).fits(), plain.models["quick/alpha"], strict=True):
        parts = split_rows(rows.learnt, rows.held_out, INPUTS.train_labels, INPUTS.train.groups, INPUTS.label_names, 0)
        assert parts is not None
        assert not set(parts.validation) & set(rows.held_out)
        total[rows.held_out] += head.predict_proba(INPUTS.train.features[rows.held_out]) / REPEATS
    np.testing.assert_allclose(plain.predictions["quick/alpha"].out_of_fold, total, rtol=1e-5)


def run(**choices) -> tuple[Experiment, int]:
    ticks: list[int] = []
    settings = Settings(folds=FOLDS, baselines=("logistic", "prior"), **choices)
    experiment = run_experiment(INPUTS, settings, lambda: ticks.append(1))
    assert len(ticks) == count_steps(settings, INPUTS.columns)
    return experiment, len(ticks)


def test_a_whole_experiment_with_repeats_and_refit():
    experiment, steps = run(repeats=REPEATS, refit=True, calibration="platt", select="logistic/alpha")
    assert steps == 2 * (FOLDS * REPEATS + 1) + 2
    assert experiment.final_model == "logistic/alpha+platt"
    assert experiment.folds is experiment.plan.repeats[0]
    chosen = experiment.predictions["logistic/alpha"]
    assert INPUTS.test is not None
    alone = BASELINES["logistic"].make().fit(INPUTS.train.features, INPUTS.train_labels, INPUTS.train.groups)
    np.testing.assert_array_equal(chosen.test, alone.predict_proba(INPUTS.test.features))
    calibration = experiment.ensembles[experiment.final_model]
    np.testing.assert_array_equal(
        experiment.predictions[experiment.final_model].test, calibration.predict_proba(chosen.test)
    )
    once, _ = run()
    assert (once.predictions["prior"].out_of_fold != experiment.predictions["prior"].out_of_fold).any()
    np.testing.assert_array_equal(once.folds.fold_of_row, experiment.folds.fold_of_row)


def test_an_error_of_one_call_waits_for_those_at_work_and_begins_no_other():
    begun: list[int] = []
    ended: list[int] = []
    both = threading.Barrier(2)

    def act(number: int) -> None:
        begun.append(number)
        if number < 2:
            both.wait(60)
        if number == 0:
            raise InputError("the disk is full")
        time.sleep(0.2)
        ended.append(number)

    with pytest.raises(InputError, match="the disk is full"):
        in_threads(2, act, [(number,) for number in range(50)])
    assert (sorted(begun), ended) == ([0, 1], [1])


def test_there_are_no_more_threads_than_calls():
    assert in_threads(10**6, int, [("1",), ("2",)]) == [1, 2]
    assert in_threads(10**6, int, []) == []
