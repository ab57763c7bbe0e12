"""Gradients against finite differences and closed forms: logits = gradients @ features + intercepts."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import logit

from classify.models.baselines import BASELINES
from classify.models.keras_file import write_keras
from classify.models.trained_head import HeadWeights
from features.common.keras_import import import_keras

ROWS, WIDTH, LABELS = 60, 9, 3
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(ROWS, WIDTH)) * RNG.uniform(0.5, 3, WIDTH) + RNG.normal(size=WIDTH)).astype(np.float32)
Y = (X[:, :LABELS] + RNG.normal(size=(ROWS, LABELS)) > 0.5).astype(np.uint8)


def head(hidden: tuple[int, ...], batch_norm: bool, exclusive: bool = False) -> HeadWeights:
    random = np.random.default_rng(3)
    widths = [WIDTH, *hidden, LABELS]
    weights = []
    if batch_norm:
        weights += [random.uniform(0.5, 1.5, WIDTH), random.normal(size=WIDTH), random.normal(size=WIDTH)]
        weights += [random.uniform(0.5, 4, WIDTH)]
    for inputs, outputs in pairwise(widths):
        weights += [random.normal(size=(inputs, outputs)) * 0.15, random.normal(size=outputs) * 0.3]
    return HeadWeights([values.astype(np.float32) for values in weights], batch_norm, exclusive)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)])
def test_a_head_is_its_gradient_times_the_features_and_its_intercept(hidden, batch_norm, exclusive):
    model = head(hidden, batch_norm, exclusive)
    found = model.linearise(X)
    assert found.gradients.shape == (ROWS, LABELS, WIDTH)
    logits = np.einsum("nld,nd->nl", found.gradients, X) + found.intercepts
    np.testing.assert_allclose(logits, logit(model.predict_proba(X).astype(np.float64)), atol=1e-4)


@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
@pytest.mark.parametrize("hidden", [(), (16, 8)])
def test_the_gradient_of_a_head_is_keras_own(hidden, output, tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    from classify.models.heads import HeadSpec
    from classify.models.trained_head import TrainedHead

    model, spec = head(hidden, True, output == "softmax"), HeadSpec(hidden_units=hidden, output=output)
    path = tmp_path / "head.keras"
    path.write_bytes(write_keras(TrainedHead(spec, model.weights, None, 0, 0.0)))
    keras_model = import_keras().saving.load_model(path)
    features = tensorflow.constant(X)
    with tensorflow.GradientTape() as tape:
        tape.watch(features)
        probabilities = keras_model(features, training=False)
        logits = tensorflow.math.log(probabilities) - tensorflow.math.log1p(-probabilities)
    expected = tape.batch_jacobian(logits, features).numpy()
    np.testing.assert_allclose(model.linearise(X).gradients, expected, rtol=2e-3, atol=1e-4)


def test_what_is_added_to_all_classes_changes_no_gradient():
    model = head((), True, exclusive=True)
    *others, kernel, bias = model.weights
    shifted = HeadWeights([*others, kernel + np.arange(WIDTH, dtype=np.float32)[:, None], bias + 2], True, True)
    np.testing.assert_allclose(model.linearise(X).gradients, shifted.linearise(X).gradients, atol=1e-4)


def test_two_classes_have_the_gradient_of_the_sigmoid_of_their_difference():
    model = head((), True, exclusive=True)
    *others, kernel, bias = model.weights
    two = HeadWeights([*others, kernel[:, :2], bias[:2]], True, True)
    one = HeadWeights([*others, kernel[:, :1] - kernel[:, 1:2], bias[:1] - bias[1:2]], True)
    for ours, theirs in zip(two.linearise(X), one.linearise(X), strict=True):
        np.testing.assert_allclose(ours[:, 0], theirs[:, 0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours[:, 1], -theirs[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["logistic", "ridge_regression", "svm"])
def test_a_linear_baseline_is_linearised_through_its_scaler_and_calibration(name):
    labels = Y.copy()
    labels[:, 2] = 1  # of one value only: a constant probability
    model = BASELINES[name].make().fit(X, labels)
    assert model.has_gradient
    found = model.linearise(X)
    logits = np.einsum("nld,nd->nl", found.gradients, X) + found.intercepts
    expected = logit(model.predict_proba(X).astype(np.float64))
    near = np.abs(expected) < 6  # beyond, a float32 probability does not hold so many digits of its logit
    assert near.mean() > 0.8
    np.testing.assert_allclose(logits[near], expected[near], atol=1e-4)
    assert (found.gradients[:, 2] == 0).all()
    assert (found.gradients[:, :2] != 0).any(axis=(0, 2)).all()


@pytest.mark.parametrize("name", ["knn", "forest", "boosting", "prior"])
def test_other_baselines_have_no_gradient(name):
    assert not BASELINES[name].make().fit(X, Y).has_gradient
