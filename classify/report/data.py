"""The data of a run: images, groups, labels, which labels come together, duplicates and leaks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from classify.options import command_line
from classify.report import plotting
from classify.report.plotting import DASH, FIRST, GRID, INK, SECOND
from classify.report.run_files import LabelledSplit, RunFiles
from features.audit.report import WITHIN_TRAIN, read_audit
from features.common.arrays import UNKNOWN, Labels, count_values

#: Combinations of labels that are listed; the rest are summed up.
_COMBINATIONS = 8
#: Characters of a label beside its bar: more would take the bars' room. The page has the whole of it.
_LABEL = 20
#: Height of a figure of bars, and what each label adds to it.
_INCHES, _INCHES_LABEL = 1.1, 0.52


def describe_data(run: RunFiles, figures: Path) -> dict[str, Any]:
    """Gather the section; the PNG files go to the folder `figures`."""
    labels, folds = run.label_names, run.record["folds"]
    shares = {split.name: _share_positives(split.labels) for split in run.splits.values()}
    each = "; ".join(
        f"{name}: " + ", ".join(f"{label} {plotting.percent(v)}" for label, v in zip(labels, values, strict=True))
        for name, values in shares.items()
    )
    of_folds = np.array([folds["positives"][name] for name in labels], float).T
    known = [folds["known"][name] if folds.get("known") else folds["rows"] for name in labels]
    of_folds /= np.maximum(np.array(known, float).T, 1)
    spread = ", ".join(
        f"{label} {plotting.percent(low)} to {plotting.percent(high)}"
        for label, low, high in zip(labels, of_folds.min(axis=0), of_folds.max(axis=0), strict=True)
    )
    prevalence = plotting.to_picture(
        draw_prevalence(labels, shares),
        "prevalence",
        f"Share of positive images per label. {each}.",
        "How many images have each label.",
        figures,
    )
    alike = plotting.to_picture(
        draw_folds(labels, of_folds, shares["train"]),
        "folds",
        f"Share of positives per label in each of the {folds['count']} folds. {spread}.",
        f"How alike the {folds['count']} folds are: a dot per fold, a bar for all.",
        figures,
    )
    return {
        "splits": [_describe_split(run, name) for name in run.record["splits"]],
        "pictures": [prevalence, alike],
        # Exclusive classes never come together.
        "together": [] if run.exclusive else [_count_together(split, labels) for split in run.splits.values()],
        "combinations": [_count_combinations(split, labels) for split in run.splits.values()],
    }


def _describe_split(run: RunFiles, name: str) -> dict[str, Any]:
    """Count images and groups of one split, labelled or not."""
    recorded, split = run.record["splits"][name], run.splits.get(name)
    row = {"name": name, "images": recorded["images"], "rejected": len(recorded["rejected"]), "labelled": split}
    sizes = None
    if split is not None and split.groups is not None:
        # Beside a hold-out, an image without a label or a known group is called a group of its own.
        alone = (split.labels == UNKNOWN).all(axis=1) & (split.groups == np.array(split.image_ids))
        sizes = pd.Series(split.groups[~alone]).value_counts()
    return row | {
        "groups": None if sizes is None else len(sizes),
        "group_median": None if sizes is None else float(sizes.median()),
        "group_most": None if sizes is None else int(sizes.max()),
        "healthy": None if split is None else int((split.labels == 0).all(axis=1).sum()),
        "several": None if split is None else int(((split.labels == 1).sum(axis=1) > 1).sum()),
        "unknown": 0 if split is None else int((split.labels == UNKNOWN).any(axis=1).sum()),
    }


def _share_positives(labels: Labels) -> np.ndarray:
    """Give the share of positives among the known rows of each label: float64 (L,), 0 of none."""
    positives, negatives = count_values(labels)
    shares: np.ndarray = positives / np.maximum(positives + negatives, 1)
    return shares


def _count_together(split: LabelledSplit, labels: tuple[str, ...]) -> dict[str, Any]:
    """Count, for every two labels, the images that have both."""
    positive = (split.labels == 1).astype(np.int64)
    both = positive.T @ positive
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
    """Count the images per set of labels, most frequent first; those with an unknown one by themselves."""
    unknown = split.labels == UNKNOWN
    sets = np.column_stack([split.labels == 1, unknown.any(axis=1), unknown.all(axis=1)])
    kinds, counts = np.unique(sets, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rows = [
        {
            "name": _name_set(labels, kinds[kind]),
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


def _name_set(labels: tuple[str, ...], kind: np.ndarray) -> str:
    """Name the labels that an image has, bool (L + 2,): each label, whether one is not known, whether none is."""
    *positive, some_unknown, unlabelled = kind
    if unlabelled:
        return "not labelled"
    named = " + ".join(label for label, has in zip(labels, positive, strict=True) if has) or "no label"
    return named + (", others not known" if some_unknown else "")


def describe_audit(run: RunFiles) -> dict[str, Any]:
    """Gather the part; only the command that makes one where nobody audited the features into this folder.

    Raises:
        InputError: the audit's record is damaged.
    """
    audit = read_audit(run.folder, f"Make it again: {command_line('features audit', run.folder, run.record)}")
    if audit is None:
        return {"command": command_line("features audit", run.folder, run.record), "scopes": None}
    return {
        "scopes": [
            {**pairs, "name": name, "across_folds": _across_folds(name, pairs["across_folds"])}
            for name, pairs in audit["pairs"].items()
        ],
        "distance": audit["threshold"] and audit["threshold"]["distance"],
        "both_sides": audit["groups"]["on_several_sides"],
        "backbones": ", ".join(audit["backbones"]),
    }


def _across_folds(scope: str, count: int | None) -> str:
    """Write how many pairs are across folds, which only training images have."""
    if scope != WITHIN_TRAIN:
        return DASH
    return "not known" if count is None else str(count)


def draw_prevalence(labels: Sequence[str], shares: Mapping[str, np.ndarray]) -> Figure:
    """Draw the shares of positives, by split a float64 array (L,), 0-1, as bars, one per label and split."""
    figure, axes = plotting.new_figure(height=_INCHES + _INCHES_LABEL * len(labels))
    thickness = 0.8 / len(shares)
    places = np.arange(len(labels))
    for index, ((split, values), colour) in enumerate(zip(shares.items(), (FIRST, SECOND), strict=False)):
        bars = axes.barh(places + (index - (len(shares) - 1) / 2) * thickness, 100 * values, thickness * 0.9,
                         color=colour, label=split)  # fmt: skip
        axes.bar_label(bars, [f"{100 * value:.1f}" for value in values], padding=3, fontsize=8, color=INK)
    _name_axes(axes, labels, max(values.max() for values in shares.values()))
    if len(shares) > 1:
        plotting.add_legend(figure)
    return figure


def draw_folds(labels: Sequence[str], shares: np.ndarray, overall: np.ndarray) -> Figure:
    """Draw each fold's share of positives as dots beside the share over all; float64 arrays (F, L) and (L,), 0-1."""
    figure, axes = plotting.new_figure(height=_INCHES + _INCHES_LABEL * len(labels))
    places = np.arange(len(labels))
    axes.barh(places, 100 * overall, 0.62, color=GRID)
    for fold in shares:
        axes.plot(100 * fold, places, "o", color=FIRST, markersize=5, alpha=0.75)
    _name_axes(axes, labels, max(shares.max(), overall.max()))
    return figure


def _name_axes(axes: Axes, labels: Sequence[str], largest: float) -> None:
    """Name bars by their labels, the first on top, and leave room beside the largest share."""
    axes.set_yticks(range(len(labels)), [plotting.shorten(label, _LABEL) for label in labels])
    axes.invert_yaxis()
    axes.set(xlabel="positive, % of the images", xlim=(0, 112 * largest))
    axes.grid(visible=False, axis="y")
