"""Linear baselines agree with scikit-learn's, whatever penalty they choose, and choose it by groups left out."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from classify.models import linear
from classify.models.baselines import BASELINES
from classify.models.closed_form import RidgeSolver
from classify.models.linear import PenalisedLogistic, RidgeRegression, deal_groups
from features.common.arrays import UNKNOWN
from features.store import mapped


def logistic(*spreads: float, **params: int) -> PenalisedLogistic:
    """The baseline, with parameters of one's own."""
    return BASELINES["logistic"].make().set_params(**({"spreads": spreads} if spreads else {}), **params)


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(120, 10)) * np.logspace(-2, 2, 10) + 3).astype(np.float32)
    standardised = (X - X.mean(axis=0)) / X.std(axis=0)
    y = (standardised[:, :3] + rng.normal(size=(120, 3)) > (-0.5, 0, 1)).astype(np.uint8)
    return X, y


def patients(seed: int, width: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """30 patients of six images, whose features tell the patient as well as the labels."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(30), 6))
    X = rng.normal(size=(30, width))[groups] + rng.normal(size=(180, width))
    y = (X[:, :2] + 2 * rng.normal(size=(180, 2)) > (0.3, 1.5)).astype(np.uint8)
    return X.astype(np.float32), y, groups


@pytest.mark.parametrize("spread", [0.1, 3.0, 100.0])
@pytest.mark.parametrize("width", [5, 200, 700])  # fewer features than rows, more, and so many that rows are rotated
def test_a_given_penalty_gives_scikit_learns_logistic_regression(spread, width):
    rng = np.random.default_rng(width)
    X = (rng.normal(size=(160, width)) * np.logspace(-2, 2, width) + 3).astype(np.float32)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    y = (Z[:, :3] + rng.normal(size=(160, 3)) > (-0.5, 0, 1)).astype(np.uint8)
    model = logistic(spread).fit(X, y)
    for label in range(3):
        theirs = LogisticRegression(C=spread / width, tol=1e-9, max_iter=9000).fit(Z, y[:, label])
        np.testing.assert_allclose(model.predict_proba(X)[:, label], theirs.predict_proba(Z)[:, 1], atol=3e-4)
    assert model.converged_
    assert pytest.approx(spread / width) == model.C_
    assert model.predict_proba(X).dtype == np.float32


def test_the_penalty_is_the_strongest_within_a_standard_error_of_scikit_learns_best():
    chosen = []
    for seed in range(3):
        X, y, groups = patients(seed)
        if seed == 2:  # nothing to learn
            y = np.random.default_rng(0).permutation(y)
        model = logistic(0.1, 1.0, 10.0, parts=3).fit(X, y, groups)
        Z, part, spreads = (
            StandardScaler().fit_transform(X.astype(np.float64)),
            deal_groups(groups, y, 3),
            model.spreads,
        )
        lost = np.zeros((len(spreads), 30))
        for number, spread in enumerate(spreads):
            for left_out in range(3):
                learnt, held_out = part != left_out, part == left_out
                for truth in y.T:
                    theirs = LogisticRegression(C=spread / 40, tol=1e-8, max_iter=5000).fit(Z[learnt], truth[learnt])
                    p = theirs.predict_proba(Z[held_out])[:, 1]
                    losses = -np.log(np.where(truth[held_out] == 1, p, 1 - p))
                    lost[number] += np.bincount(groups[held_out], weights=losses, minlength=30)
        best = lost.sum(axis=1).argmin()
        errors = [np.sqrt(30) * (own - lost[best]).std() for own in lost]
        near = [lost[n].sum() - lost[best].sum() <= errors[n] for n in range(len(spreads))]
        assert pytest.approx(spreads[near.index(True)] / 40) == model.C_
        splits = [(np.flatnonzero(part != left_out), np.flatnonzero(part == left_out)) for left_out in range(3)]
        search = LogisticRegressionCV(
            Cs=[spread / 40 for spread in spreads],
            cv=splits,
            scoring="neg_log_loss",
            l1_ratios=(0,),
            max_iter=5000,
            use_legacy_attributes=False,
        )
        scores = sum(search.fit(Z, truth).scores_.squeeze().mean(axis=0) for truth in y.T)
        assert near.index(True) <= best
        assert abs(int(np.argmax(scores)) - best) <= 1  # theirs is the mean over parts, ours over rows
        chosen.append(near.index(True))
    assert len(set(chosen)) > 1


def test_a_stronger_penalty_is_chosen_where_patients_tell_more_than_labels():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 8)
    X = (rng.normal(size=(40, 60))[groups] + 0.1 * rng.normal(size=(320, 60))).astype(np.float32)
    y = rng.permutation(np.arange(40) < 20)[groups].astype(np.uint8)[:, None]
    by_group, by_row = (logistic().fit(X, y, known) for known in (groups, None))
    assert by_row.C_ > 100 * by_group.C_
    truth = 1 - y  # nothing of these patients tells of others: probabilities stay near the share of positives
    assert (
        log_loss(truth[:, 0], by_group.predict_proba(X)[:, 0])
        < 1
        < log_loss(truth[:, 0], by_row.predict_proba(X)[:, 0])
    )


def test_of_many_rows_some_whole_groups_choose():
    X, y, groups = patients(0)
    part = deal_groups(groups, y, 10)
    few, all_rows = logistic(most_rows=100).fit(X, y, groups), logistic().fit(X, y, groups)
    unit = np.unique(groups[part < 5], return_inverse=True)[1]
    Z = StandardScaler().fit_transform(X)  # the choice is made on features standardised by all rows
    alone = logistic().fit(Z[part < 5], y[part < 5], unit)
    assert few.C_ == alone.C_
    assert not np.allclose(few.coef_, alone.coef_)  # it learns from all rows
    assert few.converged_
    assert all_rows.converged_


def test_of_many_rows_a_sample_is_fitted_first_and_the_solution_is_scikit_learns(monkeypatch):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(3000, 12)) * np.logspace(-2, 2, 12) + 3).astype(np.float32)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    y = (Z[:, :3] + rng.normal(size=(3000, 3)) > (-0.5, 0, 1)).astype(np.uint8)
    y[rng.random((3000, 3)) < 0.1] = UNKNOWN
    y[:, 0] = np.arange(3000) % 1000 == 0
    thin = linear.thin_out
    monkeypatch.setattr(linear, "thin_out", lambda *a: np.setdiff1d(thin(*a), np.flatnonzero(y[:, 0] == 1)))
    monkeypatch.setattr(linear, "_SAMPLED", 12 * 200)
    monkeypatch.setattr(mapped, "BLOCK", 512)
    seen = []
    descend = linear.descend
    monkeypatch.setattr(linear, "descend", lambda known, *rest: seen.append(known.shape[0]) or descend(known, *rest))
    model = logistic(3.0).fit(X, y, np.arange(3000) // 7)
    assert model.converged_
    assert seen[-1] == 3000
    assert 150 < seen[-2] <= 200  # where the first label, which is rare, has one value alone
    for label in range(3):
        known = y[:, label] != UNKNOWN
        theirs = LogisticRegression(C=3.0 / 12, tol=1e-9, max_iter=9000).fit(Z[known], y[known, label])
        np.testing.assert_allclose(model.predict_proba(X)[:, label], theirs.predict_proba(Z)[:, 1], atol=3e-4)


@pytest.mark.parametrize("count", [2, 3, 40])
def test_what_is_fitted_first_chooses_nothing_however_few_the_groups(monkeypatch, count):
    rng = np.random.default_rng(0)
    groups = np.arange(1500) % count
    X = (rng.normal(size=(1500, 12)) + 0.1 * rng.normal(size=(count, 12))[groups]).astype(np.float32)
    y = (3 * X[:, :2] + rng.logistic(size=(1500, 2)) > 0.5).astype(np.uint8)
    whole = logistic(most_rows=300).fit(X, y, groups)
    monkeypatch.setattr(linear, "_SAMPLED", 12 * 400)
    sampled = logistic(most_rows=300).fit(X, y, groups)
    assert whole.C_ > 0.5 / 12
    if count < 40:  # they are thinned out to 400 rows, which may choose another
        assert sampled.C_ > 0.2 / 12
    else:
        assert sampled.C_ == whole.C_
        np.testing.assert_allclose(sampled.coef_, whole.coef_, atol=1e-3)


def test_rows_are_thinned_out_evenly_by_labels():
    labels = np.column_stack([np.arange(1000) % 2, np.arange(1000) % 50 == 0]).astype(np.uint8)
    rows = np.arange(100, 1000)
    kept = linear.thin_out(rows, labels, 90)
    assert len(kept) == 90
    assert (np.diff(kept) > 0).all()
    assert kept.min() >= 100
    assert labels[kept].sum(axis=0).tolist() == pytest.approx([45, 1.8], abs=1)
    assert np.bincount(kept // 300).tolist() == pytest.approx([20, 30, 30, 10], abs=3)
    assert linear.thin_out(rows, labels, 900) is rows


def test_groups_are_dealt_whole_and_those_of_the_rarest_label_first():
    rng = np.random.default_rng(0)
    unit = rng.integers(0, 40, 400)
    labels = np.column_stack([np.isin(unit, [3, 9, 20, 31, 38]), unit % 2 == 0]).astype(np.uint8)
    part = deal_groups(unit, labels, 5)
    for group in range(40):
        assert len(np.unique(part[unit == group])) == 1
    assert [len(np.unique(unit[(part == one) & (labels[:, 0] == 1)])) for one in range(5)] == [1] * 5
    for label in labels.T:
        holding = [len(np.unique(unit[(part == one) & (label == 1)])) for one in range(5)]
        assert max(holding) - min(holding) <= 2


def test_the_gradient_of_the_penalised_loss_vanishes(rows):
    X, y = rows
    model = logistic(0.1).fit(X, y)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    residual = model.predict_proba(X) - y
    np.testing.assert_allclose(Z.T @ residual + model.coef_ / model.C_, 0, atol=0.01)
    np.testing.assert_allclose(residual.sum(axis=0), 0, atol=0.01)


@pytest.mark.parametrize(("value", "expected"), [(0, 1 / 122), (1, 121 / 122)])
def test_a_constant_label_gets_laplaces_probability(rows, value, expected):
    X, y = rows
    labels = y.copy()
    labels[:, 2] = value
    with_constant = logistic().fit(X, labels).predict_proba(X)
    np.testing.assert_allclose(with_constant[:, 2], expected, rtol=1e-5)
    np.testing.assert_allclose(with_constant[:, :2], logistic().fit(X, y[:, :2]).predict_proba(X), atol=1e-6)


def test_a_constant_feature_changes_nothing(rows):
    X, y = rows
    padded = np.column_stack([X, np.full(len(X), 0.1, np.float32)])
    expected = logistic(1.0).fit(X, y).predict_proba(X)
    padded_model = logistic(1.1).fit(padded, y)  # the spread is over 11 features
    np.testing.assert_allclose(padded_model.predict_proba(padded), expected, atol=1e-4)


def test_equal_rows_give_equal_bits(rows):
    X, y = rows
    first, again = (logistic().fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_solver_that_stops_early_is_not_called_converged(rows):
    X, y = rows
    assert logistic(10.0).fit(X, y).converged_
    assert not logistic(10.0, max_iter=1).fit(X, y).converged_


def test_keeps_the_contract_of_an_estimator(rows):
    X, y = rows
    before = X.copy(), y.copy()
    model = clone(logistic(0.5, 2.0, max_iter=77))
    assert (model.spreads, model.max_iter) == ((0.5, 2.0), 77)
    assert model.fit(X, y) is model
    assert model.spreads == (0.5, 2.0)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])


@pytest.mark.parametrize("width", [20, 150])
def test_ridge_regression_scores_each_group_as_a_fit_without_it_would(width, monkeypatch):
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(25), 4))
    X = rng.normal(size=(100, width)).astype(np.float32)
    y = (X[:, :2] + rng.normal(size=(100, 2)) > 0.3).astype(np.uint8)
    seen = []
    monkeypatch.setattr(linear, "fit_line", lambda scores, truth: seen.append(scores) or (1.0, 0.0))
    RidgeRegression(penalties=(0.5,)).fit(X, y, groups)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    for group in range(25):
        without = Ridge(alpha=0.5 * 100).fit(Z[groups != group], y[groups != group])
        expected = without.predict(Z[groups == group])
        np.testing.assert_allclose(np.column_stack(seen[-2:])[groups == group], expected, atol=1e-5)


def test_ridge_regression_is_scikit_learns_with_the_penalty_that_it_chose():
    X, y, _ = patients(0)
    model = RidgeRegression().fit(X, y)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    for label in range(2):
        theirs = Ridge(alpha=model.penalty_[label]).fit(Z, y[:, label])
        expected = expit(model.slope_[label] * theirs.predict(Z) + model.shift_[label])
        np.testing.assert_allclose(model.predict_proba(X)[:, label], expected, atol=1e-5)
    assert (model.slope_ > 0).all()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_ridge_regression_chooses_by_several_groups_however_large_they_are(count, monkeypatch):
    rng = np.random.default_rng(0)
    groups = np.arange(800) * count // 800
    X = (rng.normal(size=(800, 12)) + rng.normal(size=(count, 12))[groups]).astype(np.float32)
    y = (X[:, :2] + rng.logistic(size=(800, 2)) > 0.5).astype(np.uint8)
    asked = []
    solver = linear.RidgeSolver
    monkeypatch.setattr(linear, "RidgeSolver", lambda *of: asked.append((len(of[0]), len(set(of[3])))) or solver(*of))
    RidgeRegression(most_rows=100).fit(X, y, groups)
    assert asked == [(800, count), (200, count)]


@pytest.mark.parametrize("width", [40, 250])  # fewer features than rows, and more
def test_ridge_regression_chooses_on_some_whole_groups_and_learns_from_all_rows(width, monkeypatch):
    X, y, groups = patients(0, width)
    asked = []
    fit_line = linear.fit_line
    monkeypatch.setattr(linear, "fit_line", lambda scores, truth: asked.append(len(scores)) or fit_line(scores, truth))
    model = RidgeRegression(most_rows=60).fit(X, y, groups)
    assert asked == [60] * 8 * 2 + [180] * 2
    assert set(model.penalty_ / 60) <= set(model.penalties)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    for label in range(2):
        theirs = Ridge(alpha=model.penalty_[label]).fit(Z, y[:, label])
        expected = expit(model.slope_[label] * theirs.predict(Z) + model.shift_[label])
        np.testing.assert_allclose(model.predict_proba(X)[:, label], expected, atol=1e-5)


def test_ridge_regression_chooses_a_stronger_penalty_where_patients_tell_more_than_labels():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 8)
    X = rng.normal(size=(40, 60))[groups] + 0.1 * rng.normal(size=(320, 60))
    y = rng.permutation(np.arange(40) < 20)[groups].astype(np.uint8)[:, None]
    chosen = [RidgeRegression().fit(X, y, known).penalty_[0] for known in (groups, None)]
    assert chosen[0] > 10 * chosen[1]


def test_ridge_regression_of_one_group_leaves_rows_out_alone():
    X, y, _ = patients(0)
    alone, one = (RidgeRegression().fit(X, y, groups) for groups in (None, np.zeros(len(X))))
    np.testing.assert_array_equal(one.penalty_, alone.penalty_)
    np.testing.assert_array_equal(one.predict_proba(X), alone.predict_proba(X))


@pytest.mark.parametrize("rows", [16, 4])  # more rows than features, and fewer
def test_ridge_regression_does_not_take_a_penalty_that_is_lost_in_rounding(rows):
    """The same feature eight times: without a penalty its products are exactly singular."""
    X = np.resize([1, 1, -1, -1], rows)[:, None].repeat(8, axis=1).astype(np.float32)
    y = np.resize([1, 0, 0, 0], rows)[:, None].astype(np.uint8)
    with pytest.raises(np.linalg.LinAlgError, match=r"with a penalty of 0 the products .* Use a larger penalty"):
        RidgeSolver(X, y.astype(np.float64), np.ones(8), None).solve(0.0)
    np.testing.assert_array_equal(RidgeRegression(penalties=(0.0, 1.0)).fit(X, y).penalty_, [rows])
