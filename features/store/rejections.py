"""The images that stage 1 could not read: CACHE/rejected.csv."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from features.common.errors import InputError
from features.common.files import hold, replacing

_FILE = "rejected.csv"
_HEADER = ["id", "path", "reason"]


@dataclass(frozen=True)
class Rejection:
    """An image that is there but could not be read.

    Attributes:
        image_id: its id.
        path: its path within the data set; starts with the split's name and a slash.
        reason: why it could not be read, in words.
    """

    image_id: str
    path: str
    reason: str


def read_rejections(root: Path) -> list[Rejection]:
    """Read the rejected images of a cache.

    Args:
        root: the cache's folder; without a rejected.csv nothing was rejected.

    Raises:
        InputError: the file is not such a table.
    """
    path = root / _FILE
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        if header != _HEADER:
            raise ValueError(f"its first line is not {','.join(_HEADER)}")
        return [Rejection(*row) for row in rows]
    except (ValueError, TypeError, OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}. Remove it and run the extraction again.") from None


def replace_rejections(root: Path, splits: Iterable[str], found: Sequence[Rejection]) -> None:
    """Replace what is known of some splits; other splits' rejections stay. No rejection at all: no file.

    Args:
        root: the cache's folder.
        splits: names of the splits whose images have all been read now.
        found: the rejections among them.
    """
    renewed = tuple(f"{split}/" for split in splits)
    with hold(root / f".{_FILE}.lock", wait=True):
        kept = [rejection for rejection in read_rejections(root) if not rejection.path.startswith(renewed)]
        rejections = [*kept, *found]
        if not rejections:
            (root / _FILE).unlink(missing_ok=True)
            return
        with replacing(root / _FILE) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_HEADER)
            writer.writerows(astuple(rejection) for rejection in rejections)
