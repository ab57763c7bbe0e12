"""List what a reader of a run has to distrust."""

import math

import numpy as np

from classify.inputs import warn_shared_groups
from classify.report.data import describe_audit
from classify.report.plotting import with_interval
from classify.report.run_files import LabelledSplit, RunFiles, ends_of
from classify.scores.choice import describe_nested, may_be_chance
from classify.scores.metrics import name_metric
from classify.scores.thresholds import to_binary
from features.audit.report import GROUPS
from features.common.arrays import UNKNOWN, find_varied
from features.common.commands import join_words
from features.common.text import count_things, first_few

#: Positives of a label, and groups that have one, below which its figures are called rough.
FEW_POSITIVES, FEW_GROUPS = 50, 10
#: Share of the images that a single group may have.
LARGE_GROUP = 0.25
#: Difference of sensitivities, fitted and cross-fitted, from which on a threshold is called unsteady.
UNSTEADY = 0.15
#: p-value above which what a model knows may be chance.
_SIGNIFICANT = 0.05


def list_doubts(run: RunFiles) -> list[str]:
    """List what a reader has to know before believing the figures, the gravest first; sentences."""
    record, final = run.record, run.final_model
    doubts = _doubt_leaks(run)
    if record["folds"]["groups"] is None:
        doubts.append(
            "No groups are known: related images may be both learnt from and tested on, which can make every figure "
            "far too good. Say which images belong together: --group-column names a column of a table; where there is "
            "none, --group-from takes groups from the ids, and --groups from a file."
        )
    elif record["folds"]["groups"] == len(run.splits["train"].image_ids):
        doubts.append(
            f"Every image is a {run.group} of its own, so the folds keep nothing together: related images may be both "
            "learnt from and tested on, which can make every figure far too good."
        )
    doubts += _doubt_groups(run.splits["train"], run.group)
    random = [name for name, b in record["backbones"].items() if b["recipe"]["weights"] == "random"]
    if random:
        doubts.append(f"Random weights: {', '.join(random)} never learnt from any image.")
    value, low, high = run.score(final)
    chance = [(value, low, high)]
    if record["selection"]["nested"] and record["selection"]["rule"] == "roc_auc":
        chance.append(ends_of(record["selection"]["nested"]))
    if any(may_be_chance(auc, least) for auc, least, _ in chance):
        doubts.append(f"The final model may be no better than chance: macro AUC {with_interval(chance[-1])}.")
    permuted = record["selection"]["permutations"]
    if permuted and permuted["p_value"] is not None and permuted["p_value"] > _SIGNIFICANT:
        doubts.append(
            f"Runs on shuffled labels do as well, p = {permuted['p_value']:.3f} by {permuted['runs']} of them: what "
            "the final model seems to know may be chance."
        )
    doubts += _doubt_labels(run)
    tested = run.score(final, "test")
    if tested[2] < low or tested[1] > high:
        doubts.append(
            f"Test and out-of-fold disagree: the macro AUC is {with_interval(tested)} on test, and "
            f"{with_interval((value, low, high))} out-of-fold. Are these images of the same kind?"
        )
    if "test" not in run.splits:
        doubts.append("No labelled test images: every figure is from the training images, out-of-fold.")
    nested = record["selection"]["nested"]
    if nested and nested["value"] is not None:
        doubts.append(
            f"The final model was chosen among {len(run.leaderboard)} on the images that its figures are of, which "
            f"flatters it: {describe_nested(nested)}, the {name_metric(record['selection']['rule'])} is "
            f"{with_interval(ends_of(nested))}."
        )
    for name, split in record["splits"].items():
        if split["rejected"]:
            ids = first_few(split["rejected"])
            doubts.append(
                f"{count_things(len(split['rejected']), 'image')} of {name} could not be read, so left out: {ids}."
            )
    return doubts + [warning for warning in record["warnings"] if warning not in doubts]


def _doubt_leaks(run: RunFiles) -> list[str]:
    """List what the models may have seen of the images that they are scored on, by groups and by the audit."""
    test = run.splits.get("test")
    doubts = warn_shared_groups(run.splits["train"].groups, None if test is None else test.groups)
    for scope in describe_audit(run)["scopes"] or ():
        pairs = scope["exact"] + scope["near"]
        if scope["name"] == "between train and test" and pairs and test is not None:
            doubts.append(
                f"The audit found {count_things(pairs, 'pair')} of duplicates between train and test, so that the "
                "figures of test are too good: duplicates.csv lists them."
            )
        if scope["across_folds"].isdigit() and int(scope["across_folds"]):
            doubts.append(
                f"The audit found {count_things(int(scope['across_folds']), 'pair')} of duplicates that the folds "
                "split, so that out-of-fold figures are too good. To keep them together: classify run "
                f"{join_words('--groups', run.folder / GROUPS)}"
            )
    return doubts


def _doubt_groups(train: LabelledSplit, group: str) -> list[str]:
    """Say where one group has much of the training images."""
    if train.groups is None:
        return []
    names, counts = np.unique(train.groups[train.groups != ""].astype(str), return_counts=True)
    if counts.max(initial=0) <= LARGE_GROUP * len(train.groups):
        return []
    return [
        f"One {group} has {counts.max()} of the {len(train.groups)} training images, so folds are uneven and figures "
        f"depend on it: {names[counts.argmax()]}."
    ]


def _doubt_labels(run: RunFiles) -> list[str]:
    """List what is doubtful of single labels, a sentence for all labels of which it is."""
    doubts = []
    for split in run.splits.values():
        rough = []
        for index, name in enumerate(run.label_names):
            truth = split.labels[:, index] == 1
            groups = None if split.groups is None else len({*split.groups[truth]} - {""})
            if truth.sum() < FEW_POSITIVES or (groups is not None and groups < FEW_GROUPS):
                of_groups = "" if groups is None else f" in {groups} groups"
                figures = with_interval(run.score(run.final_model, split.measured, name))
                rough.append(f"{name} ({int(truth.sum())}{of_groups}; AUC {figures})")
        if rough:
            doubts.append(f"Few positives among the {_images(split)}, so that figures are rough: {', '.join(rough)}.")
        none = [name for name, varies in zip(run.label_names, find_varied(split.labels), strict=True) if not varies]
        if none:
            which = "are not known to have both values" if UNKNOWN in split.labels else "all have the same value"
            doubts.append(
                f"{', '.join(none)}: no AUC on the {_images(split)}, which {which}. Means over the labels leave them "
                "out there."
            )
    return doubts + _doubt_probabilities(run) + _doubt_thresholds(run)


def _doubt_probabilities(run: RunFiles) -> list[str]:
    """List the labels whose probabilities are not to be taken at their word."""
    doubts = []
    slopes = {name: run.score(run.final_model, "oof", name, "calibration_slope") for name in run.label_names}
    for kind, how, found in (
        ("too sure", "slope below 1", [name for name, (_, _, high) in slopes.items() if high < 1]),
        ("too unsure", "slope above 1", [name for name, (_, low, _) in slopes.items() if low > 1]),
    ):
        if found:
            of_labels = ", ".join(f"{name} ({with_interval(slopes[name])})" for name in found)
            doubts.append(f"Probabilities that are {kind} (calibration {how}): {of_labels}. --calibration may help.")
    skills = {name: run.score(run.final_model, "oof", name, "log_loss_skill")[0] for name in run.label_names}
    worse = [name for name, skill in skills.items() if skill < 0]
    if worse:
        doubts.append(
            f"The log loss is above that of giving every image the share of positives: {', '.join(worse)}. "
            "These probabilities may rank well, but are not to be taken at their word: --calibration may help."
        )
    return doubts


def _images(split: LabelledSplit) -> str:
    """Name the images of a split."""
    return "training images" if split.name == "train" else "test images"


def _doubt_thresholds(run: RunFiles) -> list[str]:
    """List the thresholds that do much worse where they had no part in the choice."""
    train = run.splits["train"]
    decided = to_binary(train.probabilities, run.cuts)
    unsteady = []
    for index, name in enumerate(run.label_names):
        positives = train.labels[:, index] == 1
        fitted = float(decided[positives, index].mean()) if positives.any() else math.nan
        crossed = float(run.thresholds.loc[name, "sensitivity"])
        if abs(fitted - crossed) > UNSTEADY:
            unsteady.append(f"{name} (sensitivity {crossed:.3f} cross-fitted, {fitted:.3f} at the run's threshold)")
    if not unsteady:
        return []
    return [
        f"Thresholds that depend on few images: {', '.join(unsteady)}. The gallery, the dots on the curves and the "
        "slider's start use the run's thresholds, and show other decisions than to expect on new images."
    ]
