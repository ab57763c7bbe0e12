"""The learning curve of a run, where `classify learn` made one."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from classify.report import plotting
from classify.report.plotting import FIRST, SECOND, WIDE
from classify.report.run_files import RunFiles
from classify.rundir.learning_curve import describe_curve, read_learning_curve
from classify.scores.learning import LearningCurve


def describe_learning(run: RunFiles, figures: Path) -> dict[str, Any] | None:
    """Gather the section; None where there is no curve. The PNG file goes to the folder `figures`.

    Raises:
        InputError: the curve's file is damaged.
    """
    found = read_learning_curve(run.folder)
    if found is None:
        return None
    model, curve = found
    unit = "image" if run.record["folds"]["groups"] is None else run.group
    said = describe_curve(curve, unit)
    steps = ", ".join(f"{point.groups:.0f}: {plotting.with_interval(point[1:])}" for point in curve.measured)
    picture = plotting.to_picture(
        draw_curve(curve, unit),
        "learning_curve",
        f"Macro ROC-AUC by the {unit}s that models learnt from. {steps}.",
        f"What {model} scores by the {unit}s that it learnt from; line and band: the power law, dashed beyond them.",
        figures,
    )
    return {"model": model, "said": said, "picture": picture}


def draw_curve(curve: LearningCurve, unit: str) -> Figure:
    """Draw the measured scores with their intervals, and the power law with its band, dashed beyond the data."""
    figure, axes = plotting.new_figure(WIDE)
    law, measured = (np.array(points, float) for points in (curve.law, curve.measured))
    axes.fill_between(law[:, 0], law[:, 2], law[:, 3], color=FIRST, alpha=0.15, linewidth=0)
    within = law[:, 0] <= measured[-1, 0]
    axes.plot(law[within, 0], law[within, 1], color=FIRST, label="power law")
    axes.plot(law[~within, 0], law[~within, 1], color=FIRST, linestyle="--")
    axes.vlines(measured[:, 0], measured[:, 2], measured[:, 3], color=SECOND, linewidth=1.4)
    axes.plot(measured[:, 0], measured[:, 1], "o", color=SECOND, markersize=5, label="measured")
    axes.set(xlabel=f"{unit}s that a fold's model learns from", ylabel="macro ROC-AUC, out-of-fold")
    plotting.end_at_one(axes)
    plotting.add_legend(figure)
    return figure
