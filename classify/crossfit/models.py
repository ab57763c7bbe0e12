"""Cross-fit the models of a run: baselines fit by fit, heads in banks, one for each fit and set of features."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.bank import train as bank
from classify.crossfit.memory import jobs_in_memory
from classify.crossfit.plan import REFIT, Fit, FitPlan, FitRows, Prediction, in_threads, make_folds
from classify.crossfit.store import KEEP_NONE, FitKeys, FitStore
from classify.inputs import Inputs, feature_sets, list_fitted
from classify.models.files import SavedEstimator
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
    models: dict[str, tuple[SavedEstimator | TrainedHead, ...]]
    warnings: tuple[str, ...]


def list_baseline_keys(
    candidates: Mapping[str, Candidate], inputs: Inputs, plan: FitPlan, keys: FitKeys
) -> dict[str, list[str]]:
    """What the fits of baselines are found by, by name, in the order of the plan."""

    def key(candidate: Candidate, rows: FitRows) -> str:
        what = (type(candidate.estimator), candidate.estimator.get_params(), *rows)
        return keys.make(backbones_within(candidate.columns, inputs), *what)

    return {name: [key(candidate, rows) for rows in plan.fits()] for name, candidate in candidates.items()}


def cross_fit(
    candidates: Mapping[str, Candidate],
    inputs: Inputs,
    plan: FitPlan,
    jobs: int,
    on_fit: Callable[[], None],
    store: FitStore = KEEP_NONE,
    keys: FitKeys | None = None,
) -> CrossFitted:
    """Fit every candidate once for each fit of the plan; gives them in their order.

    Args:
        candidates: the models by name.
        inputs: what to learn from and predict.
        plan: the fits.
        jobs: how many fits run at a time, as far as the memory has room. It does not change any probability.
        on_fit: called after each of the len(candidates) * len(plan.fits()) fits, from any thread.
        store: finished fits; new ones are added.
        keys: of the inputs; without them nothing is found or kept.
    """

    def fit(candidate: Candidate, rows: FitRows) -> Fit:
        started = time.perf_counter()
        seen = inputs.train.features[:, candidate.columns]
        groups = None if inputs.train.groups is None else inputs.train.groups[rows.learnt]
        model = clone(candidate.estimator).fit(seen[rows.learnt], inputs.train_labels[rows.learnt], groups)
        predicted = _predict(model, inputs, candidate.columns, rows.held_out, rows.predicts_test)
        return Fit(SavedEstimator(model), *predicted, model.converged_, time.perf_counter() - started)

    def recall(candidate: Candidate, rows: FitRows, key: str | None) -> Fit:
        found = store.find(key) if key else None
        if found is None:
            found = fit(candidate, rows)
            if key:
                store.keep(key, found)
        on_fit()
        return found

    of_candidates = list_baseline_keys(candidates, inputs, plan, keys) if keys else {}
    calls = [
        (candidate, rows, key)
        for name, candidate in candidates.items()
        for rows, key in zip(plan.fits(), of_candidates.get(name, [None] * len(plan.fits())), strict=True)
    ]
    fits = plan.fits()
    rows = max(len(fit.learnt) for fit in fits)
    sizes = [(one.estimator, rows * inputs.train.features[:, one.columns].shape[1]) for one in candidates.values()]
    jobs = jobs_in_memory(min(jobs, len(sizes) * len(fits) or 1), sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` says it
        fitted = in_threads(jobs, recall, calls)
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


class _HeadFits(NamedTuple):
    """The fits of heads: the rows of each fit of the plan, and what a reader has to know of them."""

    rows: list[FoldRows]
    warnings: list[str]


def _plan_heads(inputs: Inputs, plan: FitPlan, seed: int) -> _HeadFits:
    """Split the rows of each fold into those to learn from and those that decide when its heads stop."""
    of_fits: list[FoldRows] = []
    warnings = []
    for fit in plan.fits():
        rows = None if fit.name == REFIT else split_rows(fit.learnt, fit.held_out, inputs, seed)
        if rows is None and fit.name != REFIT:
            warnings.append(
                f"heads of {fit.name}: none of its training rows can be set aside to decide when a head stops, so the "
                "rows that the heads learnt from decided"
            )
        elif rows is not None and rows.lacking:
            warnings.append(
                f"heads of {fit.name}: the rows that decide when a head stops, or those that it learns from, have one "
                f"value alone of {', '.join(rows.lacking)}"
            )
        of_fits.append(rows or FoldRows(fit.learnt, fit.learnt, fit.held_out))
    return _HeadFits(of_fits, warnings)


def list_head_keys(
    specs: Mapping[str, HeadSpec], inputs: Inputs, plan: FitPlan, seed: int, keys: FitKeys
) -> dict[str, list[str]]:
    """What the fits of heads on folds are found by, by name; those on all rows are known once the folds are."""
    found: dict[str, list[str]] = {name: [] for name in list_fitted(specs, inputs.columns)}
    if not specs:
        return found
    fits = _plan_heads(inputs, plan, seed).rows
    for seen, columns in feature_sets(inputs.columns).items():
        for fit, rows in zip(plan.fits(), fits, strict=True):
            if fit.name != REFIT:
                own = _keys_of(list(specs.values()), inputs, columns, rows, seed, fit.predicts_test, keys)
                for spec, key in zip(specs, own, strict=True):
                    found[f"{spec}/{seen}"].append(key)
    return found


def _keys_of(
    specs: Sequence[HeadSpec],
    inputs: Inputs,
    columns: slice,
    rows: FoldRows,
    seed: int,
    predicts_test: bool,
    keys: FitKeys,
) -> list[str]:
    """What heads on the same rows are found by: each by all that are trained together with it, as its bits are."""
    found = [""] * len(specs)
    for part in bank.train_together(specs, columns.stop - columns.start, len(inputs.label_names)):
        together = [specs[member] for member in part]
        for place, member in enumerate(part):
            what = (place, together, seed, rows.train, rows.validation, rows.held_out, predicts_test)
            found[member] = keys.make(backbones_within(columns, inputs), *what)
    return found


def cross_fit_heads(
    specs: Mapping[str, HeadSpec],
    inputs: Inputs,
    plan: FitPlan,
    seed: int,
    on_fit: Callable[[], None],
    store: FitStore = KEEP_NONE,
    keys: FitKeys | None = None,
) -> CrossFitted:
    """Train every head once for each fit of the plan, on each backbone and on all; in the order of `list_fitted`.

    The rows that decide when a head stops are taken from the fold's training rows, so that no head knows anything of
    the rows that it is scored on. The head that is refitted on all rows has none to spare: it trains for the median of
    its folds' best epochs, rounded down, and keeps the epoch of the lowest loss on these rows, mostly the last.

    Arguments are as those of `cross_fit`; the seed is of the validation rows, the mini-batches and the dropout masks.
    """
    if not specs:
        return CrossFitted({}, {}, ())
    fits, planned = plan.fits(), _plan_heads(inputs, plan, seed)
    warnings = planned.warnings
    predictions: dict[str, Prediction] = {}
    heads: dict[str, tuple[TrainedHead, ...]] = {}
    for name, columns in feature_sets(inputs.columns).items():
        of_fits: list[list[Fit]] = []
        for fit, rows in zip(fits, planned.rows, strict=True):
            asked = list(specs.values())
            if fit.name == REFIT:
                asked = [_fixed_epochs(spec, [of_fit[i] for of_fit in of_fits]) for i, spec in enumerate(asked)]
            own = _keys_of(asked, inputs, columns, rows, seed, fit.predicts_test, keys) if keys else None
            of_fits.append(_recall_heads(asked, inputs, columns, rows, seed, fit.predicts_test, store, own))
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


def _recall_heads(
    specs: list[HeadSpec],
    inputs: Inputs,
    columns: slice,
    rows: FoldRows,
    seed: int,
    predicts_test: bool,
    store: FitStore,
    keys: Sequence[str] | None,
) -> list[Fit]:
    """Give the heads of one fit: those that are kept, and those that are trained now, with all of their parts."""
    found: list[Fit | None] = [store.find(key) for key in keys] if keys else [None] * len(specs)
    for part in bank.train_together(specs, columns.stop - columns.start, len(inputs.label_names)):
        if all(found[member] for member in part):
            continue
        made = _train([specs[member] for member in part], inputs, columns, rows, seed, predicts_test)
        for member, fit in zip(part, made, strict=True):
            if keys and found[member] is None:
                store.keep(keys[member], fit)
            found[member] = fit
    return [fit for fit in found if fit is not None]


def _train(
    specs: list[HeadSpec], inputs: Inputs, columns: slice, rows: FoldRows, seed: int, predicts_test: bool
) -> list[Fit]:
    """Train heads together, and let each predict the rows held out and, where asked, the test rows."""
    features = inputs.train.features[:, columns]
    heads = bank.train_bank(specs, features, inputs.train_labels, rows.train, rows.validation, seed)
    fits = []
    with threadpool_limits(1, user_api="blas"):  # as for every other model: threads change the last bits
        for head in heads:
            started = time.perf_counter()
            predicted = _predict(head, inputs, columns, rows.held_out, predicts_test)
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
