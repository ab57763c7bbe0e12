"""Read the files of a run that the report shows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classify.report.record_shape import check_record
from classify.report.run_checks import (
    check_curves,
    check_gallery,
    check_ids,
    check_labels,
    check_metrics,
    check_numbers,
    check_thresholds,
)
from classify.rundir.folder import MARK, mark_of
from classify.rundir.tables import PROBABILITIES
from features.common.errors import InputError

#: Columns of thresholds.csv: what the run's thresholds cost, cross-fitted, and what 0.5 would.
COSTS = ("f1", "sensitivity", "specificity", "f1_at_half", "sensitivity_at_half", "specificity_at_half")
#: Characters of a reason in a message; of a damaged file the libraries' words are longer than the file.
_REASON = 200


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

    @classmethod
    def read(cls, folder: Path) -> "RunFiles":
        """Read a run.

        Raises:
            InputError: the folder holds no finished run, or a file of it is missing, damaged, or lacks rows that the
                record speaks of; the message names it.
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

    @property
    def cuts(self) -> np.ndarray:
        """The final model's thresholds: float64 (L,)."""
        return self.thresholds.loc[list(self.label_names), "threshold"].to_numpy(np.float64)

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
            # A check's own words; of an error of a library also its kind.
            reason = str(error) if type(error) is ValueError else repr(error)
            reason = reason if len(reason) <= _REASON else f"{reason[:_REASON]}..."
            raise InputError(f"{self._path} cannot be read ({reason}). Make the run again.") from None

    def _read(self) -> RunFiles:
        record = self._record()
        final, labels, models = record["final_model"], record["labels"], list(record["models"])
        columns = ["label", "metric", "value", "low", "high"]
        metrics = self._table("metrics.csv", ["model", "split", *columns], text=["model", "split", "label", "metric"])
        check_metrics(metrics, models)
        thresholds = self._table("thresholds.csv", ["model", "label", "threshold", *COSTS], text=["model", "label"])
        check_thresholds(thresholds, models, labels, COSTS)
        splits = self._splits(final, labels, record)
        gallery = self._table(
            "gallery.csv", ["split", "ID", "label", "outcome", "rank"], text=["split", "ID", "label", "outcome"]
        )
        check_gallery(gallery, {name: split.image_ids for name, split in splits.items()}, labels)
        backbones = self._backbones(record)
        curves = self._table(
            "curves.csv",
            ["model", "fold", "epoch", "loss", "auc", "validation_loss", "validation_auc"],
            ["model"],
            required=False,
        )
        check_curves(curves, record)
        return RunFiles(
            folder=self._folder,
            record=record,
            label_names=tuple(labels),
            splits=splits,
            scores={
                (row.model, row.split, row.label, row.metric): (row.value, row.low, row.high)
                for row in metrics.itertuples()
            },
            thresholds=thresholds[thresholds["model"] == final].set_index("label").loc[labels],
            gallery=gallery,
            backbones=backbones,
            curves=curves,
        )

    def _backbones(self, record: dict[str, Any]) -> pd.DataFrame | None:
        """Read what each backbone is worth."""
        measured = ["macro_auc", "gain", "low", "high", "megabytes", "gain_per_megabyte"]
        table = self._table("backbones.csv", ["backbone", *measured], ["backbone"], required=False)
        if table is not None:
            check_ids(list(table["backbone"]), record["backbones"])
            check_numbers(table, measured[:2], -1, 1)
            check_numbers(table, measured[2:], -np.inf, np.inf, empty=True)
        return table

    def _record(self) -> dict[str, Any]:
        """Read `run.json`."""
        self._path = self._folder / MARK
        record = json.loads(self._path.read_text(encoding="utf-8"))
        check_record(record)
        return dict(record)

    def _splits(self, final: str, labels: list[str], record: dict[str, Any]) -> dict[str, LabelledSplit]:
        """Join labels and probabilities by id."""
        table = self._table("labels.csv", ["split", "ID", "group", *labels], text=["split", "ID", "group"])
        check_labels(table, labels, record)
        splits = {}
        for name in ("train", "test"):
            rows = table[table["split"] == name]
            if name == "train" or len(rows):
                groups = rows["group"].to_numpy(dtype=object)
                splits[name] = LabelledSplit(
                    name=name,
                    image_ids=tuple(rows["ID"]),
                    groups=groups if (groups != "").any() else None,
                    labels=rows[labels].to_numpy(np.uint8),
                    probabilities=self._probabilities(name, final, labels, list(rows["ID"])),
                )
        return splits

    def _probabilities(self, split: str, final: str, labels: list[str], image_ids: list[str]) -> np.ndarray:
        """Read what the final model makes of the images of a split: float32 (N, L)."""
        if split == "train":
            table = self._table("oof_probability.csv", ["ID", "model", *labels], ["ID", "model"], numbers=labels)
            table = table[table["model"] == final]
        else:
            table = self._table(PROBABILITIES, ["ID", *labels], ["ID"], numbers=labels)
        check_ids(list(table["ID"]), image_ids)
        own = table[table["ID"].isin(image_ids)]  # an image without features has empty cells
        check_numbers(own, labels, 0, 1)
        if split == "train" and len(own) < len(table):
            raise ValueError(f"it has {len(table) - len(own)} rows of {final} of images that labels.csv lacks")
        return own.set_index("ID").loc[image_ids, labels].to_numpy(np.float32)

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
