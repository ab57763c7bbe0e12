"""Near duplicates in feature space: whitening, the threshold by chance, mutual pairs."""

import numpy as np
import pytest

from features.audit.near import DIRECTIONS, RANKS, choose_threshold, near_pairs, pairs_within, whiten

ALONE = np.full(500, -1)


def clouds(images: int = 500, width: int = 60, seed: int = 0) -> np.ndarray:
    """Unrelated images: float32 (N, D), correlated, of very different spread, far from 0."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width)) * np.geomspace(10, 0.1, width)
    return (rng.normal(size=(images, width)) @ mixing.T + 50).astype(np.float32)


def test_whitened_directions_have_equal_spread_whichever_product_they_are_from():
    for features in (clouds(600, 40), clouds(100, 400)):
        points = whiten([features])
        assert points.dtype == np.float32
        assert points.shape[1] == min(40, len(features) // 6)
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-6)
    tall = clouds(600, 40)
    wide = np.hstack([tall, np.zeros((600, 1000), np.float32)])  # the same images: only the product differs
    np.testing.assert_allclose(whiten([wide]) @ whiten([wide]).T, whiten([tall]) @ whiten([tall]).T, atol=1e-4)


def test_a_product_is_the_mean_over_backbones():
    first, second = clouds(seed=1), clouds(seed=2)
    both = whiten([first, second])
    expected = (whiten([first]) @ whiten([first]).T + whiten([second]) @ whiten([second]).T) / 2
    np.testing.assert_allclose(both @ both.T, expected, atol=1e-5)


def test_no_more_directions_than_vary_and_than_are_kept():
    features = np.zeros((100, 30), np.float32)
    features[:, :3] = clouds(100, 3)
    assert whiten([features]).shape == (100, 3)
    assert whiten([clouds(7 * DIRECTIONS, DIRECTIONS + 20)]).shape[1] == DIRECTIONS


def test_chance_brings_as_many_pairs_as_the_threshold_says():
    counts = []
    for seed in range(20):
        points = whiten([clouds(400, 12, seed)])
        threshold = choose_threshold(points)
        counts.append(sum(map(len, pairs_within(points, threshold.distance_for(10)))))
        assert threshold.distance < threshold.distance_for(1) < threshold.distance_for(10)
    assert (
        2.5 < np.mean(counts) < 40
    )  # within a factor of four; a threshold too wide by a tenth brings three times more


def test_the_threshold_is_the_power_law_followed_down():
    points = whiten([clouds(300, 8)])
    threshold = choose_threshold(points)
    distances = np.sort((1 - points @ points.T)[np.triu_indices(300, 1)])
    wanted = np.geomspace(300 * RANKS[0] / 2, 300 * RANKS[1] / 2, 30)
    exponent, offset = np.polyfit(np.log(distances[wanted.astype(int) - 1]), np.log(wanted), 1)
    assert threshold.exponent == pytest.approx(exponent, rel=0.01)
    assert threshold.distance == pytest.approx(np.exp((np.log(0.1) - offset) / exponent), rel=0.01)


def test_images_that_are_all_alike_are_one_point_and_all_near():
    for features in (np.full((200, 30), 0.1, np.float32), np.zeros((200, 30), np.float32)):
        points = whiten([features, features])
        threshold = choose_threshold(points)
        assert threshold.distance <= 1e-4
        rows = np.arange(200)
        assert len(near_pairs(points, rows, rows, np.full(200, -1), threshold.distance)[0]) == 199


def test_pairs_are_those_of_a_full_search(monkeypatch):
    monkeypatch.setattr("features.audit.near._BLOCK", 64)
    points = whiten([clouds()])
    distances = 1 - points @ points.T
    np.fill_diagonal(distances, np.inf)
    every = np.arange(500)
    limit = float(np.median(distances.min(axis=1)))
    found = near_pairs(points, every, every, ALONE, limit)
    nearest = distances.argmin(axis=1)
    mutual = {(a, b) for a, b in enumerate(nearest) if nearest[b] == a and a < b}
    near = {(min(a, b), max(a, b)) for a, b in enumerate(nearest) if distances[a, b] < limit}
    assert len(near - mutual) > 20
    assert {tuple(pair) for pair in found[0]} == near
    np.testing.assert_allclose(found[1], distances[found[0][:, 0], found[0][:, 1]], atol=1e-6)
    assert (np.diff(found[1]) >= 0).all()
    np.testing.assert_allclose(found[2], sorted(distances[pair] for pair in mutual), atol=1e-6)

    across = distances[:180, 180:]
    there, back = across.argmin(axis=1), across.argmin(axis=0)
    found = near_pairs(points, every[:180], every[180:], ALONE, limit)
    near = {(a, b) for a, b in enumerate(there) if across[a, b] < limit}
    near |= {(a, b) for b, a in enumerate(back) if across[a, b] < limit}
    assert {tuple(pair) for pair in found[0]} == {(a, b + 180) for a, b in near}
    mutual = sorted(across[a, b] for a, b in enumerate(there) if back[b] == a)
    np.testing.assert_allclose(found[2], mutual, atol=1e-6)


def test_images_of_one_group_are_no_pair_within_a_set_but_across():
    points = whiten([clouds()])
    every = np.arange(500)
    groups = every // 2
    first, second = near_pairs(points, every, every, ALONE, 2)[0][0]
    groups[[first, second]] = 999
    pairs = near_pairs(points, every, every, groups, 2)[0]
    assert not (groups[pairs[:, 0]] == groups[pairs[:, 1]]).any()
    together = np.zeros(500, int)
    assert len(near_pairs(points, every, every, together, 2)[0]) == 0
    assert len(near_pairs(points, every[:250], every[250:], together, 2)[0]) > 0
    assert len(near_pairs(points, every[:0], every, ALONE, 2)[0]) == 0


def of_angles(*degrees: float) -> np.ndarray:
    """Points on a circle: float32 (N, 2)."""
    return np.column_stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]).astype(np.float32)


def test_every_copy_is_named_but_no_neighbour_of_the_original():
    # A slice, its neighbour, a first copy and a second one, whose nearest is the first.
    points, groups = of_angles(0, 20, 4, 7), np.array([1, 1, -1, -1])
    rows = np.arange(4)
    assert near_pairs(points, rows, rows, groups, 0.1)[0].tolist() == [[2, 3], [0, 2]]
    assert near_pairs(points, rows[:2], rows[2:], groups, 0.1)[0].tolist() == [[0, 2], [0, 3]]
    assert near_pairs(points, rows, rows, ALONE, 0.1)[0].tolist() == [[2, 3], [0, 2], [1, 3]]


def test_a_patient_on_both_sides_has_a_pair_and_its_other_slices_none():
    points, groups = of_angles(0, 4, 7, 90), np.array([7, 7, 7, 8])
    rows = np.arange(4)
    assert near_pairs(points, rows[:1], rows[1:], groups, 0.1)[0].tolist() == [[0, 1]]
    groups[2] = 9  # another patient's copy of it
    assert near_pairs(points, rows[:1], rows[1:], groups, 0.1)[0].tolist() == [[0, 1], [0, 2]]


def test_of_identical_images_each_is_named_whatever_its_group():
    points, groups = of_angles(0, 0, 0, 0, 90), np.array([1, 2, 2, 3, 3])
    rows = np.arange(5)
    assert near_pairs(points, rows, rows, groups, 1e-5)[0].tolist() == [[0, 1], [0, 2], [0, 3]]


def test_all_pairs_within_a_distance(monkeypatch):
    monkeypatch.setattr("features.audit.near._BLOCK", 33)
    points = whiten([clouds(200)])
    rows, columns = np.nonzero(np.triu(1 - points @ points.T < 0.6, 1))
    found = np.concatenate([*pairs_within(points, 0.6)])
    assert len(found) > 50
    assert {tuple(pair) for pair in found} == set(zip(rows.tolist(), columns.tolist(), strict=True))
