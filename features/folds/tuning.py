"""What fine-tuned backbones have seen: a record beside their features in the cache, and within each of their files.

Of each fold of the training rows there is a backbone that has not seen it, and one has seen them all. Stage 2 lets a
model meet features of rows by a backbone that has seen no other rows than the model learns from.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from features.common.arrays import RowIndices
from features.common.errors import InputError
from features.common.files import digest, read_record, replacing
from features.common.text import count_things, first_few
from features.store.mapped import AnyFeatures, MappedFeatures
from features.store.recipe import FEATURES, Recipe, features_of

#: The folder of a cache that holds the backbones; in it, of each name, the record, and its files of Keras.
TUNED, _RECORD = "tuned", "tuning.json"
#: The backbone that has seen all training rows; of folds they are `fold0`, `fold1`, ...
OF_ALL = "all"
#: The member of a .keras file that holds the record.
_MEMBER = "headbank.json"


@dataclass(frozen=True, eq=False)
class Tuning:
    """A backbone, fine-tuned once without each fold of the training rows, and once on all of them.

    Attributes:
        settings: what decides the backbones: `name`, that of its rows in the cache, `folds`, `seed`, `labels` and more.
        image_ids: of the N training rows.
        image_digests: BLAKE2b-128 of the bytes of each image, as hexadecimal digits.
        fold_of_row: int64 (N,), which fold's backbone has not seen the row.
    """

    settings: Mapping[str, Any]
    image_ids: tuple[str, ...]
    image_digests: tuple[str, ...]
    fold_of_row: np.ndarray

    @classmethod
    def read(cls, cache: Path, name: str) -> "Tuning":
        """Read the record of a cache.

        Raises:
            InputError: it is missing, or was changed by hand.
        """
        path = folder_of(cache, name) / _RECORD
        return cls._of_record(read_record(path, _REMEDY, *_NAMES), path)

    @classmethod
    def _of_record(cls, record: Mapping[str, Any], path: Path) -> "Tuning":
        """Take a record apart; the path is for messages."""
        try:
            ids, digests, folds = zip(*record["rows"], strict=True)
            found = cls(record["settings"], ids, digests, np.array(folds, np.int64))
            same = found.digest == record["digest"]
        except (TypeError, ValueError):
            same = False
        if not same:
            raise InputError(f"{path} is not what was written. {_REMEDY}")
        return found

    @property
    def name(self) -> str:
        """Of the rows in the cache, such as `resnet50.tuned`."""
        return str(self.settings["name"])

    @property
    def sources(self) -> tuple[str, ...]:
        """The backbones: `fold0` and so on, which have not seen that fold, and `OF_ALL`."""
        return (*(f"fold{fold}" for fold in range(self.settings["folds"])), OF_ALL)

    @cached_property
    def digest(self) -> str:
        """BLAKE2b-128 of settings and rows, as 32 hexadecimal digits."""
        return digest(json.dumps([self.settings, self._rows()], sort_keys=True).encode()).hex()

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each image."""
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    def write(self, cache: Path) -> None:
        """Write the record of a cache."""
        with replacing(folder_of(cache, self.name) / _RECORD) as temporary:
            temporary.write_text(self._text(), encoding="utf-8")

    def replaces(self, cache: Path) -> str:
        """Say in what the fine-tuning of a cache differs that this one replaces; "" where there is none, or the same.

        Such as `learning_rate 1e-05 -> 0.0001`. One whose record cannot be read is none: nothing can use it.
        """
        try:
            earlier = Tuning.read(cache, self.name)
        except InputError:
            return ""
        before, after = _flatten(earlier.settings), _flatten(self.settings)
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        said = [
            name if name in _DIGESTS else f"{name} {before.get(name, 'none')} -> {after.get(name, 'none')}"
            for name in changed
        ]
        said += ["images or their folds"] if earlier._rows() != self._rows() else []
        return ", ".join(said)

    def put_into(self, path: Path, source: str, facts: Mapping[str, Any]) -> None:
        """Add the record, which of its backbones this is, and facts to a .keras file, which Keras reads as before."""
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_MEMBER, json.dumps({"source": source, **facts}) + "\n" + self._text())

    def refuse_seen(self, image_ids: Sequence[str], digests: Sequence[bytes], what: str) -> None:
        """Refuse to predict images that the backbone has learnt from, whatever they are called.

        Args:
            image_ids: of the images.
            digests: BLAKE2b-128 of their bytes.
            what: these images, in words.

        Raises:
            InputError: there are such images.
        """
        known = set(self.image_digests)
        seen = [image_id for image_id, own in zip(image_ids, digests, strict=True) if own.hex() in known]
        if seen:
            raise InputError(
                f"{what}: {self.name} was fine-tuned on {len(seen)} of {count_things(len(image_ids), 'image')} "
                f"({first_few(seen, 3)}), so that any score of them is too good. Leave them out, or predict them by a "
                "model of other backbones."
            )

    def _rows(self) -> list[tuple[str, str, int]]:
        return list(zip(self.image_ids, self.image_digests, self.fold_of_row.tolist(), strict=True))

    def _text(self) -> str:
        return json.dumps({"digest": self.digest, "settings": self.settings, "rows": self._rows()})


_NAMES = ("digest", "settings", "rows")
#: Settings that are digests, whose values say nothing.
_DIGESTS = ("weights_digest", "truth")
_REMEDY = "Run extract finetune again: it says which images the backbone has seen."


def _flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, those of the reading beside the others."""
    return {**{name: value for name, value in settings.items() if name != "reading"}, **settings.get("reading", {})}


def folder_of(cache: Path, name: str) -> Path:
    """The folder of a fine-tuned backbone in a cache."""
    return cache / TUNED / name


def read_member(path: Path) -> tuple[Tuning, dict[str, Any]] | None:
    """Read what a .keras file says of the rows that it has seen, and its facts; None of other files.

    The facts are `source`, which of the backbones it is, and what `put_into` was given.

    Raises:
        InputError: the record was changed by hand.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if _MEMBER not in archive.namelist():
                return None
            first, _, text = archive.read(_MEMBER).decode().partition("\n")
            return Tuning._of_record(json.loads(text), path), dict(json.loads(first))
    except (zipfile.BadZipFile, OSError):  # who loads the model says it
        return None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is not what was written. {_REMEDY}") from None


def keep_record(cache: Path, recipe: Recipe) -> None:
    """Put the record of a fine-tuning beside rows by it, from its file, into a cache that has none; stage 2 reads it.

    Raises:
        InputError: the record in the file was changed by hand.
    """
    found = read_member(Path(recipe.weights)) if recipe.tuned else None
    if found is not None and not (folder_of(cache, found[0].name) / _RECORD).exists():
        found[0].write(cache)


def tuned_row(row: str, source: str) -> str:
    """Name the rows of one of the backbones, such as `.resnet50.tuned.fold0.mid` of `resnet50.tuned.mid`.

    The dot keeps them from all lists: they are of rows that the backbone has seen.
    """
    ending = FEATURES[features_of(row)]
    return f".{row.removesuffix(ending)}.{source}{ending}"


def tuned_name(row: str) -> str:
    """Tell the name of the fine-tuned backbone of rows, such as `resnet50.tuned` of `resnet50.tuned.mid`."""
    return row.removesuffix(FEATURES[features_of(row)])


@dataclass(frozen=True, eq=False)
class TunedFeatures:
    """The features of N training rows by each backbone of a fine-tuning.

    Attributes:
        tuning: what they have seen.
        image_ids: of the rows.
        by_source: by each of `tuning.sources`, (N, D).
    """

    tuning: Tuning
    image_ids: tuple[str, ...]
    by_source: tuple[MappedFeatures, ...]

    @cached_property
    def fold_of_row(self) -> np.ndarray:
        """Which fold's backbone has not seen the row, int64 (N,); -1 of a row that none has seen."""
        rows = [self.tuning.row_of.get(image_id, -1) for image_id in self.image_ids]
        return np.array([-1 if row < 0 else int(self.tuning.fold_of_row[row]) for row in rows], np.int64)

    def take(self, rows: np.ndarray) -> "TunedFeatures":
        """Some of the N rows, int (n,)."""
        ids = tuple(self.image_ids[row] for row in rows.tolist())
        return replace(self, image_ids=ids, by_source=tuple(own.take(rows) for own in self.by_source))

    def of_fit(self, learnt: RowIndices, held_out: RowIndices) -> MappedFeatures:
        """The features, of all N rows, by the backbone that has seen no row but those that a fit learns from.

        Raises:
            InputError: there is none: folds, groups, seed, labels or rows are others than those of the fine-tuning.
        """
        known, folds = self.fold_of_row[learnt], np.unique(self.fold_of_row[held_out])
        fold, source = (-1, -1) if len(folds) == 0 else (int(folds[0]), int(folds[0]))
        seen = (self.tuning.fold_of_row != fold).sum()
        one_fold = len(folds) == 0 or (len(folds) == 1 and fold >= 0)
        if one_fold and ((known >= 0) & (known != fold)).sum() == seen and (known[known >= 0] != fold).all():
            return self.by_source[source]
        raise InputError(
            f"{self.tuning.name} was fine-tuned by other folds than those of this run, so that it has seen rows that "
            f"are held out here, or that are not learnt from. {self.remedy()}"
        )

    def remedy(self) -> str:
        """Say with which folds the features can be used."""
        settings = self.tuning.settings
        return (
            f"Use the images, groups, labels ({', '.join(settings['labels'])}), --folds {settings['folds']} and --seed "
            f"{settings['seed']} of its fine-tuning, name other --backbones, or fine-tune again."
        )


def put_beside(features: AnyFeatures, columns: slice, tuned: Sequence[tuple[slice, MappedFeatures]]) -> AnyFeatures:
    """Take some columns of features; those of fine-tuned backbones from elsewhere: nothing is copied without these.

    Args:
        features: (N, D).
        columns: whole backbones of them.
        tuned: columns of one backbone each, and what stands there instead, (N, d).
    """
    start, stop, _ = columns.indices(features.shape[1])
    within = [(own, matrix) for own, matrix in tuned if start <= own.start and own.stop <= stop]
    seen = features[:, columns]
    if not within:
        return seen
    if isinstance(seen, MappedFeatures):
        ends = np.cumsum([0, *(own.files[0].width for own in seen.backbones)]) + start
        others = {own.start: matrix.backbones[0] for own, matrix in within}
        return replace(
            seen,
            backbones=tuple(others.get(int(end), own) for end, own in zip(ends[:-1], seen.backbones, strict=True)),
        )
    joined = np.array(seen)
    for own, matrix in within:
        joined[:, own.start - start : own.stop - start] = matrix[:]
    return joined
