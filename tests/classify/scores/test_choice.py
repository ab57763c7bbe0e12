"""The final model is the simplest of those tied with the best, and what the choice flatters is measured."""

from dataclasses import replace

import numpy as np
import pytest

from classify.crossfit.plan import Prediction
from classify.scores.choice import LEAST_POSITIVES, choose, choose_nested, macro_labels
from classify.scores.metrics import MACRO, find_macro
from classify.scores.resampling import resample
from classify.scores.scoring import ByFold, score
from features.folds.folds import make_folds
from tests.classify.test_experiment import make_inputs


def predicting(backbones: int, probabilities: np.ndarray | None = None) -> Prediction:
    by_repeat = np.zeros((1, 1, 1), np.float32) if probabilities is None else probabilities[None].astype(np.float32)
    return Prediction(by_repeat, None, backbones=tuple(f"b{number}" for number in range(backbones)))


def draws(value: float, spread: float = 0.0, seed: int = 0) -> np.ndarray:
    """A score on the rows as they are, then on 1,000 draws; models of one seed go up and down together."""
    return np.append(value, value + spread * np.random.default_rng(seed).normal(size=1000))


def test_of_models_that_go_up_and_down_together_a_small_difference_is_one():
    of_models = {"one": draws(0.80, 0.05), "three": draws(0.81, 0.05)}
    predictions = {"one": predicting(1), "three": predicting(3)}
    final, beside = choose("roc_auc", of_models, predictions, ())
    assert final == "three"
    assert not beside["one"].tied
    assert beside["one"].difference == pytest.approx(-0.01)
    assert (beside["one"].low, beside["one"].high) == pytest.approx((-0.01, -0.01))
    assert (beside["one"].won, beside["three"].won) == (0, 0.5)


def test_of_models_that_may_differ_by_chance_the_one_on_the_fewest_backbones_is_taken():
    of_models = {"one": draws(0.80, 0.05, 1), "greedy": draws(0.815, 0.05, 3), "three": draws(0.81, 0.05, 2)}
    predictions = {"one": predicting(1), "greedy": predicting(3), "three": predicting(3)}
    final, beside = choose("roc_auc", of_models, predictions, ("greedy",))
    assert final == "one"
    assert all(found.tied for found in beside.values())
    assert beside["three"].difference == pytest.approx(0.01)
    assert beside["three"].low < 0 < beside["three"].high
    assert 0.4 < beside["three"].won < 0.7
    del of_models["one"]
    assert choose("roc_auc", of_models, predictions, ("greedy",))[0] == "three"  # a model before an ensemble


def test_of_as_many_backbones_the_best_is_taken_and_the_prior_is_not():
    of_models = {"prior": draws(0.5), "a": draws(0.52, 0.1, 1), "b": draws(0.53, 0.1, 2)}
    predictions = {"prior": predicting(0), "a": predicting(1), "b": predicting(1)}
    assert choose("roc_auc", of_models, predictions, ())[0] == "b"
    assert choose("log_loss", of_models, predictions, ())[0] == "a"
    assert choose("a", of_models, predictions, ())[0] == "a"
    assert choose("roc_auc", {"prior": of_models["prior"]}, predictions, ())[0] == "prior"


def test_without_draws_only_equal_scores_are_tied():
    of_models = {"one": np.array([0.8, np.nan]), "two": np.array([0.80001, np.nan]), "three": np.array([0.81, np.nan])}
    predictions = {"one": predicting(1), "two": predicting(2), "three": predicting(3)}
    final, beside = choose("roc_auc", of_models, predictions, ())
    assert (final, beside["one"].low, beside["one"].tied) == ("three", None, False)
    del of_models["three"]
    assert choose("roc_auc", of_models, predictions, ())[0] == "one"


def test_a_label_that_is_rare_in_train_or_of_one_value_in_test_has_no_part_in_means():
    train = np.zeros((100, 3), np.uint8)
    train[:50, 0], train[: LEAST_POSITIVES - 1, 1], train[:50, 2] = 1, 1, 1
    test = np.zeros((10, 3), np.uint8)
    test[0, :2] = 1
    names = ("a", "b", "c")
    assert macro_labels(names, train, None) == {"b": "9 positives in train"}
    assert macro_labels(names, train, test) == {"b": "9 positives in train", "c": "all of test has the value 0"}
    assert macro_labels(("b",), train[:, 1:2], None) == {}


def noise(seed: int, models: int = 18, rows: int = 200):
    """Models that know nothing of four labels, with some like each other, and their scores."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (rows, 2)).astype(np.uint8)
    inputs = make_inputs(np.zeros((rows, 1)), labels)
    folds = make_folds(labels, None, inputs.label_names, 5, seed)
    predictions = {f"m{number}": predicting(1, rng.random(labels.shape)) for number in range(models)}
    drawn = resample(rows, None, seed, draws=100)

    def judge(prediction):
        probabilities = prediction.out_of_fold
        by_fold = ByFold(prediction.by_repeat, folds.fold_of_row[None])
        return score(
            labels, probabilities, labels, np.full_like(probabilities, 0.5), inputs.label_names, drawn, by_fold
        )

    return predictions, inputs, folds, judge


def test_the_best_of_many_models_of_noise_is_flattered_and_the_nested_choice_is_not():
    chosen, nested = [], []
    for seed in range(8):
        predictions, inputs, folds, judge = noise(seed)
        of_models = {name: judge(prediction).draws["roc_auc"] for name, prediction in predictions.items()}
        final, _ = choose("roc_auc", of_models, predictions, ())
        found = choose_nested("roc_auc", predictions, (), inputs, (), folds, 0, 1)
        assert len(found.chosen) == 5
        chosen.append(of_models[final][0])
        nested.append(found.value)
    # One score spreads 0.03: the mean of 8 by 0.011.
    assert np.mean(chosen) > 0.525
    assert np.mean(nested) == pytest.approx(0.5, abs=0.03)


def test_the_nested_choice_of_a_fold_does_not_depend_on_its_labels():
    predictions, inputs, folds, _ = noise(0, models=6)
    turned = inputs.train_labels.copy()
    turned[folds.fold_of_row == 2] ^= 1
    other = replace(inputs, train_labels=turned)
    for rule in ("roc_auc", "average_precision", "log_loss", "brier"):
        first, second = (choose_nested(rule, predictions, (), own, (), folds, 0, 1).chosen for own in (inputs, other))
        assert first[2] == second[2]


def test_means_over_labels_name_who_has_no_part():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, 3)).astype(np.uint8)
    probabilities = rng.random(labels.shape).astype(np.float32)
    drawn = resample(60, None, 0, draws=10)
    own = score(labels, probabilities, labels, probabilities, ("a", "b", "c"), drawn, left_out={"b": "4 positives"})
    values = {s.label: s.value for s in own.scores if s.metric == "roc_auc"}
    macro = find_macro(own.scores, "roc_auc")
    assert macro.value == pytest.approx((values["a"] + values["c"]) / 2)
    assert macro.reason == "without b (4 positives)"
    assert macro.label == MACRO
    assert own.draws["roc_auc"][0] == macro.value
