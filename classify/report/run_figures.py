"""Draw what concerns a whole run: its labels, its models, its backbones, and how its heads learnt."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from classify.report.numbers import shorten
from classify.report.plotting import FIRST, GRID, INK, SECOND, WIDE, add_legend, new_figure

#: Models in the figure at the most; the table holds all.
MODELS_SHOWN = 20
#: Characters of a name beside its bar, in a figure of one column and of two: more would take the bars' room. The page
#: has the whole of it.
_LABEL, _MODEL = 20, 40


def _height(labels: Sequence[str]) -> float:
    """Give the inches that bars of all labels take."""
    return 1.1 + 0.52 * len(labels)


def draw_prevalence(labels: Sequence[str], shares: Mapping[str, np.ndarray]) -> Figure:
    """Draw the share of positives per label as bars, one per split.

    Args:
        labels: the L labels.
        shares: by split, float64 array (L,), 0-1.
    """
    figure, axes = new_figure(height=_height(labels))
    thickness = 0.8 / len(shares)
    places = np.arange(len(labels))
    for index, ((split, values), colour) in enumerate(zip(shares.items(), (FIRST, SECOND), strict=False)):
        bars = axes.barh(places + (index - (len(shares) - 1) / 2) * thickness, 100 * values, thickness * 0.9,
                         color=colour, label=split)  # fmt: skip
        axes.bar_label(bars, [f"{100 * value:.1f}" for value in values], padding=3, fontsize=8, color=INK)
    axes.set_yticks(places, [shorten(label, _LABEL) for label in labels])
    axes.invert_yaxis()
    axes.set(xlabel="positive, % of the images", xlim=(0, 112 * max(values.max() for values in shares.values())))
    axes.grid(visible=False, axis="y")
    if len(shares) > 1:
        add_legend(figure)
    return figure


def draw_folds(labels: Sequence[str], shares: np.ndarray, overall: np.ndarray) -> Figure:
    """Draw each fold's share of positives as dots beside the share over all.

    Args:
        labels: the L labels.
        shares: float64 array (F, L), 0-1: of each fold.
        overall: float64 array (L,), 0-1.
    """
    figure, axes = new_figure(height=_height(labels))
    places = np.arange(len(labels))
    axes.barh(places, 100 * overall, 0.62, color=GRID)
    for fold in shares:
        axes.plot(100 * fold, places, "o", color=FIRST, markersize=5, alpha=0.75)
    axes.set_yticks(places, [shorten(label, _LABEL) for label in labels])
    axes.invert_yaxis()
    axes.set(xlabel="positive, % of the images", xlim=(0, 112 * max(shares.max(), overall.max())))
    axes.grid(visible=False, axis="y")
    return figure


def draw_models(names: Sequence[str], scores: Mapping[str, np.ndarray]) -> Figure:
    """Draw one figure of merit per model, with its interval.

    Args:
        names: M models, best first.
        scores: by what they were measured on, float64 array (M, 3): value, low, high; NaN where there is none.
    """
    figure, axes = new_figure(WIDE, 0.9 + 0.26 * len(names))
    places = np.arange(len(names))
    for index, ((measured, values), colour) in enumerate(zip(scores.items(), (FIRST, SECOND), strict=False)):
        y = places + (index - (len(scores) - 1) / 2) * 0.3
        axes.hlines(y, values[:, 1], values[:, 2], color=colour, linewidth=1.4)
        axes.plot(values[:, 0], y, "o", color=colour, markersize=5, label=measured)
    axes.set_yticks(places, [shorten(name, _MODEL) for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="macro ROC-AUC")
    add_legend(figure)
    return figure


def draw_returns(table: pd.DataFrame) -> Figure:
    """Draw what each backbone adds to the mean over those before it, with its interval.

    Args:
        table: `backbones.csv`.
    """
    figure, axes = new_figure(WIDE, 0.9 + 0.3 * len(table))
    places = np.arange(len(table))
    before = (table["macro_auc"] - table["gain"]).to_numpy()
    axes.hlines(places, before + table["low"], before + table["high"], color=FIRST, linewidth=1.4)
    axes.plot(table["macro_auc"], places, "o", color=FIRST, markersize=5)
    axes.set_yticks(
        places, [f"{'+ ' if place else ''}{shorten(name, _MODEL)}" for place, name in enumerate(table["backbone"])]
    )
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set(xlabel="macro ROC-AUC of the mean over the backbones so far")
    return figure


def draw_curves(curves: pd.DataFrame, kind: str, name: str, kept: Mapping[int, int]) -> Figure:
    """Draw a head's training and validation curves: thin lines per fit, thick ones for their mean while all go on.

    Args:
        curves: rows of one head in `curves.csv`.
        kind: `loss` or `auc`.
        name: what the axis is called.
        kept: by fold, the epoch that its fit was kept at; each is a dot on the curve of its validation.
    """
    figure, axes = new_figure()
    for column, colour, label in ((kind, FIRST, "training"), (f"validation_{kind}", SECOND, "validation")):
        table = curves.pivot_table(index="epoch", columns="fold", values=column)
        axes.plot(table.index, table.to_numpy(), color=colour, linewidth=0.6, alpha=0.35)
        # Fits end at different epochs; beyond the first end the mean would jump.
        common = table.dropna()
        axes.plot(common.index, common.mean(axis=1), color=colour, label=label)
    dots = [(epoch, table.loc[epoch, fold]) for fold, epoch in kept.items()]  # of the validation, drawn last
    if dots:
        axes.plot(*zip(*dots, strict=True), "o", color=SECOND, markersize=4, label="epochs kept")
    axes.set(xlabel="epoch", ylabel=name)
    add_legend(figure)
    return figure
