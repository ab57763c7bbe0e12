"""Folds: groups stay whole, labels are spread, and what cannot be spread is said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classify.folds import make_folds
from features.errors import InputError


def random_labels(rng: np.random.Generator, rows: int, count: int) -> np.ndarray:
    labels = (rng.random((rows, count)) < 0.3).astype(np.uint8)
    labels[0], labels[1] = 0, 1  # both values of every label
    return labels


def names(labels: np.ndarray) -> tuple[str, ...]:
    return tuple(f"label{index}" for index in range(labels.shape[1]))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 12), min_size=5, max_size=25),
    n_labels=st.integers(1, 4),
    count=st.integers(2, 5),
)
def test_no_group_is_in_two_folds_and_every_row_is_held_out_once(seed, sizes, n_labels, count):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat([f"g{index}" for index in range(len(sizes))], sizes))
    if len(groups) < 2:
        return
    labels = random_labels(rng, len(groups), n_labels)

    folds = make_folds(labels, groups, names(labels), count, seed)

    held_out = np.concatenate([rows for _, rows in folds.split()])
    assert sorted(held_out) == list(range(len(groups)))
    assert np.bincount(folds.fold_of_row, minlength=count).min() > 0
    for learnt, rows in folds.split():
        assert not set(groups[learnt]) & set(groups[rows])
        assert len(learnt) + len(rows) == len(groups)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(5, 60), n_labels=st.integers(1, 4), count=st.integers(2, 5))
def test_without_groups_every_row_is_held_out_once(seed, rows, n_labels, count):
    labels = random_labels(np.random.default_rng(seed), rows, n_labels)
    folds = make_folds(labels, None, names(labels), count, seed)
    assert sorted(np.concatenate([rows for _, rows in folds.split()])) == list(range(rows))
    assert np.bincount(folds.fold_of_row, minlength=count).min() > 0


def test_rows_are_stratified_over_all_labels():
    labels = (np.random.default_rng(0).random((2000, 3)) < (0.04, 0.37, 0.35)).astype(np.uint8)
    folds = make_folds(labels, None, names(labels), 5, seed=0)
    for column in labels.T:
        in_fold = np.bincount(folds.fold_of_row, weights=column)
        assert np.ptp(in_fold) <= 2
    assert np.ptp(np.bincount(folds.fold_of_row)) <= 5
    assert folds.warnings == ()
    assert "no groups known" in folds.describe()


def test_grouped_folds_are_alike_in_rows_and_positives():
    rng = np.random.default_rng(1)
    groups = np.repeat([f"p{index}" for index in range(200)], 1 + rng.geometric(1 / 8, size=200))
    burden = (rng.random((200, 2)) < 0.4)[np.unique(groups, return_inverse=True)[1]]
    labels = (burden & (rng.random(burden.shape) < 0.6)).astype(np.uint8)

    folds = make_folds(labels, groups, names(labels), 5, seed=0)

    for weights in (np.ones(len(groups)), *labels.T):
        shares = np.bincount(folds.fold_of_row, weights=weights) / weights.sum() * 5
        assert abs(shares - 1).max() < 0.3  # a random assignment of these groups reaches 0.5
    assert folds.describe().endswith("200 groups, none of them in two folds")


def test_equal_arguments_give_equal_folds_and_another_seed_others():
    rng = np.random.default_rng(2)
    labels = random_labels(rng, 300, 3)
    for groups in (None, np.repeat([f"p{index}" for index in range(60)], 5)):
        first, again, other = (make_folds(labels, groups, names(labels), 5, s).fold_of_row for s in (7, 7, 8))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


def test_numpy_global_random_state_is_neither_read_nor_moved():
    labels = random_labels(np.random.default_rng(3), 100, 2)
    np.random.seed(0)  # noqa: NPY002 - the state that legacy code shares
    before = make_folds(labels, None, names(labels), 5, 0).fold_of_row
    drawn = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    assert drawn == np.random.random()  # noqa: NPY002
    np.testing.assert_array_equal(before, make_folds(labels, None, names(labels), 5, 0).fold_of_row)


def test_one_group_with_most_of_the_rows_works():
    groups = np.array(["big"] * 208 + [f"p{index}" for index in range(25) for _ in range(6)])
    labels = random_labels(np.random.default_rng(4), len(groups), 2)
    folds = make_folds(labels, groups, names(labels), 5, seed=0)
    sizes = np.bincount(folds.fold_of_row)
    assert sizes.max() < 208 + 5 * 6  # the big group has few or no companions
    assert sizes.min() >= 12


@pytest.mark.parametrize(("groups", "unit"), [(None, "3 rows"), (np.array(["a", "b", "c"]), "3 groups")])
def test_fewer_units_than_folds_is_an_input_error(groups, unit):
    labels = np.array([[0], [1], [1]], np.uint8)
    with pytest.raises(InputError, match=f"5 folds need at least 5 {unit[2:]}; there are 3. Use --folds 3 or fewer"):
        make_folds(labels, groups, ("a",), 5, 0)


def test_a_lone_group_is_an_input_error():
    with pytest.raises(InputError, match=r"2 folds need at least 2 groups; there are 1\. Add data"):
        make_folds(np.array([[0], [1]], np.uint8), np.array(["a", "a"]), ("a",), 2, 0)


def test_a_label_of_too_few_groups_is_named_with_its_counts():
    groups = np.repeat([f"p{index}" for index in range(20)], 5)
    labels = np.zeros((100, 2), np.uint8)
    labels[::2, 0] = 1
    labels[[0, 1, 2, 50], 1] = 1  # in groups p0 and p10
    folds = make_folds(labels, groups, ("common", "rare"), 5, seed=0)
    assert folds.warnings == ("rare: 4 positive rows in 2 groups; none in 3 of 5 folds",)


def test_a_fold_that_leaves_no_positive_to_learn_from_is_said():
    labels = np.zeros((10, 1), np.uint8)
    labels[4] = 1
    folds = make_folds(labels, None, ("rare",), 5, seed=0)
    assert folds.warnings == (
        "rare: 1 positive rows; none in 4 of 5 folds",
        "rare: in 1 of 5 folds the rows to train on all have the same value; "
        "the model of such a fold gives every image the same probability",
    )
