"""Folds: groups stay whole, labels are spread, and what cannot be spread is said."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.common.arrays import UNKNOWN
from features.common.errors import InputError
from features.folds.folds import make_folds


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


@pytest.mark.parametrize(("lone", "value"), [(1, "positive"), (0, "negative")])
def test_a_fold_that_leaves_one_value_to_learn_from_is_said_once_with_what_its_models_do(lone, value):
    labels = np.full((10, 1), 1 - lone, np.uint8)
    labels[4] = lone
    assert make_folds(labels, None, ("rare",), 5, seed=0).warnings == (
        f"rare: 1 {value} row; none in 4 of 5 folds; the models of 1 fold learn from rows of one value: there a "
        "baseline gives every image the constant probability (positives + 1) / (rows + 2), and a head learns that "
        "value alone",
    )


def test_two_folds_of_one_value_each_are_said():
    labels = np.array([[1], [1], [0], [0]], np.uint8)
    (warning,) = make_folds(labels, np.array(["a", "a", "b", "b"]), ("apart",), 2, seed=0).warnings
    assert warning.startswith("apart: 2 positive rows in 1 group; none in 1 of 2 folds; the models of 2 folds")


def unevenness(fold_of_row: np.ndarray, traits: np.ndarray) -> float:
    """Root mean square deviation of the folds' shares of each trait from even ones, relative to those."""
    count = fold_of_row.max() + 1
    shares = np.column_stack([np.bincount(fold_of_row, weights=trait) for trait in traits.T]) / traits.sum(axis=0)
    return float(np.sqrt(np.mean((shares * count - 1) ** 2)))


def pairs_of(labels: np.ndarray) -> np.ndarray:
    return np.column_stack([labels[:, a] * labels[:, b] for a, b in itertools.combinations(range(labels.shape[1]), 2)])


@pytest.mark.parametrize("grouped", [False, True])
def test_pairs_of_labels_are_spread_more_evenly_than_by_single_labels_and_these_no_less(grouped, monkeypatch):
    rng = np.random.default_rng(0)
    combinations = np.array(list(itertools.product([0, 1], repeat=3)), np.uint8)
    # The challenge's shares: 4 % epidural, a sixth of the rows with two labels or more.
    shares = np.array([3500, 1700, 1900, 1100, 150, 50, 60, 82]) / 8542
    labels = combinations[rng.choice(8, size=2400 if grouped else 3000, p=shares)]
    groups = None
    if grouped:  # rows of a patient are mostly alike
        groups = np.array([f"p{row // 6}" for row in range(2400)])
        labels = labels[np.arange(2400) // 6 * 6] & (rng.random(labels.shape) < 0.7).astype(np.uint8)
    seeds = range(8 if grouped else 4)
    with_pairs = [make_folds(labels, groups, names(labels), 5, seed).fold_of_row for seed in seeds]
    monkeypatch.setattr("features.folds.folds._label_pairs", lambda labels: np.empty((len(labels), 0), bool))
    monkeypatch.setattr("features.folds.folds.GROUP_DRAWS", 10)
    without = [make_folds(labels, groups, names(labels), 5, seed).fold_of_row for seed in seeds]

    of_pairs, of_labels = (
        [np.mean([unevenness(folds, traits) for folds in found]) for found in (with_pairs, without)]
        for traits in (pairs_of(labels), labels)
    )
    assert of_pairs[0] < (0.8 if grouped else 0.3) * of_pairs[1], of_pairs
    assert of_labels[0] <= of_labels[1] + 0.003, of_labels


@pytest.mark.parametrize("of_rows", [1, 4])
def test_known_positives_and_negatives_are_spread_over_folds(of_rows):
    rng = np.random.default_rng(3)
    labels = (rng.random((400, 3)) < 0.4).astype(np.uint8)
    groups = None if of_rows == 1 else np.array([f"g{row // of_rows}" for row in range(400)])
    labels[rng.random(labels.shape) < (0.9, 0.3, 0)] = UNKNOWN
    folds = make_folds(labels, groups, ("a", "b", "c"), 5, 0)
    assert not folds.warnings
    for value in (0, 1):
        of_folds = np.stack([(labels[rows] == value).sum(axis=0) for _, rows in folds.split()])
        assert (np.ptp(of_folds, axis=0) <= 3 * of_rows).all()
