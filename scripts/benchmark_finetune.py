"""What fine-tuning by fold is worth: `scripts/benchmark.py finetune`."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.crossfit.store import FitStore
from classify.experiment import run_experiment
from classify.inputs import read_inputs
from classify.scores.resampling import resample
from classify.settings import Settings
from extract.finetune.run import run_finetuning
from extract.options import ExtractOptions, FinetuneOptions
from extract.run import run_extraction
from features.common.text import duration, make_console
from features.dataset.dataset import read_dataset
from features.folds.tuning import folder_of, read_member
from features.store.cache import FeatureCache
from features.store.recipe import FEATURES
from scripts.benchmark_features import DRAWS_SEED, METRICS, describe_figure, draw_figures, measure_test

#: The baselines whose mean is compared.
_BASELINES = ("logistic", "ridge_regression")


def benchmark_finetune(
    data: Path,
    cache: Path,
    backbone: str,
    unfreeze: str,
    rates: Sequence[float],
    features: str,
    seeds: int,
    jobs: int,
) -> None:
    """Print frozen, tuned and both, for each learning rate: the mean of the baselines on each.

    Args:
        data: a labelled data set with groups.
        cache: where features go; what is fine-tuned there is replaced for each seed and rate.
        backbone: of the table.
        unfreeze: its blocks.
        rates: learning rates.
        features: `last` or `mid`.
        seeds: of the folds, from 0 on.
        jobs: fits at a time.
    """
    console = make_console()
    run_extraction(ExtractOptions(data=data, backbones=backbone, features=features, cache=cache))
    dataset, ending = read_dataset(data), FEATURES[features]
    frozen, tuned = f"{backbone}{ending}", f"{backbone}.tuned{ending}"
    banks = {"frozen": [frozen], "tuned": [tuned], "both": [frozen, tuned]}
    table = Table(box=None, header_style="bold")
    for heading in ("rate", "features of", *METRICS.values(), "test AUC", "best epochs"):
        table.add_column(heading, justify="right")
    seconds = []
    for rate in rates:
        found: dict[str, list[dict[str, np.ndarray]]] = {bank: [] for bank in banks}
        tests: dict[str, list[float]] = {bank: [] for bank in banks}
        epochs: list[int] = []
        for seed in range(seeds):
            started = time.perf_counter()
            given = {"data": data, "backbone": backbone, "unfreeze": unfreeze, "features": features, "cache": cache}
            run_finetuning(FinetuneOptions(**given, lr=rate, seed=seed))  # type: ignore[arg-type]
            seconds.append(time.perf_counter() - started)
            epochs += _best_epochs(cache, f"{backbone}.tuned")
            for bank, rows in banks.items():
                inputs = read_inputs(dataset, FeatureCache(cache, data), rows)
                settings = Settings(seed=seed, refit=True, jobs=jobs, baselines=_BASELINES, ensembles=("mean",))
                with threadpool_limits(1, user_api="blas"):
                    experiment = run_experiment(inputs, settings, lambda: None, FitStore.beside(cache, 2.0))
                resampling = resample(len(inputs.train_labels), inputs.train.groups, DRAWS_SEED)
                found[bank].append(draw_figures(inputs, experiment, "mean", resampling))
                if (of_test := measure_test(inputs, experiment, "mean")) is not None:
                    tests[bank].append(of_test)
        means = {
            bank: {metric: np.mean([one[metric] for one in of_bank], axis=0) for metric in METRICS}
            for bank, of_bank in found.items()
        }
        for bank, own in means.items():
            cells = [describe_figure(own[metric], means["frozen"][metric], bank == "frozen") for metric in METRICS]
            test = f"{np.mean(tests[bank]):.3f}" if tests[bank] else ""
            said = f"{min(epochs)} to {max(epochs)}" if bank == "tuned" else ""
            table.add_row(f"{rate:g}", bank, *cells, test, said)
    console.print(
        f"{data}: {backbone} from {unfreeze} on, {features}; the mean of {' and '.join(_BASELINES)}, of `both` on each "
        f"and on both side by side; out-of-fold, macro; means over {seeds} seeds of the folds; differences from frozen "
        f"with 95 % intervals by group; a fine-tuning took {duration(float(np.median(seconds)))}"
    )
    console.print(table)


def _best_epochs(cache: Path, name: str) -> list[int]:
    """The best epochs of the backbones of a fine-tuning."""
    found = [read_member(path) for path in sorted(folder_of(cache, name).glob("*.keras"))]
    return [facts["best_epoch"] for member in found if member for facts in member[1:]]
