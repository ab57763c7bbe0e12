"""Images per second of the extraction, beside other ways: `scripts/benchmark.py extract`."""

import math
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from extract.backbones.build import FrozenBackbone
from extract.backbones.onnx_model import AnyBackbone
from extract.backbones.table import CHALLENGE, EMBEDDED, backbone_named
from extract.backbones.weights import find_weights
from extract.extraction import CompiledBackbones, ExtractionOptions, extract
from extract.images.reading import Ranges, Reading, name_views
from extract.pipeline import Images
from extract.report import Report
from extract.runtime import cores, default_batch_size, device_name, missing_gpu
from features.common.cli import choose_names
from features.common.errors import InputError
from features.common.keras_import import backend_name, import_keras
from features.common.text import make_console
from features.dataset.dataset import read_images
from features.store.cache import FeatureCache
from scripts.benchmark_peers import PEERS, PeerProcess, check_peers, missing_packages

if TYPE_CHECKING:
    import keras

#: The four that the challenge's author explored or wanted next, of three input sizes; with seeded random weights.
FOUR = ("inceptionv3", "xception", "resnet50", "efficientnetb2")
#: Our own way with more to do, by the name that --against takes: what the table calls it.
MORE = {"mid": "ours, last and mid", "views8": "ours, 8 views"}
_BATCH = 32


def benchmark_extract(
    images: int, repeats: int, rows: Sequence[tuple[str, ...]], against: str | None, device: str
) -> None:
    """Print a table for each set of backbones, and what the decoding costs.

    Args:
        images: phantom slices of 512 x 512.
        repeats: of all ways, alternating.
        rows: sets of backbones, side by side, with seeded random weights; none: `EMBEDDED` with ImageNet's weights, and
            `FOUR`; on a GPU each of `CHALLENGE`.
        against: what ours is compared with, names of `PEERS` and `MORE`, or `none`; None: Keras' own loop, and on a
            GPU PyTorch, where they are installed.
        device: `cpu` or `gpu`.

    Raises:
        InputError: there is no GPU, or what it is compared with cannot run here.
    """
    gpu = device == "gpu"
    _choose_device(gpu)
    wanted = [(names, "random") for names in rows]
    if not wanted:
        wanted = [((name,), "random") for name in CHALLENGE] if gpu else [(EMBEDDED, "imagenet"), (FOUR, "random")]
    usual = ("keras", "torch") if gpu else ("keras",)
    missing = {name: packages for name in usual if against is None and (packages := missing_packages(name))}
    chosen = against or ",".join(name for name in usual if name not in missing) or "none"
    others = choose_names(chosen, "--against", "a way", {**PEERS, **MORE}, none=True)
    peers = [name for name in others if name in PEERS]
    check_peers(peers, [name for names, _ in wanted for name in names], gpu)
    console = make_console()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as started:
        data = Path(folder) / "phantom"
        _make_phantom(data, images)
        ids, paths = read_images(data)["train"]
        split = Images("train", ids, paths)
        console.print(
            f"{images} phantom slices of 512 x 512, {device_name()}, {cores()} host threads, medians of {repeats} "
            "alternating repeats"
        )
        for name, packages in missing.items():
            console.print(f"not against {name}, which needs {', '.join(packages)}: --against {name} says how to get it")
        keras_process = started.enter_context(PeerProcess("keras"))  # also for the matrix product
        processes = {
            name: keras_process if name == "keras" else started.enter_context(PeerProcess(name)) for name in peers
        }
        for names, weights in wanted:
            console.print(f"\n{' + '.join(names)}, {weights} weights")
            ours, ways = _Ours(make_frozen(names, weights)), {}
            ours.seconds(Images(split.split, ids[:_BATCH], paths[:_BATCH]))  # compiles
            for process in processes.values():
                title = process.open(ours.backbones, images, default_batch_size(device_name()), gpu)
                ways[title] = partial(process.seconds, paths)
            for name in MORE:
                if name in others:
                    more = _with_more(ours, name)
                    more.seconds(Images(split.split, ids[:_BATCH], paths[:_BATCH]))
                    ways[MORE[name]] = partial(more.seconds, split)
            console.print(_compare(split, ours, ways, repeats))
            rate = keras_process.call(_matrix_product_rate, repeats)
            console.print(_device_line(ours, images, sum(_OPERATIONS[name] for name in names), rate))
        console.print(f"\n{_decoding_line(split, repeats)}")


def _choose_device(gpu: bool) -> None:
    """Hide GPUs from this process and from those that it starts, or make sure that there is one."""
    if not gpu:
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        return
    if "KERAS_BACKEND" not in os.environ and find_spec("tensorflow") is None:
        os.environ["KERAS_BACKEND"] = "jax"
    if device_name() == "CPU":
        reason = (
            missing_gpu() or "run it where an NVIDIA GPU is, with scripts/setup.sh --gpu, or JAX and KERAS_BACKEND=jax"
        )
        raise InputError(f"--device gpu: Keras on {backend_name()} finds no GPU: {reason}.")


def _make_phantom(folder: Path, images: int) -> None:
    """Write phantom slices into FOLDER/train."""
    from scripts.phantom import write_phantom

    write_phantom(folder, {"train": images, "test": 0}, size=512, seed=0, jobs=-1)


#: Floating-point operations for an image, by backbone; counted when it is built.
_OPERATIONS: dict[str, float] = {}


class _AsTrained(FrozenBackbone):
    """A backbone whose random weights have biases and batch norms as training leaves them.

    Fresh ones are zeros and ones, which TensorFlow's optimiser strikes out: both sides would run another graph.
    """

    def build_whole(self) -> "keras.Model":
        """Build the Keras model, draw its biases and statistics, and count its operations."""
        model = super().build_whole()
        if self.weights.kind == "random":
            random = np.random.default_rng(0)
            for variable in model.weights:
                if variable.path.endswith(("gamma", "moving_variance")):
                    variable.assign(random.uniform(0.5, 1.5, variable.shape))
                elif variable.path.endswith(("beta", "moving_mean", "bias")):
                    variable.assign(random.normal(0, 0.1, variable.shape))
        _OPERATIONS[self.name] = _flops(model)
        return model


def make_frozen(names: tuple[str, ...], weights: str, features: tuple[str, ...] = ("last",)) -> list[FrozenBackbone]:
    """The backbones of the table, with ImageNet or seeded random weights."""
    return [
        _AsTrained.of_table(backbone, find_weights(backbone, weights, None), "float32", features)
        for backbone in map(backbone_named, names)
    ]


@dataclass
class _Ours:
    """Our way: each time one extraction into an empty cache.

    Attributes:
        backbones: side by side.
        reading: how pixels are read.
        compiled: keeps the compiled backbones.
        reports: of all times, the one that compiled first.
        walls: seconds of each.
        engines: what computed.
    """

    backbones: list[FrozenBackbone]
    reading: Reading = field(default_factory=Reading)
    compiled: CompiledBackbones = field(default_factory=lambda: CompiledBackbones(None))
    reports: list[Report] = field(default_factory=list)
    walls: list[float] = field(default_factory=list)
    engines: set[str] = field(default_factory=set)

    def seconds(self, split: Images) -> float:
        """Extract once; return the seconds that it took."""
        with tempfile.TemporaryDirectory() as folder:
            options = ExtractionOptions(Path(folder), "float32", cores(), self.reading)
            start = time.perf_counter()
            report = extract([split], self.backbones, options, self.compiled, Console(quiet=True), threading.Event())
            self.walls.append(time.perf_counter() - start)
            self.reports.append(report)
            cache = FeatureCache(Path(folder))
            self.engines |= {cache.open(split.split, name).engine for name in cache.backbones(split.split)}
        return self.walls[-1]


def _with_more(ours: _Ours, name: str) -> _Ours:
    """Our way with more to do, as a name of `MORE` says."""
    if name == "views8":
        return _Ours(ours.backbones, Reading(views=name_views("8"), ranges=str(Ranges())), ours.compiled)
    return _Ours([replace(backbone, features=("last", "mid")) for backbone in ours.backbones])


def _compare(split: Images, ours: _Ours, ways: Mapping[str, Callable[[], float]], repeats: int) -> Table:
    """Time ours and the other ways in turn.

    Returns:
        A line for each: images per second, and how many times as long as ours it takes, by pairs of the same repeat.
    """
    timed: dict[str, Callable[[], float]] = {"": partial(ours.seconds, split), **ways}
    seconds: dict[str, list[float]] = {title: [] for title in timed}
    for repeat in range(repeats):
        for title in list(timed)[:: -1 if repeat % 2 else 1]:  # none is always the first
            seconds[title].append(timed[title]())
    mine = seconds.pop("")
    table = Table(box=None, header_style="bold")
    for column in ("way", "images/s", "times as long", "range"):
        table.add_column(column, justify="left" if column == "way" else "right")
    count = len(split.image_ids)
    table.add_row(f"ours, {' and '.join(sorted(ours.engines))}", f"{count / statistics.median(mine):,.1f}", "", "")
    for title, spent in seconds.items():
        ratios = [theirs / of_ours for theirs, of_ours in zip(spent, mine, strict=True)]
        table.add_row(
            title,
            f"{count / statistics.median(spent):,.1f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
        )
    return table


def _device_line(ours: _Ours, images: int, operations: float, rate: float) -> str:
    """Say what our way made of the device and of the host, in medians.

    Args:
        ours: after its timed extractions, which followed one that compiled.
        images: of each of them.
        operations: floating-point operations for an image, all backbones together.
        rate: of a matrix product, in GFLOP/s.
    """
    timed = [(report.stages, wall) for report, wall in zip(ours.reports[1:], ours.walls[1:], strict=True)]
    busy = statistics.median(stages["compute"] / wall for stages, wall in timed)
    decoding = statistics.median((stages["read+decode"] + stages["resize"]) / wall / cores() for stages, wall in timed)
    waits = statistics.median(report.waiting_share for report in ours.reports[1:])
    reached = images * operations / statistics.median(stages["compute"] for stages, _ in timed) / 1e9
    return (
        f"ours: device busy {busy:.1%}, waits for images {waits:.1%}; host threads decode {decoding:.1%} of the time; "
        f"{reached:,.0f} GFLOP/s, {reached / rate:.0%} of a float32 matrix product ({rate:,.0f} GFLOP/s)"
    )


def _seconds(action: Callable[[], Any]) -> float:
    """Wall-clock seconds of a call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _flops(model: "keras.Model") -> float:
    """Floating-point operations of the convolutions and dense layers for one image: two per multiplication."""
    total = 0.0
    for layer in model.layers:
        output = math.prod(side for side in layer.output.shape[1:] if side)
        channels = layer.output.shape[-1]
        for kernel in (getattr(layer, name, None) for name in ("kernel", "depthwise_kernel", "pointwise_kernel")):
            if kernel is not None:
                # Every kernel weight is used once per output position; output / channels positions.
                total += 2 * math.prod(kernel.shape) * output / channels
    return total


def _matrix_product_rate(repeats: int) -> float:
    """GFLOP/s of a float32 product of two square matrices in Keras' backend, the whole device on it."""
    keras = import_keras()
    side = 2048 if device_name() == "CPU" else 16384
    matrix = keras.random.normal((side, side), seed=0)

    def multiply() -> float:
        return float(keras.ops.matmul(matrix, matrix)[0, 0])  # a number of the product: it is there then

    multiply()
    return 2 * side**3 / statistics.median(_seconds(multiply) for _ in range(max(5, repeats))) / 1e9


def _decoding_line(split: Images, repeats: int) -> str:
    """CPU seconds of reading, decoding and resizing for four backbones against one, and images a second of it."""
    first, four = (_Ours(make_frozen(names, "random"), compiled=_InstantBackbones()) for names in (FOUR[:1], FOUR))
    for _ in range(repeats):
        first.seconds(split)
        four.seconds(split)
    spent = [
        statistics.median(report.stages["read+decode"] + report.stages["resize"] for report in way.reports)
        for way in (first, four)
    ]
    rate = len(split.image_ids) / statistics.median(first.walls)
    return (
        f"read, decode and resize, CPU: {spent[0]:.2f} s for {FOUR[0]}, {spent[1]:.2f} s for {' + '.join(FOUR)}: "
        f"ratio {spent[1] / spent[0]:.2f}. A backbone that computes nothing gets {rate:,.0f} images/s"
    )


class _InstantBackbones(CompiledBackbones):
    """Backbones that give one constant feature: what is left is reading, decoding and resizing."""

    def __init__(self) -> None:
        super().__init__(_BATCH)

    def __call__(self, backbone: AnyBackbone, sample: np.ndarray) -> "_Instant":
        """Return the stand-in."""
        return _Instant()


class _Instant:
    """Stands in for a compiled backbone."""

    batch_size, engine, device = _BATCH, "numpy", "CPU"

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray]:
        """Return float32 (n, 1) zeros."""
        return (np.zeros((len(images), 1), np.float32),)
