"""Say with which options stage 1 makes features of given recipes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from features.store.recipe import Recipe

#: What ends the name of the file of a backbone of one's own.
_OWN_MODEL = ".keras"


def extract_options(recipes: Mapping[str, Recipe]) -> list[dict[str, Any]]:
    """List the options of `python -m extract run` by name, once for each run of it that is needed.

    Backbones that share their options share a run. Weights that do not come with Keras are looked for where they were.

    Args:
        recipes: by backbone.
    """
    of_table: dict[tuple[str, str, str], list[str]] = {}
    own = []
    for backbone, recipe in recipes.items():
        precision, _, stored = recipe.precision.partition(" stored as ")
        dtype = stored or "float32"
        if recipe.weights.endswith(_OWN_MODEL):
            own.append({"backbone": [f"{backbone}={recipe.weights}"], "precision": precision, "dtype": dtype})
        else:
            named = recipe.weights in ("imagenet", "random")
            weights = recipe.weights if named else str(Path(recipe.weights).parent)
            of_table.setdefault((weights, precision, dtype), []).append(backbone)
    table = [
        {"backbones": ",".join(names), "weights": weights, "precision": precision, "dtype": dtype}
        for (weights, precision, dtype), names in of_table.items()
    ]
    return table + own
