from itertools import islice

import numpy as np
import pytest

from classify.bank.dropout import MASKS, draw_uniforms, rows_per_mask

STEPS, WIDTH = 20, 500


def draw(batch_size=256, seed=5, epoch=2, hidden_units=()):
    """The uniforms of all steps, stacked: of the features, and of the hidden layers."""
    drawn = list(islice(draw_uniforms(hidden_units, batch_size, 1000, WIDTH, seed, epoch), STEPS))
    return [np.stack(of_layer) for of_layer in zip(*drawn, strict=True)]


@pytest.mark.parametrize(
    ("batch_size", "shared"), [(1, 1), (16, 1), (32, 1), (33, 5), (64, 8), (70, 9), (256, 32), (257, 33)]
)
def test_only_rows_of_larger_batches_share_a_mask(batch_size, shared):
    assert rows_per_mask(batch_size) == shared
    drawn = draw(batch_size)[0]
    assert drawn.shape == (STEPS, -(-batch_size // shared), WIDTH)
    assert drawn.shape[1] <= (MASKS if shared > 1 else batch_size)


@pytest.mark.parametrize("batch_size", [256, 33])  # 33: seven masks
def test_shared_masks_hold_one_uniform_of_every_stratum(batch_size):
    drawn = draw(batch_size)[0]
    masks = drawn.shape[1]
    strata = np.floor(drawn * masks)
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(np.sort(strata, axis=1), np.broadcast_to(np.arange(masks)[:, None], drawn.shape))
    # In random order: every stratum is as often in every mask, and what follows it there is any other.
    share = np.array([[np.mean(strata[:, mask] == stratum) for stratum in range(masks)] for mask in range(masks)])
    np.testing.assert_allclose(share, 1 / masks, atol=0.015)  # 4 standard errors of 10,000 draws
    assert np.corrcoef(drawn[:, 0].ravel(), drawn[:, 1].ravel())[0, 1] == pytest.approx(-1 / (masks - 1), abs=0.04)


@pytest.mark.parametrize("keep", [0.4, 0.5, 0.7])
def test_every_mask_keeps_its_rate_and_every_feature_is_kept_almost_equally_often(keep):
    kept = draw()[0] < np.float32(keep)
    np.testing.assert_allclose(kept.mean(axis=(0, 2)), keep, atol=0.02)
    counts = kept.sum(axis=1)
    assert set(np.unique(counts)) == {np.floor(keep * MASKS), np.ceil(keep * MASKS)}
    assert counts.mean() == pytest.approx(keep * MASKS, abs=0.02)
    # Features are kept independently: the number kept in a mask varies as a binomial does.
    spread = kept.sum(axis=2).var()
    assert spread == pytest.approx(WIDTH * keep * (1 - keep), rel=0.4)


@pytest.mark.parametrize("batch_size", [16, 32])
def test_small_batches_draw_every_row_for_itself(batch_size):
    drawn = draw(batch_size)[0]
    assert drawn.shape == (STEPS, batch_size, WIDTH)
    assert len(np.unique(drawn)) > 0.98 * drawn.size
    assert abs(np.corrcoef(drawn[:, 0].ravel(), drawn[:, 1].ravel())[0, 1]) < 0.04


@pytest.mark.parametrize("batch_size", [16, 256])
def test_masks_follow_the_seed_and_the_epoch_and_not_the_heads(batch_size):
    drawn = draw(batch_size)[0]
    again, of_hidden = draw(batch_size, hidden_units=(6, 4))
    np.testing.assert_array_equal(drawn, again)
    assert of_hidden.shape == (STEPS, 10 * batch_size)
    assert abs(of_hidden.mean() - 0.5) < 0.05
    np.testing.assert_array_equal(of_hidden[0, : 6 * batch_size], draw(batch_size, hidden_units=(6,))[1][0])
    for other in (draw(batch_size, seed=6)[0], draw(batch_size, epoch=3)[0]):
        assert np.mean(drawn == other) < 0.01
    assert np.mean(drawn[0] == drawn[1]) < 0.01
