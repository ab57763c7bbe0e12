"""Write gradients.h5: why a model says what it says of pairs of image and label, for `python -m extract heat`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache as cached
from pathlib import Path
from typing import Any

import numpy as np

from classify.crossfit.plan import make_repeats
from classify.inputs import Inputs, SplitInputs, columns_of
from classify.models.files import model_path
from classify.models.trained_head import Linearised
from classify.options import GradientsOptions
from classify.rundir.files import read_out_of_fold, read_run_table
from classify.rundir.folder import GALLERY, MODELS
from classify.rundir.saved_run import SavedRun
from classify.scores.thresholds import to_binary
from features.common.cli import split_names
from features.common.errors import InputError
from features.common.text import make_console, progress_bar
from features.dataset.folder import to_image_id
from features.dataset.run_labels import RUN_LABELS, read_run_labels
from features.store.cache import FeatureCache
from features.store.gradients import GRADIENTS, Gradients, Pair, rounded, write_gradients

#: A pair of image and label: split, image id, number of the label.
Key = tuple[str, str, int]
#: Why pairs are shown: of each, outcome and rank in the gallery.
Reasons = Mapping[Key, Sequence[tuple[str, int]]]
#: The fit of an image that none of the run's folds held out.
NO_FIT = -1
#: Below this share or coefficient a member changes no picture: fitted weights come near 0 without reaching it.
_LEAST_SHARE = 1e-6
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
    left out.

    Args:
        run: the run.
        model: name of the model.

    Attributes:
        backbones: whose features `explain` takes, side by side, in this order.
        columns: which columns of them are each backbone's.
        weights: of the members.

    Raises:
        InputError: a model's file is missing or damaged.
    """

    def __init__(self, run: SavedRun, model: str) -> None:
        self._run = run
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
        labels = len(self._run.label_names)
        gradients = np.zeros((len(features), labels, features.shape[1]), np.float32)
        intercepts = np.zeros((len(features), labels), np.float32)
        for member, weight in self.weights.members.items():
            entry = self._run.models[member]
            own = [self.columns[name] for name in entry["backbones"]]
            seen = slice(own[0].start, own[-1].stop)
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

    def others(self) -> tuple[str, ...]:
        """The baselines and heads of the run that have a gradient."""
        models = self._run.models.items()
        return tuple(name for name, entry in models if not entry["members"] and self._has_gradient(name))

    def _files(self, member: str, fit: int = NO_FIT) -> list[str]:
        """The file of one fit, or those that predict new images."""
        files: list[str] = self._run.models[member]["files"]
        if fit == NO_FIT:
            return files
        return [model_path(Path(MODELS), member, f"fold{fit}", Path(files[0]).suffix).as_posix()]

    def _has_gradient(self, member: str) -> bool:
        """Whether a baseline or head can be linearised."""
        return bool(self._load(self._files(member)[0]).has_gradient)

    def _weigh(self, model: str) -> ModelWeights:
        """Weigh the members of a model, down to baselines and heads."""
        entry = self._run.models[model]
        if len(entry["members"]) == 1:
            return self._weigh(entry["members"][0])
        coefficients, shares = None, {model: 1.0}
        if entry["members"]:
            coefficients = getattr(self._load(self._files(model)[0]), "coef_", None)
            shares = {member: entry["shares"].get(member, 0.0) for member in entry["members"]}
        weights: dict[str, np.ndarray] = {}
        left_out: dict[str, str] = {}
        whole = np.zeros(len(self._run.label_names))
        for index, (member, share) in enumerate(shares.items()):
            weight = np.full(len(whole), share) if coefficients is None else np.asarray(coefficients)[:, index]
            if weight.max() < _LEAST_SHARE:
                continue
            whole += weight
            if self._has_gradient(member):
                weights[member] = weight
            else:
                left_out[member] = "it has no gradient with respect to the features"
        shown = np.sum(list(weights.values()), axis=0)
        if coefficients is None:
            weights = {member: weight / shown for member, weight in weights.items()}
        return ModelWeights(weights, left_out, float(shown.sum() / max(whole.sum(), _LEAST_SHARE)))


def explain_gallery(run: SavedRun, cache: FeatureCache, model: str) -> Gradients:
    """Explain a model of a run at the images of its gallery; see `explain`."""
    numbers = {name: number for number, name in enumerate(run.label_names)}
    reasons: dict[Key, list[tuple[str, int]]] = {}
    for row in read_run_table(run, GALLERY).itertuples():
        reasons.setdefault((row.split, row.ID, numbers[row.label]), []).append((row.outcome, int(row.rank)))
    images = sum(len(split.image_ids) for split in read_run_labels(run.file(RUN_LABELS)).values())
    return explain(run, cache, model, reasons, images)


def explain(run: SavedRun, cache: FeatureCache, model: str, reasons: Reasons, chosen_of: int) -> Gradients:
    """Explain a model of a run at pairs of image and label.

    A training image is explained by the models of the folds that held it out, any other by those that predict new
    images.

    Args:
        run: the run.
        cache: the features of the images.
        model: name of the model.
        reasons: the pairs, at least one, and why they are shown.
        chosen_of: how many images they were chosen from.

    Raises:
        InputError: features are missing or not those that the run learnt from, or a file of the run is damaged.
    """
    explainer = Explainer(run, model)
    weights = explainer.weights
    pairs: list[Pair] = []
    vectors: list[np.ndarray] = []
    images = list(dict.fromkeys(key[:2] for key in reasons))
    with progress_bar("explaining", len(images)) as advance:
        for split in dict.fromkeys(split for split, _ in images):
            image_ids = [image_id for other, image_id in images if other == split]
            known, features, fits = _look_up(run, cache, model, split, image_ids, reasons)
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
    columns = explainer.columns if vectors else {}
    return Gradients(
        model=model,
        label_names=run.label_names,
        chosen_of=chosen_of,
        members={name: tuple(shares.tolist()) for name, shares in weights.members.items()},
        left_out=weights.left_out,
        covered=weights.covered,
        no_heat="" if vectors else f"neither {model} nor a member of it has a gradient",
        instead=() if vectors else explainer.others(),
        recipes={name: run.recipes[name] for name in columns},
        pairs=tuple(pairs),
        vectors={name: np.stack([vector[seen] for vector in vectors]) for name, seen in columns.items()},
    )


def _look_up(
    run: SavedRun, cache: FeatureCache, model: str, split: str, image_ids: Sequence[str], reasons: Reasons
) -> tuple[list[list[Pair]], np.ndarray, np.ndarray]:
    """Gather what the run and the cache know of N images of one split.

    Returns:
        Of each image its pairs, without gradients; float32 (N, D), the features of the backbones that the model needs;
        int64 (N, R), the fits that held the image out, `NO_FIT` where the run did not learn from it.
    """
    run.refuse_other_features(cache, split, model)
    backbones = run.opens(model)
    known = [cache.open(split, name).index for name in backbones]
    _, features = cache.read(split, backbones, image_ids)
    scores = run.predict(model, features)
    fits = np.full((len(image_ids), 1), NO_FIT)
    if split == "train":
        held_out = _held_out(run)
        learnt = [row for row, image_id in enumerate(image_ids) if image_id in held_out]
        ids = [image_ids[row] for row in learnt]
        scores[learnt] = read_out_of_fold(run, model, ids)
        fits = np.full((len(image_ids), len(next(iter(held_out.values())))), NO_FIT)
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


def _held_out(run: SavedRun) -> dict[str, tuple[int, ...]]:
    """Say of each training image of a run, by id, which fits held it out: one a repeat.

    The tables hold the folds of the first repeat only; those of the others are drawn again, by the same seed.

    Raises:
        InputError: they come out otherwise, as with another version of the stratifier.
    """
    known = read_run_labels(run.file(RUN_LABELS))["train"]
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
                f"the folds of {run.folder} cannot be drawn again: another version of iterative-stratification drew "
                "them. Make the run again."
            )
    return dict(zip(known.image_ids, map(tuple, fits.tolist()), strict=True))


def write_explanation(options: GradientsOptions) -> None:
    """Do what `python -m classify gradients` does: write RUN/gradients.h5 again.

    Raises:
        InputError: no finished run, no features, an image that no split has, or a model without gradients.
    """
    ids = split_names(options.ids, "--ids")
    saved = SavedRun.open(options.run)
    model = saved.choose(options.model)
    cache_folder = options.cache or Path(saved.record["cache"])
    if options.cache is None and not cache_folder.is_dir():
        raise InputError(
            f"{cache_folder}, the cache that {options.run} learnt from, is not there as seen from {Path.cwd()}. "
            "Name it with --cache."
        )
    cache = FeatureCache(cache_folder)
    if ids is None:
        found = explain_gallery(saved, cache, model)
    else:
        reasons = _find(saved, cache, model, ids)
        found = explain(saved, cache, model, reasons, len(reasons) // len(saved.label_names))
    if found.no_heat and options.model is not None:
        others = f"Name one of {', '.join(found.instead)}." if found.instead else "No other model of the run has one."
        raise InputError(f"{found.no_heat}. {others}")
    write_gradients(options.run, found)
    say_what_was_explained(found, options.run)


def _find(run: SavedRun, cache: FeatureCache, model: str, ids: Sequence[str]) -> Reasons:
    """Find images by their ids in the splits of a cache: all labels of each.

    Raises:
        InputError: no split has an image; the message names the first.
    """
    backbone = run.opens(model)[0]
    wanted = [to_image_id(image_id) for image_id in ids]  # they may carry the extension, as in the CSV
    splits = [split for split in cache.splits() if backbone in cache.backbones(split)]
    found = [(split, i) for split in splits for i in cache.open(split, backbone).index.keys() & {*wanted}]
    missing = {*wanted} - {image_id for _, image_id in found}
    if missing:
        raise InputError(
            f"--ids names {len(missing)} images that {cache.root} does not have in {', '.join(splits)} (first: "
            f"{min(missing)}). Check the ids, or extract the images."
        )
    return {(split, image_id, label): () for split, image_id in sorted(found) for label in range(len(run.label_names))}


def say_what_was_explained(found: Gradients, run: Path) -> None:
    """Print what is in gradients.h5, and what draws it."""
    make_console().print(
        f"{GRADIENTS}: {found.count} for {found.model}"
        + (f": thumbnails only, {found.no_heat}" if found.no_heat else "")
        + f". To draw them: python -m extract heat DATA {run}"
    )
