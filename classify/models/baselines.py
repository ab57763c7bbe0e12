"""The baselines: classifiers of scikit-learn on pooled features, one per label.

To add one, write its function and its row in `BASELINES`. Importing this module loads no scikit-learn, so that help
texts can read the table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from features.common.errors import InputError

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


@dataclass(frozen=True)
class Baseline:
    """A row of the table.

    Attributes:
        description: what it is, in a few words.
        make: makes it, not fitted yet; imports what it needs.
    """

    description: str
    make: Callable[[], "BaseEstimator"]


def _logistic() -> "BaseEstimator":
    from sklearn.linear_model import LogisticRegression

    from classify.models.estimators import OneVsRest

    return OneVsRest(LogisticRegression(C=0.001, max_iter=1000))  # C: see docs/decisions.md


def _svm() -> "BaseEstimator":
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import LinearSVC

    from classify.models.estimators import OneVsRest

    return OneVsRest(CalibratedClassifierCV(LinearSVC(C=1e-4, random_state=0), cv=3, ensemble=False), least=3)


def _knn() -> "BaseEstimator":
    from sklearn.neighbors import KNeighborsClassifier

    from classify.models.estimators import OneVsRest

    # Brute force is what scikit-learn takes beyond 15 features anyway; the trees that it builds below cannot be saved.
    return OneVsRest(KNeighborsClassifier(n_neighbors=15, algorithm="brute"), components=64, least=15)


def _forest() -> "BaseEstimator":
    from sklearn.ensemble import RandomForestClassifier

    from classify.models.estimators import OneVsRest

    return OneVsRest(RandomForestClassifier(200, min_samples_leaf=3, n_jobs=1, random_state=0))


def _boosting() -> "BaseEstimator":
    from sklearn.ensemble import HistGradientBoostingClassifier

    from classify.models.estimators import OneVsRest

    return OneVsRest(HistGradientBoostingClassifier(max_iter=100, random_state=0), components=64)


def _prior() -> "BaseEstimator":
    from classify.models.estimators import Prior

    return Prior()


#: The baseline that sees no features.
PRIOR = "prior"
#: By the name that `--baselines` takes.
BASELINES: dict[str, Baseline] = {
    "logistic": Baseline("logistic regression with an L2 penalty", _logistic),
    "svm": Baseline("linear support vector machine, Platt-scaled", _svm),
    "knn": Baseline("15 nearest neighbours in 64 principal components", _knn),
    "forest": Baseline("random forest of 200 trees", _forest),
    "boosting": Baseline("gradient-boosted trees on 64 principal components", _boosting),
    PRIOR: Baseline("share of positives, sees no features: the floor to beat", _prior),
}


def choose_baselines(names: Sequence[str]) -> tuple[str, ...]:
    """Put the baselines asked for into the order of `BASELINES`.

    Args:
        names: as given to `--baselines`.

    Raises:
        InputError: a name is not known; the message lists the known ones.
    """
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise InputError(
            f"--baselines {','.join(names)!r}: {unknown[0]} is not a baseline. Expected some of {', '.join(BASELINES)}."
        )
    return tuple(name for name in BASELINES if name in names)
