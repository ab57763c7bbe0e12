"""A simulation with a known truth: what thresholds and calibrations of single models are worth on means of models."""

import numpy as np
from joblib import Parallel, delayed
from rich.console import Console
from rich.table import Table
from scipy.special import expit, logit
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.ensembles.estimators import SigmoidCalibration
from classify.models.estimators import fit_line
from classify.models.linear import PenalisedLogistic
from classify.scores.metrics import ThresholdRule
from classify.scores.thresholds import fit_thresholds
from features.folds.folds import Folds

#: Rows to learn from, features, fresh rows to judge by, folds; and the sensitivity that the threshold aims at.
_ROWS, _WIDTH, _FRESH, _FOLDS, _SENSITIVITY = 400, 200, 4000, 5, 0.9
_RULE = ThresholdRule.parse(f"sensitivity={_SENSITIVITY}")
#: By kind of model, the spread of the logit that the penalty leaves it: see `PenalisedLogistic`.
SPREADS = {"penalised": 1.0, "overfit": 1000.0}
_DECIDED = (
    "single models, on average",
    "mean of the models (Headbank)",
    "majority of the models' decisions",
    "mean of the calibrated models",
    "one model on all rows (--refit)",
)


def _simulate(spread: float, seed: int) -> dict[str, tuple[float, ...]]:
    """Fit one label by folds, and judge each way to decide fresh rows: see `benchmark_means` for the figures."""
    rng = np.random.default_rng(seed)
    slopes = rng.normal(size=_WIDTH) / np.sqrt(_WIDTH) * 1.5
    X = rng.normal(size=(_ROWS + _FRESH, _WIDTH)).astype(np.float32)
    y = (rng.random(len(X)) < expit(X @ slopes - 1)).astype(np.uint8)[:, None]
    learn, fresh, truth = X[:_ROWS], X[_ROWS:], y[_ROWS:, 0]
    folds = Folds(np.arange(_ROWS) % _FOLDS, _FOLDS, None, ())
    labels = y[:_ROWS]

    with threadpool_limits(1):
        out_of_fold, models = np.empty((_ROWS, 1), np.float32), []
        for learnt, held_out in folds.split():
            models.append(PenalisedLogistic((spread,)).fit(learn[learnt], labels[learnt]))
            out_of_fold[held_out] = models[-1].predict_proba(learn[held_out])
        of_fresh = np.stack([model.predict_proba(fresh) for model in models])
        refitted = PenalisedLogistic((spread,)).fit(learn, labels).predict_proba(fresh)
    line = SigmoidCalibration().fit(out_of_fold, labels)
    calibrated = np.stack([line.predict_proba(one) for one in of_fresh])

    def cut(probabilities: np.ndarray) -> float:
        return float(fit_thresholds(labels, probabilities, _RULE)[0])

    threshold = cut(out_of_fold)
    positive = {
        _DECIDED[0]: of_fresh[:, :, 0] >= threshold,
        _DECIDED[1]: of_fresh.mean(axis=0)[:, 0] >= threshold,
        _DECIDED[2]: (of_fresh[:, :, 0] >= threshold).mean(axis=0) > 0.5,
        _DECIDED[3]: calibrated.mean(axis=0)[:, 0] >= cut(line.predict_proba(out_of_fold)),
        _DECIDED[4]: refitted[:, 0] >= threshold,
    }
    figures = {way: tuple(float(cell[..., truth == v].mean()) for v in (1, 0)) for way, cell in positive.items()}
    figures = {way: (found, 1 - marked) for way, (found, marked) in figures.items()}
    probabilities = {
        "calibrated mean (Headbank)": line.predict_proba(of_fresh.mean(axis=0)),
        "mean of the calibrated": calibrated.mean(axis=0),
        "calibrated model on all rows": line.predict_proba(refitted),
    }
    for way, one in probabilities.items():
        p = one[:, 0].astype(np.float64)
        loss = -np.mean(np.log(np.where(truth == 1, p, 1 - p)))
        figures[way] = (fit_line(logit(p), truth)[0], float(loss))
    return figures


def benchmark_means(simulations: int, jobs: int, console: Console) -> None:
    """Print, for a penalised and an overfit model, what each way to use the models of the folds is worth on fresh rows.

    Of decisions the sensitivity, of which the threshold promises `_SENSITIVITY`, and the specificity; of calibrated
    probabilities the slope of the logit, which is 1 where they are neither too sure nor too unsure, and the log loss.
    """
    for kind, spread in SPREADS.items():
        found = Parallel(n_jobs=jobs)(delayed(_simulate)(spread, seed) for seed in range(simulations))
        table = Table("", box=None, header_style="bold")
        for heading in ("sensitivity", "specificity", "calibration slope", "log loss"):
            table.add_column(heading, justify="right")
        for way in found[0]:
            values = np.array([one[way] for one in found])
            errors = values.std(axis=0) / np.sqrt(simulations)
            cells = [f"{mean:.3f} ± {error:.3f}" for mean, error in zip(values.mean(axis=0), errors, strict=True)]
            table.add_row(way, *([*cells, "", ""] if way in _DECIDED else ["", "", *cells]))
        console.print(
            f"{kind} model, thresholds for sensitivity {_SENSITIVITY}, on fresh rows, {simulations} simulations"
        )
        console.print(table)
