"""`python -m extract`: run frozen backbones over images, and list those that there are."""

if __name__ == "__main__":  # before the imports that take their time
    from features.common.errors import end_silently, refuse_other_python

    end_silently()
    refuse_other_python()

from typing import Annotated

import typer

from extract.backbones.table import BACKBONES, markdown_table, terminal_table
from extract.options import (
    AssembleOptions,
    CheckOptions,
    ConvertOptions,
    ExtractOptions,
    FinetuneOptions,
    HeatOptions,
    ThumbnailOptions,
    WeightsDir,
)
from features.common.cli import application, command
from features.common.text import make_console

app = application("Stage 1: run frozen backbones over images once, and keep their pooled features.")


@command(app)
def run(options: ExtractOptions) -> int:
    """Extract the features of every image of DATA that are not in the cache yet; cached ones are kept.

    Ctrl-C ends it cleanly; whatever ends it, the same command goes on from there. Exit code 3: some images could not
    be read; they are listed in CACHE/rejected.csv.
    """
    from extract.run import run_extraction

    return run_extraction(options)


@command(app)
def assemble(options: AssembleOptions) -> int:
    """Put together in CACHE what all shards of an extraction have extracted; killed midway, it is run again.

    Exit code 2: shards are missing; the message names them. Exit code 3: some images could not be read; they are
    listed in CACHE/rejected.csv.
    """
    from extract.shards.assembling import assemble_shards

    return assemble_shards(options.cache)


@command(app)
def finetune(options: FinetuneOptions) -> int:
    """Fine-tune a backbone on the labels, once without each fold and once on all, and extract features by each.

    Stage 2 uses of each row the features of a backbone that has not seen its group, and refuses all others. Killed
    midway, the same command goes on. Exit code 3: some images could not be read.
    """
    from extract.finetune.run import run_finetuning

    return run_finetuning(options)


@command(app)
def check(options: CheckOptions) -> int:
    """Check that backbones are loaded and preprocessed rightly: on two photographs, and on an image drawn by code.

    Of a model of your own the scale of its pixels is judged. Exit code 2: one is wrong. Exit code 3: of one nothing can
    be said. A model that is not trained may get any verdict.
    """
    from extract.check.run import run_check

    return run_check(options)


@command(app)
def convert(options: ConvertOptions) -> int:
    """Write the images of DATA as 8-bit PNG into OUT, DICOM and NIfTI through their window, with the tables.

    OUT is read as DATA is, and the images hold nothing of the headers of scans. A file of groups says which are of one
    patient. Exit code 3: some could not be read.
    """
    from extract.scans.convert import convert as convert_images

    return convert_images(options)


@command(app)
def heat(options: HeatOptions) -> int:
    """Draw where a model looks, into RUN/cam: heat maps, overlays and boxes of the images that RUN/gradients.h5 names.

    The backbones run over these images once more. An earlier RUN/cam is replaced. Exit code 3: some images are left
    out, because they are missing, cannot be read, or have changed since their features were extracted.
    """
    from extract.pictures.heat import draw_heat

    return draw_heat(options)


@command(app)
def thumbnails(options: ThumbnailOptions) -> int:
    """Draw small pictures of the images of CACHE that have none, for features map; scans through the cache's window.

    Ctrl-C keeps what is drawn in blocks of 4,096. Exit code 3: some images are left out, because they cannot be read or
    have changed since their features were extracted.
    """
    from extract.pictures.thumbnails import draw_thumbnails

    return draw_thumbnails(options)


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
