"""What `python -m classify search` does: read, search, show the best trials, write them as presets."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from classify.crossfit.tasks import computing_by
from classify.inputs import SplitInputs, choose_features, describe_views, read_inputs, refuse_tuned
from classify.models.heads import HeadSpec, write_presets
from classify.options import SearchOptions, check_exclusive, choose_kinds
from classify.search.search import (
    FOLD_AUCS,
    best_trials,
    cross_fitted_choice,
    identify_study,
    make_search_folds,
    propose,
    run_search,
)
from classify.search.study import JOURNAL, StudyFile, open_study
from classify.settings import choose_exclusive
from features.common.cli import split_names
from features.common.cluster import check_cluster
from features.common.errors import InputError, Stopped
from features.common.text import count_things, make_console
from features.dataset.dataset import read_dataset
from features.store.cache import FeatureCache, default_cache

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

#: The best heads as presets.
BEST = "best.json"
_HEADS_KEPT = 5


def search(options: SearchOptions) -> int:
    """Search for heads, and write the best ones; gives the exit code.

    Raises:
        InputError: bad options or input, or no batch was finished in the time given.
    """
    began = time.perf_counter()
    out, seed = options.out, options.seed
    backbones, kinds = split_names(options.backbones, "--backbones"), choose_kinds(options.features)
    check_exclusive(options.exclusive)
    check_cluster(options.cluster, address=options.address)
    console, screen = make_console(), make_console(stderr=True)
    dataset = read_dataset(options.data, options)
    for line in dataset.understood:
        screen.print(f"understood: {line}")
    test = dataset.splits.get("test")
    dataset = replace(dataset, splits={name: split for name, split in dataset.splits.items() if name == "train"})
    feature_cache = FeatureCache(options.cache or default_cache(options.data), options.data, backbones or ())
    names, said = choose_features(feature_cache, backbones, kinds, ())
    if said:
        screen.print(f"understood: {said}")
    inputs = read_inputs(dataset, feature_cache, names)
    refuse_tuned(inputs, "classify search")
    if said := describe_views(inputs.recipes, inputs.tta):
        screen.print(f"understood: {said}")
    if test is not None:  # `classify run` looks at its labels, too, before it takes them for exclusive classes
        count = len(test.image_ids)
        no_features = np.empty((count, 0), np.float32)
        of_test = SplitInputs(test.image_ids, np.ones(count, bool), no_features, test.labels, None, {})
        inputs = replace(inputs, test=of_test)
    folds, rows = make_search_folds(inputs, options.folds, seed)
    if said := choose_exclusive(options.exclusive, inputs)[1]:
        screen.print(said)
    for warning in folds.warnings:
        screen.print(f"warning: {warning}")
    with open_study(out, identify_study(inputs, rows, options)) as study_file:
        before = len(study_file.trials)
        screen.print(f"{out} holds {count_things(before, 'trial')}" if before else f"{out}: a new study")
        with _progress(screen, study_file, options.trials, began) as (on_trials, on_batch):
            until = began + options.minutes * 60
            with computing_by(options.cluster, options.address):
                ended = run_search(inputs, rows, options, until, study_file, on_trials, on_batch)
        trials = study_file.trials
        best = best_trials(trials, _HEADS_KEPT)
        heads = {f"best{place}": propose(trial, seed) for place, trial in enumerate(best, start=1)}
        if heads:
            write_presets(out / BEST, heads)
    code = ended.exit_code if isinstance(ended, Stopped) else 0
    if not trials and not code:
        raise InputError(
            f"no batch of {min(options.batch, options.trials)} trials was finished in the time given, so {out} holds "
            "none. Give more --minutes, or a smaller --batch."
        )
    rejected = len(inputs.train.rejected_ids)
    left_out = f"; {rejected} without features left out" if rejected else ""
    console.print(
        f"train: {count_things(len(inputs.train_labels), 'image')}{left_out}; "
        f"{count_things(len(inputs.label_names), 'label')}; "
        f"{inputs.train.features.shape[1]} features of {', '.join(inputs.columns)}"
    )
    console.print(f"folds: {folds.describe()}")
    seconds = time.perf_counter() - began
    held = count_things(len(trials), "trial")
    console.print(f"study: {held}, {before} of them from earlier runs; {seconds:.0f} s; ended: {ended}")
    if trials:
        console.print(_table(best, heads))
        console.print("of each combination of layers, dropout, optimiser and batch size the best trial only")
        console.print(_warn(trials))
        console.print(f"written to {out}: {BEST} ({', '.join(heads)}), {JOURNAL} (all trials)")
    return code


@contextmanager
def _progress(screen: Console, study_file: StudyFile, total: int, began: float) -> Iterator[tuple]:
    """Show on stderr how far the search is; yields `on_trials` and `on_batch` of `run_search`."""
    columns = (TextColumn("searching"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} trials"))
    with Progress(
        *columns, TimeRemainingColumn(), console=screen, transient=True, disable=not screen.is_terminal
    ) as progress:
        task = progress.add_task("", total=total, completed=len(study_file.trials))

        def on_batch() -> None:
            trials = study_file.trials
            best = best_trials(trials, 1)[0]
            progress.update(task, completed=len(trials))
            seconds = time.perf_counter() - began
            screen.print(f"{len(trials)} of {total} trials, best macro AUC {best.value:.4f}, {seconds:.0f} s")

        yield lambda count: progress.advance(task, count), on_batch


def _table(trials: Sequence["FrozenTrial"], heads: dict[str, HeadSpec]) -> Table:
    """Show the best trials; the heads are theirs, in the same order."""
    table = Table(box=None, header_style="bold")
    for heading in ("head", "trial", "macro AUC", "by fold"):
        table.add_column(heading, justify="left" if heading == "head" else "right", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for trial, (name, spec) in zip(trials, heads.items(), strict=True):
        by_fold = " ".join("-" if auc is None else f"{auc:.3f}" for auc in trial.user_attrs[FOLD_AUCS])
        table.add_row(name, str(trial.number), f"{trial.value or 0:.4f}", by_fold, _describe_head(spec))
    return table


def _describe_head(spec: HeadSpec) -> str:
    """Say in a line what a head is."""
    layers = " ".join(map(str, spec.hidden_units)) or "none"
    return (
        f"hidden {layers}, {'' if spec.batch_norm else 'no '}batch norm, dropout {spec.dropout:g}, "
        f"{spec.optimiser} {spec.learning_rate:.2g}, L2 {spec.l2:.1g}, smoothing {spec.label_smoothing:.2f}, "
        f"class weight {spec.class_weight}, batch {spec.batch_size}"
    )


def _warn(trials: Sequence["FrozenTrial"]) -> str:
    """Say what the best score is worth."""
    by_fold = np.array([trial.user_attrs[FOLD_AUCS] for trial in trials], dtype=float)
    chosen = cross_fitted_choice(by_fold)
    estimate = ""
    if chosen is not None:
        best = np.nanmean(by_fold[trials.index(best_trials(trials, 1)[0])])
        estimate = (
            f" Mean over folds: {best:.4f} for the best trial; {chosen:.4f} if each fold is scored by the trial that "
            "was best on the others, which is nearer the truth."
        )
    return (
        f"optimistic: the best of {count_things(len(trials), 'trial')}, chosen on the folds that score it."
        f"{estimate} Let `classify run` score {BEST} on folds of another --seed; "
        "only a labelled test split is free of all optimism."
    )
