"""ROC-AUC and average precision of every resample are scikit-learn's on the explicit rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from classify.scores.resampling import Resampling, rank_scores, resample
from tests.classify.scores.draws import weights_of


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 40),
    levels=st.sampled_from([2, 4, 1000]),
    grouped=st.booleans(),
    share=st.sampled_from([0.1, 0.5, 0.9]),
)
def test_agrees_with_scikit_learn_on_explicit_resamples(seed, rows, levels, grouped, share):
    rng = np.random.default_rng(seed)
    truth = (rng.random(rows) < share).astype(np.uint8)
    scores = (rng.integers(0, levels, rows) / levels).astype(np.float32)
    drawn = resample(rows, rng.choice(["a", "b", "c", "d"], rows) if grouped else None, seed, draws=20)

    auc, precision = rank_scores(truth, scores, drawn)

    for index, weights in enumerate(weights_of(drawn)):
        chosen = np.repeat(np.arange(rows), weights[drawn.unit_of_row].astype(int))
        positives = truth[chosen].sum()
        if positives in (0, len(chosen)):
            assert np.isnan(precision[index])
        else:
            assert precision[index] == pytest.approx(average_precision_score(truth[chosen], scores[chosen]), abs=1e-12)
        if positives in (0, len(chosen)):
            assert np.isnan(auc[index])
        else:
            assert auc[index] == pytest.approx(roc_auc_score(truth[chosen], scores[chosen]), abs=1e-12)


def test_a_draw_of_more_rows_than_float32_counts_is_exact():
    # One group of all rows but 254, drawn 255 times: 33 million rows, of which 17,849,745 have one score.
    below, above = 69_999, 60_000
    scores = np.repeat(np.float32([0.9, 0.5, 0.1, 0.1]), [above, 1, below, 254])
    truth = (scores == np.float32(0.5)).astype(np.uint8)
    units = np.append(np.zeros(above + 1 + below, int), np.arange(1, 255))
    drawn = Resampling(units, (np.append(255, np.zeros(254))[:, None].astype(np.uint8),))
    auc, precision = rank_scores(truth, scores, drawn)
    assert auc[1] == pytest.approx(below / (below + above), abs=1e-12)
    assert precision[1] == pytest.approx(1 / (1 + above), abs=1e-12)


def test_more_draws_than_a_block_and_neighbouring_floats_are_no_tie():
    low = np.float32(0.3)
    truth, scores = np.array([0, 1, 1], np.uint8), np.array([low, np.nextafter(low, np.float32(1)), low], np.float32)
    auc, precision = rank_scores(truth, scores, resample(3, None, 0, draws=300))
    assert auc[0] == 0.75
    assert precision[0] == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert len(auc) == 301
    assert (~np.isnan(auc[1:])).mean() == pytest.approx(1 - (8 + 1) / 27, abs=0.1)  # no negative, or no positive
