"""`scripts/extract.sh`, `classify.sh` and `predict.sh`: what a person runs, from both stages, in one process."""

if __name__ == "__main__":  # before the imports that take their time
    from features.common.errors import end_silently

    end_silently()

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from classify.options import ModelName, PredictOptions, Prevalences, RunFolder, RunOptions, command_line
from extract.options import ExtractOptions, HeatOptions, WeightsDir
from features.common.cli import (
    EXIT_BAD_INPUT,
    EXIT_FAULT,
    EXIT_REJECTED,
    application,
    command,
    report_fault,
)
from features.common.errors import InputError, unmasked_signals
from features.common.text import LAYOUT, visible
from features.options import OF_IMAGES, ExcelSafe
from features.store.recipe import NO_WINDOW

app = application("Extract features, train on them and report, and predict new images.")
#: The split of the cache that new images become.
_NEW = "new"


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(RunOptions):
    """The options of scripts/classify.sh: those of `python -m classify run`, and its own."""

    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="Draw no heat maps: no image is opened, no backbone runs.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class NewImagesOptions:
    """The options of scripts/predict.sh."""

    run: RunFolder
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="Folder of the images to predict.", show_default=False)
    ]
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder to write to. The default one is replaced each time.",
            show_default="RUN/predictions/NAME OF IMAGES",
        ),
    ] = None
    cache: Annotated[
        Path | None, typer.Option(metavar="CACHE", help="Folder of the features.", show_default="DIR/cache")
    ] = None
    model: ModelName = None
    weights_dir: WeightsDir = None
    prevalence: Prevalences = None
    excel_safe: ExcelSafe = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the predictions that --out DIR holds.")] = (
        False
    )


@command(app, "scripts/extract.sh")
def extract(options: ExtractOptions) -> int:
    """Stage 1: extract the features of every image of DATA that are not in the cache yet; cached ones are kept.

    Ctrl-C ends it cleanly; whatever ends it, the same command goes on from there.

    Exit codes: 0 done; 2 bad usage or bad input; 3 done, but some images could not be read: CACHE/rejected.csv lists
    them; 130, 143 and 129 stopped by Ctrl-C, SIGTERM and SIGHUP.
    """
    from extract.run import run_extraction

    return run_extraction(options)


@command(app, "scripts/classify.sh")
def classify(options: ClassifyOptions) -> int:
    """Stage 2: train on the cached features, predict, draw where the model looks, and write RUN/report.html.

    Where images or backbones' weights are missing, the report has no pictures. Whatever ends it, what was fitted until
    then is kept: the same command goes on from there; once RUN is written, a message says how to make its report.

    Exit codes: 0 done; 2 bad usage or bad input; 3 done, but rejected test images have no prediction; 130, 143 and 129
    stopped by Ctrl-C, SIGTERM and SIGHUP.
    """
    from classify.run import run_classification

    code = run_classification(options)
    try:
        pictures = 0 if options.no_pictures else _draw(options)
        if pictures in (EXIT_FAULT, EXIT_BAD_INPUT):
            typer.echo("no pictures (the message above says why): the report is made without them", err=True)

        from classify.report.page import write_report

        write_report(options.out)
    except KeyboardInterrupt:
        record = {"data": options.data, "cache": options.cache or "", "arguments": options.arguments()}
        names = ("classify report",) if options.no_pictures else ("extract heat", "classify report")
        steps = [command_line(name, options.out, record) for name in names]
        typer.echo(f"stopped: {options.out} is whole, but for its report. Run: {' && '.join(steps)}", err=True)
        raise
    return EXIT_FAULT if pictures == EXIT_FAULT else code


def _draw(options: ClassifyOptions) -> int:
    """Draw the heat maps of a run; an error is reported, and ends nothing else. Returns the exit code."""
    from extract.pictures.heat import draw_heat

    try:
        with unmasked_signals():
            of_images: dict[str, Any] = {name: getattr(options, name) for name in OF_IMAGES}
            return draw_heat(HeatOptions(data=options.data, run=options.out, **of_images))
    except InputError as error:
        typer.echo(f"error: {visible(str(error), LAYOUT)}", err=True)
        return EXIT_BAD_INPUT
    except Exception as error:  # noqa: BLE001 - the run is done: a fault of ours must not cost its report
        report_fault(error)
        return EXIT_FAULT


@command(app, "scripts/predict.sh")
def predict(options: NewImagesOptions) -> int:
    """Extract a folder of new images as the run's features were, and predict them.

    Exit codes: 0 done; 2 bad usage or bad input; 3 done, but images that could not be read have no prediction; 130, 143
    and 129 stopped by Ctrl-C, SIGTERM and SIGHUP.
    """
    from classify.predict import hold_predictions, open_model

    run, images = options.run, options.images
    open_model(run, options.model, options.prevalence)
    if not images.is_dir():
        raise InputError(f"{images} is not a folder. Give the folder of the images to predict.")
    out = options.out or run / "predictions" / images.resolve().name
    asked = PredictOptions(
        run=run,
        cache=options.cache or out / "cache",
        split=_NEW,
        out=out,
        images=images,
        model=options.model,
        prevalence=options.prevalence,
        excel_safe=options.excel_safe,
        overwrite=options.overwrite or options.out is None,
    )
    with hold_predictions(out, images, asked.overwrite):
        return _extract_and_predict(asked, options.weights_dir)


def _extract_and_predict(asked: PredictOptions, weights_dir: Path | None) -> int:
    """Extract and predict a folder of new images; the folder of their predictions is held. Returns the exit code."""
    from classify.predict import open_model, predict_held
    from extract.run import run_extraction

    assert asked.images is not None
    saved, model, _ = open_model(asked.run, asked.model, asked.prevalence)
    for words in saved.extract_options(model):
        chosen: dict[str, Any] = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
        if "backbone" in chosen:
            chosen["backbone"] = [chosen["backbone"]]
        chosen.setdefault("window", NO_WINDOW)  # else scans would be shown through another than those of the run
        code = run_extraction(
            ExtractOptions(data=asked.images, cache=asked.cache, split=_NEW, weights_dir=weights_dir, **chosen)
        )
        if code not in (0, EXIT_REJECTED):  # rejected images get empty cells
            return code
    return predict_held(asked, leave_late=True)


if __name__ == "__main__":
    app(prog_name="")  # the commands have the names of their scripts, as usage and help show them
