"""Print what a run found."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from classify.experiment import Experiment
from classify.inputs import Inputs, SplitInputs
from classify.rundir.classes import print_confusions
from classify.rundir.folder import SUBGROUPS
from classify.scores.choice import describe_nested, may_be_chance
from classify.scores.gains import MODEL
from classify.scores.metrics import (
    CLASS_SELECTORS,
    MACRO,
    MAJORITY,
    OVERALL,
    Score,
    describe_rule,
    name_metric,
    sign_of,
)
from classify.scores.resampling import DRAWS
from classify.scores.small import describe_other_intervals
from classify.scores.tables.subgroups import LEAST_SUBGROUP, list_small
from classify.scores.thresholds import measure_cost
from features.common.arrays import UNKNOWN, Labels, count_values
from features.common.text import count_things, first_few, make_console


class LeaderboardColumn(NamedTuple):
    """A column of the leaderboard: the mean of a metric over the labels, out-of-fold.

    Attributes:
        metric: its name in the table of metrics.
        heading: what the column is called.
        more_is_better: whether a high value is a good one.
        printed: whether the terminal, which has 120 columns, shows it too; the report shows all.
    """

    metric: str
    heading: str
    more_is_better: bool = True
    printed: bool = True


#: Share of the images without a label beyond which a threshold that marks them is said to be of little use.
USELESS = 0.9
#: Columns of the leaderboard, printed and in the report, beside the AUC that it is sorted by.
LEADERBOARD = (
    LeaderboardColumn("average_precision", "AP"),
    LeaderboardColumn("log_loss", "log loss", more_is_better=False),
    LeaderboardColumn("brier", "Brier", more_is_better=False, printed=False),
    LeaderboardColumn("f1", "F1"),
    LeaderboardColumn("sensitivity", "sensitivity", printed=False),
    LeaderboardColumn("specificity", "specificity", printed=False),
)
#: What the report adds of exclusive classes.
TOP1 = LeaderboardColumn(CLASS_SELECTORS[0], "top-1", printed=False)


def print_summary(inputs: Inputs, experiment: Experiment, rejected_list: Path) -> None:
    """Print the data, the folds, a leaderboard and what could not be predicted.

    `rejected_list` is the CSV file of the images that stage 1 rejected.
    """
    console = make_console()
    train, test, train_labels = inputs.train, inputs.test, inputs.train_labels
    images = count_things(len(train.used_ids), "image")
    console.print(f"train: {images}; positive: {count_positives(inputs.label_names, train_labels)}")
    if train.rejected_ids:
        console.print(
            f"train: {len(train.rejected_ids)} of {len(train.image_ids)} images without features, left out: "
            f"{first_few(train.rejected_ids)} ({rejected_list})"
        )
    settings = experiment.settings
    repeated = f"; drawn {settings.repeats} times" if settings.repeats > 1 else ""
    console.print(f"folds: {experiment.folds.describe()}{repeated}")
    console.print(_leaderboard(experiment, len(inputs.columns)))
    beside = "but for the last column, " if test is not None and test.labels is not None else ""
    console.print(
        f"*: the final model; =: tied with the best; {beside}scores are out-of-fold, the mean over labels; AUC: over "
        "pairs within a fold"
    )
    if beside and not settings.refit:
        console.print(
            f"out-of-fold: {count_things(settings.repeats, 'model')} an image; test: the mean of "
            f"{count_things(settings.folds * settings.repeats, 'model')}, so that models which vary score higher on "
            "test for that alone, and more images reach their thresholds (--refit predicts test by one model)"
        )
    if experiment.left_out:
        why = ", ".join(f"{name} ({reason})" for name, reason in experiment.left_out.items())
        console.print(f"means over labels are without {why}")
    floor = "top-1 in brackets: of giving every image the largest class"
    if not settings.exclusive:
        floor = "accuracy in brackets: of giving every image the more frequent value of each label"
    console.print(f"{floor}; seconds: of fitting, an ensemble's without its members'")
    unit = "row" if experiment.folds.group_count is None else "group"
    made = [(score.metric, score.interval) for scores in experiment.scores.values() for score in scores]
    others = describe_other_intervals(made, unit)
    console.print(
        f"in square brackets: 95 % interval from {DRAWS} bootstrap draws of {unit}s, the fitted models as given"
        + (f"; {others}" if others else "")
    )
    skills = {model: experiment.macro(model, "log_loss_skill").value for model in experiment.predictions}
    unskilled = [model for model, skill in skills.items() if skill is not None and skill < 0]
    if unskilled:
        console.print(
            "log loss above that of giving every image the share of positives (--calibration may help): "
            f"{', '.join(unskilled)}"
        )
    if len(experiment.predictions) == 1:
        console.print("only one model, so there is no ensemble: each would be the same model again")
    if experiment.returns:
        steps = (f"{r.backbone} {r.macro_auc:.3f} ({r.gain:+.3f})" for r in experiment.returns)
        console.print(f"backbones, added one by one to their mean, macro AUC (gain): {', '.join(steps)}")
    if gap := experiment.gap:
        console.print(
            f"gap: {gap.gap} macro AUC, what random folds would flatter: {MODEL} on all backbones has {gap.random} by "
            f"random folds, {gap.grouped} by grouped ones"
        )
    before = ", before its calibration" if settings.calibration else ""
    final = experiment.final_model
    console.print(f"final model: {final} ({describe_rule(settings.select)}{before})")
    _print_choice(console, experiment)
    console.print(f"its thresholds, for {settings.threshold.text}, cross-fitted on the training images:")
    costs = measure_cost(inputs.train_labels, experiment.predictions[final].out_of_fold, experiment.decisions[final])
    console.print(_threshold_table(inputs, experiment, costs))
    if useless := list_useless(inputs.label_names, costs):
        console.print(
            f"of little use, as they mark nearly every image without the label: {', '.join(useless)}; a lower "
            "--threshold asks less of the model"
        )
    for name, promise in zip(inputs.label_names, experiment.readings.promises, strict=False):
        console.print(f"{settings.threshold.text} of {name} rests on: {promise.describe()}")
    _print_classes(console, experiment)
    _print_groups(console, experiment)
    _print_subgroups(console, experiment, inputs)
    if test is None:
        needless = "; --refit changes what predicts new images only" if settings.refit else ""
        console.print(f"test: the data set has no test split, so there are only out-of-fold results{needless}")
    else:
        _print_test(console, inputs, test, final + (", refitted" if settings.refit else ""), rejected_list)


def _print_choice(console: Console, experiment: Experiment) -> None:
    """Say what the choice among the models flatters, and what a model of fewer backbones would lose."""
    metric, final = experiment.selector, experiment.chosen_model
    if nested := experiment.nested:
        how, figure = describe_nested(nested.describe()), _figure(nested.value, nested.low, nested.high)
        console.print(
            f"{how}: {name_metric(metric)} {figure}; the final model's own is of the images that it was chosen on"
        )
    own = experiment.macro(experiment.final_model, "roc_auc")
    chance = [(own.value, own.low)]
    if nested and metric == "roc_auc":
        chance.append((nested.value, nested.low))
    if any(may_be_chance(*figure) for figure in chance):
        console.print("the final model may be no better than chance, a macro roc_auc of 0.5")
    if permutations := experiment.permutations:
        console.print(
            f"better than chance: p = {_short(permutations.p_value)}, by "
            f"{count_things(len(permutations.values), 'run')} on labels shuffled by group"
        )
    backbones = {model: len(experiment.predictions[model].backbones) for model in experiment.comparisons}
    lone = [model for model, count in backbones.items() if count == 1]
    if backbones[final] > 1 and lone:
        best = max(lone, key=lambda model: experiment.comparisons[model].difference * sign_of(metric))
        beside = experiment.comparisons[best]
        interval = "" if beside.low is None else f" [{beside.low:+.3f}, {beside.high:+.3f}]"
        console.print(f"the best on one backbone, {best}: {beside.difference:+.3f}{interval} beside the final model")


def _print_classes(console: Console, experiment: Experiment) -> None:
    """Say how often the class of the highest probability is right, and what is taken for what."""
    if not experiment.settings.exclusive:
        return
    for split, where in (("oof", "out-of-fold"), ("test", "on test")):
        scores = experiment.scores.get((experiment.final_model, split), [])
        of_rows = {s.metric: _with_interval(s) for s in scores if s.label == OVERALL}
        if of_rows:
            top1, balanced, floor = (of_rows[metric] for metric in (*CLASS_SELECTORS, MAJORITY))
            console.print(
                f"top-1 accuracy {where}: {top1}; balanced (the mean over classes): {balanced}; of giving every image "
                f"the largest class: {floor}"
            )
    print_confusions(console, experiment.readings.confusions)


def _print_groups(console: Console, experiment: Experiment) -> None:
    """Say what the final model is worth by group, beside its worth by image."""
    of_groups = [f for f in experiment.readings.groups if (f.split, f.label, f.metric) == ("oof", MACRO, "roc_auc")]
    if not of_groups:
        return
    by_image = _with_interval(experiment.macro(experiment.final_model, "roc_auc"))
    if any(f.value is None for f in of_groups):
        lacking = [
            f.label
            for f in experiment.readings.groups
            if (f.split, f.summary, f.metric) == ("oof", of_groups[0].summary, "roc_auc") and f.value is None
        ]
        labels = first_few([label for label in lacking if label not in (MACRO, *experiment.left_out)])
        each = f"none, as no AUC by group is defined for {labels}"
    else:
        each = "; ".join(
            f"{_with_interval(Score(MACRO, f.metric, f.value, f.low, f.high))} by the {f.summary}" for f in of_groups
        )
    console.print(f"by group ({of_groups[0].groups}), macro AUC: {each}; by image {by_image}")


def _print_subgroups(console: Console, experiment: Experiment, inputs: Inputs) -> None:
    """Say which subgroups differ from the rest, which are too small to score, and which columns test does not have."""
    figures = experiment.readings.subgroups
    if not figures:
        return
    for f in figures:
        low, high = f.difference_low, f.difference_high
        if f.metric == "roc_auc" and low is not None and high is not None and (low > 0 or high < 0):
            where = f"{f.column} {f.subgroup} ({f.split}, {f.label})"
            apart = f"{f.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
            console.print(f"subgroup {where}: AUC {f.value:.3f}, the rest {f.rest:.3f}: {apart}")
    count = len({(f.column, f.subgroup) for f in figures})
    console.print(
        f"{count_things(count, 'subgroup')}, in {SUBGROUPS}; by chance, 1 of 20 intervals of a difference leaves 0 out"
    )
    if small := list_small(figures):
        console.print(f"subgroups of fewer than {LEAST_SUBGROUP} images, not scored: {first_few(small)}")
    test = inputs.test if inputs.test is not None and inputs.test.labels is not None else None
    missing = [name for name in inputs.train.columns if test is not None and name not in test.columns]
    if missing:
        console.print(f"the table of test does not have {', '.join(missing)}: not scored by that on test")


def _print_test(console: Console, inputs: Inputs, test: SplitInputs, predictor: str, rejected_list: Path) -> None:
    """Say what the predictions are by, and which images have none."""
    labelled = "labelled" if test.labels is not None else "not labelled, so not scored"
    if test.labels is not None and UNKNOWN in test.labels:
        labelled += f"; positive: {count_positives(inputs.label_names, test.labels)}"
    console.print(f"test: {len(test.used_ids)} of {len(test.image_ids)} images predicted by {predictor}; {labelled}")
    if test.rejected_ids:
        console.print(
            f"test: {count_things(len(test.rejected_ids), 'image')} without features, whose cells in the predictions "
            f"are empty: {first_few(test.rejected_ids)} ({rejected_list})"
        )


def _leaderboard(experiment: Experiment, backbone_count: int) -> Table:
    """List the models by their out-of-fold macro AUC, best first; beside it the test images', where they are labelled.

    The lines of a run of three backbones of the longest names fit 120 columns, so the backbones are counted: a model of
    one bears its name.
    """
    # One blank between columns: two intervals and the longest names leave no more of 120.
    table = Table(box=None, header_style="bold", padding=(0, 1), pad_edge=False, collapse_padding=True)
    # On a narrow terminal cells are folded, never cut; the models' names stay whole.
    table.add_column("model", no_wrap=True, overflow="fold")
    columns = [column for column in LEADERBOARD if column.printed]
    measured = [column.heading.replace(" ", "\n") for column in columns]
    exclusive = experiment.settings.exclusive
    headings = ["back-\nbones", "macro AUC", *measured, "top-1" if exclusive else "accuracy", "seconds"]
    has_test = any(split == "test" for _, split in experiment.scores)
    for heading in headings + ["test macro AUC"] * has_test:
        table.add_column(heading, justify="right", overflow="fold")
    of_models = {
        model: {score.metric: score for score in experiment.scores[model, "oof"] if score.label == MACRO}
        for model in experiment.predictions
    }
    tied = {model for model, beside in experiment.comparisons.items() if beside.tied}
    for model in rank_models({model: macro["roc_auc"].value for model, macro in of_models.items()}):
        macro = of_models[model]
        of_test = [s for s in experiment.scores.get((model, "test"), []) if (s.label, s.metric) == (MACRO, "roc_auc")]
        right, floor = (
            (experiment.macro(model, metric).value for metric in (CLASS_SELECTORS[0], MAJORITY))
            if exclusive
            else (macro[metric].value for metric in ("accuracy", "constant_accuracy"))
        )
        prediction = experiment.predictions[model]
        final = model == experiment.final_model
        table.add_row(
            f"{model}{' *' if final else ' =' if model in tied else ''}",
            f"{len(prediction.backbones)} of {backbone_count}",
            _with_interval(macro["roc_auc"]),
            *(_short(macro[column.metric].value) for column in columns),
            f"{_short(right)} ({_short(floor)})",
            f"{prediction.seconds:.1f}",
            *(_with_interval(score) for score in of_test),
            style="bold" if final else None,
        )
    return table


def count_positives(label_names: Sequence[str], labels: Labels) -> str:
    """Count the positives of each label, such as `epidural 7 of 120 known`; without the known rows where all are."""
    counts = zip(label_names, *count_values(labels), strict=True)
    return ", ".join(
        f"{name} {positives}" + (f" of {known} known" if (known := positives + negatives) < len(labels) else "")
        for name, positives, negatives in counts
    )


def rank_models(aucs: Mapping[str, float | None]) -> list[str]:
    """Order models by their out-of-fold macro ROC-AUC, best first; of equal ones the first, those without one last.

    Args:
        aucs: by model, the simpler model first; None or NaN where it is undefined.
    """
    known = {model: -math.inf if auc is None or math.isnan(auc) else auc for model, auc in aucs.items()}
    return sorted(known, key=lambda model: -known[model])


def list_useless(label_names: Sequence[str], costs: np.ndarray) -> list[str]:
    """Name the labels whose threshold marks more than `USELESS` of the images without it, with the share.

    Args:
        label_names: of the L labels.
        costs: of `measure_cost`, (L, 6).
    """
    marked = dict(zip(label_names, 1 - costs[:, 2], strict=True))
    return [f"{name} ({share:.0%})" for name, share in marked.items() if share > USELESS]


def _threshold_table(inputs: Inputs, experiment: Experiment, costs: np.ndarray) -> Table:
    """Show the final model's thresholds, and what they cost beside 0.5, as `measure_cost` gives it."""
    model = experiment.final_model
    aucs = {s.label: s for s in experiment.scores[model, "oof"] if s.metric == "roc_auc"}
    table = Table(box=None, header_style="bold")
    table.add_column("label")
    for heading in ("AUC", "threshold", "F1", "sensitivity", "specificity", "at 0.5: F1", "sensitivity", "specificity"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, threshold, cost in zip(inputs.label_names, experiment.thresholds[model], costs, strict=True):
        table.add_row(name, _with_interval(aucs[name]), *(_short(value) for value in (threshold, *cost)))
    return table


def _with_interval(score: Score) -> str:
    """Write a score as `0.894 [0.858, 0.925]`, or without an interval where it has none."""
    return _figure(score.value, score.low, score.high)


def _figure(value: float | None, low: float | None, high: float | None) -> str:
    """Write a figure with its interval, where it has one."""
    return _short(value) + ("" if low is None else f" [{_short(low)}, {_short(high)}]")


def _short(value: float | None) -> str:
    """Write a figure with three decimals; `-` if there is none."""
    return "-" if value is None else f"{value:.3f}"
