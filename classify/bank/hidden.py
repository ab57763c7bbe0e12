"""The layers of a head behind its first, compiled: forward, the loss, and backward."""

import numpy as np

from classify.bank.compiled import compiled
from classify.bank.layout import Heads
from classify.bank.softmax import softmax_entropy
from features.common.arrays import UNKNOWN

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


@compiled
def pass_hidden(
    head: int, outputs: np.ndarray, truth: np.ndarray, stack: Heads, of_hidden: np.ndarray, logits: np.ndarray
) -> np.float32:
    """Go through the hidden layers of a head and back; gives its loss without the penalty.

    Gradients are written, and in place of `outputs` (units, B) of the first layer their gradient.
    """
    layers, state, rules = stack
    rows, depth, widths = len(truth), len(layers.widths) - 1, layers.widths
    numbers, gradient = state.numbers[head], state.gradient[head]
    begins = np.zeros(depth, np.int64)  # where a layer's first unit is among those of all hidden layers
    for layer in range(1, depth):
        begins[layer] = begins[layer - 1] + widths[layer]
    active = np.empty((begins[-1], rows), np.float32)  # after ReLU and dropout
    drops, each = len(of_hidden) > 0, len(of_hidden) // max(begins[-1], 1)
    restored, current = _ONE / layers.keep, outputs
    for layer in range(1, depth):
        inputs, after, begin = widths[layer], widths[layer + 1], begins[layer - 1]
        into = active[begin : begin + inputs]
        for unit in range(inputs):
            for row in range(rows):
                value = current[unit, row]
                if value < _ZERO or (drops and of_hidden[(begin + unit) * each + row] >= layers.keep):
                    value = _ZERO
                into[unit, row] = value * restored
        kernel = numbers[layers.kernels[layer] : layers.kernels[layer] + inputs * after].reshape(after, inputs)
        current = np.dot(kernel, into)
        for output in range(after):
            for row in range(rows):
                current[output, row] += numbers[layers.biases[layer] + output]
    for label in range(widths[depth]):
        for row in range(rows):
            logits[label, row] = current[label, row]
    current = np.empty((widths[depth], rows), np.float32)
    positive, negative, smoothing = rules.positive[head], rules.negative[head], rules.smoothing[head]
    if layers.softmax:
        loss = softmax_entropy(logits, truth, positive, smoothing, current)
    else:
        loss = cross_entropy(logits, truth, positive, negative, smoothing, current)
    for layer in range(depth - 1, 0, -1):
        inputs, after = widths[layer], widths[layer + 1]
        into = active[begins[layer - 1] : begins[layer]]
        start = layers.kernels[layer]
        np.dot(current, into.T, gradient[start : start + inputs * after].reshape(after, inputs))
        _sum_rows(current, gradient[layers.biases[layer] : layers.biases[layer] + after])
        before = np.dot(numbers[start : start + inputs * after].reshape(after, inputs).T, current)
        for unit in range(inputs):
            for row in range(rows):
                kept = into[unit, row] != _ZERO  # what ReLU or dropout made 0 has no gradient; a NaN goes on
                before[unit, row] = before[unit, row] * restored if kept else _ZERO
        current = before
    _sum_rows(current, gradient[layers.biases[0] : layers.biases[0] + widths[1]])
    for unit in range(widths[1]):
        for row in range(rows):
            outputs[unit, row] = current[unit, row]
    return loss


@compiled
def _sum_rows(values: np.ndarray, sums: np.ndarray) -> None:
    """Write the sums of (units, B) over the rows: (units,)."""
    for unit in range(len(values)):
        total = _ZERO
        for row in range(values.shape[1]):
            total += values[unit, row]
        sums[unit] = total


@compiled
def cross_entropy(
    logits: np.ndarray,
    truth: np.ndarray,
    positive: np.ndarray,
    negative: np.ndarray,
    smoothing: np.float32,
    gradient: np.ndarray,
) -> np.float32:
    """Binary cross-entropy of the logits (L, B) of a head, the mean over the known cells; its gradient is written.

    Truth is uint8 (B, L), the weights of positives and negatives are float32 (L,). An unknown cell has no gradient (L,
    B); where none is known the loss is 0.
    """
    labels, rows = logits.shape
    known = 0
    for row in range(rows):
        for label in range(labels):
            known += truth[row, label] != UNKNOWN
    total, share = _ZERO, _ONE / np.float32(max(known, 1))
    for label in range(labels):
        for row in range(rows):
            if truth[row, label] == UNKNOWN:
                gradient[label, row] = _ZERO
                continue
            logit, is_positive = logits[label, row], truth[row, label] == 1
            target = (_ONE - smoothing if is_positive else _ZERO) + smoothing * _HALF
            weight = (positive[label] if is_positive else negative[label]) * share
            small = np.exp(-abs(logit))
            total += weight * ((logit if logit > _ZERO else _ZERO) - logit * target + np.log1p(small))
            p = (_ONE if logit >= _ZERO else small) / (_ONE + small)
            gradient[label, row] = weight * (p - target)
    return total
