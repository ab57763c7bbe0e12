"""What features and models are worth as the defaults of `classify run`: `scripts/benchmark.py features`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.crossfit.store import FitStore
from classify.experiment import Experiment, run_experiment
from classify.inputs import Inputs, choose_features, read_inputs
from classify.models.baselines import BASELINES
from classify.models.heads import choose_heads
from classify.scores.resampling import Resampling, percentile_interval, rank_scores, resample
from classify.scores.scoring import ByFold, mean_over_labels, score_label
from classify.settings import Settings
from features.common.arrays import Probabilities
from features.common.cli import split_names
from features.common.errors import InputError
from features.common.text import make_console
from features.dataset.dataset import read_dataset
from features.store.cache import FeatureCache
from features.store.recipe import FEATURES

#: Those compared without --bank: the defaults before mid-level features, and what was tried in their place.
BANKS = (
    "last:logistic,linear-l2",
    "mid:logistic,linear-l2",
    "mid:logistic,ridge_regression",
    "mid:logistic,ridge_regression,linear-l2",
    "last:logistic,ridge_regression",
    "last+mid:logistic,ridge_regression",
)
_VIEWS = ("none", "mean", "augment")
#: What is compared, and its heading.
METRICS = {"roc_auc": "AUC", "average_precision": "AP", "log_loss": "log loss"}
#: The draws are the same for all seeds of the folds, so that means over seeds have intervals.
DRAWS_SEED = 0


class Bank(NamedTuple):
    """What a run is made of.

    Attributes:
        text: as it was given, such as `mid:logistic,linear-l2`.
        features: kinds of them, of all that is cached; or the names of cached rows, such as `resnet50.384.mid`.
        views: `none` reads the first, `mean` the mean over all, `augment` lets heads learn from all beside that.
        baselines, presets: the names of its models.
    """

    text: str
    features: tuple[str, ...]
    views: str
    baselines: tuple[str, ...]
    presets: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Bank":
        """Read `FEATURES+FEATURES@VIEWS:MODEL,MODEL`; a model that is no baseline is a preset, or a file of them."""
        features, _, models = text.partition(":")
        rows, _, views = features.partition("@")
        names = split_names(models, "--bank") or ()
        if not names or not rows or views not in ("", *_VIEWS):
            raise InputError(
                f"--bank {text!r}: expected {'+'.join(FEATURES)} or names of cached rows, maybe @ and one of "
                f"{', '.join(_VIEWS)}, a colon and models between commas."
            )
        own = tuple(name for name in names if name in BASELINES)
        return cls(text, tuple(rows.split("+")), views or "mean", own, tuple(name for name in names if name not in own))


def benchmark_features(data: Path, cache: Path, banks: Sequence[str], seeds: int, jobs: int) -> None:
    """Print, for each bank, its final model beside that of the first one, on the same folds and draws of groups.

    Args:
        data: a labelled data set.
        cache: its features.
        banks: as `Bank.parse` takes them, two or more.
        seeds: of the folds, from 0 on; figures are means over them.
        jobs: fits at a time.
    """
    console, parsed = make_console(), [Bank.parse(text) for text in banks]
    dataset, feature_cache = read_dataset(data), FeatureCache(cache, data)
    first: dict[str, np.ndarray] = {}
    table = Table(box=None, header_style="bold")
    for heading in ("bank", *METRICS.values(), "final model, by seed", "test AUC"):
        table.add_column(heading, justify="left" if heading in ("bank", "final model, by seed") else "right")
    for bank in parsed:
        are_kinds = {*bank.features} <= {*FEATURES}
        rows, _ = choose_features(
            feature_cache, None if are_kinds else bank.features, bank.features if are_kinds else None, ()
        )
        tta = "none" if bank.views == "none" else "mean"
        inputs = read_inputs(dataset, feature_cache, rows, tta, bank.views == "augment")
        store = FitStore.beside(cache, 2.0)
        resampling = resample(len(inputs.train_labels), inputs.train.groups, DRAWS_SEED)
        found, finals, tests = [], [], []
        for seed in range(seeds):
            settings = Settings(seed=seed, jobs=jobs, baselines=bank.baselines, heads=choose_heads(bank.presets, ()))
            with threadpool_limits(1, user_api="blas"):
                experiment = run_experiment(inputs, settings, lambda: None, store)
            found.append(draw_figures(inputs, experiment, experiment.final_model, resampling))
            finals.append(experiment.final_model)
            tests.append(measure_test(inputs, experiment, experiment.final_model))
        own = {metric: np.mean([one[metric] for one in found], axis=0) for metric in METRICS}
        first = first or own
        cells = [describe_figure(own[metric], first[metric], own is first) for metric in METRICS]
        test = "" if tests[0] is None else f"{np.mean([auc for auc in tests if auc is not None]):.3f}"
        table.add_row(bank.text, *cells, ", ".join(dict.fromkeys(finals)), test)
    _print(console, data, seeds, table)


def draw_figures(inputs: Inputs, experiment: Experiment, model: str, resampling: Resampling) -> dict[str, np.ndarray]:
    """The macro figures of a model, as they are and on each draw: float64 (1 + draws,) by metric."""
    prediction, folds = experiment.predictions[model], experiment.plan.fold_of_row
    figures = {}
    for metric in METRICS:
        of_labels = {
            name: score_label(
                metric,
                inputs.train_labels[:, label],
                prediction.out_of_fold[:, label],
                resampling,
                ByFold(prediction.by_repeat[:, :, label], folds[: len(prediction.by_repeat)]),
            )
            for label, name in enumerate(inputs.label_names)
        }
        figures[metric] = mean_over_labels(of_labels, experiment.left_out)
    return figures


def measure_test(inputs: Inputs, experiment: Experiment, model: str) -> float | None:
    """The macro AUC of a model on test; None where that is not labelled."""
    if inputs.test is None or inputs.test.labels is None:
        return None
    labels, p = inputs.test.labels, experiment.predictions[model].test
    assert p is not None
    return float(np.mean([_auc(labels, p, label) for label in range(len(inputs.label_names))]))


def _auc(labels: np.ndarray, probabilities: Probabilities, label: int) -> float:
    alone = resample(len(labels), None, DRAWS_SEED, 1)
    return float(rank_scores(labels[:, label], probabilities[:, label], alone)[0][0])


def describe_figure(own: np.ndarray, first: np.ndarray, is_first: bool) -> str:
    """A figure; and of banks after the first how far it is from that one's, with the 95 % interval."""
    if is_first:
        return f"{own[0]:.3f}"
    low, high = percentile_interval(own - first)
    return f"{own[0]:.3f}, {own[0] - first[0]:+.3f} [{low:+.3f}, {high:+.3f}]"


def _print(console: Console, data: Path, seeds: int, table: Table) -> None:
    console.print(
        f"{data}: the final model of each bank out-of-fold, macro, AUC over pairs within a fold; means over {seeds} "
        "seeds of the folds; differences from the first bank with 95 % intervals by group, on the same draws"
    )
    console.print(table)
