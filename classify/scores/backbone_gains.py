"""Report what each backbone is worth: its gain in the mean over backbones, against the cache that it takes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from classify.crossfit.prediction import Prediction
from classify.ensembles.ensembles import mean_ensemble
from classify.models.curves import mean_auc
from classify.scores.bootstrap import Resampling
from classify.scores.metrics import ENDS
from classify.scores.ranking import rank_scores


@dataclass(frozen=True)
class BackboneReturn:
    """What one backbone adds to those before it.

    Attributes:
        backbone: its name.
        macro_auc: out-of-fold macro ROC-AUC of the mean over this backbone and those before it.
        gain: how much of that it added; of the first, above 0.5.
        low, high: the 95 % bootstrap interval of the gain; None where fewer than two units can be drawn, or where
            every draw lacks a label.
    """

    backbone: str
    macro_auc: float
    gain: float
    low: float | None
    high: float | None


def rank_backbones(
    members: Mapping[str, Prediction], labels: np.ndarray, resampling: Resampling
) -> list[BackboneReturn]:
    """Add backbones one by one, each time the one that raises the macro ROC-AUC of the mean over backbones the most.

    A backbone stands for the mean of the models that see it alone. The order is chosen on the rows that the gains are
    of, which flatters the early ones a little; a mean has nothing else that could be fitted.

    Args:
        members: the cross-fitted models by name, without ensembles.
        labels: uint8 array (N, L), 0 or 1; every label has both values.
        resampling: of the N rows.

    Returns:
        One entry per backbone that has a model of its own, in the order of adding; of equal ones the first is first.
    """
    of_backbones: dict[str, list[np.ndarray]] = {}
    for prediction in members.values():
        if len(prediction.backbones) == 1:
            of_backbones.setdefault(prediction.backbones[0], []).append(prediction.out_of_fold)
    left = {name: mean_ensemble(of_models).astype(np.float64) for name, of_models in of_backbones.items()}

    returns: list[BackboneReturn] = []
    total = np.zeros(labels.shape)
    before = np.full(len(resampling.weights), 0.5)
    while left:
        candidates = np.stack([total + probabilities for probabilities in left.values()], axis=2)
        best = list(left)[int(mean_auc(candidates, labels).argmax())]
        total = total + left.pop(best)
        aucs = [rank_scores(*columns, resampling)[0] for columns in zip(labels.T, total.T, strict=True)]
        after = np.mean(aucs, axis=0)
        gains = after - before
        drawn = gains[1:][~np.isnan(gains[1:])]
        known = resampling.unit_count > 1 and len(drawn) > 0
        low, high = (float(end) for end in np.percentile(drawn, ENDS)) if known else (None, None)
        returns.append(BackboneReturn(best, float(after[0]), float(gains[0]), low, high))
        before = after
    return returns
