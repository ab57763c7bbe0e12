"""The tables of what a reader acts on: operating points, scores by group, and by subgroup."""

from typing import Any

import pandas as pd

from classify.report import plotting
from classify.report.run_files import RunFiles
from classify.rundir.files import read_run_table
from classify.rundir.folder import GROUP_SCORES, OPERATING_POINTS, SUBGROUPS
from classify.scores.metrics import MACRO
from classify.scores.tables.groups import GROUP_METRICS
from classify.scores.tables.subgroups import SUBGROUP_METRICS

#: Columns of the table of a label, in their order.
_POINTS = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "lr_positive": "LR+",
    "lr_negative": "LR\u2212",
}


def describe_points(run: RunFiles) -> dict[str, list[dict[str, Any]]]:
    """Gather, by label, a table of operating points for each split."""
    table = read_run_table(run, OPERATING_POINTS)
    titles = {split.measured: split.title for split in run.splits.values()}
    return {
        label: [
            {
                "title": titles[split],
                "prevalence": plotting.percent(float(rows["prevalence"].iloc[0])),
                "columns": list(_POINTS.values()),
                "rows": [
                    {
                        "name": at.replace("=", " "),
                        "threshold": plotting.short(float(own["threshold"].iloc[0])),
                        "cells": [_cell(own, figure) for figure in _POINTS],
                    }
                    for at, own in rows.groupby("at", sort=False)
                ],
            }
            for split, rows in of_label.groupby("split", sort=False)
        ]
        for label, of_label in table.groupby("label", sort=False)
    }


def describe_groups(run: RunFiles) -> list[dict[str, Any]]:
    """Gather a table of scores by group for each split; none where no groups are known."""
    table = read_run_table(run, GROUP_SCORES)
    if table.empty:
        return []
    titles = {split.measured: split.title for split in run.splits.values()}
    return [
        {
            "title": titles[split],
            "groups": int(rows["groups"].iloc[0]),
            "rows": [
                {
                    "label": "mean over the labels" if label == MACRO else label,
                    "positives": "" if label == MACRO else int(own["positives"].iloc[0]),
                    "summary": summary,
                    "by_image": run.score(run.final_model, split, label),
                    "threshold": plotting.short(own["threshold"].iloc[0]),
                    "values": [_score(own, metric) for metric in GROUP_METRICS],
                }
                for label, of_label in rows.groupby("label", sort=False)
                for summary, own in of_label.groupby("summary", sort=False)
            ],
        }
        for split, rows in table.groupby("split", sort=False)
    ]


def describe_subgroups(run: RunFiles) -> list[dict[str, Any]]:
    """Gather a table of subgroups for each column and split; none where none were asked for."""
    table = read_run_table(run, SUBGROUPS)
    if table.empty:
        return []
    titles = {split.measured: split.title for split in run.splits.values()}
    return [
        {
            "title": f"{column}, {titles[split]}",
            "rows": [
                {
                    "subgroup": subgroup,
                    "label": "mean over the labels" if label == MACRO else label,
                    "images": int(own["images"].iloc[0]),
                    "positives": "" if label == MACRO else int(own["positives"].iloc[0]),
                    "auc": _score(own, "roc_auc"),
                    "difference": _difference(own),
                    "values": [_score(own, metric) for metric in SUBGROUP_METRICS[1:]],
                }
                for subgroup, of_subgroup in rows.groupby("subgroup", sort=False)
                for label, own in of_subgroup.groupby("label", sort=False)
            ],
        }
        for (column, split), rows in table.groupby(["column", "split"], sort=False)
    ]


def _difference(rows: pd.DataFrame) -> tuple[str, str, bool]:
    """Write the difference of the AUC from the rest, its interval, and say whether that leaves 0 out."""
    row = rows[rows["metric"] == "roc_auc"].iloc[0]
    if pd.isna(row["difference"]):
        return plotting.DASH, "", False
    ends = row["difference_low"], row["difference_high"]
    known = "" if pd.isna(ends[0]) else f"[{ends[0]:+.3f}, {ends[1]:+.3f}]"
    return f"{row['difference']:+.3f}", known, bool(ends[0] > 0 or ends[1] < 0)


def _score(rows: pd.DataFrame, metric: str) -> tuple[str, str]:
    """Write a score and its interval."""
    row = rows[rows["metric"] == metric].iloc[0]
    return plotting.short(row["value"]), plotting.interval(row["low"], row["high"])


def _cell(rows: pd.DataFrame, figure: str) -> tuple[str, str]:
    """Write a figure and its interval; likelihood ratios have no upper end."""
    row = rows[rows["figure"] == figure].iloc[0]
    if not figure.startswith("lr"):
        return plotting.short(row["value"]), plotting.interval(row["low"], row["high"])
    ends = "" if pd.isna(row["low"]) else f"[{_ratio(row['low'])}, {_ratio(row['high'])}]"
    return _ratio(row["value"]), ends


def _ratio(value: float) -> str:
    """Write a likelihood ratio."""
    if pd.isna(value) or value == float("inf"):
        return plotting.DASH if pd.isna(value) else "\u221e"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
