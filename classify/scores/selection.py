"""Choose the final model by a rule that is fixed before any score is known."""

from collections.abc import Collection, Mapping

from classify.scores.metrics import MACRO, Score
from features.common.errors import InputError

#: The metrics that may choose, and whether more is better.
SELECTORS = {"roc_auc": True, "average_precision": True, "log_loss": False, "brier": False}
#: Macro scores that agree to so many decimals are a tie.
DECIMALS = 4


def check_rule(rule: str, models: Collection[str]) -> None:
    """Refuse a rule that is neither a metric nor a model.

    Args:
        rule: a metric of `SELECTORS`, or the name of a model.
        models: the names of all models of the run.

    Raises:
        InputError: the message lists both.
    """
    if rule not in SELECTORS and rule not in models:
        raise InputError(
            f"--select {rule!r}: expected a metric ({', '.join(SELECTORS)}) or a model of this run "
            f"({', '.join(models)})."
        )


def select_model(rule: str, scores: Mapping[str, list[Score]]) -> str:
    """Choose the model with the best macro score, or the model that the rule names.

    Args:
        rule: as in `check_rule`.
        scores: the out-of-fold scores by model, the simpler model first: it wins a tie.

    Returns:
        The name of a model. The first, if no model has a value.
    """
    if rule in scores:
        return rule
    sign = 1 if SELECTORS[rule] else -1
    values = {
        model: sign * round(score.value, DECIMALS)
        for model, of_model in scores.items()
        for score in of_model
        if (score.label, score.metric) == (MACRO, rule) and score.value is not None
    }
    return max(values, key=lambda model: values[model], default=next(iter(scores)))


def describe_rule(rule: str) -> str:
    """Say in words what the rule is."""
    if rule not in SELECTORS:
        return f"named by --select {rule}"
    best = "highest" if SELECTORS[rule] else "lowest"
    return f"{best} cross-fitted macro {rule}, ties ({DECIMALS} decimals) to the simpler"
