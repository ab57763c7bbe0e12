"""classify.rundir.schema: a record that was changed and sealed again is of a run only if it still says how."""

import json
from copy import deepcopy
from dataclasses import asdict
from functools import reduce
from typing import Any

import pytest

from classify.models.heads import HeadSpec
from classify.rundir.folder import seal
from classify.rundir.saved_run import SavedRun
from classify.rundir.schema import is_of_run
from features.common.errors import InputError
from features.store.recipe import Recipe

RECORD: dict[str, Any] = {
    "data": "data",
    "cache": "cache",
    "groups_from": "no groups",
    "arguments": {"tta": "mean", "seed": 0, "groups": None},
    "seconds": {"read": 0.1, "fit": 1},
    "versions": {"numpy": "2"},
    "labels": ["a", "b"],
    "backbones": {"net": {"width": 3, "views": "1", "recipe": asdict(Recipe("net", "random", "0" * 32, "none", 8))}},
    "splits": {
        "train": {"images": 9, "rejected": [], "positives": {"a": 4, "b": 5}, "fingerprints": {"net": "0"}},
        "test": {"images": 0, "rejected": [], "positives": None, "fingerprints": {"net": "0"}},
    },
    "folds": {"count": 2, "repeats": 1, "groups": None, "rows": [5, 4], "positives": {"a": [2, 2], "b": [3, 2]}},
    "models": {
        "one/net": {
            "converged": True,
            "fit_seconds": 0.5,
            "backbones": ["net"],
            "members": [],
            "shares": {},
            "files": ["models/one__net/fold0.skops"],
            "spec": asdict(HeadSpec()),
            "best_epochs": [3, 0],
        },
        "mean": {
            "converged": True,
            "fit_seconds": 0,
            "backbones": [],
            "members": ["one/net"],
            "shares": {"one/net": 1.0},
            "files": ["models/mean.skops"],
        },
    },
    "refit": False,
    "final_model": "mean",
    "files": {"models/mean.skops": "0"},
    "selection": {"rule": "mean", "means": "mean", "left_out": {}, "nested": None, "permutations": None},
    "calibration": None,
    "thresholds": {"rule": "f1", "promises": {}},
    "intervals": {"percentiles": [2.5, 97.5], "draws": 1000, "seed": 0, "unit": "row"},
    "undefined_metrics": [{"model": "mean", "split": "oof", "label": "a", "metric": "f1", "reason": "why"}],
    "incomplete_intervals": [],
    "warnings": [],
    "gap": None,
}
#: A field, as the keys that lead to it, and what it may not be.
ODD: list[tuple[str, Any]] = [
    ("labels", []),
    ("labels", None),
    ("final_model", "other"),
    ("splits.train", None),
    ("splits.train.images", -1),
    ("splits.train.positives", {"a": 4}),
    ("splits.train.known", {"a": 4}),
    ("labels", ["a", "a"]),
    ("backbones", {}),
    ("backbones.net.width", "x"),
    ("backbones.net.recipe", {}),
    ("backbones.net.recipe.input_size", None),
    ("splits.test", []),
    ("splits.test.fingerprints", {}),
    ("splits.train.images", True),
    ("folds.rows", [9]),
    ("folds.positives", {"a": [2, 2]}),
    ("folds.positives.b", [3]),
    ("folds.known", {"a": [5, 4], "b": ""}),
    ("models.mean.fit_seconds", None),
    ("models.mean.converged", ""),
    ("models.mean.shares", {"one/net": 1e308}),
    ("models.one/net.spec", 1e308),
    ("models.one/net.spec.epochs", "100"),
    ("models.one/net.spec", None),
    ("models.one/net.best_epochs", None),
    ("undefined_metrics", [{}]),
    ("intervals.seed", -1),
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


def test_a_record_as_runs_write_it_is_of_a_run_also_from_json():
    assert is_of_run(RECORD)
    assert is_of_run(json.loads(json.dumps(RECORD)))
    assert is_of_run(RECORD | {"exclusive": True, "note": "mine"})  # later than the format, so optional


@pytest.mark.parametrize(("place", "value"), ODD)
def test_an_odd_record_is_refused_though_its_seal_is_right(tmp_path, place, value):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mean.skops").touch()
    seal(tmp_path, RECORD)
    assert SavedRun.open(tmp_path).final_model == "mean"
    record = changed(place, value)
    assert not is_of_run(record)
    if place != "files":  # which is made when a run is sealed
        seal(tmp_path, record)
        with pytest.raises(InputError, match=r"run\.json was changed by hand, or is damaged\. Put the original back"):
            SavedRun.open(tmp_path)
