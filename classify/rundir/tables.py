"""Tables of a run that are written as they are: what backbones add, curves of heads, what a reader acts on."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from classify.crossfit.plan import REFIT
from classify.experiment import Experiment
from classify.inputs import Inputs
from classify.rundir.folder import (
    BACKBONES_TABLE,
    CONFUSION_MATRIX,
    CURVES,
    GROUP_SCORES,
    OPERATING_POINTS,
    SUBGROUPS,
)


def write_backbones(folder: Path, inputs: Inputs, experiment: Experiment) -> None:
    """Write what each backbone adds, in the order in which they were added to the mean; only with several.

    `backbone`, `macro_auc`, `gain`, `low`, `high`, `megabytes`, `gain_per_megabyte`, `seconds`, `gain_per_second`,
    `views`: `1`, or what was read of several, `mean of 8` or `first of 8`. The megabytes are of the cache, the seconds
    of the device that extracted the rows in use, over all splits; empty cells where a cache file does not say them.
    """
    splits = [inputs.train] if inputs.test is None else [inputs.train, inputs.test]
    table = pd.DataFrame([asdict(entry) for entry in experiment.returns]).astype({"low": "float64", "high": "float64"})
    table["megabytes"] = [sum(s.cache_bytes[name] for s in splits) / 1e6 for name in table["backbone"]]
    table["gain_per_megabyte"] = table["gain"] / table["megabytes"]
    seconds = pd.DataFrame([[s.extraction_seconds[name] for s in splits] for name in table["backbone"]], dtype=float)
    table["seconds"] = seconds.sum(axis=1, skipna=False)
    table["gain_per_second"] = table["gain"] / table["seconds"].where(table["seconds"] > 0)
    table["views"] = [
        inputs.recipes[name].describe_views(inputs.tta, inputs.train.views is not None) for name in table["backbone"]
    ]
    write_table(table, folder / BACKBONES_TABLE)


def write_curves(folder: Path, experiment: Experiment) -> None:
    """Write a row per epoch of every cross-fitted head; one on all rows has nothing to be measured by.

    `model`, `fold` (from 0, over all repeats), `epoch` (from 1), `loss`, `auc`, `validation_loss`, `validation_auc`; an
    AUC that no label has is an empty cell.
    """
    tables = []
    for model, of_fits in experiment.heads.items():
        for fold, (fit, head) in enumerate(zip(experiment.plan.fits(), of_fits, strict=True)):
            if fit.name != REFIT:
                table = pd.DataFrame(asdict(head.curves))
                table.insert(0, "model", model)
                table.insert(1, "fold", fold)
                table.insert(2, "epoch", range(1, len(table) + 1))
                tables.append(table)
    write_table(pd.concat(tables), folder / CURVES)


def write_readings(folder: Path, experiment: Experiment) -> None:
    """Write the rows of `Readings`: a table each, with the names of their fields as columns; none of no rows."""
    readings = experiment.readings
    tables: dict[str, Sequence[NamedTuple]] = {
        OPERATING_POINTS: readings.operating_points,
        GROUP_SCORES: readings.groups,
        SUBGROUPS: readings.subgroups,
        CONFUSION_MATRIX: readings.confusions,
    }
    for name, rows in tables.items():
        if rows:
            table = pd.DataFrame(rows)
            counts = [column for column in table if column in ("images", "groups", "positives")]
            write_table(table.astype(dict.fromkeys(counts, "Int64")), folder / name)  # which may be missing


def write_table(table: pd.DataFrame, path: Path, append: bool = False) -> None:
    """Write a table as UTF-8 CSV with the same bytes on every system, or append its rows to one."""
    mode = "a" if append else "w"
    table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8", mode=mode, header=not append)
