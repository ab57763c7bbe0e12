"""Resamples are of whole groups, as many as there are, and the same for the same seed."""

import tracemalloc

import numpy as np
import pytest

from classify.scores import resampling
from classify.scores.resampling import auc_within_folds, fit_logits, percentile_interval, rank_scores, resample
from tests.classify.scores.draws import weights_of


def test_first_the_rows_as_they_are_then_draws_of_as_many_units():
    drawn = resample(7, None, seed=1, draws=50)
    assert weights_of(drawn).shape == (51, 7)
    assert (weights_of(drawn)[0] == 1).all()
    np.testing.assert_array_equal(weights_of(drawn).sum(axis=1), 7)
    assert len(np.unique(weights_of(drawn), axis=0)) > 40


def test_a_unit_is_drawn_as_often_as_another():
    counts = weights_of(resample(20, None, seed=2, draws=5000))[1:]
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=5 * np.sqrt((1 - 1 / 20) / 5000))
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 20) ** 20, abs=0.01)  # the share that a bootstrap leaves out


def test_rows_of_a_group_come_and_go_together():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    drawn = resample(6, groups, seed=0, draws=30)
    assert drawn.unit_count == 3
    weights = weights_of(drawn)[:, drawn.unit_of_row]
    for name in "abc":
        assert (np.ptp(weights[:, groups == name], axis=1) == 0).all()
    assert {float(total) for total in weights.sum(axis=1)} > {6.0}  # groups differ in size, so draws do


def test_sums_are_those_of_explicit_rows():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    quantities = np.random.default_rng(0).normal(size=(6, 2))
    drawn = resample(6, groups, seed=3, draws=9)
    for weights, sums in zip(weights_of(drawn), drawn.sum(quantities), strict=True):
        rows = np.repeat(np.arange(6), weights[drawn.unit_of_row].astype(int))
        np.testing.assert_allclose(sums, quantities[rows].sum(axis=0))


def test_equal_seeds_give_equal_draws_and_others_others():
    first, again, other = (weights_of(resample(9, None, seed, 5)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("counted", [1, 1000, 50_000])
def test_draws_in_blocks_are_those_of_one_piece(monkeypatch, counted):
    monkeypatch.setattr(resampling, "_COUNTED", counted)
    drawn = np.random.default_rng(5).integers(0, 300, size=(150, 300))
    counts = [np.bincount(own, minlength=300) for own in drawn]
    np.testing.assert_array_equal(weights_of(resample(300, None, seed=5, draws=150))[1:], counts)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 40])
def test_whole_numbers_are_summed_down_as_numpy_does(rows):
    counts = np.random.default_rng(rows).integers(0, 50, (rows, 3)).astype(np.float32)
    found = resampling._accumulate(counts)
    np.testing.assert_array_equal(found, np.cumsum(counts, axis=0))
    assert found.dtype == np.float32


def test_ranks_that_share_a_step_move_no_interval(monkeypatch):
    rng = np.random.default_rng(3)
    truth = (rng.random(4000) < 0.3).astype(np.uint8)
    scores, folds = truth + rng.normal(size=4000), rng.integers(0, 5, 4000)
    drawn = resample(4000, None, seed=1, draws=200)

    def rank() -> list[np.ndarray]:
        return [*rank_scores(truth, scores, drawn), auc_within_folds(truth, scores[None], folds[None], drawn)]

    exact = rank()
    monkeypatch.setattr(resampling, "_LEVELS", 600)  # of 1,200 positives
    for one, other in zip(exact, rank(), strict=True):
        assert one[0] == other[0]
        assert (one[1:] != other[1:]).any()
        apart = np.subtract(percentile_interval(one), percentile_interval(other))
        assert abs(apart).max() < 0.05 * one[1:].std()  # 1,000 draws tell an end within 0.08


def test_scores_hold_no_array_of_draws_and_rows():
    rows, draws = 50_000, 1000
    rng = np.random.default_rng(0)
    truth, scores = (rng.random(rows) < 0.05).astype(np.uint8), rng.random(rows).astype(np.float32)
    tracemalloc.start()
    drawn = resample(rows, None, seed=0, draws=draws)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    auc_within_folds(truth, scores[None], rng.integers(0, 5, (1, rows)), drawn)
    fit_logits(truth, scores, drawn)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 1.1 * rows * draws  # a byte each, where they were 27
    assert peak - held < rows * draws  # nor a second one


def test_the_auc_within_folds_counts_the_pairs_of_every_fold_and_repeat():
    rng = np.random.default_rng(0)
    truth, groups = rng.integers(0, 2, 60), rng.integers(0, 20, 60)
    by_repeat = rng.integers(0, 9, (2, 60)) / 8  # with ties
    fold_of_row = np.stack([groups % 3, groups // 7])
    drawn = resample(60, groups, seed=1, draws=20)
    found = auc_within_folds(truth, by_repeat, fold_of_row, drawn)
    for value, weights in zip(found, weights_of(drawn)[:, drawn.unit_of_row], strict=True):
        won = pairs = 0.0
        for scores, folds in zip(by_repeat, fold_of_row, strict=True):
            for i in np.flatnonzero(truth == 1):
                for j in np.flatnonzero((truth == 0) & (folds == folds[i])):
                    pairs += weights[i] * weights[j]
                    won += weights[i] * weights[j] * ((scores[i] > scores[j]) + (scores[i] == scores[j]) / 2)
        assert value == pytest.approx(won / pairs, abs=1e-12)
    one_fold = auc_within_folds(truth, by_repeat[:1], np.zeros((1, 60), int), drawn)
    np.testing.assert_allclose(one_fold, rank_scores(truth, by_repeat[0], drawn)[0])


def test_what_knows_nothing_but_its_fold_has_an_auc_of_a_half_within_folds_and_less_over_all():
    rng = np.random.default_rng(0)
    fold_of_row, truth = np.arange(200) % 5, (rng.random(200) < 0.2).astype(int)
    prior = np.array([truth[fold_of_row != fold].mean() for fold in range(5)])[fold_of_row]
    drawn = resample(200, None, seed=1, draws=50)
    assert (auc_within_folds(truth, prior[None], fold_of_row[None], drawn) == 0.5).all()
    assert rank_scores(truth, prior, drawn)[0][0] < 0.45


def test_folds_of_one_value_give_no_auc():
    truth, drawn = np.repeat([0, 1], 10), resample(20, None, seed=1, draws=3)
    assert np.isnan(auc_within_folds(truth, np.random.default_rng(0).random((1, 20)), truth[None], drawn)).all()


@pytest.mark.parametrize("count", [1, 2, 3, 41, 200, 999, 1000])
def test_the_ends_of_an_interval_are_numpys_percentiles(count):
    values = np.random.default_rng(count).normal(size=count + 1)
    assert percentile_interval(values) == tuple(np.percentile(values[1:], [2.5, 97.5]))
    assert percentile_interval(np.insert(values, 1, np.nan)) == percentile_interval(values)
