"""`python -m classify`: train on cached features, predict the test images, write a run and its report."""

if __name__ == "__main__":  # before the imports that take their time
    from features.common.errors import end_silently, refuse_other_python

    end_silently()
    refuse_other_python()

from pathlib import Path

from classify.options import (
    CompareOptions,
    ExportOptions,
    GradientsOptions,
    LearnOptions,
    PredictOptions,
    RunFolder,
    RunOptions,
    SearchOptions,
)
from features.common.cli import application, command

app = application("Train on cached features, predict the test images, write a run.")


@command(app)
def run(options: RunOptions) -> int:
    """Cross-fit models and ensembles, choose one, fit thresholds; write predictions and metrics with intervals.

    Whatever ends it, what was fitted until then is kept: the same command goes on from there.

    Exit codes: 0 done; 2 bad usage or bad input; 3 done, but rejected test images have no prediction; 130, 143 and 129
    stopped by Ctrl-C, SIGTERM and SIGHUP.
    """
    from classify.run import run_classification

    return run_classification(options)


@command(app)
def search(options: SearchOptions) -> int:
    """Search for heads: Optuna proposes, the bank trains whole batches; the best by out-of-fold macro AUC are presets.

    The best of many trials looks better than it is, as the folds that chose it also score it: with random labels it is
    above 0.5. Score STUDY/best.json by `run` on folds of another --seed; only images that the search never saw, such as
    a labelled test split, give an unbiased score.

    Exit codes: 0 done, or the time is up; 2 bad usage or bad input; 130, 143 and 129 stopped by Ctrl-C, SIGTERM and
    SIGHUP: finished batches are kept.
    """
    from classify.search.study import check_study_folder

    check_study_folder(options.out)
    from classify.search.command import search as search_heads

    return search_heads(options)


@command(app)
def predict(options: PredictOptions) -> int:
    """Apply a finished run to features of any split: probabilities, and decisions at the run's thresholds.

    Features that were extracted with other settings than the run's are refused.

    Exit codes: 0 done; 2 bad usage or bad input; 3 done, but rejected images have no prediction.
    """
    _check_run(options.run)
    from classify.predict import predict_split

    return predict_split(options)


@app.command()
def report(run: RunFolder) -> None:
    """Make RUN/report.html, one page that tells of the data and the models, from the run's files alone.

    It opens from disk and asks for nothing else. Its figures are also in RUN/figures/. It shows the thumbnails and heat
    maps that RUN/cam holds.

    Exit codes: 0 done; 2 bad usage or bad input.
    """
    _check_run(run)
    # Imported here, not above: Matplotlib takes a second, and nothing else needs it.
    from classify.report.page import write_report

    write_report(run)


@command(app)
def compare(options: CompareOptions) -> None:
    """Compare runs on the images that all of them have: paired differences from the first, and what was set otherwise.

    It reads the runs' folders alone. What cannot be compared is left out and said: labels, images or truth that not all
    runs share. The page also has the differences per label.

    Exit codes: 0 done; 2 bad usage or bad input.
    """
    for run in options.runs:
        _check_run(run)
    from classify.compare.page import compare as compare_runs

    compare_runs(options)


@command(app)
def learn(options: LearnOptions) -> None:
    """Train a run's final model on growing shares of its groups, and say what more of them would bring.

    It reads the data and features that the run learnt from, writes RUN/learning_curve.csv, and `report` shows it. Of an
    ensemble the best single model of the run stands in.

    Exit codes: 0 done; 2 bad usage or bad input.
    """
    _check_run(options.run)
    from classify.learn import learn as measure

    measure(options)


@command(app)
def export(options: ExportOptions) -> None:
    """Write a run's final model with its backbones as one file: images in, probabilities and decisions out.

    Nothing of Headbank is needed to use it. OUT.md, a model card, says how, and what the model is worth. What is
    written is run on a few images, and compared with the run's own arithmetic.

    Exit codes: 0 done; 2 bad usage or bad input.
    """
    _check_run(options.run)
    # A command may join the rooms, by way of scripts/: docs/decisions.md, "Models that leave the house".
    from scripts.export import export_model

    export_model(options)


@command(app)
def gradients(options: GradientsOptions) -> None:
    """Write RUN/gradients.h5 again, for another model or for other images; `run` writes it for the final one.

    `python -m extract heat` draws heat maps by it, and `python -m classify report` shows them.

    Exit codes: 0 done; 2 bad usage or bad input.
    """
    _check_run(options.run)
    from classify.explain import write_explanation

    write_explanation(options)


def _check_run(run: Path) -> None:
    """Refuse a folder that holds no finished run before the imports that take seconds."""
    from classify.rundir.folder import SealedRun

    SealedRun.open(run)


if __name__ == "__main__":
    app()
