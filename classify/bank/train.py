"""Train a bank of heads at once on one resident matrix of features."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from classify.bank.auc import mean_auc
from classify.bank.network import draw_uniforms
from classify.bank.stack import Stack, make_stacks
from classify.models.heads import HeadSpec
from classify.models.trained_head import BATCH_NORM_EPSILON, Curves, TrainedHead
from features.common.arrays import Features, Labels, RowIndices

#: Parameters trained at a time: 5 float32 copies (weights, gradients, two slots, the best) make 1.3 GB.
PARAMETERS_AT_A_TIME = 64_000_000
#: Keras' default for BatchNormalization: what is left of a moving statistic after a step.
_MOVING = np.float32(0.99)
#: Logits that wait at most for their AUC; that of many epochs is computed at once.
_LOGITS_WAITING = 4_000_000


def train_bank(
    specs: Sequence[HeadSpec],
    X: Features,
    y: Labels,
    train_rows: RowIndices,
    validation_rows: RowIndices,
    seed: int = 0,
    on_epochs: Callable[[int], None] = lambda count: None,
) -> list[TrainedHead]:
    """Train heads together; each stops early by its own validation loss and keeps its best epoch's weights.

    Heads of one batch size see the same mini-batches and, of one dropout rate, the same masks. Which other heads are in
    the bank changes a head by no more than the rounding of sums; a head that trains alone always gets the same bits on
    one thread of BLAS.

    Args:
        specs: the heads; at least one, each with a batch size.
        X: the features.
        y: the truth.
        train_rows: to learn from, at least one.
        validation_rows: to decide when to stop, at least one.
        seed: of the mini-batches and the dropout masks.
        on_epochs: called after every epoch with the number of heads' epochs that are now done; over a whole
            training they add up to the sum of the specs' epochs.

    Returns:
        The trained heads, in the order of the specs. One whose validation loss was never finite has diverged: its
        `best_epoch` is 0.
    """
    heads: dict[int, TrainedHead] = {}
    with np.errstate(all="ignore"):  # a head that diverges is told by its best epoch
        for members in _train_together(specs, X.shape[1], y.shape[1]):
            bank = _Bank([specs[member] for member in members], X, y, train_rows, validation_rows, seed)
            heads |= dict(zip(members, bank.train(on_epochs), strict=True))
    return [heads[index] for index in range(len(specs))]


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
    """Heads of one batch size, while they train."""

    def __init__(
        self,
        specs: list[HeadSpec],
        X: Features,
        y: Labels,
        train_rows: RowIndices,
        validation_rows: RowIndices,
        seed: int,
    ) -> None:
        assert specs[0].batch_size is not None  # see `HeadSpec.for_rows`
        self._specs, self._seed, self._batch_size = specs, seed, specs[0].batch_size
        self._X, self._train_rows, self._y = X, train_rows, y[train_rows]
        self._validation, self._validation_y = X[validation_rows], y[validation_rows]
        width = X.shape[1]
        self._mean, self._variance = np.zeros(width, np.float32), np.ones(width, np.float32)
        self._stacks = make_stacks(specs, self._y, width)
        self._best_epoch = np.zeros(len(specs), dtype=int)
        self._best_loss = np.full(len(specs), np.inf)
        self._best_weights: dict[int, list[np.ndarray]] = {}
        self._seconds = np.zeros(len(specs))
        self._losses: list[list[tuple[float, float]]] = [[] for _ in specs]
        self._aucs: list[list[tuple[float, float]]] = [[] for _ in specs]
        self._waiting: list[tuple[list[int], np.ndarray, np.ndarray]] = []

    def train(self, on_epochs: Callable[[int], None]) -> list[TrainedHead]:
        """Train epoch by epoch until every head has stopped."""
        epoch = 0
        while self._stacks:
            started = time.perf_counter()
            trained = [index for stack in self._stacks for index in stack.members]
            for stack, loss, logits in zip(self._stacks, *self._learn(epoch), strict=True):
                self._validate(stack, loss, logits, epoch)
            self._stacks = [stack for stack in self._stacks if stack.members]
            staying = {index for stack in self._stacks for index in stack.members}
            if not staying or sum(a.size + b.size for _, a, b in self._waiting) > _LOGITS_WAITING:
                self._score()
            self._seconds[trained] += (time.perf_counter() - started) / len(trained)
            epoch += 1
            on_epochs(len(trained) + sum(self._specs[index].epochs - epoch for index in set(trained) - staying))
        return [
            TrainedHead(
                spec,
                self._best_weights[index],
                Curves(*_curves(self._losses[index], self._aucs[index])),
                int(self._best_epoch[index]),
                float(self._seconds[index]),
            )
            for index, spec in enumerate(self._specs)
        ]

    def _learn(self, epoch: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Train every stack for one epoch; gives their losses (H,), and logits (H, L, N) in the order of the rows."""
        rows, size = len(self._train_rows), self._batch_size
        order, steps = batch_order(rows, self._seed, epoch), -(-rows // size)
        losses = [np.zeros(len(stack.members), np.float32) for stack in self._stacks]
        logits = [np.empty((len(stack.members), self._y.shape[1], rows), np.float32) for stack in self._stacks]
        drawn = draw_uniforms([stack.kind for stack in self._stacks], size, self._X.shape[1], self._seed, epoch)
        for step in range(steps):
            uniforms, places = next(drawn), order[step * size : (step + 1) * size]
            batch = self._X[self._train_rows[places]]
            mean = batch.mean(axis=0)
            normalised = batch - mean
            variance = np.square(normalised).mean(axis=0)
            normalised /= np.sqrt(variance + np.float32(BATCH_NORM_EPSILON))
            for moving, found in ((self._mean, mean), (self._variance, variance)):
                moving *= _MOVING
                moving += (1 - _MOVING) * found
            truth = self._y[places].T.astype(np.float32)
            for stack, loss, kept in zip(self._stacks, losses, logits, strict=True):
                of_step, kept[:, :, places] = stack.step(batch, normalised, truth, uniforms, epoch * steps + step + 1)
                loss += of_step * np.float32(len(places) / rows)
        return losses, logits

    def _validate(self, stack: Stack, losses: np.ndarray, logits: np.ndarray, epoch: int) -> None:
        """Add an epoch to the curves of a stack's heads, and let those go that are done."""
        moving = self._mean, self._variance
        validated, of_validation = stack.validate(self._validation, self._validation_y.T.astype(np.float32), *moving)
        self._waiting.append((stack.members, logits, of_validation))
        staying = []
        for place, (index, loss, validation_loss) in enumerate(zip(stack.members, losses, validated, strict=True)):
            self._losses[index].append((float(loss), float(validation_loss)))
            if validation_loss < self._best_loss[index]:
                self._best_loss[index], self._best_epoch[index] = validation_loss, epoch + 1
                stack.note_best(place, *moving)
            spec, waited = self._specs[index], epoch + 1 - self._best_epoch[index]
            if epoch + 1 < spec.epochs and waited < spec.patience_epochs and np.isfinite(validation_loss):
                staying.append(place)
            else:
                self._best_weights[index] = stack.best_weights(place)
        if len(staying) < len(stack.members):
            stack.keep(staying)

    def _score(self) -> None:
        """Add the AUC of the epochs that wait to the curves of their heads."""
        members = [index for indices, _, _ in self._waiting for index in indices]
        of_train, of_validation = (
            mean_auc(np.concatenate([waiting[place] for waiting in self._waiting]).T, truth)
            for place, truth in ((1, self._y), (2, self._validation_y))
        )
        for index, *of_epoch in zip(members, of_train, of_validation, strict=True):
            self._aucs[index].append((float(of_epoch[0]), float(of_epoch[1])))
        self._waiting = []


def _curves(losses: list[tuple[float, float]], aucs: list[tuple[float, float]]) -> list[np.ndarray]:
    """The arrays of `Curves`, in their order."""
    (loss, validation_loss), (auc, validation_auc) = (np.array(of_epochs, np.float32).T for of_epochs in (losses, aucs))
    return [loss, auc, validation_loss, validation_auc]
