"""What the rows of a cache file were extracted from and how, kept beside it, so that a printed command can say it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.common.commands import option_words, write_command
from features.common.files import replacing
from features.store.recipe import Recipe, extract_options


@dataclass(frozen=True)
class Source:
    """How the rows of a backbone come about.

    Attributes:
        data: the data set, or the folder of images; None where it is not known.
        options: the options by which its images were read, by name, where they are not the defaults.
        recipe: of the rows.
    """

    data: Path | None
    options: Mapping[str, Any]
    recipe: Recipe


def write_source(path: Path, source: Source) -> None:
    """Keep the source of a cache file, {backbone}.h5, in {backbone}.source.json.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    record = {"data": str(source.data), "options": source.options, "recipe": source.recipe.attributes()}
    text = json.dumps(record, default=str)
    kept = _path_of(path)
    if not kept.is_file() or kept.read_text(encoding="utf-8") != text:
        with replacing(kept) as temporary:
            temporary.write_text(text, encoding="utf-8")


def read_source(path: Path) -> Source | None:
    """Read the source of a cache file; None where it is not known: it only helps to say a command."""
    try:
        record = json.loads(_path_of(path).read_text(encoding="utf-8"))
        return Source(Path(record["data"]), dict(record["options"]), Recipe.from_attributes(record["recipe"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def extract_command(sources: Mapping[str, Source], cache: Path | None) -> str:
    """Write the commands that extract rows of given sources, by backbone, one after the other.

    They extract into a cache; None for that which a data set has where none is named.
    """
    runs: dict[str, dict[str, Source]] = {}
    for backbone, source in sources.items():
        runs.setdefault(f"{source.data} {source.options}", {})[backbone] = source
    commands = []
    for of_data in runs.values():
        data, options = next((source.data, source.options) for source in of_data.values())
        for words in extract_options({backbone: source.recipe for backbone, source in of_data.items()}):
            others = {name: value for name, value in options.items() if f"--{name.replace('_', '-')}" not in words}
            every = [data or "DATA", *option_words(others), *words, *([] if cache is None else ["--cache", cache])]
            commands.append(write_command("scripts/extract.sh", *every))
    return " && ".join(commands)


def _path_of(path: Path) -> Path:
    return path.with_suffix(".source.json")
