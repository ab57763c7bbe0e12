"""Seconds and memory of commands at growing numbers of rows, drawn by a seed: `scripts/benchmark.py scale`."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.table import Table

from features.common.errors import InputError
from features.common.files import digest
from features.common.text import make_console
from features.store.assembly import assemble
from features.store.images_table import FactsTable, ImageFacts, SeenImage, Stamp
from features.store.mapped import in_blocks
from features.store.parts import PartStore, Rows
from features.store.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
#: Fewer rows have too few positives of the rarest label to be folded.
LEAST_ROWS = 100
#: Rows of a group: slices of a patient.
_OF_GROUP = 10
#: What features follow: so many directions, of falling strength, which patients share in part, and noise.
_DIRECTIONS = 96
#: The shares of positives of the challenge's labels.
_SHARES = {"epidural": 0.04, "intraparenchymal": 0.37, "subarachnoid": 0.35}
_FACTS = ImageFacts(128, 128, 1, 8, 50.0, 30.0)


class Spent(NamedTuple):
    """What a command took: wall seconds, those of CPU, and the most memory that it held, in bytes."""

    seconds: float
    of_cpu: float
    peak: int


def benchmark_scale(row_counts: Sequence[int], width: int, storage: str, options: Sequence[str]) -> None:
    """Print a table: each command's seconds and peak memory at each number of rows.

    Args:
        row_counts: of train; there is no test split.
        width: of the features of the one backbone.
        storage: float16 or float32, of the cache.
        options: of `classify run`.

    Raises:
        InputError: a command fails.
    """
    found: dict[str, dict[int, Spent]] = {}
    for rows in row_counts:
        with tempfile.TemporaryDirectory() as name:
            for step, spent in _measure(Path(name), rows, width, storage, options):
                found.setdefault(step, {})[rows] = spent
                said = f"{spent.seconds:.1f} s, {spent.of_cpu:.1f} s of CPU, {spent.peak / 1e9:.2f} GB"
                print(f"{rows:,} rows, {step}: {said}", flush=True)
    console = make_console()
    console.print(
        f"{width} features of {storage}, 3 labels, groups of {_OF_GROUP}; classify run {' '.join(options)}; "
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the end"
    )
    console.print(tabulate(found, row_counts))


def tabulate(found: Mapping[str, Mapping[int, Spent]], row_counts: Sequence[int]) -> Table:
    """A row per command; of each number of rows the seconds, those of CPU a row, and the memory."""
    table = Table(box=None, header_style="bold")
    table.add_column("command")
    for rows in row_counts:
        for heading in (f"{rows:,} rows: s", "ms of CPU a row", "GB"):
            table.add_column(heading, justify="right")
    for step, of_rows in found.items():
        cells = []
        for rows in row_counts:
            spent = of_rows[rows]
            cells += [f"{spent.seconds:.1f}", f"{1000 * spent.of_cpu / rows:.3f}", f"{spent.peak / 1e9:.2f}"]
        table.add_row(step, *cells)
    return table


def _measure(folder: Path, rows: int, width: int, storage: str, options: Sequence[str]) -> Iterator[tuple[str, Spent]]:
    """Write a data set and its parts, then run each command on it."""
    data, cache, run = folder / "data", folder / "cache", folder / "run"
    # Not in this process: a command begins with what the one that starts it holds.
    ourselves = [sys.executable, "-m", "scripts.benchmark_scale", str(folder), storage]
    _run([*ourselves, str(rows), str(width)], folder / "log")
    of_data = [str(data), "--group-column", "patient", "--cache", str(cache)]
    to_predict = ["--cache", str(cache), "--split", "train"]
    commands = {
        "assembly": ourselves,
        "features verify": ["features", "verify", str(cache)],
        "features describe": ["features", "describe", *of_data],
        "features audit": ["features", "audit", str(cache), "--data", str(data), "--group-column", "patient"],
        "classify run": ["classify", "run", *of_data, "--out", str(run), *options],
        "classify predict": ["classify", "predict", str(run), *to_predict, "--out", str(folder / "predictions")],
        "classify report": ["classify", "report", str(run)],
    }
    for name, words in commands.items():
        yield name, _run(words if name == "assembly" else [sys.executable, "-m", *words], folder / "log")


def _run(words: Sequence[str], log: Path) -> Spent:
    """Run a command, and ask the system what it took; what it says goes to a file."""
    started = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise InputError(f"{' '.join(words)} failed: {log.read_text()}")
    return Spent(time.perf_counter() - started, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss)


def _write(folder: Path, storage: str, rows: int, width: int) -> None:
    """Write a data set of empty images, and parts of their features, as an extraction leaves them before its end."""
    images = folder / "data" / "train"
    images.mkdir(parents=True)
    ids = [f"i{number:07d}" for number in range(rows)]
    for image_id in ids:
        (images / f"{image_id}.png").touch()
    rng = np.random.default_rng(0)
    strength = (1 / np.sqrt(np.arange(1, _DIRECTIONS + 1)))[:, None]
    mixing, lines = (strength * rng.normal(size=(_DIRECTIONS, columns)) for columns in (width, len(_SHARES)))
    mixing, parts = mixing.astype(np.float32), _parts(folder, storage)
    scores = np.empty((rows, len(_SHARES)), np.float32)
    for block in in_blocks(rows):
        count, own = block.stop - block.start, np.random.default_rng([1, block.start])
        of_patients = own.normal(size=(-(-count // _OF_GROUP), _DIRECTIONS)).repeat(_OF_GROUP, axis=0)[:count]
        latent = np.sqrt(0.5) * (of_patients + own.normal(size=of_patients.shape))
        scores[block] = latent @ lines + own.normal(size=(count, len(_SHARES)))
        features = 0.5 * latent.astype(np.float32) @ mixing + 0.3 * own.standard_normal((count, width), np.float32)
        activated = np.maximum(features + 0.2, 0)[:, np.newaxis].astype(storage)
        parts.add(Rows(tuple(ids[block]), tuple(map(_digest, ids[block])), activated, (_FACTS,) * count, None))
    labels = scores > [np.quantile(own, 1 - share) for own, share in zip(scores.T, _SHARES.values(), strict=True)]
    table = pd.DataFrame({"ID": ids} | dict(zip(_SHARES, labels.T.astype(np.uint8), strict=True)))
    table.assign(patient=np.arange(rows) // _OF_GROUP).to_csv(folder / "data" / "train.csv", index=False)
    seen = {image_id: SeenImage(_digest(image_id), Stamp.of(images / f"{image_id}.png"), _FACTS) for image_id in ids}
    FactsTable.of_split(folder / "cache", "train").add(seen, ids)


def _digest(image_id: str) -> bytes:
    """What the digest of an image would be, were it not empty: no two are the same."""
    return digest(image_id.encode())


def _recipe(storage: str) -> Recipe:
    """How the features would have been made."""
    return Recipe("backbone", "random", "0" * 32, "none", 32, storage=storage)


def _parts(folder: Path, storage: str) -> PartStore:
    """Where the parts lie."""
    return PartStore(folder / "cache" / "train" / "backbone.parts" / _recipe(storage).fingerprint)


def _assemble(folder: Path, storage: str) -> None:
    """Assemble the cache file, as the end of an extraction does."""
    ids = pd.read_csv(folder / "data" / "train.csv", usecols=["ID"])["ID"].tolist()
    path, parts = folder / "cache" / "train" / "backbone.h5", _parts(folder, storage)
    assemble(path, _recipe(storage), {"device": "none", "engine": "none"}, {i: _digest(i) for i in ids}, None, parts)
    parts.remove()


if __name__ == "__main__":
    of_folder = Path(sys.argv[1]), sys.argv[2]
    _write(*of_folder, *map(int, sys.argv[3:])) if len(sys.argv) > 3 else _assemble(*of_folder)
