"""Search for good heads: Optuna proposes whole batches, the bank trains each batch together, scored out-of-fold."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import cpu_count

from classify.bank import train as bank
from classify.bank.auc import mean_auc
from classify.crossfit.plan import in_threads
from classify.crossfit.store import digest_parts
from classify.crossfit.tasks import tasks_in_use
from classify.inputs import Inputs
from classify.models.files import predict_rows
from classify.models.heads import ClassWeight, HeadSpec
from classify.options import SearchOptions
from classify.search.study import StudyFile
from classify.settings import choose_exclusive
from features.common.arrays import MemberProbabilities
from features.common.errors import InputError, Stopped, unmasked_signals
from features.folds.folds import FoldRows, Folds, make_folds, split_rows
from features.store.mapped import AnyFeatures, take_rows

if TYPE_CHECKING:
    import optuna

#: Hidden layers by the name that Optuna stores: its categories are plain values, no tuples.
HIDDEN_UNITS: dict[str, tuple[int, ...]] = {"none": (), "32": (32,), "128": (128,), "128-32": (128, 32)}
#: Fields that a stack of the bank is made for, of few values each: heads that differ here share no matrix product.
STRUCTURE: dict[str, tuple[Any, ...]] = {
    "hidden_units": tuple(HIDDEN_UNITS),
    "batch_norm": (True, False),
    "dropout": (0.0, 0.25, 0.5),
    "optimiser": ("adam", "sgd"),
    "batch_size": (64, 256),
}
CLASS_WEIGHTS: tuple[ClassWeight, ...] = ("none", "balanced")
#: Bounds, both logarithmic. SGD takes far larger steps than Adam, so each optimiser has its own parameter.
LEARNING_RATES = {"adam": (1e-4, 3e-2), "sgd": (1e-3, 1.0)}
L2 = (1e-6, 1e-2)
LABEL_SMOOTHING = (0.0, 0.1)
EPOCHS = 60
PATIENCE = 0.1
#: Proposals of a batch for each of its structures, which share matrix products: ten linear heads, say, take one.
HEADS_PER_STRUCTURE = 10
#: The user attribute of a trial that holds its macro AUC by fold; None where no label of a fold has both values.
FOLD_AUCS = "fold_aucs"


class _OutOfTime(Exception):
    """The time ran out in the middle of a batch."""


def propose(trial: "optuna.trial.BaseTrial", seed: int) -> HeadSpec:
    """Draw a head of a trial that was asked; of a finished one, give its head back. The seed is of its weights."""
    structure = {name: trial.suggest_categorical(name, values) for name, values in STRUCTURE.items()}
    optimiser = structure["optimiser"]
    class_weight: Any = trial.suggest_categorical("class_weight", CLASS_WEIGHTS)
    low, high = LEARNING_RATES[optimiser]
    return HeadSpec(
        **(structure | {"hidden_units": HIDDEN_UNITS[structure["hidden_units"]]}),
        learning_rate=trial.suggest_float(f"learning_rate_{optimiser}", low, high, log=True),
        l2=trial.suggest_float("l2", *L2, log=True),
        class_weight=class_weight,
        label_smoothing=trial.suggest_float("label_smoothing", *LABEL_SMOOTHING),
        epochs=EPOCHS,
        patience=PATIENCE,
        seed=seed,
    )


def make_search_folds(inputs: Inputs, count: int, seed: int) -> tuple[Folds, list[FoldRows]]:
    """Split the rows: in every fold some to learn from, some to decide when to stop, some to score.

    Raises:
        InputError: there are fewer rows or groups than folds, or too few to set some aside for early stopping.
    """
    folds = make_folds(inputs.train_labels, inputs.train.groups, inputs.label_names, count, seed)
    parts = []
    for learnt, held_out in folds.split():
        rows = split_rows(learnt, held_out, inputs.train_labels, inputs.train.groups, inputs.label_names, seed)
        if rows is None:
            raise InputError(
                f"a fold is left with {len(learnt)} rows to train on, all of one group or of one value in every label: "
                "too few to learn from and to decide when to stop. Add data, or use more --folds."
            )
        parts.append(rows)
    return folds, parts


def identify_study(inputs: Inputs, folds: Sequence[FoldRows], options: SearchOptions) -> dict[str, Any]:
    """Say what two trials have to have in common for their scores to be comparable; see `open_study`."""
    space = (HIDDEN_UNITS, STRUCTURE, CLASS_WEIGHTS, LEARNING_RATES, L2, LABEL_SMOOTHING, EPOCHS, PATIENCE)
    rows = [part for fold in folds for part in (fold.train, fold.validation, fold.held_out)]
    return {
        "label names": ", ".join(inputs.label_names),
        "backbones": inputs.train.fingerprints,
        "features": digest_parts(inputs.train.features),
        "labels": digest_parts(inputs.train_labels),
        "seed": options.seed,
        "number of folds": options.folds,
        "folds": digest_parts(*rows),
        "search space": digest_parts(space),
        "output": "softmax" if choose_exclusive(options.exclusive, inputs)[0] else "sigmoid",
    }


def run_search(
    inputs: Inputs,
    folds: Sequence[FoldRows],
    options: SearchOptions,
    until: float,
    study_file: StudyFile,
    on_trials: Callable[[float], None],
    on_batch: Callable[[], None],
) -> str | Stopped:
    """Ask for, train and report whole batches until the study holds enough trials or the time is up.

    What is proposed depends on the seed and on the trials that the study holds, so that a search which was interrupted
    between two batches goes on as it would have.

    Args:
        inputs: what to learn from.
        folds: of `make_search_folds`.
        options: trials, batch and seed.
        until: the time, of `time.perf_counter`, after which nothing is asked or trained.
        study_file: holds earlier trials; each batch is added to it once it is trained.
        on_trials: called after every epoch with how many trials' worth of work that was.
        on_batch: called when a batch has been added.

    Returns:
        Why it ended: `all trials are done`, `the time is up`, or the signal that stopped it; the batch in flight is
        then lost.
    """
    import optuna

    exclusive, _ = choose_exclusive(options.exclusive, inputs)
    study = optuna.create_study(direction="maximize")
    study.add_trials(study_file.trials)
    trainer, longest = FoldTrainer(inputs, folds, options.seed), 0.0
    try:
        with unmasked_signals():
            while (missing := options.trials - len(study_file.trials)) > 0:
                started = time.perf_counter()
                if started + longest > until:
                    return "the time is up"

                def report(heads_epochs: int) -> None:
                    if time.perf_counter() > until:
                        raise _OutOfTime
                    on_trials(heads_epochs / (len(folds) * EPOCHS))

                trials = ask_batch(study, min(options.batch, missing), options.seed, len(study_file.trials))
                specs = [propose(trial, options.seed).for_classes(exclusive) for trial in trials]
                out_of_fold = trainer.train(specs, report)
                longest = max(longest, time.perf_counter() - started)
                _tell(study, trials, out_of_fold, inputs.train_labels, folds)
                study_file.add([study.get_trials(deepcopy=False)[trial.number] for trial in trials])
                on_batch()
    except _OutOfTime:
        return "the time is up"
    except Stopped as stop:
        return stop
    return "all trials are done"


def ask_batch(study: "optuna.Study", count: int, seed: int, finished: int) -> list["optuna.Trial"]:
    """Ask for trials together, whose heads `propose` gives.

    The first few choose their structure freely, all of one batch size; the others take theirs over and differ in the
    rest, so that a batch shares matrix products. The sampler counts every trial that runs
    as a bad one ("constant liar"), which keeps the batch from crowding in one place.

    Each batch has its own random numbers, by the seed of the search and the number of finished trials.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import PartialFixedSampler, TPESampler

    sampler = TPESampler(seed=int(np.random.SeedSequence([seed, finished]).generate_state(1)[0]), constant_liar=True)
    structures = math.ceil(count / HEADS_PER_STRUCTURE)
    trials: list[optuna.Trial] = []
    for index in range(count):
        fixed: dict[str, Any] = {}
        if index >= structures:
            leader = trials[index % structures].params
            fixed = {name: leader[name] for name in STRUCTURE}
        elif index:
            fixed = {"batch_size": trials[0].params["batch_size"]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.sampler = PartialFixedSampler(fixed, sampler)
        trial = study.ask()
        propose(trial, seed)  # draws the parameters, which the next trial's sampler has to know
        trials.append(trial)
    return trials


class FoldTrainer:
    """Trains heads together, once per fold; each row is predicted by those of the fold that held it out.

    As many folds train at a time as there are cores.

    Args:
        inputs: what to learn from.
        folds: of `make_search_folds`.
        seed: as of `train_bank`.
    """

    def __init__(self, inputs: Inputs, folds: Sequence[FoldRows], seed: int) -> None:
        self._train = partial(_train_fold, inputs.train.features, inputs.train_labels, seed)
        self._shape, self._folds = inputs.train_labels.shape, folds
        tasks = tasks_in_use()
        self._shared = None if tasks is None else tasks.share(self._train)

    def train(self, specs: Sequence[HeadSpec], on_epochs: Callable[[int], None]) -> MemberProbabilities:
        """Train heads; the callback, as of `train_bank`, is called after each epoch, or each fold of a cluster."""
        out_of_fold = np.empty((*self._shape, len(specs)), dtype=np.float32)

        def take(place: int, probabilities: np.ndarray) -> None:
            out_of_fold[self._folds[place].held_out] = probabilities

        def count(place: int, probabilities: np.ndarray) -> None:
            take(place, probabilities)
            on_epochs(sum(spec.epochs for spec in specs))

        if self._shared is None:
            folds = enumerate(self._folds)
            in_threads(cpu_count(), lambda place, fold: take(place, self._train(specs, fold, on_epochs)), folds)
        else:
            self._shared.run([(specs, fold) for fold in self._folds], count, on_wait=lambda: on_epochs(0))
        return out_of_fold


def _train_fold(
    features: AnyFeatures,
    labels: np.ndarray,
    seed: int,
    specs: Sequence[HeadSpec],
    fold: FoldRows,
    on_epochs: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Train heads on a fold; gives what they predict of the rows held out: float32 (n, L, heads)."""
    heads = bank.train_bank(specs, features, labels, bank.HeadSplit(fold.train, fold.validation), seed, on_epochs)
    held_out = take_rows(features, fold.held_out)
    return np.stack([predict_rows(head, held_out) for head in heads], axis=-1)


def best_trials(trials: Sequence["optuna.trial.FrozenTrial"], count: int) -> list["optuna.trial.FrozenTrial"]:
    """The finished trials of the highest macro AUC, best first, at most so many, and only one of each structure.

    A search ends with many heads that are nearly the same; an ensemble gains by heads of other structures.
    """
    best: dict[tuple[Any, ...], optuna.trial.FrozenTrial] = {}
    for trial in sorted(trials, key=lambda trial: (-(trial.value or 0.0), trial.number)):
        best.setdefault(tuple(trial.params[name] for name in STRUCTURE), trial)
    return list(best.values())[:count]


def cross_fitted_choice(fold_aucs: np.ndarray) -> float | None:
    """Estimate what choosing the best of many trials is worth on rows that had no part in the choice.

    For each fold in turn, the trial that is best on the other folds is scored on this one; gives the mean over the
    folds, or None if fewer than two have a value. The highest score of many is optimistic even where there is nothing
    to learn; this mean is then about 0.5. It is not perfect: the proposals themselves were guided by all folds.

    Args:
        fold_aucs: float array (T, K), 0-1: macro AUC by trial and fold; a column of NaN where a fold has none.
    """
    known = fold_aucs[:, ~np.isnan(fold_aucs).any(axis=0)]
    if known.shape[1] < 2:
        return None
    on_others = known.sum(axis=1, keepdims=True) - known
    return float(np.mean([known[on_others[:, fold].argmax(), fold] for fold in range(known.shape[1])]))


def _tell(
    study: "optuna.Study",
    trials: Sequence["optuna.Trial"],
    out_of_fold: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[FoldRows],
) -> None:
    """Tell Optuna how good the heads of a batch are: over the pairs within a fold; the folds alone as an attribute."""
    fold_of_row = np.empty(len(labels), dtype=np.int64)
    for number, fold in enumerate(folds):
        fold_of_row[fold.held_out] = number
    of_folds = np.array([mean_auc(out_of_fold[fold.held_out], labels[fold.held_out]) for fold in folds])
    for trial, auc, by_fold in zip(trials, mean_auc(out_of_fold, labels, fold_of_row), of_folds.T, strict=True):
        trial.set_user_attr(FOLD_AUCS, [None if np.isnan(value) else float(value) for value in by_fold])
        study.tell(trial, float(auc))
