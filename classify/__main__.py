"""`python -m classify`: train on cached features, predict the test images, write a run and its report."""

if __name__ == "__main__":  # before the imports that take their time
    from features.common.errors import end_silently

    end_silently()

import enum
from pathlib import Path
from typing import Annotated

import typer

from classify.ensembles.ensembles import ENSEMBLES
from classify.models.baselines import BASELINES
from classify.models.heads import DEFAULT_PRESETS, PRESETS
from classify.scores.metrics import SELECTORS, THRESHOLD_RULES
from features.common.cli import GroupColumn, GroupsFile, IdColumn, LabelColumns, application, split_names

app = application("Train on cached features, predict the test images, write a run.")


#: An option of several commands.
CacheFolder = Annotated[
    Path | None,
    typer.Option(metavar="CACHE", help="Folder of the features.", show_default="features/cache/NAME OF DATA"),
]


class Calibration(enum.StrEnum):
    """What `--calibration` takes."""

    none = enum.auto()
    temperature = enum.auto()
    platt = enum.auto()
    isotonic = enum.auto()


@app.command()
def run(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder of the data set: train.csv, train/, test/ at will."),
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder to write to.")],
    cache: CacheFolder = None,
    backbones: Annotated[
        str | None, typer.Option(metavar="A,B", help="Backbones to use.", show_default="all that are cached")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5,
    repeats: Annotated[
        int,
        typer.Option(min=1, help="Times that other folds are drawn; out-of-fold probabilities are the mean over them."),
    ] = 1,
    refit: Annotated[
        bool,
        typer.Option("--refit", help="Predict test by each model fitted on all rows, not by the mean over the folds'."),
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the folds, the heads and the intervals.")
    ] = 0,
    id_column: IdColumn = None,
    labels: LabelColumns = None,
    group_column: GroupColumn = None,
    groups: GroupsFile = None,
    baselines: Annotated[
        str,
        typer.Option(metavar="A,B", help=f"Baselines to fit: {', '.join(BASELINES)}."),
    ] = "logistic",
    preset: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help=f"Heads to train: {', '.join(PRESETS)}; files of presets (FILE.json); or none.",
        ),
    ] = ",".join(DEFAULT_PRESETS),
    ensemble: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help=f"Ensembles to make: {', '.join(ENSEMBLES)}; or none.",
            show_default="all",
        ),
    ] = None,
    select: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help=f"How the final model is chosen: best cross-fitted macro {', '.join(SELECTORS)}; or a model's name.",
        ),
    ] = "roc_auc",
    calibration: Annotated[
        Calibration, typer.Option(help="Calibrate the final model per label, cross-fitted.")
    ] = Calibration.none,
    threshold: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help=f"What a threshold is chosen for: {', '.join(rule.form for rule in THRESHOLD_RULES)}.",
        ),
    ] = "f1",
    gap: Annotated[
        bool, typer.Option("--gap", help="Also score by folds that cut groups: what the leak would be worth.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Fits at a time; changes no result.", show_default="all cores")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that RUN holds.")] = False,
) -> None:
    """Cross-fit models and ensembles, choose one, fit thresholds; write predictions and metrics with intervals.

    Whatever ends it, what was fitted until then is kept: the same command goes on from there.

    Exit codes: 0 done; 2 bad usage or bad input; 3 done, but rejected test images have no prediction; 130 and 143
    stopped by Ctrl-C and SIGTERM.
    """
    from classify.run import RunOptions, run_classification

    options = RunOptions(
        data, out, cache, backbones, folds, repeats, refit, seed, id_column, labels, group_column, groups, baselines,
        preset, ensemble, select, calibration.value, threshold, gap, jobs, overwrite,
    )  # fmt: skip
    code = run_classification(options)
    if code:
        raise typer.Exit(code)


@app.command()
def search(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder of the data set: train.csv and train/.")],
    out: Annotated[
        Path, typer.Option(metavar="STUDY", help="Folder of the study; one that is there already is continued.")
    ],
    cache: CacheFolder = None,
    backbones: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Backbones whose features the heads see side by side.",
            show_default="all that are cached",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials that the study shall hold in the end.")] = 200,
    minutes: Annotated[float, typer.Option(min=0.01, help="Time after which no trial is begun or trained.")] = 2.0,
    batch: Annotated[int, typer.Option(min=1, help="Trials that are proposed and trained together.")] = 20,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 3,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the folds, the proposals and the training.")
    ] = 0,
    id_column: IdColumn = None,
    labels: LabelColumns = None,
    group_column: GroupColumn = None,
    groups: GroupsFile = None,
) -> None:
    """Search for heads: Optuna proposes, the bank trains whole batches; the best by out-of-fold macro AUC are presets.

    The best of many trials looks better than it is, as the folds that chose it also score it: with labels drawn by
    chance it lies above 0.5. Score STUDY/best.json by `run` on folds of another --seed; only images that the search
    never saw, such as a labelled test split, are free of all optimism.

    Exit codes: 0 done, or the time is up; 2 bad usage or bad input; 130 and 143 stopped by Ctrl-C and
    SIGTERM: finished batches are kept.
    """
    wanted_backbones, wanted_labels = split_names(backbones, "--backbones"), split_names(labels, "--labels")

    # Imported here, not above: pandas and scikit-learn take seconds, and `--help` needs neither.
    from classify.search.command import search as search_heads
    from classify.search.search import SearchSettings
    from features.dataset.dataset import DatasetOptions

    settings = SearchSettings(trials, minutes * 60, batch, folds, seed)
    options = DatasetOptions(id_column, wanted_labels, group_column, groups)
    code = search_heads(data, cache, out, wanted_backbones, options, settings)
    if code:
        raise typer.Exit(code)


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.", show_default=False)]
ModelName = Annotated[
    str | None, typer.Option(metavar="NAME", help="A model of the run.", show_default="the run's final model")
]


@app.command()
def predict(
    run: RunFolder,
    cache: Annotated[Path, typer.Option(metavar="CACHE", help="Folder of the features.")],
    split: Annotated[str, typer.Option(metavar="NAME", help="The split of the cache to predict.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")],
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The images that were extracted: only these are predicted, in the order of their ids; they are not "
            "opened.",
            show_default="every image that the cache holds",
        ),
    ] = None,
    model: ModelName = None,
    heat: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Write DIR/gradients.h5 for extract heat: the N surest images of each label.",
        ),
    ] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the predictions that DIR holds.")] = False,
) -> None:
    """Apply a finished run to features of any split: probabilities, and decisions at the run's thresholds.

    Features that were extracted otherwise than those the run learnt from are refused.

    Exit codes: 0 done; 2 bad usage or bad input; 3 done, but rejected images have no prediction.
    """
    from classify.predict import predict_split

    code = predict_split(run, cache, split, out, images, model, overwrite, heat)
    if code:
        raise typer.Exit(code)


@app.command()
def report(run: RunFolder) -> None:
    """Make RUN/report.html, one page that tells of the data and the models, from the run's files alone.

    It opens from disk and asks for nothing else. Its figures are also in RUN/figures/. It shows the thumbnails and heat
    maps that RUN/cam holds.

    Exit codes: 0 done; 2 bad usage or bad input.
    """
    # Imported here, not above: Matplotlib takes a second, and nothing else needs it.
    from classify.report.page import write_report

    write_report(run)


@app.command()
def gradients(
    run: RunFolder,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="CACHE", help="Folder of the features.", show_default="the one that RUN learnt from"),
    ] = None,
    model: ModelName = None,
    ids: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Ids of the images to show, at all labels, in every split of CACHE that has them.",
            show_default="those of the run's gallery",
        ),
    ] = None,
) -> None:
    """Write RUN/gradients.h5 again, for another model or for other images; `run` writes it for the final one.

    `python -m extract heat` draws heat maps by it, and `python -m classify report` shows them.
    """
    wanted = split_names(ids, "--ids")

    from classify.explain import write_explanation

    write_explanation(run, cache, model, wanted)


@app.command("extract-options")
def print_extract_options(run: RunFolder, model: ModelName = None) -> None:
    """Print the options with which `python -m extract run` makes the features that a run predicts from.

    One line for each time that it has to run, quoted for a shell: scripts/predict.sh reads them.
    """
    import shlex

    from classify.rundir.saved_run import SavedRun

    saved = SavedRun.load(run)
    for options in saved.extract_options(saved.choose(model)):
        typer.echo(shlex.join(options))


if __name__ == "__main__":
    app()
