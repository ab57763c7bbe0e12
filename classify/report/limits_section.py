"""What the report says of a run's limits: what to distrust, what was measured how, and what made it."""

from typing import Any

from classify.command_lines import command_line
from classify.metrics import MACRO
from classify.report.numbers import with_interval
from classify.report.run_files import RunFiles

#: Positives of a label below which its figures are called rough.
FEW_POSITIVES = 50
#: Expected calibration error from which on probabilities are no frequencies.
POOR_CALIBRATION = 0.1
_IDS_SHOWN = 10


def list_doubts(run: RunFiles) -> list[str]:
    """List what a reader has to know before believing the figures, the gravest first; sentences."""
    record, final = run.record, run.final_model
    doubts = []
    if record["folds"]["groups"] is None:
        doubts.append(
            "No groups are known: slices of one patient may be both learnt from and tested on, which can make every "
            "figure far too good. Name the patients (--group-column)."
        )
    elif record["folds"]["groups"] == len(run.splits["train"].image_ids):
        doubts.append(
            "Every image is a group of its own, so the folds keep nothing together: slices of one patient may be both "
            "learnt from and tested on, which can make every figure far too good."
        )
    random = [name for name, b in record["backbones"].items() if b.get("recipe", {}).get("weights") == "random"]
    if random:
        doubts.append(f"Random weights: {', '.join(random)} never learnt from any image.")
    value, low, high = run.score(final, "oof", MACRO, "roc_auc")
    if low <= 0.5 <= high:
        doubts.append(
            f"The final model may be no better than chance: its macro AUC is {with_interval((value, low, high))}."
        )
    doubts += _doubt_labels(run)
    tested = run.score(final, "test", MACRO, "roc_auc")
    if tested[2] < low or tested[1] > high:
        doubts.append(
            f"Test and out-of-fold disagree: the macro AUC is {with_interval(tested)} on test, and "
            f"{with_interval((value, low, high))} out-of-fold. Are these images of the same kind?"
        )
    if "test" not in run.splits:
        doubts.append("No labelled test images: every figure is from the training images, out-of-fold.")
    if len(record["models"]) > 1 and record["selection"]["rule"] not in record["models"]:
        doubts.append(
            f"The final model is the best of {len(record['models'])} on the very images that its figures are of, so "
            "they flatter it a little."
        )
    for name, split in record["splits"].items():
        if split["rejected"]:
            more = f" and {len(split['rejected']) - _IDS_SHOWN} more" if len(split["rejected"]) > _IDS_SHOWN else ""
            ids = ", ".join(split["rejected"][:_IDS_SHOWN])
            doubts.append(f"{len(split['rejected'])} images of {name} could not be read and take no part: {ids}{more}.")
    return doubts + [warning for warning in record["warnings"] if warning not in doubts]


def _doubt_labels(run: RunFiles) -> list[str]:
    """List what is doubtful of single labels, a sentence for all labels of which it is."""
    positives = dict(zip(run.label_names, run.splits["train"].labels.sum(axis=0).tolist(), strict=True))
    errors = {name: run.score(run.final_model, "oof", name, "calibration_error")[0] for name in run.label_names}
    rough = [
        f"{name} ({count}; AUC {with_interval(run.score(run.final_model, 'oof', name, 'roc_auc'))})"
        for name, count in positives.items()
        if count < FEW_POSITIVES
    ]
    poor = [f"{name} ({error:.3f})" for name, error in errors.items() if error > POOR_CALIBRATION]
    doubts = []
    if rough:
        doubts.append(f"Few positives to learn from, so that figures are rough: {', '.join(rough)}.")
    if poor:
        doubts.append(
            f"Probabilities that are no frequencies (calibration error): {', '.join(poor)}. --calibration may help."
        )
    return doubts


def describe_limits(run: RunFiles) -> dict[str, Any]:
    """Gather what made the run, for the section at the page's end."""
    record = run.record
    return {
        "command": command_line("classify run", run.folder, record),
        "versions": record["versions"],
        "backbones": {name: {"recipe": None} | backbone for name, backbone in record["backbones"].items()},
        "fingerprints": {name: split["fingerprints"] for name, split in record["splits"].items()},
        "folds": record["folds"],
        "intervals": record["intervals"],
        "undefined": record["undefined_metrics"],
        "incomplete": record["incomplete_intervals"],
        "seconds": record["seconds"],
        "arguments": record["arguments"],
        "not_converged": [name for name, entry in record["models"].items() if not entry["converged"]],
    }
