"""Find a cheaper model that is as good as the chosen one: of the run, or its ensemble on fewer backbones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations, groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator

from classify.crossfit.plan import Folds
from classify.ensembles.crossfit import cross_fit_second_level
from classify.ensembles.ensembles import CALIBRATIONS
from classify.models.files import Predictor
from classify.rundir.files import read_out_of_fold, read_run_table
from classify.rundir.folder import BACKBONES_TABLE
from classify.rundir.saved_run import SavedRun
from classify.scores.metrics import ThresholdRule
from classify.scores.resampling import percentile_interval, resample
from classify.scores.scoring import ByFold, mean_over_labels, score_label
from classify.scores.thresholds import fit_thresholds
from features.common.arrays import Probabilities, Thresholds
from features.common.errors import InputError
from features.store.recipe import group_passes

#: Macro AUC that a cheaper model may lose, at most.
LOSS = 0.005
#: Passes of backbones of which all choices are tried; of more, the first ones in the order of what they add.
_PASSES = 8


@dataclass(frozen=True)
class PrunedRun(SavedRun):
    """A run with models that it did not make: by the names of their files their estimators, and their thresholds."""

    estimators: Mapping[str, BaseEstimator] = field(default_factory=dict)
    own_thresholds: Mapping[str, Thresholds] = field(default_factory=dict)

    def load_model(self, file: str) -> Predictor:
        """Give what is not in the folder, or load it."""
        return self.estimators[file] if file in self.estimators else super().load_model(file)

    def thresholds(self, model: str) -> Thresholds:
        """Give the thresholds that are not in the folder, or read them."""
        return self.own_thresholds[model] if model in self.own_thresholds else super().thresholds(model)


@dataclass(frozen=True)
class Pruning:
    """What pruning found.

    Attributes:
        run: with the model that is taken.
        model: its name; the one that was asked for where none is cheaper and as good.
        seconds, seconds_before: that an image takes by it, and by the one that was asked for.
        auc, auc_before: out-of-fold, the mean over the labels.
        low, high: the 95 % interval of the difference of the two.
    """

    run: SavedRun
    model: str
    seconds: float
    seconds_before: float
    auc: float
    auc_before: float
    low: float
    high: float

    def describe(self, model: str) -> str:
        """Say in a sentence what is taken in place of a model, and what that saves."""
        if self.model == model:
            return f"no cheaper model is within {LOSS:g} of the AUC of {model}, by the interval of the difference"
        saved = self.seconds_before - self.seconds
        return (
            f"{self.model} in place of {model}: on {', '.join(self.run.needs(self.model))}; AUC {self.auc:.3f}, "
            f"{self.auc - self.auc_before:+.3f} [{self.low:+.3f}, {self.high:+.3f}]; {self.seconds:.2g} seconds an "
            f"image in place of {self.seconds_before:.2g}, which saves {saved / self.seconds_before:.0%}"
        )


def prune(saved: SavedRun, model: str, usable: Mapping[str, bool]) -> Pruning:
    """Find the cheapest model whose macro AUC is within `LOSS` of a model's, by the low end of a paired interval.

    Tried are the models of the run and, of an ensemble, itself on the members that fewer backbones serve, cross-fitted
    again by the run's folds. The cost of a model is that of the passes of backbones that it needs.

    Args:
        saved: the run.
        model: one of its models.
        usable: which of its models may be taken.

    Raises:
        InputError: a table of the run is damaged, or does not say what its backbones cost.
    """
    scorer, costs = _Scorer(saved), _costs(saved)
    base, calibration = _taken_apart(saved, model)
    members = [member for member in saved.models[base]["members"] if usable.get(member, True)]
    known = read_out_of_fold(saved, [*{*usable, *members, model}], saved.labels["train"].image_ids)
    chosen, before = scorer.score(known[model]), _cost(saved, costs, saved.needs(model))
    subsets = list(_subsets(saved, _passes(saved, saved.needs(model)), members))
    whole = [name for name in usable if usable[name] and not (calibration and len(saved.models[name]["members"]) == 1)]
    candidates = [(_cost(saved, costs, saved.needs(name)), [name]) for name in whole]
    candidates += [
        (_cost(saved, costs, rows), [member for member in members if {*saved.needs(member)} <= rows])
        for rows in subsets
    ]
    for seconds, alike in groupby(sorted(candidates), key=itemgetter(0)):
        if seconds >= before:
            break
        good = []
        for _, names in alike:
            tried = _Tried(saved, names[0], known[names[0]])
            if len(names) > 1:
                tried = _refit(saved, base, names, known, scorer)
            if calibration:
                tried = _calibrate(tried, calibration, scorer)
            found = scorer.score(tried.out_of_fold)
            low, high = percentile_interval(found - chosen)
            if low is not None and high is not None and low >= -LOSS:
                auc, auc_before = float(found[0]), float(chosen[0])
                good.append(Pruning(tried.run, tried.model, seconds, before, auc, auc_before, low, high))
        if good:
            return max(good, key=lambda pruning: pruning.auc)
    auc = float(chosen[0])
    return Pruning(saved, model, before, before, auc, auc, 0.0, 0.0)


class _Scorer:
    """Scores out-of-fold probabilities of the training images, all on the same draws."""

    def __init__(self, saved: SavedRun) -> None:
        known, record = saved.labels["train"], saved.record
        self.labels, self.groups = known.labels, known.groups
        self.folds = Folds(known.folds, record["folds"]["count"], record["folds"]["groups"], ())
        self.rule = ThresholdRule.parse(record["thresholds"]["rule"])
        self._names, self._left_out = saved.label_names, record["selection"]["left_out"]
        self._resampling = resample(len(self.labels), self.groups, record["intervals"]["seed"])

    def score(self, probabilities: Probabilities) -> np.ndarray:
        """The macro AUC, float64 (1 + draws,)."""
        of_labels = {}
        for name, truth, column in zip(self._names, self.labels.T, probabilities.T, strict=True):
            by_fold = ByFold(column[None], self.folds.fold_of_row[None])
            of_labels[name] = score_label("roc_auc", truth, column, self._resampling, by_fold)
        return mean_over_labels(of_labels, self._left_out)


class _Tried(NamedTuple):
    """A model that is tried: the run that holds it, its name, and its out-of-fold probabilities."""

    run: SavedRun
    model: str
    out_of_fold: Probabilities


def _refit(
    saved: SavedRun, base: str, members: Sequence[str], known: Mapping[str, Probabilities], scorer: _Scorer
) -> _Tried:
    """Fit an ensemble again to fewer members."""
    estimator = saved.load_model(saved.models[base]["files"][0])
    assert isinstance(estimator, BaseEstimator)
    seen = np.stack([known[member] for member in members], axis=2)[None]
    prediction, fitted = cross_fit_second_level(estimator, seen, scorer.labels, [scorer.folds], None)
    shares = dict(zip(members, getattr(fitted, "weights_", np.ones(0)).tolist(), strict=False))
    shares = {member: share for member, share in shares.items() if share > 0}
    run = _add(saved, f"{base}-pruned", members, shares, fitted, prediction.out_of_fold, scorer)
    return _Tried(run, f"{base}-pruned", prediction.out_of_fold)


def _calibrate(tried: _Tried, calibration: str, scorer: _Scorer) -> _Tried:
    """Calibrate a model as the run did its final one."""
    before, estimator = tried.out_of_fold, CALIBRATIONS[calibration].make()
    prediction, fitted = cross_fit_second_level(estimator, before[None], scorer.labels, [scorer.folds], None)
    name, scaled = f"{tried.model}+{calibration}", fitted.predict_proba(before)
    return _Tried(_add(tried.run, name, [tried.model], {}, fitted, scaled, scorer), name, prediction.out_of_fold)


def _add(
    run: SavedRun,
    name: str,
    members: Sequence[str],
    shares: Mapping[str, float],
    fitted: BaseEstimator,
    scaled: Probabilities,
    scorer: _Scorer,
) -> PrunedRun:
    """Add a model of others to a run, with thresholds of the run's rule on its probabilities."""
    entry = {"members": [*members], "shares": {**shares}, "files": [name], "backbones": []}
    thresholds = fit_thresholds(scorer.labels, scaled, scorer.rule, scorer.groups)
    estimators = {**(run.estimators if isinstance(run, PrunedRun) else {}), name: fitted}
    record = {**run.record, "models": {**run.models, name: entry}}
    return PrunedRun(run.folder, record, estimators, {name: thresholds})


def _taken_apart(saved: SavedRun, model: str) -> tuple[str, str | None]:
    """Tell the model before calibration, and the calibration; None without one."""
    entry = saved.models[model]
    if len(entry["members"]) == 1 and model.startswith(f"{entry['members'][0]}+"):
        return entry["members"][0], saved.record["calibration"]
    return model, None


def _passes(saved: SavedRun, backbones: Sequence[str]) -> list[list[str]]:
    """The rows of features that each pass of a backbone gives, of those named, in the order of what they add."""
    order = read_run_table(saved, BACKBONES_TABLE)
    ranked = [*order["backbone"]] if len(order) else []
    rows = sorted(backbones, key=lambda name: ranked.index(name) if name in ranked else len(ranked))
    recipes = {name: saved.recipes[name] for name in rows}
    return [[recipe.backbone for recipe in kinds.values()] for _, kinds in group_passes(recipes)]


def _subsets(saved: SavedRun, passes: Sequence[Sequence[str]], members: Sequence[str]) -> Iterator[set[str]]:
    """The choices of fewer passes that serve two members or more: by the rows of features that are left."""
    for count in range(1, len(passes)):
        for some in combinations(passes, count) if len(passes) <= _PASSES else [passes[:count]]:
            rows = {*chain.from_iterable(some)}
            if sum({*saved.needs(member)} <= rows for member in members) > 1:
                yield rows


def _costs(saved: SavedRun) -> dict[str, float]:
    """Seconds that a pass takes for an image, by the rows that it gives.

    Raises:
        InputError: the run does not say them.
    """
    table = read_run_table(saved, BACKBONES_TABLE)
    images = sum(split["images"] - len(split["rejected"]) for split in saved.record["splits"].values())
    seconds = dict(zip(table["backbone"], table["seconds"] / images, strict=True)) if len(table) else {}
    missing = [name for name in saved.widths if not seconds.get(name, 0) > 0]  # which what is not a number is not
    if missing:
        raise InputError(
            f"--prune: {saved.folder / BACKBONES_TABLE} does not say what {missing[0]} costs: the seconds stand there "
            "where a run has several backbones and their cache files hold them. Leave --prune out."
        )
    return seconds


def _cost(saved: SavedRun, seconds: Mapping[str, float], rows: Sequence[str] | set[str]) -> float:
    """Seconds an image that rows of features take: one pass gives several of them."""
    return sum(max(seconds[name] for name in own) for own in _passes(saved, [*rows]))
