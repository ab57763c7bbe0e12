from dataclasses import replace

import pytest

from classify.models.heads import DEFAULT_PRESETS, PRESETS, HeadSpec, read_presets, write_presets
from features.common.errors import InputError


def test_the_challenges_head_is_that_of_its_author():
    challenge = PRESETS["challenge"]
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
    assert set(PRESETS) == {"challenge", "challenge-sgd", "linear", "linear-l2", "wide", "deep"}
    assert len(set(PRESETS.values())) == len(PRESETS)
    assert set(DEFAULT_PRESETS) < set(PRESETS)
    assert PRESETS["linear-l2"].l2 > PRESETS["linear"].l2
    assert PRESETS["challenge-sgd"].optimiser == "sgd"
    assert len(PRESETS["deep"].hidden_units) > len(PRESETS["wide"].hidden_units) > len(PRESETS["linear"].hidden_units)


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 16), (355, 16), (511, 16), (512, 32), (600, 32), (1024, 64), (8542, 256), (10**6, 256)]
)
def test_a_batch_is_chosen_by_the_rows(rows, size):
    chosen = PRESETS["deep"].for_rows(rows)
    assert chosen == replace(PRESETS["deep"], batch_size=size)
    assert size == 16 or rows / size >= 16  # steps an epoch
    assert PRESETS["challenge"].for_rows(rows) is PRESETS["challenge"]


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
def test_a_value_out_of_range_is_named(tmp_path, name, value):
    write_presets(tmp_path / "mine.json", {"a": HeadSpec(**{name: value})})
    with pytest.raises(InputError, match=rf"mine\.json: preset 'a': {name} is .*\. Expected "):
        read_presets(tmp_path / "mine.json")


def test_every_preset_is_in_range(tmp_path):
    write_presets(tmp_path / "all.json", PRESETS)
    assert read_presets(tmp_path / "all.json") == PRESETS
