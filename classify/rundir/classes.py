"""The classes of a run on exclusive classes: `predictions_class.csv`, and what the console says of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from classify.rundir.folder import CLASSES, CONFUSION_MATRIX
from classify.rundir.tables import write_table
from classify.scores.tables.classes import ConfusionFigure, pick_classes
from features.common.arrays import Probabilities
from features.common.files import replacing
from features.common.text import count_things

#: Classes up to which the console shows the whole confusion matrix; of more it shows the most frequent confusions.
_MATRIX, _CONFUSIONS = 8, 8


def write_classes(
    folder: Path,
    image_ids: Sequence[str],
    used_ids: Sequence[str],
    probabilities: Probabilities,
    label_names: Sequence[str],
) -> None:
    """Write `ID`, `class`, `probability`: one row per image; arguments as those of `write_predictions`.

    The probability is the one that stands in `predictions_probability.csv`, with the same digits. Cells of images
    without features are empty.
    """
    picked = pick_classes(probabilities)
    known = pd.DataFrame(
        {
            "class": np.array(label_names, dtype=object)[picked],
            "probability": probabilities[np.arange(len(picked)), picked],
        },
        index=list(used_ids),
    )
    with replacing(folder / CLASSES) as temporary:
        write_table(known.reindex(list(image_ids)).rename_axis("ID").reset_index(), temporary)


def print_confusions(console: Console, figures: Sequence[ConfusionFigure]) -> None:
    """Show the confusion matrix of each split, or of many classes the most frequent confusions."""
    for split in dict.fromkeys(figure.split for figure in figures):
        own = [figure for figure in figures if figure.split == split]
        where = "out-of-fold" if split == "oof" else "on test"
        names = list(dict.fromkeys(figure.truth for figure in own))
        if len(names) <= _MATRIX:
            console.print(f"classes {where}: a row per class, a column per class that its images are taken for:")
            console.print(_tabulate_matrix(names, own))
            continue
        wrong = [figure for figure in own if figure.truth != figure.predicted and figure.images]
        worst = sorted(wrong, key=lambda figure: -figure.images)[:_CONFUSIONS]
        console.print(f"classes {where}, the most frequent of {len(wrong)} confusions ({CONFUSION_MATRIX} has all):")
        for f in worst:
            images = count_things(f.images, "image")
            console.print(Text(f"  {f.truth} taken for {f.predicted}: {images}, {f.share:.1%} of {f.truth}"))


def _tabulate_matrix(names: Sequence[str], figures: Sequence[ConfusionFigure]) -> Table:
    """A row per class: how many of its images are taken for which, and its recall and precision."""
    counts = np.array([figure.images for figure in figures]).reshape(len(names), len(names))
    table = Table(box=None, header_style="bold", padding=(0, 1), pad_edge=False, collapse_padding=True)
    table.add_column("class", overflow="fold")
    for heading in (*names, "recall", "precision"):
        table.add_column(Text(heading), justify="right", overflow="fold")
    for row, name in enumerate(names):
        shares = (counts[row, row] / total if total else None for total in (counts[row].sum(), counts[:, row].sum()))
        cells = (*map(str, counts[row]), *("-" if share is None else f"{share:.3f}" for share in shares))
        table.add_row(Text(name), *cells)
    return table
