"""Say with which options stage 1 makes features of given recipes."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from features.store.recipe import Recipe

#: What ends the name of the file of a backbone of one's own.
_OWN_MODEL = ".keras"


def extract_options(recipes: Mapping[str, Recipe]) -> list[str]:
    """List the options of `python -m extract run`.

    Args:
        recipes: by backbone.

    Returns:
        One line for each run of stage 1 that is needed, quoted for a shell: backbones that share their options share a
        line. Weights that do not come with Keras have to lie where they lay.
    """
    tables: dict[tuple[str, ...], list[str]] = {}
    own = []
    for backbone, recipe in recipes.items():
        precision, _, stored = recipe.precision.partition(" stored as ")
        arithmetic = ("--precision", precision, "--dtype", stored or "float32")
        if recipe.weights.endswith(_OWN_MODEL):
            own.append(shlex.join(["--backbone", f"{backbone}={recipe.weights}", *arithmetic]))
        else:
            named = recipe.weights in ("imagenet", "random")
            weights = recipe.weights if named else str(Path(recipe.weights).parent)
            tables.setdefault(("--weights", weights, *arithmetic), []).append(backbone)
    return [shlex.join(["--backbones", ",".join(names), *options]) for options, names in tables.items()] + own
