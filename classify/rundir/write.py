"""Write the files of a run: predictions, out-of-fold probabilities, metrics, and how they came about."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classify.crossfit.plan import REFIT
from classify.experiment import Experiment
from classify.inputs import Inputs, SplitInputs
from classify.models.files import dump_trusted, ensemble_path, save_fits
from classify.rundir.folder import MARK, MODELS
from classify.rundir.record import describe_run
from classify.rundir.tables import write_predictions, write_table
from classify.scores.gallery import choose_gallery
from classify.scores.thresholds import measure_cost
from features.common.errors import InputError


def write_files(folder: Path, inputs: Inputs, experiment: Experiment, record: Mapping[str, Any]) -> None:
    """Write a run's files into a folder.

    - `predictions_probability.csv`, `predictions_binary.csv`: `ID` and the labels, one row per test image in the data
      set's order, by the final model; empty cells for the images that stage 1 rejected. Only with a test split.
    - `oof_probability.csv`: `ID`, `model`, `fold`, and the labels: one row per model and training image. Of several
      repeats the probability is the mean, and the fold that of the first: by it ensembles, calibrations and thresholds
      are cross-fitted.
    - `metrics.csv`: `model`, `split`, `label`, `metric`, `value`, `low`, `high`; an undefined value is an empty cell.
    - `thresholds.csv`: `model`, `label`, `rule`, `threshold`, and what it costs: F1, sensitivity and specificity on the
      training images, by cross-fitted thresholds and, beside them, by 0.5.
    - `backbones.csv`: `backbone`, `macro_auc`, `gain`, `low`, `high`, `megabytes`, `gain_per_megabyte`, `seconds`,
      `gain_per_second`, in the order in which backbones were added to the mean. The megabytes are of the cache, the
      seconds of the device that extracted the rows in use, over all splits; empty cells where a cache file does not say
      them. Only with several.
    - `curves.csv`: `model`, `fold` (from 0, over all repeats), `epoch` (from 1), `loss`, `auc`, `validation_loss`,
      `validation_auc`: one row per epoch of every head that was cross-fitted; an AUC that no label has is an empty
      cell. Only with heads.
    - `models/`: every fitted model; see `model_files`.
    - `labels.csv`: `split`, `ID`, `group`, `fold`, and the labels: one row per labelled image that has features; an
      empty cell where no group is known, or no fold held the image out.
    - `gallery.csv`: `split`, `ID`, `label`, `outcome`, `rank`: the images worth looking at; see `gallery`.
    - `run.json`: everything else. Times stand there only, so that the tables of two equal runs are equal bytes.

    Probabilities are written with the digits that give back the same float32.

    Args:
        folder: an empty folder.
        inputs: what the run learnt from.
        experiment: what it found.
        record: what the caller adds to `run.json`: arguments, seconds.

    Raises:
        InputError: the files cannot be written, as on a full disk.
    """
    try:
        _write(folder, inputs, experiment, record)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder} cannot be written ({reason}). Free the disk or name another with --out.") from None


def _write(folder: Path, inputs: Inputs, experiment: Experiment, record: Mapping[str, Any]) -> None:
    """Write the files; arguments as in `write_files`."""
    final = experiment.predictions[experiment.final_model]
    if inputs.test is not None and final.test is not None:
        test, thresholds = inputs.test, experiment.thresholds[experiment.final_model]
        write_predictions(folder, test.image_ids, test.used_ids, final.test, thresholds, inputs.label_names)
    write_table(_out_of_fold_table(inputs, experiment), folder / "oof_probability.csv")
    write_table(_metrics_table(experiment), folder / "metrics.csv")
    write_table(_thresholds_table(inputs, experiment), folder / "thresholds.csv")
    if experiment.returns:
        write_table(_backbones_table(inputs, experiment), folder / "backbones.csv")
    if experiment.heads:
        write_table(_curves_table(experiment), folder / "curves.csv")
    write_table(_labels_table(inputs, experiment), folder / "labels.csv")
    write_table(_gallery_table(inputs, experiment), folder / "gallery.csv")
    saved = _save_models(experiment, folder / MODELS)
    files = {name: [path.relative_to(folder) for path in paths] for name, paths in saved.items()}
    described = {**record, **describe_run(inputs, experiment, files)}
    (folder / MARK).write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _save_models(experiment: Experiment, models: Path) -> dict[str, list[Path]]:
    """Save every fitted model; gives the files of each that predict new images, in the order of the fits."""
    fits = experiment.plan.fits()
    saved: dict[str, list[Path]] = {}
    for name, of_fits in experiment.models.items():
        files = save_fits(models, name, {fit.name: model for fit, model in zip(fits, of_fits, strict=True)})
        saved[name] = [files[fit.name] for fit in fits if fit.predicts_test]
    for name, ensemble in experiment.ensembles.items():
        path = ensemble_path(models, name)
        path.write_bytes(dump_trusted(ensemble))
        saved[name] = [path]
    return saved


def _out_of_fold_table(inputs: Inputs, experiment: Experiment) -> pd.DataFrame:
    """Set every model's out-of-fold probabilities one below the other."""
    tables = []
    for name, prediction in experiment.predictions.items():
        table = pd.DataFrame(prediction.out_of_fold, columns=list(inputs.label_names))
        table.insert(0, "ID", list(inputs.train.used_ids))
        table.insert(1, "model", name)
        table.insert(2, "fold", experiment.folds.fold_of_row)
        tables.append(table)
    return pd.concat(tables)


def _labelled_splits(inputs: Inputs, experiment: Experiment) -> list[tuple[str, SplitInputs, np.ndarray, np.ndarray]]:
    """List the labelled splits: name, images, labels, and the final model's probabilities."""
    final, test = experiment.predictions[experiment.final_model], inputs.test
    splits = [("train", inputs.train, inputs.train_labels, final.out_of_fold)]
    if test is not None and test.labels is not None and final.test is not None:
        splits.append(("test", test, test.labels, final.test))
    return splits


def _labels_table(inputs: Inputs, experiment: Experiment) -> pd.DataFrame:
    """List what is known of each labelled image."""
    tables = []
    for split, images, labels, _ in _labelled_splits(inputs, experiment):
        table = pd.DataFrame(labels, columns=list(inputs.label_names))
        table.insert(0, "split", split)
        table.insert(1, "ID", list(images.used_ids))
        table.insert(2, "group", "" if images.groups is None else images.groups)
        fold = pd.Series(experiment.folds.fold_of_row if split == "train" else pd.NA, index=table.index, dtype="Int64")
        table.insert(3, "fold", fold)
        tables.append(table)
    return pd.concat(tables)


def _gallery_table(inputs: Inputs, experiment: Experiment) -> pd.DataFrame:
    """List the images worth looking at, of each labelled split, by the final model at its thresholds."""
    thresholds = experiment.thresholds[experiment.final_model]
    rows = [
        (split, images.used_ids[choice.row], inputs.label_names[choice.label], choice.outcome, choice.rank)
        for split, images, labels, probabilities in _labelled_splits(inputs, experiment)
        for choice in choose_gallery(labels, probabilities, thresholds, images.groups)
    ]
    return pd.DataFrame(rows, columns=["split", "ID", "label", "outcome", "rank"])


def _metrics_table(experiment: Experiment) -> pd.DataFrame:
    """List every score; an undefined one is a missing value."""
    rows = [
        (model, split, score.label, score.metric, score.value, score.low, score.high)
        for (model, split), scores in experiment.scores.items()
        for score in scores
    ]
    table = pd.DataFrame(rows, columns=["model", "split", "label", "metric", "value", "low", "high"])
    return table.astype({"value": "float64", "low": "float64", "high": "float64"})


def _thresholds_table(inputs: Inputs, experiment: Experiment) -> pd.DataFrame:
    """List every model's thresholds, and what they cost."""
    rows, rule = [], experiment.settings.threshold
    for model, thresholds in experiment.thresholds.items():
        out_of_fold = experiment.predictions[model].out_of_fold
        costs = measure_cost(inputs.train_labels, out_of_fold, experiment.decisions[model])
        rows += [
            (model, label, rule.text, threshold, *cost)
            for label, threshold, cost in zip(inputs.label_names, thresholds, costs, strict=True)
        ]
    measured = ["f1", "sensitivity", "specificity"]
    columns = ["model", "label", "rule", "threshold", *measured, *(f"{name}_at_half" for name in measured)]
    return pd.DataFrame(rows, columns=columns)


def _backbones_table(inputs: Inputs, experiment: Experiment) -> pd.DataFrame:
    """List what each backbone adds, per megabyte of its cache files, and per second of its extraction."""
    splits = [inputs.train] if inputs.test is None else [inputs.train, inputs.test]
    table = pd.DataFrame([asdict(entry) for entry in experiment.returns]).astype({"low": "float64", "high": "float64"})
    table["megabytes"] = [sum(s.cache_bytes[name] for s in splits) / 1e6 for name in table["backbone"]]
    table["gain_per_megabyte"] = table["gain"] / table["megabytes"]
    seconds = pd.DataFrame([[s.extraction_seconds[name] for s in splits] for name in table["backbone"]], dtype=float)
    table["seconds"] = seconds.sum(axis=1, skipna=False)
    table["gain_per_second"] = table["gain"] / table["seconds"].where(table["seconds"] > 0)
    return table


def _curves_table(experiment: Experiment) -> pd.DataFrame:
    """List what every epoch of every cross-fitted head came to; the one on all rows has nothing to be measured by."""
    tables = []
    for model, of_fits in experiment.heads.items():
        for fold, (fit, head) in enumerate(zip(experiment.plan.fits(), of_fits, strict=True)):
            if fit.name != REFIT:
                table = pd.DataFrame(asdict(head.curves))
                table.insert(0, "model", model)
                table.insert(1, "fold", fold)
                table.insert(2, "epoch", range(1, len(table) + 1))
                tables.append(table)
    return pd.concat(tables)
