"""The metrics, and the rules that choose by them: which model is final, where a threshold lies.

To add a metric, add a row to `METRICS`; to add a rule for thresholds, add a row to `THRESHOLD_RULES`. Importing this
module loads no numpy, so that help texts can read the tables: formulas use nothing but operators and methods of arrays.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from features.common.errors import InputError

MICRO, MACRO, OVERALL = "micro", "macro", "overall"
#: Bins of equal width of the expected calibration error: Guo et al. 2017, section 5.
BINS = 15
#: Macro scores that agree to so many decimals are a tie.
DECIMALS = 4


@dataclass(frozen=True)
class Sums:
    """What metrics are formulas of, for one label or for all cells; float64 arrays (B,), one value per resample.

    Attributes:
        log_loss, squared_error: sums over the cells.
        prior_log_loss, prior_squared_error: the same of the shares of positives that the models learnt from; NaN where
            those are without error.
        bin_errors: float64 array (B, BINS): per bin of the probability the sum of truth - probability.
        auc: area under the ROC curve, out-of-fold over the pairs within a fold; NaN without both values.
        pooled_auc: the same over all pairs.
        precision: average precision; NaN without both values.
        slope: of the logit, fitted to the truth; NaN without both values, where the logits tell them apart without an
            error, and where they are all the same.
        intercept: what has to be added to the logits to fit the truth; NaN without both values.
    """

    tp: Any
    fp: Any
    fn: Any
    tn: Any
    log_loss: Any
    squared_error: Any
    prior_log_loss: Any
    prior_squared_error: Any
    bin_errors: Any
    auc: Any
    pooled_auc: Any
    precision: Any
    slope: Any
    intercept: Any

    @property
    def count(self) -> Any:
        """The cells."""
        return self.tp + self.fp + self.fn + self.tn


def _pick_more_frequent(sums: Sums) -> Any:
    """Count the cells that have the value which more of the rows as they are have, 0 or 1: float64 (B,)."""
    positives, negatives = sums.tp + sums.fn, sums.tn + sums.fp
    return negatives if negatives[0] >= positives[0] else positives


@dataclass(frozen=True)
class Metric:
    """A row of the table.

    Attributes:
        formula: gives the metric of each resample; NaN where it is not defined.
        chooses: `highest` or `lowest` where the best macro value may choose the final model; empty otherwise.
        undefined: why it is not defined of `cells`, where that is not for their one value.
        one_value: whether it is defined for cells of one value, of which others would say nothing of the model.
        no_interval: why it has none, if it has none.
    """

    formula: Callable[[Sums], Any]
    chooses: str = ""
    undefined: str = ""
    no_interval: str = ""
    one_value: bool = False

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return -1 if self.chooses == "lowest" else 1


#: Of each label, of all cells together (`MICRO`), and as the mean over the labels (`MACRO`).
METRICS: dict[str, Metric] = {
    "roc_auc": Metric(lambda s: s.auc, "highest", "no model met both values among {cells}"),
    "pooled_roc_auc": Metric(lambda s: s.pooled_auc),
    "average_precision": Metric(lambda s: s.precision, "highest"),
    "log_loss": Metric(lambda s: s.log_loss / s.count, "lowest", one_value=True),
    "brier": Metric(lambda s: s.squared_error / s.count, "lowest", one_value=True),
    "log_loss_skill": Metric(
        lambda s: 1 - s.log_loss / s.prior_log_loss, undefined="the prior makes no error on {cells}"
    ),
    "brier_skill": Metric(
        lambda s: 1 - s.squared_error / s.prior_squared_error, undefined="the prior makes no error on {cells}"
    ),
    "calibration_slope": Metric(
        lambda s: s.slope,
        undefined="all {cells} have one probability, or are told apart without an error",
    ),
    "calibration_intercept": Metric(lambda s: s.intercept),
    "calibration_error": Metric(
        lambda s: abs(s.bin_errors).sum(axis=1) / s.count,
        no_interval="chance alone lifts a sum of absolute errors above 0, and more so in a draw",
        one_value=True,
    ),
    "f1": Metric(lambda s: 2 * s.tp / (2 * s.tp + s.fp + s.fn)),
    "f2": Metric(lambda s: 5 * s.tp / (5 * s.tp + s.fp + 4 * s.fn)),
    "sensitivity": Metric(lambda s: s.tp / (s.tp + s.fn), undefined="none of {cells} is positive", one_value=True),
    "specificity": Metric(lambda s: s.tn / (s.tn + s.fp), undefined="none of {cells} is negative", one_value=True),
    "accuracy": Metric(lambda s: (s.tp + s.tn) / s.count, one_value=True),
    "constant_accuracy": Metric(lambda s: _pick_more_frequent(s) / s.count, one_value=True),
}
#: Of whole rows (`OVERALL`).
ROW_METRICS = ("exact_match", "weighted_log_loss")
#: Of exclusive classes, of whole rows too: top-1 and balanced accuracy, by which the final model may be chosen, and the
#: share of the largest class among the rows: the accuracy of giving each row that class.
CLASS_SELECTORS, MAJORITY = ("top1_accuracy", "balanced_accuracy"), "majority_accuracy"
#: The metrics by whose mean over the labels the final model may be chosen, and all by which it may.
MACRO_SELECTORS = tuple(name for name, metric in METRICS.items() if metric.chooses)
SELECTORS = (*MACRO_SELECTORS, *CLASS_SELECTORS)


@dataclass(frozen=True)
class Score:
    """One figure; None where it is not defined, as the ends of its 95 % interval.

    Attributes:
        label: the label, `MICRO`, `MACRO` for the mean over labels, or `OVERALL`.
        metric: one of `METRICS` or `ROW_METRICS`.
        reason: why it is not defined, which labels the mean leaves out, or which rows it is of; empty otherwise.
        interval_reason: why there is no interval, or which draws it leaves out; empty otherwise.
        interval: how the interval was made: `bootstrap`, or as `scores/small.py` says; empty where there is none.
    """

    label: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    interval_reason: str = ""
    interval: str = ""


def label_of(metric: str) -> str:
    """Say of what a metric is that stands for a whole model: of whole rows, or the mean over the labels."""
    return MACRO if metric in METRICS else OVERALL


def name_metric(metric: str) -> str:
    """Say in words what `label_of` tells, such as `macro roc_auc`."""
    return f"macro {metric}" if metric in METRICS else metric


def sign_of(metric: str) -> int:
    """1 where more of a metric is better, -1 where less is."""
    return METRICS[metric].sign if metric in METRICS else 1


def find_macro(scores: Iterable[Score], metric: str) -> Score:
    """Find what stands for a whole model, see `label_of`, among its scores."""
    return next(score for score in scores if (score.label, score.metric) == (label_of(metric), metric))


def check_rule(rule: str, models: Collection[str], exclusive: bool = False) -> None:
    """Refuse, by an `InputError`, a rule that is neither one of `SELECTORS` nor the name of a model of the run."""
    if rule in CLASS_SELECTORS and not exclusive:
        raise InputError(
            f"--select {rule} is for exclusive classes; these labels are none (--exclusive yes says why). Choose by "
            f"another metric: {', '.join(MACRO_SELECTORS)}."
        )
    known = SELECTORS if exclusive else MACRO_SELECTORS
    if rule not in SELECTORS and rule not in models:
        raise InputError(
            f"--select {rule!r}: expected a metric ({', '.join(known)}) or a model of this run ({', '.join(models)})."
        )


def describe_rule(rule: str) -> str:
    """Say in words how the final model is chosen."""
    if rule not in SELECTORS:
        return f"named by --select {rule}"
    best = METRICS[rule].chooses if rule in METRICS else "highest"
    return f"the fewest backbones of the models tied with the {best} cross-fitted {name_metric(rule)}"


@dataclass(frozen=True)
class Aim:
    """A row of the table of rules for thresholds.

    Attributes:
        form: what `--threshold` takes, for help and messages.
        pattern: matches it; its groups are numbers.
        takes: whether these numbers are in range.
        objective: of each cut, from its true positives, its predicted positives, the positives, the negatives and the
            first number; the first cut of the highest objective is taken, from the highest probability on.
    """

    form: str
    pattern: str
    takes: Callable[..., bool]
    objective: Callable[[Any, Any, int, int, float], Any]


def _reaches(tp: Any, predicted: Any, positives: int, negatives: int, share: float) -> Any:
    """Whether a cut has that sensitivity."""
    return tp / positives >= share


_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
#: What a threshold can be chosen for.
THRESHOLD_RULES: tuple[Aim, ...] = (
    Aim(
        "f1, f2 (or f0.5, any beta)",
        f"f{_NUMBER}",
        lambda beta: 0 < beta <= 100,
        lambda tp, predicted, positives, negatives, beta: (1 + beta**2) * tp / (beta**2 * positives + predicted),
    ),
    Aim(
        "youden",
        "youden",
        lambda: True,
        lambda tp, predicted, positives, negatives, _: tp / positives - (predicted - tp) / max(negatives, 1),
    ),
    Aim(
        "sensitivity=0.95 (or any share)",
        f"sensitivity={_NUMBER}",
        lambda share: 0 < share <= 1,
        _reaches,
    ),
    Aim(
        "sensitivity>=0.95@95 (so many with 95 % confidence)",
        f"sensitivity>={_NUMBER}@{_NUMBER}",
        lambda share, percent: 0 < share < 1 and 0 < percent < 100,
        _reaches,
    ),
)


@dataclass(frozen=True)
class ThresholdRule:
    """What a threshold is chosen for.

    Attributes:
        value: the aim's first number, such as the beta of F-beta; 0 where it takes none.
        confidence: with which the value is to be reached, above 0 and below 1; 0 where it is only aimed at.
    """

    text: str
    aim: Aim
    value: float = 0.0
    confidence: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "ThresholdRule":
        """Read a rule such as `f1`, `youden`, `sensitivity>=0.95@95`; an `InputError` says that it is none."""
        for aim in THRESHOLD_RULES:
            found = re.fullmatch(aim.pattern, text)
            numbers = [float(number) for number in found.groups()] if found else []
            if found and aim.takes(*numbers):
                value, percent = (*numbers, 0.0, 0.0)[:2]
                return cls(text, aim, value, percent / 100)
        forms = ", ".join(aim.form for aim in THRESHOLD_RULES)
        raise InputError(f"--threshold {text!r}: expected one of {forms}. Quote a rule with >, which is the shell's.")


#: Rare labels have few positives to find: F1 weighs finding them against false alarms.
DEFAULT_RULE = ThresholdRule.parse("f1")
