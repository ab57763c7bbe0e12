"""What is compiled, where the training of whole heads does not show it."""

import numpy as np
import pytest

from classify.bank.layout import Heads, Rules, StackKind, State, lay_flat, lay_out
from classify.bank.loops import _multiply, _multiply_back, pace_adam, take_steps


@pytest.mark.parametrize("outputs", [1, 3, 8, 9])  # the last by BLAS
@pytest.mark.parametrize("rows", [1, 4, 7])
def test_products_and_their_gradients_are_those_of_numpy(outputs, rows):
    rng = np.random.default_rng(outputs)
    kernels, values = (rng.normal(size=(count, 37)).astype(np.float32) for count in (outputs, rows))
    products, of_kernels = np.full((outputs, rows), np.nan, np.float32), np.full_like(kernels, np.nan)
    _multiply(kernels, values, products)
    np.testing.assert_allclose(products, kernels.astype(np.float64) @ values.T, atol=1e-4)
    _multiply_back(products, values, of_kernels)
    np.testing.assert_allclose(of_kernels, products.astype(np.float64) @ values, rtol=1e-4, atol=1e-3)


KINDS = {
    "linear": StackKind((), True, 0.0, "adam"),
    "shared masks, a short one last": StackKind((), True, 0.3, "adam"),
    "no batch norm": StackKind((), False, 0.3, "sgd"),
    "hidden": StackKind((5,), True, 0.0, "sgd"),
    "hidden, masks": StackKind((5, 4), True, 0.5, "adam"),
    "softmax": StackKind((), True, 0.3, "adam", softmax=True),
    "softmax, hidden": StackKind((5,), False, 0.0, "sgd", softmax=True),
}


@pytest.mark.parametrize("name", KINDS)
def test_gradients_are_the_slopes_of_the_loss(name):
    kind, rows, width, labels, heads, shared = KINDS[name], 20, 7, 2, 3, 9
    rng = np.random.default_rng(len(name))
    table = lay_flat(rng.normal(1, 2, size=(rows, width)).astype(np.float32))
    truth, places = rng.integers(0, 2, (rows, labels)).astype(np.uint8), np.arange(rows)
    if kind.softmax:
        truth = np.eye(labels, dtype=np.uint8)[rng.integers(0, labels, rows)]
    layers = lay_out(kind, width, labels, shared)
    numbers = rng.normal(size=(heads, int(layers.biases[-1]) + labels)).astype(np.float32)
    of_heads = (rng.uniform(0, 0.1, heads).astype(np.float32) for _ in range(2))
    weights = (rng.uniform(0.5, 2, (heads, labels)).astype(np.float32) for _ in range(2))
    rules = Rules(np.zeros(heads, np.float32), *of_heads, *weights)  # nothing is learnt
    masks = 3 if kind.dropout else 0
    chances = (
        rng.random((1, masks, width), np.float32),
        rng.random((1, bool(masks) * sum(kind.hidden_units) * rows), np.float32),
    )

    def loss_and_gradient(changed):
        moving = np.zeros(width, np.float32), np.ones(width, np.float32)
        state = State(changed, np.full_like(changed, np.nan), np.zeros_like(changed), np.zeros_like(changed), *moving)
        logits, paces = np.empty((heads, labels, rows), np.float32), np.ones(1, np.float32)
        loss = take_steps(table, places, truth, places, rows, Heads(layers, state, rules), *chances, paces, logits)
        return loss.astype(np.float64) / rows, state.gradient.astype(np.float64)

    _, gradient = loss_and_gradient(numbers.copy())
    for _ in range(5):
        way = rng.normal(size=numbers.shape)
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        ahead, behind = (loss_and_gradient((numbers + sign * way).astype(np.float32))[0] for sign in (3e-3, -3e-3))
        np.testing.assert_allclose((ahead - behind) / 6e-3, (gradient * way).sum(axis=1), rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("columns", [slice(None), slice(2, 5), slice(0, 6, 2), slice(None, None, -1)])
def test_a_table_holds_the_rows_whatever_the_strides(columns):
    X = np.arange(24, dtype=np.float32).reshape(4, 6)[:, columns]
    table = lay_flat(X)
    assert table.width == X.shape[1]
    assert np.shares_memory(table.numbers, X) == (columns in (slice(None), slice(2, 5)))
    rows = [table.numbers[row * table.stride : row * table.stride + table.width] for row in range(len(X))]
    np.testing.assert_array_equal(rows, X)
    with pytest.raises(ValueError, match="read-only"):
        table.numbers[0] = 1
    for other in (X[::-1], X.astype(">f4"), X.astype(np.float64)):
        table = lay_flat(other)
        assert table.numbers.dtype == np.dtype("float32")
        np.testing.assert_array_equal(table.numbers.reshape(other.shape), other)


def test_the_pace_of_adam_is_that_of_its_paper():
    # Kingma and Ba 2015, algorithm 1, the last lines of section 2: moments without their factors 1 - beta.
    times = np.array([1, 2, 1000])
    expected = np.sqrt(1 - 0.999**times) / (1 - 0.9**times) * (1 - 0.9) / np.sqrt(1 - 0.999)
    np.testing.assert_allclose(pace_adam(times), expected, rtol=1e-6)
