"""Heads side by side while they train: their weights in one array, and each head's own again."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from classify.bank.network import StackKind
from classify.models.heads import HeadSpec
from features.common.arrays import Labels
from features.common.keras_import import import_tensorflow

#: Parameters of a stack at most, unless it is a single head, so that a step works in the cache; see docs/decisions.md.
PARAMETERS_IN_CACHE = 700_000


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
    """Heads of one kind, while they train.

    Attributes:
        members: which heads of the bank they are; they leave when they are done.
        state: float32 tensors, as `compile_epoch` describes them.
    """

    def __init__(self, kind: StackKind, members: list[int], specs: list[HeadSpec], y: Labels, width: int) -> None:
        self._tf = import_tensorflow()
        self.kind, self.members = kind, members
        self.state = self._initial_state([initial_weights(spec, width, y.shape[1]) for spec in specs])
        positive, negative = _class_weights(y)
        balanced = np.array([spec.class_weight == "balanced" for spec in specs])
        self._hyper = {
            "rate": _by_head([spec.learning_rate for spec in specs]),
            "l2": _by_head([spec.l2 for spec in specs]),
            "smoothing": _by_head([spec.label_smoothing for spec in specs]),
            "positive": np.where(balanced[:, None, None], positive[:, None], np.float32(1)),
            "negative": np.where(balanced[:, None, None], negative[:, None], np.float32(1)),
        }

    def hyper(self, active: np.ndarray) -> dict[str, Any]:
        """What differs between the heads, as `compile_epoch` describes it; `active`, bool, is by head of the bank."""
        values = self._hyper | {"active": active[self.members]}
        return {name: self._tf.constant(value) for name, value in values.items()}

    @property
    def parameters(self) -> int:
        """How many numbers its heads learn."""
        return sum(int(np.prod(weight.shape)) for weight in self.state["weights"].values())

    def best_weights(self, places: Sequence[int]) -> dict[int, list[np.ndarray]]:
        """The weights of the best epoch of the heads at some places of `members`, by head of the bank."""
        best = {name: weight.numpy() for name, weight in self.state["best"].items()} if places else {}
        names = _names(self.kind)
        found: dict[int, list[np.ndarray]] = {}
        for place in places:
            weights = found[self.members[place]] = []
            for name in names:
                weight = best[name][place]
                weights.append(weight.T.copy() if name.startswith("kernel") else weight.reshape(-1).copy())
        return found

    def keep(self, places: Sequence[int]) -> None:
        """Keep the heads at some places of `members`, at least one, and let the others go."""
        self.state = self._tf.nest.map_structure(lambda value: self._tf.gather(value, places), self.state)
        self._hyper = {name: value[places] for name, value in self._hyper.items()}
        self.members = [self.members[place] for place in places]

    def _initial_state(self, heads: list[list[np.ndarray]]) -> dict[str, Any]:
        """Stack weights in the order of `HeadWeights`; the optimiser starts at rest."""
        tf = self._tf
        names = _names(self.kind)
        stacked = {name: np.stack([head[place] for head in heads]) for place, name in enumerate(names)}
        arrays = {}
        for name, weights in stacked.items():
            if name.startswith("kernel"):
                arrays[name] = np.ascontiguousarray(weights.transpose(0, 2, 1))
            else:
                arrays[name] = weights[:, :, None] if name.startswith("bias") else weights[:, None]
        best = {name: tf.constant(array) for name, array in arrays.items()}
        trained = {name: weight for name, weight in best.items() if name not in ("mean", "variance")}
        slots = 2 if self.kind.optimiser == "adam" else 1
        return {
            "weights": trained,
            "slots": {name: (tf.zeros_like(weight),) * slots for name, weight in trained.items()},
            "best": best,
            "best_loss": tf.fill((len(heads),), np.float32(np.inf)),
        }


def _names(kind: StackKind) -> list[str]:
    """Names of a stack's weights, in the order of `HeadWeights`."""
    layers = range(len(kind.hidden_units) + 1)
    return ["gamma", "beta", "mean", "variance"] * kind.batch_norm + [
        name for layer in layers for name in (f"kernel{layer}", f"bias{layer}")
    ]


def _by_head(values: Sequence[float]) -> np.ndarray:
    """A value per head, shaped to meet arrays (H, outputs, inputs): float32 (H, 1, 1)."""
    return np.array(values, np.float32)[:, None, None]


def make_stacks(specs: Sequence[HeadSpec], y: Labels, width: int) -> list[Stack]:
    """Sort the bank's heads into stacks, by kind, none too large for the cache, in the order of their first heads."""
    by_kind = defaultdict(list)
    for index, spec in enumerate(specs):
        by_kind[StackKind(spec.hidden_units, spec.batch_norm, spec.dropout, spec.optimiser)].append(index)
    stacks = []
    for kind, members in by_kind.items():
        total = sum(specs[index].count_parameters(width, y.shape[1]) for index in members)
        parts = -(-total // PARAMETERS_IN_CACHE)
        if parts > 1 or len(by_kind) == 1:
            parts += parts % 2  # stacks train two at a time, and the two take equally long
        for part in np.array_split(members, min(parts, len(members))):
            own = [int(index) for index in part]
            stacks.append(Stack(kind, own, [specs[index] for index in own], y, width))
    return stacks


def trained_together(stacks: Sequence[Stack]) -> list[list[Stack]]:
    """Split stacks, in their order, into those that train side by side: two, or as many more as the cache has room for.

    XLA runs element-wise kernels on one core each, and stacks side by side: a lone stack would leave cores idle.
    """
    groups: list[list[Stack]] = [[]]
    for stack in stacks:
        if len(groups[-1]) >= 2 and sum(other.parameters for other in [*groups[-1], stack]) > 2 * PARAMETERS_IN_CACHE:
            groups.append([])
        groups[-1].append(stack)
    if len(groups) > 1 and len(groups[-1]) == 1:
        last = groups.pop()
        groups[-1] += last
    return groups


def _class_weights(y: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Weights, float32 (L,) each, that make positives and negatives count half the rows; 1 for a label of one value."""
    share = y.mean(axis=0)
    constant = (share == 0) | (share == 1)
    positive, negative = (
        np.where(constant, 1, 0.5 / np.where(constant, 1, part)).astype(np.float32) for part in (share, 1 - share)
    )
    return positive, negative
