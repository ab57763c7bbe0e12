"""The models of a run: the leaderboard, the choice, the backbones, and how the heads learnt."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from classify.models.heads import HeadSpec
from classify.report import plotting
from classify.report.plotting import FIRST, SECOND, WIDE
from classify.report.run_files import RunFiles, ends_of
from classify.rundir.console import LEADERBOARD, TOP1, LeaderboardColumn, rank_models
from classify.scores.choice import describe_nested
from classify.scores.metrics import label_of, name_metric
from features.common.arrays import UNKNOWN, Labels
from features.common.text import count_things

#: Models in the figure at the most; the table holds all.
MODELS_SHOWN = 20
#: Heads whose curves are shown: the best.
_HEADS_SHOWN = 3
#: Members of a weighted mean with less are summed up.
_LEAST_SHARE = 0.01
#: Characters of a model's name beside its bar: more would take the bars' room. The page has the whole of it.
_MODEL = 40
#: Training minus validation AUC from which on a head counts as overfit.
GAP = 0.05
#: Training AUC below which a head counts as underfit.
LOW_AUC = 0.80
#: Share of the epochs allowed from which on a best epoch is one that more epochs might have bettered.
LATE = 0.98


def describe_models(run: RunFiles, figures: Path) -> dict[str, Any]:
    """Gather leaderboard, choice and backbones; the PNG files go to the folder `figures`."""
    measured = [split.measured for split in run.splits.values()]
    ranked = _rank(run)
    shown = ranked[:MODELS_SHOWN]
    columns = LEADERBOARD + (TOP1,) * run.exclusive
    names = {"oof": "out-of-fold", "test": "test"}
    scores = {names[m]: np.array([run.score(model, m) for model in shown]) for m in measured}
    first = f"Best: {shown[0]}, {plotting.with_interval(run.score(shown[0]))} out-of-fold."
    of_all = "" if len(shown) == len(ranked) else f" The {len(shown)} best of {len(ranked)}."
    return {
        "columns": columns,
        "rows": [_describe_model(run, model, measured, columns) for model in ranked],
        "measured": measured,
        "picture": plotting.to_picture(
            draw_models(shown, scores),
            "models",
            f"Macro ROC-AUC of {count_things(len(shown), 'model')} with 95 % intervals. {first}",
            f"Macro ROC-AUC of every model, with its 95 % interval.{of_all}",
            figures,
        ),
        "chosen": _describe_choice(run, ranked),
        "metric": name_metric(run.leaderboard["metric"].iloc[0]),
        "returns": _describe_returns(run, figures),
    }


def _rank(run: RunFiles) -> list[str]:
    """Order the models as the leaderboard does."""
    return rank_models({model: run.score(model)[0] for model in run.record["models"]})


def kind_of(entry: dict[str, Any]) -> str:
    """Tell what a model of `run.json` is: head, ensemble, calibration or baseline."""
    if entry.get("spec"):
        return "head"
    if entry["members"]:
        return "calibration" if len(entry["members"]) == 1 else "ensemble"
    return "baseline"


def _describe_model(
    run: RunFiles, model: str, measured: list[str], shown: Sequence[LeaderboardColumn]
) -> dict[str, Any]:
    """Make one row of the leaderboard."""
    entry = run.record["models"][model]
    compared = run.leaderboard.loc[model] if model in run.leaderboard.index else None  # a calibration is not chosen
    columns = ["difference", "difference_low", "difference_high"]
    return {
        "name": model,
        "beside": None if compared is None else tuple(compared[columns].astype(float)),
        "tied": compared is not None and bool(compared["tied"]),
        "final": model == run.final_model,
        "kind": kind_of(entry),
        "backbones": ", ".join(entry["backbones"]) or "none",
        "backbone_count": len(entry["backbones"]),
        "aucs": [run.score(model, m) for m in measured],
        "values": [run.score(model, label=label_of(column.metric), metric=column.metric) for column in shown],
        "labels": [run.score(model, label=label) for label in run.label_names],
        "seconds": float(entry["fit_seconds"]),
        "converged": bool(entry["converged"]),
    }


def _describe_choice(run: RunFiles, ranked: list[str]) -> dict[str, Any]:
    """Say what the final model is made of, how good it is, and which is the best of the others."""
    final, entry = run.final_model, run.record["models"][run.final_model]
    others = [model for model in ranked if model != final and final.split("+")[0] != model]
    shares = sorted(entry["shares"].items(), key=lambda item: -item[1])
    shown = [item for item in shares if item[1] >= _LEAST_SHARE]
    nested = run.record["selection"]["nested"]
    equal = len(shares) > 1 and math.isclose(shares[0][1], shares[-1][1], rel_tol=1e-6)
    return {
        "kind": kind_of(entry),
        "members": entry["members"],
        "equal": [name for name, _ in shares] if equal else [],
        "shares": shown,
        "rest": len(shares) - len(shown),
        "rest_share": sum(share for _, share in shares[len(shown) :]),
        "score": plotting.with_interval(run.score(final)),
        "tied": int(run.leaderboard["tied"].sum()),
        "nested": nested and plotting.with_interval(ends_of(nested)),
        "how_nested": nested and describe_nested(nested),
        "permutations": run.record["selection"]["permutations"],
        "runner_up": others[0] if others else None,
        "runner_up_score": plotting.with_interval(run.score(others[0])) if others else "",
    }


def _describe_returns(run: RunFiles, figures: Path) -> dict[str, Any] | None:
    """Show what each backbone adds; None of a run on one."""
    table = run.backbones
    if table.empty:
        return None
    steps = ", ".join(f"{row.backbone} {plotting.short(row.macro_auc)} ({row.gain:+.3f})" for row in table.itertuples())
    return {
        "rows": table.to_dict("records"),
        "picture": plotting.to_picture(
            draw_returns(table),
            "backbones",
            f"Macro ROC-AUC as backbones are added one by one: {steps}.",
            "What each backbone adds to the mean over those above it; line: 95 % interval of the gain.",
            figures,
        ),
    }


def describe_heads(run: RunFiles, figures: Path) -> list[dict[str, Any]]:
    """Show the curves of the best heads and say how they fit; empty of a run without heads."""
    if run.curves.empty:
        return []
    of_heads = dict(iter(run.curves.groupby("model")))
    heads = [model for model in _rank(run) if kind_of(run.record["models"][model]) == "head"]
    shown = [model for model in heads if model in of_heads][:_HEADS_SHOWN]
    sections = []
    for index, model in enumerate(shown):
        curves, entry = of_heads[model], run.record["models"][model]
        kept = kept_epochs(curves, entry["best_epochs"])
        verdict = judge_fit(curves, kept, int(entry["spec"]["epochs"]))
        pictures = [
            plotting.to_picture(
                draw_curves(curves, kind, name, kept),
                f"curves_{plotting.file_stem(index, model)}_{kind}",
                f"{name} of {model} by epoch, training and validation. {verdict.sentence}",
                f"{name} by epoch; thin lines: the fits of single folds; thick: their mean while all go on.",
                figures,
            )
            for kind, name in (("loss", "loss"), ("auc", "ROC-AUC"), ("accuracy", "accuracy"))
            if kind in curves and curves[[kind, f"validation_{kind}"]].notna().any(axis=None)
        ]
        spec = HeadSpec(**{**entry["spec"], "hidden_units": tuple(entry["spec"]["hidden_units"])})
        width = sum(run.record["backbones"][name]["width"] for name in entry["backbones"])
        sections.append(
            {
                "name": model,
                "spec": entry["spec"],
                "layers": spec.layers(width, len(run.label_names)),
                "width": width,
                "verdict": verdict,
                "accuracies": mean_accuracies(curves, kept),
                "of_classes": spec.output == "softmax",
                "pictures": pictures,
            }
        )
    return sections


def mean_accuracies(curves: pd.DataFrame, kept: Mapping[int, int]) -> tuple[float, float] | None:
    """Give the accuracy in training and in validation at the epochs kept, the mean over the fits; None without.

    Args:
        curves: rows of one head in `curves.csv`; those of older runs have no accuracy.
        kept: of `kept_epochs`.
    """
    at_kept = curves[curves["epoch"] == curves["fold"].map(kept)]
    if "accuracy" not in curves or at_kept.empty:
        return None
    training, validation = at_kept[["accuracy", "validation_accuracy"]].mean()
    return float(training), float(validation)


def accuracy_without_model(labels: Labels, of_classes: bool) -> float:
    """The accuracy of giving no image any label, a share of the known ones of uint8 (N, L).

    Of classes, of which each image has one, that of giving every image the most frequent one.
    """
    if of_classes:
        return float((labels == 1).mean(axis=0).max())
    return float((labels == 0).sum() / (labels != UNKNOWN).sum())


def kept_epochs(curves: pd.DataFrame, best_epochs: Sequence[int]) -> dict[int, int]:
    """Give the epoch, from 1, that a head was kept at, by fold; without the fits that have none, which is written as 0.

    The head on all rows, whose epoch comes last, has no curves.
    """
    epochs = set(curves["epoch"])
    return {fold: best for fold, best in zip(sorted(set(curves["fold"])), best_epochs, strict=False) if best in epochs}


class FitVerdict(NamedTuple):
    """What the curves of a head say: `overfit`, `underfit`, `well fit` or `not judged`; and why, with the figures."""

    word: str
    sentence: str


def judge_fit(curves: pd.DataFrame, kept: Mapping[int, int], epochs: int) -> FitVerdict:
    """Judge the epochs that a head was kept at, as the mean over its fits.

    Args:
        curves: rows of one head in `curves.csv`: `fold`, `epoch`, `auc`, `validation_auc`.
        kept: of `kept_epochs`.
        epochs: how many the head was allowed.
    """
    at_kept = curves[curves["epoch"] == curves["fold"].map(kept)]
    known = at_kept[["auc", "validation_auc"]].dropna()
    if known.empty:
        return FitVerdict("not judged", "No epoch has an AUC on both sides, so nothing can be said.")
    a, b = known.mean()
    figures = f"At the epochs kept the AUC is {a:.3f} on the images learnt from and {b:.3f} on those that stop it"
    fits, late = curves["fold"].nunique(), sum(epoch >= LATE * epochs for epoch in kept.values())
    unfinished = f"{late} of {fits} fits were best at the very end of the {epochs} epochs allowed"
    if a - b > GAP:
        more = f" Yet {unfinished}: it has not settled." if 2 * late > fits else ""
        return FitVerdict(
            "overfit",
            f"{figures}: a gap of {a - b:.3f}, above {GAP:.2f}. Stronger L2, more dropout or more images may help."
            f"{more}",
        )
    if a < LOW_AUC:
        return FitVerdict(
            "underfit",
            f"{figures}: below {LOW_AUC:.2f} even where it learnt. A wider head, less L2 or dropout, or other features "
            "may help.",
        )
    if 2 * late > fits:
        return FitVerdict("underfit", f"{figures}; {unfinished}. More epochs, or a higher learning rate, may help.")
    return FitVerdict("well fit", f"{figures}: high, and no more than {GAP:.2f} apart.")


def draw_models(names: Sequence[str], scores: Mapping[str, np.ndarray]) -> Figure:
    """Draw one figure of merit per model, with its interval.

    Args:
        names: M models, best first.
        scores: by what they were measured on, float64 array (M, 3): value, low, high; NaN where there is none.
    """
    figure, axes = plotting.new_figure(WIDE, 0.9 + 0.26 * len(names))
    places = np.arange(len(names))
    for index, ((measured, values), colour) in enumerate(zip(scores.items(), (FIRST, SECOND), strict=False)):
        y = places + (index - (len(scores) - 1) / 2) * 0.3
        axes.hlines(y, values[:, 1], values[:, 2], color=colour, linewidth=1.4)
        axes.plot(values[:, 0], y, "o", color=colour, markersize=5, label=measured)
    axes.set_yticks(places, [plotting.shorten(name, _MODEL) for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="macro ROC-AUC")
    plotting.end_at_one(axes, x=True)
    plotting.add_legend(figure)
    return figure


def draw_returns(table: pd.DataFrame) -> Figure:
    """Draw what each backbone of `backbones.csv` adds to the mean over those before it, with its interval."""
    figure, axes = plotting.new_figure(WIDE, 0.9 + 0.3 * len(table))
    places = np.arange(len(table))
    before = (table["macro_auc"] - table["gain"]).to_numpy()
    axes.hlines(places, before + table["low"], before + table["high"], color=FIRST, linewidth=1.4)
    axes.plot(table["macro_auc"], places, "o", color=FIRST, markersize=5)
    axes.set_yticks(
        places,
        [f"{'+ ' if place else ''}{plotting.shorten(name, _MODEL)}" for place, name in enumerate(table["backbone"])],
    )
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set(xlabel="macro ROC-AUC of the mean over the backbones so far")
    plotting.end_at_one(axes, x=True)
    return figure


def draw_curves(curves: pd.DataFrame, kind: str, name: str, kept: Mapping[int, int]) -> Figure:
    """Draw a head's training and validation curves: thin lines per fit, thick ones for their mean while all go on.

    Args:
        curves: rows of one head in `curves.csv`.
        kind: `loss`, `auc` or `accuracy`.
        name: what the axis is called.
        kept: of `kept_epochs`; each is a dot on the curve of its validation.
    """
    figure, axes = plotting.new_figure()
    for column, colour, label in ((kind, FIRST, "training"), (f"validation_{kind}", SECOND, "validation")):
        table = curves.pivot_table(index="epoch", columns="fold", values=column, dropna=False)
        axes.plot(table.index, table.to_numpy(), color=colour, linewidth=0.6, alpha=0.35)
        # Fits end at different epochs; beyond the first end the mean would jump.
        common = table.dropna(axis=1, how="all").dropna()
        axes.plot(common.index, common.mean(axis=1), color=colour, label=label)
    dots = [(epoch, table.loc[epoch, fold]) for fold, epoch in kept.items()]  # of the validation, drawn last
    if dots:
        axes.plot(*zip(*dots, strict=True), "o", color=SECOND, markersize=4, label="epochs kept")
    axes.set(xlabel="epoch", ylabel=name)
    if kind == "auc":
        plotting.end_at_one(axes)
    plotting.add_legend(figure)
    return figure
