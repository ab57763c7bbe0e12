"""The cache's folder of a data set for which none was named, and whose it is."""

from pathlib import Path

from features.common.errors import InputError
from features.common.files import replacing

#: In a default cache: the path of the data set that it belongs to.
_OWNER = "dataset.txt"


def default_cache(root: Path) -> Path:
    """The cache's folder of a data set for which none was named: features/cache/{name of DATA}.

    Raises:
        InputError: the folder belongs to another data set of the same name.
    """
    cache = Path(__file__).parents[1] / "cache" / root.resolve().name
    owner = cache / _OWNER
    if owner.exists() and owner.read_text(encoding="utf-8") != str(root.resolve()):
        raise InputError(
            f"{cache} holds the features of {owner.read_text(encoding='utf-8')}, not of {root.resolve()}. "
            f"Name another folder with --cache. If the data set has moved, remove {owner} and run again."
        )
    return cache


def claim_default_cache(root: Path) -> Path:
    """Make the default cache of a data set and note whose it is.

    Raises:
        InputError: the folder belongs to another data set of the same name, or cannot be written.
    """
    cache = default_cache(root)
    with replacing(cache / _OWNER) as temporary:
        temporary.write_text(str(root.resolve()), encoding="utf-8")
    return cache
