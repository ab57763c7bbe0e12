"""Benchmarks of whole runs: what they run, and that a run that fails is said."""

import pandas as pd
import pytest

from classify.models.heads import DEFAULT_PRESETS, read_presets
from features.common.errors import InputError
from scripts import benchmark_iterate, benchmark_run
from tests.classify.toy import make_toy


def test_a_whole_run_is_timed_and_a_run_that_fails_is_said(capsys):
    benchmark_run.benchmark_run(100, 20, 6, 2, ["--preset", "none", "--folds", "2"])
    said = capsys.readouterr().out
    assert "100 + 20 rows of 6 features, 2 labels" in said
    *_, row = said.splitlines()
    board, ended, cpu, peak, written = map(float, row.split())
    assert 0 < board <= ended
    assert min(cpu, peak, written) > 0
    with pytest.raises(InputError, match="the run failed: error: --preset 'nowhere'"):
        benchmark_run.benchmark_run(100, 0, 6, 2, ["--preset", "nowhere"])


def test_the_runs_in_turn_differ_in_a_head_a_rule_and_a_label_alone(tmp_path):
    toy = make_toy(tmp_path / "of")
    (toy.cache / "fits").mkdir()
    runs = {}
    for name, options in benchmark_iterate._prepare(tmp_path, toy.data, toy.cache):
        runs[name] = options, pd.read_csv(tmp_path / "data" / "train.csv")
    first, head, rule, label = runs.values()
    assert (first[0], label[0]) == ([], [])
    assert rule[0] == ["--threshold", "sensitivity=0.9"]
    assert len(read_presets(tmp_path / "changed.json")) == len(DEFAULT_PRESETS)
    assert head[0] == ["--preset", str(tmp_path / "changed.json")]
    assert first[1].equals(rule[1])
    assert int((first[1] != label[1]).to_numpy().sum()) == 1
    assert not (tmp_path / "cache" / "fits").exists()


def test_what_is_not_there_is_said_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match=r"train\.csv does not exist\. Run scripts/demo.sh, or give a data set"):
        benchmark_iterate.benchmark_iterate(tmp_path, tmp_path, 1)
