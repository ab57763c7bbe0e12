"""Options that the commands of several rooms take."""

from pathlib import Path
from typing import Annotated

import typer

from features.common.errors import InputError

IdColumn = Annotated[str | None, typer.Option(metavar="NAME", help="Id column of the CSV files.", show_default="ID")]
LabelColumns = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Label columns.", show_default="all columns that hold only 0 and 1"),
]
GroupColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Column of groups that no fold may cut, such as patients.", show_default="patient"
    ),
]
GroupsFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="CSV file ID,group that gives the groups instead of a column, such as groups.csv of features audit.",
        show_default="the group column",
    ),
]


def split_names(text: str | None, option: str) -> tuple[str, ...] | None:
    """Split a list of names at its commas.

    Raises:
        InputError: a name is empty or stands twice.
    """
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len(set(names)) < len(names):
        raise InputError(f"{option} {text!r}: expected different names between commas, such as {option} a,b.")
    return names
