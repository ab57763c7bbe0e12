"""Choose the rows of a cache by which images can be compared."""

from collections.abc import Sequence

from features.common.cli import choose_names
from features.common.errors import InputError
from features.common.text import first_few
from features.folds.tuning import tuned_name
from features.store.cache import FeatureCache
from features.store.recipe import features_of

#: Why fine-tuned rows of training images have no distances.
_MIXED = "as each fold of the training images is seen by a fine-tuned backbone of its own"


def choose_comparable(
    cache: FeatureCache, folders: Sequence[str], wanted: str | None = None, remedy: str = ""
) -> tuple[tuple[str, ...], str]:
    """Choose rows by which all images of some folders of a cache can be compared.

    Where none are named these are the averages of last maps, for which what is near was measured; else all. Training
    images have no distances by fine-tuned backbones: those of each fold are seen by another one.

    Args:
        cache: the cache.
        folders: of it, at least one.
        wanted: names of rows between commas; None for the standard.
        remedy: what to do where the folders have no rows in common; "" for extracting what is missing.

    Returns:
        Names of rows, at least one; and what is left out, in words, or "".

    Raises:
        InputError: the folders have no such rows, or those that are wanted give no distances.
    """
    of_folders = [cache.backbones(folder) for folder in folders]
    common = tuple(name for name in of_folders[0] if all(name in own for own in of_folders))
    if not common:
        held = "; ".join(f"{folder}: {', '.join(own)}" for folder, own in zip(folders, of_folders, strict=True))
        remedy = remedy or f"Run: {cache.remedy(*sorted({name for own in of_folders for name in own}))}"
        raise InputError(
            f"{cache.root} holds no backbone for all splits ({held}), so they cannot be compared. {remedy}"
        )
    mixed = [name for name in common if "train" in folders and cache.open("train", name).recipe.tuned]
    comparable = tuple(name for name in common if name not in mixed)
    standard = tuple(name for name in comparable if features_of(name) == "last") or comparable
    names = standard if wanted is None else choose_names(wanted, "--backbones", "cached for all splits", common)
    if refused := [name for name in names or mixed if name in mixed]:
        frozen = dict.fromkeys(tuned_name(name).removesuffix(".tuned") for name in refused)
        remedy = f"Name others: --backbones {','.join(standard)}" if standard else f"Run: {cache.remedy(*frozen)}"
        raise InputError(f"{cache.root}: images cannot be compared by {first_few(refused)}, {_MIXED}. {remedy}")
    return names, f"left out: {first_few(mixed)}, {_MIXED}" if mixed and wanted is None else ""
