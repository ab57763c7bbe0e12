"""What the report says of duplicates and leaks: what an audit left in the run's folder, what `run --gap` measured."""

import math
import shlex
from typing import Any

from classify.report.numbers import DASH
from classify.report.run_files import AUDIT, RunFiles
from classify.run_folder import MARK
from features.errors import InputError

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
    record = run.record
    words = ["python", "-m", "features", "audit", record["cache"], "--data", record["data"], "--run", str(run.folder)]
    if run.audit is None:
        return {"command": shlex.join(words), "scopes": None}
    try:
        threshold = run.audit["threshold"]
        return {
            "scopes": [
                {
                    "name": name,
                    "exact": int(pairs["exact"]),
                    "near": int(pairs["near"]),
                    "across_folds": _across_folds(name, pairs["across_folds"]),
                    "labels_differ": int(pairs["labels_differ"]),
                }
                for name, pairs in run.audit["pairs"].items()
            ],
            "distance": None if threshold is None else float(threshold["distance"]),
            "both_sides": [str(name) for name in run.audit["groups"]["on_several_sides"]],
            "backbones": ", ".join(run.audit["backbones"]),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{run.folder / AUDIT} cannot be read ({error!r}). Make it again: {shlex.join(words)}"
        ) from None


def _across_folds(scope: str, count: int | None) -> str:
    """Say how many pairs lie across folds; a dash between and within other splits than train, which have no folds."""
    if scope != "within train":
        return DASH
    return "not known" if count is None else str(int(count))
