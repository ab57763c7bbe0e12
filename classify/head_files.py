"""Lay down the heads of a run: their learning curves, and a Keras file of each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from classify.trained_head import TrainedHead


def curves_table(heads: Mapping[str, Sequence[TrainedHead]]) -> pd.DataFrame:
    """List what every epoch of every head came to.

    Args:
        heads: by model, one per fold.

    Returns:
        `model`, `fold` (from 0), `epoch` (from 1), `loss`, `auc`, `validation_loss`, `validation_auc`; one row per
        epoch that the head trained. An AUC that no label has is a missing value.
    """
    tables = []
    for model, of_folds in heads.items():
        for fold, head in enumerate(of_folds):
            table = pd.DataFrame(asdict(head.curves))
            table.insert(0, "model", model)
            table.insert(1, "fold", fold)
            table.insert(2, "epoch", range(1, len(table) + 1))
            tables.append(table)
    return pd.concat(tables)


def head_path(models: Path, model: str, fold: int) -> Path:
    """Say where the head of a model and a fold lies, such as `models/challenge__resnet50/fold0.keras`."""
    return models / model.replace("/", "__") / f"fold{fold}.keras"


def save_heads(heads: Mapping[str, Sequence[TrainedHead]], models: Path) -> None:
    """Save every head as an ordinary Keras model: features (N, D) in, probabilities (N, L) out.

    Args:
        heads: by model, one per fold.
        models: the folder to write to, made here.

    Raises:
        OSError: it cannot be written to.
    """
    for model, of_folds in heads.items():
        for fold, head in enumerate(of_folds):
            path = head_path(models, model, fold)
            path.parent.mkdir(parents=True, exist_ok=True)
            head.save(path)
