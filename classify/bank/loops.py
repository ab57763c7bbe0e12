"""Steps of training, compiled: mini-batches through every head of a stack, forward, backward, and the optimiser.

The features of a mini-batch, and the weights of the heads, pass through the cache of a core once instead of once for
each operation, and no lock of Python is held, so that banks in several threads go on at once. Only the order in which
`_dot` adds is the compiler's choice. Where it may choose elsewhere, too, what is kept was seen to have other last bits
than what has just been compiled.

Batch normalisation needs no matrix of its own: with a row x of a centred mini-batch, its deviations s, a dropout mask
m, and gamma, beta and kernel W,

    W @ (m * (gamma / s * x + beta))  =  (W * gamma / s) @ (m * x)  +  (W * beta) @ m

so both products run over all heads at once, and the gradients of gamma, beta and W are sums over such products.
"""

from functools import partial

import numpy as np

from classify.bank.compiled import compiled
from classify.bank.hidden import pass_hidden
from classify.bank.layout import FlatFeatures, Heads
from classify.models.trained_head import BATCH_NORM_EPSILON

#: Outputs up to which a product by each is faster than one of BLAS by all: see docs/decisions.md.
_FEW_OUTPUTS = 8
#: Keras' default for BatchNormalization: what is left of a moving statistic after a step.
_MOVING = np.float32(0.99)
#: Keras' defaults for Adam: betas and epsilon. The challenge's Nesterov momentum.
_BETA_1, _BETA_2, _ADAM_EPSILON, _MOMENTUM = 0.9, 0.999, 1e-7, np.float32(0.9)
#: Adam's moments are kept without their factors 1 - beta, which go into its pace and its epsilon.
_UNIT = np.sqrt(1 - _BETA_2)
_KEEP_FIRST, _KEEP_SECOND, _ADDED = np.float32(_BETA_1), np.float32(_BETA_2), np.float32(_ADAM_EPSILON / _UNIT)
_EPSILON = np.float32(BATCH_NORM_EPSILON)
_ZERO, _ONE = np.float32(0), np.float32(1)


@partial(compiled, fastmath={"reassoc", "contract"})
def _dot(one: np.ndarray, other: np.ndarray) -> np.float32:
    """The scalar product of float32 vectors."""
    total = _ZERO
    for d in range(len(one)):
        total += one[d] * other[d]
    return total


def pace_adam(times: np.ndarray) -> np.ndarray:
    """What Adam's rate is multiplied by at each step, int64 (S,) from 1, as its moments begin at 0: float32 (S,)."""
    corrections = np.sqrt(1 - _BETA_2**times) / (1 - _BETA_1**times)
    return ((1 - _BETA_1) / _UNIT * corrections).astype(np.float32)


@compiled
def take_steps(
    table: FlatFeatures,
    rows: np.ndarray,
    truth: np.ndarray,
    places: np.ndarray,
    size: int,
    stack: Heads,
    chances: np.ndarray,
    of_hidden: np.ndarray,
    paces: np.ndarray,
    logits: np.ndarray,
) -> np.ndarray:
    """Learn from mini-batches.

    Args:
        table: the features.
        rows: int64 (n,), those to learn from, mini-batch after mini-batch.
        truth: uint8 (n, L), theirs.
        places: int64 (n,), where the logits of each go.
        size: of a mini-batch; the last may be smaller.
        stack: the heads; their state is changed.
        chances: float32 (S, K, D), 0-1: below `keep` a mask keeps the feature; K is 0 without dropout.
        of_hidden: float32 (S, m), 0-1: likewise of every hidden layer one (units, B) after another.
        paces: float32 (S,), of `pace_adam`.
        logits: float32 (H, L, T), written: as they were before their step.

    Returns:
        The loss with its penalty, before each step, summed over the rows: float32 (H,).
    """
    total = np.zeros(len(stack.state.numbers), np.float32)
    for step in range(len(paces)):
        start, end = step * size, min((step + 1) * size, len(rows))
        features = np.empty((end - start, table.width), np.float32)
        for row in range(start, end):
            begin, values = rows[row] * table.stride, features[row - start]
            read = table.numbers[begin : begin + table.width]
            for d in range(table.width):
                values[d] = read[d]
        own = truth[start:end]
        loss, found = _take_step(features, own, stack, chances[step], of_hidden[step], paces[step])
        for head in range(len(total)):
            total[head] += loss[head] * np.float32(end - start)
            for label in range(found.shape[1]):
                for row in range(start, end):
                    logits[head, label, places[row]] = found[head, label, row - start]
    return total


@compiled
def _take_step(
    features: np.ndarray, truth: np.ndarray, stack: Heads, chances: np.ndarray, of_hidden: np.ndarray, pace: np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Learn from a mini-batch (B, D), which is changed; gives the loss with its penalty (H,), the logits (H, L, B).

    Other arguments are those of `take_steps`, for one step.
    """
    layers, state, rules = stack
    (rows, width), heads, units = features.shape, len(state.numbers), layers.widths[1]
    inverse = np.ones(width, np.float32)
    if layers.batch_norm:
        _centre(features, inverse, state.mean, state.variance)
    drops = len(chances) > 0
    shared = layers.shared if drops else rows
    mask = np.ones((-(-rows // shared), width), np.float32)
    if drops:
        for row in range(len(mask)):
            for d in range(width):
                mask[row, d] = _ONE / layers.keep if chances[row, d] < layers.keep else _ZERO
        for row in range(rows):
            values, kept = features[row], mask[row // shared]
            for d in range(width):
                values[d] *= kept[d]
    scaled = np.empty((heads * units, width), np.float32)
    outputs = _forward(features, stack, inverse, mask, shared, scaled).reshape(heads, units, rows)

    loss, logits = np.empty(heads, np.float32), np.empty((heads, layers.widths[-1], rows), np.float32)
    for head in range(heads):
        loss[head] = pass_hidden(head, outputs[head], truth, stack, of_hidden, logits[head])
        loss[head] += rules.l2[head] * penalise(state.numbers[head], layers.gamma)

    _multiply_back(outputs.reshape(heads * units, rows), features, scaled)
    _pass_first(outputs, scaled, stack, inverse, mask, shared)
    for head in range(heads):
        _update(head, stack, pace)
    return loss, logits


@compiled
def penalise(numbers: np.ndarray, kernels: int) -> np.float32:
    """The sum of the squares of a head's kernels, the first of its float32 numbers (P,)."""
    return _dot(numbers[:kernels], numbers[:kernels])


@compiled
def _centre(features: np.ndarray, inverse: np.ndarray, moving_mean: np.ndarray, moving_variance: np.ndarray) -> None:
    """Take the mean from a mini-batch (B, D), write 1 / deviation (D,), and let the moving statistics go on."""
    rows, width = features.shape
    share = _ONE / np.float32(rows)
    mean, squares = np.zeros(width, np.float32), np.zeros(width, np.float32)
    for row in range(rows):
        values = features[row]
        for d in range(width):
            mean[d] += values[d]
    for d in range(width):
        mean[d] *= share
    for row in range(rows):
        values = features[row]
        for d in range(width):
            deviation = values[d] - mean[d]
            values[d] = deviation
            squares[d] += deviation * deviation
    for d in range(width):
        variance = squares[d] * share
        inverse[d] = _ONE / np.sqrt(variance + _EPSILON)
        moving_mean[d] = _MOVING * moving_mean[d] + (_ONE - _MOVING) * mean[d]
        moving_variance[d] = _MOVING * moving_variance[d] + (_ONE - _MOVING) * variance


@compiled
def _multiply(kernels: np.ndarray, rows: np.ndarray, products: np.ndarray) -> None:
    """Write kernels (M, D) times rows (B, D): (M, B)."""
    if len(kernels) > _FEW_OUTPUTS:
        np.dot(kernels, rows.T, products)
        return
    for row in range(len(rows)):
        for output in range(len(kernels)):
            products[output, row] = _dot(kernels[output], rows[row])


@compiled
def _multiply_back(gradient: np.ndarray, rows: np.ndarray, of_kernels: np.ndarray) -> None:
    """Write the gradients of kernels (M, D) from those (M, B) of their products with rows (B, D)."""
    if len(gradient) > _FEW_OUTPUTS:
        np.dot(gradient, rows, of_kernels)
        return
    of_kernels[:] = _ZERO
    fours = len(rows) - len(rows) % 4  # four rows for one pass over what is written
    for row in range(0, fours, 4):
        one, two, three, four = rows[row], rows[row + 1], rows[row + 2], rows[row + 3]
        for output in range(len(gradient)):
            of_kernel, slopes = of_kernels[output], gradient[output, row : row + 4]
            for d in range(len(one)):
                of_kernel[d] += slopes[0] * one[d] + slopes[1] * two[d] + slopes[2] * three[d] + slopes[3] * four[d]
    for row in range(fours, len(rows)):
        values = rows[row]
        for output in range(len(gradient)):
            of_kernel, slope = of_kernels[output], gradient[output, row]
            for d in range(len(values)):
                of_kernel[d] += slope * values[d]


@compiled
def _scale_first(numbers: np.ndarray, start: int, factor: np.ndarray, scaled: np.ndarray) -> None:
    """Write the first kernels of heads (H, P) times a factor (D,), and times their own numbers from `start` on, if any.

    Scaled are (H * units, D).
    """
    width, units = len(factor), len(scaled) // len(numbers)
    for head in range(len(numbers)):
        own = factor.copy()
        if start:
            vector = numbers[head, start : start + width]
            for d in range(width):
                own[d] *= vector[d]
        for unit in range(units):
            kernel, product = numbers[head, unit * width : (unit + 1) * width], scaled[head * units + unit]
            for d in range(width):
                product[d] = kernel[d] * own[d]


@compiled
def _forward(
    features: np.ndarray, stack: Heads, inverse: np.ndarray, mask: np.ndarray, shared: int, scaled: np.ndarray
) -> np.ndarray:
    """The outputs (H * units, B) of the first dense layers; `scaled` (H * units, D) is written."""
    layers, numbers = stack.layers, stack.state.numbers
    rows, width, units = len(features), len(inverse), layers.widths[1]
    outputs, shifts = np.empty((len(scaled), rows), np.float32), np.zeros((len(scaled), len(mask)), np.float32)
    if layers.batch_norm:
        _scale_first(numbers, layers.gamma + width, np.ones(width, np.float32), scaled)
        _multiply(scaled, mask, shifts)
    _scale_first(numbers, layers.gamma if layers.batch_norm else 0, inverse, scaled)
    _multiply(scaled, features, outputs)
    for output in range(len(outputs)):
        bias = numbers[output // units, layers.biases[0] + output % units]
        for row in range(rows):
            outputs[output, row] += bias + shifts[output, row // shared]
    return outputs


@compiled
def _pass_first(
    outputs: np.ndarray, products: np.ndarray, stack: Heads, inverse: np.ndarray, mask: np.ndarray, shared: int
) -> None:
    """Write the gradients of the first kernels, of gamma and beta.

    Args:
        outputs: float32 (H, units, B), gradients of the first layers' outputs.
        products: float32 (H * units, D), of the scaled kernels.
        stack: its state is changed.
        inverse: float32 (D,).
        mask: float32 (K, D).
        shared: rows that each of them is of.
    """
    layers, state = stack.layers, stack.state
    (heads, units, rows), width, start = outputs.shape, products.shape[1], layers.gamma
    shifts, gathered = np.empty(products.shape, np.float32), np.zeros((len(products), len(mask)), np.float32)
    if layers.batch_norm:
        for output in range(len(products)):
            for row in range(rows):
                gathered[output, row // shared] += outputs[output // units, output % units, row]
        _multiply_back(gathered, mask, shifts)
    for head in range(heads):
        own, out = state.numbers[head], state.gradient[head]
        gamma, beta = own[start : start + width], own[start + width : start + 2 * width]
        of_gamma, of_beta = out[start : start + width], out[start + width : start + 2 * width]
        for d in range(width if layers.batch_norm else 0):
            of_gamma[d] = of_beta[d] = _ZERO
        for unit in range(units):
            kernel, of_kernel = own[unit * width : (unit + 1) * width], out[unit * width : (unit + 1) * width]
            product, shift = products[head * units + unit], shifts[head * units + unit]
            if layers.batch_norm:
                for d in range(width):
                    of_gamma[d] += kernel[d] * product[d] * inverse[d]
                    of_beta[d] += kernel[d] * shift[d]
                    of_kernel[d] = product[d] * (gamma[d] * inverse[d]) + beta[d] * shift[d]
            else:
                for d in range(width):
                    of_kernel[d] = product[d]


@compiled
def _update(head: int, stack: Heads, pace: np.float32) -> None:
    """One step of the optimiser as Keras takes it, of one head."""
    layers, state, rules = stack
    weight, slope, one, two = state.numbers[head], state.gradient[head], state.first[head], state.second[head]
    decay, rate = rules.l2[head] + rules.l2[head], rules.rate[head]
    for i in range(layers.gamma):
        slope[i] += decay * weight[i]
    if layers.adam:
        rate *= pace
        for i in range(len(weight)):
            one[i] = _KEEP_FIRST * one[i] + slope[i]
            two[i] = _KEEP_SECOND * two[i] + slope[i] * slope[i]
            weight[i] -= rate * one[i] / (np.sqrt(two[i]) + _ADDED)
    else:
        for i in range(len(weight)):
            push = rate * slope[i]
            one[i] = _MOMENTUM * one[i] - push
            weight[i] += _MOMENTUM * one[i] - push
