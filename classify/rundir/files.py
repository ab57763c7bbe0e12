"""The files of a finished run: tables, fitted models, and the record, which seals them.

Each CSV file is written here, by `images` or by `tables`, and read here; but the labels, which the audit reads too.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classify.experiment import Experiment
from classify.inputs import Inputs, SplitInputs
from classify.models.files import ensemble_path, save_fits
from classify.rundir.classes import write_classes
from classify.rundir.folder import (
    DECISIONS,
    LEADERBOARD_TABLE,
    METRICS_TABLE,
    MODELS,
    OUT_OF_FOLD,
    PROBABILITIES,
    THRESHOLDS,
    SealedRun,
    changed,
    seal,
    writing,
)
from classify.rundir.images import write_gallery, write_label_errors
from classify.rundir.record import describe_run
from classify.rundir.tables import write_backbones, write_curves, write_readings, write_table
from classify.scores.label_errors import find_duplicates, find_label_errors
from classify.scores.metrics import MICRO, OVERALL, sign_of
from classify.scores.thresholds import measure_cost, to_binary
from features.common.arrays import UNKNOWN, Decisions, Labels, Probabilities
from features.common.cells import protect_tables, read_cell
from features.common.files import replacing
from features.store.run_labels import NO_FOLD, RunLabels, read_held_out, write_run_labels

#: Columns of the thresholds: what the run's thresholds cost, cross-fitted, and what 0.5 would.
COSTS = ("f1", "sensitivity", "specificity", "f1_at_half", "sensitivity_at_half", "specificity_at_half")
#: Columns whose cells are words, also `NA` and `007`.
_WORDS = (
    "split",
    "ID",
    "model",
    "label",
    "metric",
    "rule",
    "backbone",
    "outcome",
    "interval",
    "why",
    "duplicate_of",
    "group",
    "at",
    "figure",
    "summary",
    "truth",
    "predicted",
)


def write_files(folder: Path, inputs: Inputs, experiment: Experiment, record: Mapping[str, Any]) -> None:
    """Write a run's files into an empty folder: tables, models, and last the record, which seals them.

    Times stand in the record only, so that the tables of two equal runs are equal bytes. `record` is what the caller
    adds to the record: arguments, seconds.

    Raises:
        InputError: the files cannot be written, as on a full disk.
    """
    with writing(folder):
        _write_tables(folder, inputs, experiment)
        protect_tables(folder, record.get("arguments", {}).get("excel_safe", False))
        files = _save_models(folder, experiment)
        seal(folder, {**record, **describe_run(inputs, experiment, files)})


def _write_tables(folder: Path, inputs: Inputs, experiment: Experiment) -> None:
    """Write all tables of a run. Those of two equal runs are equal bytes."""
    final = experiment.predictions[experiment.final_model]
    if inputs.test is not None and final.test is not None:
        test, thresholds = inputs.test, experiment.thresholds[experiment.final_model]
        decisions = to_binary(final.test, thresholds)
        of_images = test.image_ids, test.used_ids, final.test
        write_predictions(folder, *of_images, decisions, inputs.label_names)
        if experiment.settings.exclusive:
            write_classes(folder, *of_images, inputs.label_names)
    _write_out_of_fold(folder, inputs, experiment)
    _write_leaderboard(folder, experiment)
    _write_metrics(folder, inputs, experiment)
    _write_thresholds(folder, inputs, experiment)
    if experiment.returns:
        write_backbones(folder, inputs, experiment)
    if experiment.heads:
        write_curves(folder, experiment)
    _write_labels(folder, inputs, experiment)
    train, model = inputs.train, experiment.final_model
    comparable = {name: own for name, own in inputs.columns.items() if name not in train.tuned}
    alike = find_duplicates(train.features, comparable, train.groups)
    errors = find_label_errors(inputs.train_labels, final.out_of_fold, alike)
    write_label_errors(folder, inputs, errors)
    splits = _labelled_splits(inputs, experiment)
    write_gallery(folder, inputs.label_names, experiment.thresholds[model], splits, errors)
    write_readings(folder, experiment)


def write_predictions(
    folder: Path,
    image_ids: Sequence[str],
    used_ids: Sequence[str],
    probabilities: Probabilities,
    decisions: Decisions,
    label_names: Sequence[str],
) -> None:
    """Write probabilities and decisions: `ID` and the labels, one row per image.

    Cells of images without features are empty. Probabilities have the digits that give back the same float32.

    Args:
        folder: where to.
        image_ids: N images, in the order of the rows.
        used_ids: the M of them that have features.
        probabilities: of those.
        decisions: of those, too.
        label_names: the L labels.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    for name, values in ((PROBABILITIES, probabilities), (DECISIONS, decisions)):
        known = pd.DataFrame(values, columns=list(label_names), index=list(used_ids))
        if values.dtype == np.uint8:
            known = known.astype("UInt8")  # pandas' own integers may be missing
        with replacing(folder / name) as temporary:
            write_table(known.reindex(list(image_ids)).rename_axis("ID").reset_index(), temporary)


def read_predictions(run: SealedRun, image_ids: Sequence[str]) -> Probabilities:
    """Read the final model's probabilities of some test images."""
    table = read_run_table(run, PROBABILITIES).set_index("ID")
    return table.loc[list(image_ids), list(run.label_names)].to_numpy(np.float32)


def _write_out_of_fold(folder: Path, inputs: Inputs, experiment: Experiment) -> None:
    """Write `ID`, `model`, `fold`, and the labels: one row per model and training image.

    Of several repeats the probability is the mean, and the fold that of the first: ensembles, calibrations and
    thresholds are cross-fitted by it.
    """
    columns = pd.DataFrame(columns=["ID", "model", "fold", *inputs.label_names])
    write_table(columns, folder / OUT_OF_FOLD)
    for name, prediction in experiment.predictions.items():
        table = pd.DataFrame(prediction.out_of_fold, columns=list(inputs.label_names))
        table.insert(0, "ID", list(inputs.train.used_ids))
        table.insert(1, "model", name)
        table.insert(2, "fold", experiment.folds.fold_of_row)
        write_table(table, folder / OUT_OF_FOLD, append=True)  # all of them at once would take as much again


def read_out_of_fold(run: SealedRun, models: Sequence[str], image_ids: Sequence[str]) -> dict[str, Probabilities]:
    """Read the out-of-fold probabilities of some training images, by model: float32 (N, L), in the order of the ids.

    The table is read block by block: it has a row for each model and image.

    Raises:
        InputError: the file is missing, damaged, or was changed by hand, or does not have each of these images once.
    """
    found = read_held_out(run.file(OUT_OF_FOLD), run.label_names, models, image_ids)
    if found is None:
        raise changed(run.folder, OUT_OF_FOLD)
    return found


def _write_leaderboard(folder: Path, experiment: Experiment) -> None:
    """Write how each model that was chosen among stands beside the final one, on the same draws; best first.

    `model`, `metric`, `value`, `low`, `high` (out-of-fold, the mean over the labels), `difference` from the final
    model, `difference_low`, `difference_high`, `won` (the share of draws in which it is better than the final model),
    `tied` (1: not to be told from the best) and `backbones`, how many.
    """
    metric = experiment.selector
    rows = []
    for model, beside in experiment.comparisons.items():
        macro = experiment.macro(model, metric)
        ends = macro.value, macro.low, macro.high, beside.difference, beside.low, beside.high
        backbones = len(experiment.predictions[model].backbones)
        rows.append((model, metric, *ends, beside.won, int(beside.tied), backbones))
    numbers = ["value", "low", "high", "difference", "difference_low", "difference_high", "won"]
    table = pd.DataFrame(rows, columns=["model", "metric", *numbers, "tied", "backbones"])
    best_first = table.astype(dict.fromkeys(numbers, "float64")).sort_values(
        "value", ascending=sign_of(metric) < 0, kind="stable", na_position="last"
    )
    write_table(best_first, folder / LEADERBOARD_TABLE)


def _write_metrics(folder: Path, inputs: Inputs, experiment: Experiment) -> None:
    """Write `model`, `split`, `label`, `metric`, `value`, `low`, `high`, `interval`; what is undefined is empty.

    Where a label is not known of every row, also `known`: the rows that a figure is of, of `micro` the cells.
    """
    rows = [
        (model, split, score.label, score.metric, score.value, score.low, score.high, score.interval)
        for (model, split), scores in experiment.scores.items()
        for score in scores
    ]
    table = pd.DataFrame(rows, columns=["model", "split", "label", "metric", "value", "low", "high", "interval"])
    splits = {"oof": inputs.train_labels} | ({} if inputs.test is None else {"test": inputs.test.labels})
    known = {name: labels != UNKNOWN for name, labels in splits.items() if labels is not None}
    if not all(cells.all() for cells in known.values()):
        counts = {name: dict(zip(inputs.label_names, cells.sum(axis=0), strict=True)) for name, cells in known.items()}
        for name, cells in known.items():
            counts[name] |= {MICRO: cells.sum(), OVERALL: cells.all(axis=1).sum()}
        of_rows = [counts[split].get(label) for split, label in zip(table["split"], table["label"], strict=True)]
        table["known"] = pd.array(of_rows, "Int64")  # the mean over labels has none
    write_table(table.astype({"value": "float64", "low": "float64", "high": "float64"}), folder / METRICS_TABLE)


def read_metrics(run: SealedRun) -> Mapping[tuple[str, str, str, str], tuple[float, float, float]]:
    """Read value, low and high by model, split, label and metric; NaN where a cell is empty."""
    rows = read_run_table(run, METRICS_TABLE).itertuples()
    return {(row.model, row.split, row.label, row.metric): (row.value, row.low, row.high) for row in rows}


def read_intervals(run: SealedRun) -> list[tuple[str, str]]:
    """Read each metric of `metrics.csv` and how its interval was made; empty where there is none."""
    table = read_run_table(run, METRICS_TABLE)[["metric", "interval"]].fillna("").drop_duplicates()
    return list(table.itertuples(index=False, name=None))


def _write_thresholds(folder: Path, inputs: Inputs, experiment: Experiment) -> None:
    """Write `model`, `label`, `rule`, `threshold`, and `COSTS` on the training images."""
    rows, rule = [], experiment.settings.threshold
    for model, thresholds in experiment.thresholds.items():
        out_of_fold = experiment.predictions[model].out_of_fold
        costs = measure_cost(inputs.train_labels, out_of_fold, experiment.decisions[model])
        rows += [
            (model, label, rule.text, threshold, *cost)
            for label, threshold, cost in zip(inputs.label_names, thresholds, costs, strict=True)
        ]
    write_table(pd.DataFrame(rows, columns=["model", "label", "rule", "threshold", *COSTS]), folder / THRESHOLDS)


def read_thresholds(run: SealedRun, model: str) -> pd.DataFrame:
    """Read the thresholds of a model and what they cost, a row per label, by label."""
    table = read_run_table(run, THRESHOLDS)
    return table[table["model"] == model].set_index("label").loc[list(run.label_names)]


def _labelled_splits(inputs: Inputs, experiment: Experiment) -> list[tuple[str, SplitInputs, Labels, Probabilities]]:
    """List the labelled splits: name, images, labels, and the final model's probabilities."""
    final, test = experiment.predictions[experiment.final_model], inputs.test
    splits = [("train", inputs.train, inputs.train_labels, final.out_of_fold)]
    if test is not None and test.labels is not None and final.test is not None:
        splits.append(("test", test, test.labels, final.test))
    return splits


def _write_labels(folder: Path, inputs: Inputs, experiment: Experiment) -> None:
    """Write what is known of each labelled image."""
    splits = {
        name: RunLabels(
            image_ids=tuple(images.used_ids),
            groups=images.groups,
            folds=experiment.folds.fold_of_row if name == "train" else np.full(len(labels), NO_FOLD),
            labels=labels,
            stored=images.stored,
        )
        for name, images, labels, _ in _labelled_splits(inputs, experiment)
    }
    write_run_labels(folder, inputs.label_names, splits)


def read_run_table(run: SealedRun, name: str) -> pd.DataFrame:
    """Read a table of a run; an empty one where the run wrote none, as `CURVES` without heads.

    Words stay as they are, probabilities are float32, and an empty cell is a missing number.

    Raises:
        InputError: the file is missing, damaged, or was changed by hand.
    """
    if not run.holds(name):
        return pd.DataFrame()
    return _unescaped(pd.read_csv(**_parsing(run, name)))


def _parsing(run: SealedRun, name: str) -> dict[str, Any]:
    """The arguments by which pandas reads a table of a run; see `read_run_table`."""
    types = dict.fromkeys(_WORDS, "object")
    if name == PROBABILITIES:
        types |= dict.fromkeys(run.label_names, "float32")
    path = run.file(name)
    with path.open(encoding="utf-8", newline="") as file:
        names = [read_cell(cell) for cell in next(csv.reader(file), [])]
    empty = {"keep_default_na": False, "na_values": [""]}
    return {"filepath_or_buffer": path, "names": names, "header": 0, "dtype": types, "encoding": "utf-8", **empty}


def _unescaped(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its words as they were before `write_cell`."""
    words = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    return table.assign(**{word: table[word].map(read_cell, na_action="ignore") for word in words})


def _save_models(folder: Path, experiment: Experiment) -> dict[str, list[str]]:
    """Save every fitted model; gives the files in `folder` of each that predict new images, in the fits' order."""
    fits = experiment.plan.fits()
    saved = {}
    for name, of_fits in experiment.models.items():
        files = save_fits(folder / MODELS, name, {fit.name: model for fit, model in zip(fits, of_fits, strict=True)})
        saved[name] = [files[fit.name] for fit in fits if fit.predicts_test]
    for name, ensemble in experiment.ensembles.items():
        path = ensemble_path(folder / MODELS, name)
        path.write_bytes(ensemble.content)
        saved[name] = [path]
    return {name: [path.relative_to(folder).as_posix() for path in paths] for name, paths in saved.items()}
