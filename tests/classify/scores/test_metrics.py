"""The final model is the best by the rule, the simpler at a tie."""

import pytest

from classify.scores.metrics import MACRO, SELECTORS, Score, check_rule, describe_rule, select_model
from features.common.errors import InputError


def scores(**of_models: float | None) -> dict[str, list[Score]]:
    return {
        model: [Score("a", "roc_auc", 1.0), *(Score(MACRO, metric, value) for metric in SELECTORS)]
        for model, value in of_models.items()
    }


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [("roc_auc", "high"), ("average_precision", "high"), ("log_loss", "low"), ("brier", "low"), ("middle", "middle")],
)
def test_more_is_better_of_auc_and_less_of_losses(rule, chosen):
    assert select_model(rule, scores(middle=0.5, low=0.4, high=0.6)) == chosen


def test_what_agrees_to_four_decimals_is_a_tie_that_the_first_wins():
    assert select_model("roc_auc", scores(first=0.81231, second=0.81234, third=0.81226)) == "first"
    assert select_model("roc_auc", scores(first=0.8122, second=0.8123)) == "second"


def test_models_without_a_value_are_passed_over():
    assert select_model("roc_auc", scores(first=None, second=0.3)) == "second"
    assert select_model("roc_auc", scores(first=None, second=None)) == "first"


def test_a_rule_is_a_metric_or_a_model():
    for rule in (*SELECTORS, "mean"):
        check_rule(rule, ["mean"])
    with pytest.raises(InputError, match=r"--select 'f1': expected a metric \(roc_auc, .*\) or a model .* \(a, mean\)"):
        check_rule("f1", ["a", "mean"])


def test_the_rule_is_said_in_words():
    assert describe_rule("log_loss") == "lowest cross-fitted macro log_loss, ties (4 decimals) to the simpler"
    assert describe_rule("mean") == "named by --select mean"
