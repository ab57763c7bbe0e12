"""Write a finished run: its tables, its models, and the record of how it came about."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from classify.experiment import Experiment
from classify.inputs import Inputs
from classify.models.files import dump_trusted, ensemble_path, save_fits
from classify.models.trained_head import TrainedHead
from classify.rundir.folder import MODELS, seal
from classify.rundir.tables import write_tables
from classify.scores.metrics import describe_rule
from classify.scores.resampling import DRAWS, ENDS
from features.common.errors import InputError

VERSIONED = ("numpy", "scipy", "scikit-learn", "pandas", "h5py", "joblib", "iterative-stratification", "skops")
VERSIONED_OF_HEADS = ("tensorflow", "keras")


def write_files(folder: Path, inputs: Inputs, experiment: Experiment, record: Mapping[str, Any]) -> None:
    """Write a run's files into a folder: tables, models, and last the record, which seals them.

    Times stand in the record only, so that the tables of two equal runs are equal bytes.

    Args:
        folder: an empty folder.
        inputs: what the run learnt from.
        experiment: what it found.
        record: what the caller adds to the record: arguments, seconds.

    Raises:
        InputError: the files cannot be written, as on a full disk.
    """
    try:
        write_tables(folder, inputs, experiment)
        saved = _save_models(experiment, folder / MODELS)
        files = {name: [path.relative_to(folder) for path in paths] for name, paths in saved.items()}
        seal(folder, {**record, **_describe_run(inputs, experiment, files)})
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder} cannot be written ({reason}). Free the disk or name another with --out.") from None


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


def _describe_run(inputs: Inputs, experiment: Experiment, files: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Gather what the record says of inputs, folds and models, as plain values.

    Args:
        inputs: what the run learnt from.
        experiment: what it found.
        files: of each model that predict new images, by their mean; relative to the run's folder.
    """
    splits = {"train": inputs.train} | ({} if inputs.test is None else {"test": inputs.test})
    folds, settings = experiment.folds, experiment.settings
    versioned = VERSIONED + (VERSIONED_OF_HEADS if experiment.heads else ())
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in versioned},
        "labels": list(inputs.label_names),
        "backbones": {
            name: {"width": columns.stop - columns.start, "recipe": asdict(inputs.recipes[name])}
            for name, columns in inputs.columns.items()
        },
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
            "repeats": len(experiment.plan.repeats),
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
                "members": list(experiment.members.get(name, ())),
                "files": [path.as_posix() for path in files.get(name, ())],
            }
            | _describe_heads(experiment.heads.get(name, ()))
            for name, p in experiment.predictions.items()
        },
        "refit": settings.refit,
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
        "gap": None if experiment.gap is None else experiment.gap.describe(),
    }


def _describe_heads(heads: Sequence[TrainedHead]) -> dict[str, Any]:
    """Say what the heads of a model are, one per fit, the refit last; nothing of a model that is none."""
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
