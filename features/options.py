"""The options of `python -m features`, each declared once, and those by which every command reads a data set."""

from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

_PANEL = "CSV files of the data set"
ExcelSafe = Annotated[
    bool,
    typer.Option("--excel-safe", help="Write ids, groups and labels so that a spreadsheet does not run them."),
]
ClusterChoice = Annotated[
    Literal["ray"] | None,
    typer.Option(help="Compute on all machines of a cluster of Ray.", show_default="this process"),
]
ClusterAddress = Annotated[
    str | None,
    typer.Option(metavar="A", help="Where the cluster is, such as node1:6379.", show_default="one on this machine"),
]
CacheFolder = Annotated[
    Path | None,
    typer.Option(metavar="CACHE", help="Folder of the cache.", show_default="features/cache/NAME OF DATA"),
]
CacheArgument = Annotated[Path, typer.Argument(metavar="CACHE", help="Folder of the cache.", show_default=False)]


class Unlabelled(StrEnum):
    """What to do with images that no table has a row for."""

    PREDICT = "predict"
    IGNORE = "ignore"
    ERROR = "error"


class Missing(StrEnum):
    """What to do with rows that have no image."""

    ERROR = "error"
    SKIP = "skip"


class UnknownLabels(StrEnum):
    """What to do with labels that are not known."""

    ERROR = "error"
    MASK = "mask"
    NEGATIVE = "negative"


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """What a person may say of the ids and images of a data set."""

    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table of ids and labels of all images.",
            show_default="train.csv, test.csv, or the only table",
            rich_help_panel=_PANEL,
        ),
    ] = None
    id_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Id column.", show_default="the one that names the images", rich_help_panel=_PANEL
        ),
    ] = None
    split_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column that says train, val or test.",
            show_default="split, fold, set, subset, partition or phase, if it holds such words",
            rich_help_panel=_PANEL,
        ),
    ] = None
    unlabelled: Annotated[
        Unlabelled, typer.Option(help="Images without a row: predict, ignore or refuse them.", rich_help_panel=_PANEL)
    ] = Unlabelled.PREDICT
    missing: Annotated[
        Missing, typer.Option(help="Rows without an image: refuse or skip them.", rich_help_panel=_PANEL)
    ] = Missing.ERROR


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(ImageOptions):
    """What a person may say of the tables of a data set."""

    labels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Label columns; or one column of classes, or some of its classes.",
            show_default="recognised",
            rich_help_panel=_PANEL,
        ),
    ] = None
    separator: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What stands between the classes of one cell.",
            show_default="| ; or , if the cells show it",
            rich_help_panel=_PANEL,
        ),
    ] = None
    unknown: Annotated[
        UnknownLabels | None,
        typer.Option(
            help="Labels that are not known (blank, -1): refuse them, mask them, or take them for 0.",
            show_default="mask in columns that hold -1, else error",
            rich_help_panel=_PANEL,
        ),
    ] = None
    group_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column of groups that no fold may cut, such as patients.",
            show_default="patient, subject, case, study, ... in any spelling",
            rich_help_panel=_PANEL,
        ),
    ] = None
    group_from: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Take groups from ids: what the first brackets match, or all of it, such as '^(.+)_'.",
            show_default="none, but ids that name patients are recognised",
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


#: The names of the options of every data set; of its images alone.
OF_DATASET = tuple(field.name for field in fields(DatasetOptions))
OF_IMAGES = tuple(field.name for field in fields(ImageOptions))


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
    excel_safe: ExcelSafe = False


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


@dataclass(frozen=True, kw_only=True)
class KnownOptions(DatasetOptions):
    """Which images of a cache, and where what is known of them stands."""

    cache: CacheArgument
    backbones: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Backbones to compare images by.",
            show_default="last averages that all splits have",
        ),
    ] = None
    split: Annotated[
        str | None, typer.Option(metavar="A,B", help="Splits of the cache, such as train.", show_default="all")
    ] = None
    data: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Data set of the cache: labels and groups.", show_default="none"),
    ] = None
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A finished run: labels, groups, out-of-fold errors.", show_default="none"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class MapOptions(KnownOptions):
    """The options of `python -m features map`."""

    most: Annotated[
        int, typer.Option(min=1, max=20_000, metavar="N", help="Images at most; of more a sample is drawn.")
    ] = 5000
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of map.html.", show_default="CACHE/map")] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class SimilarOptions(KnownOptions):
    """The options of `python -m features similar`."""

    image_id: Annotated[str, typer.Option("--id", metavar="X", help="Id of the image.", show_default=False)]
    count: Annotated[int, typer.Option("-k", min=1, metavar="K", help="How many nearest images.")] = 10
