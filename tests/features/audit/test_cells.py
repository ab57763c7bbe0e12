"""Of very many images the nearest is searched in some cells, and is that of a full search."""

import numpy as np
import pytest

from features.audit import near
from features.audit.cells import Cells
from features.audit.near import choose_threshold, join_near, near_pairs, pairs_within, whiten


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    """Points of 3,000 images of 300 patients, and of 60 copies of theirs, which come last."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(300, 30)).repeat(10, axis=0) + rng.normal(size=(3000, 30))
    features = latent @ rng.normal(size=(30, 50)) + 0.3 * rng.normal(size=(3000, 50))
    copies = features[::50] + 0.1 * rng.normal(size=(60, 50))
    return whiten([np.concatenate([features, copies]).astype(np.float32)])


GROUPS = np.append(np.arange(3000) // 10, np.full(60, -1))


def test_a_point_belongs_to_the_cell_with_the_nearest_middle(points):
    cells = Cells.of(points)
    assert cells.of_point.shape == (3060, 8)
    assert cells.count == 55
    middles = np.array([points[cells.of_point[:, 0] == cell].mean(axis=0) for cell in range(cells.count)])
    nearest = np.linalg.norm(points[:, None] - middles, axis=2).argsort(axis=1)[:, :8]
    assert (nearest[:, 0] == cells.of_point[:, 0]).mean() > 0.7  # the middles are those of a sample
    assert np.array_equal(Cells.of(points).of_point, cells.of_point)


def test_near_images_are_those_of_a_full_search(points):
    cells, limit = Cells.of(points), choose_threshold(points).distance
    pairs = np.concatenate([*pairs_within(points, limit)])
    assert len(pairs) >= 60
    np.testing.assert_array_equal(np.unique(np.concatenate([*pairs_within(points, limit, cells)]), axis=0), pairs)
    every, copies = np.arange(3060), np.arange(3000, 3060)
    for first, second in ((every, every), (copies, every[:3000]), (every[:3000], copies), (copies[:0], every)):
        found = near_pairs(points, first, second, GROUPS, limit, cells)
        expected = near_pairs(points, first, second, GROUPS, limit)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


def test_an_image_without_another_in_its_cells_has_no_nearest(points):
    one_group = np.zeros(3060, int)
    cells = Cells.of(points)
    _, distance = cells.nearest_of(points, np.arange(3060), np.arange(3060), one_group)
    assert np.isinf(distance).all()


def test_a_sample_estimates_the_threshold_of_all_pairs(points, monkeypatch):
    whole = choose_threshold(points)
    monkeypatch.setattr(near, "FULL_SEARCH", 1000)
    monkeypatch.setattr(near, "_SAMPLED", 1000)
    sampled = choose_threshold(points)
    assert sampled.distance == pytest.approx(whole.distance, rel=0.03)
    assert sampled.exponent == pytest.approx(whole.exponent, rel=0.03)


@pytest.mark.parametrize("full", [False, True])
def test_images_that_are_all_alike_are_joined_by_few_links(full, monkeypatch, recwarn):
    monkeypatch.setattr(near, "_WAITING", 5000)
    monkeypatch.setattr(near, "_BLOCK", 100)
    monkeypatch.setattr("features.audit.cells._ROWS", 100)
    alike = whiten([np.repeat(np.eye(4, dtype=np.float32), 250, axis=0)])
    kept = []
    span = near._span
    monkeypatch.setattr(near, "_span", lambda links, count: kept.append(len(links)) or span(links, count))
    links = join_near(alike, 1e-5, None if full else Cells.of(alike))
    assert len(links) == 996
    assert (links[:, 0] == links[:, 1] // 250 * 250).all()
    assert sum(kept) > 4 * 250 * 249 / 2 > 2 * max(kept)  # of all pairs some at a time
    assert not recwarn.list
