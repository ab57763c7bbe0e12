"""Train a bank of heads at once on one resident matrix of features."""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from classify.bank.auc import mean_accuracy, mean_auc
from classify.bank.compiled import is_compiled
from classify.bank.layout import lay_flat
from classify.bank.stack import BankRows, Stack, make_stacks
from classify.models.heads import HeadSpec
from classify.models.trained_head import Curves, TrainedHead
from features.common.arrays import Features, Labels, RowIndices
from features.store.mapped import AnyFeatures, MappedFeatures, take_rows

logger = logging.getLogger(__name__)
#: Parameters trained at a time: 5 float32 copies (weights, gradients, two slots, the best) make 1.3 GB.
PARAMETERS_AT_A_TIME = 64_000_000
#: Logits that wait at most for their AUC; that of many epochs is computed at once.
_LOGITS_WAITING = 4_000_000
#: The steps are compiled by one thread, while the others wait.
_LOADING = threading.Lock()


class HeadSplit(NamedTuple):
    """Rows to learn from, and rows to decide when to stop; at least one of each."""

    train: RowIndices
    validation: RowIndices


def train_bank(
    specs: Sequence[HeadSpec],
    X: AnyFeatures,
    y: Labels,
    split: HeadSplit,
    seed: int = 0,
    on_epochs: Callable[[int], None] = lambda count: None,
    views: Features | None = None,
) -> list[TrainedHead]:
    """Train heads together; each stops early by its own validation loss and keeps its best epoch's weights.

    The loss is the mean over the known cells of a mini-batch; that of an epoch weighs these by their rows.

    Heads of one batch size see the same mini-batches and, of one dropout rate, the same masks. Which other heads are in
    the bank changes a head by no more than the rounding of sums.

    Args:
        specs: the heads; at least one, each with a batch size.
        X: the features.
        y: the truth.
        split: of the rows.
        seed: of the mini-batches and the dropout masks.
        on_epochs: called after every epoch with the number of heads' epochs that are now done; over a whole
            training they add up to the sum of the specs' epochs.
        views: float32 (N, V, D), views of the same rows: each epoch draws one for each row, and learns from these in
            place of the features, which still decide when a head stops.

    Returns:
        The trained heads in the order of the specs. One whose validation loss was never finite has diverged: its
        `best_epoch` is 0.
    """
    with _LOADING:
        load_steps()
    found: dict[int, TrainedHead] = {}
    table = X if views is None else views.reshape(-1, X.shape[1])
    of_split = split.train, y[split.train], take_rows(X, split.validation), y[split.validation]
    known = table if isinstance(table, MappedFeatures) else lay_flat(table)
    rows = BankRows(known, *of_split, 1 if views is None else views.shape[1])
    with np.errstate(all="ignore"):  # a head that diverges is told by its best epoch
        for members in _train_together(specs, X.shape[1], y.shape[1]):
            bank = _Bank([specs[member] for member in members], rows, seed)
            found |= zip(members, bank.train(on_epochs), strict=True)
    return [found[index] for index in range(len(specs))]


@cache
def load_steps() -> None:
    """Compile the steps, which is said, or read what was compiled, before any clock runs: train a head of two rows."""
    if not is_compiled():
        logger.warning("compiling the training of heads: some 20 s, once")
    rows, y = np.zeros((2, 1), np.float32), np.array([[0], [1]], np.uint8)
    _Bank([HeadSpec(epochs=1)], BankRows(lay_flat(rows), np.arange(2), y, rows, y), 0).train(lambda count: None)


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
    """Heads of one batch size while they train."""

    def __init__(self, specs: list[HeadSpec], rows: BankRows, seed: int) -> None:
        self._specs, self._rows, self._seed = specs, rows, seed
        self._stacks = make_stacks(specs, rows)
        self._active = np.ones(len(specs), bool)
        self._best_epoch, self._best_loss = np.zeros(len(specs), int), np.full(len(specs), np.inf)
        self._best_weights: dict[int, list[np.ndarray]] = {}
        self._seconds = np.zeros(len(specs))
        self._losses: list[list[tuple[float, float]]] = [[] for _ in specs]
        self._aucs: list[list[tuple[float, float]]] = [[] for _ in specs]
        self._accuracies: list[list[tuple[float, float]]] = [[] for _ in specs]
        self._waiting: list[tuple[list[int], np.ndarray, np.ndarray]] = []

    def train(self, on_epochs: Callable[[int], None]) -> list[TrainedHead]:
        """Train epoch by epoch until every head has stopped."""
        epoch = 0
        while self._stacks:
            started, before = time.perf_counter(), self._active.copy()
            order = batch_order(len(self._rows.train), self._seed, epoch)
            for stack in self._stacks:
                self._learn(stack, order, epoch)
            self._stacks = [stack for stack in self._stacks if stack.members]
            self._seconds[before] += (time.perf_counter() - started) / before.sum()
            stopped = np.flatnonzero(before & ~self._active)
            epoch += 1
            on_epochs(int(before.sum()) + sum(self._specs[index].epochs - epoch for index in stopped))
        self._score()
        return [
            TrainedHead(
                spec,
                self._best_weights[index],
                Curves(*_curves(self._losses[index], self._aucs[index], self._accuracies[index])),
                int(self._best_epoch[index]),
                float(self._seconds[index]),
            )
            for index, spec in enumerate(self._specs)
        ]

    def _learn(self, stack: Stack, order: np.ndarray, epoch: int) -> None:
        """Train a stack for an epoch, add it to the curves of its heads, and let those go that are done."""
        losses, logits = stack.learn(order, self._seed, epoch)
        validated, of_validation = stack.validate()
        self._wait(stack.members, logits, of_validation)
        for place, index in enumerate(stack.members):
            loss, spec = float(validated[place]), self._specs[index]
            self._losses[index].append((float(losses[place]), loss))
            if loss < self._best_loss[index]:
                self._best_loss[index], self._best_epoch[index] = loss, epoch + 1
                stack.note_best(place)
            waited = epoch + 1 - self._best_epoch[index]
            if not (epoch + 1 < spec.epochs and waited < spec.patience_epochs and np.isfinite(loss)):
                self._active[index] = False
                self._best_weights[index] = stack.best_weights(place)
        if not self._active[stack.members].all():
            stack.keep([place for place, index in enumerate(stack.members) if self._active[index]])

    def _wait(self, members: list[int], logits: np.ndarray, of_validation: np.ndarray) -> None:
        """Keep logits (H, L, T), (H, L, V) of an epoch until the scores of many are computed at once."""
        self._waiting.append((members, logits, of_validation))
        if sum(first.size + second.size for _, first, second in self._waiting) > _LOGITS_WAITING:
            self._score()

    def _score(self) -> None:
        """Add AUC and accuracy of the epochs that wait to the curves of their heads."""
        members = [index for indices, _, _ in self._waiting for index in indices]
        if not members:
            return
        exclusive = np.array([self._specs[index].output == "softmax" for index in members])
        scores = []
        for place, truth in ((1, self._rows.truth), (2, self._rows.validation_truth)):
            logits = np.concatenate([waiting[place] for waiting in self._waiting]).T
            scores += [mean_auc(logits, truth).tolist(), mean_accuracy(logits, truth, exclusive).tolist()]
        for index, auc, accuracy, validation_auc, validation_accuracy in zip(members, *scores, strict=True):
            self._aucs[index].append((auc, validation_auc))
            self._accuracies[index].append((accuracy, validation_accuracy))
        self._waiting = []


def _curves(*figures: list[tuple[float, float]]) -> list[np.ndarray]:
    """The arrays of `Curves`, in their order, of losses, AUCs and accuracies by epoch, in training and validation."""
    losses, aucs, accuracies = (np.array(of_epochs, np.float32).T for of_epochs in figures)
    return [losses[0], aucs[0], losses[1], aucs[1], *accuracies]
