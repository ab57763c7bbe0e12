"""classify.rundir.schema: a record that was changed and sealed again predicts only if it still says how."""

import json
from copy import deepcopy
from dataclasses import asdict
from functools import reduce
from typing import Any

import pytest

from classify.rundir.folder import seal
from classify.rundir.saved_run import SavedRun
from classify.rundir.schema import can_predict
from features.common.errors import InputError
from features.store.recipe import Recipe

RECORD: dict[str, Any] = {
    "data": "data",
    "cache": "cache",
    "labels": ["a", "b"],
    "backbones": {"net": {"width": 3, "views": "1", "recipe": asdict(Recipe("net", "random", "0" * 32, "none", 8))}},
    "splits": {"train": {"images": 9, "rejected": [], "positives": {"a": 4, "b": 5}}, "test": {"images": 0}},
    "models": {
        "one/net": {"backbones": ["net"], "members": [], "shares": {}, "files": ["models/one__net/fold0.skops"]},
        "mean": {"backbones": [], "members": ["one/net"], "shares": {"one/net": 1.0}, "files": ["models/mean.skops"]},
    },
    "final_model": "mean",
    "files": {"models/mean.skops": "0"},
    "arguments": {"tta": "mean", "seed": 0},
}
#: A field, as the keys that lead to it, and what it may not be.
ODD = [
    ("labels", []),
    ("labels", None),
    ("final_model", "other"),
    ("splits.train", None),
    ("splits.train.images", -1),
    ("splits.train.positives", {"a": 4}),
    ("splits.train.known", {"a": 4}),
    ("backbones", {}),
    ("backbones.net.width", "x"),
    ("backbones.net.recipe", {}),
    ("backbones.net.recipe.input_size", None),
    ("models.mean.members", ["mean"]),
    ("models.mean.members", ["other"]),
    ("models.mean.files", []),
    ("models.one/net.members", ["mean"]),
    ("models.one/net.backbones", ["other"]),
    ("models.one/net.shares", [1]),
    ("arguments", []),
    ("arguments.tta", "../x"),
    ("files", "x"),
]


def changed(place: str, value: Any) -> dict[str, Any]:
    record = deepcopy(RECORD)
    *above, last = place.split(".")
    reduce(lambda within, key: within[key], above, record)[last] = value
    return record


def test_a_record_as_runs_write_it_can_predict_also_from_json():
    assert can_predict(RECORD)
    assert can_predict(json.loads(json.dumps(RECORD)))
    assert can_predict({name: value for name, value in RECORD.items() if name != "arguments"})


@pytest.mark.parametrize(("place", "value"), ODD)
def test_an_odd_record_is_refused_though_its_seal_is_right(tmp_path, place, value):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mean.skops").touch()
    seal(tmp_path, RECORD)
    assert SavedRun.open(tmp_path).final_model == "mean"
    record = changed(place, value)
    assert not can_predict(record)
    if place != "files":  # which is made when a run is sealed
        seal(tmp_path, record)
        with pytest.raises(InputError, match=r"run\.json was changed by hand, or is damaged\. Put the original back"):
            SavedRun.open(tmp_path)
