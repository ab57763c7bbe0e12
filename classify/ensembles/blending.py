"""Make predictions of other models' predictions: cross-fitted ensembles and calibrated models."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.crossfit.folds import Folds
from classify.crossfit.prediction import Prediction
from classify.ensembles.calibration import CALIBRATIONS
from classify.ensembles.crossfit import SecondLevel, cross_fit_second_level
from classify.ensembles.ensembles import ENSEMBLES


def combine(
    ensembles: Sequence[str],
    members: Mapping[str, Prediction],
    labels: np.ndarray,
    folds: Folds,
    jobs: int,
    on_fit: Callable[[], None],
) -> tuple[dict[str, Prediction], dict[str, SecondLevel]]:
    """Cross-fit ensembles of all members.

    Args:
        ensembles: names of `ENSEMBLES`.
        members: the models by name, of any kind; all with test probabilities or none.
        labels: uint8 array (N, L), 0 or 1.
        folds: those that the members' out-of-fold probabilities come from.
        jobs: how many ensembles are fitted at a time. It does not change any probability.
        on_fit: called once per ensemble, from any thread.

    Returns:
        The predictions, in the order asked for, and the ensembles fitted on all rows, which predicted test. The
        backbones are those of the members that have a share.
    """
    if not ensembles:
        return {}, {}
    out_of_fold = np.stack([p.out_of_fold for p in members.values()], axis=2)
    of_test = [p.test for p in members.values() if p.test is not None]
    test = np.stack(of_test, axis=2) if of_test else None

    def fit(name: str) -> tuple[Prediction, SecondLevel]:
        started = time.perf_counter()
        crossed, of_test, fitted = cross_fit_second_level(ENSEMBLES[name], out_of_fold, labels, folds, test)
        # A stacking has coefficients per label, which are no shares; every member counts there.
        shares = dict(zip(members, getattr(fitted, "weights_", np.ones(0)).tolist(), strict=False))
        shares = {member: share for member, share in shares.items() if share > 0}
        backbones = {b: None for member in shares or members for b in members[member].backbones}
        on_fit()
        seconds = time.perf_counter() - started
        return Prediction(crossed, of_test, True, seconds, tuple(backbones), shares), fitted

    with threadpool_limits(1, user_api="blas"):  # so that `jobs` changes no bit, as in `cross_fit`
        fitted = Parallel(n_jobs=jobs, backend="threading")(delayed(fit)(name) for name in ensembles)
    predictions, models = zip(*fitted, strict=True)
    return dict(zip(ensembles, predictions, strict=True)), dict(zip(ensembles, models, strict=True))


def calibrate(
    calibration: str, prediction: Prediction, labels: np.ndarray, folds: Folds
) -> tuple[Prediction, SecondLevel]:
    """Calibrate a model per label, cross-fitted.

    Args:
        calibration: a name of `CALIBRATIONS`.
        prediction: of any model.
        labels: uint8 array (N, L), 0 or 1.
        folds: those that its out-of-fold probabilities come from.

    Returns:
        The calibrated model, and the calibration fitted on all rows, which predicted test.
    """
    started = time.perf_counter()
    crossed, test, fitted = cross_fit_second_level(
        CALIBRATIONS[calibration], prediction.out_of_fold, labels, folds, prediction.test
    )
    seconds = time.perf_counter() - started
    calibrated = Prediction(crossed, test, prediction.converged, seconds, prediction.backbones, prediction.shares)
    return calibrated, fitted
