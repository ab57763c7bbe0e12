"""Load a finished run, and predict with it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.crossfit.plan import mean_probabilities
from classify.inputs import columns_of, read_tuning
from classify.models.files import Predictor, load_model, predict_rows
from classify.rundir.files import read_thresholds
from classify.rundir.folder import SealedRun, changed
from classify.rundir.schema import is_of_run
from features.common.arrays import Probabilities, Thresholds
from features.common.commands import join_words
from features.common.errors import InputError
from features.store.cache import FeatureCache
from features.store.mapped import AnyFeatures
from features.store.recipe import Recipe, extract_options
from features.store.run_labels import MARK, RUN_LABELS, RunLabels, read_run_labels


class SavedRun(SealedRun):
    """A finished run whose record holds all that is read of it."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the record of a run, as `SealedRun.open`; it also has to hold what the commands read of it."""
        run = super().open(folder)
        if not is_of_run(run.record):
            raise changed(folder, MARK)
        return run

    @property
    def models(self) -> Mapping[str, Mapping[str, Any]]:
        """By name, a model's entry of the record: `backbones`, `members`, `shares`, `files`."""
        return self.record["models"]

    @cached_property
    def labels(self) -> dict[str, RunLabels]:
        """What the run knows of its labelled images, by split.

        Raises:
            InputError: the file is missing, damaged, or was changed by hand.
        """
        found, count = read_run_labels(self.file(RUN_LABELS)), len(self.label_names)
        if "train" not in found or any(of_split.labels.shape[1] != count for of_split in found.values()):
            raise changed(self.folder, RUN_LABELS)
        return found

    @cached_property
    def widths(self) -> dict[str, int]:
        """The width of each backbone's features, in the run's order."""
        return {name: entry["width"] for name, entry in self.record["backbones"].items()}

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """How each backbone's features have to be extracted."""
        return {name: Recipe.from_record(entry["recipe"]) for name, entry in self.record["backbones"].items()}

    @property
    def tta(self) -> str:
        """What the run read of several views of an image, of `TTA`; those before it had one view."""
        return self.record["arguments"].get("tta", "none")

    def load_model(self, file: str) -> Predictor:
        """Load a model by its path within the run's folder.

        Raises:
            InputError: the file is missing, damaged, or was changed by hand.
        """
        return load_model(self.file(file))

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
        for member in self.members_in_use(model):
            seen |= set(self.needs(member))
        return tuple(name for name in self.widths if name in seen)

    def opens(self, model: str) -> tuple[str, ...]:
        """Name the backbones whose cache files a prediction opens: a model without any sees which images there are."""
        return self.needs(model) or tuple(self.widths)[:1]

    def thresholds(self, model: str) -> Thresholds:
        """Read a model's thresholds.

        Raises:
            InputError: the table is missing, damaged, or was changed by hand.
        """
        return read_thresholds(self, model)["threshold"].to_numpy(np.float64)

    def learnt_share(self, label: str) -> float:
        """The share of positives among the training images that the run learnt the label from."""
        train = self.record["splits"]["train"]
        known = train["known"][label] if train.get("known") else train["images"] - len(train["rejected"])
        return train["positives"][label] / known

    def extract_options(self, model: str) -> list[list[str]]:
        """Say with which options stage 1 makes the features that a model opens; see `recipe.extract_options`."""
        return extract_options({name: self.recipes[name] for name in self.opens(model)})

    def refuse_other_features(self, cache: FeatureCache, split: str, model: str) -> None:
        """Refuse features that were extracted in another way than those that the run learnt from.

        Raises:
            InputError: another fingerprint, or nothing is cached; the message says what differs, and the command.
        """
        for backbone in self.needs(model):
            file, wanted = cache.open(split, backbone), self.recipes[backbone]
            found = file.recipe
            if file.width != self.widths[backbone]:
                raise InputError(
                    f"{file.path} has {file.width} features an image, but {self.folder} learnt from "
                    f"{self.widths[backbone]}. Extract into another --cache."
                )
            if found.fingerprint != wanted.fingerprint:
                raise InputError(
                    f"{cache.path(split, backbone)} was extracted otherwise than what {self.folder} learnt from "
                    f"({wanted.differences(found)}): fingerprints {found.fingerprint[:8]} and "
                    f"{wanted.fingerprint[:8]}. Extract it into another --cache with "
                    f"{' and '.join(join_words(*words) for words in self.extract_options(model))}."
                )

    def refuse_seen(self, cache: FeatureCache, split: str, model: str, image_ids: Sequence[str], what: str) -> None:
        """Refuse to predict images of a split that a fine-tuned backbone of a model has learnt from.

        Args:
            cache: the features.
            split: its split.
            model: the model's name.
            image_ids: images with features.
            what: these images, in words.

        Raises:
            InputError: there are such images, or the cache does not say what the backbone has seen.
        """
        for backbone in (name for name in self.opens(model) if self.recipes[name].tuned):
            index, tuning = cache.open(split, backbone).index, read_tuning(cache, split, backbone)
            tuning.refuse_seen(image_ids, [index[image_id] for image_id in image_ids], what)

    def predict(self, model: str, features: AnyFeatures) -> Probabilities:
        """Predict, by the same models and the same arithmetic as in the run.

        The features are those of the backbones that `needs` names, side by side.

        Raises:
            InputError: a model's file is missing, damaged, or was changed by hand.
        """
        columns = columns_of({name: self.widths[name] for name in self.needs(model)})
        with threadpool_limits(1, user_api="blas"):  # as in the run: threads change the last bits
            return mean_probabilities(self._predict(model, features, columns))

    def _predict(self, model: str, features: AnyFeatures, columns: dict[str, slice]) -> list[Probabilities]:
        """Predict by each fit; `columns` are those of the features."""
        entry = self.models[model]
        files = [self.load_model(file) for file in entry["files"]]
        if not entry["members"]:
            own = [columns[name] for name in entry["backbones"]]
            seen = features[:, own[0].start : own[-1].stop] if own else features[:, :0]
            return [predict_rows(file, seen) for file in files]
        in_use = self.members_in_use(model)
        known = {member: self._predict(member, features, columns) for member in in_use}
        nothing = np.zeros((len(features), len(self.label_names)), np.float32)
        found = []
        for of_fit in zip(*known.values(), strict=True):
            of_members = dict(zip(known, of_fit, strict=True))
            members = [of_members.get(member, nothing) for member in entry["members"]]
            # A calibration sees one model, an ensemble always several.
            found.append(files[0].predict_proba(members[0] if len(members) == 1 else np.stack(members, axis=2)))
        return found

    def members_in_use(self, model: str) -> list[str]:
        """The members that decide: of a weighted mean those with a share, else all."""
        entry = self.models[model]
        weighted = bool(entry["shares"]) and len(entry["members"]) > 1
        return [member for member in entry["members"] if not weighted or member in entry["shares"]]
