"""Images per second of the extraction against Keras' own loop: `scripts/benchmark.py extract`."""

import logging
import math
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from extract.backbones.build import FrozenBackbone
from extract.backbones.onnx_model import AnyBackbone
from extract.backbones.table import EMBEDDED, backbone_named
from extract.backbones.weights import find_weights
from extract.extraction import CompiledBackbones, ExtractionOptions, extract
from extract.images.reading import Reading
from extract.pipeline import Images
from extract.report import Report
from extract.runtime import cores, default_batch_size, device_name
from features.common.keras_import import import_keras, silent_stderr
from features.common.text import make_console
from features.dataset.dataset import read_images

if TYPE_CHECKING:
    import keras

#: The four that the challenge's author explored or wanted next, of three input sizes; with seeded random weights.
FOUR = ("inceptionv3", "xception", "resnet50", "efficientnetb2")
_BATCH = 32


def benchmark_extract(images: int, repeats: int, rows: Sequence[tuple[str, ...]]) -> None:
    """Print a row for each set of backbones, and what the decoding costs.

    Args:
        images: phantom slices of 512 x 512.
        repeats: of both ways, alternating.
        rows: backbones with seeded random weights, side by side; none: those of ImageNet's weights, and `FOUR`.
    """
    console = make_console()
    wanted = [(names, "random") for names in rows] or [(EMBEDDED, "imagenet"), (FOUR, "random")]
    # A process of its own for the usual way: ours changes how TensorFlow shares out the cores.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, context, _start_usual) as usual:
        data = Path(folder) / "phantom"
        _make_phantom(data, images)
        ids, paths = read_images(data)["train"]
        split = Images("train", ids, paths)
        console.print(
            f"{images} phantom slices of 512 x 512, {cores()} cores, {device_name()}, medians of {repeats} "
            f"alternating repeats"
        )
        table = Table(box=None, header_style="bold")
        for column in ("backbones", "usual images/s", "ours images/s", "ratio", "range", "device waits", "GFLOP/s"):
            table.add_column(column, justify="left" if column == "backbones" else "right")
        for names, weights in wanted:
            _compare(split, names, weights, repeats, table, usual)
        console.print(table)
        rate = usual.submit(_matrix_product_rate, repeats).result()
        console.print(f"float32 matrix product of this machine: {rate:.0f} GFLOP/s")
        console.print(_decoding_line(split, repeats))


def _make_phantom(folder: Path, images: int) -> None:
    """Write phantom slices into FOLDER/train."""
    from scripts.phantom import write_phantom

    write_phantom(folder, {"train": images, "test": 0}, size=512, seed=0, jobs=-1)


class _AsTrained(FrozenBackbone):
    """A backbone whose random weights have biases and batch norms as training leaves them.

    Fresh ones are zeros and ones, which TensorFlow's optimiser strikes out: both sides would run another graph.
    """

    def build_whole(self) -> "keras.Model":
        """Build the Keras model and draw its biases and statistics."""
        model = super().build_whole()
        if self.weights.kind == "random":
            random = np.random.default_rng(0)
            for variable in model.weights:
                if variable.path.endswith(("gamma", "moving_variance")):
                    variable.assign(random.uniform(0.5, 1.5, variable.shape))
                elif variable.path.endswith(("beta", "moving_mean", "bias")):
                    variable.assign(random.normal(0, 0.1, variable.shape))
        return model


def make_frozen(names: tuple[str, ...], weights: str) -> list[FrozenBackbone]:
    """The backbones of the table, with ImageNet or seeded random weights."""
    return [
        _AsTrained.of_table(backbone, find_weights(backbone, weights, None), "float32")
        for backbone in map(backbone_named, names)
    ]


def _compare(
    split: Images, names: tuple[str, ...], weights: str, repeats: int, table: Table, usual_process: ProcessPoolExecutor
) -> None:
    """Time both ways, one after the other, and add a row to the table."""
    backbones = make_frozen(names, weights)
    compiled = CompiledBackbones(None)
    _extract(Images(split.split, split.image_ids[:_BATCH], split.paths[:_BATCH]), backbones, compiled)  # compiles
    flops = usual_process.submit(_build_usual, backbones, len(split.image_ids)).result()
    ours, usual, reports = [], [], []
    for _ in range(repeats):
        usual.append(usual_process.submit(_time_usual, split).result())
        start = time.perf_counter()
        reports.append(_extract(split, backbones, compiled))
        ours.append(time.perf_counter() - start)
    ratios = [theirs / mine for theirs, mine in zip(usual, ours, strict=True)]
    count = len(split.image_ids)
    computing = statistics.median(report.stages["compute"] for report in reports)
    table.add_row(
        "+".join(names),
        f"{count / statistics.median(usual):.1f}",
        f"{count / statistics.median(ours):.1f}",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}",
        f"{statistics.median(report.waiting_share for report in reports):.1%}",
        f"{count * flops / computing / 1e9:.0f}",
    )


def _extract(split: Images, backbones: list[FrozenBackbone], compiled: CompiledBackbones) -> Report:
    """Our way: one extraction into an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        options = ExtractionOptions(Path(cache), "float32", cores(), Reading())
        return extract([split], backbones, options, compiled, Console(quiet=True), threading.Event())


#: The usual way's backbones and models, in its process.
_USUAL: list[tuple[FrozenBackbone, "keras.Model"]] = []


def _start_usual() -> None:
    """Import Keras as anybody does; TensorFlow starts, so that our own code cannot set its threads any more."""
    with silent_stderr():
        import keras

        keras.ops.zeros(1)

    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # model.predict retraces for the last batch, and says so


def _build_usual(backbones: list[FrozenBackbone], images: int) -> float:
    """Build the models of the usual way, warm for every shape of batch that they will meet.

    Returns:
        Floating-point operations for one image, all backbones together.
    """
    _USUAL[:] = [(backbone, backbone.build()) for backbone in backbones]
    for backbone, model in _USUAL:
        batch = _usual_batch()
        pixels = np.zeros((batch + images % batch, backbone.input_size, backbone.input_size, 3))
        model.predict(pixels, batch_size=batch, verbose=0)
    return sum(_flops(model) for _, model in _USUAL)


def _usual_batch() -> int:
    """Images a batch of the usual way: Keras' default on a CPU, as many as ours on a GPU."""
    device = device_name()
    return _BATCH if device == "CPU" else default_batch_size(device)


def _time_usual(split: Images) -> float:
    """Seconds of the usual way: for every backbone a pass of its own over the files."""
    import keras

    features = []
    start = time.perf_counter()
    for backbone, model in _USUAL:
        dataset = keras.utils.image_dataset_from_directory(
            split.paths[0].parent,
            labels=None,
            image_size=(backbone.input_size, backbone.input_size),
            batch_size=_usual_batch(),
            shuffle=False,
            format="tf" if keras.backend.backend() == "tensorflow" else "grain",
            verbose=False,
        )
        features.append(model.predict(dataset.map(_preprocess_input(backbone)), verbose=0))
    return time.perf_counter() - start


def _preprocess_input(backbone: FrozenBackbone) -> Callable[[Any], Any]:
    """The function that comes with the backbone."""
    assert backbone.architecture is not None
    if backbone.architecture.embedded:
        return lambda batch: (batch - 127.0) / 128.0
    if not backbone.architecture.of_keras:
        return lambda batch: import_keras().applications.imagenet_utils.preprocess_input(batch, mode="torch")
    builder = getattr(import_keras().applications, backbone.architecture.builder)
    return sys.modules[builder.__module__].preprocess_input


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
    """CPU seconds of reading, decoding and resizing for four backbones against one."""
    seconds: dict[int, list[float]] = {1: [], len(FOUR): []}
    instant = _InstantBackbones()
    for _ in range(repeats):
        for count, spent in seconds.items():
            stages = _extract(split, make_frozen(FOUR[:count], "random"), instant).stages
            spent.append(stages["read+decode"] + stages["resize"])
    one, four = (statistics.median(spent) for spent in seconds.values())
    return (
        f"read, decode and resize, CPU: {one:.2f} s for {FOUR[0]}, {four:.2f} s for {' + '.join(FOUR)}: "
        f"ratio {four / one:.2f}"
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

    batch_size, engine = _BATCH, "numpy"

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray]:
        """Return float32 (n, 1) zeros."""
        return (np.zeros((len(images), 1), np.float32),)
