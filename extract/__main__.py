"""`python -m extract`: run frozen backbones over images, and list those that there are."""

if __name__ == "__main__":  # before the imports that take their time
    from features.common.errors import end_silently

    end_silently()

from pathlib import Path
from typing import Annotated

import typer

from extract.backbones.table import BACKBONES, CHALLENGE, EMBEDDED, markdown_table, terminal_table
from features.common.cli import application
from features.common.text import make_console

app = application("Stage 1: run frozen backbones over images once, and keep their pooled features.")
WeightsDir = Annotated[
    Path | None,
    typer.Option(help="Folder that may hold the ImageNet weights, under the names that Keras gives them."),
]


@app.command()
def run(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with train/ and test/.", show_default=False)],
    backbones: Annotated[
        str | None,
        typer.Option(
            help=f"Names, separated by commas. Default: {','.join(CHALLENGE)}. "
            f"Without any download: {','.join(EMBEDDED)}. All: python -m extract list.",
            show_default=False,
        ),
    ] = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="A model of your own: name=file.keras. May be given several times."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of the cache. Default: features/cache/{name of DATA}.")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="imagenet, random (seeded), or a folder with {backbone}.weights.h5 files.")
    ] = "imagenet",
    weights_dir: WeightsDir = None,
    precision: Annotated[
        str, typer.Option(help="float32, or mixed (float16 arithmetic where it is safe: meant for GPUs).")
    ] = "float32",
    dtype: Annotated[str, typer.Option(help="Stored type: float32, or float16 (half the size).")] = "float32",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            help="Images a batch; on a CPU rounded up to as many for each group of cores. Default: by the device.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read and decode. Default: one a core.", show_default=False)
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of the ids in train.csv and test.csv.")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Take DATA itself for a folder of images, without CSV files: the split NAME of the cache.",
        ),
    ] = None,
) -> None:
    """Extract the features of every image of DATA that the cache lacks; what is there is kept.

    Ctrl-C ends it cleanly; whatever ends it, the same command goes on from there. Exit code 3: some images could not
    be read; they are listed in CACHE/rejected.csv.
    """
    from extract.run import RunOptions, run_extraction

    options = RunOptions(
        data, backbones, tuple(backbone or ()), cache, weights, weights_dir, precision, dtype, batch_size, workers,
        id_column, split,
    )  # fmt: skip
    raise typer.Exit(run_extraction(options))


@app.command()
def heat(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="The data set, or the folder of the images that were predicted."),
    ],
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder with gradients.h5: of a run, or of predictions made with --heat."),
    ],
    weights_dir: WeightsDir = None,
    id_column: Annotated[str | None, typer.Option(help="Column of the ids in train.csv and test.csv.")] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Take DATA itself for the folder of the images of the split NAME."),
    ] = None,
) -> None:
    """Draw where a model looks, into RUN/cam: heat maps, overlays and boxes of the images that RUN/gradients.h5 names.

    The backbones run over these images once more. An earlier RUN/cam is replaced. Exit code 3: some images are left
    out, because they are missing, cannot be read, or have changed since their features were extracted.
    """
    from extract.heat import HeatOptions, draw_heat

    raise typer.Exit(draw_heat(HeatOptions(data, run, weights_dir, id_column, split)))


@app.command("list")
def list_backbones(
    weights_dir: WeightsDir = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as it stands in docs/extract.md.")
    ] = False,
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
