"""Print what a run found."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from classify.experiment import Experiment
from classify.inputs import Inputs, SplitInputs
from classify.metrics import MACRO
from classify.run_folder import RUN_FILES

_IDS_SHOWN = 10


def print_summary(inputs: Inputs, experiment: Experiment, run: Path, rejected_list: Path) -> None:
    """Print the data, the folds, a table of scores, what could not be predicted, and the files written.

    Args:
        inputs: what the run learnt from.
        experiment: what it found.
        run: the run's folder, written.
        rejected_list: the CSV file that lists the images that stage 1 rejected.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    train, test = inputs.train, inputs.test
    positives = ", ".join(
        f"{name} {n}" for name, n in zip(inputs.label_names, inputs.train_labels.sum(axis=0), strict=True)
    )
    console.print(f"train: {len(train.used_ids)} images; positive: {positives}")
    if train.rejected_ids:
        console.print(
            f"train: {len(train.rejected_ids)} of {len(train.image_ids)} images have no features and are left out: "
            f"{_some(train.rejected_ids)} ({rejected_list})"
        )
    console.print(f"folds: {experiment.folds.describe()}")
    # A pipe has no width of its own: Rich would take 80 columns and break the names of models.
    table_console = console if console.is_terminal else Console(highlight=False, width=max(console.width, 200))
    table_console.print(_score_table(inputs, experiment))
    console.print("oof: out-of-fold, all folds scored together; in brackets: the accuracy of predicting all-negative")
    if len(inputs.columns) == 1:
        console.print("one backbone only, so there is no logistic/all and no mean: each would be the same model again")
    if test is None:
        console.print("test: the data set has no test split, so there are out-of-fold results only, no predictions")
    else:
        _print_test(console, test, experiment.final_model, rejected_list)
    written = [name for name in RUN_FILES if (run / name).exists()]
    console.print(f"written to {run}: {', '.join(written)}")


def _print_test(console: Console, test: SplitInputs, final_model: str, rejected_list: Path) -> None:
    """Say what the predictions are by, and which images have none."""
    labelled = "labelled" if test.labels is not None else "not labelled, so not scored"
    console.print(f"test: {len(test.used_ids)} of {len(test.image_ids)} images predicted by {final_model}; {labelled}")
    if test.rejected_ids:
        console.print(
            f"test: {len(test.rejected_ids)} images have no features; their cells in the predictions are empty: "
            f"{_some(test.rejected_ids)} ({rejected_list})"
        )


def _score_table(inputs: Inputs, experiment: Experiment) -> Table:
    """Set the models' scores side by side: macro, then ROC-AUC per label."""
    table = Table(box=None, header_style="bold")
    table.add_column("model", no_wrap=True)
    table.add_column("split")
    for heading in ("macro AUC", "AP", "log loss", "accuracy"):
        table.add_column(heading, justify="right")
    for name in inputs.label_names:
        table.add_column(Text(f"AUC {name}"), justify="right")
    for (model, split), scores in experiment.scores.items():
        values = {(s.label, s.metric): "-" if s.value is None else f"{s.value:.3f}" for s in scores}
        table.add_row(
            Text(model),
            split,
            *(values[MACRO, metric] for metric in ("roc_auc", "average_precision", "log_loss")),
            f"{values[MACRO, 'accuracy']} ({values[MACRO, 'all_negative_accuracy']})",
            *(values[name, "roc_auc"] for name in inputs.label_names),
        )
    return table


def _some(image_ids: tuple[str, ...]) -> str:
    """List the first ids, and how many more there are."""
    shown = ", ".join(image_ids[:_IDS_SHOWN])
    more = len(image_ids) - _IDS_SHOWN
    return f"{shown} and {more} more, all in run.json" if more > 0 else shown
