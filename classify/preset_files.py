"""Read and write files of presets: JSON, `{"name": {"dropout": 0.3, ...}, ...}`."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from classify.heads import HeadSpec
from features.errors import InputError


def read_presets(path: Path) -> dict[str, HeadSpec]:
    """Read a file of presets.

    Args:
        path: a JSON object of one object per preset, whose keys are fields of `HeadSpec`.

    Returns:
        The specs by name, in the file's order.

    Raises:
        InputError: the file cannot be read, or does not hold such specs.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: HeadSpec(**(values | {"hidden_units": tuple(values.get("hidden_units", ()))}))
            for name, values in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no presets: {error}. Give a file that `search` wrote.") from None


def write_presets(path: Path, heads: Mapping[str, HeadSpec]) -> None:
    """Write a file that `read_presets` gives back as it was.

    Args:
        path: the file; an earlier one is replaced.
        heads: the specs by name.

    Raises:
        InputError: the file cannot be written.
    """
    content = {name: asdict(spec) for name, spec in heads.items()}
    try:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}). Name another file.") from None
