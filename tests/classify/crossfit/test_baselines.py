"""Cross-fitting: no model sees the rows that it predicts, and rows keep their places."""

from typing import ClassVar

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]

from classify.crossfit.models import Candidate, CrossFit
from classify.crossfit.plan import FitPlan
from classify.inputs import Inputs, SplitInputs
from features.folds.folds import Folds


class Memory(BaseEstimator):
    """Gives 1 for a row that it was fitted on, 0 for any other; the first feature is the row's name."""

    converged_ = True

    def fit(self, X, y, groups=None):
        self.seen_ = set(X[:, 0].tolist())
        self.share_ = len(y) / 100
        return self

    def predict_proba(self, X):
        return np.array([[name in self.seen_, self.share_] for name in X[:, 0].tolist()], np.float32)


class Echo(BaseEstimator):
    """Gives a row's own two features back."""

    converged_ = True

    def fit(self, X, y, groups=None):
        return self

    def predict_proba(self, X):
        return X.copy()


def split_inputs(features: np.ndarray) -> SplitInputs:
    ids = tuple(f"i{row}" for row in range(len(features)))
    return SplitInputs(ids, np.ones(len(ids), bool), features, None, None, {})


@pytest.fixture
def inputs() -> Inputs:
    rng = np.random.default_rng(0)
    train = np.column_stack([np.arange(20), rng.random((20, 2))]).astype(np.float32)
    test = np.column_stack([np.arange(100, 104), rng.random((4, 2))]).astype(np.float32)
    labels = rng.integers(0, 2, (20, 2)).astype(np.uint8)
    columns = {"names": slice(0, 1), "values": slice(1, 3)}
    return Inputs(("a", "b"), columns, split_inputs(train), labels, split_inputs(test))


FOLDS = Folds(np.array([0, 2, 1, 1, 0, 2, 2, 0, 1, 2, 0, 0, 1, 2, 1, 1, 0, 2, 1, 2]), 3, None, ())
PLAN = FitPlan((FOLDS,))


def test_out_of_fold_is_by_a_model_that_never_saw_the_row(inputs):
    predictions = CrossFit({"memory": Candidate(Memory(), slice(0, 1))}, inputs, PLAN).run(2).predictions
    assert (predictions["memory"].out_of_fold[:, 0] == 0).all()


def test_test_probabilities_are_the_mean_over_the_folds(inputs):
    predictions = CrossFit({"memory": Candidate(Memory(), slice(0, 1))}, inputs, PLAN).run(1).predictions
    shares = [(FOLDS.fold_of_row != fold).sum() / 100 for fold in range(3)]
    np.testing.assert_allclose(predictions["memory"].test, [[0, np.mean(shares)]] * 4, rtol=1e-6)


def test_rows_keep_their_places_and_columns_are_the_candidates(inputs):
    ticks = []
    candidates = {"memory": Candidate(Memory(), slice(0, 1)), "echo": Candidate(Echo(), slice(1, 3))}
    predictions = CrossFit(candidates, inputs, PLAN).run(2, lambda: ticks.append(1)).predictions
    assert list(predictions) == ["memory", "echo"]
    np.testing.assert_array_equal(predictions["echo"].out_of_fold, inputs.train.features[:, 1:3])
    np.testing.assert_allclose(predictions["echo"].test, inputs.test.features[:, 1:3], rtol=1e-6)
    assert len(ticks) == 6


def test_without_test_rows_there_are_no_test_probabilities(inputs):
    lone = Inputs(inputs.label_names, inputs.columns, inputs.train, inputs.train_labels, None)
    assert CrossFit({"echo": Candidate(Echo(), slice(1, 3))}, lone, PLAN).run(1).predictions["echo"].test is None


class Threads(Echo):
    """Writes down how many threads a matrix product may take."""

    seen: ClassVar[list[int]] = []

    def fit(self, X, y, groups=None):
        self.seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return self


def test_a_fit_has_one_blas_thread_so_that_jobs_cannot_change_a_bit(inputs):
    with threadpool_limits(2, user_api="blas"):  # as where nobody limits them
        CrossFit({"threads": Candidate(Threads(), slice(1, 3))}, inputs, PLAN).run(2)
    assert set(Threads.seen) == {1}
