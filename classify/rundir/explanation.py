"""Explain a model of a finished run: its members' gradients at given images, weighted as the model weighs them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from classify.inputs import columns_of
from classify.models.files import ESTIMATOR_SUFFIX, HEAD_SUFFIX, model_path
from classify.models.gradients import Linearised, has_gradient, linearise
from classify.rundir.folder import MODELS
from classify.rundir.saved_run import SavedRun
from features.common.errors import InputError

#: The fold of an image that none of the run's folds held out.
NO_FOLD = -1
#: Below this share or coefficient a member changes no picture: fitted weights come near 0 without reaching it.
_LEAST_SHARE = 1e-6


@dataclass(frozen=True)
class Weights:
    """What share each baseline and head has in a model's logits.

    Attributes:
        members: by name, float64 array (L,), at least 0. Of a stacking they are its coefficients; else they have the
            sum 1 for each label.
        left_out: by name, why a member has no part.
        covered: share of the model that the members make up, 0-1; of a stacking, of its coefficients.
    """

    members: dict[str, np.ndarray]
    left_out: dict[str, str]
    covered: float = 1.0


class NoGradientError(InputError):
    """A model cannot be shown as heat maps: neither it nor a member of it has a gradient.

    Attributes:
        reason: that, in words, with the name of the model.
        left_out: by name, why a member has no part.
        remedy: what to ask for instead.
    """

    def __init__(self, reason: str, left_out: dict[str, str], remedy: str) -> None:
        super().__init__(f"{reason}. {remedy}")
        self.reason = reason
        self.left_out = left_out
        self.remedy = remedy


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
        NoGradientError: no member has a gradient.
        InputError: a model's file is missing or damaged.
    """

    def __init__(self, run: SavedRun, model: str) -> None:
        self._run = run
        self._loaded: dict[Path, Any] = {}
        self.backbones = run.needs(model)
        self.columns = columns_of({name: run.widths[name] for name in self.backbones})
        self.weights = self._weigh(model)
        if not self.weights.members:
            raise self._no_gradient(model)

    def explain(self, features: np.ndarray, folds: np.ndarray) -> Linearised:
        """Linearise the model at some images.

        Args:
            features: float32 array (N, D): the backbones side by side.
            folds: int64 array (N,): the fold that held the image out, whose models never saw it; or `NO_FOLD`, for
                which the models that predict new images are averaged.

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
            for fold in np.unique(folds):
                rows = np.flatnonzero(folds == fold)
                paths = [self._path(member, fold)] if fold != NO_FOLD else self._paths(member)
                for path in paths:
                    found = linearise(self._load(path), features[rows, seen])
                    share = (weight / len(paths)).astype(np.float32)
                    gradients[rows, :, seen] += share[:, np.newaxis] * found.gradients
                    intercepts[rows] += share * found.intercepts
        return Linearised(gradients, intercepts)

    def _path(self, member: str, fold: int) -> Path:
        """The file of the model that never saw a fold."""
        first = self._run.models[member]["files"][0]
        suffix = HEAD_SUFFIX if first.endswith(HEAD_SUFFIX) else ESTIMATOR_SUFFIX
        return model_path(self._run.folder / MODELS, member, f"fold{fold}", suffix)

    def _paths(self, member: str) -> list[Path]:
        """The files that predict new images."""
        return [self._run.folder / file for file in self._run.models[member]["files"]]

    def _load(self, path: Path) -> Any:
        """Load a model once."""
        if path not in self._loaded:
            self._loaded[path] = self._run.load_model(path.relative_to(self._run.folder).as_posix())
        return self._loaded[path]

    def _weigh(self, model: str) -> Weights:
        """Weigh the members of a model, down to baselines and heads."""
        entry = self._run.models[model]
        labels = len(self._run.label_names)
        if not entry["members"]:
            if not has_gradient(self._load(self._paths(model)[0])):
                return Weights({}, {model: "it has no gradient with respect to the features"}, 0.0)
            return Weights({model: np.ones(labels)}, {})
        if len(entry["members"]) == 1:
            return self._weigh(entry["members"][0])
        coefficients = getattr(self._load(self._paths(model)[0]), "coef_", None)
        weights: dict[str, np.ndarray] = {}
        left_out: dict[str, str] = {}
        whole = np.zeros(labels)
        for index, member in enumerate(entry["members"]):
            share = entry["shares"].get(member, 0.0)
            weight = np.full(labels, share) if coefficients is None else np.asarray(coefficients)[:, index]
            if weight.max() < _LEAST_SHARE:
                continue
            whole += weight
            if has_gradient(self._load(self._paths(member)[0])):
                weights[member] = weight
            else:
                left_out[member] = "it has no gradient with respect to the features"
        shown = np.sum(list(weights.values()), axis=0) if weights else np.zeros(labels)
        if coefficients is None:
            weights = {member: weight / shown for member, weight in weights.items()}
        return Weights(weights, left_out, float(shown.sum() / max(whole.sum(), _LEAST_SHARE)))

    def _no_gradient(self, model: str) -> NoGradientError:
        """Make the error of a model of which nothing can be explained."""
        others = [
            name
            for name, entry in self._run.models.items()
            if not entry["members"] and has_gradient(self._load(self._paths(name)[0]))
        ]
        left_out = self.weights.left_out
        return NoGradientError(
            f"{model} of {self._run.folder} cannot be shown as heat maps: neither it nor a member of it has a gradient "
            f"({', '.join(left_out) or 'no member has a share'})",
            left_out,
            f"Name a head or a logistic regression with --model: {', '.join(others)}."
            if others
            else "No other model of the run has one either.",
        )
