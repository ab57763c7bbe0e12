"""The tables of what a reader acts on: operating points, and scores by group."""

from typing import Any

import pandas as pd

from classify.report import plotting
from classify.report.run_files import RunFiles
from classify.rundir.files import read_run_table
from classify.rundir.folder import GROUP_SCORES, OPERATING_POINTS
from classify.scores.metrics import MACRO
from classify.scores.tables.groups import GROUP_METRICS

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
                        "name": at.replace("sensitivity", "sensitivity "),
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
                    "by_image": plotting.with_interval(run.score(run.final_model, split, label)),
                    "threshold": plotting.short(own["threshold"].iloc[0]),
                    "values": [_score(own, metric) for metric in GROUP_METRICS],
                }
                for label, of_label in rows.groupby("label", sort=False)
                for summary, own in of_label.groupby("summary", sort=False)
            ],
        }
        for split, rows in table.groupby("split", sort=False)
    ]


def _score(rows: pd.DataFrame, metric: str) -> tuple[str, str]:
    """Write a score and its interval."""
    row = rows[rows["metric"] == metric].iloc[0]
    return plotting.short(row["value"]), plotting.interval(row["low"], row["high"])


def _cell(rows: pd.DataFrame, figure: str) -> tuple[str, str]:
    """Write a figure and its interval; likelihood ratios, which have no scale, with two digits."""
    row = rows[rows["figure"] == figure].iloc[0]
    if not figure.startswith("lr"):
        return plotting.short(row["value"]), plotting.interval(row["low"], row["high"])
    ends = "" if pd.isna(row["low"]) else f"[{row['low']:.2g}, {row['high']:.2g}]"
    return plotting.DASH if pd.isna(row["value"]) else f"{row['value']:.2g}", ends
