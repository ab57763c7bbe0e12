"""`python -m features`: look into a cache, prove that it is whole, look for leaks, and at the images on a map."""

if __name__ == "__main__":  # before the imports that take their time
    from features.common.errors import end_silently, refuse_other_python

    end_silently()
    refuse_other_python()

from typing import TYPE_CHECKING, Literal

import typer

from features.common.cli import EXIT_BAD_INPUT, application, command
from features.common.text import count_things, make_console
from features.options import AuditOptions, CacheArgument, DescribeOptions, MapOptions, SimilarOptions

if TYPE_CHECKING:
    from features.store.cache import FeatureCache

app = application("Look into a feature cache, prove that it is whole, and look for leaks.")


@app.command()
def inspect(cache: CacheArgument) -> None:
    """Print a table of what is cached: one line per split and backbone."""
    from rich.table import Table

    from features.common.errors import InputError
    from features.common.text import age, size
    from features.store.cache import FeatureCache
    from features.store.cache_file import DamagedFile
    from features.store.images_table import read_rejections

    feature_cache = FeatureCache(cache)
    table = Table(box=None, header_style="bold")
    for name in ("split", "backbone", "rows", "views", "width", "dtype", "size", "weights", "fingerprint", "age"):
        justify: Literal["left", "right"] = "right" if name in ("rows", "views", "width", "size") else "left"
        # On a narrow terminal cells are folded, never cut; names stay whole.
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name == "backbone")
    faults = []
    for split in feature_cache.splits():
        for backbone in feature_cache.backbones(split):
            path = feature_cache.path(split, backbone)
            size_on_disk = size(path.stat().st_size) if path.exists() else "?"  # a link that leads nowhere
            try:
                file = feature_cache.open(split, backbone)
            except InputError as error:
                faults.append(str(error))
                state = "damaged" if isinstance(error, DamagedFile) else "unknown"
                table.add_row(split, backbone, *["?"] * 4, size_on_disk, "?", state, "?")
                continue
            table.add_row(
                split,
                backbone,
                f"{file.rows:,}",
                str(file.views),
                str(file.width),
                file.recipe.storage,
                size_on_disk,
                f"{file.recipe.weights}, {file.recipe.precision}",
                file.fingerprint[:8],
                age(file.time),
            )
    if table.row_count:
        make_console().print(table)
    _say_unfinished(feature_cache, empty=not table.row_count)
    if rejected := read_rejections(feature_cache.root):
        typer.echo(f"{count_things(len(rejected), 'image')} could not be read: {cache / 'rejected.csv'}")
    if faults:
        raise InputError("\n".join(faults))


def _say_unfinished(cache: "FeatureCache", *, empty: bool) -> None:
    """Name the extractions that were stopped before their end, and refuse a cache without any file."""
    from features.common.errors import InputError

    if unfinished := cache.unfinished():
        remedy = cache.remedy(*dict.fromkeys(name.partition("/")[2] for name in unfinished))
        typer.echo(
            f"unfinished: {', '.join(unfinished)}. The rows extracted so far wait in parts."
            + (f" Run: {remedy}" if remedy else "")
        )
    if empty:
        raise InputError(f"{cache.root} holds no cache file ({{split}}/{{backbone}}.h5). Run: {cache.remedy()}")


@app.command()
def verify(cache: CacheArgument) -> None:
    """Read every row of every file again and compare it with its digest; check ids, attributes and finiteness.

    Exit codes: 0 all files are whole; 2 a file is damaged or cannot be read.
    """
    from features.store.cache import FeatureCache, verify_cache

    checked = damaged = unknown = rows = 0
    feature_cache = FeatureCache(cache)
    for path, file_rows, finding in verify_cache(feature_cache):
        checked += 1
        rows += file_rows
        if finding is None:
            typer.echo(f"whole:   {path} ({count_things(file_rows, 'row')})")
        elif finding.remedy:
            damaged += 1
            typer.echo(f"damaged: {path}: {finding.reason}\n  Run: {finding.remedy}")
        else:
            unknown += 1
            typer.echo(f"unknown: {path} {finding.reason}")
    _say_unfinished(feature_cache, empty=not checked)
    typer.echo(
        f"{count_things(checked, 'file')} checked, {count_things(rows, 'row')} whole, "
        f"{count_things(damaged, 'file')} damaged" + (f", {unknown} unknown." if unknown else ".")
    )
    if damaged or unknown:
        raise typer.Exit(EXIT_BAD_INPUT)


@command(app)
def audit(options: AuditOptions) -> None:
    """Look for leaks: exact and near duplicates, groups on both sides, contradicting labels. No image is opened.

    Exit codes: 0 done, whatever was found; 2 bad usage or bad input.
    """
    from features.audit.report import audit_cache

    audit_cache(options)


@command(app)
def describe(options: DescribeOptions) -> None:
    """Describe a data set: groups, labels, what is missing, what the images are like. No image is opened.

    Exit codes: 0 done, whatever is missing; 2 bad usage or bad input.
    """
    from features.describe import describe_dataset

    describe_dataset(options)


@command(app, "map")
def draw_map(options: MapOptions) -> None:
    """Draw a map of the images of a cache, as one page: neighbours resemble each other. No image is opened.

    Small pictures are shown where extract thumbnails has drawn them.
    """
    from features.map.page import map_cache

    map_cache(options)


@command(app)
def similar(options: SimilarOptions) -> None:
    """List the images of a cache that resemble one. No image is opened."""
    from features.map.similar import list_similar

    list_similar(options)


if __name__ == "__main__":
    app(prog_name="python -m features")
