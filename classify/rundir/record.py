"""The record of a run: how it came about, as plain values for run.json."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from classify.experiment import Experiment
from classify.inputs import Inputs
from classify.models.trained_head import TrainedHead
from classify.scores.metrics import describe_rule
from classify.scores.resampling import DRAWS, ENDS
from features.common.arrays import UNKNOWN, Labels, count_values
from features.folds.folds import Folds

_VERSIONED = ("numpy", "scipy", "scikit-learn", "pandas", "h5py", "joblib", "skops")
_VERSIONED_OF_HEADS = ("keras",)


def describe_run(inputs: Inputs, experiment: Experiment, files: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Gather what the record says of inputs, folds and models, as plain values."""
    splits = {"train": inputs.train} | ({} if inputs.test is None else {"test": inputs.test})
    folds, settings, heads = experiment.folds, experiment.settings, experiment.heads
    versioned = _VERSIONED + (_VERSIONED_OF_HEADS if heads else ())
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in versioned},
        "labels": list(inputs.label_names),
        "exclusive": experiment.settings.exclusive,
        "backbones": {
            name: {
                "width": columns.stop - columns.start,
                "views": inputs.recipes[name].describe_views(inputs.tta, inputs.train.views is not None),
                "recipe": asdict(inputs.recipes[name]),
            }
            for name, columns in inputs.columns.items()
        },
        "splits": {
            name: {
                "images": len(split.image_ids),
                "rejected": list(split.rejected_ids),
                "positives": None,
                "fingerprints": split.fingerprints,
            }
            | ({} if split.labels is None else _count_labels(inputs.label_names, split.labels))
            for name, split in splits.items()
        },
        "folds": {
            "count": folds.count,
            "repeats": len(experiment.plan.repeats),
            "groups": folds.group_count,
            "rows": np.bincount(folds.fold_of_row, minlength=folds.count).tolist(),
        }
        | _count_by_fold(inputs, folds),
        "models": {
            name: {
                "converged": p.converged,
                "fit_seconds": round(p.seconds, 3),
                "backbones": list(p.backbones),
                "shares": p.shares,
                "members": list(experiment.members.get(name, ())),
                "files": list(files.get(name, ())),
            }
            | _describe_heads(heads.get(name, ()))
            for name, p in experiment.predictions.items()
        },
        "refit": settings.refit,
        "final_model": experiment.final_model,
        "selection": {
            "rule": settings.select,
            "means": describe_rule(settings.select),
            "left_out": experiment.left_out,
            "nested": experiment.nested and experiment.nested.describe(),
            "permutations": experiment.permutations and experiment.permutations.describe(),
        },
        "calibration": settings.calibration,
        "thresholds": {
            "rule": settings.threshold.text,
            "of_final_model": dict(
                zip(inputs.label_names, experiment.thresholds[experiment.final_model].tolist(), strict=True)
            ),
            "promises": {
                name: {"rests_on": promise.describe()} | promise._asdict()
                for name, promise in zip(inputs.label_names, experiment.readings.promises, strict=False)
            },
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


def _count_labels(label_names: Sequence[str], labels: Labels) -> dict[str, dict[str, int]]:
    """Count the positives and, where a label is not known of every row, the known rows of each label."""
    positives, negatives = count_values(labels)
    counts = {"positives": positives} | ({"known": positives + negatives} if UNKNOWN in labels else {})
    return {what: dict(zip(label_names, own.tolist(), strict=True)) for what, own in counts.items()}


def _count_by_fold(inputs: Inputs, folds: Folds) -> dict[str, dict[str, list[int]]]:
    """Count the same of the training rows by fold: a number for each."""
    labels = inputs.train_labels
    cells = {"positives": labels == 1} | ({"known": labels != UNKNOWN} if UNKNOWN in labels else {})
    return {
        what: {
            name: np.bincount(folds.fold_of_row, weights=column, minlength=folds.count).astype(int).tolist()
            for name, column in zip(inputs.label_names, own.T, strict=True)
        }
        for what, own in cells.items()
    }


def _describe_heads(heads: Sequence[TrainedHead]) -> dict[str, Any]:
    """Say what the heads of a model are, one per fit, the refit last; nothing of a model that is none."""
    return {"spec": asdict(heads[0].spec), "best_epochs": [head.best_epoch for head in heads]} if heads else {}


def _list_reasons(experiment: Experiment, kind: str) -> list[dict[str, str]]:
    """List the scores that have a reason: `reason` or `interval_reason`."""
    return [
        {"model": model, "split": split, "label": score.label, "metric": score.metric, "reason": getattr(score, kind)}
        for (model, split), scores in experiment.scores.items()
        for score in scores
        if getattr(score, kind)
    ]
