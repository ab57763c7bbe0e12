"""Compare the features of a GPU with those of the CPU, with TF32 and without: `scripts/benchmark.py precision`."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from extract.backbones.build import FrozenBackbone
from extract.backbones.folding import fold_batch_norms
from extract.images.decoding import decode
from extract.images.reading import Reading
from extract.images.resizing import resize
from extract.runtime import Extractor, default_batch_size, device_name
from features.common.errors import InputError
from features.common.keras_import import import_keras
from features.common.text import make_console
from features.dataset.dataset import read_images
from scripts.phantom import write_phantom

_BATCHES = 4  # a timed repeat


def benchmark_precision(backbones: Sequence[FrozenBackbone], images: int, repeats: int) -> None:
    """Print, per backbone, how far the features of the GPU are from those of the CPU, and how fast they come.

    Args:
        backbones: with one set of weights, which both devices get.
        images: phantom slices of 512 x 512 to compare.
        repeats: timed repeats, after one that is not counted.

    Raises:
        InputError: the backend is not JAX, which alone computes on both devices in one process, or there is no GPU.
    """
    if import_keras().backend.backend() != "jax" or device_name() == "CPU":
        raise InputError("a GPU is compared with the CPU on JAX: install JAX with CUDA and set KERAS_BACKEND=jax.")
    import jax

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "phantom"
        write_phantom(data, {"train": images, "test": 0}, size=512, seed=0, jobs=-1)
        slices = [decode(path.read_bytes(), path.stem, Reading())[0] for path in read_images(data)["train"][1]]
    table = Table(box=None, header_style="bold")
    for column in ("backbone", "difference", "images/s", "difference, TF32", "images/s, TF32"):
        table.add_column(column, justify="left" if column == "backbone" else "right")
    for backbone in backbones:
        model = fold_batch_norms(backbone.build())
        pixels = np.stack([resize(image, backbone.input_size) for image in slices])
        with jax.default_device(jax.devices("cpu")[0]):
            reference = Extractor(lambda: model, backbone.preprocessing, backbone.input_size, images)(pixels)[0]  # noqa: B023 - called here
        exact = _compare(model, backbone, pixels, reference, repeats)
        with jax.default_matmul_precision("default"):
            fast = _compare(model, backbone, pixels, reference, repeats)
        table.add_row(backbone.name, *(text for gap, rate in (exact, fast) for text in (f"{gap:.1e}", f"{rate:.0f}")))
    console = make_console()
    console.print(f"{images} phantom slices of 512 x 512, {device_name()} against the CPU")
    console.print(table)


def _compare(
    model: object, backbone: FrozenBackbone, pixels: np.ndarray, reference: np.ndarray, repeats: int
) -> tuple[float, float]:
    """Compute the features on the GPU.

    Returns:
        The largest difference of an image's features, relative to their norm; images per second.
    """
    batch = default_batch_size(device_name())
    extractor = Extractor(lambda: model, backbone.preprocessing, backbone.input_size, batch)
    (features,) = extractor(pixels)
    many = np.resize(pixels, (_BATCHES * batch, *pixels.shape[1:]))
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        extractor(many)
        seconds.append(time.perf_counter() - start)
    gaps = np.linalg.norm(features - reference, axis=1) / np.linalg.norm(reference, axis=1)
    return float(gaps.max()), len(many) / statistics.median(seconds[1:])
