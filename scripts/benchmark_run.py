"""Seconds and memory of a whole `classify run` on features drawn by a seed, at any size: `scripts/benchmark.py run`."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from features.common.errors import InputError
from features.common.files import digest
from features.common.text import make_console
from features.store.assembly import assemble
from features.store.images_table import ImageFacts
from features.store.parts import PartStore, Rows
from features.store.recipe import Recipe
from scripts.benchmark_scoring import make_inputs

ROOT = Path(__file__).resolve().parents[1]
#: Rows of a group: slices of a patient.
_OF_GROUP = 10


def benchmark_run(rows: int, test_rows: int, width: int, label_count: int, options: list[str]) -> None:
    """Print the seconds to the leaderboard and to the end, the CPU seconds, and the most memory.

    Args:
        rows: of train, in groups of 10.
        test_rows: of test, without labels; 0 for none.
        width: of the features of the one backbone.
        label_count: labels that some features tell, of 1 to 20 % of the rows.
        options: more of the command's.

    Raises:
        InputError: the run fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, rows, test_rows, width, label_count)
        where = [str(folder / "data"), "--cache", str(folder / "cache"), "--out", str(folder / "run")]
        board, ended, _ = time_run([*where, *options])
        written = sum(path.stat().st_size for path in (folder / "run").rglob("*") if path.is_file())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    table = Table(box=None, header_style="bold")
    row = (f"{board:.0f}", f"{ended:.0f}", f"{used.ru_utime + used.ru_stime:.0f}", f"{used.ru_maxrss / 1e6:.2f}")
    for heading in ("to the leaderboard, s", "to the end, s", "CPU s", "peak GB", "run folder, MB"):
        table.add_column(heading, justify="right")
    table.add_row(*row, f"{written / 1e6:.2f}")
    console = make_console()
    size = f"{rows} + {test_rows} rows of {width} features, {label_count} labels"
    console.print(f"{size}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end; {' '.join(options)}")
    console.print(table)


def time_run(words: Sequence[str]) -> tuple[float, float, list[str]]:
    """Run `classify run` with some words; gives the seconds to its leaderboard and to its end, and what it said.

    Raises:
        InputError: the run fails.
    """
    started = time.perf_counter()
    board, lines = 0.0, []
    with subprocess.Popen(
        [sys.executable, "-m", "classify", "run", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if line.startswith("final model: "):  # the leaderboard's last line but for the thresholds
                board = time.perf_counter() - started
    if process.returncode:
        raise InputError(f"the run failed: {''.join(lines)}")
    return board, time.perf_counter() - started, lines


def _write(folder: Path, rows: int, test_rows: int, width: int, label_count: int) -> None:
    """Write a data set of empty images, and their features."""
    inputs = make_inputs(rows + test_rows, width, label_count)
    for split, part in (("train", slice(0, rows)), ("test", slice(rows, rows + test_rows))):
        ids = [f"{split}{number:07d}" for number in range(part.stop - part.start)]
        if not ids:
            continue
        (folder / "data" / split).mkdir(parents=True)
        for image_id in ids:
            (folder / "data" / split / f"{image_id}.png").touch()
        table = pd.DataFrame({"ID": ids})
        if split == "train":
            labels = pd.DataFrame(inputs.train_labels[part], columns=list(inputs.label_names))
            table = pd.concat([table, labels, pd.Series(np.arange(rows) // _OF_GROUP, name="patient")], axis=1)
        table.to_csv(folder / "data" / f"{split}.csv", index=False)
        path, digests = folder / "cache" / split / "backbone.h5", [digest(b"")] * len(ids)
        recipe = Recipe("backbone", "random", "0" * 32, "none", 32)
        parts = PartStore(path.with_suffix(".parts") / recipe.fingerprint)
        facts = (ImageFacts(1, 1, 1, 8, 0.0, 0.0),) * len(ids)
        parts.add(Rows(tuple(ids), tuple(digests), inputs.train.features[part, np.newaxis], facts, None))
        assemble(path, recipe, {"device": "none", "engine": "none"}, dict(zip(ids, digests, strict=True)), None, parts)
        parts.remove()
