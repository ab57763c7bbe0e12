"""Check that run.json holds what the report shows of it."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

#: A name that need not be there; where it is, it holds a value of its type, not null.
_MAY_LACK: Any = Field(default=None)


class _Part(BaseModel):
    """A part of the record: values of other types are refused, names that are not shown are passed over."""

    model_config = ConfigDict(strict=True)


class _Recipe(_Part):
    weights: str
    preprocessing: str
    input_size: int


class _Backbone(_Part):
    width: int
    recipe: _Recipe = _MAY_LACK


class _Split(_Part):
    images: int
    rejected: list[str]
    positives: dict[str, int] | None
    fingerprints: dict[str, str]


class _Folds(_Part):
    count: int
    repeats: int
    groups: int | None
    rows: list[Annotated[int, Field(ge=1)]]
    positives: dict[str, list[int]]


class _Spec(_Part):
    epochs: int


class _Model(_Part):
    converged: bool
    fit_seconds: float
    backbones: list[str]
    shares: dict[str, float]
    members: list[str]
    spec: _Spec = _MAY_LACK
    best_epochs: list[int] = _MAY_LACK


class _Arguments(_Part):
    seed: int


class _Seconds(_Part):
    read: float
    fit: float


class _Selection(_Part):
    rule: str
    means: str


class _Thresholds(_Part):
    rule: str


class _Intervals(_Part):
    percentiles: Annotated[list[float], Field(min_length=2, max_length=2)]
    draws: int
    unit: str


class _Reason(_Part):
    model: str
    split: str
    label: str
    metric: str
    reason: str


class _Record(_Part):
    data: str
    cache: str
    arguments: _Arguments
    seconds: _Seconds
    versions: dict[str, str]
    labels: Annotated[list[str], Field(min_length=1)]
    backbones: dict[str, _Backbone]
    splits: dict[str, _Split]
    folds: _Folds
    models: dict[str, _Model]
    final_model: str
    selection: _Selection
    calibration: str | None
    thresholds: _Thresholds
    intervals: _Intervals
    undefined_metrics: list[_Reason]
    incomplete_intervals: list[_Reason]
    warnings: list[str]


def check_record(record: Any) -> None:
    """Refuse a record of another shape, or one that contradicts itself.

    Args:
        record: what `run.json` holds.

    Raises:
        ValueError: the message says what lacks or is of another kind, and where.
    """
    try:
        whole = _Record.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole of it"
        raise ValueError(f"{place}: {first['msg']}") from None
    if "train" not in whole.splits or whole.splits["train"].positives is None:
        raise ValueError("splits.train, or its positives, is missing")
    if len(set(whole.labels)) < len(whole.labels):
        raise ValueError("it names a label twice")
    if whole.final_model not in whole.models:
        raise ValueError(f"its final model {whole.final_model!r} is none of its models")
    for name, split in whole.splits.items():
        _check_names(whole.backbones, split.fingerprints, f"splits.{name}.fingerprints")
        if split.positives is not None:
            _check_names(whole.labels, split.positives, f"splits.{name}.positives")
    _check_names(whole.labels, whole.folds.positives, "folds.positives")
    for where, counts in (("rows", whole.folds.rows), *whole.folds.positives.items()):
        if len(counts) != whole.folds.count:
            raise ValueError(f"folds.{where} is not of {whole.folds.count} folds")
    for name, model in whole.models.items():
        if len({"spec", "best_epochs"} & model.model_fields_set) == 1:
            raise ValueError(f"models.{name} lacks its spec or its best_epochs")


def _check_names(wanted: Iterable[str], found: Iterable[str], where: str) -> None:
    """Refuse a part that lacks a name."""
    lacking = [name for name in wanted if name not in set(found)]
    if lacking:
        raise ValueError(f"{where} lacks {lacking[0]!r}")
