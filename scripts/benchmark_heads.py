"""Measure the bank against Keras' own training, head for head: `scripts/benchmark.py heads`."""

import itertools
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from classify.bank.train import HeadSplit, train_bank
from classify.crossfit.plan import in_threads
from classify.models.files import HEAD_SUFFIX
from classify.models.heads import HeadSpec
from classify.models.keras_file import write_keras
from classify.models.trained_head import TrainedHead
from extract.runtime import cores
from features.common.keras_import import import_keras, import_tensorflow
from features.common.text import make_console

#: The challenge's training rows, one pooled backbone, its labels (CONTEXT: 8,542 images); a fifth validates.
ROWS, WIDTH, LABELS = 8542, 2048, 3
_VALIDATION = ROWS // 5
#: Keras' settings: (jit_compile, steps_per_execution). Its best counts.
_SETTINGS = ((False, 1), (False, 32), (True, 1), (True, 32))


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: what the table says.
        specs: the heads of the bank; Keras trains the first.
        wanted: how many times faster per head the bank is meant to be.
    """

    name: str
    specs: list[HeadSpec]
    wanted: int


def cases() -> list[Case]:
    """The three comparisons: 100 linear heads at batch 256 and at 16, and 20 heads with 64 hidden units."""
    grid = [
        HeadSpec(learning_rate=rate, l2=l2, dropout=dropout, batch_size=256, patience=1.0)
        for dropout, rate, l2 in itertools.product(
            (0.5, 0.2, 0.3, 0.4, 0.6), (1e-5, 3e-5, 1e-4, 3e-4, 1e-3), (1e-5, 1e-4, 1e-3, 1e-2)
        )
    ]
    return [
        Case("100 linear, batch 256", grid, 100),
        Case("100 linear, batch 16", [replace(spec, batch_size=16) for spec in grid], 30),
        Case("20 of 64 hidden units, batch 256", [replace(spec, hidden_units=(64,)) for spec in grid[:20]], 15),
    ]


def benchmark_heads(epochs: int, repeats: int) -> None:
    """Print the table of ratios.

    Args:
        epochs: of a timed training.
        repeats: of both ways, alternating.
    """
    console = make_console()
    import_keras()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # fit retraces for the last batch, and says so
    generator = np.random.default_rng(0)
    X = generator.standard_normal((ROWS, WIDTH), dtype=np.float32)
    y = (generator.random((ROWS, LABELS)) < 0.3).astype(np.uint8)
    load = os.getloadavg()[0]
    console.print(
        f"{ROWS} rows of {WIDTH} features, {LABELS} labels, {os.cpu_count()} cores (load {load:.1f}); seconds an epoch "
        f"when warm, medians of {repeats} alternating repeats of {epochs} epochs"
    )
    table = Table(box=None, header_style="bold")
    for column in (
        "heads",
        "Keras, one head",
        "its best",
        "bank, all",
        "ratio per head",
        "range",
        "wanted",
    ):
        table.add_column(column, justify="left" if column == "heads" else "right")
    table.add_column("GFLOP/s of the machine's", justify="right")
    for case in cases():
        table.add_row(*_compare(case, X, y, epochs, repeats))
    console.print(table)
    console.print("the bank: its heads split between as many threads as there are cores, as folds are in a search")


def _compare(case: Case, X: np.ndarray, y: np.ndarray, epochs: int, repeats: int) -> list[str]:
    """Time both ways, one after the other; returns a row of the table."""
    keras_fits = {setting: _keras_epoch(case.specs[0], X, y, *setting) for setting in _SETTINGS}
    # One epoch of each decides which settings are worth the repeats: XLA can be 30 times slower here.
    once = {setting: _seconds(fit) for setting, fit in keras_fits.items()}
    best = min(once, key=lambda setting: once[setting])
    usual, ours, rates = [], [], []
    for _ in range(repeats):
        usual.append(_seconds(lambda: [keras_fits[best]() for _ in range(epochs)]) / epochs)
        rates.append(_matrix_product_rate())
        ours.append(_seconds(lambda: _train_bank(case.specs, X, y, epochs)) / epochs)
    ratios = [len(case.specs) * keras / bank for keras, bank in zip(usual, ours, strict=True)]
    # Products of (B, D): with the kernels forward and back; the masks' smaller ones are not counted as useful.
    columns = sum((spec.hidden_units or (LABELS,))[0] for spec in case.specs)
    flops = 2 * WIDTH * columns * (2 * (ROWS - _VALIDATION) + _VALIDATION)
    reached, possible = flops / statistics.median(ours) / 1e9, statistics.median(rates)
    return [
        case.name,
        f"{statistics.median(usual):.3f}",
        f"jit {'on' if best[0] else 'off'}, {best[1]} steps",
        f"{statistics.median(ours):.3f}",
        f"{statistics.median(ratios):.0f}",
        f"{min(ratios):.0f} to {max(ratios):.0f}",
        str(case.wanted),
        f"{reached:.0f} of {possible:.0f}: {reached / possible:.0%}",
    ]


def _keras_epoch(
    spec: HeadSpec, X: np.ndarray, y: np.ndarray, jit: bool, steps_per_execution: int
) -> Callable[[], Any]:
    """A warm Keras model of a spec; calling it trains and validates for one epoch."""
    keras = import_keras()
    # The bank's own export gives the same layers; one epoch on a few rows is enough to build them.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"head{HEAD_SUFFIX}"
        path.write_bytes(write_keras(_untrained(spec)))
        model = keras.saving.load_model(path)
    model.compile(
        keras.optimizers.Adam(spec.learning_rate),
        "binary_crossentropy",
        jit_compile=jit,
        steps_per_execution=steps_per_execution,
    )
    held = slice(0, _VALIDATION)
    learnt = slice(_VALIDATION, None)
    truth = y.astype(np.float32)

    def fit() -> Any:
        return model.fit(
            X[learnt], truth[learnt], batch_size=spec.batch_size, validation_data=(X[held], truth[held]), verbose=0
        )

    fit()
    return fit


def _untrained(spec: HeadSpec) -> TrainedHead:
    """A head of the spec's layers after one short epoch."""
    X = np.zeros((4, WIDTH), np.float32)
    y = np.tile(np.array([[0], [1]], np.uint8), (2, LABELS))
    return train_bank([replace(spec, epochs=1)], X, y, HeadSplit(np.arange(2), np.arange(2, 4)))[0]


def _train_bank(specs: list[HeadSpec], X: np.ndarray, y: np.ndarray, epochs: int) -> None:
    """Train all heads, in as many banks as there are cores."""
    rows = np.arange(ROWS)
    parts = [[replace(spec, epochs=epochs) for spec in specs[start :: cores()]] for start in range(cores())]
    in_threads(cores(), train_bank, [(part, X, y, HeadSplit(rows[_VALIDATION:], rows[:_VALIDATION])) for part in parts])


def _seconds(action: Callable[[], Any]) -> float:
    """Wall-clock seconds of a call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _matrix_product_rate() -> float:
    """GFLOP/s of a float32 product of two square matrices in TensorFlow."""
    tf = import_tensorflow()
    matrix = tf.random.stateless_normal((2048, 2048), (0, 0))
    tf.linalg.matmul(matrix, matrix)
    times = [_seconds(lambda: tf.linalg.matmul(matrix, matrix).numpy()) for _ in range(5)]
    return 2 * 2048**3 / statistics.median(times) / 1e9
