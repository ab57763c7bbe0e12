"""Heads side by side while they train: their weights in one array, and each head's own again."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise, repeat
from typing import NamedTuple

import numpy as np

from classify.bank.dropout import draw_uniforms, rows_per_mask
from classify.bank.hidden import cross_entropy
from classify.bank.layout import FlatFeatures, Heads, Rules, StackKind, State, flatten, lay_flat, lay_out
from classify.bank.loops import pace_adam, penalise, take_steps
from classify.bank.softmax import softmax_entropy
from classify.models.heads import HeadSpec
from classify.models.trained_head import BATCH_NORM_EPSILON
from features.common.arrays import Labels, RowIndices, count_values
from features.store.mapped import AnyFeatures, MappedFeatures, in_blocks

#: Parameters of a stack at most, unless it is a single head, so that a step works in the cache; see docs/decisions.md.
PARAMETERS_IN_CACHE = 700_000
#: Steps that are taken in one call; what their dropout is decided by is drawn before.
_STEPS = 16
#: Sets the seeds of the views apart from those of the dropout masks, which end in the number of a layer.
_OF_VIEWS = 1 << 31


def initial_weights(spec: HeadSpec, width: int, labels: int) -> list[np.ndarray]:
    """A head's first weights, as those of `HeadWeights`: Glorot's uniform kernels (2010, eq. 16), zero biases."""
    generator = np.random.default_rng(spec.seed)
    weights = []
    if spec.batch_norm:
        weights = [fill(width, dtype=np.float32) for fill in (np.ones, np.zeros, np.zeros, np.ones)]
    widths = [width, *spec.hidden_units, labels]
    for inputs, outputs in pairwise(widths):
        limit = np.sqrt(6 / (inputs + outputs))
        weights.append(generator.uniform(-limit, limit, (inputs, outputs)).astype(np.float32))
        weights.append(np.zeros(outputs, dtype=np.float32))
    return weights


class BankRows(NamedTuple):
    """What the heads of a bank learn from, and what decides when they stop.

    Attributes:
        table: the features of all rows, in memory or on the disk.
        train: those to learn from, T of them, counted without their views.
        truth: uint8 (T, L), theirs.
        validation: of the V rows that decide.
        validation_truth: uint8 (V, L), theirs.
        views: of each row, one after the other in the table; an epoch draws one.
    """

    table: FlatFeatures | MappedFeatures
    train: RowIndices
    truth: Labels
    validation: AnyFeatures
    validation_truth: Labels
    views: int = 1

    def draw(self, seed: int, epoch: int) -> RowIndices:
        """The rows of the table that an epoch, from 0, learns from: a view of each row to learn from; int (T,)."""
        if self.views == 1:
            return self.train
        drawn = np.random.default_rng([seed, epoch, _OF_VIEWS]).integers(self.views, size=len(self.train))
        return self.train * self.views + drawn

    @property
    def width(self) -> int:
        """Number of features D."""
        return self.table.shape[1] if isinstance(self.table, MappedFeatures) else self.table.width

    def gather(self, rows: RowIndices) -> tuple[FlatFeatures, RowIndices]:
        """A table with some rows, int64 (n,), and where they are in it: those on the disk are read."""
        if isinstance(self.table, MappedFeatures):
            return lay_flat(self.table[rows]), np.arange(len(rows))
        return self.table, rows


class Stack:
    """Heads of one kind and one batch size while they train.

    Args:
        kind: what they have in common.
        members: which heads of the bank they are.
        specs: of the members.
        rows: of the bank.

    Attributes:
        members: those that still train.
    """

    def __init__(self, kind: StackKind, members: list[int], specs: list[HeadSpec], rows: BankRows) -> None:
        self.kind, self.members, self._rows = kind, members, rows
        assert specs[0].batch_size is not None  # see `HeadSpec.for_rows`
        self._batch_size = specs[0].batch_size
        width, labels = rows.width, rows.truth.shape[1]
        self._layers = lay_out(kind, width, labels, rows_per_mask(self._batch_size))
        self._best = [initial_weights(spec, width, labels) for spec in specs]
        numbers = np.stack([flatten(weights, kind.batch_norm) for weights in self._best])
        second = np.zeros_like(numbers) if kind.optimiser == "adam" else numbers[:, :0].copy()
        moving = np.zeros(width, np.float32), np.ones(width, np.float32)
        self._state = State(numbers, np.empty_like(numbers), np.zeros_like(numbers), second, *moving)
        positive, negative = _weigh_classes(rows.truth) if kind.softmax else _class_weights(rows.truth)
        balanced = np.array([spec.class_weight == "balanced" for spec in specs])[:, None]
        of_heads = ("learning_rate", "l2", "label_smoothing")
        self._rules = Rules(
            *(np.array([getattr(spec, name) for spec in specs], np.float32) for name in of_heads),
            *(np.where(balanced, of, np.float32(1)) for of in (positive, negative)),
        )

    def learn(self, order: np.ndarray, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Train for an epoch, from 0.

        Args:
            order: int (T,), in which the mini-batches take the rows to learn from.
            seed: of the dropout masks, and of the views.
            epoch: which it is.

        Returns:
            float32, each before its step: the mean loss with its penalty (H,), and the logits (H, L, T).
        """
        train, truth = self._rows.draw(seed, epoch), self._rows.truth
        size, count, labels = self._batch_size, len(train), truth.shape[1]
        loss = np.zeros(len(self.members), np.float32)
        logits = np.empty((len(self.members), labels, count), np.float32)
        drawn: Iterator[tuple[np.ndarray, np.ndarray]] = repeat((np.empty((0, 0), np.float32), np.empty(0, np.float32)))
        if self.kind.dropout:
            drawn = draw_uniforms(self.kind.hidden_units, size, count, self._rows.width, seed, epoch)
        times = epoch * -(-count // size) + 1 + np.arange(-(-count // size))
        for first in range(0, len(times), _STEPS):
            own = order[first * size : (first + _STEPS) * size]
            paces = pace_adam(times[first : first + _STEPS])
            chances = (np.stack(of_layer) for of_layer in zip(*islice(drawn, len(paces)), strict=True))
            batches = *self._rows.gather(train[own]), truth[own], own, size
            loss += take_steps(*batches, Heads(self._layers, self._state, self._rules), *chances, paces, logits)
        return loss / np.float32(count), logits

    def validate(self) -> tuple[np.ndarray, np.ndarray]:
        """The loss (H,) of the validation rows with its penalty, float64, and their logits, float32 (H, L, V).

        By the moving statistics and without dropout; a loss of features too large for their squares is NaN.
        """
        layers, state, rules = self._layers, self._state, self._rules
        (kernel, constant), *hidden = self._dense()
        if layers.batch_norm:
            gamma, beta = self._normalisation()
            scale = gamma / np.sqrt(state.variance + np.float32(BATCH_NORM_EPSILON))
            constant = constant + kernel @ (beta - state.mean * scale)[:, :, None]
            kernel = kernel * scale[:, None]
        flat, validation = kernel.reshape(-1, kernel.shape[-1]), self._rows.validation
        parts = in_blocks(len(validation)) if isinstance(validation, MappedFeatures) else [slice(None)]
        products = np.hstack([flat @ validation[part].T for part in parts])
        outputs = products.reshape(*kernel.shape[:2], -1) + constant
        for kernel, bias in hidden:
            outputs = kernel @ np.maximum(outputs, np.float32(0)) + bias
        truth, unused = self._rows.validation_truth, np.empty_like(outputs[0])
        of_heads = zip(outputs, rules.positive, rules.negative, rules.smoothing, strict=True)
        if layers.softmax:
            entropy = [softmax_entropy(logits, truth, own, soft, unused) for logits, own, _, soft in of_heads]
        else:
            entropy = [cross_entropy(logits, truth, *weights, unused) for logits, *weights in of_heads]
        loss = entropy + rules.l2 * [penalise(own, layers.gamma) for own in state.numbers]
        if layers.batch_norm and not np.isfinite(state.variance).all():
            loss = np.full_like(loss, np.nan)
        return loss, outputs

    def note_best(self, place: int) -> None:
        """Keep a copy of the weights that a head has now."""
        state, weights = self._state, []
        if self._layers.batch_norm:
            weights = [of_heads[place].copy() for of_heads in self._normalisation()]
            weights += [state.mean.copy(), state.variance.copy()]
        for kernel, bias in self._dense():
            weights += [kernel[place].T.copy(), bias[place, :, 0].copy()]
        self._best[place] = weights

    def best_weights(self, place: int) -> list[np.ndarray]:
        """The weights of a head that were noted last, at first the initial ones, as those of `HeadWeights`."""
        return self._best[place]

    def keep(self, places: list[int]) -> None:
        """Keep the heads at some places."""
        self.members, self._best = [self.members[place] for place in places], [self._best[place] for place in places]
        numbers, gradient, first, second, mean, variance = self._state
        numbers, gradient, first, second = (array[places] for array in (numbers, gradient, first, second))
        self._state = State(numbers, gradient, first, second, mean, variance)
        self._rules = Rules(*(array[places] for array in self._rules))

    def _normalisation(self) -> tuple[np.ndarray, np.ndarray]:
        """Views of gamma and beta: (H, D)."""
        start, width = self._layers.gamma, self._layers.widths[0]
        numbers = self._state.numbers
        return numbers[:, start : start + width], numbers[:, start + width : start + 2 * width]

    def _dense(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield views of the kernels (H, outputs, inputs) and biases (H, outputs, 1), layer by layer."""
        numbers, layers = self._state.numbers, self._layers
        for (inputs, outputs), kernel, bias in zip(pairwise(layers.widths), layers.kernels, layers.biases, strict=True):
            kernels = numbers[:, kernel : kernel + inputs * outputs].reshape(-1, outputs, inputs)
            yield kernels, numbers[:, bias : bias + outputs, None]


def make_stacks(specs: Sequence[HeadSpec], rows: BankRows) -> list[Stack]:
    """Sort heads of one batch size into stacks by kind, none too large for the cache, in the order of first heads."""
    by_kind = defaultdict(list)
    for index, spec in enumerate(specs):
        of_spec = spec.hidden_units, spec.batch_norm, spec.dropout, spec.optimiser, spec.output == "softmax"
        by_kind[StackKind(*of_spec)].append(index)
    stacks = []
    for kind, members in by_kind.items():
        total = sum(specs[i].count_parameters(rows.width, rows.truth.shape[1]) for i in members)
        for part in np.array_split(members, min(-(-total // PARAMETERS_IN_CACHE), len(members))):
            own = [int(index) for index in part]
            stacks.append(Stack(kind, own, [specs[index] for index in own], rows))
    return stacks


def _class_weights(y: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Weights, float32 (L,) each, that let positives and negatives count half the known rows; 1 if one is missing."""
    positives, negatives = count_values(y)
    share = positives / np.maximum(positives + negatives, 1)
    constant = (share == 0) | (share == 1)
    positive, negative = (
        np.where(constant, 1, 0.5 / np.where(constant, 1, part)).astype(np.float32) for part in (share, 1 - share)
    )
    return positive, negative


def _weigh_classes(y: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Weights, float32 (L,) each: those that make every class of the rows count the same; 1 for one that has none."""
    counts = y.sum(axis=0)
    present = counts > 0
    weights = np.where(present, len(y) / (present.sum() * np.maximum(counts, 1)), 1).astype(np.float32)
    return weights, np.ones_like(weights)
