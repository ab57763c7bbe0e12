"""Check that the tables of a run are whole: every row that run.json speaks of once, every cell within its range."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from classify.scores.gallery import OUTCOMES
from classify.scores.metrics import MACRO


def check_numbers(table: pd.DataFrame, columns: Iterable[str], low: float, high: float, empty: bool = False) -> None:
    """Refuse cells that are no number, or out of range.

    Args:
        table: with the columns, and an `ID` or `label` for the message.
        columns: which of them.
        low: least value.
        high: greatest value.
        empty: whether a cell may be empty.

    Raises:
        ValueError: the message names the first such cell.
    """
    named = next((name for name in ("ID", "label", "model", "backbone") if name in table.columns), None)
    for column in columns:
        numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
        right = (numbers >= low) & (numbers <= high)
        if empty:
            right |= table[column].isna().to_numpy()
        if not right.all():
            row = int(np.argmin(right))
            of = "" if named is None else f" of {table[named].iloc[row]}"
            raise ValueError(
                f"{column}{of} is {table[column].iloc[row]}, not a number from {low:g} to {high:g} "
                f"({int((~right).sum())} such cells)"
            )


def check_ids(found: Sequence[str], wanted: Iterable[str] | None = None) -> None:
    """Refuse ids that stand twice, and a table that lacks some.

    Raises:
        ValueError: the message says how many, and names the first.
    """
    known = set(found)
    if len(known) < len(found):
        twice = pd.Series(list(found))
        twice = twice[twice.duplicated()]
        raise ValueError(f"{len(twice)} rows stand twice (first: {twice.iloc[0]})")
    lacking = [] if wanted is None else [name for name in wanted if name not in known]
    if lacking:
        raise ValueError(f"it lacks {len(lacking)} rows (first: {lacking[0]})")


def check_labels(table: pd.DataFrame, labels: list[str], record: Mapping[str, Any]) -> None:
    """Compare `labels.csv` with what the record says of each split.

    Raises:
        ValueError: a label is neither 0 nor 1, a row lacks or stands twice, or the positives are others.
    """
    check_numbers(table, labels, 0, 1)
    strange = set(table["split"]) - set(record["splits"])
    if strange:
        raise ValueError(f"it names a split {min(strange)!r} that the run does not have")
    for name, split in record["splits"].items():
        rows = table[table["split"] == name]
        check_ids(list(rows["ID"]))
        labelled = split["positives"] is not None
        expected = split["images"] - len(split["rejected"]) if labelled else 0
        if len(rows) != expected:
            raise ValueError(f"it has {len(rows)} rows of {name}, but the run had {expected} labelled images of it")
        for label in labels if labelled else ():
            values = pd.to_numeric(rows[label]).to_numpy(np.float64)
            if not np.isin(values, (0, 1)).all():
                raise ValueError(f"{label} is not 0 or 1 everywhere in {name}")
            if int(values.sum()) != split["positives"][label]:
                raise ValueError(
                    f"{label} has {int(values.sum())} positives in {name}, but the run had {split['positives'][label]}"
                )


def check_metrics(table: pd.DataFrame, models: Iterable[str]) -> None:
    """Compare `metrics.csv` with the models: each has the same scores, each once.

    Raises:
        ValueError: the message says how many rows lack, and which is the first.
    """
    keys = list(zip(table["split"], table["label"], table["metric"], strict=True))
    scores = dict.fromkeys([("oof", MACRO, "roc_auc"), *keys])
    _check_whole(table["model"], keys, models, list(scores))
    check_numbers(table, ("value", "low", "high"), -np.inf, np.inf, empty=True)


def check_thresholds(table: pd.DataFrame, models: Iterable[str], labels: Sequence[str], costs: Sequence[str]) -> None:
    """Compare `thresholds.csv` with the models: each has a threshold per label.

    Raises:
        ValueError: a row lacks or stands twice, or a threshold is no number.
    """
    _check_whole(table["model"], [(label,) for label in table["label"]], models, [(label,) for label in labels])
    check_numbers(table, ("threshold",), 0, np.inf)
    check_numbers(table, costs, 0, 1, empty=True)


def _check_whole(of_model: Iterable[str], keys: list[Any], models: Iterable[str], wanted: list[Any]) -> None:
    """Refuse a table that lacks a key of a model, or has one twice."""
    found = [(model, *key) for model, key in zip(of_model, keys, strict=True)]
    check_ids([", ".join(key) for key in found], [", ".join((model, *key)) for model in models for key in wanted])


def check_curves(table: pd.DataFrame | None, record: Mapping[str, Any]) -> None:
    """Compare `curves.csv` with the heads: each has every fit, up to the epoch that it was kept at.

    Raises:
        ValueError: the file, or a curve of it, lacks.
    """
    heads = {name: entry["best_epochs"] for name, entry in record["models"].items() if "best_epochs" in entry}
    if heads and table is None:
        raise ValueError("it is not there, though the run has heads")
    if table is None:
        return
    check_numbers(table, ("epoch",), 1, np.inf)
    check_numbers(table, ("fold",), 0, np.inf)
    check_numbers(table, ("loss", "auc", "validation_loss", "validation_auc"), -np.inf, np.inf, empty=True)
    last = table.groupby(["model", "fold"])["epoch"].agg(["max", "size"])
    for name, best in heads.items():
        for fold in range(record["folds"]["count"] * record["folds"]["repeats"]):
            if (name, fold) not in last.index:
                raise ValueError(f"it lacks the curve of {name} in fold {fold}")
            epochs, rows = last.loc[(name, fold)]
            if rows != epochs or fold >= len(best) or best[fold] > epochs:
                raise ValueError(f"the curve of {name} in fold {fold} is not whole")


def check_gallery(table: pd.DataFrame, ids: Mapping[str, Iterable[str]], labels: Iterable[str]) -> None:
    """Compare `gallery.csv` with the images: it names known ones, and shows some for each label and split.

    Args:
        table: the gallery.
        ids: of each labelled split.
        labels: the labels.

    Raises:
        ValueError: a cell is not known, or there is no image where there ought to be some.
    """
    images = {(split, image_id) for split, of_split in ids.items() for image_id in of_split}
    for what, found, known in (
        ("label", table["label"], set(labels)),
        ("outcome", table["outcome"], set(OUTCOMES)),
        ("image", list(zip(table["split"], table["ID"], strict=True)), images),
    ):
        strange = [value for value in found if value not in known]
        if strange:
            name = strange[0] if isinstance(strange[0], str) else "/".join(strange[0])
            raise ValueError(f"{len(strange)} rows name no {what} of the run (first: {name})")
    check_numbers(table, ("rank",), 1, np.inf)
    shown = set(zip(table["split"], table["label"], strict=True))
    for split in ids:
        lacking = [label for label in labels if (split, label) not in shown]
        if lacking:
            raise ValueError(f"it shows no image of {split} for {lacking[0]}")
