"""What the report says of each label: four figures, and the confusion matrix that the slider moves."""

from pathlib import Path
from typing import Any

import numpy as np

from classify.report.cuts import count_from, positions
from classify.report.label_figures import Scored, draw_calibration, draw_histogram, draw_precision_recall, draw_roc
from classify.report.numbers import file_stem, percent, short, with_interval
from classify.report.plotting import Picture, render
from classify.report.run_files import LabelledSplit, RunFiles
from classify.rundir.tables import COSTS

#: Rows of the table of figures: metric and name; thresholds have no part in the first five.
_METRICS = (
    ("roc_auc", "ROC-AUC"),
    ("average_precision", "average precision"),
    ("brier", "Brier score"),
    ("log_loss", "log loss"),
    ("calibration_error", "calibration error"),
    ("f1", "F1"),
    ("f2", "F2"),
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
    ("accuracy", "accuracy"),
    ("all_negative_accuracy", "accuracy of all-negative"),
)


def describe_labels(run: RunFiles, figures: Path) -> list[dict[str, Any]]:
    """Gather one section per label.

    Args:
        run: the run.
        figures: folder for the PNG files.
    """
    return [_describe_label(run, index, figures) for index in range(len(run.label_names))]


def _describe_label(run: RunFiles, index: int, figures: Path) -> dict[str, Any]:
    """Gather the section of one label."""
    label, splits = run.label_names[index], run.splits.values()
    threshold = run.threshold(label)
    cuts = positions(threshold)
    return {
        "name": label,
        "number": index + 1,
        "threshold": threshold,
        "rule": run.record["thresholds"]["rule"],
        "metrics": [
            {
                "name": name,
                "values": [with_interval(run.score(run.final_model, split.measured, label, key)) for split in splits],
            }
            for key, name in _METRICS
        ],
        "costs": {name: short(run.thresholds.loc[label, name]) for name in COSTS},
        "pictures": _draw(run, index, threshold, figures),
        "cuts": np.round(cuts, 6).tolist(),
        "start": int(np.searchsorted(cuts, threshold)) if np.isfinite(threshold) else len(cuts) - 1,
        "half": int(np.searchsorted(cuts, 0.5)),
        "splits": [_count(split, index, cuts) for split in splits],
    }


def _count(split: LabelledSplit, index: int, cuts: np.ndarray) -> dict[str, Any]:
    """Count what each position of the slider finds in one split."""
    truth = split.labels[:, index]
    found, alarms = count_from(truth, split.probabilities[:, index], cuts)
    return {
        "title": split.title,
        "positives": int(truth.sum()),
        "negatives": int((truth == 0).sum()),
        "tp": found.tolist(),
        "fp": alarms.tolist(),
    }


def _draw(run: RunFiles, index: int, threshold: float, figures: Path) -> list[Picture]:
    """Draw the four figures; a split that lacks a value of the label has no curve."""
    label, stem = run.label_names[index], f"label_{file_stem(index, run.label_names[index])}"
    names = {"oof": "out-of-fold", "test": "test"}
    splits = [
        Scored(names[split.measured], split.labels[:, index], split.probabilities[:, index])
        for split in run.splits.values()
        if split.labels[:, index].min() < split.labels[:, index].max()
    ]

    def told(metric: str) -> str:
        return ", ".join(
            f"{with_interval(run.score(run.final_model, s.measured, label, metric))} on the {s.title}"
            for s in run.splits.values()
        )

    prevalence = percent(float(splits[0].truth.mean()))
    return [
        render(
            draw_roc(splits, threshold),
            f"{stem}_roc",
            f"ROC curve of {label}. Area: {told('roc_auc')}.",
            "ROC; dot: at the run's threshold; broken line: chance.",
            figures,
        ),
        render(
            draw_precision_recall(splits, threshold),
            f"{stem}_precision_recall",
            f"Precision-recall curve of {label}. Average precision: {told('average_precision')}. "
            f"Chance: {prevalence} out-of-fold.",
            "Precision and recall; dot: at the run's threshold; broken line: chance.",
            figures,
        ),
        render(
            draw_calibration(splits),
            f"{stem}_calibration",
            f"Calibration of {label}. Expected calibration error: {told('calibration_error')}.",
            "Calibration: on the broken line, 30 % mean 30 of 100; bars: 95 % intervals.",
            figures,
        ),
        render(
            draw_histogram(splits[0], threshold),
            f"{stem}_histogram",
            f"Out-of-fold probabilities of {label}: negatives and positives, and the threshold {short(threshold)}.",
            "Out-of-fold probabilities of the negatives and the positives.",
            figures,
        ),
    ]
