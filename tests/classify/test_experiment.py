"""The whole of stage 2 in memory: scores are honest, show a leak where there is one, and the rule is followed."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from classify.crossfit.store import FitKeys, FitStore
from classify.ensembles.ensembles import ENSEMBLES
from classify.experiment import Experiment, run_experiment
from classify.inputs import Inputs, SplitInputs, read_inputs
from classify.models.baselines import BASELINES
from classify.models.heads import PRESETS, HeadSpec
from classify.scores.choice import draw_macro
from classify.scores.metrics import MACRO, Score, ThresholdRule
from classify.scores.resampling import resample
from classify.scores.thresholds import cross_fit_binary, fit_thresholds, to_binary
from classify.settings import Settings, check_settings, count_steps
from classify.validation import hold_out
from features.common.errors import InputError
from features.dataset.dataset import read_dataset
from features.store.cache import FeatureCache
from features.store.mapped import MappedFeatures
from tests.classify.toy import label_test_split, make_toy

LOGISTIC = ["logistic/alpha", "logistic/beta", "logistic/all"]
#: A head that learns fast and, if it may, by heart.
QUICK = HeadSpec(batch_norm=False, dropout=0.0, l2=0.0, learning_rate=1e-2, batch_size=100, epochs=30)
#: Heads of every kind that the bank has, of one batch size, so that one bank trains them.
HEADS = {
    "quick": QUICK,
    "balanced": replace(QUICK, optimiser="sgd", class_weight="balanced", label_smoothing=0.1),
    "linear-l2": replace(PRESETS["linear-l2"], learning_rate=1e-2, batch_size=None, epochs=30),
    "deep": replace(PRESETS["deep"], hidden_units=(32, 16), learning_rate=1e-2, batch_size=100, epochs=30),
}


def make_inputs(features, labels, groups=None, columns=None) -> Inputs:
    ids = tuple(f"i{row}" for row in range(len(features)))
    train = SplitInputs(ids, np.ones(len(ids), bool), features.astype(np.float32), None, groups, {})
    names = tuple(f"label{index}" for index in range(labels.shape[1]))
    return Inputs(names, columns or {"alpha": slice(0, features.shape[1])}, train, labels, None)


def with_test(inputs: Inputs, features, labels) -> Inputs:
    ids = tuple(f"t{row}" for row in range(len(features)))
    return replace(
        inputs, test=SplitInputs(ids, np.ones(len(ids), bool), features.astype(np.float32), labels, None, {})
    )


def run(inputs: Inputs, **choices) -> Experiment:
    return run_experiment(inputs, Settings(jobs=2, **choices), lambda: None)


def macro_aucs(experiment: Experiment) -> dict[str, Score]:
    return {
        model: score
        for (model, split), scores in experiment.scores.items()
        for score in scores
        if split == "oof" and (score.label, score.metric) == (MACRO, "roc_auc")
    }


def two_backbones(seed: int, rows: int = 1000, permute: bool = False) -> Inputs:
    """Labels that two backbones know different parts of."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(rows, 3))
    features = np.column_stack([signal[:, :2], rng.normal(size=(rows, 38)), signal[:, 2]])
    labels = (signal + 0.5 * rng.normal(size=signal.shape) > (1.5, 0.4, 0)).astype(np.uint8)
    labels = rng.permutation(labels) if permute else labels
    return make_inputs(features, labels, columns={"alpha": slice(0, 20), "beta": slice(20, 41)})


def test_features_that_stay_on_the_disk_give_the_same_run(tmp_path, monkeypatch, few_draws):
    toy = make_toy(tmp_path)
    label_test_split(toy)
    few = {name: replace(HEADS[name], epochs=4) for name in ("quick", "linear-l2")}
    found = []
    for most in (1 << 28, 0):
        monkeypatch.setattr("features.store.mapped.MOST_LOADED", most)
        inputs = read_inputs(read_dataset(toy.data), FeatureCache(toy.cache), None)
        assert isinstance(inputs.train.features, MappedFeatures) == isinstance(inputs.test.features, MappedFeatures)
        assert isinstance(inputs.train.features, MappedFeatures) == (most == 0)
        held_out, _ = hold_out(replace(inputs, test=replace(inputs.test, labels=None)), 0.2, 0)
        kept = FitKeys(inputs).parts, FitKeys(held_out).parts
        found.append(
            (run(inputs, heads=few, baselines=("logistic", "ridge_regression", "knn"), folds=2).predictions, kept)
        )
    (loaded, keys), (mapped, other_keys) = found
    assert keys == other_keys  # so that a fit that is kept is found again
    assert loaded.keys() == mapped.keys()
    for model, prediction in loaded.items():
        np.testing.assert_array_equal(prediction.by_repeat, mapped[model].by_repeat, err_msg=model)
        np.testing.assert_array_equal(prediction.test_by_fit, mapped[model].test_by_fit, err_msg=model)


@pytest.fixture
def few_draws(monkeypatch):
    """Intervals from 200 draws: the standard error of an end is a fifth of the standard deviation of the score."""
    monkeypatch.setattr("classify.experiment.resample", partial(resample, draws=200))


def test_permuted_labels_have_chance_inside_every_interval():
    scores = macro_aucs(run(two_backbones(0, permute=True), calibration="platt"))
    assert len(scores) == len(LOGISTIC) + len(ENSEMBLES) + 1
    assert {model: (s.low, s.high) for model, s in scores.items() if not s.low < 0.5 < s.high} == {}
    # An interval that is always wide would prove nothing.
    assert max(s.high - s.low for s in scores.values()) < 0.075


def test_permuted_labels_score_as_chance_on_the_average_of_many_permutations(few_draws):
    # One permutation says little. Without signal an out-of-fold score counts each pair of rows twice, once in each
    # direction, so it spreads sqrt(2) more than an interval of the models as they are can know, and 95 % become 83 %.
    repeats = 8
    scores = [
        macro_aucs(run(two_backbones(seed, rows=400, permute=True), folds=3, seed=seed)) for seed in range(repeats)
    ]
    for model in scores[0]:
        values = [of_model[model].value for of_model in scores]
        # The spread is 0.03 here, so 4 of the mean's standard deviations are 0.042. In-sample stacking is above 0.6.
        assert np.mean(values) == pytest.approx(0.5, abs=0.042), model
        assert np.mean([of_model[model].low < 0.5 < of_model[model].high for of_model in scores]) >= 0.6, model


def one_backbone(seed: int, rows: int, permute: bool = True) -> Inputs:
    """The two backbones as one, so that fewer models are fitted."""
    inputs = two_backbones(seed, rows, permute)
    return replace(inputs, columns={"alpha": slice(0, 41)})


def test_permuted_labels_score_as_chance_on_the_average_by_every_baseline_head_and_ensemble(few_trees, few_draws):
    repeats, design = 8, {"folds": 2, "baselines": tuple(BASELINES), "heads": HEADS}
    scores = [macro_aucs(run(one_backbone(seed, 240), seed=seed, **design)) for seed in range(repeats)]
    models = [*(f"{name}/alpha" for name in [*BASELINES, *HEADS] if name != "prior"), "prior", *ENSEMBLES]
    assert sorted(scores[0]) == sorted(models)
    assert all(of_model["prior"].value == 0.5 for of_model in scores)
    for model in (name for name in models if name != "prior"):
        # One score spreads 0.03 here: 4 of the mean's standard deviations are 0.042. By this
        # spread a leak of 0.065 fails in 98 of 100 cases.
        assert np.mean([of_model[model].value for of_model in scores]) == pytest.approx(0.5, abs=0.042), model
        assert np.mean([of_model[model].low < 0.5 < of_model[model].high for of_model in scores]) >= 0.6, model
    assert max(s.high - s.low for of_model in scores for s in of_model.values()) < 0.16
    # Each of them but the prior finds what there is to find.
    signal = macro_aucs(run(one_backbone(0, 240, permute=False), **design))
    assert min(score.low for model, score in signal.items() if model != "prior") > 0.55


def test_labels_as_they_are_score_above_chance():
    assert all(score.low > 0.5 for score in macro_aucs(run(two_backbones(0))).values())


def test_copies_of_rows_gain_nothing_where_folds_keep_them_together():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 60))
    labels = (features[:, :2] + 3 * rng.normal(size=(200, 2)) > 0).astype(np.uint8)
    copies, groups = np.repeat(np.arange(200), 5), np.repeat([f"row{index}" for index in range(200)], 5)
    columns = {"alpha": slice(0, 30), "beta": slice(30, 60)}
    unique = macro_aucs(run(make_inputs(features, labels, columns=columns)))
    grouped = macro_aucs(run(make_inputs(features[copies], labels[copies], groups, columns)))
    ungrouped = macro_aucs(run(make_inputs(features[copies], labels[copies], None, columns)))
    for model, score in unique.items():
        assert grouped[model].value < score.high
        assert ungrouped[model].value > score.high
        # 1,000 rows that are 200 tell as much as 200.
        width, of_unique = grouped[model].high - grouped[model].low, score.high - score.low
        assert width == pytest.approx(of_unique, rel=0.25)


def test_copies_of_rows_gain_nothing_for_a_head_either():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(200, 60))
    labels = (features[:, :2] + 3 * rng.normal(size=(200, 2)) > 0).astype(np.uint8)
    copies, groups = np.repeat(np.arange(200), 5), np.repeat([f"row{index}" for index in range(200)], 5)
    of_copies = make_inputs(features[copies], labels[copies])
    grouped = replace(of_copies, train=replace(of_copies.train, groups=groups))
    # As many steps for 200 rows as for the 1,000 that they are copied to.
    batches = (20, 100, 100)
    scores = [
        macro_aucs(run(inputs, baselines=(), heads={"quick": replace(QUICK, batch_size=batch)}))["quick/alpha"]
        for inputs, batch in zip((make_inputs(features, labels), grouped, of_copies), batches, strict=True)
    ]
    unique, kept_together, cut = scores
    assert kept_together.value < unique.high < cut.low
    assert kept_together.high - kept_together.low == pytest.approx(unique.high - unique.low, rel=0.25)


def test_groups_keep_the_models_from_recognising_patients():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(100), 8)
    features = rng.normal(size=(100, 60))[patient] + 0.3 * rng.normal(size=(800, 60))  # who, and nothing else
    labels = rng.integers(0, 2, (100, 2))[patient].astype(np.uint8)  # drawn per patient, whatever the features
    groups = np.array([f"p{number}" for number in patient])
    assert macro_aucs(run(make_inputs(features, labels)))["logistic/alpha"].value > 0.8
    # 100 patients: one standard deviation of chance is 0.058 per label, 0.041 for the mean of two; the bound is three.
    score = macro_aucs(run(make_inputs(features, labels, groups)))["logistic/alpha"]
    assert score.value == pytest.approx(0.5, abs=0.125)


def test_models_of_several_backbones_and_their_ensembles():
    ticks = []
    inputs, settings = two_backbones(3, rows=80), Settings(folds=3)
    experiment = run_experiment(inputs, settings, lambda: ticks.append(1))
    assert list(experiment.predictions) == [*LOGISTIC, *ENSEMBLES]
    *members, mean = [experiment.predictions[name].out_of_fold for name in (*LOGISTIC, "mean")]
    np.testing.assert_allclose(mean, np.mean(members, axis=0), rtol=1e-6)
    assert len(ticks) == count_steps(settings, inputs.columns) == 9 + 6 + 9


def test_every_model_names_its_backbones():
    predictions = run(two_backbones(0, rows=200)).predictions
    backbones = {name: predictions[name].backbones for name in (*LOGISTIC, "mean", "stacking")}
    both = ("alpha", "beta")
    assert backbones == dict(zip(backbones, [("alpha",), ("beta",), both, both, both], strict=True))
    greedy = predictions["greedy"]
    assert sum(greedy.shares.values()) == pytest.approx(1)
    assert set(greedy.backbones) == {b for member in greedy.shares for b in predictions[member].backbones}


def test_the_final_model_is_tied_with_the_best_macro_score_of_the_rule():
    for rule, best in (("roc_auc", max), ("log_loss", min)):
        experiment = run(two_backbones(1, rows=300), select=rule)
        values = {model: experiment.macro(model, rule).value for model in experiment.predictions}
        tied = {model for model, beside in experiment.comparisons.items() if beside.tied}
        assert best(values, key=lambda model: values[model]) in tied
        backbones = {model: len(experiment.predictions[model].backbones) for model in tied}
        assert backbones[experiment.final_model] == min(backbones.values())
        for model, beside in experiment.comparisons.items():
            assert beside.difference == pytest.approx(values[model] - values[experiment.final_model])
        assert experiment.nested is not None
        assert set(experiment.nested.chosen) <= set(values)


def test_a_final_model_by_name_and_the_ensembles_that_were_asked_for():
    experiment = run(two_backbones(1, rows=100), select="logistic/beta", ensembles=("greedy",))
    assert experiment.final_model == "logistic/beta"
    assert list(experiment.predictions) == [*LOGISTIC, "greedy"]
    with pytest.raises(InputError, match=r"--select 'mean': expected a metric \(roc_auc, .* logistic/all, greedy\)"):
        check_settings(Settings(select="mean", ensembles=("greedy",)), two_backbones(1, rows=100))


def test_calibration_makes_the_final_model_of_the_chosen_one():
    plain = run(two_backbones(1, rows=300))
    calibrated = run(two_backbones(1, rows=300), calibration="isotonic")
    assert calibrated.final_model == f"{plain.final_model}+isotonic"
    assert list(calibrated.predictions) == [*plain.predictions, calibrated.final_model]
    assert set(calibrated.thresholds) == set(calibrated.predictions)
    # The thresholds are of the scale that new images get.
    chosen, labels = calibrated.predictions[plain.final_model].out_of_fold, two_backbones(1, rows=300).train_labels
    scaled = calibrated.ensembles[calibrated.final_model].predict_proba(chosen)
    expected = fit_thresholds(labels, scaled, ThresholdRule.parse("f1"))
    np.testing.assert_array_equal(calibrated.thresholds[calibrated.final_model], expected)


def test_the_prior_is_chance_within_every_fold_and_repeat_and_below_it_over_all_folds():
    experiment = run(two_backbones(0, rows=200), baselines=("prior",), folds=4, repeats=2)
    scores = {s.metric: s for s in experiment.scores["prior", "oof"] if s.label == MACRO}
    assert (scores["roc_auc"].value, scores["roc_auc"].low, scores["roc_auc"].high) == (0.5, 0.5, 0.5)
    assert scores["pooled_roc_auc"].value < 0.5


def test_one_backbone_is_one_model():
    rng = np.random.default_rng(4)
    inputs = make_inputs(rng.normal(size=(60, 3)), rng.integers(0, 2, (60, 2)).astype(np.uint8))
    experiment = run(inputs, folds=3)
    assert list(experiment.predictions) == ["logistic/alpha"]
    assert experiment.final_model == "logistic/alpha"


def test_a_fold_without_positives_to_learn_from_gets_the_constant():
    rng = np.random.default_rng(5)
    labels = np.zeros((40, 2), np.uint8)
    labels[::2, 0] = 1
    labels[7, 1] = 1
    experiment = run(make_inputs(rng.normal(size=(40, 3)), labels))
    fold = experiment.folds.fold_of_row[7]
    held_out = experiment.folds.fold_of_row == fold
    lone = experiment.predictions["logistic/alpha"].out_of_fold[held_out, 1]
    np.testing.assert_allclose(lone, 1 / ((~held_out).sum() + 2), rtol=1e-5)
    assert [warning.split(":")[0] for warning in experiment.warnings] == ["label1", "label1"]
    assert "its threshold is fitted on 1 positive, fewer" in experiment.warnings[0]


def test_thresholds_are_cross_fitted_on_train_and_never_see_the_labels_of_test():
    rng = np.random.default_rng(6)
    train, rule = two_backbones(2, rows=300), ThresholdRule.parse("youden")
    features = rng.normal(size=(50, 41))
    labels = rng.integers(0, 2, (50, 3)).astype(np.uint8)
    experiment, other = (run(with_test(train, features, truth), threshold=rule) for truth in (labels, 1 - labels))
    for model, prediction in experiment.predictions.items():
        np.testing.assert_array_equal(experiment.thresholds[model], other.thresholds[model])
        expected = fit_thresholds(train.train_labels, prediction.out_of_fold, rule)
        np.testing.assert_array_equal(experiment.thresholds[model], expected)

        binary = cross_fit_binary(train.train_labels, prediction.out_of_fold, rule, experiment.folds)
        in_sample = to_binary(prediction.out_of_fold, expected)
        accuracy = [s.value for s in experiment.scores[model, "oof"] if (s.label, s.metric) == ("label1", "accuracy")]
        assert accuracy == [pytest.approx((binary == train.train_labels)[:, 1].mean())]
        assert (binary != in_sample).any()
        on_test = [s.value for s in experiment.scores[model, "test"] if (s.label, s.metric) == ("label1", "accuracy")]
        assert on_test == [pytest.approx((to_binary(prediction.test, expected) == labels)[:, 1].mean())]


def test_scores_of_models_that_are_the_same_are_recalled(tmp_path, monkeypatch):
    inputs = two_backbones(0, 200)
    run_experiment(inputs, Settings(folds=2), lambda: None, FitStore(tmp_path, 10**9))

    def refuse(*_: object) -> None:
        raise AssertionError("it is made again")

    other = Settings(folds=2, threshold=ThresholdRule.parse("sensitivity=0.9"))
    expected = run_experiment(inputs, other, lambda: None)
    monkeypatch.setattr("classify.experiment.rank_labels", refuse)
    monkeypatch.setattr(
        "classify.scores.choice.draw_macro", lambda *a: draw_macro(*a) if a[-1].draws > 200 else refuse()
    )
    found = run_experiment(inputs, other, lambda: None, FitStore(tmp_path, 10**9))
    assert found.scores == expected.scores
    assert found.nested == expected.nested
    monkeypatch.undo()
    labels = inputs.train_labels.copy()
    labels[0] = 1 - labels[0]
    corrected = replace(inputs, train_labels=labels)
    found = run_experiment(corrected, other, lambda: None, FitStore(tmp_path, 10**9))
    assert found.scores == run_experiment(corrected, other, lambda: None).scores


@pytest.mark.parametrize("jobs", [1, 3])
def test_equal_settings_give_equal_scores_whatever_the_jobs(jobs):
    first = run_experiment(two_backbones(7, rows=120), Settings(jobs=2), lambda: None)
    again = run_experiment(two_backbones(7, rows=120), Settings(jobs=jobs), lambda: None)
    assert first.scores == again.scores
