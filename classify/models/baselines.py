"""The baselines: classifiers of scikit-learn on pooled features, one per label.

To add one, write its function and its row in `BASELINES`. Importing this module loads no scikit-learn, so that help
texts can read the table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator, ClassifierMixin


@dataclass(frozen=True)
class Baseline:
    """A row of the table.

    Attributes:
        description: what it is, in a few words.
        classifier: makes the classifier of one label, and imports what it needs; None if there is none.
        whole: makes what learns all labels at once, in its place.
        components, least: as those of `OneVsRest`.
    """

    description: str
    classifier: Callable[[], "ClassifierMixin"] | None = None
    whole: Callable[[], "BaseEstimator"] | None = None
    components: int | None = None
    least: int = 1

    def make(self) -> "BaseEstimator":
        """Make it, not fitted yet."""
        if self.whole:
            return self.whole()
        assert self.classifier
        from classify.models.estimators import OneVsRest

        return OneVsRest(self.classifier(), self.components, self.least)


def _logistic() -> "BaseEstimator":
    from classify.models.linear import PenalisedLogistic

    return PenalisedLogistic()


def _ridge_regression() -> "BaseEstimator":
    from classify.models.linear import RidgeRegression

    return RidgeRegression()


def _prior() -> "BaseEstimator":
    from classify.models.estimators import Prior

    return Prior()


def _svm() -> "ClassifierMixin":
    from classify.models.estimators import PlattScaledSVM

    return PlattScaledSVM(C=1e-4, parts=3)


def _knn() -> "ClassifierMixin":
    from sklearn.neighbors import KNeighborsClassifier

    # Brute force is what scikit-learn takes beyond 15 features anyway; the trees that it builds below cannot be saved.
    return KNeighborsClassifier(n_neighbors=15, algorithm="brute")


def _forest() -> "ClassifierMixin":
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(200, min_samples_leaf=3, n_jobs=1, random_state=0)


def _boosting() -> "ClassifierMixin":
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=100, random_state=0)


#: Those of a run that names none: on mid-level features one of them is the best single model; see docs/decisions.md.
DEFAULT_BASELINES = ("logistic", "ridge_regression")
#: The baseline that sees no features.
PRIOR = "prior"
#: By the name that `--baselines` takes.
BASELINES: dict[str, Baseline] = {
    "logistic": Baseline("logistic regression with an L2 penalty, chosen by groups left out", whole=_logistic),
    "ridge_regression": Baseline("least squares with an L2 penalty, in closed form", whole=_ridge_regression),
    "svm": Baseline("linear support vector machine, Platt-scaled", _svm, least=3),
    "knn": Baseline("15 nearest neighbours in 64 principal components", _knn, components=64, least=15),
    "forest": Baseline("random forest of 200 trees", _forest),
    "boosting": Baseline("gradient-boosted trees on 64 principal components", _boosting, components=64),
    PRIOR: Baseline("share of positives, sees no features: the floor to beat", whole=_prior),
}
