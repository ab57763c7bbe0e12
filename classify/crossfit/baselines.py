"""Cross-fit models: every probability of a training image comes from a model that never saw its fold."""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.crossfit.plan import Fit, FitPlan, FitRows, Prediction
from classify.crossfit.resume import KEEP_NONE, FinishedFits
from classify.inputs import Inputs
from classify.models.trained_head import TrainedHead


@dataclass(frozen=True)
class Candidate:
    """A model to cross-fit.

    Attributes:
        estimator: an unfitted estimator with `fit`, `predict_proba` and, once fitted, `converged_`.
        columns: which columns of the features it sees.
    """

    estimator: BaseEstimator
    columns: slice


@dataclass(frozen=True)
class CrossFitted:
    """Models, and what they predict.

    Attributes:
        predictions: by model, such as `logistic/resnet50`.
        models: by model, the fitted baseline or trained head of each fit of the plan, in its order.
        warnings: what a reader of the scores has to know; sentences.
    """

    predictions: dict[str, Prediction]
    models: dict[str, tuple[BaseEstimator | TrainedHead, ...]]
    warnings: tuple[str, ...]


def feature_sets(columns: Mapping[str, slice]) -> dict[str, slice]:
    """List what a kind of model is fitted on: each backbone's columns and, of several, those of `all` side by side."""
    # Of one backbone, all would be the same model twice.
    width = max(own.stop for own in columns.values())
    return {**columns, "all": slice(0, width)} if len(columns) > 1 else dict(columns)


def cross_fit(
    candidates: Mapping[str, Candidate],
    inputs: Inputs,
    plan: FitPlan,
    jobs: int,
    on_fit: Callable[[], None],
    finished: FinishedFits = KEEP_NONE,
) -> CrossFitted:
    """Fit every candidate once for each fit of the plan.

    Args:
        candidates: the models by name.
        inputs: N training rows that have features, M test rows or none.
        plan: the fits.
        jobs: how many fits run at a time. It does not change any probability.
        on_fit: called after each of the len(candidates) * len(plan.fits()) fits, from any thread.
        finished: fits of an earlier, interrupted run; new ones are added.

    Returns:
        The models, in the order of the candidates.
    """
    features, labels = inputs.train.features, inputs.train_labels

    def fit(candidate: Candidate, rows: FitRows) -> list[Fit]:
        started = time.perf_counter()
        seen = features[:, candidate.columns]
        model = clone(candidate.estimator).fit(seen[rows.learnt], labels[rows.learnt])
        test = None
        if inputs.test is not None and rows.predicts_test:
            test = model.predict_proba(inputs.test.features[:, candidate.columns])
        out_of_fold = np.empty((0, labels.shape[1]), np.float32)
        if len(rows.held_out):
            out_of_fold = model.predict_proba(seen[rows.held_out])
        return [Fit(model, out_of_fold, test, model.converged_, time.perf_counter() - started)]

    def recall(candidate: Candidate, rows: FitRows) -> Fit:
        what = (type(candidate.estimator), candidate.estimator.get_params(), candidate.columns, *rows)
        (found,) = finished.recall(what, lambda: fit(candidate, rows))
        on_fit()
        return found

    fits = plan.fits()
    # Threads share the features without a copy, and the solver's work is BLAS, which releases the interpreter's lock.
    # One BLAS thread per fit: how a product is cut between threads changes its last bits, and so would `jobs`.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` says it
        fitted = Parallel(n_jobs=jobs, backend="threading")(
            delayed(recall)(candidate, rows) for candidate in candidates.values() for rows in fits
        )

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
