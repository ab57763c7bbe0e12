"""Run stage 2 in memory: folds, models, ensemble, scores."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from classify.baselines import OneVsRestLogistic
from classify.ensemble import mean_ensemble
from classify.folds import Folds, make_folds
from classify.inputs import Inputs
from classify.metrics import Score, score
from classify.training import Candidate, Prediction, cross_fit

#: A probability from here on is a positive prediction.
THRESHOLD = 0.5


@dataclass(frozen=True)
class Experiment:
    """What a run of stage 2 found.

    Attributes:
        folds: of the training rows.
        predictions: by model; the final model is the last.
        scores: by model and split, `oof` or, where the test images are labelled, `test`.
        warnings: what a reader of the scores has to know; sentences.
    """

    folds: Folds
    predictions: dict[str, Prediction]
    scores: dict[tuple[str, str], list[Score]]
    warnings: tuple[str, ...]

    @property
    def final_model(self) -> str:
        """The model whose test predictions are handed in."""
        return list(self.predictions)[-1]


def list_candidates(columns: dict[str, slice]) -> dict[str, Candidate]:
    """List the models to cross-fit: one per backbone and, of several backbones, one on all of them.

    Args:
        columns: which columns of the features are each backbone's, in order.

    Returns:
        The candidates by name.
    """
    candidates = {f"logistic/{name}": Candidate(OneVsRestLogistic(), where) for name, where in columns.items()}
    if len(columns) > 1:  # of one backbone it would be the same model twice
        candidates["logistic/all"] = Candidate(OneVsRestLogistic(), slice(None))
    return candidates


def count_fits(columns: dict[str, slice], folds: int) -> int:
    """How often `run_experiment` calls `on_fit`."""
    return len(list_candidates(columns)) * folds


def run_experiment(inputs: Inputs, fold_count: int, seed: int, jobs: int, on_fit: Callable[[], None]) -> Experiment:
    """Make folds, cross-fit every candidate, average them, and score each model.

    Args:
        inputs: the joined data set and features.
        fold_count: the number of folds, at least 2.
        seed: the seed of the folds, 0 to 2**32 - 1.
        jobs: how many fits run at a time.
        on_fit: called `count_fits` times, from any thread.

    Raises:
        InputError: there are fewer rows, or fewer groups, than folds.
    """
    folds = make_folds(inputs.train_labels, inputs.train.groups, inputs.label_names, fold_count, seed)
    predictions = cross_fit(list_candidates(inputs.columns), inputs, folds, jobs, on_fit)
    warnings = list(folds.warnings)
    unfinished = [name for name, prediction in predictions.items() if not prediction.converged]
    warnings += [f"{name}: its solver stopped before it converged" for name in unfinished]
    if len(predictions) > 1:
        members = list(predictions.values())
        predictions["mean"] = Prediction(
            mean_ensemble([p.out_of_fold for p in members]),
            None if inputs.test is None else mean_ensemble([p.test for p in members if p.test is not None]),
        )

    scores = {}
    for name, prediction in predictions.items():
        scores[name, "oof"] = _score(inputs.train_labels, prediction.out_of_fold, inputs.label_names)
        if inputs.test is not None and inputs.test.labels is not None and prediction.test is not None:
            scores[name, "test"] = _score(inputs.test.labels, prediction.test, inputs.label_names)
    return Experiment(folds, predictions, scores, tuple(warnings))


def to_binary(probabilities: np.ndarray) -> np.ndarray:
    """Decide.

    Args:
        probabilities: float32 array (N, L), 0-1.

    Returns:
        uint8 array (N, L): 1 from `THRESHOLD` on, else 0.
    """
    return (probabilities >= THRESHOLD).astype(np.uint8)


def _score(labels: np.ndarray, probabilities: np.ndarray, label_names: tuple[str, ...]) -> list[Score]:
    """Score probabilities, and the decisions taken from them; arrays as in `metrics.score`."""
    return score(labels, probabilities, to_binary(probabilities), label_names)
