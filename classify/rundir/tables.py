"""Write predictions as the two tables that a challenge asks for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from classify.scores.thresholds import to_binary

PROBABILITIES, DECISIONS = "predictions_probability.csv", "predictions_binary.csv"


def write_predictions(
    folder: Path,
    image_ids: Sequence[str],
    used_ids: Sequence[str],
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    label_names: Sequence[str],
) -> None:
    """Write both tables: `ID` and the labels, one row per image, empty cells for the images without features.

    Probabilities are written with the digits that give back the same float32.

    Args:
        folder: where to.
        image_ids: N images, in the order of the rows.
        used_ids: the M of them that have features.
        probabilities: float32 array (M, L), 0-1.
        thresholds: float64 array (L,): positive from there on.
        label_names: the L labels.

    Raises:
        OSError: the folder cannot be written to.
    """
    for name, values in ((PROBABILITIES, probabilities), (DECISIONS, to_binary(probabilities, thresholds))):
        known = pd.DataFrame(values, columns=list(label_names), index=list(used_ids))
        if values.dtype == np.uint8:
            known = known.astype("UInt8")  # pandas' own integers may be missing
        write_table(known.reindex(list(image_ids)).rename_axis("ID").reset_index(), folder / name)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as UTF-8 CSV with the same bytes on every system."""
    table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")
