#!/usr/bin/env python3
"""Measure Headbank, side by side in one run: `scripts/benchmark.py` and a command; `--help` lists them."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PYTHON = ROOT / ".venv" / "bin" / "python"
#: The second has PyTorch too, to compare with.
_OWN = (ROOT / ".venv", ROOT / ".venv-backends")
if __name__ == "__main__" and Path(sys.prefix) not in _OWN and _PYTHON.exists():
    os.execv(_PYTHON, [str(_PYTHON), *sys.argv])  # run as a command it is started by the system's Python
sys.path.insert(0, str(ROOT))

from typing import Annotated, Literal

import typer

from classify.models.heads import DEFAULT_PRESETS
from extract.backbones.table import CHALLENGE, EMBEDDED
from extract.runtime import cores
from features.common.cli import application, split_names
from features.common.errors import InputError
from scripts.benchmark_audit import benchmark_audit
from scripts.benchmark_cam import benchmark_cam
from scripts.benchmark_dicom import benchmark_dicom
from scripts.benchmark_export import benchmark_export
from scripts.benchmark_extract import FOUR, MORE, benchmark_extract, make_frozen
from scripts.benchmark_features import BANKS, benchmark_features
from scripts.benchmark_finetune import benchmark_finetune
from scripts.benchmark_heads import benchmark_heads
from scripts.benchmark_honesty import benchmark_honesty
from scripts.benchmark_iterate import benchmark_iterate
from scripts.benchmark_peers import PEERS
from scripts.benchmark_precision import benchmark_precision
from scripts.benchmark_read import ROWS, benchmark_read
from scripts.benchmark_run import benchmark_run
from scripts.benchmark_scale import LEAST_ROWS, benchmark_scale
from scripts.benchmark_scoring import benchmark_scoring

#: What `scripts/demo.sh` makes.
DEMO = ROOT / "demo"
app = application("Measure Headbank against the usual way, side by side in one run: ratios count.")


@app.command("extract")
def benchmark_extraction(
    images: Annotated[int, typer.Option(min=32, help="Phantom slices of 512 x 512.")] = 200,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats, alternating; medians are printed.")] = 5,
    backbones: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B",
            help="Backbones, side by side, with seeded random weights. May be given several times, a table each.",
            show_default=f"{', '.join(EMBEDDED)} with ImageNet weights; {', '.join(FOUR)}; on a GPU each of "
            f"{', '.join(CHALLENGE)}",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help=f"What ours is compared with: {', '.join((*PEERS, *MORE))}. mid and views8 are our own way with "
            "mid-level features too, and with 8 views. Or none.",
            show_default="keras, on a GPU also torch, where they are installed",
        ),
    ] = None,
    device: Annotated[Literal["cpu", "gpu"], typer.Option(help="What computes, on all sides.")] = "cpu",
) -> None:
    """Images per second of the extraction, beside other ways from the same files to features on the disk.

    Keras' own loop, per backbone: keras.utils.image_dataset_from_directory at its size (read by Grain where
    KERAS_BACKEND is not TensorFlow), preprocess_input mapped over it, model.predict. ONNX Runtime, OpenVINO and
    PyTorch, per backbone: threads that read with OpenCV, and the same architecture from timm; they need
    .venv-backends/bin/python. All are warm, in float32, in a process of their own; ours also hashes the files, writes
    the cache and flushes it to the disk.
    """
    rows = [split_names(names, "--backbones") or () for names in backbones or ()]
    benchmark_extract(images, repeats, rows, against, device)


@app.command("heads")
def benchmark_bank(
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each timed training.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats, alternating; medians are printed.")] = 3,
) -> None:
    """Seconds an epoch of the bank of heads against Keras' fit of one head, at the challenge's size.

    Keras at its best of jit_compile off and on, with 1 and 32 steps per execution. Both validate; only the bank also
    scores AUC.
    """
    benchmark_heads(epochs, repeats)


@app.command("audit")
def benchmark_leak_audit(
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 1 on: seed 0 is the one tuned on.")] = 2,
    backbones: Annotated[str, typer.Option(metavar="A,B", help="Backbones to extract.")] = ",".join(EMBEDDED),
) -> None:
    """How many of 50 planted near duplicates the audit finds among 1,000 phantom slices, and how many wrong pairs."""
    benchmark_audit([1 + number for number in range(seeds)], backbones)


@app.command("iterate")
def benchmark_iterations(
    data: Annotated[Path, typer.Option(metavar="DATA", help="Data set, with labels of 0 and 1.")] = DEMO / "phantom",
    cache: Annotated[Path, typer.Option(metavar="CACHE", help="Its features.")] = DEMO / "cache",
    repeats: Annotated[int, typer.Option(min=1, help="Repeats of all runs; medians are printed.")] = 3,
) -> None:
    """Seconds from `classify run` to its leaderboard: first, with one head changed, another threshold, another label.

    With the default models; each run is made once more without kept fits, and their tables are compared.
    """
    benchmark_iterate(data, cache, repeats)


@app.command("honesty")
def benchmark_scores(
    simulations: Annotated[int, typer.Option(min=1, help="Simulated labels of each size.")] = 400,
    runs: Annotated[int, typer.Option(min=1, help="Runs of stage 2 on noise.")] = 100,
) -> None:
    """How often intervals hold a known truth, also of rare labels; and what a run says where nothing can be learnt."""
    benchmark_honesty(simulations, runs, cores())


@app.command("features")
def benchmark_defaults(
    data: Annotated[Path, typer.Option(metavar="DATA", help="Data set.")] = DEMO / "phantom",
    cache: Annotated[Path, typer.Option(metavar="CACHE", help="Its features.")] = DEMO / "cache",
    bank: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FEATURES@VIEWS:MODELS",
            help="Kinds of features, or cached rows such as resnet50.384.mid, joined by +; maybe @none, @mean or "
            "@augment; and the models on them. Given several times: the first is what the others are compared with.",
            show_default=", ".join(BANKS),
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the folds.")] = 3,
) -> None:
    """What features and models are worth as defaults: the final model out-of-fold, paired, by AUC, AP and log loss."""
    benchmark_features(data, cache, bank or BANKS, seeds, cores())


@app.command("export")
def benchmark_exported(
    run: Annotated[Path, typer.Option(metavar="RUN", help="A finished run on plain images.")] = DEMO / "run",
    images: Annotated[Path, typer.Option(metavar="IMAGES", help="A folder of images.")] = DEMO / "phantom" / "test",
    repeats: Annotated[int, typer.Option(min=1, help="Repeats, alternating; medians are printed.")] = 3,
) -> None:
    """What an exported .onnx takes to predict a folder of images, beside scripts/predict.sh."""
    benchmark_export(run, images, repeats)


@app.command("finetune")
def benchmark_tuned(
    data: Annotated[Path, typer.Option(metavar="DATA", help="Data set with groups.")] = DEMO / "phantom",
    cache: Annotated[
        Path, typer.Option(metavar="CACHE", help="A cache of its own: what is fine-tuned in it is replaced.")
    ] = DEMO / "cache_tuned",
    backbone: Annotated[str, typer.Option(metavar="NAME", help="The backbone.")] = EMBEDDED[0],
    unfreeze: Annotated[str, typer.Option(metavar="BLOCKS", help="As of extract finetune.")] = "block14",
    lr: Annotated[str, typer.Option(metavar="A,B", help="Learning rates.")] = "1e-5,1e-4",
    features: Annotated[str, typer.Option(help="last or mid.")] = "mid",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the folds, each fine-tuned by itself.")] = 5,
) -> None:
    """What fine-tuning by fold is worth: frozen, tuned and the mean of both, out-of-fold, on the same folds."""
    rates = tuple(map(float, lr.split(",")))
    benchmark_finetune(data, cache, backbone, unfreeze, rates, features, seeds, cores())


@app.command("scoring")
def benchmark_stage_2(
    rows: Annotated[int, typer.Option(min=100, help="Rows of train.")] = 10_000,
    width: Annotated[int, typer.Option(min=2, help="Features of the one backbone.")] = 1280,
    labels: Annotated[int, typer.Option(min=1, help="Labels.")] = 10,
    baselines: Annotated[str, typer.Option(metavar="A,B", help="Baselines to fit.")] = "logistic",
) -> None:
    """Seconds and memory of folds, baselines and scores, without heads, on numbers drawn by a seed."""
    benchmark_scoring(rows, width, labels, tuple(baselines.split(",")), cores())


@app.command("run")
def benchmark_whole_run(
    rows: Annotated[int, typer.Option(min=100, help="Rows of train, in groups of 10.")] = 8542,
    test: Annotated[int, typer.Option(min=0, help="Rows of test.")] = 4019,
    width: Annotated[int, typer.Option(min=2, help="Features of the one backbone.")] = 2048,
    labels: Annotated[int, typer.Option(min=1, help="Labels.")] = 3,
    preset: Annotated[str, typer.Option(metavar="A,B", help="Heads.")] = ",".join(DEFAULT_PRESETS),
) -> None:
    """Seconds and memory of a whole `classify run` on numbers drawn by a seed, by default at the challenge's size."""
    benchmark_run(rows, test, width, labels, ["--preset", preset])


@app.command("scale")
def benchmark_growth(
    rows: Annotated[str, typer.Option(metavar="N,N", help="Rows of train, in groups of 10.")] = "10000,100000,1000000",
    width: Annotated[int, typer.Option(min=2, help="Features of the one backbone.")] = 1280,
    dtype: Annotated[Literal["float16", "float32"], typer.Option(help="Of the cache.")] = "float16",
    baselines: Annotated[str, typer.Option(metavar="A,B", help="Baselines of the run.")] = "logistic",
    preset: Annotated[str, typer.Option(metavar="A,B", help="Heads of the run.")] = "linear",
) -> None:
    """Seconds and peak memory of assembly and of the commands of stage 2, on numbers drawn by a seed.

    A million rows take an hour, and 10 GB of the disk.
    """
    counts = split_names(rows, "--rows") or ()
    if not all(count.isdecimal() and int(count) >= LEAST_ROWS for count in counts):
        raise InputError(f"--rows {rows}: expected whole numbers of at least {LEAST_ROWS}, such as 10000,100000.")
    benchmark_scale([*map(int, counts)], width, dtype, ["--baselines", baselines, "--preset", preset])


@app.command("read")
def benchmark_reading(
    rows: Annotated[int, typer.Option(min=1, help="Rows of each of the five backbones.")] = ROWS,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats, alternating; medians are printed.")] = 5,
) -> None:
    """Seconds of reading five backbones from the cache against numpy reading as many bytes from a raw file."""
    benchmark_read(rows, repeats)


@app.command("cam")
def benchmark_heat_maps(
    images: Annotated[int, typer.Option(min=2, help="Phantom slices with one bleed each to point at.")] = 200,
    train: Annotated[int, typer.Option(min=100, help="Other phantom slices to learn from.")] = 1500,
) -> None:
    """How often the hottest point of a heat map falls on the bleed of a phantom slice, against a random point.

    Real ImageNet weights, the default models of `classify run`, phantoms of two seeds.
    """
    benchmark_cam(images, train)


@app.command("dicom")
def benchmark_scans(
    repeats: Annotated[int, typer.Option(min=1, help="Repeats, alternating; medians are printed.")] = 20,
) -> None:
    """CPU milliseconds of decoding a DICOM slice by syntax, against pydicom alone, and slices a second."""
    benchmark_dicom(repeats)


@app.command("precision")
def benchmark_devices(
    images: Annotated[int, typer.Option(min=1, help="Phantom slices of 512 x 512.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Timed repeats of 4 batches; medians are printed.")] = 5,
    backbones: Annotated[str, typer.Option(metavar="A,B", help="Backbones, with seeded random weights.")] = ",".join(
        FOUR
    ),
) -> None:
    """How far the features of a GPU are from those of the CPU, with TF32 and without (as Headbank computes). On JAX."""
    benchmark_precision(make_frozen(split_names(backbones, "--backbones") or (), "random"), images, repeats)


if __name__ == "__main__":
    app(prog_name="scripts/benchmark.py")
