"""Score probabilities against labels: per label, and as the mean over labels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

METRICS = ("roc_auc", "average_precision", "log_loss", "brier", "f1", "accuracy", "all_negative_accuracy")
MACRO = "macro"


@dataclass(frozen=True)
class Score:
    """One figure.

    Attributes:
        label: the label, or `MACRO` for the mean over the labels that have a value.
        metric: one of `METRICS`.
        value: the figure; None where it is not defined.
        reason: why it is not defined, or which labels the mean leaves out; empty otherwise.
    """

    label: str
    metric: str
    value: float | None
    reason: str = ""


def score(
    labels: np.ndarray, probabilities: np.ndarray, binary: np.ndarray, label_names: tuple[str, ...]
) -> list[Score]:
    """Compute every metric for every label, and its mean over the labels.

    ROC-AUC needs both classes, average precision needs a positive, F1 needs a positive label or prediction; where that
    lacks, the value is None. Log loss clips probabilities at the resolution of float32, as scikit-learn does.

    Args:
        labels: uint8 array (N, L), 0 or 1, N at least 1.
        probabilities: float32 array (N, L), 0-1.
        binary: uint8 array (N, L), 0 or 1: the predictions that F1 and accuracy are of.
        label_names: the names of the L labels.

    Returns:
        The scores by label in the order of `label_names`, then macro; within, in the order of `METRICS`.
    """
    scores: list[Score] = []
    for index, name in enumerate(label_names):
        scores += _score_label(labels[:, index], probabilities[:, index], binary[:, index], name)
    for metric in METRICS:
        values = {s.label: s.value for s in scores if s.metric == metric}
        defined = [value for value in values.values() if value is not None]
        left_out = ", ".join(label for label, value in values.items() if value is None)
        reason = f"undefined for {left_out}" if left_out else ""
        scores.append(Score(MACRO, metric, float(np.mean(defined)) if defined else None, reason))
    return scores


def _score_label(truth: np.ndarray, probability: np.ndarray, predicted: np.ndarray, name: str) -> list[Score]:
    """Compute every metric of one label.

    Args:
        truth: uint8 array (N,), 0 or 1.
        probability: float32 array (N,), 0-1.
        predicted: uint8 array (N,), 0 or 1.
        name: the label.

    Returns:
        One score per metric, in the order of `METRICS`.
    """
    from sklearn import metrics as sk

    positives = int(truth.sum())
    one_class = "" if 0 < positives < len(truth) else f"all {len(truth)} rows have the value {truth[0]}"
    no_positive = "" if positives else f"none of {len(truth)} rows is positive"
    reasons = {"roc_auc": one_class, "average_precision": no_positive}
    if no_positive and not predicted.any():
        reasons["f1"] = f"{no_positive} or predicted positive"

    compute: dict[str, Callable[[], float]] = {
        "roc_auc": lambda: sk.roc_auc_score(truth, probability),
        "average_precision": lambda: sk.average_precision_score(truth, probability),
        "log_loss": lambda: sk.log_loss(truth, probability, labels=[0, 1]),
        "brier": lambda: sk.brier_score_loss(truth, probability, pos_label=1),
        "f1": lambda: sk.f1_score(truth, predicted),
        "accuracy": lambda: np.mean(truth == predicted),
        "all_negative_accuracy": lambda: np.mean(truth == 0),
    }
    scores = []
    for metric in METRICS:
        reason = reasons.get(metric, "")
        scores.append(Score(name, metric, None if reason else float(compute[metric]()), reason))
    return scores
