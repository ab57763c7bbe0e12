"""`python -m extract`: run frozen backbones over images, and list those that there are."""

if __name__ == "__main__":  # before the imports that take their time
    from features.common.errors import end_silently

    end_silently()

from pathlib import Path
from typing import Annotated

import typer

from extract.backbones.table import BACKBONES, markdown_table, terminal_table
from extract.options import RunOptions, WeightsDir
from features.common.cli import application, command
from features.common.text import make_console

app = application("Stage 1: run frozen backbones over images once, and keep their pooled features.")


@command(app)
def run(options: RunOptions) -> int:
    """Extract the features of every image of DATA that are not in the cache yet; cached ones are kept.

    Ctrl-C ends it cleanly; whatever ends it, the same command goes on from there. Exit code 3: some images could not
    be read; they are listed in CACHE/rejected.csv.
    """
    from extract.run import run_extraction

    return run_extraction(options)


@app.command()
def maps(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with train/ and test/.", show_default=False)],
    ids: Annotated[
        str | None, typer.Option(metavar="A,B", help="Ids of the images, separated by commas.", show_default=False)
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Take the images of a finished run's gallery.", show_default=False),
    ] = None,
    backbones: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Backbones.",
            show_default="those that RUN's final model sees; with --ids all whose features are cached",
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of the cache. Default: features/cache/{name of DATA}.")
    ] = None,
    weights_dir: WeightsDir = None,
    id_column: Annotated[str | None, typer.Option(help="Column of the ids in train.csv and test.csv.")] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Take DATA itself for a folder of images: the split NAME of the cache."),
    ] = None,
) -> None:
    """Keep the last feature maps of chosen images, which tell where a model looks: CACHE/{split}/{backbone}.maps.h5.

    They are made as the cached features were, so these have to be there. Maps that are there already are kept.
    Exit code 3: some images could not be read, or are not what the features are of.
    """
    from extract.maps_command import MapsOptions, run_maps

    names = [tuple(part.strip() for part in text.split(",") if part.strip()) for text in (ids or "", backbones or "")]
    raise typer.Exit(run_maps(MapsOptions(data, names[0], run, names[1], cache, weights_dir, id_column, split)))


@app.command("list")
def list_backbones(
    weights_dir: WeightsDir = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as in docs/extract.md.")] = False,
) -> None:
    """Print the table of backbones, and which of their ImageNet weights are on this machine."""
    from extract.backbones.weights import imagenet_file

    if markdown:
        typer.echo(markdown_table())
        return
    present = [backbone.name for backbone in BACKBONES.values() if imagenet_file(backbone, weights_dir)]
    make_console().print(terminal_table(present))


if __name__ == "__main__":
    app(prog_name="python -m extract")
