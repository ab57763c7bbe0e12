"""Seconds from a command to its leaderboard, run after run on one cache: `scripts/benchmark.py iterate`."""

import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
from rich.table import Table

from classify.crossfit.store import FITS
from classify.models.heads import DEFAULT_PRESETS, PRESETS
from features.common.errors import InputError
from features.common.text import make_console
from scripts.benchmark_run import time_run

#: How a line about finished fits begins.
_FITS = "fits: "
#: Files of a run whose bytes are compared: what it predicts, and what it found.
_COMPARED = ("predictions_probability", "predictions_binary", "oof_probability", "metrics", "thresholds", "curves")
_FIRST, _HEAD, _RULE, _LABEL = "first run", "one head changed", "another threshold", "one label corrected"


def benchmark_iterate(data: Path, cache: Path, repeats: int) -> None:
    """Print the table.

    Args:
        data: a data set with a `train.csv` of 0 and 1.
        cache: its features; finished fits that it holds are neither used nor changed.
        repeats: of all runs, in turn; medians are printed.

    Raises:
        InputError: the data set or its features are not there, or a run fails.
    """
    for path in (data / "train.csv", cache / "train"):
        if not path.exists():
            raise InputError(f"{path} does not exist. Run scripts/demo.sh, or give a data set and its cache.")
    spent: dict[str, list[tuple[float, float]]] = {}
    said: dict[str, str] = {}
    same: dict[str, bool] = {}
    for repeat in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for run, options in _prepare(Path(folder), data, cache):
                *seconds, said[run] = _run(Path(folder), "run", options)
                spent.setdefault(run, []).append((seconds[0], seconds[1]))
                if not repeat:
                    _run(Path(folder), "alone", [*options, "--fits-gb", "0"])
                    same[run] = all(
                        _content(Path(folder), "run", n) == _content(Path(folder), "alone", n) for n in _COMPARED
                    )
    table = Table(box=None, header_style="bold")
    for heading in ("run", "to the leaderboard, s", "range", "to the end, s", "bytes as without reuse", "fits"):
        table.add_column(heading, justify="left" if heading in ("run", "fits") else "right")
    for run, times in spent.items():
        boards, ends = zip(*times, strict=True)
        spread, equal = f"{min(boards):.1f} to {max(boards):.1f}", "the same" if same[run] else "OTHERS"
        table.add_row(
            run, f"{statistics.median(boards):.1f}", spread, f"{statistics.median(ends):.1f}", equal, said[run]
        )
    console = make_console()
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end; medians of {repeats} repeats")
    console.print(table)


def _prepare(folder: Path, data: Path, cache: Path) -> Iterator[tuple[str, list[str]]]:
    """Copy a data set and its cache; yields the runs by name, with their options, and changes a label for the last."""
    shutil.copytree(data, folder / "data")
    shutil.copytree(cache, folder / "cache", ignore=shutil.ignore_patterns(FITS))
    heads = {name: PRESETS[name] for name in DEFAULT_PRESETS}
    other = {name: replace(spec, learning_rate=1.1 * spec.learning_rate) for name, spec in heads.items()}
    (folder / "changed.json").write_text(json.dumps({f"{name}-faster": asdict(spec) for name, spec in other.items()}))
    yield _FIRST, []
    yield _HEAD, ["--preset", str(folder / "changed.json")]
    yield _RULE, ["--threshold", "sensitivity=0.9"]
    table = pd.read_csv(folder / "data" / "train.csv")
    label = next(name for name in table if set(table[name]) == {0, 1})
    table.loc[0, label] = 1 - table.loc[0, label]
    table.to_csv(folder / "data" / "train.csv", index=False)
    yield _LABEL, []


def _run(folder: Path, out: str, options: list[str]) -> tuple[float, float, str]:
    """Run the command; gives the seconds to its leaderboard and to its end, and what it said last of fits."""
    where = [str(folder / "data"), "--cache", str(folder / "cache"), "--out", str(folder / out), "--overwrite"]
    board, ended, lines = time_run([*where, *options])
    fits = [line.removeprefix(_FITS).strip() for line in lines if line.startswith(_FITS)]
    return board, ended, fits[-1] if fits else "none reused"


def _content(folder: Path, out: str, name: str) -> bytes:
    """The bytes of a table of a run."""
    return (folder / out / f"{name}.csv").read_bytes()
