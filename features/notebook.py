"""The data set and the cache in Python: tables by image id."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.common.arrays import UNKNOWN
from features.common.cli import read_options, read_path
from features.common.errors import InputError
from features.dataset.dataset import Dataset, read_dataset
from features.options import DatasetOptions
from features.store.cache import FeatureCache
from features.store.recipe import TTA


class OpenDataset(Dataset):
    """A data set as tables; a notebook shows its images and positives by split, and what was understood."""

    def frame(self, split: str = "train") -> pd.DataFrame:
        """Give the images of a split, a row each, by `ID`.

        Columns: `path`; `group` where groups are known; the labels, 0, 1 or missing (Int8), where they are known.

        Raises:
            InputError: the data set has no such split.
        """
        if split not in self.splits:
            raise InputError(f"{self.root} has no split {split!r}. Choose one of {', '.join(self.splits)}.")
        images = self.splits[split]
        frame = pd.DataFrame({"path": list(images.paths)}, index=pd.Index(images.image_ids, name="ID", dtype="str"))
        if images.groups is not None:
            frame["group"] = images.groups
        if images.labels is not None:
            for name, column in zip(self.label_names, images.labels.T, strict=True):
                frame[name] = pd.arrays.IntegerArray(column.astype(np.int8), column == UNKNOWN)
        return frame

    def __repr__(self) -> str:
        return "\n".join([str(self.root), self._count().to_string(), *self.understood])

    def _repr_html_(self) -> str:
        understood = "".join(f"<li>{escape(line)}</li>" for line in self.understood)
        return f"<p>{escape(str(self.root))}</p>{self._count().to_html()}<ul>{understood}</ul>"

    def _count(self) -> pd.DataFrame:
        """Count images, groups and positives, a row for each split."""
        rows = {}
        for name in self.splits:
            frame = self.frame(name)
            groups = frame["group"].nunique() if "group" in frame else None
            rows[name] = {"images": len(frame), "groups": groups}
            rows[name] |= {label: frame[label].sum() if label in frame else None for label in self.label_names}
        return pd.DataFrame.from_dict(rows, orient="index").astype("Int64").astype(object).fillna("")


def open_dataset(data: Path | str, **options: Any) -> OpenDataset:
    """Read a data set with its labels.

    Args:
        data: its folder; docs/data.md says what may be in it.
        options: how to read it, as those of the commands: `group_column="patient"`, say.

    Raises:
        InputError: anything is wrong, missing or ambiguous, or an option is not known.
    """
    return OpenDataset(**vars(read_dataset(read_path("data", data), read_options(DatasetOptions, options))))


def read_features(
    cache: FeatureCache | Path | str,
    backbones: Sequence[str] | str | None = None,
    split: str = "train",
    tta: str = "mean",
) -> pd.DataFrame:
    """Read features as a table: float32, a row per image, by `ID`.

    Args:
        cache: the cache, or its folder.
        backbones: names of its files, such as `resnet50` or `resnet50.mid`, or one name; None for all of the split.
        split: name of the split.
        tta: of `TTA`: `mean` for the mean over the views of an image, `none` for the first view alone.

    Returns:
        The features side by side; their columns are `resnet50:0`, `resnet50:1` and so on.

    Raises:
        InputError: a name or `tta` is not one, a file is missing or damaged, or rows are missing in it; see
            `FeatureCache.read`.
    """
    known = open_cache(cache)
    if tta not in TTA:
        raise InputError(f"tta: {tta!r} is none of {', '.join(TTA)}.")
    if not _is_name(split):
        raise InputError(f"split: {split!r} is not the name of a split. Expected one such as train.")
    if backbones is None:
        names = [*known.backbones(split)]
    elif isinstance(backbones, Iterable) and not isinstance(backbones, str):
        names = [*backbones]
    else:
        names = [backbones]
    if wrong := [name for name in names if not _is_name(name)]:
        raise InputError(f"backbones: {wrong[0]!r} is not the name of a backbone. Expected one such as resnet50.")
    if len(set(names)) < len(names):
        raise InputError(f"backbones: {', '.join(names)}: a name is duplicated. Name each once.")
    if not names:
        raise InputError(f"{known.root} holds no features of a split {split!r}. Run: {known.remedy(split=split)}")
    image_ids, features = known.read(split, names, None, tta)
    columns = [f"{name}:{number}" for name in names for number in range(known.open(split, name).width)]
    return pd.DataFrame(features, pd.Index(image_ids, name="ID", dtype="str"), columns)


def open_cache(cache: FeatureCache | Path | str) -> FeatureCache:
    """Open a cache that Python was given, or its folder; an `InputError` says that there is none."""
    return cache if isinstance(cache, FeatureCache) else FeatureCache(read_path("cache", cache))


def _is_name(name: object) -> bool:
    """Whether it can be the name of a split or backbone: text, and no path."""
    return isinstance(name, str) and name not in ("", "..") and Path(name).name == name
