"""What the report says of the data: images, patients, labels, and which labels come together."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classify.report.numbers import percent
from classify.report.plotting import render
from classify.report.run_figures import draw_folds, draw_prevalence
from classify.report.run_files import LabelledSplit, RunFiles

#: Combinations of labels that are listed; the rest are summed up.
_COMBINATIONS = 8


def describe_data(run: RunFiles, figures: Path) -> dict[str, Any]:
    """Gather the section.

    Args:
        run: the run.
        figures: folder for the PNG files.
    """
    shares = {split.name: split.labels.mean(axis=0) for split in run.splits.values()}
    alt = "; ".join(
        f"{name}: " + ", ".join(f"{label} {percent(v)}" for label, v in zip(run.label_names, values, strict=True))
        for name, values in shares.items()
    )
    pictures = [
        render(
            draw_prevalence(run.label_names, shares),
            "prevalence",
            f"Share of positive images per label. {alt}.",
            "How many images have each label.",
            figures,
        )
    ]
    folds = run.record["folds"]
    of_folds = np.array([folds["positives"][name] for name in run.label_names], float).T
    of_folds /= np.array(folds["rows"], float)[:, None]
    spread = ", ".join(
        f"{label} {percent(low)} to {percent(high)}"
        for label, low, high in zip(run.label_names, of_folds.min(axis=0), of_folds.max(axis=0), strict=True)
    )
    pictures.append(
        render(
            draw_folds(run.label_names, of_folds, shares["train"]),
            "folds",
            f"Share of positives per label in each of the {folds['count']} folds. {spread}.",
            f"How alike the {folds['count']} folds are: a dot per fold, a bar for all.",
            figures,
        )
    )
    return {
        "splits": [_describe_split(run, name) for name in run.record["splits"]],
        "pictures": pictures,
        "together": [_count_together(split, run.label_names) for split in run.splits.values()],
        "combinations": [_count_combinations(split, run.label_names) for split in run.splits.values()],
    }


def _describe_split(run: RunFiles, name: str) -> dict[str, Any]:
    """Count images and groups of one split, labelled or not."""
    recorded, split = run.record["splits"][name], run.splits.get(name)
    row = {"name": name, "images": recorded["images"], "rejected": len(recorded["rejected"]), "labelled": split}
    sizes = pd.Series(split.groups).value_counts() if split is not None and split.groups is not None else None
    return row | {
        "groups": None if sizes is None else len(sizes),
        "group_median": None if sizes is None else float(sizes.median()),
        "group_most": None if sizes is None else int(sizes.max()),
        "healthy": None if split is None else int((split.labels.max(axis=1) == 0).sum()),
        "several": None if split is None else int((split.labels.sum(axis=1) > 1).sum()),
    }


def _count_together(split: LabelledSplit, labels: tuple[str, ...]) -> dict[str, Any]:
    """Count, for every two labels, the images that have both."""
    both = split.labels.astype(np.int64).T @ split.labels
    own = np.maximum(np.diag(both), 1)
    return {
        "title": split.name,
        "rows": [
            {
                "label": label,
                "cells": [
                    {"count": int(n), "share": float(n / own[row]), "own": row == column}
                    for column, n in enumerate(both[row])
                ],
            }
            for row, label in enumerate(labels)
        ],
    }


def _count_combinations(split: LabelledSplit, labels: tuple[str, ...]) -> dict[str, Any]:
    """Count the images per set of labels, most frequent first."""
    kinds, counts = np.unique(split.labels, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rows = [
        {
            "name": " + ".join(label for label, has in zip(labels, kinds[kind], strict=True) if has) or "no label",
            "count": int(counts[kind]),
            "share": counts[kind] / len(split.labels),
        }
        for kind in order[:_COMBINATIONS]
    ]
    rest = order[_COMBINATIONS:]
    if len(rest):
        left = int(counts[rest].sum())
        rows.append({"name": f"{len(rest)} other combinations", "count": left, "share": left / len(split.labels)})
    return {"title": split.name, "rows": rows}
