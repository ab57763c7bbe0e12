"""Rules are metrics or models, and are said in words."""

import pytest

from classify.scores.metrics import SELECTORS, check_rule, describe_rule
from features.common.errors import InputError


def test_a_rule_is_a_metric_or_a_model():
    for rule in (*SELECTORS, "mean"):
        check_rule(rule, ["mean"], exclusive=True)
    with pytest.raises(InputError, match=r"--select 'f1': expected a metric \(roc_auc, .*\) or a model .* \(a, mean\)"):
        check_rule("f1", ["a", "mean"])


def test_the_rule_is_said_in_words():
    assert (
        describe_rule("log_loss")
        == "the fewest backbones of the models tied with the lowest cross-fitted macro log_loss"
    )
    assert describe_rule("top1_accuracy").endswith("tied with the highest cross-fitted top1_accuracy")
    assert describe_rule("mean") == "named by --select mean"
