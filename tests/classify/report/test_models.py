"""Curves of a known shape get the word that they deserve."""

import numpy as np
import pandas as pd
import pytest

from classify.report.models import accuracy_without_model, judge_fit, kept_epochs, mean_accuracies
from features.common.arrays import UNKNOWN


def curves(training, held_out, folds=2, epochs=100):
    tables = [
        pd.DataFrame({"fold": fold, "epoch": np.arange(1, epochs + 1), "auc": training, "validation_auc": held_out})
        for fold in range(folds)
    ]
    return pd.concat(tables)


@pytest.mark.parametrize(
    ("training", "held_out", "best", "word", "says"),
    [
        (0.99, 0.85, [40, 50], "overfit", "a gap of 0.140, above 0.05"),
        (0.99, 0.85, [100, 99], "overfit", "Yet 2 of 2 fits were best at the very end of the 100 epochs allowed"),
        (0.70, 0.69, [40, 50], "underfit", "below 0.80 even where it learnt"),
        (0.90, 0.89, [100, 98], "underfit", "2 of 2 fits were best at the very end"),
        (0.90, 0.89, [100, 50], "well fit", "0.900 on the images learnt from and 0.890 on those that stop it"),
        (0.85, 0.90, [40, 50], "well fit", "no more than 0.05 apart"),
        (np.nan, 0.90, [40, 50], "not judged", "nothing can be said"),
        (0.90, 0.89, [0, 0], "not judged", "nothing can be said"),
    ],
)
def test_the_word_and_its_reason(training, held_out, best, word, says):
    table = curves(training, held_out)
    verdict = judge_fit(table, kept_epochs(table, best), 100)
    assert verdict.word == word
    assert says in verdict.sentence


def test_each_fit_is_judged_at_its_own_best_epoch_and_a_refit_has_no_part():
    rising = np.linspace(0.5, 1.0, 100)  # 0.695 at epoch 40 - that of the mean, 60, would be 0.798
    table = curves(rising, rising)
    sentence = judge_fit(table, kept_epochs(table, [40, 80, 100]), 100).sentence
    expected = (rising[39] + rising[79]) / 2
    assert f"the AUC is {expected:.3f} on the images" in sentence


def test_accuracies_are_those_at_each_fits_own_best_epoch():
    table = curves(0.9, 0.8).assign(
        accuracy=lambda t: t["epoch"] / 100, validation_accuracy=lambda t: t["fold"] + t["epoch"] / 1000
    )
    kept = kept_epochs(table, [20, 40])
    assert mean_accuracies(table, kept) == pytest.approx((0.3, 0.53))
    assert mean_accuracies(table, {}) is None
    assert mean_accuracies(curves(0.9, 0.8), kept) is None  # of an older run


def test_the_accuracy_without_a_model_is_of_the_labels_or_the_classes_that_are_known():
    labels = np.array([[0, 1, UNKNOWN], [0, 0, 1]], np.uint8)
    assert accuracy_without_model(labels, of_classes=False) == 3 / 5
    classes = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], np.uint8)
    assert accuracy_without_model(classes, of_classes=True) == 1 / 2
