"""What a head is, the presets that are worth a first try, and files of presets.

To add a preset, add a row to `PRESETS`. Importing this module loads neither numpy nor pydantic, so that help texts can
read the table.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from annotated_types import Ge, Gt, Le, Lt

from features.common.errors import InputError, cause_of

Optimiser = Literal["adam", "sgd"]
ClassWeight = Literal["none", "balanced"]
Output = Literal["sigmoid", "softmax"]
_Count = Annotated[int, Ge(1), Le(1_000_000)]
_Width = Annotated[int, Ge(1), Le(16_384)]  # wider than any backbone: more is a slip, and would fill the memory


class Layer(NamedTuple):
    """A layer of a head: its outputs, and the parameters that training changes and that it does not."""

    name: str
    outputs: int
    trainable: int = 0
    fixed: int = 0


@dataclass(frozen=True)
class HeadSpec:
    """The layers and the training of one head; the defaults are those of the challenge's best model.

    The layers: batch normalisation of the features, dropout, then for every hidden layer Dense, ReLU and dropout, then
    Dense and sigmoid or softmax, one unit per label.

    Attributes:
        hidden_units: widths of the hidden layers, from the features on; empty for a linear head.
        batch_norm: whether the features are normalised, with a learnt scale and shift (Keras' momentum 0.99).
        dropout: share of the features, and of every hidden layer's units, set to 0 in training.
        l2: penalty on the squares of the dense kernels, not on biases, as Keras' L2.
        optimiser: `adam`, or `sgd` with Nesterov momentum 0.9.
        learning_rate: of every step.
        class_weight: `balanced` gives the positives and the negatives of each label the same total weight in the loss;
            under softmax each class.
        label_smoothing: a truth t is learnt as t * (1 - smoothing) + smoothing / 2; under softmax, of L classes,
            + smoothing / L.
        output: `sigmoid` learns each label apart, by binary cross-entropy; `softmax` exclusive classes, by categorical
            cross-entropy. None: chosen by `for_classes`, else sigmoid.
        batch_size: rows a step; the last batch of an epoch may be shorter. None: chosen by `for_rows`.
        epochs: passes over the training rows, at most.
        patience: epochs without a lower validation loss after which training stops: a count (int), or a share of the
            epochs (float; 1.0 never stops early).
        seed: of the initial weights.
    """

    hidden_units: tuple[_Width, ...] = ()
    batch_norm: bool = True
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.5
    l2: Annotated[float, Ge(0)] = 1e-4
    optimiser: Optimiser = "adam"
    learning_rate: Annotated[float, Gt(0)] = 1e-5
    class_weight: ClassWeight = "none"
    label_smoothing: Annotated[float, Ge(0), Le(1)] = 0.0
    output: Output | None = None
    batch_size: _Count | None = 16
    epochs: _Count = 100
    patience: _Count | Annotated[float, Gt(0), Le(1)] = 0.1
    seed: Annotated[int, Ge(0)] = 0

    #: How pydantic checks the fields.
    __pydantic_config__: ClassVar = {"strict": True, "allow_inf_nan": False}

    @property
    def patience_epochs(self) -> int:
        """Patience as a count of epochs, 1 or more; a share is rounded to the nearest."""
        if isinstance(self.patience, int):
            return self.patience
        return max(1, round(self.patience * self.epochs))

    def for_rows(self, rows: int) -> "HeadSpec":
        """This spec with a batch size: the largest power of two, 16 to 256, of 16 steps an epoch, if it has none.

        The moving moments of batch normalisation need some hundred steps to leave their initial values.

        Args:
            rows: training rows of the run; its folds learn from fewer, but all in batches of one size.
        """
        if self.batch_size is not None:
            return self
        return replace(self, batch_size=max(16, min(256, 1 << (max(rows // 16, 1).bit_length() - 1))))

    def for_classes(self, exclusive: bool) -> "HeadSpec":
        """This spec with an output: softmax where each row has exactly one label, else sigmoid, if it has none."""
        return self if self.output else replace(self, output="softmax" if exclusive else "sigmoid")

    def layers(self, width: int, labels: int) -> list[Layer]:
        """List the layers on so many features, with their parameters, as Keras' summary does."""
        layers = [Layer("BatchNormalization", width, 2 * width, 2 * width)] * self.batch_norm
        for place, (inputs, outputs) in enumerate(pairwise([width, *self.hidden_units, labels])):
            layers += [Layer("Dropout", inputs)] * (self.dropout > 0)
            activation = "relu" if place < len(self.hidden_units) else self.output or "sigmoid"
            layers.append(Layer(f"Dense, {activation}", outputs, (inputs + 1) * outputs))
        return layers

    def count_parameters(self, width: int, labels: int) -> int:
        """Count the trainable parameters: of the dense layers, and two per feature for batch normalisation."""
        return sum(layer.trainable for layer in self.layers(width, labels))


#: Specs by name. `challenge` is the best model of the challenge's author (behold.ai, 2020); `challenge-sgd` its other
#: optimiser, for which the author gives no learning rate. The other figures are measured: see docs/decisions.md.
PRESETS: Mapping[str, HeadSpec] = MappingProxyType(
    {
        "challenge": HeadSpec(),
        "challenge-sgd": HeadSpec(optimiser="sgd", learning_rate=3e-3),
        "linear": HeadSpec(dropout=0.0, l2=1e-4, learning_rate=1e-3, batch_size=None),
        "linear-l2": HeadSpec(dropout=0.0, l2=0.1, learning_rate=1e-3, batch_size=None),
        "wide": HeadSpec(hidden_units=(512,), learning_rate=3e-4, batch_size=None),
        "deep": HeadSpec(hidden_units=(256, 128, 64), dropout=0.3, learning_rate=1e-3, batch_size=None),
    }
)
#: Those that repeat the challenge, whose features were the average of the last map.
OF_CHALLENGE = ("challenge", "challenge-sgd")
#: Those of a run that names none: beside `logistic` it wins where that loses; see docs/decisions.md.
DEFAULT_PRESETS = ("linear-l2",)

_RENAMED = {"ridge": "linear-l2"}
#: What ends the name of a file of presets: JSON, `{"name": {"dropout": 0.3, ...}, ...}`.
SUFFIX = ".json"
#: A name becomes part of a model's name, `NAME/resnet50`, of a folder's, `NAME__resnet50`, and of a list between
#: commas.
_NAME = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9][A-Za-z0-9.+-]*(_[A-Za-z0-9.+-]+)*")


def choose_heads(choices: Sequence[str], taken: Collection[str]) -> dict[str, HeadSpec]:
    """Collect the heads asked for, by name, in the order of the choices.

    Args:
        choices: as given to `--preset`: names of `PRESETS`, files that end in `.json`; or `none` alone.
        taken: names that other models have.

    Raises:
        InputError: a name is not known, is taken or is chosen twice, or a file cannot be read.
    """
    if tuple(choices) == ("none",):
        return {}
    heads: dict[str, HeadSpec] = {}
    for choice in choices:
        if choice not in PRESETS and not choice.endswith(SUFFIX):
            renamed = f" (it is called {_RENAMED[choice]} now)" if choice in _RENAMED else ""
            raise InputError(
                f"--preset {','.join(choices)!r}: {choice} is not a preset{renamed}. Expected some of "
                f"{', '.join(PRESETS)}; a file that ends in {SUFFIX}; or none."
            )
        found = {choice: PRESETS[choice]} if choice in PRESETS else read_presets(Path(choice))
        for name in found:
            if name in heads:
                raise InputError(f"--preset {','.join(choices)!r}: {name!r} is duplicated. Name it once.")
            if name in taken:
                raise InputError(f"{choice}: {name!r} is another model's name. Give the preset a name of its own.")
        heads |= found
    return heads


def refuse_name(name: object, where: str, kind: str) -> None:
    """Refuse by an `InputError` what cannot name a preset, or another model of a person's own."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{where}: {name!r} cannot name {kind}. Use up to 64 letters, digits, '.', '+', '-' and single '_' between "
            "them; begin with a letter or digit."
        )


def read_presets(path: Path) -> dict[str, HeadSpec]:
    """Read a file of presets: a JSON object of one object per preset, whose keys are fields of `HeadSpec`.

    Returns:
        At least one spec, by name, in the file's order; a missing field has its default.

    Raises:
        InputError: the file cannot be read, is not such JSON, has a duplicate, an unknown field or a value out of
            range; the message names the preset and the field.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_refuse_duplicates)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {cause_of(error)} Give a file of presets.") from None
    except (InputError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON that can be read: {error}. Write it again.") from None
    if not isinstance(content, dict) or not content:
        raise InputError(f'{path} holds no presets. Expected a JSON object: {{"name": {{"dropout": 0.3}}}}.')
    return {name: _read_spec(path, name, values) for name, values in content.items()}


def write_presets(path: Path, heads: Mapping[str, HeadSpec]) -> None:
    """Write a file that `read_presets` gives back as it was; an `InputError` says that it cannot be written."""
    content = {name: asdict(spec) for name, spec in heads.items()}
    try:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {cause_of(error)}") from None


def _read_spec(path: Path, name: str, values: Any) -> HeadSpec:
    """Make a spec of one entry of a file."""
    from pydantic import TypeAdapter, ValidationError

    refuse_name(name, str(path), "a preset")
    known = [field.name for field in fields(HeadSpec)]
    if not isinstance(values, dict):
        raise InputError(f"{path}: preset {name!r} is {values!r}. Expected an object of fields: {', '.join(known)}.")
    for field in values:
        if field not in known:
            raise InputError(f"{path}: preset {name!r} has no field {field!r}. Expected some of {', '.join(known)}.")
    try:
        return TypeAdapter(HeadSpec).validate_json(json.dumps(values))
    except ValidationError as error:
        faults = [fault for fault in error.errors() if fault["loc"][0] == error.errors()[0]["loc"][0]]
    field = str(faults[0]["loc"][0])
    expected = " or ".join(fault["msg"].removeprefix("Input should be ") for fault in faults)
    raise InputError(f"{path}: preset {name!r}: {field} is {values[field]!r}. Expected {expected}.")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the dict of a JSON object, whose keys must be unique."""
    found = dict(pairs)
    if len(found) < len(pairs):
        duplicate = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise InputError(f"{duplicate!r} is duplicated in one object")
    return found
