"""The gallery holds the surest of each outcome, and nothing else."""

import numpy as np
import pytest

from classify.scores.gallery import COUNT, EXAMPLE, NEAR_THRESHOLD, OUTCOMES, choose_gallery, outcome_of


def rows_of(choices, label, outcome):
    return [choice.row for choice in choices if (choice.label, choice.outcome) == (label, outcome)]


def test_each_outcome_has_its_surest_first():
    #                        0    1    2    3    4    5    6    7
    probabilities = np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1], np.float32)[:, None]
    labels = np.array([1, 0, 1, 0, 1, 0, 1, 0], np.uint8)[:, None]
    choices = choose_gallery(labels, probabilities, np.array([0.52]), None)
    assert rows_of(choices, 0, "true_positive") == [0, 2]
    assert rows_of(choices, 0, "false_positive") == [1, 3]
    assert rows_of(choices, 0, "false_negative") == [6, 4]
    assert rows_of(choices, 0, "true_negative") == [7, 5]
    assert rows_of(choices, 0, NEAR_THRESHOLD) == [3, 4, 2, 5, 1, 6]
    assert [c.rank for c in choices if c.outcome == NEAR_THRESHOLD] == [1, 2, 3, 4, 5, 6]


def test_the_gallery_is_bounded_in_order_and_right_about_every_outcome():
    rng = np.random.default_rng(0)
    labels = (rng.random((500, 3)) < 0.3).astype(np.uint8)
    probabilities = rng.random((500, 3)).astype(np.float32)
    thresholds = np.array([0.2, 0.5, 0.8])
    choices = choose_gallery(labels, probabilities, thresholds, None)
    assert len(choices) == 3 * len(OUTCOMES) * COUNT
    assert choices == sorted(choices, key=lambda c: (c.label, OUTCOMES.index(c.outcome), c.rank))
    for choice in choices:
        cell = choice.row, choice.label
        if choice.outcome not in (EXAMPLE, NEAR_THRESHOLD):
            assert outcome_of(bool(labels[cell]), probabilities[cell] >= thresholds[choice.label]) == choice.outcome
    for label in range(3):
        shown = probabilities[rows_of(choices, label, "false_positive"), label]
        others = probabilities[(labels[:, label] == 0), label]
        np.testing.assert_array_equal(shown, np.sort(others)[::-1][:COUNT])


def test_examples_are_positives_of_different_groups_as_far_as_these_go():
    labels = np.ones((40, 1), np.uint8)
    labels[::2] = 0
    groups = np.repeat([f"p{number}" for number in range(10)], 4)
    rows = rows_of(choose_gallery(labels, labels.astype(np.float32), np.array([0.5]), groups), 0, EXAMPLE)
    assert len(rows) == len(set(groups[rows])) == COUNT
    assert labels[rows].all()
    assert rows[0] == 1
    few = np.repeat(["a", "b"], 20)
    assert rows_of(choose_gallery(labels, labels.astype(np.float32), np.array([0.5]), few), 0, EXAMPLE) == [
        1, 9, 17, 23, 31, 39,
    ]  # fmt: skip


@pytest.mark.parametrize("threshold", [0.5, np.inf])
def test_a_label_without_positives_has_no_hits_and_no_examples(threshold):
    labels, probabilities = np.zeros((3, 1), np.uint8), np.array([[0.1], [0.2], [0.3]], np.float32)
    choices = choose_gallery(labels, probabilities, np.array([threshold]), None)
    assert {choice.outcome for choice in choices} == {"true_negative", NEAR_THRESHOLD}
    assert rows_of(choices, 0, "true_negative") == [0, 1, 2]
