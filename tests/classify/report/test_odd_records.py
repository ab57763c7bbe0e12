"""A record that was changed and sealed again: the report and the comparison are made, or one message refuses it."""

import json
import random
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from classify.__main__ import app
from classify.rundir.schema import is_of_run
from tests.classify.report.conftest import GAP
from tests.classify.toy import reseal

#: What stands in the place of a field.
ODD: tuple[Any, ...] = (None, "", -1, 1e308, [], {}, True)
#: What `run --permutations` finds.
PERMUTATIONS = {"runs": 3, "p_value": 0.25, "values": [0.5, 0.4, 0.6]}


@pytest.fixture
def copied(plain_run, tmp_path) -> Path:
    """A run of one's own, with all kinds of fields."""
    folder = shutil.copytree(plain_run, tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    record["selection"]["permutations"] = PERMUTATIONS
    record["thresholds"]["promises"] = {"epidural": {"rests_on": "a bound"}}
    record["folds"]["known"] = dict.fromkeys(record["labels"], record["folds"]["rows"])
    for name in ("undefined_metrics", "incomplete_intervals"):
        record[name] = record[name][:2]
    reseal(folder, **record | {"gap": GAP, "warnings": ["a warning"], "note": "a note"})
    return folder


def fields(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """List all fields, however deep, by the keys that lead to them."""
    if path:
        yield path
    within = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in within:
        yield from fields(inner, (*path, key))


def put(record: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A record with a field replaced; the same where what held the field was replaced before."""
    changed = deepcopy(record)
    within: Any = changed
    for key in path[:-1]:
        if not (key in within if isinstance(within, dict) else isinstance(within, list) and key < len(within)):
            return record
        within = within[key]
    if isinstance(within, dict | list) and len(within):
        within[path[-1]] = value
    return changed


def play(*words: Path | str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


@pytest.mark.parametrize("seed", range(2))
def test_with_all_odd_values_that_a_record_may_hold_at_once_report_and_comparison_are_made(seed, copied, plain_run):
    generator = random.Random(seed)
    whole = json.loads((copied / "run.json").read_text())
    record, kept = whole, set()
    paths = [path for path in fields(whole) if path[0] not in ("format", "files", "seal")]
    for path in generator.sample(paths, len(paths)):
        for value in generator.sample(ODD, len(ODD)):
            if is_of_run(changed := put(record, path, deepcopy(value))):
                record = changed
                kept.add(path[0])
                break
    assert {"note", "selection", "gap", "models", "warnings"} <= kept
    reseal(copied, **record)
    for words in (("report", copied), ("compare", copied, plain_run, "--out", copied / "compare.html")):
        code, said = play(*words)
        assert code == 0, said


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("backbones",), None),
        (("folds", "known", "epidural"), ""),
        (("models", "logistic/beta", "members"), True),
        (("models", "logistic/beta", "fit_seconds"), None),
        (("backbones", "alpha", "recipe"), {"a": 1}),
        (("splits", "test"), []),
        (("models", "tiny/alpha", "spec"), 1e308),
    ],
)
def test_a_record_that_cannot_be_shown_is_one_message(path, value, copied, plain_run):
    record = json.loads((copied / "run.json").read_text())
    reseal(copied, **put(record, path, value))
    for words in (("report", copied), ("compare", copied, plain_run, "--out", copied / "compare.html")):
        code, said = play(*words)
        assert code == 2
        assert said.startswith(f"error: {copied / 'run.json'} was changed by hand, or is damaged. Put the original")
        assert said.count("\n") == 1
    assert not list(copied.glob("*.html"))
