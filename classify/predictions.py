"""Write the files of a run: predictions, out-of-fold probabilities, metrics, and how they came about."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classify.experiment import Experiment
from classify.head_files import curves_table, save_heads
from classify.inputs import Inputs, SplitInputs
from classify.metrics import ENDS
from classify.resampling import DRAWS
from classify.run_folder import MODELS
from classify.selection import describe_rule
from classify.thresholds import measure_cost, to_binary
from classify.trained_head import TrainedHead
from features.errors import InputError

VERSIONED = ("numpy", "scipy", "scikit-learn", "pandas", "h5py", "joblib", "iterative-stratification")
VERSIONED_OF_HEADS = ("tensorflow", "keras")


def write_files(folder: Path, inputs: Inputs, experiment: Experiment, record: Mapping[str, Any]) -> None:
    """Write a run's files into a folder.

    - `predictions_probability.csv`, `predictions_binary.csv`: `ID` and the labels, one row per test image in the data
      set's order, by the final model; empty cells for the images that stage 1 rejected. Only with a test split.
    - `oof_probability.csv`: `ID`, `model`, `fold`, and the labels: one row per model and training image.
    - `metrics.csv`: `model`, `split`, `label`, `metric`, `value`, `low`, `high`; an undefined value is an empty cell.
    - `thresholds.csv`: `model`, `label`, `rule`, `threshold`, and what it costs: F1, sensitivity and specificity on the
      training images, by cross-fitted thresholds and, beside them, by 0.5.
    - `backbones.csv`: `backbone`, `macro_auc`, `gain`, `low`, `high`, `megabytes`, `gain_per_megabyte`, `seconds`,
      `gain_per_second`, in the order in which backbones were added to the mean. The megabytes are of the cache, the
      seconds of the device that extracted the rows in use, over all splits; empty cells where a cache file does not say
      them. Only with several.
    - `curves.csv` and `models/`: see `head_files`. Only with heads.
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
        probabilities = _test_table(inputs.test, final.test, inputs.label_names)
        _write_table(probabilities, folder / "predictions_probability.csv")
        decided = to_binary(final.test, experiment.thresholds[experiment.final_model])
        binary = _test_table(inputs.test, decided, inputs.label_names)
        _write_table(binary, folder / "predictions_binary.csv")
    _write_table(_out_of_fold_table(inputs, experiment), folder / "oof_probability.csv")
    _write_table(_metrics_table(experiment), folder / "metrics.csv")
    _write_table(_thresholds_table(inputs, experiment), folder / "thresholds.csv")
    if experiment.returns:
        _write_table(_backbones_table(inputs, experiment), folder / "backbones.csv")
    if experiment.heads:
        _write_table(curves_table(experiment.heads), folder / "curves.csv")
        save_heads(experiment.heads, folder / MODELS)
    described = {**record, **_describe(inputs, experiment)}
    (folder / "run.json").write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as UTF-8 CSV with the same bytes on every system."""
    table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def _test_table(test: SplitInputs, values: np.ndarray, label_names: tuple[str, ...]) -> pd.DataFrame:
    """Set values beside the ids of all test images.

    Args:
        test: N images, M of them with features.
        values: float32 or uint8 array (M, L).
        label_names: the L labels.

    Returns:
        N rows; `ID` and the labels. A rejected image's cells are missing values.
    """
    known = pd.DataFrame(values, columns=list(label_names), index=list(test.used_ids))
    if values.dtype == np.uint8:
        known = known.astype("UInt8")  # pandas' own integers may be missing
    return known.reindex(list(test.image_ids)).rename_axis("ID").reset_index()


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
        costs = measure_cost(inputs.train_labels, out_of_fold, rule, experiment.folds)
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


def _describe(inputs: Inputs, experiment: Experiment) -> dict[str, Any]:
    """Gather what `run.json` says of inputs, folds and models."""
    splits = {"train": inputs.train} | ({} if inputs.test is None else {"test": inputs.test})
    folds, settings = experiment.folds, experiment.settings
    versioned = VERSIONED + (VERSIONED_OF_HEADS if experiment.heads else ())
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in versioned},
        "labels": list(inputs.label_names),
        "splits": {
            name: {
                "images": len(split.image_ids),
                "rejected": list(split.rejected_ids),
                "positives": None
                if split.labels is None
                else dict(zip(inputs.label_names, split.labels.sum(axis=0).tolist(), strict=True)),
                "fingerprints": split.fingerprints,
            }
            for name, split in splits.items()
        },
        "folds": {
            "count": folds.count,
            "groups": folds.group_count,
            "rows": np.bincount(folds.fold_of_row, minlength=folds.count).tolist(),
            "positives": {
                name: np.bincount(folds.fold_of_row, weights=column, minlength=folds.count).astype(int).tolist()
                for name, column in zip(inputs.label_names, inputs.train_labels.T, strict=True)
            },
        },
        "models": {
            name: {
                "converged": p.converged,
                "fit_seconds": round(p.seconds, 3),
                "backbones": list(p.backbones),
                "shares": p.shares,
            }
            | _describe_heads(experiment.heads.get(name, ()))
            for name, p in experiment.predictions.items()
        },
        "final_model": experiment.final_model,
        "selection": {"rule": settings.select, "means": describe_rule(settings.select)},
        "calibration": settings.calibration,
        "thresholds": {
            "rule": settings.threshold.text,
            "of_final_model": dict(
                zip(inputs.label_names, experiment.thresholds[experiment.final_model].tolist(), strict=True)
            ),
        },
        "intervals": {
            "percentiles": ENDS,
            "draws": DRAWS,
            "seed": settings.seed,
            "unit": "row" if folds.group_count is None else "group",
        },
        "undefined_metrics": _list_reasons(experiment, "reason"),
        "incomplete_intervals": _list_reasons(experiment, "interval_reason"),
        "warnings": list(experiment.warnings),
    }


def _describe_heads(heads: Sequence[TrainedHead]) -> dict[str, Any]:
    """Say what the heads of a model are, one per fold; nothing of a model that is none."""
    if not heads:
        return {}
    return {"spec": asdict(heads[0].spec), "best_epochs": [head.best_epoch for head in heads]}


def _list_reasons(experiment: Experiment, kind: str) -> list[dict[str, str]]:
    """List the scores that have a reason: `reason` or `interval_reason`."""
    return [
        {"model": model, "split": split, "label": score.label, "metric": score.metric, "reason": getattr(score, kind)}
        for (model, split), scores in experiment.scores.items()
        for score in scores
        if getattr(score, kind)
    ]
