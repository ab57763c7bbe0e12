"""Files of presets: what is written is read back, and every fault is named."""

import json
from dataclasses import fields

import pytest

from classify.models.heads import PRESETS, HeadSpec, read_presets, write_presets
from features.common.errors import InputError

OTHER = HeadSpec(
    hidden_units=(64, 8),
    batch_norm=False,
    dropout=0.25,
    l2=1.7e-5,
    optimiser="sgd",
    learning_rate=0.003,
    class_weight="balanced",
    label_smoothing=0.1,
    output="softmax",
    batch_size=64,
    epochs=30,
    patience=5,
    seed=3,
)


def test_what_is_written_is_read_back_in_its_order(tmp_path):
    assert all(getattr(OTHER, field.name) != getattr(HeadSpec(), field.name) for field in fields(HeadSpec))
    heads = {"trial-12": OTHER, **PRESETS, "a_b+c.1": HeadSpec(patience=1.0)}
    write_presets(tmp_path / "found.json", heads)
    back = read_presets(tmp_path / "found.json")
    assert list(back) == list(heads)
    assert back == heads
    assert isinstance(back["a_b+c.1"].patience, float)  # a share of the epochs, not one epoch


def test_fields_that_are_left_out_have_their_defaults(tmp_path):
    (tmp_path / "mine.json").write_text('{"plain": {}, "wider": {"hidden_units": [32], "dropout": 0}}')
    assert read_presets(tmp_path / "mine.json") == {
        "plain": HeadSpec(),
        "wider": HeadSpec(hidden_units=(32,), dropout=0),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("dropout: 0.3", r"mine\.json is not JSON that can be read: .*\. Write it again\."),
        ('{"a": {}, "a": {}}', "'a' is duplicated in one object"),
        ('{"a": {"l2": 0, "l2": 1}}', "'l2' is duplicated in one object"),
        ("[" * 100_000, "is not JSON that can be read"),
        ("[{}]", r"holds no presets\. Expected a JSON object"),
        ("{}", "holds no presets"),
        ('{"a": 3}', "preset 'a' is 3. Expected an object of fields: hidden_units, "),
        ('{"a": {"units": [3]}}', "preset 'a' has no field 'units'. Expected some of hidden_units, batch_norm"),
        ('{"a": {"dropout": 1.5}}', "preset 'a': dropout is 1.5. Expected less than 1"),
        ('{"a": {"dropout": "0.5"}}', "preset 'a': dropout is '0.5'. Expected a valid number"),
        ('{"a": {"dropout": NaN}}', "dropout is nan. Expected a finite number"),
        ('{"a": {"l2": true}}', "l2 is True. Expected a valid number"),
        ('{"a": {"l2": null}}', "l2 is None. Expected a valid number"),
        ('{"a": {"hidden_units": 64}}', "hidden_units is 64. Expected a valid array"),
        ('{"a": {"hidden_units": [64.5]}}', r"hidden_units is \[64.5\]. Expected a valid integer"),
        ('{"a": {"hidden_units": [0]}}', r"hidden_units is \[0\]. Expected greater than or equal to 1"),
        ('{"a": {"hidden_units": [8, 16385]}}', "Expected less than or equal to 16384"),
        ('{"a": {"batch_norm": 1}}', "batch_norm is 1. Expected a valid boolean"),
        ('{"a": {"epochs": 10.0}}', "epochs is 10.0. Expected a valid integer"),
        ('{"a": {"optimiser": "rmsprop"}}', "optimiser is 'rmsprop'. Expected 'adam' or 'sgd'"),
        ('{"a": {"class_weight": ["none"]}}', r"class_weight is \['none'\]. Expected 'none' or 'balanced'"),
        ('{"a": {"output": "tanh"}}', "output is 'tanh'. Expected 'sigmoid' or 'softmax'"),
        ('{"a/b": {}}', "'a/b' cannot name a preset"),
        ('{"a,b": {}}', "'a,b' cannot name a preset"),
        ('{"a__b": {}}', "'a__b' cannot name a preset"),
        ('{"": {}}', "'' cannot name a preset"),
        (json.dumps({"a" * 65: {}}), f"'{'a' * 65}' cannot name a preset. Use up to 64 letters"),
    ],
)
def test_a_fault_is_named_with_its_file(tmp_path, content, message):
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(InputError, match=message) as raised:
        read_presets(tmp_path / "mine.json")
    assert str(raised.value).startswith(str(tmp_path / "mine.json"))


def test_a_file_that_is_not_there_or_not_text_or_not_to_be_written(tmp_path):
    with pytest.raises(InputError, match=r"none\.json cannot be read: No such file or directory"):
        read_presets(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not JSON that can be read"):
        read_presets(tmp_path / "bytes.json")
    with pytest.raises(InputError, match=r"cannot be written: No such file or directory"):
        write_presets(tmp_path / "none" / "out.json", {"a": OTHER})


def test_layers_are_written_as_a_list(tmp_path):
    write_presets(tmp_path / "out.json", {"a": OTHER})
    assert json.loads((tmp_path / "out.json").read_text())["a"]["hidden_units"] == [64, 8]
