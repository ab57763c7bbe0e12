"""Score the images that are shown: out-of-fold where the run learnt from them, else by its models for new images."""

import numpy as np
import pandas as pd

from classify.rundir.explanation import NO_FOLD
from classify.rundir.saved_run import SavedRun
from features.common.errors import InputError

_REMEDY = "Make the run again."


def score_images(
    run: SavedRun, model: str, split: str, image_ids: list[str], features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find each image's fold, and what the model made of it.

    Args:
        run: the run.
        model: name of the model.
        split: whose images they are.
        image_ids: the N images.
        features: float32 array (N, D): the backbones that the model needs, side by side.

    Returns:
        int64 (N,), the fold that held the image out, or `NO_FOLD` where the run did not learn from it; and float32
        (N, L), the model's probabilities.

    Raises:
        InputError: `labels.csv` or `oof_probability.csv` is missing or damaged, or the latter lacks an image that the
            run learnt from: the models for new images know it.
    """
    folds = np.full(len(image_ids), NO_FOLD, np.int64)
    scores = np.empty((len(image_ids), len(run.label_names)), np.float32)
    if split == "train":
        table = _read_out_of_fold(run, model)
        learnt = _read_learnt(run)
        lacking = [image_id for image_id in image_ids if image_id in learnt and image_id not in table.index]
        if lacking:
            raise InputError(
                f"{run.folder / 'oof_probability.csv'} has no row of {model} for {len(lacking)} of {len(image_ids)} "
                f"training images (first: {lacking[0]}): they would be shown by models that learnt from them. {_REMEDY}"
            )
        known = np.array([image_id in table.index for image_id in image_ids])
        rows = table.loc[[image_id for image_id in image_ids if image_id in table.index]]
        folds[known] = rows["fold"]
        scores[known] = rows[list(run.label_names)]
    new = np.flatnonzero(folds == NO_FOLD)
    if len(new):
        scores[new] = run.predict(model, features[new])
    return folds, scores


def _read_out_of_fold(run: SavedRun, model: str) -> pd.DataFrame:
    """Read a model's folds and out-of-fold probabilities, by id.

    Raises:
        InputError: `oof_probability.csv` is missing or damaged.
    """
    path = run.folder / "oof_probability.csv"
    labels = list(run.label_names)
    try:
        types = {"ID": str, "model": str, "fold": np.int64} | dict.fromkeys(labels, np.float32)
        table = pd.read_csv(path, dtype=types, keep_default_na=False)
        table = table[table["model"] == model].set_index("ID")[["fold", *labels]]
        if table.index.has_duplicates:
            image_id = table.index[table.index.duplicated()][0]
            raise ValueError(f"it has several rows of {model} for {image_id}")
        if (table["fold"] < 0).any():
            raise ValueError(f"a fold of {model} is below 0")
        if not ((table[labels] >= 0) & (table[labels] <= 1)).all(axis=None):
            raise ValueError(f"a value of {model} is no probability")
    except (OSError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{path} cannot be read ({error}). {_REMEDY}") from None
    return table


def _read_learnt(run: SavedRun) -> set[str]:
    """Read which training images the run learnt from.

    Raises:
        InputError: `labels.csv` is missing or damaged.
    """
    path = run.folder / "labels.csv"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=["split", "ID"])
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}). {_REMEDY}") from None
    return set(table.loc[table["split"] == "train", "ID"])
