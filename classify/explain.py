"""Write gradients.h5: why a model says what it says of pairs of image and label, for `python -m extract heat`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache as cached
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from classify.crossfit.plan import make_repeats
from classify.inputs import Inputs, SplitInputs, columns_of
from classify.models.files import model_path
from classify.models.trained_head import Linearised
from classify.options import GradientsOptions
from classify.rundir.files import read_out_of_fold, read_run_table
from classify.rundir.folder import GALLERY, MODELS, hold_run
from classify.rundir.saved_run import SavedRun
from classify.scores.thresholds import to_binary
from features.common.cli import split_names
from features.common.errors import InputError
from features.common.text import count_things, first_few, make_console, progress_bar
from features.dataset.folder import to_image_id
from features.store.cache import FeatureCache
from features.store.gradients import GRADIENTS, Gradients, Pair, draw_command, rounded, write_gradients

#: A pair of image and label: split, image id, number of the label.
Key = tuple[str, str, int]
#: Why pairs are shown: of each, outcome and rank in the gallery.
Reasons = Mapping[Key, Sequence[tuple[str, int]]]
#: The fit of an image that none of the run's folds held out.
NO_FIT = -1
#: Below this share or coefficient a member changes no picture: fitted weights come near 0 without reaching it.
_LEAST_SHARE = 1e-6
#: Why a member is left out whose files say so.
_NO_GRADIENT = "it has no gradient with respect to the features"
#: Two scores that differ by no more are of the same image: features of other engines or half the bits differ by less.
_SAME_SCORE = 0.01
#: Images whose gradients are computed at a time: those of all labels are in memory.
_BLOCK = 32


@dataclass(frozen=True)
class ModelWeights:
    """What share each baseline and head has in a model's logits.

    Attributes:
        members: by name, float64 array (L,), at least 0. Of a stacking they are its coefficients; else they have the
            sum 1 for each label. Empty where neither the model nor a member of it has a gradient.
        left_out: by name, why a member has no part.
        covered: share of the model that the members make up, 0-1; of a stacking, of its coefficients.
    """

    members: dict[str, np.ndarray]
    left_out: dict[str, str]
    covered: float = 1.0


class Explainer:
    """Gradients of one model of a run.

    A baseline or head is its own only member. An ensemble is explained by the weighted mean of its members' logits: by
    their shares, a stacking by its coefficients, per label. A calibration changes no gradient's direction, so that a
    calibrated model is explained by what it calibrates. Members without a gradient (forest, knn, boosting, prior) are
    left out, and those on fine-tuned backbones: there is one for each fold, so that no map is of all its images.

    Args:
        run: the run.
        model: name of the model.
        learnt: whether images of `train` are those that the run learnt from.

    Attributes:
        run, model: the arguments.
        backbones: whose features `explain` takes, side by side, in this order.
        columns: which columns of them are each backbone's.
        weights: of the members.

    Raises:
        InputError: a model's file is missing or damaged.
    """

    def __init__(self, run: SavedRun, model: str, *, learnt: bool = False) -> None:
        self.run, self.model, self._learnt = run, model, learnt
        self._load: Callable[[str], Any] = cached(run.load_model)  # each file once
        self.backbones = run.needs(model)
        self.columns = columns_of({name: run.widths[name] for name in self.backbones})
        self.weights = self._weigh(model)

    def explain(self, features: np.ndarray, fits: np.ndarray) -> Linearised:
        """Linearise the model at some images.

        Args:
            features: float32 array (N, D): the backbones side by side.
            fits: int64 array (N, R): the fits that held the image out, one a repeat, whose models never saw it; or
                `NO_FIT`, for which the models that predict new images are averaged.

        Raises:
            InputError: a model's file is missing or damaged.
        """
        labels = len(self.run.label_names)
        gradients = np.zeros((len(features), labels, features.shape[1]), np.float32)
        intercepts = np.zeros((len(features), labels), np.float32)
        for member, weight in self.weights.members.items():
            seen = self._seen(member)
            for of_repeat in fits.T:
                for fit in np.unique(of_repeat):
                    rows = np.flatnonzero(of_repeat == fit)
                    files = self._files(member, fit)
                    share = (weight / len(files) / fits.shape[1]).astype(np.float32)
                    for file in files:
                        found = self._load(file).linearise(features[rows, seen])
                        gradients[rows, :, seen] += share[:, np.newaxis] * found.gradients
                        intercepts[rows] += share * found.intercepts
        return Linearised(gradients, intercepts)

    @cached_property
    def stored(self) -> dict[str, str]:
        """Of images whose features the cache keeps with others than those of their split, by id, where that is."""
        if not self._learnt:
            return {}
        splits = self.run.labels
        return {
            image_id: stored
            for name, split in splits.items()
            for image_id, stored in zip(split.image_ids, [] if split.stored is None else split.stored, strict=True)
            if stored != name
        }

    @cached_property
    def held_out(self) -> dict[str, tuple[int, ...]]:
        """Of the images that the run learnt from, by id, the fits that held them out: one a repeat."""
        return _read_held_out(self.run) if self._learnt else {}

    def refuse_other_images(self, cache: FeatureCache, reasons: Reasons) -> None:
        """Refuse images of `train` to which the models that never saw them give another score than in the run.

        Raises:
            InputError: features are missing, or are not those that the run learnt from.
        """
        train = dict.fromkeys(image_id for split, image_id, _ in reasons if split == "train")
        known = [image_id for image_id in train if image_id in self.held_out]
        if not known:
            return
        self.run.refuse_other_features(cache, "train", self.model)
        _, features = cache.read("train", self.run.opens(self.model), known, self.run.tta)
        fits = np.array([self.held_out[image_id] for image_id in known])
        of_run = read_out_of_fold(self.run, tuple(self.weights.members or self.weights.left_out), known)
        for member, expected in of_run.items():
            models = {fit: self._load(self._files(member, fit)[0]) for fit in np.unique(fits)}
            of_fit = {fit: model.predict_proba(features[:, self._seen(member)]) for fit, model in models.items()}
            found = np.array([np.mean([of_fit[fit][row] for fit in own], axis=0) for row, own in enumerate(fits)])
            other = np.flatnonzero((np.abs(found - expected) > _SAME_SCORE).any(axis=1))
            if other.size:
                raise InputError(
                    f"{cache.root} does not hold the train images that {self.run.folder} learnt from: {len(other)} of "
                    f"{len(known)} get another score by {member} than in the run (first: {known[other[0]]}). Name the "
                    "cache that it learnt from with --cache, or make the run again."
                )

    def _seen(self, member: str) -> slice:
        """Which columns a baseline or head sees."""
        own = [self.columns[name] for name in self.run.models[member]["backbones"]]
        return slice(own[0].start, own[-1].stop) if own else slice(0)

    def others(self) -> tuple[str, ...]:
        """The baselines and heads of the run that have a gradient."""
        models = self.run.models.items()
        return tuple(name for name, entry in models if not entry["members"] and not self._obstacle(name))

    @property
    def explained(self) -> tuple[str, ...]:
        """The backbones that members with a gradient see, in their order."""
        seen = {name for member in self.weights.members for name in self.run.models[member]["backbones"]}
        return tuple(name for name in self.backbones if name in seen)

    @property
    def no_heat(self) -> str:
        """Why nothing has a gradient."""
        why = next((reason for reason in self.weights.left_out.values() if reason != _NO_GRADIENT), "")
        return f"neither {self.model} nor a member of it has a gradient" + (f": {why}" if why else "")

    def _files(self, member: str, fit: int = NO_FIT) -> list[str]:
        """The file of one fit, or those that predict new images."""
        files: list[str] = self.run.models[member]["files"]
        if fit == NO_FIT:
            return files
        return [model_path(Path(MODELS), member, f"fold{fit}", Path(files[0]).suffix).as_posix()]

    def _obstacle(self, member: str) -> str:
        """Say why a baseline or head cannot be linearised; "" if it can."""
        if tuned := [name for name in self.run.models[member]["backbones"] if self.run.recipes[name].tuned]:
            return f"{first_few(tuned)} is fine-tuned, with a backbone for each fold"
        return "" if self._load(self._files(member)[0]).has_gradient else _NO_GRADIENT

    def _weigh(self, model: str) -> ModelWeights:
        """Weigh the members of a model, down to baselines and heads."""
        entry = self.run.models[model]
        if len(entry["members"]) == 1:
            return self._weigh(entry["members"][0])
        coefficients, shares = None, {model: 1.0}
        if entry["members"]:
            coefficients = getattr(self._load(self._files(model)[0]), "coef_", None)
            shares = {member: entry["shares"].get(member, 0.0) for member in entry["members"]}
        weights: dict[str, np.ndarray] = {}
        left_out: dict[str, str] = {}
        whole = np.zeros(len(self.run.label_names))
        for index, (member, share) in enumerate(shares.items()):
            weight = np.full(len(whole), share) if coefficients is None else np.asarray(coefficients)[:, index]
            if weight.max() < _LEAST_SHARE:
                continue
            whole += weight
            if obstacle := self._obstacle(member):
                left_out[member] = obstacle
            else:
                weights[member] = weight
        shown = np.sum(list(weights.values()), axis=0)
        if coefficients is None:
            weights = {member: weight / shown for member, weight in weights.items()}
        return ModelWeights(weights, left_out, float(shown.sum() / max(whole.sum(), _LEAST_SHARE)))


def explain_gallery(run: SavedRun, cache: FeatureCache, model: str) -> Gradients:
    """Explain a model of a run at the images of its gallery; see `explain`."""
    return explain(Explainer(run, model, learnt=True), cache, *_read_gallery(run))


def _read_gallery(run: SavedRun) -> tuple[Reasons, int]:
    """Read the pairs of a run's gallery, and how many images they were chosen from."""
    numbers = {name: number for number, name in enumerate(run.label_names)}
    reasons: dict[Key, list[tuple[str, int]]] = {}
    for row in read_run_table(run, GALLERY).itertuples():
        reasons.setdefault((row.split, row.ID, numbers[row.label]), []).append((row.outcome, int(row.rank)))
    return reasons, sum(len(split.image_ids) for split in run.labels.values())


def explain(explainer: Explainer, cache: FeatureCache, reasons: Reasons, chosen_of: int) -> Gradients:
    """Explain a model of a run at pairs of image and label.

    A training image is explained by the models of the folds that held it out, any other by those that predict new
    images.

    Args:
        explainer: of the model.
        cache: the features of the images.
        reasons: the pairs, at least one, and why they are shown.
        chosen_of: how many images they were chosen from.

    Raises:
        InputError: features are missing or not those that the run learnt from, or a file of the run is damaged.
    """
    run, model, weights = explainer.run, explainer.model, explainer.weights
    pairs: list[Pair] = []
    vectors: list[np.ndarray] = []
    images = list(dict.fromkeys(key[:2] for key in reasons))
    with progress_bar("explaining", len(images)) as advance:
        parts: dict[tuple[str, str], list[str]] = {}
        for split, image_id in images:
            parts.setdefault((split, explainer.stored.get(image_id, split)), []).append(image_id)
        for (split, stored), image_ids in parts.items():
            known, features, fits = _look_up(explainer, cache, split, stored, image_ids, reasons)
            for start in range(0, len(image_ids), _BLOCK):
                block = slice(start, start + _BLOCK)
                found = explainer.explain(features[block], fits[block]) if weights.members else None
                for row, (of_image, seen) in enumerate(zip(known[block], features[block], strict=True)):
                    for pair in of_image:
                        if found is not None:
                            # The rest also makes up for the rounding, so that maps and rest give the logit exactly.
                            exact = found.gradients[row, pair.label]
                            vectors.append(rounded(exact))
                            logit = float(exact.astype(np.float64) @ seen + found.intercepts[row, pair.label])
                            rest = logit - float(vectors[-1].astype(np.float64) @ seen)
                            pair = replace(pair, logit=logit, rest=rest)
                        pairs.append(pair)
                    advance()
    columns = {name: explainer.columns[name] for name in explainer.explained}
    return Gradients(
        run=run.record["seal"],
        model=model,
        label_names=run.label_names,
        chosen_of=chosen_of,
        members={name: tuple(shares.tolist()) for name, shares in weights.members.items()},
        left_out=weights.left_out,
        covered=weights.covered,
        no_heat="" if vectors else explainer.no_heat,
        instead=() if vectors else explainer.others(),
        recipes={name: run.recipes[name].as_read(run.tta) for name in columns},
        pairs=tuple(pairs),
        vectors={name: np.stack([vector[seen] for vector in vectors]) for name, seen in columns.items()},
        excel_safe=run.record["arguments"].get("excel_safe", False),
    )


def _look_up(
    explainer: Explainer, cache: FeatureCache, split: str, stored: str, image_ids: Sequence[str], reasons: Reasons
) -> tuple[list[list[Pair]], np.ndarray, np.ndarray]:
    """Gather what the run and the cache know of N images of one split, stored together in the cache.

    Returns:
        Of each image its pairs, without gradients; float32 (N, D), the features of the backbones that the model needs;
        int64 (N, R), the fits that held the image out, `NO_FIT` where the run did not learn from it.
    """
    run, model = explainer.run, explainer.model
    run.refuse_other_features(cache, stored, model)
    backbones = run.opens(model)
    known = [cache.open(stored, name).index for name in backbones]
    _, features = cache.read(stored, backbones, image_ids, run.tta)
    held_out = explainer.held_out if split == "train" else {}
    learnt = np.array([image_id in held_out for image_id in image_ids])
    scores = np.empty((len(image_ids), len(run.label_names)), np.float32)
    fits = np.full((len(image_ids), 1), NO_FIT)
    if not learnt.all():
        scores[~learnt] = run.predict(model, features[~learnt])
    if learnt.any():
        ids = list(compress(image_ids, learnt))
        scores[learnt] = read_out_of_fold(run, (model,), ids)[model]
        fits = np.full((len(image_ids), len(held_out[ids[0]])), NO_FIT)
        fits[learnt] = [held_out[image_id] for image_id in ids]
    positive = to_binary(scores, run.thresholds(model)).astype(bool)

    def pairs_of(row: int, image_id: str) -> list[Pair]:
        first, *others = {index.get(image_id, b"").hex() for index in known}
        return [
            Pair(
                split=split,
                image_id=image_id,
                digest="" if others else first,
                label=label,
                reasons=tuple(reasons[split, image_id, label]),
                score=float(scores[row, label]),
                positive=bool(positive[row, label]),
            )
            for label in range(len(run.label_names))
            if (split, image_id, label) in reasons
        ]

    return [pairs_of(row, image_id) for row, image_id in enumerate(image_ids)], features, fits


def _read_held_out(run: SavedRun) -> dict[str, tuple[int, ...]]:
    """Say of each training image of a run, by id, which fits held it out: one a repeat.

    The tables hold the folds of the first repeat only; those of the others are drawn again, by the same seed: an
    `InputError` says that they come out otherwise, as with another version of the stratifier.
    """
    known = run.labels["train"]
    folds, seed = run.record["folds"], run.record["arguments"]["seed"]
    repeats, count = folds["repeats"], folds["count"]
    fits = known.folds[:, np.newaxis]
    if repeats > 1:
        groups = None if folds["groups"] is None else known.groups
        used = SplitInputs(known.image_ids, known.folds >= 0, known.labels[:, :0], known.labels, groups, {})
        drawn = make_repeats(Inputs(run.label_names, {}, used, known.labels, None), count, repeats, seed)
        fits = np.column_stack([of_repeat.fold_of_row + count * r for r, of_repeat in enumerate(drawn)])
        if (fits[:, 0] != known.folds).any():
            raise InputError(
                f"the folds of {run.folder} cannot be drawn again: another version of Headbank drew them. "
                "Make the run again."
            )
    return dict(zip(known.image_ids, map(tuple, fits.tolist()), strict=True))


def write_explanation(options: GradientsOptions) -> None:
    """Do what `python -m classify gradients` does: write RUN/gradients.h5 again.

    Raises:
        InputError: no finished run, no features, an image that no split has, or a model without gradients.
    """
    ids = split_names(options.ids, "--ids")
    with hold_run(options.run):
        saved = SavedRun.open(options.run)
        model = saved.choose(options.model)
        cache_folder = options.cache or Path(saved.record["cache"])
        if options.cache is None and not cache_folder.is_dir():
            raise InputError(
                f"{cache_folder}, the cache that {options.run} learnt from, is not there as seen from {Path.cwd()}. "
                "Name it with --cache."
            )
        cache = FeatureCache(cache_folder)
        reasons, chosen_of = _read_gallery(saved) if ids is None else _find(saved, cache, model, ids)
        explainer = Explainer(saved, model, learnt=True)
        explainer.refuse_other_images(cache, reasons)
        found = explain(explainer, cache, reasons, chosen_of)
        if found.no_heat and options.model is not None:
            others = (
                f"Name one of {', '.join(found.instead)}." if found.instead else "No other model of the run has one."
            )
            raise InputError(f"{found.no_heat}. {others}")
        write_gradients(options.run, found)
        say_what_was_explained(found, options.run)


def _find(run: SavedRun, cache: FeatureCache, model: str, ids: Sequence[str]) -> tuple[Reasons, int]:
    """Find images by their ids in the splits of a cache, which have them all: all labels of each, and how many."""
    backbone = run.opens(model)[0]
    wanted = [to_image_id(image_id) for image_id in ids]  # they may carry the extension, as in the CSV
    splits = [split for split in cache.splits() if backbone in cache.backbones(split)]
    found = [(split, i) for split in splits for i in cache.open(split, backbone).index.keys() & {*wanted}]
    missing = {*wanted} - {image_id for _, image_id in found}
    if missing:
        raise InputError(
            f"--ids names {count_things(len(missing), 'image')} that {cache.root} does not have in "
            f"{', '.join(splits)} (first: {min(missing)}). Check the ids, or extract the images."
        )
    labels = range(len(run.label_names))
    return {(split, image_id, label): () for split, image_id in sorted(found) for label in labels}, len(found)


def say_what_was_explained(found: Gradients, run: Path) -> None:
    """Print what is in gradients.h5, and what draws it."""
    make_console().print(
        f"{GRADIENTS}: {found.count} for {found.model}"
        + (f": thumbnails only, {found.no_heat}" if found.no_heat else "")
        + f". To draw them: {draw_command(run)}"
    )
