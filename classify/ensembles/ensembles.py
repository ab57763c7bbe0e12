"""The ensembles and the calibrations that a run can make of other models' probabilities.

To add one, write its estimator in `estimators.py` and its row here. Importing this module loads no numpy, so that help
texts can read the tables.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


@dataclass(frozen=True)
class SecondLevel:
    """A row of the tables.

    Attributes:
        description: what it is, in a few words.
        estimator: the class in `estimators.py`.
        params: its arguments.
    """

    description: str
    estimator: str
    params: dict[str, Any] = field(default_factory=dict)

    def make(self) -> "BaseEstimator":
        """Make the estimator, not fitted yet."""
        from classify.ensembles import estimators

        return getattr(estimators, self.estimator)(**self.params)


#: By the name that `--ensemble` takes, from the simplest to the least simple: of equal models the first is chosen.
ENSEMBLES: dict[str, SecondLevel] = {
    "mean": SecondLevel("mean of the probabilities", "Mean"),
    "logit_mean": SecondLevel("mean of the logits", "LogitMean"),
    "rank_mean": SecondLevel("mean of the ranks", "RankMean"),
    "weights": SecondLevel("weighted mean with the least log loss", "NonNegativeWeights"),
    "greedy": SecondLevel("models added one by one by macro AUC, in bags", "GreedySelection"),
    "stacking": SecondLevel("logistic regression per label on the logits", "Stacking"),
}
#: By the name that `--calibration` takes.
CALIBRATIONS: dict[str, SecondLevel] = {
    "temperature": SecondLevel("a slope on the logit", "SigmoidCalibration", {"intercept": False}),
    "platt": SecondLevel("a slope and an intercept on the logit", "SigmoidCalibration"),
    "isotonic": SecondLevel("a rising step function", "IsotonicCalibration"),
}
