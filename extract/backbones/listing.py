"""The table of backbones as people read it: on a terminal, and in the README."""

from pathlib import Path
from typing import Literal

from rich.table import Table

from extract.backbones.table import BACKBONES, PREPROCESSING
from extract.backbones.weights import imagenet_file

_COLUMNS = ("name", "input", "width", "parameters", "preprocessing", "licence")
_NUMBERS = ("input", "width", "parameters")


def _rows() -> list[tuple[str, ...]]:
    """A row of texts per backbone, in the order of `_COLUMNS`."""
    return [
        (
            row.name,
            str(row.input_size),
            str(row.width),
            f"{row.parameters / 1e6:.1f} M",
            PREPROCESSING[row.preprocessing],
            row.licence,
        )
        for row in BACKBONES.values()
    ]


def terminal_table(weights_dir: Path | None) -> Table:
    """The table with a column that says which ImageNet weights are on this machine.

    Args:
        weights_dir: a folder to look in beside those of Keras and of the embedded backbones.
    """
    table = Table(box=None, header_style="bold")
    for column in (*_COLUMNS, "weights"):
        justify: Literal["right", "left"] = "right" if column in _NUMBERS else "left"
        # On a narrow terminal cells are folded, never cut; names stay whole.
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column == "name")
    for cells, row in zip(_rows(), BACKBONES.values(), strict=True):
        table.add_row(*cells, "present" if imagenet_file(row, weights_dir) else "not here")
    return table


def markdown_table() -> str:
    """The table in Markdown, for the README."""
    rules = ["---:" if column in _NUMBERS else "---" for column in _COLUMNS]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (_COLUMNS, rules, *_rows()))
