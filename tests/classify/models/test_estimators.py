"""Every baseline is scikit-learn's own classifier per label, fitted on what its fold may see."""

import numpy as np
import pytest
from scipy.special import logit
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from classify.models.baselines import BASELINES
from classify.models.estimators import OfOnesOwn, PlattScaledSVM
from features import InputError

WRAPPED = ["svm", "knn", "forest", "boosting"]


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(240, 2))
    X = np.column_stack([signal, rng.normal(size=(240, 78))]) * np.logspace(-1, 1, 80) + 3
    return X.astype(np.float32), (signal + 0.5 * rng.normal(size=signal.shape) > (0, 0.7)).astype(np.uint8)


@pytest.mark.parametrize("name", WRAPPED)
def test_agrees_with_a_pipeline_per_label(name, rows):
    X, y = rows
    model = BASELINES[name].make().fit(X[:160], y[:160])
    got = model.predict_proba(X[160:])
    for label in range(2):
        steps = [StandardScaler()]
        if model.components is not None:
            steps.append(PCA(64, random_state=0))
        pipeline = make_pipeline(*steps, clone(model.classifier)).fit(X[:160], y[:160, label])
        np.testing.assert_allclose(got[:, label], pipeline.predict_proba(X[160:])[:, 1], atol=1e-6)
    assert got.dtype == np.float32
    assert model.converged_


@pytest.mark.parametrize("name", BASELINES)
def test_few_rows_few_features_and_rare_labels_end_in_probabilities(name):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(20, 3)).astype(np.float32)
    labels = np.zeros((20, 3), np.uint8)
    labels[::2, 0], labels[3, 1] = 1, 1
    model = BASELINES[name].make()
    probabilities = model.fit(X, labels).predict_proba(X[:5])
    assert probabilities.shape == (5, 3)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    np.testing.assert_allclose(probabilities[:, 2], 1 / 22, rtol=1e-5)  # never positive: Laplace's rule
    if name in ("svm", "knn", "prior"):
        np.testing.assert_allclose(probabilities[:, 1], 2 / 22, rtol=1e-5)  # too rare to learn from


@pytest.mark.parametrize("name", WRAPPED)
def test_equal_rows_give_equal_bits(name, rows):
    X, y = rows
    first, again = (BASELINES[name].make().fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_machine_that_stops_early_is_not_called_converged(rows):
    model = BASELINES["svm"].make().set_params(classifier__max_iter=1, classifier__C=1.0)
    with pytest.warns(UserWarning, match="failed to converge"):
        assert not model.fit(*rows).converged_


def test_the_prior_is_the_share_of_positives_whatever_the_features(rows):
    X, y = rows
    probabilities = BASELINES["prior"].make().fit(X[:, :0], y).predict_proba(X[:7, :0])
    np.testing.assert_allclose(probabilities, np.tile((y.sum(axis=0) + 1) / 242, (7, 1)), rtol=1e-6)


def test_without_groups_the_platt_scaled_machine_is_scikit_learns(rows):
    X, y = StandardScaler().fit_transform(rows[0]), rows[1]
    theirs = CalibratedClassifierCV(LinearSVC(C=1e-3, random_state=0), cv=3, ensemble=False).fit(X, y[:, 1])
    ours = PlattScaledSVM(C=1e-3).fit(X, y[:, 1])
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)


def test_the_probabilities_of_a_platt_scaled_machine_rise_with_its_decisions_also_where_it_learnt_nothing():
    rng = np.random.default_rng(0)
    for seed in range(20):
        X, y = rng.normal(size=(60, 10)), rng.permutation(np.arange(60) < 8).astype(np.uint8)
        groups = np.repeat(np.arange(15), 4) if seed % 2 else None
        model = PlattScaledSVM().fit(X, y, groups)
        order = np.argsort(model.machine_.decision_function(X))
        assert (np.diff(model.predict_proba(X)[order, 1]) > 0).all()


def test_a_platt_scaled_machine_that_knows_patients_by_sight_is_not_sure_of_the_next_one():
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(40), 8))
    X = rng.normal(size=(40, 60))[groups] + 0.1 * rng.normal(size=(320, 60))
    y = rng.permutation(np.arange(40) < 20)[groups].astype(np.uint8)
    spread = [logit(PlattScaledSVM(C=1.0).fit(X, y, known).predict_proba(X)[:, 1]).std() for known in (groups, None)]
    assert spread[0] < 0.5 < 3 < spread[1]


def test_positives_of_one_group_alone_give_next_to_laplaces_rule():
    X = np.random.default_rng(0).normal(size=(30, 4))
    y = (np.arange(30) < 4).astype(np.uint8)
    model = PlattScaledSVM().fit(X, y, groups=np.repeat(np.arange(6), 5))
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], 5 / 32, atol=1e-2)


class Given:
    """Gives what it is told to."""

    def __init__(self, gives, returned=True, classes=None):
        self.gives, self.returned = gives, returned
        if classes is not None:
            self.classes_ = classes

    def fit(self, X, y):
        return self if self.returned else None

    def predict_proba(self, X):
        return self.gives


def columns(negative: float, positive: float) -> np.ndarray:
    return np.tile([negative, positive], (16, 1))


@pytest.mark.parametrize(
    ("mine", "expected"),
    [
        (Given(columns(0.8, 0.2)), 0.2),
        (Given(columns(0.8, 0.2), classes=[0, 1]), 0.2),
        (Given(columns(0.8, 0.2), classes=np.array([1, 0])), 0.8),
        (Given([[0.8, 0.2]] * 16), 0.2),
        (Given(columns(-1e-9, 1 + 1e-9)), 1.0),
    ],
)
def test_of_ones_own_estimator_the_column_of_1_counts(rows, mine, expected):
    X, y = rows
    probabilities = OfOnesOwn(mine, "mine").fit(X, y).predict_proba(X[:16])
    np.testing.assert_array_equal(probabilities, np.full((16, 2), expected, np.float32))


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        (Given(columns(-6, 7)), "predict_proba gave values from -6 to 7, expected numbers from 0 to 1"),
        (Given(columns(0.5, np.nan)), "predict_proba gave NaN or infinity, expected numbers from 0 to 1"),
        (Given(columns(0.5, np.inf)), "predict_proba gave NaN or infinity, expected numbers from 0 to 1"),
        (Given(np.zeros(16)), "predict_proba gave shape (16,), expected (16, 2)"),
        (Given(np.zeros((16, 1))), "predict_proba gave shape (16, 1), expected (16, 2)"),
        (Given(np.zeros((1, 2))), "predict_proba gave shape (1, 2), expected (16, 2)"),
        (Given([[0.5, 0.5], [1]]), "predict_proba gave list, expected an array of numbers"),
        (Given(None), "predict_proba gave shape (), expected (16, 2)"),
        (Given(columns(1, 0), classes=["no", "yes"]), "classes_ is ['no', 'yes'], expected [0, 1]"),
        (Given(columns(1, 0), returned=False), "fit gave NoneType, expected the estimator: let it return self"),
    ],
)
def test_ones_own_estimator_that_gives_no_probabilities_is_named(rows, mine, said):
    X, y = rows
    with pytest.raises(InputError) as refused:
        OfOnesOwn(mine, "mine").fit(X, y).predict_proba(X[:16])
    assert str(refused.value) == f"baselines: mine: {said}."
