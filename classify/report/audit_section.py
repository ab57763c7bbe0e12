"""What the report says of duplicates and leaks: what an audit left in the run's folder, what `run --gap` measured."""

import json
import math
from typing import Any

from classify.options import command_line
from classify.report.numbers import DASH
from classify.report.run_files import RunFiles
from classify.rundir.folder import MARK
from features.common.errors import InputError

#: What the audit of the features leaves in a run's folder, where somebody asked it to.
AUDIT = "audit.json"
#: How the audit calls the pairs of two training images.
WITHIN_TRAIN = "within train"
_ENDS = ("value", "low", "high")


def describe_gap(run: RunFiles) -> dict[str, Any] | None:
    """Say what folds that cut groups would have made of the scores; None where the run was not asked for it.

    Raises:
        InputError: the record is damaged.
    """
    gap = run.record.get("gap")
    if gap is None:
        return None
    try:
        figures = {
            name: tuple(math.nan if gap[name][end] is None else float(gap[name][end]) for end in _ENDS)
            for name in ("random", "grouped", "gap")
        }
        return {"model": str(gap["model"]), **figures}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{run.folder / MARK} cannot be read ({error!r}). Make the run again.") from None


def describe_audit(run: RunFiles) -> dict[str, Any]:
    """Gather the part; only the command that makes one where nobody audited the features into this folder.

    Raises:
        InputError: `audit.json` is damaged.
    """
    command, path = command_line("features audit", run.folder, run.record), run.folder / AUDIT
    if not path.is_file():
        return {"command": command, "scopes": None}
    try:
        audit = json.loads(path.read_text(encoding="utf-8"))
        threshold = audit["threshold"]
        return {
            "scopes": [
                {
                    "name": name,
                    "exact": int(pairs["exact"]),
                    "near": int(pairs["near"]),
                    "across_folds": _across_folds(name, pairs["across_folds"]),
                    "labels_differ": int(pairs["labels_differ"]),
                }
                for name, pairs in audit["pairs"].items()
            ],
            "distance": None if threshold is None else float(threshold["distance"]),
            "both_sides": [str(name) for name in audit["groups"]["on_several_sides"]],
            "backbones": ", ".join(audit["backbones"]),
        }
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({error!r}). Make it again: {command}") from None


def _across_folds(scope: str, count: int | None) -> str:
    """Write how many pairs are across folds, which only training images have."""
    if scope != WITHIN_TRAIN:
        return DASH
    return "not known" if count is None else str(int(count))
