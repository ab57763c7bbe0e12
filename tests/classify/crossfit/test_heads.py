"""Cross-fitting of heads: no head knows the rows that it is scored on, nor what decides when it stops."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from classify.bank import train as bank
from classify.crossfit.models import CrossFit, CrossFitted
from classify.crossfit.plan import FitPlan
from classify.experiment import run_experiment
from classify.inputs import Inputs, SplitInputs, list_fitted
from classify.models.heads import HeadSpec
from classify.settings import Settings, count_steps
from features.folds.folds import Folds, make_folds, split_rows
from tests.classify.toy import head_candidates

QUICK = HeadSpec(dropout=0.0, learning_rate=1e-2, batch_size=20, epochs=3)
SPECS = {"quick": QUICK, "slow": replace(QUICK, learning_rate=1e-3)}


def split_inputs(features: np.ndarray, groups: np.ndarray | None = None) -> SplitInputs:
    ids = tuple(f"i{row}" for row in range(len(features)))
    return SplitInputs(ids, np.ones(len(ids), bool), features.astype(np.float32), None, groups, {})


def make_inputs(rows: int = 60, grouped: bool = True) -> Inputs:
    rng = np.random.default_rng(0)
    features, test = rng.normal(size=(rows, 8)), rng.normal(size=(7, 8))
    labels = (features[:, [0, 5]] > 0).astype(np.uint8)
    groups = np.repeat([f"p{number}" for number in range(rows // 2)], 2) if grouped else None
    columns = {"alpha": slice(0, 4), "beta": slice(4, 8)}
    return Inputs(("a", "b"), columns, split_inputs(features, groups), labels, split_inputs(test))


def folds_of(inputs: Inputs, count: int = 3) -> Folds:
    return make_folds(inputs.train_labels, inputs.train.groups, inputs.label_names, count, seed=0)


def plan_of(inputs: Inputs, count: int = 3) -> FitPlan:
    return FitPlan((folds_of(inputs, count),))


def train_heads(
    specs: dict[str, HeadSpec], inputs: Inputs, plan: FitPlan, seed: int = 0, on_fit: Callable[[], None] = lambda: None
) -> CrossFitted:
    return CrossFit(head_candidates(specs, inputs), inputs, plan, seed).run(2, on_fit)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return make_inputs()


@pytest.fixture(scope="module")
def calls():
    return []


@pytest.fixture(scope="module")
def fitted(inputs, calls):
    with pytest.MonkeyPatch.context() as patch:
        train_bank = bank.train_bank

        def watched(specs, X, y, split, seed, **options):
            calls.append((specs[0].learning_rate, X.shape[1], *split))
            return train_bank(specs, X, y, split, seed, **options)

        patch.setattr(bank, "train_bank", watched)
        ticks = []
        found = train_heads(SPECS, inputs, plan_of(inputs), on_fit=lambda: ticks.append(1))
        assert len(ticks) == 2 * 3 * 3
        return found


MODELS = ["quick/alpha", "quick/beta", "quick/all", "slow/alpha", "slow/beta", "slow/all"]


def test_a_head_per_backbone_and_one_on_all(fitted, inputs):
    assert list_fitted(SPECS, inputs.columns) == list(fitted.predictions) == list(fitted.models) == MODELS
    assert list_fitted(SPECS, {"alpha": slice(0, 4)}) == ["quick/alpha", "slow/alpha"]
    both = ("alpha", "beta")
    assert [p.backbones for p in fitted.predictions.values()] == [("alpha",), ("beta",), both] * 2
    assert [head.spec for head in fitted.models["slow/beta"]] == [SPECS["slow"]] * 3


def test_each_head_of_each_fold_trains_by_itself(fitted, calls, inputs):
    assert sorted((rate, width) for rate, width, *_ in calls) == sorted(
        (spec.learning_rate, width) for spec in SPECS.values() for width in (4, 4, 8) for _ in range(3)
    )
    alone = train_heads({"slow": SPECS["slow"]}, inputs, plan_of(inputs))
    for model, prediction in alone.predictions.items():
        np.testing.assert_array_equal(prediction.out_of_fold, fitted.predictions[model].out_of_fold)


def test_no_group_is_on_two_sides_of_training_validation_and_held_out(fitted, calls, inputs):
    groups = inputs.train.groups
    of_learnt = {learnt.tobytes(): held_out for learnt, held_out in folds_of(inputs).split()}
    assert len(calls) == 6 * len(of_learnt)
    for _, _, train, validation in calls:
        learnt = np.sort(np.concatenate([train, validation]))
        held_out = of_learnt[learnt.tobytes()]
        assert not set(groups[train]) & set(groups[validation])
        assert not set(groups[held_out]) & (set(groups[train]) | set(groups[validation]))
        assert len(validation) / len(learnt) == pytest.approx(0.2, abs=0.1)
        assert np.ptp(inputs.train_labels[validation], axis=0).tolist() == [1, 1]


def test_out_of_fold_is_by_the_head_of_the_fold_and_test_is_the_mean(fitted, inputs):
    folds = folds_of(inputs)
    for model, columns in zip(MODELS, [slice(0, 4), slice(4, 8), slice(0, 8)] * 2, strict=True):
        heads, prediction = fitted.models[model], fitted.predictions[model]
        for fold, (_, held_out) in enumerate(folds.split()):
            expected = heads[fold].predict_proba(inputs.train.features[held_out, columns])
            np.testing.assert_allclose(prediction.out_of_fold[held_out], expected, rtol=1e-5)
        of_test = [head.predict_proba(inputs.test.features[:, columns]) for head in heads]
        np.testing.assert_allclose(prediction.test, np.mean(of_test, axis=0), rtol=1e-5)
        assert prediction.seconds > sum(head.seconds for head in heads)


def test_labels_and_features_held_out_change_nothing_of_a_fold(fitted, inputs):
    folds = folds_of(inputs)
    held_out = folds.fold_of_row == 1
    rng = np.random.default_rng(1)
    features, labels = inputs.train.features.copy(), inputs.train_labels.copy()
    features[held_out] = rng.normal(size=(held_out.sum(), 8))
    labels[held_out] = 1 - labels[held_out]
    other = replace(inputs, train=split_inputs(features, inputs.train.groups), train_labels=labels)
    again = train_heads(SPECS, other, FitPlan((folds,)))
    for model in MODELS:
        first, second = fitted.models[model], again.models[model]
        for one, same in zip(first[1].weights, second[1].weights, strict=True):
            np.testing.assert_array_equal(one, same)
        assert any((one != changed).any() for one, changed in zip(first[0].weights, second[0].weights, strict=True))


def test_permuted_labels_score_as_chance_on_the_average_of_many_permutations():
    # 60 features and few rows: what a head has seen, it knows in part by heart.
    features = np.random.default_rng(0).normal(size=(240, 60))
    lone = replace(
        make_inputs(240, grouped=False), columns={"alpha": slice(0, 60)}, train=split_inputs(features), test=None
    )
    spec = replace(QUICK, learning_rate=3e-2)
    folds = Folds(np.arange(240) % 4, 4, None, ())
    out_of_fold, learnt_from = [], []
    for seed in range(12):
        labels = np.random.default_rng(seed).permutation(lone.train_labels)
        found = train_heads({"quick": spec}, replace(lone, train_labels=labels), FitPlan((folds,)), seed)
        out_of_fold.append(roc_auc_score(labels, found.predictions["quick/alpha"].out_of_fold))
        learnt, _ = next(folds.split())
        head = found.models["quick/alpha"][0]
        learnt_from.append(roc_auc_score(labels[learnt], head.predict_proba(lone.train.features[learnt])))
    # The mean of 24 columns spreads 0.011 here.
    assert np.mean(out_of_fold) == pytest.approx(0.5, abs=0.04)
    assert np.mean(learnt_from) > 0.6


def test_validation_is_stratified_and_another_seed_chooses_another():
    inputs = make_inputs(300, grouped=False)
    labels = inputs.train_labels
    labels[:, 1] = 0
    labels[::30, 1] = 1  # 10 positives in 300 rows
    learnt = np.arange(300)
    first, again, other = (
        split_rows(learnt, learnt[:0], inputs.train_labels, inputs.train.groups, inputs.label_names, seed).validation
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert first.tolist() == sorted(first)
    assert len(first) == 60
    assert labels[first, 1].sum() == labels[other, 1].sum() == 2
    assert set(first) != set(other)


def test_a_label_of_one_value_is_no_hindrance_to_the_choice():
    inputs = make_inputs()
    inputs.train_labels[:, 1] = 0
    validation = split_rows(
        np.arange(60), np.arange(0), inputs.train_labels, inputs.train.groups, inputs.label_names, 0
    ).validation
    assert np.ptp(inputs.train_labels[validation, 0]) == 1
    inputs.train_labels[:, 0] = 1
    assert (
        split_rows(np.arange(60), np.arange(0), inputs.train_labels, inputs.train.groups, inputs.label_names, 0) is None
    )


def test_a_fold_with_one_group_to_learn_from_is_a_warning():
    inputs = make_inputs(24)
    inputs = replace(inputs, train=replace(inputs.train, groups=np.repeat(["p", "q"], 12)))
    found = train_heads({"quick": QUICK}, inputs, plan_of(inputs, 2))
    assert found.warnings == tuple(
        f"heads of fold{fold}: none of its training rows can be set aside to decide when a head stops, so the "
        "rows that the heads learnt from decided"
        for fold in (0, 1)
    )
    assert all(p.converged and np.isfinite(p.out_of_fold).all() for p in found.predictions.values())


def test_a_diverged_head_is_a_warning_that_names_it_and_nothing_else_is_said(inputs, caplog):
    specs = {"quick": QUICK, "wild": replace(QUICK, learning_rate=1e30)}
    experiment = run_experiment(inputs, Settings(folds=3, heads=specs, ensembles=("mean",)), lambda: None)
    said = [warning for warning in experiment.warnings if "wild" in warning]
    assert said == [
        f"wild/{name}: its head diverged in 3 of 3 fits and has its initial weights there; lower its learning rate, "
        "or leave it out of --preset"
        for name in ("alpha", "beta", "all")
    ]
    assert not any("quick" in warning or "solver" in warning for warning in experiment.warnings)
    assert all(np.isfinite(p.out_of_fold).all() for p in experiment.predictions.values())
    assert caplog.text == ""


def test_heads_are_models_like_any_other(inputs):
    ticks = []
    settings = Settings(folds=3, baselines=(), heads=SPECS, ensembles=("mean",), select="quick/beta")
    experiment = run_experiment(inputs, settings, lambda: ticks.append(1))
    assert len(ticks) == count_steps(settings, inputs.columns) == 18 + 1 + 7
    assert list(experiment.predictions) == [*MODELS, "mean"]
    assert experiment.final_model == "quick/beta"
    members = [experiment.predictions[name].out_of_fold for name in MODELS]
    np.testing.assert_allclose(experiment.predictions["mean"].out_of_fold, np.mean(members, axis=0), rtol=1e-6)
    assert {r.backbone for r in experiment.returns} == {"alpha", "beta"}
    assert set(experiment.thresholds) == set(experiment.predictions)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(fitted, inputs):
    again, other = (train_heads(SPECS, inputs, plan_of(inputs), seed) for seed in (0, 1))
    for model in MODELS:
        expected = fitted.predictions[model].out_of_fold.tobytes()
        assert again.predictions[model].out_of_fold.tobytes() == expected
        assert other.predictions[model].out_of_fold.tobytes() != expected


def test_no_heads_are_no_models(inputs):
    none = train_heads({}, inputs, plan_of(inputs))
    assert (none.predictions, none.models, none.warnings) == ({}, {}, ())
