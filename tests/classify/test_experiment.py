"""The whole of stage 2 in memory: scores are honest, and show a leak where there is one."""

import numpy as np
import pytest

from classify.experiment import count_fits, run_experiment, to_binary
from classify.inputs import Inputs, SplitInputs
from classify.metrics import MACRO


def make_inputs(features, labels, groups=None, columns=None) -> Inputs:
    ids = tuple(f"i{row}" for row in range(len(features)))
    train = SplitInputs(ids, np.ones(len(ids), bool), features.astype(np.float32), None, groups, {})
    names = tuple(f"label{index}" for index in range(labels.shape[1]))
    return Inputs(names, columns or {"alpha": slice(0, features.shape[1])}, train, labels, None)


def macro_auc(inputs: Inputs) -> float:
    experiment = run_experiment(inputs, 5, 0, 2, lambda: None)
    scores = experiment.scores[experiment.final_model, "oof"]
    return next(s.value for s in scores if (s.label, s.metric) == (MACRO, "roc_auc") and s.value is not None)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_permuted_labels_score_as_chance(seed):
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(600, 3))
    features = np.column_stack([signal, rng.normal(size=(600, 40))])
    labels = (signal + 0.5 * rng.normal(size=signal.shape) > 0).astype(np.uint8)
    assert macro_auc(make_inputs(features, labels)) > 0.85
    # The AUC of chance has the standard deviation sqrt((n+1) / (12 n1 n0)) = 0.024 for one label of 600 balanced rows,
    # 0.014 for the mean of three; the bound is four of these.
    assert macro_auc(make_inputs(features, rng.permutation(labels))) == pytest.approx(0.5, abs=0.055)


def test_groups_keep_the_models_from_recognising_patients():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(100), 8)
    features = rng.normal(size=(100, 60))[patient] + 0.3 * rng.normal(size=(800, 60))  # who, and nothing else
    labels = rng.integers(0, 2, (100, 2))[patient].astype(np.uint8)  # drawn per patient, whatever the features
    groups = np.array([f"p{number}" for number in patient])
    assert macro_auc(make_inputs(features, labels)) > 0.8
    # 100 patients: one standard deviation of chance is 0.058 per label, 0.041 for the mean of two; the bound is three.
    assert macro_auc(make_inputs(features, labels, groups)) == pytest.approx(0.5, abs=0.125)


def test_models_of_several_backbones_and_their_mean():
    rng = np.random.default_rng(3)
    features, labels = rng.normal(size=(60, 7)), rng.integers(0, 2, (60, 2)).astype(np.uint8)
    inputs = make_inputs(features, labels, columns={"alpha": slice(0, 3), "beta": slice(3, 7)})
    ticks = []
    experiment = run_experiment(inputs, 3, 0, 2, lambda: ticks.append(1))
    assert list(experiment.predictions) == ["logistic/alpha", "logistic/beta", "logistic/all", "mean"]
    assert experiment.final_model == "mean"
    *members, mean = [prediction.out_of_fold for prediction in experiment.predictions.values()]
    np.testing.assert_allclose(mean, np.mean(members, axis=0), rtol=1e-6)
    assert len(ticks) == count_fits(inputs.columns, 3) == 9


def test_one_backbone_is_one_model():
    rng = np.random.default_rng(4)
    inputs = make_inputs(rng.normal(size=(60, 3)), rng.integers(0, 2, (60, 2)).astype(np.uint8))
    experiment = run_experiment(inputs, 3, 0, 1, lambda: None)
    assert list(experiment.predictions) == ["logistic/alpha"]
    assert experiment.final_model == "logistic/alpha"


def test_a_fold_without_positives_to_learn_from_gets_the_constant():
    rng = np.random.default_rng(5)
    labels = np.zeros((40, 2), np.uint8)
    labels[::2, 0] = 1
    labels[7, 1] = 1
    experiment = run_experiment(make_inputs(rng.normal(size=(40, 3)), labels), 5, 0, 1, lambda: None)
    fold = experiment.folds.fold_of_row[7]
    held_out = experiment.folds.fold_of_row == fold
    lone = experiment.predictions["logistic/alpha"].out_of_fold[held_out, 1]
    np.testing.assert_allclose(lone, 1 / ((~held_out).sum() + 2), rtol=1e-5)
    assert len(experiment.warnings) == 2


def test_half_is_positive():
    below = np.nextafter(np.float32(0.5), np.float32(0))
    np.testing.assert_array_equal(to_binary(np.array([[below, 0.5], [0.0, 1.0]], np.float32)), [[0, 1], [0, 1]])
