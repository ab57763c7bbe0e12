"""Heads side by side while they train: their weights in one array, their optimiser, and each head's own again."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from classify.bank.network import Network, StackKind, Uniforms, rows_per_mask
from classify.models.heads import HeadSpec
from features.common.arrays import Labels

#: Parameters of a stack at most, unless it is a single head, so that a step works in the cache; see docs/decisions.md.
PARAMETERS_IN_CACHE = 700_000
#: Numbers that the optimiser works on at a time: they and what it makes of them stay in the cache of a core.
_BLOCK = 32_768
#: Keras' defaults for Adam: betas and epsilon. The challenge's Nesterov momentum.
_BETA_1, _BETA_2, _ADAM_EPSILON, _MOMENTUM = 0.9, 0.999, 1e-7, 0.9
_STATISTICS = ("mean", "variance")


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


class MiniBatches(NamedTuple):
    """A mini-batch of each of R lanes.

    Attributes:
        features: float32 (R, B, D); what is centred where no head needs them as they are.
        centred: float32 (R, B, D), without their means.
        inverse: float32 (R, 1, D), 1 / deviation, as Keras' batch normalisation has it.
        truth: float32 (R, L, B), 0 or 1.
    """

    features: np.ndarray
    centred: np.ndarray
    inverse: np.ndarray
    truth: np.ndarray


class Stack:
    """Heads of one kind and one batch size, in several lanes, while they train.

    Args:
        kind: what they have in common.
        members: which heads of the bank they are.
        specs: of the members.
        truths: of each lane the truth of the rows to learn from.
        width: of the features.

    Attributes:
        members: those that still train in some lane.
    """

    def __init__(
        self, kind: StackKind, members: list[int], specs: list[HeadSpec], truths: Sequence[Labels], width: int
    ) -> None:
        self.kind, self.members = kind, members
        assert specs[0].batch_size is not None  # see `HeadSpec.for_rows`
        self._shared = rows_per_mask(specs[0].batch_size)
        self._names = _names(kind)
        heads = [initial_weights(spec, width, truths[0].shape[1]) for spec in specs]
        self._best: dict[str, np.ndarray] = {}
        for place, name in enumerate(self._names):
            weights = np.stack([head[place] for head in heads])
            if name.startswith("kernel"):
                weights = weights.transpose(0, 2, 1)
            else:
                weights = weights[:, :, None] if name.startswith("bias") else weights[:, None]
            self._best[name] = np.repeat(weights[None], len(truths), axis=0)
        learnt = [name for name in sorted(self._names, key=_decays, reverse=True) if name not in _STATISTICS]
        self._shapes = {name: self._best[name].shape[2:] for name in learnt}
        self._decayed = sum(int(np.prod(shape)) for name, shape in self._shapes.items() if _decays(name))
        lanes = len(truths), len(heads), -1
        self._numbers = np.concatenate([self._best[name].reshape(lanes) for name in learnt], axis=2)
        self._slots = [np.zeros_like(self._numbers) for _ in range(2 if kind.optimiser == "adam" else 1)]
        positive, negative = np.array([_class_weights(truth) for truth in truths]).swapaxes(0, 1)[:, :, None, :, None]
        balanced = np.array([spec.class_weight == "balanced" for spec in specs])[:, None, None]
        self._positive, self._negative = (np.where(balanced, of, np.float32(1)) for of in (positive, negative))
        of_heads = ("learning_rate", "l2", "label_smoothing")
        self._rate, self._l2, self._smoothing = (
            np.array([getattr(spec, name) for spec in specs], np.float32) for name in of_heads
        )
        self._set_up()

    def step(
        self, lanes: slice, batch: MiniBatches, uniforms: Uniforms, time: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Learn from a mini-batch of each of some lanes.

        Args:
            lanes: R of them.
            batch: theirs.
            uniforms: of the mini-batches.
            time: int64 (R,), which step of its lane this is, from 1.

        Returns:
            Before the step: the loss with its penalty (R, H), and the logits (R, H, L, B).
        """
        inputs = batch.centred if self.kind.batch_norm else batch.features
        logits = self._network.forward(lanes, inputs, batch.inverse, uniforms)
        loss, gradient = self._loss(lanes, logits, batch.truth)
        loss += self._penalty(lanes)
        for name, of_weight in self._network.backward(gradient).items():
            self._slopes[name][lanes] = of_weight
        self._update(lanes, time)
        return loss, logits

    def validate(
        self, lane: int, features: np.ndarray, truth: np.ndarray, mean: np.ndarray, variance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The loss of a lane with its penalty (H,), and the logits (H, L, V), of rows (V, D) with a truth (L, V)."""
        logits = self._network.infer(lane, features, mean, variance)
        lanes = slice(lane, lane + 1)
        return (self._loss(lanes, logits[None], truth[None])[0] + self._penalty(lanes))[0], logits

    def note_best(self, lane: int, place: int, mean: np.ndarray, variance: np.ndarray) -> None:
        """Keep a copy of the weights that a head of a lane has now, with the moving statistics."""
        now = {name: weight[lane, place] for name, weight in self._weights.items()}
        for name, weight in (now | {"mean": mean, "variance": variance}).items():
            if name in self._best:
                self._best[name][lane, place] = weight

    def best_weights(self, lane: int, place: int) -> list[np.ndarray]:
        """The weights that were noted last of a head of a lane, as those of `HeadWeights`."""
        weights = [(name, self._best[name][lane, place]) for name in self._names]
        return [weight.T.copy() if name.startswith("kernel") else weight.reshape(-1).copy() for name, weight in weights]

    def keep(self, lanes: list[int], places: list[int]) -> None:
        """Keep some lanes, and of them the heads at some places."""
        both = np.ix_(lanes, places)
        self._best = {name: weight[both] for name, weight in self._best.items()}
        self._numbers, self._slots = self._numbers[both], [slot[both] for slot in self._slots]
        self._positive, self._negative = self._positive[both], self._negative[both]
        self._rate, self._l2, self._smoothing = self._rate[places], self._l2[places], self._smoothing[places]
        self.members = [self.members[place] for place in places]
        self._set_up()

    def _set_up(self) -> None:
        """Name the parts of what is learnt, and of its gradient."""
        self._gradient = np.empty_like(self._numbers)
        self._weights, self._slopes = self._parts(self._numbers), self._parts(self._gradient)
        self._network = Network(self.kind, self._weights, self._shared)

    def _parts(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Views of (R, H, P) numbers: by name, (R, H, outputs, inputs)."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes.values()])[:-1]
        named = zip(self._shapes.items(), np.split(numbers, ends, axis=2), strict=True)
        return {name: part.reshape(*numbers.shape[:2], *shape) for (name, shape), part in named}

    def _loss(self, lanes: slice, logits: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Binary cross-entropy of (R, H, L, B) logits: its mean (R, H), its gradient (R, H, L, B)."""
        of_lanes, smoothing = truth[:, None], self._smoothing[:, None, None]
        weight = np.where(of_lanes == 1, self._positive[lanes], self._negative[lanes]) / np.float32(truth[0].size)
        target = of_lanes * (1 - smoothing) + smoothing / 2
        entropy = np.maximum(logits, np.float32(0)) - logits * target + np.log1p(np.exp(-np.abs(logits)))
        return np.einsum("rhlb,rhlb->rh", weight, entropy), weight * (expit(logits) - target)

    def _penalty(self, lanes: slice) -> np.ndarray:
        """The L2 penalty of the kernels (R, H)."""
        kernels = self._numbers[lanes, :, None, : self._decayed]
        return self._l2 * (kernels @ kernels.swapaxes(2, 3))[:, :, 0, 0]  # a sum over all at once may mix lanes

    def _update(self, lanes: slice, time: np.ndarray) -> None:
        """One step of the optimiser as Keras takes it, in place.

        Adam's moments are kept without their factors 1 - beta, which go into the rate and epsilon.
        """
        count = self._numbers.shape[2]
        numbers, gradient, *slots = (a[lanes].reshape(-1, count) for a in (self._numbers, self._gradient, *self._slots))
        rate, unit = np.broadcast_to(self._rate, (len(time), len(self._rate))), np.sqrt(1 - _BETA_2)
        if self.kind.optimiser == "adam":
            factor = (1 - _BETA_1) / unit * np.sqrt(1 - _BETA_2**time) / (1 - _BETA_1**time)
            rate = rate * factor.astype(np.float32)[:, None]
        rates, decays = rate.reshape(-1, 1), np.tile(2 * self._l2, len(time))[:, None]
        for heads, part in _blocks(*numbers.shape):
            weight, slope = numbers[heads, part], gradient[heads, part]
            kernels = max(0, min(part.stop, self._decayed) - part.start)
            slope[:, :kernels] += decays[heads] * weight[:, :kernels]
            if self.kind.optimiser == "adam":
                first, second = slots[0][heads, part], slots[1][heads, part]
                first *= np.float32(_BETA_1)
                first += slope
                slope *= slope
                second *= np.float32(_BETA_2)
                second += slope
                np.sqrt(second, out=slope)
                slope += np.float32(_ADAM_EPSILON / unit)
                np.divide(first, slope, out=slope)
                slope *= rates[heads]
                weight -= slope
            else:
                velocity = slots[0][heads, part]
                slope *= rates[heads]
                velocity *= np.float32(_MOMENTUM)
                velocity -= slope
                weight -= slope
                np.multiply(velocity, np.float32(_MOMENTUM), out=slope)
                weight += slope


def _blocks(heads: int, numbers: int) -> Iterator[tuple[slice, slice]]:
    """Split an array (heads, numbers) into blocks that fit into the cache."""
    at_once = max(1, _BLOCK // numbers)
    for head in range(0, heads, at_once):
        for start in range(0, numbers, _BLOCK):
            yield slice(head, head + at_once), slice(start, min(start + _BLOCK, numbers))


def _decays(name: str) -> bool:
    """Whether a weight has the L2 penalty: the kernels have."""
    return name.startswith("kernel")


def _names(kind: StackKind) -> list[str]:
    """Names of a stack's weights, in the order of `HeadWeights`."""
    layers = range(len(kind.hidden_units) + 1)
    return ["gamma", "beta", *_STATISTICS] * kind.batch_norm + [
        name for layer in layers for name in (f"kernel{layer}", f"bias{layer}")
    ]


def make_stacks(specs: Sequence[HeadSpec], truths: Sequence[Labels], width: int) -> list[Stack]:
    """Sort heads of one batch size into stacks by kind, none too large for the cache, in the order of first heads."""
    by_kind = defaultdict(list)
    for index, spec in enumerate(specs):
        by_kind[StackKind(spec.hidden_units, spec.batch_norm, spec.dropout, spec.optimiser)].append(index)
    stacks = []
    for kind, members in by_kind.items():
        total = sum(specs[index].count_parameters(width, truths[0].shape[1]) for index in members)
        for part in np.array_split(members, min(-(-total // PARAMETERS_IN_CACHE), len(members))):
            own = [int(index) for index in part]
            stacks.append(Stack(kind, own, [specs[index] for index in own], truths, width))
    return stacks


def _class_weights(y: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Weights, float32 (L,) each, that make positives and negatives count half the rows; 1 for a label of one value."""
    share = y.mean(axis=0)
    constant = (share == 0) | (share == 1)
    positive, negative = (
        np.where(constant, 1, 0.5 / np.where(constant, 1, part)).astype(np.float32) for part in (share, 1 - share)
    )
    return positive, negative
