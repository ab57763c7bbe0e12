"""Cross-fit ensembles and calibrations, which learn from other models' probabilities."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import has_fit_parameter

from classify.crossfit.plan import Prediction, in_threads, mean_probabilities
from classify.crossfit.store import KEEP_NONE, FitKeys, FitStore, digest_parts, pack_arrays, read_module, unpack_arrays
from classify.ensembles.ensembles import CALIBRATIONS, ENSEMBLES
from classify.models.files import SavedEstimator
from features.common.arrays import Labels, RowIndices
from features.folds.folds import Folds

#: Modules whose code decides what an ensemble gives, beside those that decide fits.
COMBINING = ("ensembles.crossfit", "ensembles.estimators")


class Combined(NamedTuple):
    """What an ensemble predicts, cross-fitted, and the ensemble fitted on all rows."""

    prediction: Prediction
    fitted: SavedEstimator


def cross_fit_second_level(
    estimator: BaseEstimator, by_repeat: np.ndarray, labels: Labels, repeats: Sequence[Folds], test: np.ndarray | None
) -> tuple[Prediction, BaseEstimator]:
    """Fit on the rows of all folds but one, predict that one, in turn; then fit on all rows and predict test.

    So the second level never learns from the label of a row that it predicts. It does learn from probabilities of other
    folds, whose models learnt from that label: as in any stacking on one set of folds, a trace of it is left.

    Args:
        estimator: an ensemble or a calibration, not fitted.
        by_repeat: float32 array (R, N, L) of one model or (R, N, L, K) of several, which never saw the row's fold.
        labels: of the training rows.
        repeats: the folds of each repeat.
        test: the test rows by the models of each fit, float32 (F, M, L) or (F, M, L, K); None without test rows. Each
            fit is predicted by itself: the mean of several models is not on the scale of one (docs/decisions.md).

    Returns:
        The cross-fitted probabilities and those of test; the estimator fitted on all rows, on the mean over repeats.
    """
    started = time.perf_counter()

    def fit(probabilities: np.ndarray, rows: RowIndices, folds: Folds) -> BaseEstimator:
        ranked = {"fold_of_row": folds.fold_of_row[rows]} if has_fit_parameter(estimator, "fold_of_row") else {}
        return clone(estimator).fit(probabilities[rows], labels[rows], **ranked)

    crossed = np.empty((len(repeats), *labels.shape), dtype=np.float32)
    for own, probabilities, folds in zip(crossed, by_repeat, repeats, strict=True):
        for learnt, held_out in folds.split():
            own[held_out] = fit(probabilities, learnt, folds).predict_proba(probabilities[held_out])
    fitted = fit(mean_probabilities(list(by_repeat)), np.arange(len(labels)), repeats[0])
    of_test = None if test is None else np.stack([fitted.predict_proba(of_fit) for of_fit in test])
    return Prediction(crossed, of_test, seconds=time.perf_counter() - started), fitted


def combine(
    ensembles: Sequence[str],
    members: Mapping[str, Prediction],
    labels: Labels,
    repeats: Sequence[Folds],
    jobs: int,
    on_fit: Callable[[], None],
    store: FitStore = KEEP_NONE,
    keys: FitKeys | None = None,
) -> dict[str, Combined]:
    """Cross-fit ensembles of all members, by the folds of the members' probabilities, `jobs` at a time.

    Args:
        ensembles: names of `ENSEMBLES`.
        members: the models by name, of any kind; all with test probabilities or none.
        labels: of the training rows.
        repeats: the folds of the members.
        jobs: changes no probability.
        on_fit: called once per ensemble, from any thread.
        store: ensembles of the same members' probabilities; a new one is added once the bytes of its file are made.
        keys: of the inputs; without them nothing is found or kept.

    Returns:
        By ensemble; the backbones of a prediction are those of the members with a share.
    """
    if not ensembles:
        return {}
    by_repeat = np.stack([p.by_repeat for p in members.values()], axis=3)
    of_test = [p.test_by_fit for p in members.values() if p.test_by_fit is not None]
    test = np.stack(of_test, axis=3) if of_test else None
    seen = [(name, member.backbones) for name, member in members.items()]
    folds_of_row = [folds.fold_of_row for folds in repeats]
    common = keys.make((), *map(read_module, COMBINING), seen, by_repeat, test, *folds_of_row) if keys else None

    def fit(estimator: BaseEstimator, key: str | None) -> Combined:
        prediction, fitted = cross_fit_second_level(estimator, by_repeat, labels, repeats, test)
        # A stacking has coefficients per label, which are not shares; every member counts there.
        shares = dict(zip(members, getattr(fitted, "weights_", np.ones(0)).tolist(), strict=False))
        shares = {member: share for member, share in shares.items() if share > 0}
        backbones = {b: None for member in shares or members for b in members[member].backbones}
        prediction = replace(prediction, backbones=tuple(backbones), shares=shares)

        def keep(file: bytes) -> None:
            if key:
                store.keep_bytes(key, _pack(prediction, file))

        return Combined(prediction, SavedEstimator(fitted, keep))

    def recall(name: str) -> Combined:
        estimator = ENSEMBLES[name].make()
        key = digest_parts(common, type(estimator), estimator.get_params()) if common else None
        content = store.find_bytes(key) if key else None
        combined = fit(estimator, key) if content is None else _unpack(content)
        on_fit()
        return combined

    return dict(zip(ensembles, in_threads(jobs, recall, zip(ensembles)), strict=True))


def calibrate(
    calibration: str, prediction: Prediction, labels: Labels, repeats: Sequence[Folds]
) -> tuple[Prediction, BaseEstimator]:
    """Calibrate a model per label, cross-fitted by its folds; gives the calibration fitted on all rows, too."""
    estimator = CALIBRATIONS[calibration].make()
    new, fitted = cross_fit_second_level(estimator, prediction.by_repeat, labels, repeats, prediction.test_by_fit)
    return replace(prediction, by_repeat=new.by_repeat, test_by_fit=new.test_by_fit, seconds=new.seconds), fitted


def _pack(prediction: Prediction, file: bytes) -> bytes:
    """Write a prediction and the bytes of its ensemble's file."""
    arrays = {"by_repeat": prediction.by_repeat, "fitted": np.frombuffer(file, np.uint8)}
    if prediction.test_by_fit is not None:
        arrays["test_by_fit"] = prediction.test_by_fit
    facts = {"seconds": prediction.seconds, "backbones": prediction.backbones, "shares": prediction.shares}
    return pack_arrays(facts, arrays)


def _unpack(content: bytes) -> Combined:
    """Read what `_pack` wrote."""
    facts, arrays = unpack_arrays(content)
    of_json: dict[str, Any] = {**facts, "backbones": tuple(facts["backbones"])}
    prediction = Prediction(arrays["by_repeat"], arrays.get("test_by_fit"), **of_json)
    return Combined(prediction, SavedEstimator(arrays["fitted"].tobytes()))
