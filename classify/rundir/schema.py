"""What a record has to hold so that its run can predict: a seal says that it is as it was sealed, not by whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Len

from features.store.recipe import Recipe

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_Count = Annotated[int, Ge(0)]


@dataclass(frozen=True)
class _Backbone:
    width: Annotated[int, Ge(1)]
    recipe: Recipe


@dataclass(frozen=True)
class _Model:
    backbones: list[str]
    members: list[str]
    shares: dict[str, float]
    files: Annotated[list[str], Len(1)]


@dataclass(frozen=True)
class _Train:
    images: _Count
    rejected: list[str]
    positives: dict[str, _Count]
    known: dict[str, Annotated[int, Ge(1)]] | None = None


@dataclass(frozen=True)
class _Splits:
    train: _Train


@dataclass(frozen=True)
class _Arguments:
    tta: Literal["mean", "none"] = "none"
    excel_safe: bool = False


@dataclass(frozen=True)
class _Record:
    data: str
    cache: str
    labels: Annotated[list[str], Len(1)]
    backbones: dict[str, _Backbone]
    splits: _Splits
    models: dict[str, _Model]
    final_model: str
    files: dict[str, str]
    arguments: _Arguments = field(default_factory=_Arguments)
    exclusive: bool = False

    def fits(self) -> bool:
        """Whether all names that are used are those of something."""
        train, known = self.splits.train, {} if self.splits.train.known is None else self.splits.train.known
        counted = {*self.labels} <= {*train.positives} and (not known or {*self.labels} <= {*known})
        named = self.final_model in self.models and all(
            {*model.backbones} <= {*self.backbones} and {*model.members} <= {*self.models}
            for model in self.models.values()
        )
        return counted and named and all(self._ends(name, ()) for name in self.models)

    def _ends(self, name: str, above: tuple[str, ...]) -> bool:
        """Whether no member of a model is that model again, nor a member of it."""
        return name not in above and all(self._ends(member, (*above, name)) for member in self.models[name].members)


@cache
def _reader() -> "TypeAdapter[_Record]":
    from pydantic import TypeAdapter

    return TypeAdapter(_Record)


def can_predict(record: Mapping[str, Any]) -> bool:
    """Whether a record holds what predictions need: its fields, and names that fit together."""
    from pydantic import ValidationError

    try:
        return _reader().validate_python(record).fits()
    except ValidationError:
        return False
