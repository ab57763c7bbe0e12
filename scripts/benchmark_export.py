"""What an exported model takes beside `scripts/predict.sh`: `scripts/benchmark.py export`."""

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from classify.rundir.folder import PROBABILITIES
from extract.runtime import cores
from features.common.errors import InputError
from features.common.text import make_console, progress_bar

_ROOT = Path(__file__).resolve().parents[1]
#: Images of the smaller folder: what the larger one takes more is the time of an image.
_FEW = 20
#: How far probabilities may lie apart, as the images are read here by a few lines.
_TOLERANCE = 1e-4
#: Reads plain images, squashed, as the model card says, and calls the file from as many threads as there are cores.
_CALL = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import cv2, numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
paths = sorted(Path(sys.argv[2]).iterdir())

def read(path, side):
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    while min(image.shape[:2]) >= 2 * side:
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)

def predict(paths):
    images = {own.name: np.stack([read(path, own.shape[1]) for path in paths]) for own in session.get_inputs()}
    return session.run(["probabilities"], images)[0]

with ThreadPoolExecutor(int(sys.argv[3])) as pool:
    found = pool.map(predict, [paths[start : start + 8] for start in range(0, len(paths), 8)])
    np.save(sys.argv[4], np.concatenate(list(found)))
"""


def benchmark_export(run: Path, images: Path, repeats: int) -> None:
    """Print seconds from start to end, and what an image more takes, of both ways; medians.

    Args:
        run: a finished run on plain images, squashed to the input size.
        images: a folder of more than `_FEW` images.
        repeats: of both ways with few and with all images, alternating.

    Raises:
        InputError: there are too few images, a command fails, or the probabilities differ.
    """
    paths = sorted(path for path in images.iterdir() if path.is_file())
    if len(paths) <= _FEW:
        raise InputError(f"{images} holds {len(paths)} files. Give a folder of more than {_FEW} images.")
    counts = (_FEW, len(paths))
    with tempfile.TemporaryDirectory() as folder:
        model, found, out = Path(folder, "model.onnx"), Path(folder, "found.npy"), Path(folder, "predicted")
        _run(sys.executable, "-m", "classify", "export", run, model)
        for count in counts:
            own = Path(folder, f"images{count}")
            own.mkdir()
            for path in paths[:count]:
                shutil.copy(path, own)
        commands = {
            "scripts/predict.sh": (_ROOT / "scripts" / "predict.sh", run, "IMAGES", "--out", out, "--overwrite"),
            ".onnx, onnxruntime": (sys.executable, "-c", _CALL, model, "IMAGES", cores(), found),
        }
        took = np.empty((repeats, len(commands), len(counts), 2))
        with progress_bar("measuring", took[..., 0].size) as advance:
            for repeat in range(repeats):
                for way, command in enumerate(commands.values()):
                    for size, count in enumerate(counts):
                        shutil.rmtree(out, ignore_errors=True)
                        own = Path(folder, f"images{count}")
                        took[repeat, way, size] = _run(*(own if word == "IMAGES" else word for word in command))
                        advance()
                    if way == 0:
                        predicted = pd.read_csv(out / PROBABILITIES).set_index("ID").to_numpy()
                gap = np.abs(predicted - np.load(found)).max()
                if not gap <= _TOLERANCE:
                    raise InputError(
                        f"{run}: the probabilities of the two ways differ by {gap:.1e}. Give a run on plain images of "
                        "8 bits, squashed to the input size."
                    )
    more = (took[:, :, 1] - took[:, :, 0]) / (len(paths) - _FEW)
    table = Table(box=None, header_style="bold")
    for heading in ("way", *(f"{count} images" for count in counts), "an image more", "CPU of it"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way, name in enumerate(commands):
        seconds = [f"{median:.1f} s" for median in np.median(took[:, way, :, 0], axis=0)]
        table.add_row(name, *seconds, *(f"{1000 * median:.0f} ms" for median in np.median(more[:, way], axis=0)))
    make_console().print(table)
    make_console().print(f"medians of {repeats}; probabilities differ by {gap:.1e} at most")


def _run(*words: object) -> tuple[float, float]:
    """Run a command; gives its seconds by the wall clock and of CPU.

    Raises:
        InputError: it fails, and what it said.
    """
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*map(str, words)], cwd=_ROOT, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise InputError(f"{words[0]} ended with exit code {done.returncode}:\n{done.stderr.strip()[-2000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
