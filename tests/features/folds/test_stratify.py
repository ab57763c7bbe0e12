"""Stratification gives the folds of iterative-stratification, which drew them before; a share is the nearest one."""

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from sklearn.model_selection import StratifiedGroupKFold

from features.folds import stratify as stratify_module
from features.folds.folds import draw_part
from features.folds.stratify import stratify


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    units=st.integers(5, 80),
    width=st.integers(2, 9),
    count=st.integers(2, 5),
    share=st.sampled_from([0.05, 0.3, 0.8]),
)
def test_folds_are_those_of_the_package(seed, units, width, count, share):
    traits = np.random.default_rng(seed).random((units, width)) < share
    splitter = MultilabelStratifiedKFold(n_splits=count, shuffle=True, random_state=seed)
    folds = stratify(traits, count, seed)
    for fold, (_, held_out) in enumerate(splitter.split(traits, traits)):
        np.testing.assert_array_equal(np.flatnonzero(folds == fold), held_out)


def make_groups(rng, rows, groups, labels):
    """Rows of groups of very different sizes, and labels that have both values: groups, truth."""
    sizes = rng.dirichlet(np.ones(groups) * 0.7)
    own = np.append(np.arange(groups), rng.choice(groups, rows - groups, p=sizes)).astype(str)
    truth = (rng.random((rows, labels)) < rng.uniform(0.1, 0.6, labels)).astype(np.uint8)
    truth[0], truth[1] = 1, 0
    return own, truth


def distance(held, truth, share):
    """What the sides lack; and how far the share is, of all rows and on average of the positives and the negatives."""
    values = [truth[:, index] == value for value in (1, 0) for index in range(truth.shape[1])]
    lacking = [sum(not value[side].any() for value in values) for side in (~held, held)]
    off = [(held[value].mean() - share) ** 2 for value in values]
    return (*lacking, pytest.approx((held.mean() - share) ** 2 + np.mean(off), abs=1e-9))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.integers(2, 9),
    labels=st.integers(1, 3),
    share=st.sampled_from([0.1, 0.2, 0.37, 0.5, 0.8]),
)
def test_of_few_groups_the_nearest_choice_of_all_is_taken(seed, groups, labels, share):
    own, truth = make_groups(np.random.default_rng(seed), 60, groups, labels)
    held = draw_part(truth, own, share, seed)
    assert not {*own[held]} & {*own[~held]}
    names = np.unique(own)
    choices = chain.from_iterable(combinations(names, count) for count in range(1, groups))
    best = min((d[:2], d[2].expected) for d in (distance(np.isin(own, choice), truth, share) for choice in choices))
    found = distance(held, truth, share)
    assert (found[:2], best[1]) == (best[0], found[2])


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.5])
@pytest.mark.parametrize(("seed", "groups"), [(0, 17), (1, 20), (2, 30), (3, 45), (4, 60)])
def test_of_more_groups_none_of_scikit_learns_folds_is_nearer(seed, groups, share):
    own, truth = make_groups(np.random.default_rng(seed), 400, groups, 1)
    held = draw_part(truth, own, share, seed)
    assert not {*own[held]} & {*own[~held]}
    found = distance(held, truth, share)
    for draw in range(5):
        splitter = StratifiedGroupKFold(round(1 / share), shuffle=True, random_state=draw)
        for _, rows in splitter.split(truth, truth[:, 0], own):
            other = distance(np.isin(np.arange(400), rows), truth, share)
            assert (found[:2], found[2].expected) <= (other[:2], other[2].expected + 1e-9)


@pytest.mark.parametrize(("groups", "rows", "share"), [(20, 200, 0.1), (30, 300, 0.25), (60, 400, 0.15)])
def test_of_up_to_100_groups_neither_one_more_or_less_nor_an_exchange_of_two_is_nearer(groups, rows, share):
    for seed in range(4):
        own, truth = make_groups(np.random.default_rng(seed), rows, groups, 2)
        held = draw_part(truth, own, share, seed)
        found = distance(held, truth, share)
        taken, left = np.unique(own[held]), np.unique(own[~held])
        moves = [*((group,) for group in np.unique(own)), *((one, other) for one in taken for other in left)]
        for move in moves:
            other = distance(held ^ np.isin(own, move), truth, share)
            assert (found[:2], found[2].expected) <= (other[:2], other[2].expected + 1e-8), move


def test_of_80_groups_of_alike_rows_the_share_is_nearly_met():
    off = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        own, truth = make_groups(rng, 1000, 80, 6)
        truth[2:] &= (rng.random((80, 6)) < 0.4)[np.unique(own, return_inverse=True)[1][2:]]
        off.append(distance(draw_part(truth, own, 0.2, seed), truth, 0.2)[2].expected)
    assert np.sqrt(np.mean(off)) < 0.004  # of one choice of folds alone 0.0054


@pytest.mark.parametrize(("groups", "most"), [(5_000, 4), (20_000, 1)])
def test_of_many_groups_few_choices_are_brought_nearer(groups, most, monkeypatch):
    sought = []
    near = stratify_module._come_nearer
    monkeypatch.setattr(stratify_module, "_come_nearer", lambda *given: sought.append(1) or near(*given))
    own, truth = make_groups(np.random.default_rng(0), 2 * groups, groups, 2)
    held = draw_part(truth, own, 0.01, 0)
    assert 1 <= len(sought) <= most
    assert distance(held, truth, 0.01)[2].expected < 0.02**2


def test_of_groups_that_are_alike_the_seed_says_which_are_taken():
    own = np.repeat([f"p{number}" for number in range(10)], 4)
    truth = np.tile([0, 1, 0, 1], 10).astype(np.uint8)[:, None]
    assert len({tuple(np.unique(own[draw_part(truth, own, 0.2, seed)])) for seed in range(5)}) > 1


def test_a_small_share_of_rows_without_groups_is_that_share_and_its_seed_says_which():
    truth = (np.random.default_rng(0).random((2000, 2)) < 0.2).astype(np.uint8)
    parts = [draw_part(truth, None, 0.01, seed) for seed in (0, 0, 1)]
    assert [part.sum() for part in parts] == [20, 20, 20]
    np.testing.assert_array_equal(parts[0], parts[1])
    assert (parts[0] != parts[2]).any()
    assert draw_part(truth, None, 1e-9, 0).sum() < 4  # of each value of each label one
    assert truth[parts[0]].sum(axis=0).tolist() == pytest.approx((truth.sum(axis=0) / 100).tolist(), abs=1)
