"""The options of `python -m features`, each declared once, and those by which every command reads a data set."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import typer

_PANEL = "CSV files of the data set"
IdColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Id column.", show_default="ID", rich_help_panel=_PANEL)
]
CacheArgument = Annotated[Path, typer.Argument(metavar="CACHE", help="Folder of the cache.", show_default=False)]


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """What a person may say about the CSV files of a data set."""

    id_column: IdColumn = None
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Label columns.",
            show_default="all columns that hold only 0 and 1",
            rich_help_panel=_PANEL,
        ),
    ] = None
    group_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column of groups that no fold may cut, such as patients.",
            show_default="patient",
            rich_help_panel=_PANEL,
        ),
    ] = None
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV file ID,group that gives the groups instead of a column, such as groups.csv of features audit.",
            show_default="the group column",
            rich_help_panel=_PANEL,
        ),
    ] = None


#: The names of the options of every data set.
OF_DATASET = tuple(field.name for field in fields(DatasetOptions))


@dataclass(frozen=True, kw_only=True)
class AuditOptions(DatasetOptions):
    """The options of `python -m features audit`."""

    cache: CacheArgument
    data: Annotated[Path, typer.Option(metavar="DATA", help="Folder of the data set that the cache is of.")]
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A finished run of it: its folds are audited too.", show_default="none"),
    ] = None
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write to.", show_default="RUN, or CACHE/audit")
    ] = None


@dataclass(frozen=True, kw_only=True)
class DescribeOptions(DatasetOptions):
    """The options of `python -m features describe`."""

    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder of the data set.", show_default=False)]
    cache: Annotated[
        Path | None,
        typer.Option(metavar="CACHE", help="Folder of its features: what the images are like.", show_default="its own"),
    ] = None
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of describe.html.", show_default="CACHE/describe")
    ] = None
