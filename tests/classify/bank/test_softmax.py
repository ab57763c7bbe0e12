"""Heads of exclusive classes: the loss and its training against Keras, the classes' weights, the saved file."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.utils.class_weight import compute_class_weight

from classify.bank.softmax import softmax_entropy
from classify.bank.train import HeadSplit, train_bank
from classify.models.keras_file import read_keras, write_keras
from features.common.keras_import import import_keras
from tests.classify.bank.test_train import FIVE, LABELS, ROWS, TRAIN, WIDTH, train, train_in_keras

SOFTMAX = replace(FIVE, output="softmax")
PARITY = {
    "linear": SOFTMAX,
    "smoothed": replace(SOFTMAX, label_smoothing=0.2, seed=2),
    "deep, sgd": replace(SOFTMAX, hidden_units=(12, 6), optimiser="sgd", learning_rate=1e-2, label_smoothing=0.1),
}


@pytest.fixture(scope="module")
def features():
    return (3 + np.random.default_rng(0).standard_normal((ROWS, WIDTH))).astype(np.float32)


@pytest.fixture(scope="module")
def y(features):
    classes = np.argmax(features[:, :LABELS] + np.random.default_rng(1).normal(0, 0.5, (ROWS, LABELS)), axis=1)
    return np.eye(LABELS, dtype=np.uint8)[classes]


@pytest.fixture(scope="module")
def heads(features, y):
    return dict(zip(PARITY, train(list(PARITY.values()), features, y), strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_the_weighted_categorical_cross_entropy_and_its_slopes_are_right(smoothing):
    rng = np.random.default_rng(3)
    classes = rng.integers(0, 4, 11)
    logits, truth = rng.normal(0, 3, (4, 11)).astype(np.float32), np.eye(4, dtype=np.uint8)[classes]
    weights = rng.uniform(0.5, 2, 4).astype(np.float32)
    target = truth * (1 - smoothing) + smoothing / 4

    def expected(values):
        return np.mean(-weights[classes] * (target * log_softmax(values.T, axis=1)).sum(axis=1))

    gradient = np.empty_like(logits)
    loss = softmax_entropy(logits, truth, weights, np.float32(smoothing), gradient)
    exact = logits.astype(np.float64)
    assert loss == pytest.approx(expected(exact), rel=1e-6)
    for label, row in np.ndindex(logits.shape):
        step = np.zeros_like(exact)
        step[label, row] = 1e-6
        slope = (expected(exact + step) - expected(exact - step)) / 2e-6
        assert gradient[label, row] == pytest.approx(slope, abs=1e-6)


def test_logits_far_apart_have_a_finite_loss():
    logits = np.array([[1e4, -1e4], [0, 1e4]], np.float32)
    gradient = np.empty_like(logits)
    loss = softmax_entropy(logits, np.eye(2, dtype=np.uint8), np.ones(2, np.float32), np.float32(0), gradient)
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("name", PARITY)
def test_the_bank_trains_softmax_heads_as_keras_does(name, heads, features, y):
    weights, loss, validation_loss = train_in_keras(PARITY[name], features, y)
    head = heads[name]
    assert head.best_epoch == FIVE.epochs
    np.testing.assert_allclose(head.curves.loss, loss, atol=1e-4)
    np.testing.assert_allclose(head.curves.validation_loss, validation_loss, atol=1e-4)
    for ours, theirs in zip(head.weights, weights, strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-3 * np.linalg.norm(theirs) + 1e-6


def test_a_saved_softmax_head_is_an_ordinary_keras_model(heads, features, tmp_path):
    head, path = heads["deep, sgd"], tmp_path / "head.keras"
    path.write_bytes(write_keras(head))
    model, probabilities = import_keras().saving.load_model(path), head.predict_proba(features)
    assert model.layers[-1].activation.__name__ == "softmax"
    np.testing.assert_allclose(model.predict(features, verbose=0), probabilities, rtol=0, atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(read_keras(path.read_bytes(), path).predict_proba(features), probabilities)


def test_sigmoid_heads_beside_softmax_heads_are_as_alone(heads, features, y):
    sigmoid, softmax = train([FIVE, SOFTMAX], features, y)
    [alone] = train([FIVE], features, y)
    for one, other in ((sigmoid, alone), (softmax, heads["linear"])):
        for ours, theirs in zip(one.weights, other.weights, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_rows_that_a_softmax_head_does_not_see_change_no_bit_of_it(features, y):
    unseen = np.setdiff1d(np.arange(ROWS), TRAIN)[45:]
    other, truth = features.copy(), y.copy()
    other[unseen] += 1
    truth[unseen] = np.roll(truth[unseen], 1, axis=1)
    [first], [second] = (train([SOFTMAX], seen, known) for seen, known in ((features, y), (other, truth)))
    for one, same in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one, same)


def test_balanced_classes_count_the_same():
    classes = np.repeat([0, 1, 2], [60, 25, 5])
    truth, constant = np.eye(3, dtype=np.uint8)[classes], np.zeros((ROWS, WIDTH), np.float32)
    spec = replace(SOFTMAX, batch_norm=False, l2=0.0, learning_rate=0.1, epochs=200, batch_size=ROWS)
    every = HeadSplit(np.arange(ROWS), np.arange(ROWS))
    plain, balanced = train_bank([spec, replace(spec, class_weight="balanced")], constant, truth, every)
    shares = np.bincount(classes) / ROWS
    np.testing.assert_allclose(plain.predict_proba(constant)[0], shares, atol=0.01)
    np.testing.assert_allclose(balanced.predict_proba(constant)[0], 1 / 3, atol=0.01)
    weights = compute_class_weight("balanced", classes=np.arange(3), y=classes)
    p = balanced.predict_proba(constant)[np.arange(ROWS), classes].astype(np.float64)
    expected = np.mean(-weights[classes] * np.log(p))
    assert balanced.curves.validation_loss[balanced.best_epoch - 1] == pytest.approx(expected, rel=1e-5)
