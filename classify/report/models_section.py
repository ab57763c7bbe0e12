"""What the report says of the models: the leaderboard, the choice, the backbones, and how the heads learnt."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from classify.report.fit_words import judge_fit
from classify.report.numbers import file_stem, short, with_interval
from classify.report.plotting import Picture, render
from classify.report.run_figures import MODELS_SHOWN, draw_curves, draw_models, draw_returns
from classify.report.run_files import RunFiles
from classify.scores.metrics import MACRO

#: Heads whose curves are shown: the best.
_HEADS_SHOWN = 3
#: Members of a weighted mean with less are summed up.
_LEAST_SHARE = 0.01
#: Columns of the leaderboard beside the AUC: metric, heading, and whether more is better.
_COLUMNS = (
    ("average_precision", "AP", True),
    ("log_loss", "log loss", False),
    ("brier", "Brier", False),
    ("f1", "F1", True),
    ("sensitivity", "sensitivity", True),
    ("specificity", "specificity", True),
)


def describe_models(run: RunFiles, figures: Path) -> dict[str, Any]:
    """Gather leaderboard, choice and backbones.

    Args:
        run: the run.
        figures: folder for the PNG files.
    """
    measured = [split.measured for split in run.splits.values()]
    ranked = _rank(run)
    shown = ranked[:MODELS_SHOWN]
    names = {"oof": "out-of-fold", "test": "test"}
    scores = {
        names[m]: np.array([run.score(model, m, MACRO, "roc_auc") for model in shown]).reshape(-1, 3) for m in measured
    }
    first = f"Best: {shown[0]}, {with_interval(run.score(shown[0], 'oof', MACRO, 'roc_auc'))} out-of-fold."
    of_all = "" if len(shown) == len(ranked) else f" The {len(shown)} best of {len(ranked)}."
    return {
        "columns": _COLUMNS,
        "rows": [_describe_model(run, model, measured) for model in ranked],
        "measured": measured,
        "picture": render(
            draw_models(shown, scores),
            "models",
            f"Macro ROC-AUC of {len(shown)} models with 95 % intervals. {first}",
            f"Macro ROC-AUC of every model, with its 95 % interval.{of_all}",
            figures,
        ),
        "chosen": _describe_choice(run, ranked),
        "returns": _describe_returns(run, figures),
    }


def _rank(run: RunFiles) -> list[str]:
    """Order the models by their out-of-fold macro AUC; of equals the run's order stays."""

    def auc(model: str) -> float:
        value = run.score(model, "oof", MACRO, "roc_auc")[0]
        return -np.inf if np.isnan(value) else value

    return sorted(run.record["models"], key=lambda model: -auc(model))


def kind_of(entry: dict[str, Any]) -> str:
    """Tell what a model of `run.json` is: head, ensemble, calibration or baseline."""
    if entry.get("spec"):
        return "head"
    if entry["members"]:
        return "calibration" if len(entry["members"]) == 1 else "ensemble"
    return "baseline"


def _describe_model(run: RunFiles, model: str, measured: list[str]) -> dict[str, Any]:
    """Make one row of the leaderboard."""
    entry = run.record["models"][model]
    return {
        "name": model,
        "final": model == run.final_model,
        "kind": kind_of(entry),
        "backbones": ", ".join(entry["backbones"]) or "none",
        "backbone_count": len(entry["backbones"]),
        "aucs": [run.score(model, m, MACRO, "roc_auc") for m in measured],
        "values": [run.score(model, "oof", MACRO, metric) for metric, _, _ in _COLUMNS],
        "labels": [run.score(model, "oof", label, "roc_auc") for label in run.label_names],
        "seconds": float(entry["fit_seconds"]),
        "converged": bool(entry["converged"]),
    }


def _describe_choice(run: RunFiles, ranked: list[str]) -> dict[str, Any]:
    """Say which model was chosen, by what rule, against which others, and what it is made of."""
    final = run.final_model
    others = [model for model in ranked if model != final and final.split("+")[0] != model]
    shares = sorted(run.record["models"][final]["shares"].items(), key=lambda item: -item[1])
    shown = [item for item in shares if item[1] >= _LEAST_SHARE]
    equal = len(shares) > 1 and math.isclose(shares[0][1], shares[-1][1], rel_tol=1e-6)
    return {
        "name": final,
        "rule": run.record["selection"]["means"],
        "calibration": run.record["calibration"],
        "kind": kind_of(run.record["models"][final]),
        "members": run.record["models"][final]["members"],
        "equal": [name for name, _ in shares] if equal else [],
        "shares": shown,
        "rest": len(shares) - len(shown),
        "rest_share": sum(share for _, share in shares[len(shown) :]),
        "score": with_interval(run.score(final, "oof", MACRO, "roc_auc")),
        "runner_up": others[0] if others else None,
        "runner_up_score": with_interval(run.score(others[0], "oof", MACRO, "roc_auc")) if others else "",
        "count": len(ranked),
    }


def _describe_returns(run: RunFiles, figures: Path) -> dict[str, Any] | None:
    """Show what each backbone adds; None of a run on one."""
    table = run.backbones
    if table is None or table.empty:
        return None
    steps = ", ".join(f"{row.backbone} {short(row.macro_auc)} ({row.gain:+.3f})" for row in table.itertuples())
    return {
        "rows": table.to_dict("records"),
        "picture": render(
            draw_returns(table),
            "backbones",
            f"Macro ROC-AUC as backbones are added one by one: {steps}.",
            "What each backbone adds to the mean over those above it; line: 95 % interval of the gain.",
            figures,
        ),
    }


def describe_heads(run: RunFiles, figures: Path) -> list[dict[str, Any]]:
    """Show the curves of the best heads and say how they fit; empty of a run without heads.

    Args:
        run: the run.
        figures: folder for the PNG files.
    """
    if run.curves is None:
        return []
    known = set(run.curves["model"])
    heads = [model for model in _rank(run) if model in known][:_HEADS_SHOWN]
    return [_describe_head(run, model, index, figures) for index, model in enumerate(heads)]


def _describe_head(run: RunFiles, model: str, index: int, figures: Path) -> dict[str, Any]:
    """Show one head."""
    assert run.curves is not None
    curves = run.curves[run.curves["model"] == model]
    entry = run.record["models"][model]
    verdict = judge_fit(curves, entry["best_epochs"], int(entry["spec"]["epochs"]))
    # A head on all rows, which comes last, has no curves; 0 is no epoch.
    kept = {
        fold: epoch for fold, epoch in zip(sorted(set(curves["fold"])), entry["best_epochs"], strict=False) if epoch
    }
    pictures: list[Picture] = []
    for kind, name in (("loss", "loss"), ("auc", "ROC-AUC")):
        if curves[[kind, f"validation_{kind}"]].notna().any(axis=None):
            pictures.append(
                render(
                    draw_curves(curves, kind, name, kept),
                    f"curves_{file_stem(index, model)}_{kind}",
                    f"{name} of {model} by epoch, training and validation. {verdict.sentence}",
                    f"{name} by epoch; thin lines: the fits of single folds; thick: their mean while all go on.",
                    figures,
                )
            )
    return {"name": model, "spec": entry["spec"], "verdict": verdict, "pictures": pictures}
