"""Calibrate probabilities per label: temperature, Platt, isotonic."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.base import BaseEstimator
from sklearn.isotonic import IsotonicRegression

from classify.scores.metrics import EPSILON

#: The bounds of a slope on the logit. Above 0, so that calibration never turns a ranking round.
_SLOPES = (0.01, 100.0)


def to_logit(probabilities: np.ndarray) -> np.ndarray:
    """Turn probabilities of any shape into float64 logits, -16 to 16."""
    return logit(np.clip(probabilities.astype(np.float64), EPSILON, 1 - EPSILON))


class SigmoidCalibration(BaseEstimator):
    """A straight line on the logit, per label: probability = sigmoid(slope * logit + intercept).

    With an intercept it is Platt scaling; without one it is temperature scaling, whose temperature is 1 / slope
    (Guo et al. 2017). The targets are Platt's (1999): (P + 1) / (P + 2) for P positives, 1 / (N + 2) for N negatives,
    so that labels that a score separates, or of one value only, get no probability of 0 or 1.

    Args:
        intercept: whether there is one.

    Attributes:
        slope_: float64 array (L,), above 0.
        intercept_: float64 array (L,).
    """

    def __init__(self, intercept: bool = True) -> None:
        self.intercept = intercept

    def fit(self, X: np.ndarray, y: np.ndarray) -> "SigmoidCalibration":
        """Minimise the log loss.

        Args:
            X: float array (N, L), 0-1.
            y: uint8 array (N, L), 0 or 1.
        """
        bounds = [_SLOPES, (None, None) if self.intercept else (0.0, 0.0)]
        lines = []
        for x, truth in zip(to_logit(X).T, y.T, strict=True):
            positives = int(truth.sum())
            target = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (len(truth) - positives + 2))

            def loss(line: np.ndarray, x: np.ndarray = x, target: np.ndarray = target) -> tuple[float, np.ndarray]:
                z = line[0] * x + line[1]
                residual = expit(z) - target
                return np.mean(np.logaddexp(0, z) - target * z), np.array([np.mean(residual * x), np.mean(residual)])

            lines.append(minimize(loss, [1.0, 0.0], jac=True, bounds=bounds, options={"ftol": 1e-12}).x)
        self.slope_, self.intercept_ = np.array(lines).T
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give calibrated probabilities, float32 (N, L), for float array (N, L), 0-1."""
        return expit(to_logit(X) * self.slope_ + self.intercept_).astype(np.float32)


class IsotonicCalibration(BaseEstimator):
    """A rising step function of the probability, per label.

    Its ends are kept from 0 and 1 by Laplace's rule, 1 / (N + 2): a first surprise costs a finite log loss.

    Attributes:
        steps_: one fitted `IsotonicRegression` per label.
    """

    def fit(self, X: np.ndarray, y: np.ndarray) -> "IsotonicCalibration":
        """Learn from float probabilities (N, L), 0-1, and uint8 labels (N, L)."""
        floor = 1 / (len(y) + 2)
        self.steps_ = [
            IsotonicRegression(y_min=floor, y_max=1 - floor, out_of_bounds="clip").fit(x, truth)
            for x, truth in zip(X.T, y.T, strict=True)
        ]
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Give calibrated probabilities, float32 (N, L), for float array (N, L), 0-1."""
        columns = [steps.predict(x) for steps, x in zip(self.steps_, X.T, strict=True)]
        return np.column_stack(columns).astype(np.float32)


#: By the name that `--calibration` takes.
CALIBRATIONS: dict[str, BaseEstimator] = {
    "temperature": SigmoidCalibration(intercept=False),
    "platt": SigmoidCalibration(),
    "isotonic": IsotonicCalibration(),
}
