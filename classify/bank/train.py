"""Train a bank of heads at once on one resident matrix of features."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from classify.bank.auc import mean_auc
from classify.bank.network import draw_uniforms
from classify.bank.stack import PARAMETERS_IN_CACHE, MiniBatches, Stack, make_stacks
from classify.models.heads import HeadSpec
from classify.models.trained_head import BATCH_NORM_EPSILON, Curves, TrainedHead
from features.common.arrays import Features, Labels, RowIndices

#: Parameters trained at a time: 5 float32 copies (weights, gradients, two slots, the best) make 1.3 GB.
PARAMETERS_AT_A_TIME = 64_000_000
#: Keras' default for BatchNormalization: what is left of a moving statistic after a step.
_MOVING = np.float32(0.99)
#: Logits that wait at most for their AUC; that of many epochs is computed at once.
_LOGITS_WAITING = 4_000_000


class LaneRows(NamedTuple):
    """Rows to learn from, and rows to decide when to stop; at least one of each."""

    train: RowIndices
    validation: RowIndices


def train_bank(
    specs: Sequence[HeadSpec],
    X: Features,
    y: Labels,
    splits: Sequence[LaneRows],
    seed: int = 0,
    on_epochs: Callable[[int], None] = lambda count: None,
) -> list[list[TrainedHead]]:
    """Train heads together; each stops early by its own validation loss and keeps its best epoch's weights.

    Heads of one batch size see the same mini-batches and, of one dropout rate, the same masks. Which other heads are in
    the bank changes a head by no more than the rounding of sums; which other splits there are, by no bit on one thread
    of BLAS.

    Args:
        specs: the heads; at least one, each with a batch size.
        X: the features.
        y: the truth.
        splits: of the rows, at least one; all heads learn from each.
        seed: of the mini-batches and the dropout masks.
        on_epochs: called after every epoch with the number of heads' epochs that are now done; over a whole
            training they add up to the sum of the specs' epochs, for each split.

    Returns:
        By split, the trained heads in the order of the specs. One whose validation loss was never finite has diverged:
        its `best_epoch` is 0.
    """
    found: list[list[TrainedHead | None]] = [[None] * len(specs) for _ in splits]
    # the longest first, so that lanes with a whole mini-batch left come before those without
    order = sorted(range(len(splits)), key=lambda split: -len(splits[split].train))
    with np.errstate(all="ignore"):  # a head that diverges is told by its best epoch
        for members in _train_together(specs, X.shape[1], y.shape[1]):
            bank = _Bank([specs[member] for member in members], X, y, [splits[split] for split in order], seed)
            for split, heads in zip(order, bank.train(on_epochs), strict=True):
                for member, head in zip(members, heads, strict=True):
                    found[split][member] = head
    return [[head for head in heads if head] for heads in found]


def lanes_in_cache(spec: HeadSpec, width: int, labels: int) -> int:
    """How many splits one head learns from side by side, at least one, so that a step works in the cache."""
    assert spec.batch_size is not None  # see `HeadSpec.for_rows`
    return max(1, PARAMETERS_IN_CACHE // max(spec.count_parameters(width, labels), spec.batch_size * width))


def batch_order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which the mini-batches of an epoch, from 0, take T training rows: int (T,), a permutation."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def _train_together(specs: Sequence[HeadSpec], width: int, labels: int) -> Iterator[list[int]]:
    """Split the specs by batch size, and each part so that it fits into memory; yields indices."""
    by_batch = defaultdict(list)
    for index, spec in enumerate(specs):
        by_batch[spec.batch_size].append(index)
    for members in by_batch.values():
        share: list[int] = []
        parameters = 0
        for index in members:
            size = specs[index].count_parameters(width, labels)
            if share and parameters + size > PARAMETERS_AT_A_TIME:
                yield share
                share, parameters = [], 0
            share.append(index)
            parameters += size
        yield share


class _Bank:
    """Heads of one batch size in some lanes, one for each split, while they train."""

    def __init__(self, specs: list[HeadSpec], X: Features, y: Labels, splits: Sequence[LaneRows], seed: int) -> None:
        assert specs[0].batch_size is not None  # see `HeadSpec.for_rows`
        self._specs, self._seed, self._batch_size, self._X = specs, seed, specs[0].batch_size, X
        self._lanes = [_Lane(split, X, y, len(specs)) for split in splits]
        self._all_lanes = list(self._lanes)
        width = X.shape[1]
        self._mean = np.zeros((len(splits), width), np.float32)
        self._variance = np.ones((len(splits), width), np.float32)
        self._stacks = make_stacks(specs, [lane.truth for lane in self._lanes], width)

    def train(self, on_epochs: Callable[[int], None]) -> list[list[TrainedHead]]:
        """Train epoch by epoch until every head has stopped; gives the heads of each lane."""
        epoch = 0
        while self._lanes:
            started = time.perf_counter()
            active = [lane.active.copy() for lane in self._lanes]
            for stack, losses, logits in zip(self._stacks, *self._learn(epoch), strict=True):
                for number, lane in enumerate(self._lanes):
                    self._validate(stack, number, lane, losses[number], logits[number], epoch)
            trained = int(np.sum(active))
            spent = (time.perf_counter() - started) / trained
            done = trained
            for lane, before in zip(self._lanes, active, strict=True):
                lane.seconds[before] += spent
                for index in np.flatnonzero(before & ~lane.active):
                    done += self._specs[index].epochs - epoch - 1
            self._compact()
            epoch += 1
            on_epochs(done)
        return [lane.heads(self._specs) for lane in self._all_lanes]

    def _learn(self, epoch: int) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
        """Train every stack for one epoch; gives their losses (R, H), and by lane their logits (H, L, N)."""
        size, labels = self._batch_size, self._lanes[0].truth.shape[1]
        counts = np.array([len(lane.rows.train) for lane in self._lanes])
        orders = [batch_order(count, self._seed, epoch) for count in counts]
        steps = -(-counts // size)
        losses = [np.zeros((len(counts), len(stack.members)), np.float32) for stack in self._stacks]
        logits = [
            [np.empty((len(stack.members), labels, count), np.float32) for count in counts] for stack in self._stacks
        ]
        drawn = draw_uniforms([stack.kind for stack in self._stacks], size, self._X.shape[1], self._seed, epoch)
        for step in range(max(steps)):
            uniforms = next(drawn)
            for lanes in _alike(counts - step * size, size):
                places = [order[step * size : (step + 1) * size] for order in orders[lanes]]
                batch = self._read(lanes, places)
                at = epoch * steps[lanes] + step + 1
                share = (len(places[0]) / counts[lanes]).astype(np.float32)[:, None]
                for stack, loss, kept in zip(self._stacks, losses, logits, strict=True):
                    of_step, of_rows = stack.step(lanes, batch, uniforms, at)
                    loss[lanes] += of_step * share
                    for of_lane, own, found in zip(kept[lanes], places, of_rows, strict=True):
                        of_lane[:, :, own] = found
        return losses, logits

    def _read(self, lanes: slice, places: list[np.ndarray]) -> MiniBatches:
        """Read a mini-batch of each of some lanes, and let their moving statistics go on."""
        pairs = list(zip(self._lanes[lanes], places, strict=True))
        features = self._X[np.stack([lane.rows.train[own] for lane, own in pairs])]
        rows = features.shape[1]
        mean = np.full((1, rows), 1 / rows, np.float32) @ features
        raw = any(not stack.kind.batch_norm for stack in self._stacks)
        centred = np.subtract(features, mean, out=None if raw else features)
        variance = np.einsum("rbd,rbd->rd", centred, centred)[:, None] / np.float32(rows)
        inverse = 1 / np.sqrt(variance + np.float32(BATCH_NORM_EPSILON))
        for moving, found in ((self._mean, mean), (self._variance, variance)):
            moving[lanes] *= _MOVING
            moving[lanes] += (1 - _MOVING) * found[:, 0]
        truth = np.stack([lane.truth[own].T for lane, own in pairs]).astype(np.float32)
        return MiniBatches(features, centred, inverse, truth)

    def _validate(
        self, stack: Stack, number: int, lane: "_Lane", losses: np.ndarray, logits: np.ndarray, epoch: int
    ) -> None:
        """Add an epoch to the curves of a stack's heads in a lane, and stop those that are done."""
        moving = self._mean[number], self._variance[number]
        validated, of_validation = stack.validate(number, lane.validation, lane.validation_truth, *moving)
        places = [place for place, index in enumerate(stack.members) if lane.active[index]]
        members = [stack.members[place] for place in places]
        lane.wait(members, logits[places], of_validation[places])
        for place, index in zip(places, members, strict=True):
            loss, spec = float(validated[place]), self._specs[index]
            lane.losses[index].append((float(losses[place]), loss))
            if loss < lane.best_loss[index]:
                lane.best_loss[index], lane.best_epoch[index] = loss, epoch + 1
                stack.note_best(number, place, *moving)
            waited = epoch + 1 - lane.best_epoch[index]
            if not (epoch + 1 < spec.epochs and waited < spec.patience_epochs and np.isfinite(loss)):
                lane.active[index] = False
                lane.best_weights[index] = stack.best_weights(number, place)

    def _compact(self) -> None:
        """Let lanes go where every head has stopped, and heads that have stopped in every lane."""
        lanes = [number for number, lane in enumerate(self._lanes) if lane.active.any()]
        active = np.array([lane.active for lane in self._lanes])
        for stack in self._stacks:
            places = [place for place, index in enumerate(stack.members) if active[:, index].any()]
            if len(lanes) < len(self._lanes) or len(places) < len(stack.members):
                stack.keep(lanes, places)
        self._stacks = [stack for stack in self._stacks if stack.members]
        self._lanes = [self._lanes[number] for number in lanes]
        self._mean, self._variance = self._mean[lanes], self._variance[lanes]


class _Lane:
    """A split, and what its heads have come to."""

    def __init__(self, split: LaneRows, X: Features, y: Labels, heads: int) -> None:
        self.rows, self.truth = split, y[split.train]
        self.validation, self.validation_truth = X[split.validation], y[split.validation].T.astype(np.float32)
        self.active = np.ones(heads, bool)
        self.best_epoch, self.best_loss = np.zeros(heads, int), np.full(heads, np.inf)
        self.seconds = np.zeros(heads)
        self.best_weights: dict[int, list[np.ndarray]] = {}
        self.losses: list[list[tuple[float, float]]] = [[] for _ in range(heads)]
        self._aucs: list[list[tuple[float, float]]] = [[] for _ in range(heads)]
        self._waiting: list[tuple[list[int], np.ndarray, np.ndarray]] = []

    def wait(self, members: list[int], logits: np.ndarray, of_validation: np.ndarray) -> None:
        """Keep logits (H, L, N), (H, L, V) of an epoch until the AUC of many is computed at once."""
        self._waiting.append((members, logits, of_validation))
        if sum(first.size + second.size for _, first, second in self._waiting) > _LOGITS_WAITING:
            self._score()

    def heads(self, specs: Sequence[HeadSpec]) -> list[TrainedHead]:
        """The trained heads, in the order of the specs."""
        self._score()
        return [
            TrainedHead(
                spec,
                self.best_weights[index],
                Curves(*_curves(self.losses[index], self._aucs[index])),
                int(self.best_epoch[index]),
                float(self.seconds[index]),
            )
            for index, spec in enumerate(specs)
        ]

    def _score(self) -> None:
        """Add the AUC of the epochs that wait to the curves of their heads."""
        members = [index for indices, _, _ in self._waiting for index in indices]
        if not members:
            return
        of_train, of_validation = (
            mean_auc(np.concatenate([waiting[place] for waiting in self._waiting]).T, truth)
            for place, truth in ((1, self.truth), (2, self.validation_truth.T.astype(np.uint8)))
        )
        for index, *of_epoch in zip(members, of_train, of_validation, strict=True):
            self._aucs[index].append((float(of_epoch[0]), float(of_epoch[1])))
        self._waiting = []


def _alike(left: np.ndarray, size: int) -> Iterator[slice]:
    """Yield the lanes that have a whole mini-batch left, together, then one by one those with a short last one.

    Args:
        left: rows that each lane has left, falling.
        size: of a mini-batch.
    """
    whole = int((left >= size).sum())
    if whole:
        yield slice(0, whole)
    for lane in range(whole, int((left > 0).sum())):
        yield slice(lane, lane + 1)


def _curves(losses: list[tuple[float, float]], aucs: list[tuple[float, float]]) -> list[np.ndarray]:
    """The arrays of `Curves`, in their order."""
    (loss, validation_loss), (auc, validation_auc) = (np.array(of_epochs, np.float32).T for of_epochs in (losses, aucs))
    return [loss, auc, validation_loss, validation_auc]
