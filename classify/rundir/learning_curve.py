"""learning_curve.csv, which `classify learn` adds to a run: written, read, and said in words."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from classify.rundir.folder import LEARNING_CURVE
from classify.scores.learning import REACH, CurvePoint, LearningCurve
from features.common.commands import write_command
from features.common.errors import InputError, cause_of
from features.common.files import replacing

_COLUMNS = ("model", "kind", "groups", "value", "low", "high")
_KINDS = ("measured", "law", "rise", "gain")


def write_learning_curve(folder: Path, model: str, curve: LearningCurve) -> None:
    """Write `model`, `kind`, `groups`, `value`, `low`, `high`; an earlier file is replaced."""
    of_kinds: Mapping[str, tuple[CurvePoint, ...]] = {
        "measured": curve.measured,
        "law": curve.law,
        "rise": (curve.rise,),
        "gain": (curve.gain,),
    }
    rows = [(model, kind, *point) for kind, points in of_kinds.items() for point in points]
    with replacing(folder / LEARNING_CURVE) as temporary:
        pd.DataFrame(rows, columns=list(_COLUMNS)).to_csv(temporary, index=False, lineterminator="\n")


def read_learning_curve(folder: Path) -> tuple[str, LearningCurve] | None:
    """Read what `write_learning_curve` wrote: the model and its curve; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / LEARNING_CURVE
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path, dtype={"model": "object", "kind": "object"}, keep_default_na=False, na_values=[""])
        points = {
            kind: tuple(
                CurvePoint(row.groups, row.value, *(None if pd.isna(end) else end for end in (row.low, row.high)))
                for row in own.astype(dict.fromkeys(_COLUMNS[2:], "float64")).itertuples()
            )
            for kind, own in table.groupby("kind")
        }
        ((rise,), (gain,)) = points["rise"], points["gain"]
        return str(table["model"].iloc[0]), LearningCurve(points["measured"], points["law"], rise, gain)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {cause_of(error)}") from None
    except (ValueError, KeyError, AttributeError, IndexError) as error:
        remedy = write_command("classify learn", folder)
        raise InputError(f"{path} cannot be read ({error}). Make it again: {remedy}") from None


def describe_curve(curve: LearningCurve, unit: str) -> list[str]:
    """Say in sentences what more groups, called `unit` in the singular, would bring."""
    most, rise, gain = curve.measured[-1], curve.rise, curve.gain
    said = [
        f"From half of the {unit}s to all ({most.groups:.0f} that a fold's model learns from) the macro AUC rises by "
        f"{_signed(rise)}."
    ]
    if rise.low is not None and rise.low <= 0:
        said.append("That may be chance.")
    if curve.says_nothing:
        law = f"the power law gives {_signed(gain)}, but beside an error of {1 - most.value:.3f} the band of"
        doubtful = f"{law} {'that rise' if curve.doubts_rise else 'its gain'} is too wide to go by it"
        said.append(f"What {REACH:g} times as many {unit}s would bring cannot be told: {doubtful}.")
    else:
        said.append(f"By the power law, {REACH:g} times as many {unit}s would bring {_signed(gain)}.")
    return said


def _signed(point: CurvePoint) -> str:
    """Write a difference with its interval."""
    interval = "" if point.low is None or point.high is None else f" [{point.low:+.3f}, {point.high:+.3f}]"
    return f"{point.value:+.3f}{interval}"
