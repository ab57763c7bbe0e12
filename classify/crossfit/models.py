"""Cross-fit the models of a run: baselines fit by fit, heads in banks, one for each fit and set of features."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.bank import train as bank
from classify.crossfit.memory import jobs_in_memory
from classify.crossfit.plan import REFIT, Fit, FitPlan, FitRows, Prediction, in_threads, make_folds
from classify.crossfit.resume import KEEP_NONE, FinishedFits
from classify.inputs import Inputs, feature_sets, list_fitted
from classify.models.heads import HeadSpec
from classify.models.trained_head import TrainedHead
from features.common.arrays import Probabilities, RowIndices

#: One of so many parts of a fold's training rows decides when its heads stop.
VALIDATION_PARTS = 5


class Candidate(NamedTuple):
    """A model to cross-fit: an unfitted estimator, which has `converged_` once fitted, and the columns that it sees."""

    estimator: BaseEstimator
    columns: slice


class CrossFitted(NamedTuple):
    """Models by name, such as `logistic/resnet50`: what they predict, and the fitted one of each fit of the plan."""

    predictions: dict[str, Prediction]
    models: dict[str, tuple[BaseEstimator | TrainedHead, ...]]
    warnings: tuple[str, ...]


def cross_fit(
    candidates: Mapping[str, Candidate],
    inputs: Inputs,
    plan: FitPlan,
    jobs: int,
    on_fit: Callable[[], None],
    finished: FinishedFits = KEEP_NONE,
) -> CrossFitted:
    """Fit every candidate once for each fit of the plan; gives them in their order.

    Args:
        candidates: the models by name.
        inputs: what to learn from and predict.
        plan: the fits.
        jobs: how many fits run at a time, as far as the memory has room. It does not change any probability.
        on_fit: called after each of the len(candidates) * len(plan.fits()) fits, from any thread.
        finished: fits of an earlier, interrupted run; new ones are added.
    """

    def fit(candidate: Candidate, rows: FitRows) -> list[Fit]:
        started = time.perf_counter()
        seen = inputs.train.features[:, candidate.columns]
        groups = None if inputs.train.groups is None else inputs.train.groups[rows.learnt]
        model = clone(candidate.estimator).fit(seen[rows.learnt], inputs.train_labels[rows.learnt], groups)
        predicted = _predict(model, inputs, candidate.columns, rows.held_out, rows.predicts_test)
        return [Fit(model, *predicted, model.converged_, time.perf_counter() - started)]

    def recall(candidate: Candidate, rows: FitRows) -> Fit:
        what = (type(candidate.estimator), candidate.estimator.get_params(), candidate.columns, *rows)
        (found,) = finished.recall(what, lambda: fit(candidate, rows))
        on_fit()
        return found

    fits = plan.fits()
    rows = max(len(fit.learnt) for fit in fits)
    sizes = [(one.estimator, rows * inputs.train.features[:, one.columns].shape[1]) for one in candidates.values()]
    jobs = jobs_in_memory(min(jobs, len(sizes) * len(fits)), sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` says it
        fitted = in_threads(jobs, recall, product(candidates.values(), fits))
    of_models = {name: fitted[index * len(fits) : (index + 1) * len(fits)] for index, name in enumerate(candidates)}
    predictions = {
        name: plan.gather(of_model, backbones_within(candidates[name].columns, inputs))
        for name, of_model in of_models.items()
    }
    unfinished = [name for name, prediction in predictions.items() if not prediction.converged]
    return CrossFitted(
        predictions,
        {name: tuple(fit.model for fit in of_model) for name, of_model in of_models.items()},
        tuple(f"{name}: its solver stopped before it converged" for name in unfinished),
    )


def backbones_within(columns: slice, inputs: Inputs) -> tuple[str, ...]:
    """List the backbones whose columns of the features lie in a slice."""
    start, stop, _ = columns.indices(inputs.train.features.shape[1])
    return tuple(name for name, own in inputs.columns.items() if start <= own.start and own.stop <= stop)


class FoldRows(NamedTuple):
    """A fold's rows: to learn from, to decide when a head stops, to score.

    Attributes:
        lacking: labels of which the rows that decide, or those to learn from, have one value alone, though both exist.
    """

    train: RowIndices
    validation: RowIndices
    held_out: RowIndices
    lacking: tuple[str, ...] = ()


def cross_fit_heads(
    specs: Mapping[str, HeadSpec],
    inputs: Inputs,
    plan: FitPlan,
    seed: int,
    on_fit: Callable[[], None],
    finished: FinishedFits = KEEP_NONE,
) -> CrossFitted:
    """Train every head once for each fit of the plan, on each backbone and on all; in the order of `list_fitted`.

    The rows that decide when a head stops are taken from the fold's training rows, so that no head knows anything of
    the rows that it is scored on. The head that is refitted on all rows has none to spare: it trains for the median of
    its folds' best epochs, rounded down, and keeps the epoch of the lowest loss on these rows, mostly the last.

    Arguments are as those of `cross_fit`; the seed is of the validation rows, the mini-batches and the dropout masks.
    """
    if not specs:
        return CrossFitted({}, {}, ())
    fits = plan.fits()
    split = [None if fit.name == REFIT else split_rows(fit.learnt, fit.held_out, inputs, seed) for fit in fits]
    warnings = [
        f"heads of {fit.name}: none of its training rows can be set aside to decide when a head stops, so the rows "
        "that the heads learnt from decided"
        for fit, rows in zip(fits, split, strict=True)
        if rows is None and fit.name != REFIT
    ] + [
        f"heads of {fit.name}: the rows that decide when a head stops, or those that it learns from, have one value "
        f"alone of {', '.join(rows.lacking)}"
        for fit, rows in zip(fits, split, strict=True)
        if rows is not None and rows.lacking
    ]
    predictions: dict[str, Prediction] = {}
    heads: dict[str, tuple[TrainedHead, ...]] = {}
    for name, columns in feature_sets(inputs.columns).items():
        of_fits: list[list[Fit]] = []
        for fit, rows in zip(fits, split, strict=True):
            parts = (rows or FoldRows(fit.learnt, fit.learnt, fit.held_out))[:3]
            asked = list(specs.values())
            if fit.name == REFIT:
                asked = [_fixed_epochs(spec, [of_fit[i] for of_fit in of_fits]) for i, spec in enumerate(asked)]
            train = partial(_train, asked, inputs, columns, parts, seed, fit.predicts_test)
            of_fits.append(finished.recall((asked, columns, seed, *parts, fit.predicts_test), train))
            for _ in specs:
                on_fit()
        for index, spec in enumerate(specs):
            of_head = [of_fit[index] for of_fit in of_fits]
            heads[f"{spec}/{name}"] = tuple(fit.model for fit in of_head if isinstance(fit.model, TrainedHead))
            predictions[f"{spec}/{name}"] = plan.gather(of_head, backbones_within(columns, inputs))
    order = list_fitted(specs, inputs.columns)
    for name in order:
        diverged = sum(head.best_epoch == 0 for head in heads[name])
        if diverged:
            warnings.append(
                f"{name}: its head diverged in {diverged} of {len(fits)} fits and has its initial weights there; "
                "lower its learning rate, or leave it out of --preset"
            )
    return CrossFitted(
        {name: predictions[name] for name in order}, {name: heads[name] for name in order}, tuple(warnings)
    )


def _fixed_epochs(spec: HeadSpec, of_folds: Sequence[Fit]) -> HeadSpec:
    """A spec that trains for the median of the folds' best epochs, at least one, and does not stop before."""
    best = [fit.model.best_epoch for fit in of_folds if isinstance(fit.model, TrainedHead)]
    return replace(spec, epochs=max(1, int(np.median(best))), patience=1.0)


def split_rows(learnt: RowIndices, held_out: RowIndices, inputs: Inputs, seed: int) -> FoldRows | None:
    """Choose the rows of a fold that decide when its heads stop: whole groups, with like shares of every label.

    They are one of `VALIDATION_PARTS` parts, or of as many as there are groups, of the rows that are learnt from: the
    one that with the rest lacks the fewest labels, and of these the nearest to its share, as a large group makes parts
    uneven. None if there is only one group to learn from, or if no label has both values.
    """
    labels, groups = inputs.train_labels[learnt], inputs.train.groups
    of_learnt = None if groups is None else groups[learnt]
    units = len(learnt) if of_learnt is None else len(np.unique(of_learnt))
    varied = np.ptp(labels, axis=0) > 0  # a rare label may have one value here, and nothing to stratify
    if units < 2 or not varied.any():
        return None
    names = tuple(name for name, varies in zip(inputs.label_names, varied, strict=True) if varies)
    parts = make_folds(labels[:, varied], of_learnt, names, min(VALIDATION_PARTS, units), seed)
    varying = labels[:, varied]

    def lacking(part: int) -> tuple[str, ...]:
        own = parts.fold_of_row == part
        constant = [(np.ptp(varying[rows], axis=0) == 0) for rows in (own, ~own)]
        return tuple(name for name, lacks in zip(names, np.any(constant, axis=0), strict=True) if lacks)

    def unevenness(part: int) -> float:
        return abs(float((parts.fold_of_row == part).mean()) - 1 / parts.count)

    best = min(range(parts.count), key=lambda part: (len(lacking(part)), unevenness(part)))
    own = parts.fold_of_row == best
    return FoldRows(learnt[~own], learnt[own], held_out, lacking(best))


def _train(
    specs: list[HeadSpec],
    inputs: Inputs,
    columns: slice,
    rows: tuple[RowIndices, RowIndices, RowIndices],
    seed: int,
    predicts_test: bool,
) -> list[Fit]:
    """Train a bank, and let each head predict the rows held out and, where asked, the test rows."""
    features = inputs.train.features[:, columns]
    learnt, validation, held_out = rows
    heads = bank.train_bank(specs, features, inputs.train_labels, learnt, validation, seed)
    fits = []
    with threadpool_limits(1, user_api="blas"):  # as for every other model: threads change the last bits
        for head in heads:
            started = time.perf_counter()
            predicted = _predict(head, inputs, columns, held_out, predicts_test)
            fits.append(Fit(head, *predicted, head.best_epoch > 0, head.seconds + time.perf_counter() - started))
    return fits


def _predict(
    model: BaseEstimator | TrainedHead, inputs: Inputs, columns: slice, held_out: RowIndices, predicts_test: bool
) -> tuple[Probabilities, Probabilities | None]:
    """Predict the rows held out and, where asked, the test rows."""
    out_of_fold = np.empty((0, len(inputs.label_names)), np.float32)  # no estimator of scikit-learn takes no rows
    if len(held_out):
        out_of_fold = model.predict_proba(inputs.train.features[:, columns][held_out])
    if inputs.test is None or not predicts_test:
        return out_of_fold, None
    return out_of_fold, model.predict_proba(inputs.test.features[:, columns])
