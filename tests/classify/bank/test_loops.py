"""What is compiled, where the training of whole heads does not show it."""

import logging

import numpy as np
import pytest

from classify.bank.loops import _compiled, _multiply, _multiply_back, lay_flat, pace_adam


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


def test_the_pace_of_adam_is_that_of_its_paper():
    # Kingma and Ba 2015, algorithm 1, the last lines of section 2: moments without their factors 1 - beta.
    times = np.array([1, 2, 1000])
    expected = np.sqrt(1 - 0.999**times) / (1 - 0.9**times) * (1 - 0.9) / np.sqrt(1 - 0.999)
    np.testing.assert_allclose(pace_adam(times), expected, rtol=1e-6)


def test_what_cannot_be_kept_is_compiled_all_the_same(caplog):
    lines: dict = {}
    exec("def double(number):\n    return 2 * number", lines)  # of no file
    with caplog.at_level(logging.WARNING):
        assert _compiled(lines["double"])(3) == 6
    assert caplog.messages == ["double is compiled in every run: set NUMBA_CACHE_DIR to a folder to keep it in"]
