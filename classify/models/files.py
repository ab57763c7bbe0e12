"""Save the fitted models of a run, each as a file of its own kind, and load them again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from sklearn.base import BaseEstimator

from classify.crossfit.plan import FitRows
from classify.ensembles.crossfit import SecondLevel
from classify.models.estimator_files import dump_estimator, load_estimator
from classify.models.trained_head import HeadWeights, TrainedHead
from features.common.errors import InputError

#: What ends the name of a head's file, an ordinary Keras model, and of any other's, in skops' format.
HEAD_SUFFIX, ESTIMATOR_SUFFIX = ".keras", ".skops"


class Predictor(Protocol):
    """What a loaded file is good for."""

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give float32 probabilities (N, L), 0-1."""


def model_path(models: Path, model: str, fit: str, suffix: str) -> Path:
    """Say where one fit of a model lies, such as `models/challenge__resnet50/fold0.keras`."""
    return models / model.replace("/", "__") / f"{fit}{suffix}"


def ensemble_path(models: Path, ensemble: str) -> Path:
    """Say where an ensemble or a calibrated model lies, such as `models/greedy+platt.skops`."""
    return models / f"{ensemble.replace('/', '__')}{ESTIMATOR_SUFFIX}"


def save_models(
    fitted: Mapping[str, Sequence[BaseEstimator | TrainedHead]],
    fits: Sequence[FitRows],
    ensembles: Mapping[str, SecondLevel],
    models: Path,
) -> dict[str, list[Path]]:
    """Save every model.

    Args:
        fitted: by model, a fitted baseline or trained head for each of the fits.
        fits: what they are.
        ensembles: by model, what was fitted on other models' probabilities.
        models: the folder to write to, made here.

    Returns:
        The files of each model that predict new images, by their mean, in the order of the fits.

    Raises:
        OSError: it cannot be written to.
    """
    models.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[Path]] = {}
    for name, of_fits in fitted.items():
        for fit, model in zip(fits, of_fits, strict=True):
            suffix = HEAD_SUFFIX if isinstance(model, TrainedHead) else ESTIMATOR_SUFFIX
            path = model_path(models, name, fit.name, suffix)
            path.parent.mkdir(exist_ok=True)
            if isinstance(model, TrainedHead):
                model.save(path)
            else:
                path.write_bytes(dump_estimator(model))
            if fit.predicts_test:
                files.setdefault(name, []).append(path)
    for name, ensemble in ensembles.items():
        path = ensemble_path(models, name)
        path.write_bytes(dump_estimator(ensemble))
        files[name] = [path]
    return files


def load_model(path: Path) -> Predictor:
    """Load what `save_models` wrote.

    Raises:
        InputError: the file is missing, damaged, or of a type that no model here has.
    """
    if path.suffix == HEAD_SUFFIX:
        return HeadWeights.load(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Make the run again.") from None
    return load_estimator(content, path)
