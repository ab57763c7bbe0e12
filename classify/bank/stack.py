"""Heads side by side while they train: their weights in one array, their optimiser, and each head's own again."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from scipy.special import expit

from classify.bank.network import Network, StackKind, Uniforms, rows_per_mask
from classify.models.heads import HeadSpec
from features.common.arrays import Labels

#: Parameters of a stack at most, unless it is a single head, so that a step works in the cache; see docs/decisions.md.
PARAMETERS_IN_CACHE = 700_000
#: Numbers that the optimiser works on at a time: they and what it makes of them stay in the cache of a core.
_BLOCK = 16_384
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


class Stack:
    """Heads of one kind and one batch size, while they train.

    Args:
        kind: what they have in common.
        members: which heads of the bank they are.
        specs: of the members.
        y: the truth of the rows to learn from.
        width: of the features.

    Attributes:
        members: those that still train.
    """

    def __init__(self, kind: StackKind, members: list[int], specs: list[HeadSpec], y: Labels, width: int) -> None:
        self.kind, self.members = kind, members
        assert specs[0].batch_size is not None  # see `HeadSpec.for_rows`
        self._shared = rows_per_mask(specs[0].batch_size)
        self._names = _names(kind)
        heads = [initial_weights(spec, width, y.shape[1]) for spec in specs]
        self._best: dict[str, np.ndarray] = {}
        for place, name in enumerate(self._names):
            weights = np.stack([head[place] for head in heads])
            if name.startswith("kernel"):
                self._best[name] = np.ascontiguousarray(weights.transpose(0, 2, 1))
            else:
                self._best[name] = weights[:, :, None] if name.startswith("bias") else weights[:, None]
        self._shapes = {name: self._best[name].shape[1:] for name in sorted(self._names, key=_decays, reverse=True)}
        for name in _STATISTICS:
            self._shapes.pop(name, None)
        self._decayed = sum(int(np.prod(shape)) for name, shape in self._shapes.items() if _decays(name))
        learnt = [self._best[name].reshape(len(heads), -1) for name in self._shapes]
        self._numbers = np.concatenate(learnt, axis=1)
        self._slots = [np.zeros_like(self._numbers) for _ in range(2 if kind.optimiser == "adam" else 1)]
        self._set_up()
        positive, negative = _class_weights(y)
        balanced = np.array([spec.class_weight == "balanced" for spec in specs])[:, None, None]
        self._hyper = {
            "rate": _by_head([spec.learning_rate for spec in specs]),
            "l2": _by_head([spec.l2 for spec in specs]),
            "smoothing": _by_head([spec.label_smoothing for spec in specs]),
            "positive": np.where(balanced, positive[:, None], np.float32(1)),
            "negative": np.where(balanced, negative[:, None], np.float32(1)),
        }

    def step(
        self, batch: np.ndarray, normalised: np.ndarray, truth: np.ndarray, uniforms: Uniforms, time: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Learn from a mini-batch.

        Args:
            batch: float32 (B, D).
            normalised: float32 (B, D), by the mean and variance of the batch.
            truth: float32 (L, B), 0 or 1.
            uniforms: of the mini-batch.
            time: which step this is, from 1.

        Returns:
            Before the step: the loss with its penalty by head (H,), and the logits (H, L, B).
        """
        logits = self._network.forward(normalised if self.kind.batch_norm else batch, uniforms)
        loss, gradient = self._loss(logits, truth)
        loss += self._penalty()
        for name, of_weight in self._network.backward(gradient).items():
            self._slopes[name][...] = of_weight
        self._update(time)
        return loss, logits

    def validate(
        self, features: np.ndarray, truth: np.ndarray, mean: np.ndarray, variance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The loss with its penalty by head (H,), and the logits (H, L, V), of rows (V, D) with a truth (L, V)."""
        logits = self._network.infer(features, mean, variance)
        return self._loss(logits, truth)[0] + self._penalty(), logits

    def note_best(self, place: int, mean: np.ndarray, variance: np.ndarray) -> None:
        """Keep a copy of the weights that the head at a place has now, with the moving statistics."""
        for name, kept in self._best.items():
            kept[place] = (
                {"mean": mean, "variance": variance}[name] if name in _STATISTICS else self._weights[name][place]
            )

    def best_weights(self, place: int) -> list[np.ndarray]:
        """The weights that were noted last of the head at a place, as those of `HeadWeights`."""
        weights = [(name, self._best[name][place]) for name in self._names]
        return [weight.T.copy() if name.startswith("kernel") else weight.reshape(-1).copy() for name, weight in weights]

    def keep(self, places: Sequence[int]) -> None:
        """Keep the heads at some places, and let the others go."""
        self._best, self._hyper = (
            {name: values[places] for name, values in of_heads.items()} for of_heads in (self._best, self._hyper)
        )
        self._numbers, self._slots = self._numbers[places], [slot[places] for slot in self._slots]
        self._set_up()
        self.members = [self.members[place] for place in places]

    def _set_up(self) -> None:
        """Name the parts of what is learnt, and of its gradient."""
        self._gradient = np.empty_like(self._numbers)
        self._weights, self._slopes = self._parts(self._numbers), self._parts(self._gradient)
        self._network = Network(self.kind, self._weights, self._shared)

    def _parts(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Views of (H, P) numbers: by name, (H, outputs, inputs)."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes.values()])[:-1]
        named = zip(self._shapes.items(), np.split(numbers, ends, axis=1), strict=True)
        return {name: part.reshape(len(numbers), *shape) for (name, shape), part in named}

    def _loss(self, logits: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Binary cross-entropy of (H, L, B) logits: its mean by head (H,), its gradient (H, L, B)."""
        weight = np.where(truth == 1, self._hyper["positive"], self._hyper["negative"]) / np.float32(truth.size)
        smoothing = self._hyper["smoothing"]
        target = truth * (1 - smoothing) + smoothing / 2
        entropy = np.maximum(logits, np.float32(0)) - logits * target + np.log1p(np.exp(-np.abs(logits)))
        return (weight * entropy).sum(axis=(1, 2)), weight * (expit(logits) - target)

    def _penalty(self) -> np.ndarray:
        """The L2 penalty of the kernels by head (H,)."""
        kernels = self._numbers[:, : self._decayed]
        return self._hyper["l2"][:, 0, 0] * np.einsum("hp,hp->h", kernels, kernels)

    def _update(self, time: int) -> None:
        """One step of the optimiser as Keras takes it, in place.

        Adam's moments are kept without their factors 1 - beta, which go into the rate and epsilon.
        """
        rate, decay = self._hyper["rate"][:, 0], 2 * self._hyper["l2"][:, 0]
        if self.kind.optimiser == "adam":
            unit = np.sqrt(1 - _BETA_2)
            rate = rate * np.float32((1 - _BETA_1) / unit * np.sqrt(1 - _BETA_2**time) / (1 - _BETA_1**time))
        for heads, part in _blocks(*self._numbers.shape):
            weight, slope, *slots = (array[heads, part] for array in (self._numbers, self._gradient, *self._slots))
            kernels = max(0, min(part.stop, self._decayed) - part.start)
            slope[:, :kernels] += decay[heads] * weight[:, :kernels]
            if self.kind.optimiser == "adam":
                first, second = slots
                first *= np.float32(_BETA_1)
                first += slope
                slope *= slope
                second *= np.float32(_BETA_2)
                second += slope
                np.sqrt(second, out=slope)
                slope += np.float32(_ADAM_EPSILON / unit)
                np.divide(first, slope, out=slope)
                slope *= rate[heads]
                weight -= slope
            else:
                [velocity] = slots
                slope *= rate[heads]
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


def _by_head(values: Sequence[float]) -> np.ndarray:
    """A value per head, shaped to meet arrays (H, outputs, inputs): float32 (H, 1, 1)."""
    return np.array(values, np.float32)[:, None, None]


def make_stacks(specs: Sequence[HeadSpec], y: Labels, width: int) -> list[Stack]:
    """Sort heads of one batch size into stacks by kind, none too large for the cache, in the order of first heads."""
    by_kind = defaultdict(list)
    for index, spec in enumerate(specs):
        by_kind[StackKind(spec.hidden_units, spec.batch_norm, spec.dropout, spec.optimiser)].append(index)
    stacks = []
    for kind, members in by_kind.items():
        total = sum(specs[index].count_parameters(width, y.shape[1]) for index in members)
        for part in np.array_split(members, min(-(-total // PARAMETERS_IN_CACHE), len(members))):
            own = [int(index) for index in part]
            stacks.append(Stack(kind, own, [specs[index] for index in own], y, width))
    return stacks


def _class_weights(y: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Weights, float32 (L,) each, that make positives and negatives count half the rows; 1 for a label of one value."""
    share = y.mean(axis=0)
    constant = (share == 0) | (share == 1)
    positive, negative = (
        np.where(constant, 1, 0.5 / np.where(constant, 1, part)).astype(np.float32) for part in (share, 1 - share)
    )
    return positive, negative
