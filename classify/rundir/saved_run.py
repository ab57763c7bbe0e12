"""Load a finished run, and predict with it."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.crossfit.plan import mean_probabilities
from classify.inputs import columns_of
from classify.models.files import load_model
from classify.rundir.extract_options import extract_options
from classify.rundir.folder import mark_of
from features.common.cli import option_words
from features.common.errors import InputError
from features.store.cache import FeatureCache
from features.store.recipe import Recipe


@dataclass(frozen=True)
class SavedRun:
    """What `run.json` says that predicting needs.

    Attributes:
        folder: the run's.
        label_names: the L labels.
        widths: of each backbone's features, in the run's order.
        recipes: how each backbone's features have to be extracted.
        models: by name, its entry of `run.json`: `backbones`, `members`, `shares`, `files`.
        final_model: the one that the run handed in.
        cache: the folder of the features that it learnt from, as the run was given it.
    """

    folder: Path
    label_names: tuple[str, ...]
    widths: dict[str, int]
    recipes: dict[str, Recipe]
    models: dict[str, dict[str, Any]]
    final_model: str
    cache: Path

    @classmethod
    def load(cls, folder: Path) -> "SavedRun":
        """Read the record of a run.

        Raises:
            InputError: the folder holds no finished run, or its record is damaged.
        """
        path = mark_of(folder)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            backbones = {name: dict(entry) for name, entry in record["backbones"].items()}
            recipes = {name: Recipe.from_record(entry["recipe"]) for name, entry in backbones.items()}
            run = cls(
                folder,
                tuple(map(str, record["labels"])),
                {name: int(entry["width"]) for name, entry in backbones.items()},
                recipes,
                {name: dict(entry) for name, entry in record["models"].items()},
                str(record["final_model"]),
                Path(record["cache"]),
            )
            run._check()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} cannot be read ({error!r}). Make the run again.") from None
        return run

    def _check(self) -> None:
        """Refuse a record that contradicts itself.

        Raises:
            ValueError: the message says what is wrong.
        """
        if self.final_model not in self.models:
            raise ValueError(f"its final model {self.final_model!r} is none of its models")
        known: set[str] = set()
        for name, entry in self.models.items():
            missing = [member for member in entry["members"] if member not in known]
            if missing or not entry["files"] or not set(entry["backbones"]) <= set(self.widths):
                raise ValueError(f"the entry of {name} names no file, or what the run does not have")
            known.add(name)

    def choose(self, model: str | None) -> str:
        """Give the name of the model asked for, or of the final one.

        Raises:
            InputError: the run has no such model; the message lists those that it has.
        """
        if model is not None and model not in self.models:
            raise InputError(f"{self.folder} has no model {model!r}. Choose one of {', '.join(self.models)}.")
        return self.final_model if model is None else model

    def needs(self, model: str) -> tuple[str, ...]:
        """Name the backbones whose features a model sees, directly or through members with a share."""
        entry = self.models[model]
        seen = set(() if entry["members"] else entry["backbones"])
        for member in self._members_in_use(model):
            seen |= set(self.needs(member))
        return tuple(name for name in self.widths if name in seen)

    def thresholds(self, model: str) -> np.ndarray:
        """Read a model's thresholds: float64 (L,).

        Raises:
            InputError: `thresholds.csv` is missing or damaged.
        """
        path = self.folder / "thresholds.csv"
        try:
            # As text: a label may be called 1 or NA.
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            of_model = table[table["model"] == model].set_index("label")["threshold"]
            thresholds = of_model[list(self.label_names)].to_numpy(np.float64)
            if len(thresholds) != len(self.label_names) or np.isnan(thresholds).any():
                raise ValueError(f"it has no threshold, or several, of a label of {model}")
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} cannot be read ({error}). Make the run again.") from None
        return thresholds

    def extract_options(self, model: str) -> list[dict[str, Any]]:
        """Say with which options stage 1 makes the features that a model needs; see `extract_options`."""
        return extract_options({name: self.recipes[name] for name in self.needs(model)})

    def refuse_other_features(self, cache: FeatureCache, split: str, model: str) -> None:
        """Refuse features that were extracted otherwise than those that the run learnt from.

        Raises:
            InputError: another fingerprint, or nothing is cached; the message says what differs, and the command.
        """
        for backbone in self.needs(model):
            file, wanted = cache.describe(split, backbone), self.recipes[backbone]
            found = file.recipe
            if file.width != self.widths[backbone]:
                raise InputError(
                    f"{file.path} has {file.width} features an image, but {self.folder} learnt from "
                    f"{self.widths[backbone]}. Remove the file and extract again."
                )
            if found.fingerprint != wanted.fingerprint:
                raise InputError(
                    f"{cache.path(split, backbone)} was extracted otherwise than what {self.folder} learnt from "
                    f"({wanted.differences(found)}): fingerprints {found.fingerprint[:8]} and "
                    f"{wanted.fingerprint[:8]}. Extract it into another --cache with "
                    f"{' and '.join(shlex.join(option_words(options)) for options in self.extract_options(model))}."
                )

    def predict(self, model: str, features: np.ndarray) -> np.ndarray:
        """Predict, by the same models and the same arithmetic as in the run.

        Args:
            model: its name.
            features: float32 array (N, D): the backbones that `needs` names, side by side.

        Returns:
            float32 array (N, L), 0-1.

        Raises:
            InputError: a model's file is missing or damaged.
        """
        columns = columns_of({name: self.widths[name] for name in self.needs(model)})
        try:
            with threadpool_limits(1, user_api="blas"):  # as in the run: threads change the last bits
                return self._predict(model, features, columns)
        except (ValueError, IndexError) as error:
            raise InputError(
                f"the files of {model} in {self.folder} do not fit together ({error}): one is damaged, or was changed "
                "by hand. Make the run again."
            ) from None

    def _predict(self, model: str, features: np.ndarray, columns: dict[str, slice]) -> np.ndarray:
        """Predict; `columns` are those of the features."""
        entry = self.models[model]
        files = [load_model(self.folder / file) for file in entry["files"]]
        if not entry["members"]:
            own = [columns[name] for name in entry["backbones"]]
            seen = features[:, own[0].start : own[-1].stop] if own else features[:, :0]
            return mean_probabilities([file.predict_proba(seen) for file in files])
        in_use = self._members_in_use(model)
        nothing = np.zeros((len(features), len(self.label_names)), np.float32)
        members = [
            self._predict(member, features, columns) if member in in_use else nothing for member in entry["members"]
        ]
        # A calibration sees one model, an ensemble always several.
        return files[0].predict_proba(members[0] if len(members) == 1 else np.stack(members, axis=2))

    def _members_in_use(self, model: str) -> list[str]:
        """The members that decide: of a weighted mean those with a share, else all."""
        entry = self.models[model]
        weighted = bool(entry["shares"]) and len(entry["members"]) > 1
        return [member for member in entry["members"] if not weighted or member in entry["shares"]]
