from dataclasses import fields

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from classify.models.curves import mean_auc
from classify.models.heads import HeadSpec
from classify.models.presets import DEFAULT_PRESETS, PRESETS, preset
from features.common.errors import InputError


def test_the_challenges_head_is_that_of_its_author():
    challenge = preset("challenge")
    assert challenge.count_parameters(width=2048, labels=3) == 10_243
    assert challenge.patience_epochs == 10
    assert challenge == HeadSpec(
        hidden_units=(),
        batch_norm=True,
        dropout=0.5,
        l2=1e-4,
        optimiser="adam",
        learning_rate=1e-5,
        batch_size=16,
        epochs=100,
    )


def test_presets_differ_and_are_hashable():
    assert set(PRESETS) == {"challenge", "challenge-sgd", "linear", "ridge", "wide", "deep"}
    assert len(set(PRESETS.values())) == len(PRESETS)
    assert set(DEFAULT_PRESETS) < set(PRESETS)
    assert preset("ridge").l2 > preset("linear").l2
    assert preset("challenge-sgd").optimiser == "sgd"
    assert len(preset("deep").hidden_units) > len(preset("wide").hidden_units) > len(preset("linear").hidden_units)


def test_an_unknown_preset_is_answered_with_the_known():
    with pytest.raises(InputError, match=r"no preset 'huge'\. Choose from challenge, challenge-sgd, linear"):
        preset("huge")


def test_parameters_are_counted_by_layer():
    spec = HeadSpec(hidden_units=(4, 2), batch_norm=False)
    assert spec.count_parameters(width=10, labels=3) == (10 + 1) * 4 + (4 + 1) * 2 + (2 + 1) * 3


@pytest.mark.parametrize(
    ("patience", "epochs", "count"), [(7, 100, 7), (0.1, 100, 10), (0.1, 3, 1), (1.0, 50, 50), (1, 50, 1), (0.5, 7, 4)]
)
def test_patience_is_a_count_or_a_share_of_the_epochs(patience, epochs, count):
    assert HeadSpec(patience=patience, epochs=epochs).patience_epochs == count


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_units", (64, 0)),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("l2", -1e-4),
        ("l2", float("nan")),
        ("optimiser", "rmsprop"),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("class_weight", "heavy"),
        ("label_smoothing", 1.5),
        ("batch_size", 0),
        ("epochs", 0),
        ("patience", 0),
        ("patience", 1.5),
        ("seed", -1),
    ],
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(InputError, match=rf"^head: {name} is .*\. Give "):
        HeadSpec(**{name: value})
    assert name in {field.name for field in fields(HeadSpec)}


def test_the_auc_of_many_heads_is_scikit_learns():
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((200, 2, 5)).astype(np.float32) * 10
    logits[..., 3] = np.round(logits[..., 3])  # many ties
    logits[..., 4] = 0.5  # nothing but ties
    y = (generator.random((200, 2)) < 0.3).astype(np.uint8)
    expected = [np.mean([roc_auc_score(y[:, label], logits[:, label, head]) for label in (0, 1)]) for head in range(5)]
    np.testing.assert_allclose(mean_auc(logits, y), expected, atol=1e-6)
    assert expected[4] == 0.5


def test_labels_of_one_value_have_no_auc():
    logits = np.array([[[0.0], [1.0]], [[1.0], [0.0]]], dtype=np.float32)
    assert mean_auc(logits, np.array([[0, 1], [1, 1]], dtype=np.uint8)).tolist() == [1.0]
    assert np.isnan(mean_auc(logits, np.array([[0, 1], [0, 1]], dtype=np.uint8))).all()
