"""The tables of what a reader acts on: operating points."""

from typing import Any

import pandas as pd

from classify.report import plotting
from classify.report.run_files import RunFiles
from classify.rundir.files import read_run_table
from classify.rundir.folder import OPERATING_POINTS

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


def _cell(rows: pd.DataFrame, figure: str) -> tuple[str, str]:
    """Write a figure and its interval; likelihood ratios, which have no scale, with two digits."""
    row = rows[rows["figure"] == figure].iloc[0]
    if not figure.startswith("lr"):
        return plotting.short(row["value"]), plotting.interval(row["low"], row["high"])
    ends = "" if pd.isna(row["low"]) else f"[{row['low']:.2g}, {row['high']:.2g}]"
    return plotting.DASH if pd.isna(row["value"]) else f"{row['value']:.2g}", ends
