"""The slider's counts are those of scikit-learn's confusion matrix, at every position."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from classify.report.cuts import POSITIONS, count_from, positions


def test_positions_ascend_from_0_to_1_and_are_finest_at_the_ends():
    assert (POSITIONS[0], POSITIONS[-1]) == (0, 1)
    steps = np.diff(POSITIONS)
    assert steps.min() > 0.99e-4
    assert steps.max() < 1.01e-3
    assert np.isin([0.0001, 0.01, 0.25, 0.5, 0.9999], POSITIONS).all()


@pytest.mark.parametrize("threshold", [0.0, 0.06248371, 0.5, 1.0, np.inf])
def test_the_runs_threshold_is_a_position_where_it_can_be(threshold):
    cuts = positions(threshold)
    assert (np.diff(cuts) > 0).all()
    assert np.isin(threshold, cuts) == np.isfinite(threshold)
    assert len(cuts) == len(POSITIONS) + (threshold == 0.06248371)


def test_counts_are_those_of_scikit_learn_ties_with_a_cut_among_them():
    rng = np.random.default_rng(0)
    truth = (rng.random(400) < 0.2).astype(np.uint8)
    # Many probabilities that are a cut themselves, as float32 can be: there a row counts as positive.
    probability = np.where(rng.random(400) < 0.5, rng.integers(0, 9, 400) / 8, rng.random(400)).astype(np.float32)
    cuts = positions(float(probability[7]))
    found, alarms = count_from(truth, probability, cuts)
    for at in [0, 1, 500, len(cuts) - 1, *np.flatnonzero(np.isin(cuts, [0.25, 0.5, float(probability[7])]))]:
        tn, fp, fn, tp = confusion_matrix(truth, probability >= cuts[at], labels=[0, 1]).ravel()
        assert (found[at], alarms[at]) == (tp, fp)
        assert (truth.sum() - found[at], (1 - truth).sum() - alarms[at]) == (fn, tn)
