"""Write fitted scikit-learn estimators without pickle, and read only types that are known."""

from pathlib import Path
from zipfile import ZIP_DEFLATED

from sklearn.base import BaseEstimator

from features.common.errors import InputError

#: Types beyond those that skops itself trusts: our own estimators, and what is within scikit-learn's. Reading a file
#: that names any other is refused, so that a run from elsewhere cannot make this machine run its code.
TRUSTED = (
    "classify.models.baselines.OneVsRestLogistic",
    "classify.ensembles.calibration.IsotonicCalibration",
    "classify.ensembles.calibration.SigmoidCalibration",
    "classify.ensembles.ensembles.LogitMean",
    "classify.ensembles.ensembles.Mean",
    "classify.ensembles.ensembles.NonNegativeWeights",
    "classify.ensembles.ensembles.RankMean",
    "classify.ensembles.ensembles.Stacking",
    "classify.ensembles.greedy.GreedySelection",
    "classify.models.one_vs_rest.OneVsRest",
    "classify.models.one_vs_rest.Prior",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


def dump_estimator(estimator: BaseEstimator) -> bytes:
    """Write a fitted estimator in skops' format: a zip of JSON and numpy arrays."""
    from skops.io import dumps

    return dumps(estimator, compression=ZIP_DEFLATED, compresslevel=1)


def load_estimator(content: bytes, source: Path | str) -> BaseEstimator:
    """Read what `dump_estimator` wrote.

    Args:
        content: the bytes.
        source: where they are from, for the message.

    Raises:
        InputError: they are damaged, name a type that is not in `TRUSTED`, or are no estimator of this package.
    """
    from skops.io import get_untrusted_types, loads

    try:
        unknown = sorted(set(get_untrusted_types(data=content)) - set(TRUSTED))
        estimator = None if unknown else loads(content, trusted=list(TRUSTED))
    except Exception as error:  # noqa: BLE001 - a damaged archive fails in as many ways as it has bytes
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{source} is no estimator that can be read ({reason}). Make the run again.") from None
    if unknown:
        raise InputError(
            f"{source} holds types that no estimator of Headbank has (first: {unknown[0]}), so it is not read. "
            "Make the run again on this machine."
        )
    if not type(estimator).__module__.startswith("classify."):
        raise InputError(f"{source} holds a {type(estimator).__name__}, no model of Headbank. Make the run again.")
    return estimator
