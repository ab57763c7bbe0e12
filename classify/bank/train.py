"""Train a bank of heads at once on one resident matrix of features."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from classify.bank.auc import mean_auc
from classify.bank.epoch import EpochInputs, compile_epoch
from classify.bank.network import draw_uniforms
from classify.bank.stack import Stack, make_stacks, trained_together
from classify.models.heads import HeadSpec
from classify.models.trained_head import Curves, TrainedHead
from features.common.arrays import Features, Labels, RowIndices
from features.common.keras_import import import_tensorflow

#: Parameters trained at a time: 9 float32 copies (weights, gradients, slots, best, their successors) make 2.3 GB.
PARAMETERS_AT_A_TIME = 64_000_000
#: Multiplications worth saving by compiling the epoch again without the heads that stopped: one or two seconds' worth.
_WORTH_COMPILING = 1e11


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
    the bank changes a head by no more than the rounding of sums.

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
    for members in train_together(specs, X.shape[1], y.shape[1]):
        bank = _Bank([specs[member] for member in members], X, y, train_rows, validation_rows, seed)
        heads |= dict(zip(members, bank.train(on_epochs), strict=True))
    return [heads[index] for index in range(len(specs))]


def batch_order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which the mini-batches of an epoch, from 0, take T training rows: int (T,), a permutation."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def train_together(specs: Sequence[HeadSpec], width: int, labels: int) -> Iterator[list[int]]:
    """Split the specs by batch size, and each part so that it fits into memory; yields indices.

    The last bits of a head depend on those of its part alone.
    """
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


def _roomy(rows: int) -> int:
    """Round a number of rows up by a sixteenth at most, so that folds of nearly one size share what is compiled."""
    grain = 1 << max(0, rows.bit_length() - 5)
    return -(-rows // grain) * grain


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    """Lengthen an array by zeros along its first axis."""
    return np.concatenate([values, np.zeros((size - len(values), *values.shape[1:]), values.dtype)])


def _curves(losses: list[tuple[float, float]], aucs: list[tuple[float, float]]) -> list[np.ndarray]:
    """The arrays of `Curves`, in their order; a stopped head has more AUCs than losses, which are left out."""
    loss, validation_loss = np.array(losses, np.float32).T
    auc, validation_auc = np.array(aucs[: len(losses)], np.float32).T
    return [loss, auc, validation_loss, validation_auc]


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
        self._tf = import_tensorflow()
        assert specs[0].batch_size is not None  # see `HeadSpec.for_rows`
        self._specs, self._seed, self._batch_size = specs, seed, specs[0].batch_size
        self._X = self._tf.constant(X, self._tf.float32)
        self._train_rows, self._y = train_rows, y[train_rows]
        self._validation_y = y[validation_rows]
        self._validation = self._tf.gather(self._X, _padded(validation_rows, _roomy(len(validation_rows))))
        width = X.shape[1]
        self._moving = (self._tf.zeros((width,)), self._tf.ones((width,)))
        self._stacks = make_stacks(specs, self._y, width)
        self._active = np.ones(len(specs), dtype=bool)
        self._best_epoch = np.zeros(len(specs), dtype=int)
        self._best_loss = np.full(len(specs), np.inf)
        self._best_weights: dict[int, list[np.ndarray]] = {}
        self._seconds = np.zeros(len(specs))
        self._losses: list[list[tuple[float, float]]] = [[] for _ in specs]
        self._aucs: list[list[tuple[float, float]]] = [[] for _ in specs]

    def train(self, on_epochs: Callable[[int], None]) -> list[TrainedHead]:
        """Train epoch by epoch until every head has stopped."""
        # Nothing waits for the AUC but the curves: it is computed beside the next epoch, whose graph leaves gaps.
        with ThreadPoolExecutor(max_workers=1) as beside:
            epoch = 0
            scoring: Future[None] | None = None
            while self._active.any():
                started = time.perf_counter()
                trained = self._active.copy()
                results = self._run(epoch)
                if scoring:
                    scoring.result()  # so that at most one epoch's logits wait
                members = [list(stack.members) for stack in self._stacks]
                scoring = beside.submit(self._score, members, results, self._truth)
                for stack, result in zip(self._stacks, results, strict=True):
                    self._record(stack, result, epoch)
                self._seconds[trained] += (time.perf_counter() - started) / trained.sum()
                stopped = np.flatnonzero(trained & ~self._active)
                epoch += 1
                on_epochs(int(trained.sum()) + sum(self._specs[index].epochs - epoch for index in stopped))
                self._compact(epoch)
            if scoring:
                scoring.result()
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

    def _run(self, epoch: int) -> list[dict[str, np.ndarray]]:
        """Train every stack for one epoch."""
        tf = self._tf
        order = batch_order(len(self._train_rows), self._seed, epoch)
        self._truth = self._y[order]
        steps, capacity = (-(-rows // self._batch_size) for rows in (len(order), _roomy(len(order))))
        kinds = [stack.kind for stack in self._stacks]
        inputs = EpochInputs(
            tf.gather(self._X, _padded(self._train_rows[order], capacity * self._batch_size)),
            tf.constant(_padded(self._truth, capacity * self._batch_size).T, tf.float32),
            tf.constant(len(order)),
            self._validation,
            tf.constant(_padded(self._validation_y, self._validation.shape[0]).T, tf.float32),
            tf.constant(len(self._validation_y)),
            draw_uniforms(kinds, self._batch_size, capacity, self._X.shape[1], self._seed, epoch),
            tf.constant(float(epoch * steps)),
        )
        moving, results = self._moving, []
        for stacks in trained_together(self._stacks):
            run = compile_epoch(tuple(stack.kind for stack in stacks), self._batch_size)
            # The statistics are of the features alone: of every group they begin and end as the same.
            self._moving, states, some = run(
                inputs,
                moving,
                [stack.state for stack in stacks],
                [stack.hyper(self._active) for stack in stacks],
            )
            for stack, state in zip(stacks, states, strict=True):
                stack.state = state
            results += some
        return [{name: value.numpy() for name, value in result.items()} for result in results]

    def _record(self, stack: Stack, result: dict[str, np.ndarray], epoch: int) -> None:
        """Add an epoch's losses to the curves of a stack's heads, and stop those that are done."""
        for place, index in enumerate(stack.members):
            if not self._active[index]:
                continue
            loss, validation_loss = float(result["loss"][place]), float(result["validation_loss"][place])
            self._losses[index].append((loss, validation_loss))
            if validation_loss < self._best_loss[index]:
                self._best_loss[index], self._best_epoch[index] = validation_loss, epoch + 1
            spec = self._specs[index]
            waited = epoch + 1 - self._best_epoch[index]
            self._active[index] = (
                epoch + 1 < spec.epochs and waited < spec.patience_epochs and np.isfinite(validation_loss)
            )

    def _score(self, members: list[list[int]], results: list[dict[str, np.ndarray]], truth: np.ndarray) -> None:
        """Add an epoch's AUC to the curves of every head, also of those that have stopped but are still in the work."""
        for indices, result in zip(members, results, strict=True):
            _, heads, labels, _ = result["logits"].shape
            logits = result["logits"].transpose(1, 2, 0, 3).reshape(heads, labels, -1)
            auc = mean_auc(logits.T[: len(truth)], truth)
            validation_auc = mean_auc(result["validation_logits"].T[: len(self._validation_y)], self._validation_y)
            for index, *values in zip(indices, auc, validation_auc, strict=True):
                self._aucs[index].append((float(values[0]), float(values[1])))

    def _compact(self, epoch: int) -> None:
        """Take the best weights of stopped heads, and the heads out of the work where that is worth compiling again."""
        width, labels = self._X.shape[1], self._y.shape[1]
        saved, left, alive = 0.0, 0, self._active.sum()
        for index in (index for stack in self._stacks for index in stack.members):
            if self._active[index]:
                left = max(left, self._specs[index].epochs - epoch)
            else:
                saved += 4.0 * self._specs[index].count_parameters(width, labels) * len(self._train_rows)
        working = sum(len(stack.members) for stack in self._stacks)
        if alive and not (alive <= working / 2 and saved * left > _WORTH_COMPILING):
            return
        for stack in self._stacks:
            staying = [place for place, index in enumerate(stack.members) if self._active[index]]
            going = [place for place, index in enumerate(stack.members) if not self._active[index]]
            self._best_weights |= stack.best_weights(going)
            if staying and going:
                stack.keep(staying)
            elif going:
                stack.members = []
        self._stacks = [stack for stack in self._stacks if stack.members]
