"""Cross-fit the models of a run: baselines and heads, each fit by itself, as many at a time as there are cores."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning

from classify.crossfit.memory import FitSize, jobs_in_memory
from classify.crossfit.plan import REFIT, Fit, FitPlan, FitRows, Prediction, in_threads
from classify.crossfit.store import KEEP_NONE, FitKeys, FitStore, pack_fit, unpack_fit
from classify.crossfit.tasks import tasks_in_use
from classify.inputs import Inputs
from classify.models.files import SavedEstimator, predict_rows
from classify.models.heads import HeadSpec
from classify.models.trained_head import TrainedHead
from features.common.arrays import Features, Groups, Labels
from features.common.errors import InputError
from features.folds.folds import FoldRows, split_rows
from features.folds.tuning import put_beside
from features.store.mapped import AnyFeatures, MappedFeatures, take_rows


class Candidate(NamedTuple):
    """A model to cross-fit, and the columns that it sees.

    It is an unfitted estimator, which has `converged_` once fitted, or the spec of a head, with a batch size. Fits of
    one that is not known, a person's own, are never found again: its code may have changed.
    """

    model: BaseEstimator | HeadSpec
    columns: slice
    known: bool = True


class CrossFitted(NamedTuple):
    """Models by name, such as `logistic/resnet50`: what they predict, and the fitted one of each fit of the plan."""

    predictions: dict[str, Prediction]
    models: dict[str, tuple[SavedEstimator | TrainedHead, ...]]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Fitting:
    """What makes the fits of a plan, in this process or another.

    Attributes:
        train: features of the N rows to learn from.
        labels: uint8 (N, L), theirs.
        groups: theirs; None where no groups are known.
        views: float32 (N, V, D), theirs; None without.
        test: features to predict; None without.
        fits: the rows of each fit.
        head_rows: the rows of each fit of a head; empty without heads.
        seed: of the heads.
        tuned: of each fine-tuned backbone its columns, and its features of the N rows by fit.
    """

    train: AnyFeatures
    labels: Labels
    groups: Groups | None
    views: Features | None
    test: AnyFeatures | None
    fits: Sequence[FitRows]
    head_rows: Sequence[FoldRows]
    seed: int
    tuned: Sequence[tuple[slice, Sequence[MappedFeatures]]] = ()

    def fit(self, candidate: Candidate, number: int) -> Fit:
        """Fit a candidate once; let it predict the rows held out and, where asked, test."""
        seen = put_beside(self.train, candidate.columns, [(own, by_fit[number]) for own, by_fit in self.tuned])
        if isinstance(candidate.model, HeadSpec):
            from classify.bank import train as bank  # what is compiled takes time to load

            split = bank.HeadSplit(*self.head_rows[number][:2])
            drawn = None if self.views is None else self.views[:, :, candidate.columns]
            [head] = bank.train_bank([candidate.model], seen, self.labels, split, self.seed, views=drawn)
            return self._predict(candidate, number, seen, head, head.best_epoch > 0, head.seconds)
        started, learnt = time.perf_counter(), self.fits[number].learnt
        groups = None if self.groups is None else self.groups[learnt]
        model = clone(candidate.model).fit(take_rows(seen, learnt), self.labels[learnt], groups)
        seconds = time.perf_counter() - started
        return self._predict(candidate, number, seen, SavedEstimator(model), model.converged_, seconds)

    def fit_and_pack(self, candidate: Candidate, number: int) -> bytes:
        """Fit as `fit`; gives the bytes of a finished fit, which travel."""
        return pack_fit(self.fit(candidate, number))

    def _predict(
        self,
        candidate: Candidate,
        number: int,
        seen: AnyFeatures,
        fitted: SavedEstimator | TrainedHead,
        converged: bool,
        seconds: float,
    ) -> Fit:
        """Let a fitted model predict; `seconds` are those of fitting it."""
        started = time.perf_counter()
        rows = self.fits[number]
        out_of_fold = np.empty((0, self.labels.shape[1]), np.float32)  # no estimator of scikit-learn takes no rows
        if len(rows.held_out):
            out_of_fold = predict_rows(fitted, take_rows(seen, rows.held_out))
        test = None
        if self.test is not None and rows.predicts_test:
            test = predict_rows(fitted, self.test[:, candidate.columns])
        return Fit(fitted, out_of_fold, test, converged, seconds + time.perf_counter() - started)


class CrossFit:
    """Every candidate once for each fit of a plan.

    No fit depends on another, to the last bit, so that each is found again whatever else a run is made of. The rows
    that decide when a head stops are taken from the fold's training rows, so that no head knows anything of the rows
    that it is scored on. The head that is refitted on all rows has none to spare: it trains for the median of its
    folds' best epochs, rounded down, and keeps the epoch of the lowest loss on these rows, mostly the last.

    Args:
        candidates: the models by name.
        inputs: what to learn from and predict.
        plan: the fits.
        seed: of the heads: their validation rows, mini-batches and dropout masks.
        store: finished fits; new ones are added.
        keys: of the inputs; without them nothing is found or kept.
    """

    def __init__(
        self,
        candidates: Mapping[str, Candidate],
        inputs: Inputs,
        plan: FitPlan,
        seed: int = 0,
        store: FitStore = KEEP_NONE,
        keys: FitKeys | None = None,
    ) -> None:
        self._candidates, self._inputs, self._plan, self._seed = candidates, inputs, plan, seed
        self._store, self._keys = store, keys
        self._fits = plan.fits()
        self._heads = [name for name, candidate in candidates.items() if isinstance(candidate.model, HeadSpec)]
        self._head_rows: list[FoldRows] = []
        self._warnings: list[str] = []
        if self._heads:
            self._split_rows_of_heads()
        train, test = inputs.train, None if inputs.test is None else inputs.test.features
        rows = self._fits, self._head_rows
        self._fitting = Fitting(
            train.features, inputs.train_labels, train.groups, train.views, test, *rows, seed, self._tuned()
        )

    def _tuned(self) -> list[tuple[slice, list[MappedFeatures]]]:
        """Find by which backbone of a fine-tuning each fit sees rows, of those that candidates see.

        Raises:
            InputError: a fit holds out rows that all of them have seen, or does not learn from some that they have.
        """
        found = []
        for name, own in self._inputs.train.tuned.items():
            columns = self._inputs.columns[name]
            if any(name in _backbones_within(one.columns, self._inputs) for one in self._candidates.values()):
                fits = [own.of_fit(fit.learnt, fit.held_out) for fit in self._fits]
                if any(fit.predicts_test and fit.name != REFIT for fit in self._fits):
                    raise InputError(
                        f"{name} was fine-tuned: test is predicted by models fitted on all rows. Add --refit."
                    )
                found.append((columns, fits))
        return found

    def list_keys(self) -> dict[str, list[str]]:
        """What the fits are found by, by model; those of heads on all rows are known once their folds are."""
        of_models = {
            name: [self._key(candidate, number) for number in self._numbers(name, later=False)]
            for name, candidate in self._candidates.items()
        }
        return {name: [key for key in keys if key] for name, keys in of_models.items()}

    def run(
        self,
        jobs: int,
        on_fit: Callable[[], None] = lambda: None,
        on_model: Callable[[str, float], None] = lambda name, seconds: None,
    ) -> CrossFitted:
        """Find or make all fits; gives the models in the order of the candidates.

        Args:
            jobs: how many fits run at a time, as far as the memory has room. It does not change any probability.
            on_fit: called after each of the len(candidates) * len(plan.fits()) fits, from any thread.
            on_model: called with a model's name and the seconds of its fits when the last of them is made or found.
        """
        lock = Lock()
        left, spent = dict.fromkeys(self._candidates, len(self._fits)), dict.fromkeys(self._candidates, 0.0)

        def count(name: str, fit: Fit) -> None:
            on_fit()
            with lock:
                left[name] -= 1
                spent[name] += fit.seconds
                if not left[name]:
                    on_model(name, spent[name])

        make = self._maker(jobs)
        found: dict[str, list[Fit]] = {name: [] for name in self._candidates}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` says it
            for later in (False, True):
                wanted = [(name, number) for name in self._candidates for number in self._numbers(name, later)]
                models = {
                    name: self._for_all_rows(name, found[name]) if later else self._candidates[name]
                    for name, _ in wanted
                }
                calls = [(name, models[name], number) for name, number in wanted]
                fits = self._recall(calls, jobs, make, count)
                for (name, _), fit in zip(wanted, fits, strict=True):
                    found[name].append(fit)
        backbones = {name: _backbones_within(one.columns, self._inputs) for name, one in self._candidates.items()}
        return CrossFitted(
            {name: self._plan.gather(fits, backbones[name]) for name, fits in found.items()},
            {name: tuple(fit.model for fit in fits) for name, fits in found.items()},
            (*self._warnings, *self._unfinished(found)),
        )

    def _recall(
        self,
        calls: Sequence[tuple[str, Candidate, int]],
        jobs: int,
        make: Callable[[list[tuple[Candidate, int]], Callable[[int, Fit], None]], None],
        count: Callable[[str, Fit], None],
    ) -> list[Fit]:
        """Find fits of models, candidates and numbers, and make and keep those that are missing; count each."""

        def find(name: str, candidate: Candidate, number: int) -> tuple[str | None, Fit | None]:
            key = self._key(candidate, number)
            fit = self._store.find(key) if key else None
            if fit is not None:
                count(name, fit)
            return key, fit

        found = in_threads(jobs, find, calls)
        fits = {place: fit for place, (_, fit) in enumerate(found) if fit is not None}
        missing = [place for place in range(len(calls)) if place not in fits]

        def take(turn: int, fit: Fit) -> None:
            place = missing[turn]
            fits[place] = fit
            if key := found[place][0]:
                self._store.keep(key, fit)
            count(calls[place][0], fit)

        make([calls[place][1:] for place in missing], take)
        return [fits[place] for place in range(len(calls))]

    def _maker(self, jobs: int) -> Callable[[list[tuple[Candidate, int]], Callable[[int, Fit], None]], None]:
        """What makes fits, so many at a time, and hands over each with its place: threads, or tasks of a cluster."""
        rows = max(len(fit.learnt) for fit in self._fits)
        sizes = [self._size(one, rows) for one in self._candidates.values()]
        tasks = tasks_in_use() if any(size.width for size in sizes) else None  # the prior's fits are nothing to send
        if tasks is None or tasks.is_here:
            jobs = jobs_in_memory(min(jobs, len(sizes) * len(self._fits) or 1), sizes)

        def by_threads(calls: list[tuple[Candidate, int]], take: Callable[[int, Fit], None]) -> None:
            in_threads(jobs, lambda turn, call: take(turn, self._fitting.fit(*call)), enumerate(calls))

        def by_tasks(calls: list[tuple[Candidate, int]], take: Callable[[int, Fit], None]) -> None:
            shared.run(calls, lambda turn, packed: take(turn, unpack_fit(packed)), at_a_time)

        if tasks is None:
            return by_threads
        shared, at_a_time = tasks.share(self._fitting.fit_and_pack), jobs if tasks.is_here else None
        return by_tasks

    def _size(self, candidate: Candidate, rows: int) -> FitSize:
        """What decides the memory of a fit to so many rows."""
        spec, features = candidate.model, self._inputs.train.features
        width = len(range(*candidate.columns.indices(features.shape[1])))
        parameters = spec.count_parameters(width, len(self._inputs.label_names)) if isinstance(spec, HeadSpec) else 0
        return FitSize(spec, rows, width, parameters, isinstance(features, MappedFeatures))

    def _numbers(self, name: str, later: bool) -> list[int]:
        """The fits of a model by number: those that need others before them, a head's on all rows, or the rest."""
        waits = [name in self._heads and fit.name == REFIT for fit in self._fits]
        return [number for number, needs in enumerate(waits) if needs == later]

    def _for_all_rows(self, name: str, of_folds: Sequence[Fit]) -> Candidate:
        """A head that trains for the median of the folds' best epochs, at least one, and does not stop before."""
        candidate = self._candidates[name]
        assert isinstance(candidate.model, HeadSpec)
        best = [fit.model.best_epoch for fit in of_folds if isinstance(fit.model, TrainedHead)]
        spec = replace(candidate.model, epochs=max(1, int(np.median(best))), patience=1.0)
        return candidate._replace(model=spec)

    def _key(self, candidate: Candidate, number: int) -> str | None:
        """What a fit is found by; None without keys."""
        if self._keys is None or not candidate.known:
            return None
        model, backbones = candidate.model, _backbones_within(candidate.columns, self._inputs)
        if isinstance(model, HeadSpec):
            settings = (model, self._seed, self._fits[number].predicts_test, *self._keys.of_views)
            return self._keys.make(backbones, *settings, *self._head_rows[number][:3])
        return self._keys.make(backbones, type(model), model.get_params(), *self._fits[number])

    def _split_rows_of_heads(self) -> None:
        """Split the rows of each fold into those to learn from and those that decide when its heads stop."""
        for fit in self._fits:
            known = self._inputs.train_labels, self._inputs.train.groups, self._inputs.label_names
            rows = None if fit.name == REFIT else split_rows(fit.learnt, fit.held_out, *known, self._seed)
            if rows is None and fit.name != REFIT:
                self._warnings.append(
                    f"heads of {fit.name}: none of its training rows can be set aside to decide when a head stops, so "
                    "the rows that the heads learnt from decided"
                )
            elif rows is not None and rows.lacking:
                self._warnings.append(
                    f"heads of {fit.name}: the rows that decide when a head stops, or those that it learns from, have "
                    f"one value alone of {', '.join(rows.lacking)}"
                )
            self._head_rows.append(rows or FoldRows(fit.learnt, fit.learnt, fit.held_out))

    def _unfinished(self, of_models: Mapping[str, Sequence[Fit]]) -> list[str]:
        """Say which solvers did not converge, and which heads diverged."""
        said = []
        for name, fits in of_models.items():
            unfinished = sum(not fit.converged for fit in fits)
            if unfinished and name in self._heads:
                said.append(
                    f"{name}: its head diverged in {unfinished} of {len(fits)} fits and has its initial weights there; "
                    "lower its learning rate, or leave it out of --preset"
                )
            elif unfinished:
                said.append(f"{name}: its solver stopped before it converged")
        return said


def _backbones_within(columns: slice, inputs: Inputs) -> tuple[str, ...]:
    """List the backbones whose columns of the features lie in a slice."""
    start, stop, _ = columns.indices(inputs.train.features.shape[1])
    return tuple(name for name, own in inputs.columns.items() if start <= own.start and own.stop <= stop)
