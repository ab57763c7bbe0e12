"""Read the files of a run that the report shows."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from classify.rundir.files import (
    read_intervals,
    read_metrics,
    read_out_of_fold,
    read_predictions,
    read_run_table,
    read_thresholds,
)
from classify.rundir.folder import BACKBONES_TABLE, CURVES, GALLERY, LABEL_ERRORS, LEADERBOARD_TABLE, SealedRun
from classify.rundir.saved_run import SavedRun
from classify.scores.metrics import MACRO
from classify.scores.small import describe_other_intervals
from features.common.arrays import Groups, Labels, Probabilities


@dataclass(frozen=True)
class LabelledSplit:
    """The labelled images of one split, N of them, with what the final model makes of them.

    Attributes:
        name: `train` or `test`.
        image_ids: in the data set's order.
        groups: None where no groups are known.
        probabilities: of `train` out-of-fold.
    """

    name: str
    image_ids: tuple[str, ...]
    groups: Groups | None
    labels: Labels
    probabilities: Probabilities

    @property
    def measured(self) -> str:
        """How metrics.csv calls the split: `oof` or `test`."""
        return "oof" if self.name == "train" else self.name

    @property
    def title(self) -> str:
        """What the page calls it."""
        return "training images, out-of-fold" if self.name == "train" else "test images"


@dataclass(frozen=True)
class RunFiles(SealedRun):
    """What a run's files say.

    Attributes:
        splits: the labelled splits by name, `train` first.
        scores: `metrics.csv`: value, low and high by model, split, label and metric; NaN where a cell is empty.
        other_intervals: which intervals of `metrics.csv` are not the bootstrap's, in words; "" where all are.
        leaderboard: `leaderboard.csv`, by model.
        thresholds: the final model's rows of `thresholds.csv`, by label.
        gallery: `gallery.csv`.
        label_errors: `label_errors.csv`.
        backbones: `backbones.csv`; empty of a run on one backbone.
        curves: `curves.csv`; empty of a run without heads.
    """

    splits: dict[str, LabelledSplit]
    scores: Mapping[tuple[str, str, str, str], tuple[float, float, float]]
    other_intervals: str
    leaderboard: pd.DataFrame
    thresholds: pd.DataFrame
    gallery: pd.DataFrame
    label_errors: pd.DataFrame
    backbones: pd.DataFrame
    curves: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> "RunFiles":
        """Read a run.

        Raises:
            InputError: the folder holds no finished run, or a file of it is missing, damaged, or was changed by hand;
                the message names it.
        """
        run = SavedRun.open(folder)
        splits = {}
        for name, known in run.labels.items():
            if name == "train":
                probabilities = read_out_of_fold(run, [run.final_model], known.image_ids)[run.final_model]
            else:
                probabilities = read_predictions(run, known.image_ids)
            splits[name] = LabelledSplit(name, known.image_ids, known.groups, known.labels, probabilities)
        return cls(
            folder=folder,
            record=run.record,
            splits=splits,
            scores=read_metrics(run),
            other_intervals=describe_other_intervals(read_intervals(run), run.record["intervals"]["unit"]),
            leaderboard=read_run_table(run, LEADERBOARD_TABLE).set_index("model"),
            thresholds=read_thresholds(run, run.final_model),
            gallery=read_run_table(run, GALLERY),
            label_errors=read_run_table(run, LABEL_ERRORS),
            backbones=read_run_table(run, BACKBONES_TABLE),
            curves=read_run_table(run, CURVES),
        )

    def score(
        self, model: str, measured: str = "oof", label: str = MACRO, metric: str = "roc_auc"
    ) -> tuple[float, float, float]:
        """Give one figure of `metrics.csv` with its interval: value, low, high; NaN where there is none."""
        return self.scores.get((model, measured, label, metric), (np.nan, np.nan, np.nan))

    @property
    def means(self) -> str:
        """Say which labels means are over, such as `the mean over 2 of 3 labels, without epidural (2 positives)`."""
        names, left_out = self.label_names, self.record["selection"]["left_out"]
        if not left_out:
            return "the mean over the labels"
        without = ", ".join(f"{name} ({why})" for name, why in left_out.items())
        return f"the mean over {len(names) - len(left_out)} of {len(names)} labels, without {without}"

    @property
    def group(self) -> str:
        """What the run's groups are called: as the group column says, if it is of patients or subjects."""
        if self.record["folds"]["groups"] is None or self.record["arguments"]["groups"] is not None:
            return "group"
        named = re.search("patient|subject", self.record["groups_from"].lower())
        return named[0] if named else "group"

    @property
    def cuts(self) -> np.ndarray:
        """The final model's thresholds: float64 (L,)."""
        return self.thresholds.loc[list(self.label_names), "threshold"].to_numpy(np.float64)


def ends_of(score: Mapping[str, float | None]) -> tuple[float, float, float]:
    """Value, low and high of a score of the record, which has a missing one as null; NaN then."""
    value, low, high = (math.nan if end is None else end for end in (score["value"], score["low"], score["high"]))
    return value, low, high
