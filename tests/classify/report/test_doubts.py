"""The page says what to distrust, and nothing that is not so."""

import json
from dataclasses import replace

import numpy as np
import pytest

from classify.report.doubts import list_doubts
from classify.report.run_files import LabelledSplit, RunFiles
from tests.classify.report.conftest import AUDIT


@pytest.fixture
def run(plain_run) -> RunFiles:
    return RunFiles.read(plain_run)


def changed(run: RunFiles, **values) -> RunFiles:
    return replace(run, record={**run.record, **values})


def scored(run, split, metric, label, *score):
    return replace(run, scores={**run.scores, (run.final_model, split, label, metric): score})


def many_times(split: LabelledSplit) -> LabelledSplit:
    """Give every image fifty times over, each a patient of its own."""
    labels, probabilities = np.tile(split.labels, (50, 1)), np.tile(split.probabilities, (50, 1))
    groups = np.array([f"{split.name}{row}" for row in range(len(labels))], object)
    return replace(split, image_ids=tuple(groups), groups=groups, labels=labels, probabilities=probabilities)


def test_a_run_with_nothing_wrong_has_only_the_doubts_that_always_hold(run):
    quiet = scored(changed(run, warnings=[]), "oof", "roc_auc", "macro", 0.9, 0.85, 0.95)
    quiet = scored(quiet, "test", "roc_auc", "macro", 0.88, 0.8, 0.96)
    for label in run.label_names:
        quiet = scored(quiet, "oof", "calibration_slope", label, 1.1, 0.8, 1.3)
        quiet = scored(quiet, "oof", "log_loss_skill", label, 0.2, 0.1, 0.3)
    quiet.record["backbones"] = {}
    doubts = list_doubts(replace(quiet, splits={name: many_times(split) for name, split in quiet.splits.items()}))
    few = "Thresholds that depend on few images: epidural"  # of which the toy has few
    assert len([doubt for doubt in doubts if not doubt.startswith(few)]) == 1
    assert doubts[-1].startswith(f"The final model was chosen among {len(run.record['models'])} on the images")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda run: changed(run, folds={**run.record["folds"], "groups": None}), "No groups are known"),
        (
            lambda run: changed(run, folds={**run.record["folds"], "groups": len(run.splits["train"].image_ids)}),
            "Every image is a patient of its own",
        ),
        (lambda run: run, "Random weights: alpha, beta never learnt"),
        (lambda run: scored(run, "oof", "roc_auc", "macro", 0.55, 0.49, 0.6), "may be no better than chance"),
        (lambda run: scored(run, "test", "roc_auc", "macro", 0.6, 0.5, 0.65), "Test and out-of-fold disagree"),
        (
            lambda run: scored(run, "oof", "calibration_slope", "epidural", 0.5, 0.3, 0.9),
            "too sure (calibration slope below 1): epidural (0.500 [0.300, 0.900])",
        ),
        (
            lambda run: scored(run, "oof", "calibration_slope", "epidural", 1.5, 1.2, 1.9),
            "too unsure (calibration slope above 1): epidural (1.500 [1.200, 1.900])",
        ),
        (
            lambda run: scored(run, "oof", "log_loss_skill", "epidural", -0.1, -0.2, 0.1),
            "above that of giving every image the share of positives: epidural",
        ),
        (lambda run: replace(run, splits={"train": run.splits["train"]}), "No labelled test images"),
        (lambda run: changed(run, warnings=["fold 1 lacks x"]), "fold 1 lacks x"),
        (
            lambda run: changed(run, splits={"train": {"rejected": [f"i{n}" for n in range(12)]}}),
            "12 images of train could not be read, so left out: i0, i1, i2, i3, i4, i5, i6, i7, i8, i9 and 2 more",
        ),
    ],
)
def test_each_doubt_is_said_where_it_holds(run, change, says):
    assert [doubt for doubt in list_doubts(change(run)) if says in doubt]


def test_labels_of_the_same_doubt_share_a_sentence(run):
    split = run.splits["train"]
    labels = np.zeros_like(split.labels)
    labels[:60, 0], labels[:7, 1], labels[:3, 2] = 1, 1, 1
    for label, auc in zip(run.label_names, (0.9, 0.8, 0.7), strict=True):
        run = scored(run, "oof", "roc_auc", label, auc, auc - 0.1, auc + 0.05)
    doubts = list_doubts(replace(run, splits={"train": replace(split, labels=labels)}))
    # Groups are not in the images' order, so that 60 positives may be of few; without groups it is their number alone.
    told = "intraparenchymal (7; AUC 0.800 [0.700, 0.850]), subarachnoid (3; AUC 0.700 [0.600, 0.750])"
    ungrouped = replace(split, labels=labels, groups=None)
    doubts = list_doubts(replace(run, splits={"train": ungrouped}))
    assert f"Few positives among the training images, so that figures are rough: {told}." in doubts
    groups = np.array([f"g{row // 10}" for row in range(len(labels))], object)
    doubts = list_doubts(replace(run, splits={"train": replace(ungrouped, groups=groups)}))
    all_three = f"epidural (60 in 6 groups; AUC 0.900 [0.800, 0.950]), {told.replace(';', ' in 1 groups;')}"
    assert f"Few positives among the training images, so that figures are rough: {all_three}." in doubts


def test_a_label_with_the_same_value_in_all_images_is_left_out_of_the_mean(run):
    test = run.splits["test"]
    labels = test.labels.copy()
    labels[:, 1] = 0
    doubts = list_doubts(replace(run, splits={**run.splits, "test": replace(test, labels=labels)}))
    assert [d for d in doubts if d.startswith("intraparenchymal: no AUC on the test images")]


def test_a_leak_comes_first(run, tmp_path):
    groups = np.array([run.splits["train"].groups[0], *["other"] * (len(run.splits["test"].image_ids) - 1)], object)
    leaky = replace(run, splits={**run.splits, "test": replace(run.splits["test"], groups=groups)})
    assert list_doubts(leaky)[0].startswith("1 group is in train and in test")
    folder = tmp_path / "run"
    folder.mkdir()
    pairs = {"exact": 3, "near": 4, "across_folds": 0, "labels_differ": 0}
    scopes = {"within train": pairs | {"across_folds": 5}, "between train and test": pairs, "within test": pairs}
    (folder / "audit.json").write_text(json.dumps(AUDIT | {"pairs": scopes}))
    doubts = list_doubts(replace(run, folder=folder))
    assert doubts[0].startswith("The audit found 5 pairs of duplicates that the folds split")
    assert doubts[0].endswith(f"classify run --groups {folder}/groups.csv")
    assert doubts[1].startswith("The audit found 7 pairs of duplicates between train and test")


def test_a_group_that_is_much_of_the_data_is_named(run):
    split = run.splits["train"]
    groups = split.groups.copy()
    groups[: len(groups) // 2] = "huge"
    doubts = list_doubts(replace(run, splits={**run.splits, "train": replace(split, groups=groups)}))
    told = f"One patient has {len(groups) // 2} of the {len(groups)} training images"
    assert [doubt for doubt in doubts if doubt.startswith(told) and doubt.endswith("huge.")]


def test_a_threshold_that_does_otherwise_when_cross_fitted_is_named(run):
    run.thresholds.loc["epidural", "sensitivity"] = 0.9
    run.thresholds.loc["epidural", "threshold"] = np.inf
    (doubt,) = [doubt for doubt in list_doubts(run) if doubt.startswith("Thresholds that depend on few images")]
    assert "epidural (sensitivity 0.900 cross-fitted, 0.000 at the run's threshold)" in doubt
