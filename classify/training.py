"""Cross-fit models: every probability of a training image comes from a model that never saw its fold."""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.ensemble import mean_ensemble
from classify.folds import Folds
from classify.inputs import Inputs


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
class Prediction:
    """The probabilities that a model gives.

    Attributes:
        out_of_fold: float32 array (N, L), 0-1: each training row, by the model of the fold that held it out.
        test: float32 array (M, L), 0-1: the mean over the models of all folds; None without test rows.
        converged: whether the solver of every fold and label reached its tolerance; True where there is no solver.
        seconds: the time that fitting and predicting took, summed over the folds; of an ensemble, without its members'.
        backbones: those whose features it sees, directly or through its members.
        shares: of an ensemble that is a weighted mean, the share of each member that has one; empty otherwise.
    """

    out_of_fold: np.ndarray
    test: np.ndarray | None
    converged: bool = True
    seconds: float = 0.0
    backbones: tuple[str, ...] = ()
    shares: dict[str, float] = field(default_factory=dict)


def feature_sets(columns: Mapping[str, slice]) -> dict[str, slice]:
    """List what a kind of model is fitted on: each backbone alone and, of several, all of them side by side.

    Args:
        columns: which columns of the features are each backbone's, in order.

    Returns:
        Columns by the backbone's name, or `all`.
    """
    # Of one backbone, all would be the same model twice.
    return {**columns, "all": slice(None)} if len(columns) > 1 else dict(columns)


def cross_fit(
    candidates: Mapping[str, Candidate],
    inputs: Inputs,
    folds: Folds,
    jobs: int,
    on_fit: Callable[[], None],
) -> dict[str, Prediction]:
    """Fit every candidate once per fold.

    Args:
        candidates: the models by name.
        inputs: N training rows that have features, M test rows or none.
        folds: of the N training rows.
        jobs: how many fits run at a time. It does not change any probability.
        on_fit: called after each of the len(candidates) * folds.count fits, from any thread.

    Returns:
        The predictions, in the order of the candidates.
    """
    features, labels = inputs.train.features, inputs.train_labels
    test_features = None if inputs.test is None else inputs.test.features

    def fit_fold(candidate: Candidate, learnt: np.ndarray, held_out: np.ndarray) -> Prediction:
        started = time.perf_counter()
        seen = features[:, candidate.columns]
        model = clone(candidate.estimator).fit(seen[learnt], labels[learnt])
        test = None if test_features is None else model.predict_proba(test_features[:, candidate.columns])
        out_of_fold = model.predict_proba(seen[held_out])
        on_fit()
        return Prediction(out_of_fold, test, model.converged_, time.perf_counter() - started)

    splits = list(folds.split())
    # Threads share the features without a copy, and the solver's work is BLAS, which releases the interpreter's lock.
    # One BLAS thread per fit: how a product is cut between threads changes its last bits, and so would `jobs`.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by `converged`
        fitted = Parallel(n_jobs=jobs, backend="threading")(
            delayed(fit_fold)(candidate, learnt, held_out)
            for candidate in candidates.values()
            for learnt, held_out in splits
        )

    predictions = {}
    for index, name in enumerate(candidates):
        of_folds = fitted[index * folds.count : (index + 1) * folds.count]
        out_of_fold = np.empty(labels.shape, dtype=np.float32)
        for (_, held_out), prediction in zip(splits, of_folds, strict=True):
            out_of_fold[held_out] = prediction.out_of_fold
        predictions[name] = Prediction(
            out_of_fold,
            None if test_features is None else mean_ensemble([p.test for p in of_folds if p.test is not None]),
            all(p.converged for p in of_folds),
            sum(p.seconds for p in of_folds),
            backbones_within(candidates[name].columns, inputs),
        )
    return predictions


def backbones_within(columns: slice, inputs: Inputs) -> tuple[str, ...]:
    """List the backbones whose columns of the features lie in a slice."""
    start, stop, _ = columns.indices(inputs.train.features.shape[1])
    return tuple(name for name, own in inputs.columns.items() if start <= own.start and own.stop <= stop)
