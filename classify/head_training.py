"""Cross-fit heads: per fold, all that see the same features are trained in one bank."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify import bank
from classify.ensemble import mean_ensemble
from classify.folds import Folds, make_folds
from classify.heads import HeadSpec
from classify.inputs import Inputs
from classify.trained_head import TrainedHead
from classify.training import Prediction, backbones_within, feature_sets

#: One of so many parts of a fold's training rows decides when its heads stop.
VALIDATION_PARTS = 5


@dataclass(frozen=True)
class CrossFittedHeads:
    """Heads, and what they predict.

    Attributes:
        predictions: by model, such as `challenge/resnet50`.
        heads: by model, the trained head of each fold.
        warnings: what a reader of the scores has to know; sentences.
    """

    predictions: dict[str, Prediction]
    heads: dict[str, tuple[TrainedHead, ...]]
    warnings: tuple[str, ...]


class FoldRows(NamedTuple):
    """What a fold's rows are for: int64 arrays, ascending.

    Attributes:
        train: to learn from.
        validation: to decide when a head stops.
        held_out: to score.
    """

    train: np.ndarray
    validation: np.ndarray
    held_out: np.ndarray


def list_heads(columns: Mapping[str, slice], specs: Mapping[str, HeadSpec]) -> list[str]:
    """List the models that `cross_fit_heads` makes: per spec one for each backbone and, of several, one on all.

    Args:
        columns: which columns of the features are each backbone's, in order.
        specs: the heads by name.
    """
    return [f"{spec}/{seen}" for spec in specs for seen in feature_sets(columns)]


def cross_fit_heads(
    specs: Mapping[str, HeadSpec], inputs: Inputs, folds: Folds, seed: int, on_fit: Callable[[], None]
) -> CrossFittedHeads:
    """Train every head once per fold, on each backbone and on all.

    The rows that decide when a head stops are taken from the fold's training rows, so that no head knows anything of
    the rows that it is scored on.

    Args:
        specs: the heads by name.
        inputs: N training rows that have features, M test rows or none.
        folds: of the N training rows.
        seed: of the validation rows, the mini-batches and the dropout masks, 0 to 2**32 - 1.
        on_fit: called once for each of the len(list_heads) * folds.count heads.

    Returns:
        The models in the order of `list_heads`.
    """
    if not specs:
        return CrossFittedHeads({}, {}, ())
    rows, warnings = _part_rows(inputs, folds, seed)
    predictions: dict[str, Prediction] = {}
    heads: dict[str, tuple[TrainedHead, ...]] = {}
    for name, columns in feature_sets(inputs.columns).items():
        of_folds = [_fit_fold(specs, inputs, columns, of_fold, seed, on_fit) for of_fold in rows]
        for index, spec in enumerate(specs):
            fitted = [of_fold[index] for of_fold in of_folds]
            out_of_fold = np.empty(inputs.train_labels.shape, dtype=np.float32)
            for (_, _, held_out), (_, prediction) in zip(rows, fitted, strict=True):
                out_of_fold[held_out] = prediction.out_of_fold
            of_test = [prediction.test for _, prediction in fitted if prediction.test is not None]
            heads[f"{spec}/{name}"] = tuple(head for head, _ in fitted)
            predictions[f"{spec}/{name}"] = Prediction(
                out_of_fold,
                mean_ensemble(of_test) if of_test else None,
                all(head.best_epoch > 0 for head, _ in fitted),
                sum(prediction.seconds for _, prediction in fitted),
                backbones_within(columns, inputs),
            )
    order = list_heads(inputs.columns, specs)
    for name in order:
        diverged = sum(head.best_epoch == 0 for head in heads[name])
        if diverged:
            warnings.append(
                f"{name}: its head diverged in {diverged} of {folds.count} folds and has its initial weights there; "
                "lower its learning rate, or leave it out of --preset"
            )
    return CrossFittedHeads(
        {name: predictions[name] for name in order}, {name: heads[name] for name in order}, tuple(warnings)
    )


def choose_validation(learnt: np.ndarray, inputs: Inputs, seed: int) -> np.ndarray | None:
    """Choose the rows of a fold that decide when its heads stop: whole groups, with like shares of every label.

    Args:
        learnt: int64 array (T,), ascending: the fold's training rows.
        inputs: what they are rows of.
        seed: of the choice, 0 to 2**32 - 1.

    Returns:
        int64 array, ascending: one part in `VALIDATION_PARTS`, or in as many as there are groups. None if there is one
        group only, or if no label has both values.
    """
    labels, groups = inputs.train_labels[learnt], inputs.train.groups
    of_learnt = None if groups is None else groups[learnt]
    units = len(learnt) if of_learnt is None else len(np.unique(of_learnt))
    varied = np.ptp(labels, axis=0) > 0  # a rare label may have one value here, and nothing to stratify
    if units < 2 or not varied.any():
        return None
    names = tuple(name for name, varies in zip(inputs.label_names, varied, strict=True) if varies)
    parts = make_folds(labels[:, varied], of_learnt, names, min(VALIDATION_PARTS, units), seed)
    return learnt[parts.fold_of_row == 0]


def _part_rows(inputs: Inputs, folds: Folds, seed: int) -> tuple[list[FoldRows], list[str]]:
    """Part the training rows of every fold; arguments as for `cross_fit_heads`.

    Returns:
        The rows by fold, and a warning for each fold that has none to validate with.
    """
    rows, warnings = [], []
    for fold, (learnt, held_out) in enumerate(folds.split()):
        validation = choose_validation(learnt, inputs, seed)
        if validation is None:
            warnings.append(
                f"heads of fold {fold}: none of its training rows can be set apart to decide when a head stops, so the "
                "rows that the heads learnt from decided"
            )
            rows.append(FoldRows(learnt, learnt, held_out))
        else:
            rows.append(FoldRows(np.setdiff1d(learnt, validation), validation, held_out))
    return rows, warnings


def _fit_fold(
    specs: Mapping[str, HeadSpec],
    inputs: Inputs,
    columns: slice,
    rows: FoldRows,
    seed: int,
    on_fit: Callable[[], None],
) -> list[tuple[TrainedHead, Prediction]]:
    """Train a bank on a fold, and let each head predict the rows held out and the test rows."""
    features = inputs.train.features[:, columns]
    with silent_bank():
        heads = bank.train_bank(list(specs.values()), features, inputs.train_labels, rows.train, rows.validation, seed)
    fitted = []
    with threadpool_limits(1, user_api="blas"):  # as for every other model: threads change the last bits
        for head in heads:
            started = time.perf_counter()
            out_of_fold = head.predict_proba(features[rows.held_out])
            test = None if inputs.test is None else head.predict_proba(inputs.test.features[:, columns])
            seconds = head.seconds + time.perf_counter() - started
            fitted.append((head, Prediction(out_of_fold, test, seconds=seconds)))
            on_fit()
    return fitted


@contextmanager
def silent_bank() -> Iterator[None]:
    """Keep the bank from logging which heads diverged: the warnings of the run say so, by name."""
    bank.logger.disabled = True
    try:
        yield
    finally:
        bank.logger.disabled = False
