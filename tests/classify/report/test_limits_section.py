"""The page says what to distrust, and nothing that is not so."""

from dataclasses import replace

import numpy as np
import pytest

from classify.report.limits_section import list_doubts
from classify.report.run_files import RunFiles


@pytest.fixture
def run(plain_run) -> RunFiles:
    return RunFiles.read(plain_run)


def changed(run: RunFiles, **values) -> RunFiles:
    return replace(run, record={**run.record, **values})


def scored(run, split, metric, label, *score):
    return replace(run, scores={**run.scores, (run.final_model, split, label, metric): score})


def test_a_run_with_nothing_wrong_has_only_the_doubts_that_always_hold(run):
    quiet = scored(changed(run, warnings=[]), "oof", "roc_auc", "macro", 0.9, 0.85, 0.95)
    quiet = scored(quiet, "test", "roc_auc", "macro", 0.88, 0.8, 0.96)
    for label in run.label_names:
        quiet = scored(quiet, "oof", "calibration_error", label, 0.02, 0.01, 0.03)
    quiet.record["backbones"] = {}
    many = {
        **quiet.splits,
        "train": replace(quiet.splits["train"], labels=np.tile(quiet.splits["train"].labels, (9, 1))),
    }
    doubts = list_doubts(replace(quiet, splits=many))
    assert len(doubts) == 1
    assert doubts[-1].startswith(f"The final model is the best of {len(run.record['models'])} on the very images")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda run: changed(run, folds={**run.record["folds"], "groups": None}), "No groups are known"),
        (
            lambda run: changed(run, folds={**run.record["folds"], "groups": len(run.splits["train"].image_ids)}),
            "Every image is a group of its own",
        ),
        (lambda run: run, "Random weights: alpha, beta never learnt"),
        (lambda run: scored(run, "oof", "roc_auc", "macro", 0.55, 0.49, 0.6), "may be no better than chance"),
        (lambda run: scored(run, "test", "roc_auc", "macro", 0.6, 0.5, 0.65), "Test and out-of-fold disagree"),
        (
            lambda run: scored(run, "oof", "calibration_error", "epidural", 0.2, 0.1, 0.3),
            "no frequencies (calibration error): epidural (0.200)",
        ),
        (lambda run: replace(run, splits={"train": run.splits["train"]}), "No labelled test images"),
        (lambda run: changed(run, warnings=["fold 1 lacks x"]), "fold 1 lacks x"),
        (
            lambda run: changed(run, splits={"train": {"rejected": [f"i{n}" for n in range(12)]}}),
            "12 images of train could not be read and take no part: i0, i1, i2, i3, i4, i5, i6, i7, i8, i9 and 2 more",
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
    told = "intraparenchymal (7; AUC 0.800 [0.700, 0.850]), subarachnoid (3; AUC 0.700 [0.600, 0.750])"
    assert f"Few positives to learn from, so that figures are rough: {told}." in doubts
