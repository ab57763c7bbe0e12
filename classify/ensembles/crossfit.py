"""Cross-fit what learns from other models' probabilities: ensembles and calibrations."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from sklearn.base import BaseEstimator, clone

from classify.crossfit.plan import Folds, Prediction, in_threads
from classify.ensembles.ensembles import CALIBRATIONS, ENSEMBLES
from features.common.arrays import Labels, Probabilities


def cross_fit_second_level(
    estimator: BaseEstimator, out_of_fold: np.ndarray, labels: Labels, folds: Folds, test: np.ndarray | None
) -> tuple[Probabilities, Probabilities | None, BaseEstimator]:
    """Fit on the rows of all folds but one, predict that one, in turn; then fit on all rows and predict test.

    So a row's own label never reaches its own second-level probability, and the score of the result is not in-sample.

    Args:
        estimator: one of `estimators.py`, not fitted.
        out_of_fold: `Probabilities` of one model or `MemberProbabilities` of several, which never saw the row's fold.
        labels: of the training rows.
        folds: those that `out_of_fold` comes from.
        test: the test rows by the same models; None without test rows.

    Returns:
        The cross-fitted probabilities; those of test, or None; the estimator fitted on all rows.
    """
    crossed = np.empty(labels.shape, dtype=np.float32)
    for learnt, held_out in folds.split():
        model = clone(estimator).fit(out_of_fold[learnt], labels[learnt])
        crossed[held_out] = model.predict_proba(out_of_fold[held_out])
    fitted = clone(estimator).fit(out_of_fold, labels)
    return crossed, None if test is None else fitted.predict_proba(test), fitted


def combine(
    ensembles: Sequence[str],
    members: Mapping[str, Prediction],
    labels: Labels,
    folds: Folds,
    jobs: int,
    on_fit: Callable[[], None],
) -> tuple[dict[str, Prediction], dict[str, BaseEstimator]]:
    """Cross-fit ensembles of all members, by the folds of their out-of-fold probabilities, `jobs` at a time.

    Args:
        ensembles: names of `ENSEMBLES`.
        members: the models by name, of any kind; all with test probabilities or none.
        labels: of the training rows.
        folds: as above.
        jobs: changes no probability.
        on_fit: called once per ensemble, from any thread.

    Returns:
        The predictions, whose backbones are those of the members with a share, and the ensembles fitted on all rows.
    """
    if not ensembles:
        return {}, {}
    out_of_fold = np.stack([p.out_of_fold for p in members.values()], axis=2)
    of_test = [p.test for p in members.values() if p.test is not None]
    test = np.stack(of_test, axis=2) if of_test else None

    def fit(name: str) -> tuple[Prediction, BaseEstimator]:
        started = time.perf_counter()
        crossed, of_test, fitted = cross_fit_second_level(ENSEMBLES[name].make(), out_of_fold, labels, folds, test)
        # A stacking has coefficients per label, which are not shares; every member counts there.
        shares = dict(zip(members, getattr(fitted, "weights_", np.ones(0)).tolist(), strict=False))
        shares = {member: share for member, share in shares.items() if share > 0}
        backbones = {b: None for member in shares or members for b in members[member].backbones}
        on_fit()
        seconds = time.perf_counter() - started
        return Prediction(crossed, of_test, True, seconds, tuple(backbones), shares), fitted

    predictions, models = zip(*in_threads(jobs, fit, zip(ensembles)), strict=True)
    return dict(zip(ensembles, predictions, strict=True)), dict(zip(ensembles, models, strict=True))


def calibrate(
    calibration: str, prediction: Prediction, labels: Labels, folds: Folds
) -> tuple[Prediction, BaseEstimator]:
    """Calibrate a model per label, cross-fitted by its folds; gives the calibration fitted on all rows, too."""
    started = time.perf_counter()
    crossed, test, fitted = cross_fit_second_level(
        CALIBRATIONS[calibration].make(), prediction.out_of_fold, labels, folds, prediction.test
    )
    seconds = time.perf_counter() - started
    return replace(prediction, out_of_fold=crossed, test=test, seconds=seconds), fitted
