"""Stage 2 in Python: make a run, look at it, predict with it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from classify.ensembles.ensembles import ENSEMBLES
from classify.models.baselines import BASELINES, DEFAULT_BASELINES
from classify.models.files import why_not_kept
from classify.models.heads import refuse_name
from classify.options import RunOptions
from classify.rundir.files import read_out_of_fold, read_run_table
from classify.rundir.folder import (
    CURVES,
    FIGURES,
    LEADERBOARD_TABLE,
    METRICS_TABLE,
    PROBABILITIES,
    REPORT,
    THRESHOLDS,
)
from classify.rundir.saved_run import SavedRun
from classify.scores.thresholds import to_binary
from features.common.cli import read_options, read_path
from features.common.errors import InputError
from features.notebook import open_cache
from features.store.cache import FeatureCache
from features.store.run_labels import RUN_LABELS

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

#: What `decide` takes.
_EXPECTED = "Expected a DataFrame with a column of probabilities for each of"
#: How high a notebook shows a report, in pixels.
_HEIGHT = 800


def train(
    data: Path | str,
    out: Path | str,
    *,
    baselines: "Sequence[str] | str | Mapping[str, ClassifierMixin | None]" = DEFAULT_BASELINES,
    **options: Any,
) -> "Run":
    """Cross-fit models and ensembles on cached features, choose one, fit thresholds, write a run.

    Args:
        data: folder of the data set.
        out: folder to write the run to.
        baselines: names of baselines, or one. A mapping may have estimators of your own beside them: a name, and what
            has `fit` and `predict_proba`, unfitted; None stands for the baseline of that name. One is fitted for each
            label, to features as they are, (n, D) float32 and (n,) 0 or 1; `groups` (n,) are given to a `fit` that
            takes them.
        options: those of `python -m classify run`, such as `folds=10`, `preset=["linear"]` or `overwrite=True`.

    Returns:
        The run.

    Raises:
        InputError: bad options or bad input.
        KeyboardInterrupt: it was stopped; finished fits are kept.
    """
    own = {name: one for name, one in baselines.items() if one is not None} if isinstance(baselines, Mapping) else {}
    for name, estimator in own.items():
        _check_own(name, estimator)
    names = list(baselines) if isinstance(baselines, Mapping) else baselines
    given = {"data": read_path("data", data), "out": read_path("out", out), "baselines": names, **options}
    from classify.run import run_classification

    run_classification(read_options(RunOptions, given), own)
    return Run(Path(out))


def _check_own(name: object, estimator: Any) -> None:
    """Refuse an estimator that cannot be fitted, copied, told apart or kept."""
    from sklearn.base import clone

    refuse_name(name, "baselines", "an estimator of your own")
    if name in (taken := (*BASELINES, *ENSEMBLES, "none")):
        raise InputError(f"baselines: {name!r} has a meaning already. Give your estimator none of {', '.join(taken)}.")
    missing = [method for method in ("fit", "predict_proba") if not callable(getattr(estimator, method, None))]
    if missing or isinstance(estimator, type):
        what = "is a class" if isinstance(estimator, type) else f"has no {' and no '.join(missing)}"
        raise InputError(f"baselines: {name} {what}. Give an unfitted estimator, such as GaussianNB().")
    try:
        clone(estimator, safe=False)
    except (RuntimeError, TypeError, AttributeError) as error:  # as scikit-learn and `copy` say it
        raise InputError(f"baselines: {name} cannot be copied for each fit: {error}") from None
    if why := why_not_kept(estimator):
        raise InputError(f"baselines: {name} cannot be kept in a run: {why}. Leave that part out.")


class ReportFigure:
    """A picture of a report; a notebook shows it.

    Args:
        path: its PNG file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"ReportFigure({str(self.path)!r})"

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


class Run:
    """A finished run; a notebook shows its report.

    Args:
        folder: that of `classify run --out`.

    Raises:
        InputError: it holds no finished run, or its record is damaged or was changed by hand.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = read_path("folder", folder)
        self._saved = SavedRun.open(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}): {len(self.models)} models, final model {self.final_model}"

    @property
    def final_model(self) -> str:
        """The model whose predictions the run handed in."""
        return self._saved.final_model

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models."""
        return tuple(self._saved.models)

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """How each model that was chosen among stands beside the final one, by model, best first."""
        return self.table(LEADERBOARD_TABLE).set_index("model")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Metrics with intervals: `model`, `split`, `label`, `metric`, `value`, `low`, `high`, `interval`."""
        return self.table(METRICS_TABLE)

    @cached_property
    def thresholds(self) -> pd.DataFrame:
        """The thresholds of each model and what they cost, by model and label."""
        return self.table(THRESHOLDS).set_index(["model", "label"])

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Training curves of heads: `model`, `fold`, `epoch`, `loss`, `auc`, ...; empty without heads."""
        return read_run_table(self._saved, CURVES)

    @cached_property
    def labels(self) -> pd.DataFrame:
        """The labelled images, by `split` and `ID`: `group`, `fold`, and the labels, 0, 1 or missing."""
        return self.table(RUN_LABELS).set_index(["split", "ID"])

    def table(self, name: str) -> pd.DataFrame:
        """Read a CSV file of the run, such as `operating_points.csv`; docs/run-files.md lists them.

        Raises:
            InputError: the run has no such table, or it is damaged or was changed by hand.
        """
        tables = [file for file in self._saved.record["files"] if file.endswith(".csv")]
        if name not in tables:
            raise InputError(f"{self.folder} has no table {name!r}. Choose one of {', '.join(tables)}.")
        return read_run_table(self._saved, name)

    def out_of_fold(self, model: str | None = None) -> pd.DataFrame:
        """The out-of-fold probabilities of the training images by a model: float32, by `ID`, a column per label.

        Raises:
            InputError: the run has no such model, or a file of it is damaged.
        """
        name, image_ids = self._saved.choose(model), self._saved.labels["train"].image_ids
        return self._frame(image_ids, read_out_of_fold(self._saved, [name], image_ids)[name])

    def predict(self, cache: FeatureCache | Path | str, split: str = "test", model: str | None = None) -> pd.DataFrame:
        """Predict the images of a split of a cache: float32 probabilities, by `ID`, a column per label.

        Raises:
            InputError: the run has no such model; the cache has no such split, or features that were extracted in
                another way than those that the run learnt from, or of images that a fine-tuned backbone has seen.
        """
        name = self._saved.choose(model)
        known = open_cache(cache)
        self._saved.refuse_other_features(known, split, name)
        backbones = self._saved.opens(name)
        image_ids = known.open(split, backbones[0]).image_ids
        self._saved.refuse_seen(known, split, name, image_ids, split)
        features = known.map(split, backbones, image_ids, self._saved.tta).load()
        return self._frame(image_ids, self._saved.predict(name, features))

    def decide(self, probabilities: pd.DataFrame, model: str | None = None) -> pd.DataFrame:
        """Turn probabilities of a model into decisions by its thresholds: 0 or 1, or missing as they are (Int8).

        Args:
            probabilities: a column per label, as `predict`, `out_of_fold` and `predictions` give them.
            model: their model; None for the final one.

        Raises:
            InputError: the run has no such model, or a label has no column of numbers.
        """
        cuts, names = self._saved.thresholds(self._saved.choose(model)), list(self._saved.label_names)
        if not isinstance(probabilities, pd.DataFrame):
            raise InputError(f"decide: received {type(probabilities).__name__}. {_EXPECTED} {', '.join(names)}.")
        numbers = probabilities.select_dtypes("number")
        if missing := [name for name in names if name not in numbers]:
            raise InputError(f"decide: {missing[0]} is not a column of numbers. {_EXPECTED} {', '.join(names)}.")
        values = numbers[names].to_numpy(np.float64, na_value=np.nan)
        frame = self._frame(probabilities.index, to_binary(values, cuts))
        return frame.astype("Int8").mask(np.isnan(values))

    @property
    def predictions(self) -> pd.DataFrame:
        """The final model's probabilities of the test images: float32, by `ID`; missing where an image was rejected.

        Raises:
            InputError: the data set had no test images.
        """
        return self.table(PROBABILITIES).set_index("ID")

    def report(self) -> Path:
        """Give the page of the run; it is written where there is none."""
        path = self.folder / REPORT
        if not path.is_file():
            from classify.report.page import write_report

            write_report(self.folder)
        return path

    @property
    def figures(self) -> dict[str, ReportFigure]:
        """The pictures of the report by name, such as `roc`, each a PNG file."""
        self.report()
        return {path.stem: ReportFigure(path) for path in sorted((self.folder / FIGURES).glob("*.png"))}

    def _repr_html_(self) -> str:
        page = escape(self.report().read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page}" title="{escape(repr(self))}" width="100%" height="{_HEIGHT}"></iframe>'

    def _frame(self, image_ids: Sequence[str], values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values, pd.Index(image_ids, name="ID", dtype="str"), list(self._saved.label_names))
