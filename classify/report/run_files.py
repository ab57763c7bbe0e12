"""Read the files of a run that the report shows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classify.prediction_tables import PROBABILITIES
from classify.run_folder import MARK, mark_of
from features.errors import InputError

#: What the audit of the features leaves in a run's folder, where somebody asked it to.
AUDIT = "audit.json"


@dataclass(frozen=True)
class LabelledSplit:
    """The labelled images of one split, N of them, with what the final model makes of them.

    Attributes:
        name: `train` or `test`.
        image_ids: N ids, in the data set's order.
        groups: object array (N,) of str; None where no groups are known.
        labels: uint8 array (N, L), 0 or 1.
        probabilities: float32 array (N, L), 0-1; of `train` out-of-fold.
    """

    name: str
    image_ids: tuple[str, ...]
    groups: np.ndarray | None
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def measured(self) -> str:
        """How metrics.csv calls the split: `oof` or `test`."""
        return "oof" if self.name == "train" else self.name

    @property
    def title(self) -> str:
        """What a reader is told of it."""
        return "training images, out-of-fold" if self.name == "train" else "test images"


@dataclass(frozen=True)
class RunFiles:
    """What a run's files say.

    Attributes:
        folder: the run's.
        record: `run.json`.
        label_names: the L labels.
        splits: the labelled splits by name, `train` first.
        scores: `metrics.csv`: value, low and high by model, split, label and metric; NaN where a cell is empty.
        thresholds: the final model's rows of `thresholds.csv`, by label.
        backbones: `backbones.csv`; None of a run on one backbone.
        curves: `curves.csv`; None of a run without heads.
        gallery: `gallery.csv`.
        audit: `audit.json`; None where nobody audited the features into this folder.
    """

    folder: Path
    record: dict[str, Any]
    label_names: tuple[str, ...]
    splits: dict[str, LabelledSplit]
    scores: Mapping[tuple[str, str, str, str], tuple[float, float, float]]
    thresholds: pd.DataFrame
    gallery: pd.DataFrame
    backbones: pd.DataFrame | None = None
    curves: pd.DataFrame | None = None
    audit: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path) -> "RunFiles":
        """Read a run.

        Raises:
            InputError: the folder holds no finished run, or a file of it is missing or damaged; the message names it.
        """
        mark_of(folder)
        return _Reader(folder).read()

    @property
    def final_model(self) -> str:
        """The model whose predictions the run handed in."""
        return str(self.record["final_model"])

    def score(self, model: str, measured: str, label: str, metric: str) -> tuple[float, float, float]:
        """Give one figure of `metrics.csv` with its interval: value, low, high; NaN where there is none."""
        return self.scores.get((model, measured, label, metric), (np.nan, np.nan, np.nan))

    def threshold(self, label: str) -> float:
        """Give the final model's threshold of a label."""
        return float(self.thresholds.loc[label, "threshold"])


class _Reader:
    """Reads one folder, and knows which file it is at when something is wrong."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / MARK

    def read(self) -> RunFiles:
        """Do what `RunFiles.read` says."""
        try:
            return self._read()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self._path} cannot be read ({error!r}). Make the run again.") from None

    def _read(self) -> RunFiles:
        record = self._json(MARK)
        final, labels = str(record["final_model"]), [str(name) for name in record["labels"]]
        columns = ["label", "metric", "value", "low", "high"]
        metrics = self._table("metrics.csv", ["model", "split", *columns], text=["model", "split", "label", "metric"])
        thresholds = self._table("thresholds.csv", ["model", "label", "threshold"], text=["model", "label"])
        of_final = thresholds[thresholds["model"] == final].set_index("label").loc[labels]
        splits = self._splits(final, labels)
        gallery = self._table("gallery.csv", ["split", "ID", "label", "outcome", "rank"], text=["split", "ID", "label"])
        return RunFiles(
            folder=self._folder,
            record=record,
            label_names=tuple(labels),
            splits=splits,
            scores={
                (row.model, row.split, row.label, row.metric): (row.value, row.low, row.high)
                for row in metrics.itertuples()
            },
            thresholds=of_final,
            gallery=gallery,
            backbones=self._table("backbones.csv", ["backbone", "macro_auc", "gain"], ["backbone"], required=False),
            curves=self._table("curves.csv", ["model", "fold", "epoch"], ["model"], required=False),
            audit=self._json(AUDIT) if (self._folder / AUDIT).is_file() else None,
        )

    def _splits(self, final: str, labels: list[str]) -> dict[str, LabelledSplit]:
        """Join labels and probabilities by id."""
        table = self._table("labels.csv", ["split", "ID", "group", *labels], text=["split", "ID", "group"])
        out_of_fold = self._table("oof_probability.csv", ["ID", "model", *labels], ["ID", "model"], numbers=labels)
        known = {"train": out_of_fold[out_of_fold["model"] == final].set_index("ID")[labels]}
        if "test" in set(table["split"]):
            known["test"] = self._table(PROBABILITIES, ["ID", *labels], ["ID"], numbers=labels).set_index("ID")[labels]
        splits = {}
        for name, probabilities in known.items():
            rows = table[table["split"] == name]
            groups = rows["group"].to_numpy(dtype=object)
            splits[name] = LabelledSplit(
                name=name,
                image_ids=tuple(rows["ID"]),
                groups=groups if (groups != "").any() else None,
                labels=rows[labels].to_numpy(np.uint8),
                probabilities=probabilities.loc[rows["ID"]].to_numpy(np.float32),
            )
        return splits

    def _json(self, name: str) -> dict[str, Any]:
        self._path = self._folder / name
        return dict(json.loads(self._path.read_text(encoding="utf-8")))

    def _table(
        self, name: str, columns: list[str], text: list[str], numbers: list[str] | None = None, required: bool = True
    ) -> Any:
        """Read a table; `text` are columns whose cells are words, also `NA` and `007`, `numbers` float32 ones."""
        self._path = self._folder / name
        if not required and not self._path.exists():
            return None
        types = dict.fromkeys(text, "object") | dict.fromkeys(numbers or [], "float32")
        # An empty cell is a missing number, but an empty word.
        missing = {column: [""] for column in self._header() if column not in text}
        table = pd.read_csv(self._path, dtype=types, keep_default_na=False, na_values=missing, encoding="utf-8")
        lacking = [column for column in columns if column not in table.columns]
        if lacking:
            raise ValueError(f"it has no column {lacking[0]}")
        return table

    def _header(self) -> list[str]:
        return list(pd.read_csv(self._path, nrows=0, encoding="utf-8").columns)
