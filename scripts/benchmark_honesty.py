"""Simulations with a known truth: whether intervals hold it, and what scores say where there is nothing to learn."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from rich.table import Table
from scipy.special import expit, logit
from scipy.stats import gamma, norm

from classify.experiment import run_experiment
from classify.inputs import Inputs, SplitInputs
from classify.scores.choice import may_be_chance
from classify.scores.metrics import ThresholdRule
from classify.scores.resampling import resample
from classify.scores.scoring import ByFold, score
from classify.scores.thresholds import fit_thresholds, make_promise
from classify.settings import Settings
from classify.validation import validate
from features.common.text import make_console
from scripts.benchmark_means import benchmark_means

#: Patients, and positives among their ten slices each, of the cases.
PATIENTS, POSITIVES = (20, 60, 120), (3, 10, 30, 100)
_SLICES, _FOLDS = 10, 5
#: Of the simulated scores: the distance of positives from negatives, in standard deviations; how alike slices of one
#: patient are; the sensitivity of the decisions.
_DISTANCE, _CORRELATION, _SENSITIVITY = 1.2, 0.4, 0.8
#: What thresholds are fitted for, and on what: positives, patients that have one, whether their logits are skewed.
_PROMISED, _AIMED = ThresholdRule.parse("sensitivity>=0.95@95"), ThresholdRule.parse("sensitivity=0.95")
_PROMISES = (
    (8, 8, False), (24, 24, False), (24, 24, True), (24, 8, False),
    (120, 120, False), (120, 120, True), (240, 40, False),
)  # fmt: skip


def simulate_slices(
    rng: np.random.Generator, patients: int, positives: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw slices whose scores are alike within a patient; the positives are of as few as a third of the patients.

    Returns:
        uint8 (N,) truth, float64 (N,) scores, int64 (N,) patients.
    """
    patient = np.repeat(np.arange(patients), _SLICES)
    bleeding = min(positives, max(patients // 3, -(-positives // _SLICES)))
    truth = np.zeros(patients * _SLICES, np.uint8)
    order = rng.permutation(patients)[:bleeding]
    numbers = np.arange(positives)
    truth[order[numbers % bleeding] * _SLICES + numbers // bleeding] = 1
    of_patient = rng.normal(size=patients)[patient]
    noise = np.sqrt(_CORRELATION) * of_patient + np.sqrt(1 - _CORRELATION) * rng.normal(size=len(truth))
    return truth, _DISTANCE * truth + noise, patient


def _hold(patients: int, positives: int, seed: int) -> dict[str, bool | None]:
    """Whether the intervals of one simulated label hold the truth; None where none is given."""
    truth, scores, patient = simulate_slices(np.random.default_rng([patients, positives, seed]), patients, positives)
    # What a calibrated model gives: of two normal distributions, positives _DISTANCE above negatives.
    odds = logit(truth.mean()) + _DISTANCE * scores - _DISTANCE**2 / 2
    p = expit(odds).astype(np.float32)[:, None]
    decided = (scores >= _DISTANCE - norm.ppf(_SENSITIVITY)).astype(np.uint8)[:, None]
    drawn = resample(len(truth), patient.astype(str), seed, draws=400)
    by_fold = ByFold(p[None], (patient % _FOLDS)[None])
    found = score(truth[:, None], p, decided, p, ("label",), drawn, by_fold).scores
    known = {s.metric: s for s in found if s.label == "label"}
    expected = {"roc_auc": norm.cdf(_DISTANCE / np.sqrt(2)), "sensitivity": _SENSITIVITY, "calibration_slope": 1.0}
    ends = {metric: (known[metric].low, known[metric].high) for metric in expected}
    return {
        metric: None if low is None or high is None else low <= expected[metric] <= high
        for metric, (low, high) in ends.items()
    }


def _keep_promise(positives: int, patients: int, skewed: bool, seed: int) -> tuple[bool, bool, str]:
    """Whether the population's sensitivity is as promised; as aimed at without a confidence; what the promise is by.

    Scores of the positives are normal, alike by a half within a patient, or skewed to the left (a gamma distribution).
    """
    rng = np.random.default_rng([positives, patients, seed])
    patient = np.arange(positives) % patients
    alike = 0.5 if patients < positives else 0.0
    scores = np.sqrt(alike) * rng.normal(size=patients)[patient] + np.sqrt(1 - alike) * rng.normal(size=positives)
    lowest = norm.ppf(1 - _PROMISED.value)
    if skewed:
        scores, lowest = -rng.gamma(2, size=positives), -gamma.ppf(_PROMISED.value, 2)
    truth = np.repeat([1, 0], [positives, 300]).astype(np.uint8)
    p = expit(np.append(scores, rng.normal(size=300) - 2)).astype(np.float32)
    promise = make_promise(truth, p, _PROMISED, np.append(patient, patients + np.arange(300)))
    (aimed,) = fit_thresholds(truth[:, None], p[:, None], _AIMED)
    return logit(promise.threshold) <= lowest, logit(aimed) <= lowest, promise.how


def _print_promises(simulations: int, pool: Parallel) -> None:
    """Print how often the population's sensitivity is what the threshold was fitted for."""
    console, table = make_console(), Table(box=None, header_style="bold")
    for heading in ("positives", "patients", "their logits", _PROMISED.text, _AIMED.text, "promised by"):
        table.add_column(heading, justify="right")
    for positives, patients, skewed in _PROMISES:
        keep = partial(_keep_promise, positives, patients, skewed)
        kept, aimed, ways = zip(*pool(delayed(keep)(seed) for seed in range(simulations)), strict=True)
        shares = f"{np.mean(kept):.1%}", f"{np.mean(aimed):.1%}"
        kind = "skewed to the left" if skewed else "normal"
        table.add_row(str(positives), str(patients), kind, *shares, max(set(ways), key=ways.count))
    console.print(f"thresholds that reach the sensitivity in the population, {simulations} simulations each")
    console.print(table)


class NoiseSize(NamedTuple):
    """What there is to learn from where there is nothing to learn, and what learns: patients of so many slices."""

    patients: int = 60
    slices: int = 5
    backbones: int = 2
    width: int = 20
    labels: int = 2
    share: float = 0.3
    baselines: tuple[str, ...] = ("logistic", "knn")
    ensembles: tuple[str, ...] = ("mean", "greedy")

    def describe(self) -> str:
        """Say it in a line."""
        rows = f"{self.patients} patients of {self.slices} rows, {self.backbones} backbones of {self.width} features"
        return f"{rows}, {self.labels} labels of {self.share:.0%}; {', '.join(self.baselines + self.ensembles)}"


_NOISE = NoiseSize()


class Noise(NamedTuple):
    """What a run says of labels that nothing knows of.

    Attributes:
        chosen: AUC of the model that it chose, on the rows that it was chosen on.
        nested: the same, chosen on the other folds; `refitted` as `--nested` has it.
        said: whether console and report say that it may be no better than chance; `said_refitted` with `--nested`.
    """

    chosen: float
    nested: float
    refitted: float
    said: bool
    said_refitted: bool


def _learn_from_noise(seed: int) -> Noise:
    """Run stage 2 on labels that nothing knows of."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(_NOISE.patients), _NOISE.slices).astype(str)
    width = _NOISE.width
    features = rng.normal(size=(len(groups), _NOISE.backbones * width)).astype(np.float32)
    labels = (rng.random((len(groups), _NOISE.labels)) < _NOISE.share).astype(np.uint8)
    ids, names = tuple(map(str, range(len(groups)))), tuple(map(str, range(_NOISE.labels)))
    train = SplitInputs(ids, np.ones(len(ids), bool), features, None, groups, {})
    columns = {f"b{number}": slice(width * number, width * (number + 1)) for number in range(_NOISE.backbones)}
    inputs = Inputs(names, columns, train, labels, None)
    settings = Settings(seed=seed, baselines=_NOISE.baselines, ensembles=_NOISE.ensembles, nested=True)
    experiment = run_experiment(inputs, settings, lambda: None)
    chosen, nested = experiment.macro(experiment.final_model, "roc_auc"), experiment.nested
    refitted = validate(inputs, settings, experiment, lambda: None).nested
    assert nested is not None
    assert refitted is not None
    # As console and report have it: of the model's own figure and the nested one.
    said = [any(may_be_chance(one.value, one.low) for one in (chosen, other)) for other in (nested, refitted)]
    values = [np.nan if one.value is None else one.value for one in (chosen, nested, refitted)]
    return Noise(values[0], values[1], values[2], *said)


def print_noise(found: Sequence[Noise]) -> None:
    """Print what runs on noise say."""
    console, table = make_console(), Table(box=None, header_style="bold")
    for heading in ("macro AUC of the model chosen", "mean", "standard error", "'no better than chance' said"):
        table.add_column(heading, justify="right")
    chosen, nested, refitted, said, said_refitted = (np.array(column) for column in zip(*found, strict=True))
    of_rows: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        "its own figure": (chosen, None),
        "chosen on the other folds": (nested, said),
        "fitted and chosen again without each fold (--nested)": (refitted, said_refitted),
    }
    for what, (values, told) in of_rows.items():
        error = np.std(values) / np.sqrt(len(found))
        table.add_row(what, f"{np.mean(values):.3f}", f"{error:.3f}", "" if told is None else f"{np.mean(told):.0%}")
    console.print(f"{len(found)} runs on noise: {_NOISE.describe()}")
    console.print(table)


def benchmark_honesty(simulations: int, runs: int, jobs: int) -> None:
    """Print how often 95 % intervals hold the truth, what runs on noise say, and what means of models are worth."""
    console, pool = make_console(), Parallel(n_jobs=jobs)
    table = Table(box=None, header_style="bold")
    for heading in ("patients", "positives", "AUC", "sensitivity", "calibration slope"):
        table.add_column(heading, justify="right")
    for patients in PATIENTS:
        for positives in POSITIVES:
            hold = partial(_hold, patients, positives)
            found = pool(delayed(hold)(seed) for seed in range(simulations))
            cells = []
            for metric in found[0]:
                held = [one[metric] for one in found if one[metric] is not None]
                given = "" if len(held) == len(found) else f" (given in {len(held) / len(found):.0%})"
                cells.append(f"{np.mean(held):.1%}{given}" if held else "none given")
            table.add_row(str(patients), str(positives), *cells)
    console.print(f"95 % intervals that hold the truth, {simulations} simulations each")
    console.print(table)
    _print_promises(simulations, pool)
    print_noise(pool(delayed(_learn_from_noise)(seed) for seed in range(runs)))
    benchmark_means(min(simulations, 100), jobs, console)
