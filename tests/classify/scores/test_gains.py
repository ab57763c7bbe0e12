"""The return of a backbone is what it adds to the mean of those before it."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from classify.crossfit.plan import Prediction
from classify.scores.gains import rank_backbones
from classify.scores.resampling import resample

#: All rows by one model.
ONE_FOLD = np.zeros((1, 400), int)


def make_members(rows: int = 400) -> tuple[dict[str, Prediction], np.ndarray]:
    """Backbones: `weak` knows little, `strong` knows most, `copy` knows what `strong` knows, `other` something else."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (rows, 2)).astype(np.uint8)
    truth = 2.0 * labels - 1
    strong = truth + 1.5 * rng.normal(size=truth.shape)
    scores = {
        "weak": truth + 9 * rng.normal(size=truth.shape),
        "strong": strong,
        "copy": strong + 0.4 * rng.normal(size=truth.shape),
        "other": truth + 2 * rng.normal(size=truth.shape),
    }
    members = {
        f"logistic/{name}": Prediction((1 / (1 + np.exp(-z)))[None].astype(np.float32), None, backbones=(name,))
        for name, z in scores.items()
    }
    return members | {
        "logistic/all": Prediction(labels[None].astype(np.float32), None, backbones=tuple(scores))
    }, labels


def test_each_step_adds_the_backbone_that_raises_the_mean_the_most():
    members, labels = make_members()
    returns = rank_backbones(members, labels, ONE_FOLD, resample(400, None, 0))
    assert [r.backbone for r in returns][:2] == ["strong", "other"]
    assert {r.backbone for r in returns} == {"weak", "strong", "copy", "other"}
    before, chosen = 0.5, []
    for entry in returns:
        left = {r.backbone for r in returns} - set(chosen)
        aucs = {
            name: roc_auc_score(
                labels, sum(members[f"logistic/{n}"].out_of_fold.astype(float) for n in (*chosen, name))
            )
            for name in left
        }
        assert entry.macro_auc == pytest.approx(max(aucs.values()))
        assert aucs[entry.backbone] == pytest.approx(max(aucs.values()))
        assert entry.gain == pytest.approx(entry.macro_auc - before)
        assert entry.low < entry.gain < entry.high
        before, chosen = entry.macro_auc, [*chosen, entry.backbone]
    assert returns[1].low > 0  # the other view is worth having
    assert returns[-1].gain < 0


def test_a_backbone_is_the_mean_of_its_models():
    members, labels = make_members()
    twice = {
        "a": Prediction(members["logistic/weak"].by_repeat, None, backbones=("one",)),
        "b": Prediction(members["logistic/strong"].by_repeat, None, backbones=("one",)),
    }
    (entry,) = rank_backbones(twice, labels, ONE_FOLD, resample(400, None, 0, draws=5))
    mean = (twice["a"].out_of_fold.astype(float) + twice["b"].out_of_fold) / 2
    assert entry.macro_auc == pytest.approx(roc_auc_score(labels, mean))


def test_one_group_has_gains_without_intervals():
    members, labels = make_members()
    returns = rank_backbones(members, labels, ONE_FOLD, resample(400, np.full(400, "p"), 0, draws=5))
    assert {(r.low, r.high) for r in returns} == {(None, None)}
