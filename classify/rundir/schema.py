"""What a record has to hold so that its run can be read: a seal says that it is as it was sealed, not by whom."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le, Len

from classify.models.heads import HeadSpec
from features.store.recipe import Recipe

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_Count = Annotated[int, Ge(0), Le(2**53)]  # as far as a float64 counts
_Some = Annotated[int, Ge(1), Le(2**53)]
_Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
_Names = Annotated[list[str], Len(1)]
#: A calibration of an ensemble of models, and one to spare.
_DEPTH = 4


@dataclass(frozen=True)
class _Backbone:
    width: _Some
    recipe: Recipe
    views: str = "1"


@dataclass(frozen=True)
class _Model:
    converged: bool
    fit_seconds: Annotated[float, Ge(0)]
    backbones: list[str]
    members: list[str]
    shares: dict[str, Annotated[float, Ge(0), Le(1)]]
    files: _Names
    spec: HeadSpec | None = None
    best_epochs: list[_Count] | None = None


@dataclass(frozen=True)
class _Split:
    images: _Count
    rejected: list[str]
    positives: dict[str, _Count] | None
    fingerprints: dict[str, str]
    known: dict[str, _Count] | None = None


@dataclass(frozen=True)
class _Folds:
    count: _Some
    repeats: _Some
    groups: _Count | None
    rows: list[_Count]
    positives: dict[str, list[_Count]]
    known: dict[str, list[_Count]] | None = None


@dataclass(frozen=True)
class _Score:
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class _Nested(_Score):
    refitted: bool


@dataclass(frozen=True)
class _Permutations:
    runs: _Count
    p_value: float | None


@dataclass(frozen=True)
class _Selection:
    rule: str
    means: str
    left_out: dict[str, str]
    nested: _Nested | None
    permutations: _Permutations | None


@dataclass(frozen=True)
class _Promise:
    rests_on: str


@dataclass(frozen=True)
class _Thresholds:
    rule: str
    promises: dict[str, _Promise]


@dataclass(frozen=True)
class _Intervals:
    percentiles: tuple[float, float]
    draws: _Count
    seed: _Seed
    unit: Literal["row", "group"]


@dataclass(frozen=True)
class _Reason:
    model: str
    split: str
    label: str
    metric: str
    reason: str


@dataclass(frozen=True)
class _Gap:
    model: str
    random: _Score
    grouped: _Score
    gap: _Score


@dataclass(frozen=True)
class _Seconds:
    read: float
    fit: float


@dataclass(frozen=True)
class _Arguments:
    seed: _Seed
    groups: str | None
    tta: Literal["mean", "none"] = "none"
    excel_safe: bool = False


@dataclass(frozen=True)
class _Record:
    """The fields that a command reads; those with a default are later than the format of the record."""

    data: str
    cache: str
    groups_from: str
    arguments: _Arguments
    seconds: _Seconds
    versions: dict[str, str]
    labels: _Names
    backbones: dict[str, _Backbone]
    splits: dict[str, _Split]
    folds: _Folds
    models: dict[str, _Model]
    refit: bool
    final_model: str
    selection: _Selection
    calibration: str | None
    thresholds: _Thresholds
    intervals: _Intervals
    undefined_metrics: list[_Reason]
    incomplete_intervals: list[_Reason]
    warnings: list[str]
    gap: _Gap | None
    files: dict[str, str]
    exclusive: bool = False
    note: str | None = None

    def fits(self) -> bool:
        """Whether all names that are used are those of something, and the counts are of the labels and folds."""
        return self._labels_fit() and self._folds_fit() and self._models_fit()

    def _labels_fit(self) -> bool:
        train = self.splits.get("train")
        return (
            len({*self.labels}) == len(self.labels)
            and train is not None
            and train.images > len(train.rejected)
            and {*self.labels} <= {*(train.positives or ())}
            and (not train.known or all(train.known.get(label) for label in self.labels))
            and all({*self.backbones} <= {*split.fingerprints} for split in self.splits.values())
        )

    def _folds_fit(self) -> bool:
        of_labels = [self.folds.positives, *([self.folds.known] if self.folds.known else [])]
        return len(self.folds.rows) == self.folds.count and all(
            len(counts.get(label, ())) == self.folds.count for counts in of_labels for label in self.labels
        )

    def _models_fit(self) -> bool:
        named = self.final_model in self.models and all(
            {*model.backbones} <= {*self.backbones}
            and {*model.members} <= {*self.models}
            and (model.spec is None) == (model.best_epochs is None)
            for model in self.models.values()
        )
        return named and all(self._ends(name, _DEPTH) for name in self.models)

    def _ends(self, name: str, depth: int) -> bool:
        """Whether the members of a model, theirs and so on end within a depth; they do not where one is its own."""
        return depth > 0 and all(self._ends(member, depth - 1) for member in self.models[name].members)


@cache
def _reader() -> "TypeAdapter[_Record]":
    from pydantic import TypeAdapter

    return TypeAdapter(_Record)


def is_of_run(record: Mapping[str, Any]) -> bool:
    """Whether a record holds what the commands read of a run: its fields, and names that fit together."""
    from pydantic import ValidationError

    try:
        return _reader().validate_json(json.dumps(record), strict=True).fits()
    except ValidationError:
        return False
