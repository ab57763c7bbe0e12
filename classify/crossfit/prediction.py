"""What a model gives: the probabilities of one fit, and of all its fits together."""

from dataclasses import dataclass, field

import numpy as np
from sklearn.base import BaseEstimator

from classify.models.trained_head import TrainedHead


@dataclass(frozen=True)
class Fit:
    """A model fitted once, and what it predicts.

    Attributes:
        model: a fitted baseline, or a trained head.
        out_of_fold: float32 array (H, L), 0-1: the rows held out.
        test: float32 array (M, L), 0-1; None without test rows, or where another fit predicts them.
        converged: whether its solver reached its tolerance, or its head had a finite validation loss.
        seconds: the time that it took.
    """

    model: BaseEstimator | TrainedHead
    out_of_fold: np.ndarray
    test: np.ndarray | None
    converged: bool
    seconds: float


@dataclass(frozen=True)
class Prediction:
    """The probabilities that a model gives.

    Attributes:
        out_of_fold: float32 array (N, L), 0-1: each training row, by the model of the fold that held it out; of several
            repeats the mean.
        test: float32 array (M, L), 0-1: the mean over the models of all folds, or of the model that was refitted; None
            without test rows.
        converged: whether the solver of every fold and label reached its tolerance; True where there is no solver.
        seconds: the time that fitting and predicting took, summed over the fits; of an ensemble, without its members'.
        backbones: those whose features it sees, directly or through its members.
        shares: of an ensemble that is a weighted mean, the share of each member that has one; empty otherwise.
    """

    out_of_fold: np.ndarray
    test: np.ndarray | None
    converged: bool = True
    seconds: float = 0.0
    backbones: tuple[str, ...] = ()
    shares: dict[str, float] = field(default_factory=dict)
