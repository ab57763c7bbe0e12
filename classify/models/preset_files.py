"""Read and write files of presets: JSON, `{"name": {"dropout": 0.3, ...}, ...}`."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

from classify.models.heads import HeadSpec
from features.common.errors import InputError

#: What ends the name of such a file.
SUFFIX = ".json"
#: A preset's name becomes part of a model's name, `NAME/resnet50`, and of a folder's, `NAME__resnet50`.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*(_[A-Za-z0-9.+-]+)*")
_FIELDS = {field.name: get_type_hints(HeadSpec)[field.name] for field in fields(HeadSpec)}


def read_presets(path: Path) -> dict[str, HeadSpec]:
    """Read a file of presets.

    Args:
        path: a JSON object of one object per preset, whose keys are fields of `HeadSpec`; a field that is left out has
            its default.

    Returns:
        At least one spec, by name, in the file's order.

    Raises:
        InputError: the file cannot be read, is no such JSON, names something twice, or holds an unknown field or a
            value out of range; the message names the preset and the field.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_refuse_twins)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Give a file of presets.") from None
    except (InputError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON that can be read: {error}. Write it anew.") from None
    if not isinstance(content, dict) or not content:
        raise InputError(f'{path} holds no presets. Expected a JSON object: {{"name": {{"dropout": 0.3}}}}.')
    return {name: _read_spec(path, name, values) for name, values in content.items()}


def write_presets(path: Path, heads: Mapping[str, HeadSpec]) -> None:
    """Write a file that `read_presets` gives back as it was.

    Args:
        path: the file; an earlier one is replaced.
        heads: at least one spec, by name.

    Raises:
        InputError: there is none, a name cannot be a preset's, or the file cannot be written.
    """
    if not heads:
        raise InputError(f"{path}: there are no presets to write. Give at least one.")
    for name in heads:
        _check_name(path, name)
    content = {name: asdict(spec) for name, spec in heads.items()}
    try:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}). Name another file.") from None


def _read_spec(path: Path, name: str, values: Any) -> HeadSpec:
    """Make a spec of one entry of a file."""
    _check_name(path, name)
    if not isinstance(values, dict):
        raise InputError(f"{path}: preset {name!r} is {values!r}. Expected an object of fields: {', '.join(_FIELDS)}.")
    for field, value in values.items():
        if field not in _FIELDS:
            raise InputError(f"{path}: preset {name!r} has no field {field!r}. Expected some of {', '.join(_FIELDS)}.")
        if not _fits(value, _FIELDS[field]):
            raise InputError(f"{path}: preset {name!r}: {field} is {value!r}. Expected {_WANTED[_FIELDS[field]]}.")
    hidden_units = {"hidden_units": tuple(values["hidden_units"])} if "hidden_units" in values else {}
    try:
        return HeadSpec(**(values | hidden_units))
    except InputError as error:
        raise InputError(f"{path}: preset {name!r}: {str(error).removeprefix('head: ')}") from None


#: What the JSON of a field has to be, by the type of the field. Ranges are for `HeadSpec` to check.
_WANTED = {
    tuple[int, ...]: "a list of whole numbers",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    int | float: "a number",
}


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a JSON value is of a field's type; true and false are no numbers."""
    if wanted == tuple[int, ...]:
        return isinstance(value, list) and all(_fits(unit, int) for unit in value)
    if wanted not in _WANTED:  # one of several words, which HeadSpec lists
        return True
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    return isinstance(value, int) or (isinstance(value, float) and wanted is not int)


def _check_name(path: Path, name: str) -> None:
    """Refuse a name that a model, a folder and a list between commas could not bear."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{path}: {name!r} cannot name a preset. Use letters, digits, '.', '+', '-' and single '_' between them."
        )


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the dict of a JSON object, as long as no key stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twin = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise InputError(f"{twin!r} stands twice in one object")
    return found
