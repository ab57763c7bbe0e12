"""Make predictions of other models' predictions: cross-fitted ensembles and calibrated models."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.calibration import CALIBRATIONS
from classify.ensemble import ENSEMBLES
from classify.folds import Folds
from classify.second_level import cross_fit_second_level
from classify.training import Prediction


def combine(
    ensembles: Sequence[str],
    members: Mapping[str, Prediction],
    labels: np.ndarray,
    folds: Folds,
    jobs: int,
    on_fit: Callable[[], None],
) -> dict[str, Prediction]:
    """Cross-fit ensembles of all members.

    Args:
        ensembles: names of `ENSEMBLES`.
        members: the models by name, of any kind; all with test probabilities or none.
        labels: uint8 array (N, L), 0 or 1.
        folds: those that the members' out-of-fold probabilities come from.
        jobs: how many ensembles are fitted at a time. It does not change any probability.
        on_fit: called once per ensemble, from any thread.

    Returns:
        The predictions, in the order asked for. The backbones are those of the members that have a share.
    """
    if not ensembles:
        return {}
    out_of_fold = np.stack([p.out_of_fold for p in members.values()], axis=2)
    of_test = [p.test for p in members.values() if p.test is not None]
    test = np.stack(of_test, axis=2) if of_test else None

    def fit(name: str) -> Prediction:
        started = time.perf_counter()
        crossed, of_test, fitted = cross_fit_second_level(ENSEMBLES[name], out_of_fold, labels, folds, test)
        # A stacking has coefficients per label, which are no shares; every member counts there.
        shares = dict(zip(members, getattr(fitted, "weights_", np.ones(0)).tolist(), strict=False))
        shares = {member: share for member, share in shares.items() if share > 0}
        backbones = {b: None for member in shares or members for b in members[member].backbones}
        on_fit()
        return Prediction(crossed, of_test, True, time.perf_counter() - started, tuple(backbones), shares)

    with threadpool_limits(1, user_api="blas"):  # so that `jobs` changes no bit, as in `cross_fit`
        fitted = Parallel(n_jobs=jobs, backend="threading")(delayed(fit)(name) for name in ensembles)
    return dict(zip(ensembles, fitted, strict=True))


def calibrate(calibration: str, prediction: Prediction, labels: np.ndarray, folds: Folds) -> Prediction:
    """Calibrate a model per label, cross-fitted.

    Args:
        calibration: a name of `CALIBRATIONS`.
        prediction: of any model.
        labels: uint8 array (N, L), 0 or 1.
        folds: those that its out-of-fold probabilities come from.
    """
    started = time.perf_counter()
    crossed, test, _ = cross_fit_second_level(
        CALIBRATIONS[calibration], prediction.out_of_fold, labels, folds, prediction.test
    )
    seconds = time.perf_counter() - started
    return Prediction(crossed, test, prediction.converged, seconds, prediction.backbones, prediction.shares)
