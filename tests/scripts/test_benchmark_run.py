"""Benchmarks of whole runs: what they run, and that a run that fails is said."""

import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

import classify.__main__
import features.__main__
from classify.models.heads import DEFAULT_PRESETS, read_presets
from features.common.errors import InputError
from features.common.text import make_console
from scripts import benchmark, benchmark_iterate, benchmark_run, benchmark_scale
from scripts.benchmark_scale import Spent
from tests.classify.toy import make_toy

_OF_RUN = ("run", "predict", "report")
_APPS = {"features": features.__main__.app, "classify": classify.__main__.app}


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


def test_commands_are_measured_at_each_size_and_one_that_fails_is_said(tmp_path, monkeypatch, capsys):
    tables, measure = [], benchmark_scale._run

    def run_here(words, log):
        """The commands in this process, which has imported what they need."""
        if words[2] not in _APPS:
            return measure(words, log)
        result = CliRunner().invoke(_APPS[words[2]], list(words[3:]))
        assert result.exit_code == 0, result.output
        return Spent(1.0, 1.0, 10**8)

    monkeypatch.setattr(benchmark_scale, "_run", run_here)
    monkeypatch.setattr(benchmark_scale, "tabulate", lambda *found: tables.append(found) or "")
    benchmark_scale.benchmark_scale([100], 6, "float16", ["--baselines", "logistic", "--preset", "none"])
    [(found, counts)] = tables
    assert counts == [100]
    assert [*found][:2] + [*found][-3:] == ["assembly", "features verify", *(f"classify {n}" for n in _OF_RUN)]
    spent = found["assembly"][100]
    assert (spent.of_cpu > 0.1, 0.1 < spent.seconds < 600, 1e7 < spent.peak < 1e10) == (True, True, True)
    assert "100 rows, features audit: " in capsys.readouterr().out
    with pytest.raises(InputError, match="failed: no"):
        measure([sys.executable, "-c", "import sys; sys.exit('no')"], tmp_path / "log")


@pytest.mark.parametrize("rows", ["abc", "0", "100,-5", "10000,1e6"])
def test_numbers_of_rows_that_are_none_are_refused(rows):
    result = CliRunner().invoke(benchmark.app, ["scale", "--rows", rows])
    assert result.exit_code == 2
    assert "--rows" in result.output
    assert "whole numbers of at least 100" in result.output


def test_the_table_of_growth_says_seconds_of_cpu_a_row():
    table = benchmark_scale.tabulate(
        {"verify": {10: Spent(2.0, 1.0, 3 * 10**9), 1000: Spent(30.0, 45.0, 10**9)}}, [10, 1000]
    )
    console = make_console()
    with console.capture() as captured:
        console.print(table)
    heading, row = captured.get().splitlines()
    assert " ".join(heading.split()) == "command 10 rows: s ms of CPU a row GB 1,000 rows: s ms of CPU a row GB"
    assert row.split() == ["verify", "2.0", "100.000", "3.00", "30.0", "45.000", "1.00"]


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
