"""What `python -m classify learn` does: train a run's model on growing numbers of groups: its learning curve."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from joblib import cpu_count

from classify.crossfit.models import Candidate, CrossFit
from classify.crossfit.plan import FitPlan, FitRows
from classify.crossfit.store import KEEP_NONE, FitKeys, FitStore
from classify.inputs import Inputs, feature_sets, read_inputs
from classify.models.baselines import BASELINES, PRIOR
from classify.models.heads import HeadSpec
from classify.options import LearnOptions, command_line
from classify.rundir.files import read_run_table
from classify.rundir.folder import LEADERBOARD_TABLE, LEARNING_CURVE, hold_run, writing
from classify.rundir.learning_curve import describe_curve, write_learning_curve
from classify.rundir.saved_run import SavedRun
from classify.scores.learning import LearningCurve, make_curve
from classify.scores.resampling import auc_within_folds, resample
from classify.scores.scoring import mean_over_labels
from features.common.arrays import RowIndices
from features.common.cli import split_names
from features.common.commands import write_command
from features.common.errors import InputError
from features.common.text import count_things, first_few, make_console, progress_bar
from features.dataset.dataset import read_dataset
from features.folds.folds import Folds
from features.options import OF_DATASET, DatasetOptions
from features.store.cache import FeatureCache

#: Shares of each fold's groups that models learn from.
SHARES = (0.2, 0.35, 0.5, 0.7, 1.0)
#: Groups below which there is no curve: the smallest share would hold none or one.
_LEAST_GROUPS = 20


@dataclass(frozen=True)
class SubsetPlan(FitPlan):
    """A plan whose fits learn from some of their rows.

    Attributes:
        learnt: the rows of each fit, in the order of `fits()`.
    """

    learnt: tuple[RowIndices, ...] = ()

    def fits(self) -> list[FitRows]:
        """List the fits, each with its own rows to learn from."""
        whole = FitPlan(self.repeats).fits()
        return [fit._replace(learnt=own) for fit, own in zip(whole, self.learnt, strict=True)]


def learn(options: LearnOptions) -> None:
    """Read the run's data as the run did, train, print what more groups would bring, and write the curve.

    Raises:
        InputError: the run, its data or its features are not there or not as they were; or it has too few groups.
    """
    run = SavedRun.open(options.run)
    model, inputs, folds = read_model(run, options.model)
    console = make_console()
    units = "images" if inputs.train.groups is None else "groups"
    console.print(
        f"{model}: {folds.count} folds, {', '.join(f'{share:.0%}' for share in SHARES)} of their {units}, "
        f"{count_things(options.draws, 'draw')} of each share but the last"
    )
    fits = ((len(SHARES) - 1) * options.draws + 1) * folds.count
    with progress_bar("fitting", fits) as advance:
        store = FitStore.beside(Path(run.record["cache"]), options.fits_gb)
        curve = measure_curve(run, model, inputs, folds, options.draws, options.jobs or cpu_count(), advance, store)
    for point in curve.measured:
        interval = "" if point.low is None else f" [{point.low:.3f}, {point.high:.3f}]"
        console.print(f"{point.groups:8.1f} {units}: macro AUC {point.value:.3f}{interval}")
    console.print(" ".join(describe_curve(curve, units[:-1])))
    with hold_run(run.folder), writing(run.folder):
        write_learning_curve(run.folder, model, curve)
    console.print(f"written: {run.folder / LEARNING_CURVE}; {write_command('classify report', run.folder)} shows it")


def read_model(run: SavedRun, asked: str | None) -> tuple[str, Inputs, Folds]:
    """Find the model to train, the features that it sees, as one backbone, and the run's folds.

    Of an ensemble or a calibration the best baseline or head of the run stands in: to train all members of every size
    would take their time many times over.

    Raises:
        InputError: see `learn`.
    """
    model = run.choose(asked)
    if run.models[model]["members"]:
        ranked = read_run_table(run, LEADERBOARD_TABLE)["model"]
        model = next(name for name in ranked if not run.models[name]["members"] and name != PRIOR)
    if "spec" not in run.models[model] and model.partition("/")[0] not in BASELINES:
        raise InputError(f"{run.folder}: {model} is an estimator of somebody's own, which is not here. Name a --model.")
    if model == PRIOR:
        raise InputError(f"{run.folder}: {PRIOR} sees no features, so it learns nothing from more. Name a --model.")
    record = run.record
    words = {name: record["arguments"][name] for name in OF_DATASET}
    given = DatasetOptions(**{**words, "groups": words["groups"] and Path(words["groups"])})
    cache = FeatureCache(Path(record["cache"]), Path(record["data"]))
    run.refuse_other_features(cache, "train", model)
    augment = record["arguments"].get("augment", False)
    if tuned := [name for name in run.needs(model) if run.recipes[name].tuned]:
        raise InputError(
            f"{model} sees {first_few(tuned)}, fine-tuned on all groups, so that it would know more than the groups it "
            "learns from. Name another --model."
        )
    by = split_names(record["arguments"]["by"], "--by") or ()
    dataset = read_dataset(Path(record["data"]), given, by)
    inputs = read_inputs(dataset, cache, list(record["backbones"]), run.tta, augment)
    of_splits = run.labels
    known = of_splits["train"]
    if record["arguments"]["holdout"] is not None:
        inputs = inputs.select(np.flatnonzero(~np.isin(inputs.train.used_ids, of_splits["test"].image_ids)))
    same = known.image_ids == inputs.train.used_ids and np.array_equal(known.labels, inputs.train_labels)
    if not same:
        raise InputError(
            f"{record['data']} is not as {run.folder} learnt from it: other training images or labels. Make the run "
            f"again: {command_line('classify run', run.folder, record)} --overwrite"
        )
    unit_count = len(known.image_ids) if known.groups is None else len(np.unique(known.groups))
    if unit_count < _LEAST_GROUPS:
        raise InputError(
            f"{run.folder} has {count_things(unit_count, 'group')}; a learning curve needs at least {_LEAST_GROUPS}."
        )
    seen = model.partition("/")[2]
    own = feature_sets(inputs.columns)[seen]
    features = np.ascontiguousarray(inputs.train.features[:, own])
    views = None if inputs.train.views is None else inputs.train.views[:, :, own]
    alone = replace(
        inputs,
        columns={seen: slice(0, features.shape[1])},
        train=replace(inputs.train, features=features, groups=known.groups, views=views),
        test=None,
    )
    return model, alone, Folds(known.folds, record["folds"]["count"], record["folds"]["groups"], ())


def measure_curve(
    run: SavedRun,
    model: str,
    inputs: Inputs,
    folds: Folds,
    draws: int,
    jobs: int,
    on_fit: Callable[[], None],
    store: FitStore = KEEP_NONE,
) -> LearningCurve:
    """Cross-fit the model on every share of the groups, score it out-of-fold, and fit the curve.

    Args:
        run: what it is of: the model's settings, the seed, the labels without a part in the mean.
        model: of `read_model`, as the two that follow.
        inputs: its features.
        folds: the run's.
        draws: how often each share but all is drawn; the shares of a draw are nested.
        jobs: fits at a time.
        on_fit: called after each fit.
        store: the fits of earlier curves; new ones are added.
    """
    seed = run.record["arguments"]["seed"]
    labels = inputs.train_labels
    candidate, keys = _candidate(run, model, inputs), FitKeys(inputs)
    resampling = resample(len(labels), inputs.train.groups, seed)
    rng = np.random.default_rng(seed)
    sizes, scores = [], []
    units_of = [np.unique(resampling.unit_of_row[rows]) for rows, _ in folds.split()]
    orders = [[rng.permutation(units) for units in units_of] for _ in range(draws)]
    for share in SHARES:
        own = orders if share < 1 else orders[:1]
        kept = [order[: max(1, round(share * len(order)))] for of_draw in own for order in of_draw]
        learnt = tuple(np.flatnonzero(np.isin(resampling.unit_of_row, units)) for units in kept)
        plan = SubsetPlan((folds,) * len(own), learnt=learnt)
        cross_fit = CrossFit({model: candidate}, inputs, plan, seed, store, keys)
        by_repeat = cross_fit.run(jobs, on_fit).predictions[model].by_repeat
        of_draws = np.stack(
            [
                mean_over_labels(
                    {
                        name: auc_within_folds(labels[:, n], repeat[None, :, n], folds.fold_of_row[None], resampling)
                        for n, name in enumerate(inputs.label_names)
                    },
                    run.record["selection"]["left_out"],
                )
                for repeat in by_repeat
            ]
        )
        sizes.append(float(np.mean([len(units) for units in kept])))
        # A bootstrap draw of the groups that score also draws again which groups were learnt from.
        picked = rng.integers(0, len(own), (of_draws.shape[1], len(own)))
        mixed = of_draws[picked, np.arange(of_draws.shape[1])[:, None]].mean(axis=1)
        mixed[0] = of_draws[:, 0].mean()
        scores.append(mixed)
    return make_curve(np.array(sizes), np.array(scores))


def _candidate(run: SavedRun, model: str, inputs: Inputs) -> Candidate:
    """The model of the run, not fitted, on all columns."""
    entry, every = run.models[model], slice(0, inputs.train.features.shape[1])
    if "spec" in entry:
        return Candidate(HeadSpec(**{**entry["spec"], "hidden_units": tuple(entry["spec"]["hidden_units"])}), every)
    return Candidate(BASELINES[model.partition("/")[0]].make(), every)
