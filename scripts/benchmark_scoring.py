"""Seconds and memory of stage 2 without heads, on features and labels made from numbers, at any size."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.table import Table

from classify.crossfit.models import Candidate, CrossFit
from classify.crossfit.plan import FitPlan, Prediction, in_threads, make_repeats
from classify.inputs import Inputs, SplitInputs
from classify.models.baselines import BASELINES, PRIOR
from classify.scores.choice import choose_nested
from classify.scores.resampling import resample
from classify.scores.scoring import ByFold, score
from classify.scores.thresholds import cross_fit_binary
from classify.settings import Settings
from features.common.text import make_console

_STATUS = Path("/proc/self/status")


def make_inputs(rows: int, width: int, label_count: int) -> Inputs:
    """Make features of one backbone without groups, and labels of 1 to 20 % that some of them tell."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, width)).astype(np.float32)
    lines = rng.normal(size=(width, label_count)).astype(np.float32) / np.float32(np.sqrt(width))
    signal = features @ lines + rng.normal(size=(rows, label_count)).astype(np.float32)
    shares = np.linspace(0.01, 0.2, label_count)
    cuts = [np.quantile(own, 1 - share) for own, share in zip(signal.T, shares, strict=True)]
    labels = (signal > cuts).astype(np.uint8)
    ids = tuple(map(str, range(rows)))
    train = SplitInputs(ids, np.ones(rows, bool), features, labels, None, {})
    names = tuple(f"label{index}" for index in range(label_count))
    return Inputs(names, {"backbone": slice(0, width)}, train, labels, None)


@contextmanager
def _timed(what: str, table: Table) -> Iterator[None]:
    """Add a row: wall seconds, CPU seconds, and the most memory that the process has had."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    spent = time.perf_counter() - wall, time.process_time() - cpu
    peak = next((line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")), "0")
    table.add_row(what, *(f"{seconds:.1f}" for seconds in spent), f"{int(peak) / 1e6:.2f}")


def benchmark_scoring(rows: int, width: int, label_count: int, baselines: tuple[str, ...], jobs: int) -> None:
    """Print the seconds of each step of stage 2 without heads, and the memory of the process after it."""
    console = make_console()
    table = Table(box=None, header_style="bold")
    for heading in ("step", "wall s", "CPU s", "peak GB"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    settings = Settings(jobs=jobs, baselines=baselines)
    with _timed("make features", table):
        inputs = make_inputs(rows, width, label_count)
    with _timed("folds", table):
        plan = FitPlan(make_repeats(inputs, settings.folds, 1, 0))
    predictions: dict[str, Prediction] = {}
    for name in (PRIOR, *baselines):
        with _timed(f"fit {name}", table):
            candidate = Candidate(BASELINES[name].make(), slice(0, width))
            predictions |= CrossFit({name: candidate}, inputs, plan).run(jobs).predictions
    with _timed("draws", table):
        drawn = resample(rows, None, 0)
    one = predictions[baselines[0]]
    with _timed("thresholds of a model", table):
        binary = cross_fit_binary(inputs.train_labels, one.out_of_fold, settings.threshold, plan.repeats[0])
    with _timed("scores of a model", table):
        of_rows = inputs.train_labels, one.out_of_fold, binary, predictions[PRIOR].out_of_fold
        by_fold = ByFold(one.by_repeat, plan.fold_of_row)
        in_threads(1, score, [(*of_rows, inputs.label_names, drawn, by_fold)])
    with _timed(f"nested choice among {len(predictions)}", table):
        choose_nested("roc_auc", predictions, (), inputs, (), plan.repeats[0], settings.seed, jobs)
    console.print(f"{rows} rows of {width} features, {label_count} labels, no groups, {jobs} jobs")
    console.print(table)
