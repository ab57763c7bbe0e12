"""Linear models of all labels at once, which choose their penalty by groups that they leave out."""

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import expit, logit
from sklearn.base import BaseEstimator

from classify.models.closed_form import RidgeSolver, measure_mean, measure_scale
from classify.models.descent import Curvature, SampledCurvature, Standardised, descend, start_lines
from classify.models.estimators import expect_shares, fit_line
from classify.models.trained_head import Linearised
from features.common.arrays import UNKNOWN, Features, Groups, Labels, Probabilities, RowIndices, find_varied
from features.store.mapped import AnyFeatures, take_rows

#: Log loss a row that a fit may leave to gain, by the quadratic model of the loss: of fits that choose, and of others.
_ROUGH, _FINE = 1e-5, 1e-9
#: Cells of features, rows times columns, up to which all rows are fitted in memory; beyond, so many of them first.
_SAMPLED = 1 << 25
#: How many times as many rows tell the curvature: of a rare label few of them count.
_WIDER = 4
#: Groups on which a ridge regression chooses, at least, where there are as many.
_LEAST_GROUPS = 5
#: Fits side by side: more would not speed up the products of matrices.
_COLUMNS = 256


def sampled_rows(width: int) -> int:
    """How many rows of so many features are fitted in memory, to learn from more: at least two for each feature."""
    return max(_SAMPLED // max(width, 1), 2 * width)


class _Linear(BaseEstimator):
    """A line per label on standardised features, whose sigmoid is the probability.

    Attributes:
        mean_, scale_: float64 (D,), of the features that it learnt from; the scale of a constant one is 1.
        coef_: float64 (D, L), on standardised features.
        intercept_: float64 (L,).
    """

    has_gradient = True

    def predict_proba(self, X: Features) -> Probabilities:
        """Give the probability of each label."""
        coefficients, intercepts = self.lines()
        # Centred first: a line through far-off features loses the digits that tell their rows apart.
        mean = self.mean_.astype(np.float32)
        at_mean = intercepts + mean.astype(np.float64) @ coefficients
        return expit((X - mean) @ coefficients.astype(np.float32) + at_mean.astype(np.float32))

    def linearise(self, X: Features) -> Linearised:
        """Its line, which is equal in all rows."""
        coefficients, intercepts = (line.astype(np.float32) for line in self.lines())
        return Linearised(
            np.broadcast_to(coefficients.T, (len(X), *coefficients.T.shape)),
            np.broadcast_to(intercepts, (len(X), len(intercepts))),
        )

    def lines(self) -> tuple[np.ndarray, np.ndarray]:
        """The logits of all labels on the features themselves: float64 coefficients (D, L), intercepts (L,)."""
        coefficients = self.coef_ / self.scale_[:, None]
        return coefficients, self.intercept_ - self.mean_ @ coefficients


class PenalisedLogistic(_Linear):
    """Logistic regression with an L2 penalty, one strength for all labels.

    The penalty is a normal prior on the coefficients, of variance C. It is chosen by the spread that it gives the logit
    of an image, C * D on D standardised features, so that the same choices serve any width; and as a prior does not
    depend on the number of rows, it is chosen on some `most_rows` of them, in at least `parts` whole groups; of groups
    that are too large for the memory, on a share of their rows.

    The choice is by log loss on parts that cut no group, and that the fit left out: the strongest penalty whose loss is
    within a standard error, over groups, of the least (Hastie et al. 2009, section 7.10). One for all labels: chosen
    by label it follows the noise of few patients; see docs/decisions.md.

    All fits run side by side, in products of matrices: conjugate gradients (Polak and Ribiere), preconditioned by the
    curvature at the share of positives. Fewer rows than features are rotated into as many columns as rows.

    Args:
        spreads: variances of the logit to choose from, rising; a single one is taken as it is.
        parts: that the rows are split into for the choice.
        most_rows: that the choice is made on.
        max_iter: of the solver.

    Attributes:
        C_: what was chosen, as scikit-learn's C: the inverse of the strength.
        converged_: whether the fit on all rows came within a log loss of 1e-9 a row.
    """

    def __init__(
        self,
        spreads: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        parts: int = 5,
        most_rows: int = 5_000,
        max_iter: int = 500,
    ) -> None:
        self.spreads = spreads
        self.parts = parts
        self.most_rows = most_rows
        self.max_iter = max_iter

    def fit(self, X: AnyFeatures, y: Labels, groups: Groups | None = None) -> "PenalisedLogistic":
        """Learn from rows of features, their labels and, where known, their groups."""
        self.mean_, self.scale_ = measure_scale(X)
        rows, width = X.shape
        varied = find_varied(y)
        self.coef_, self.intercept_ = np.zeros((width, y.shape[1])), logit(expect_shares(y))
        self.C_, self.converged_ = self.spreads[0] / width, True
        if not varied.any():
            return self
        truth, given = (y[:, varied] == 1).astype(np.float32), (y[:, varied] != UNKNOWN).astype(np.float32)
        standardised = Standardised(X, self.mean_, self.scale_)
        most = sampled_rows(width)
        kept = thin_out(np.arange(rows), truth, most)
        seen, of_kept = standardised.read(kept), (truth[kept], given[kept])
        root = None
        if 2 * rows < width:
            kernel = (seen[:, :-1] @ seen[:, :-1].T).astype(np.float64)
            kernel[np.diag_indices(rows)] += 1e-5 * np.trace(kernel) / rows  # of centred rows it is singular
            root = np.linalg.cholesky(kernel)
        known = seen if root is None else np.column_stack([root, np.ones(rows)]).astype(np.float32)
        curvature = Curvature.of(known)
        if len(self.spreads) > 1:
            part, unit = self._deal(truth, groups)
            chosen = thin_out(np.flatnonzero(part < self.parts), truth, most)
            own = known[chosen] if len(kept) == rows else standardised.read(chosen)
            of_own = own, truth[chosen], given[chosen], unit[chosen], part[chosen]
            self.C_ = self._choose(*of_own, curvature, width) / width
        penalty = np.full(truth.shape[1], 1 / self.C_)
        if len(kept) == rows:
            fitted, converged = descend(known, *of_kept, penalty, curvature, self.max_iter, _FINE)
        else:
            start = start_lines(known.shape[1], truth, given)
            both = find_varied(np.where(of_kept[1] > 0, of_kept[0], UNKNOWN))
            own_truth, own_given = (cells[:, both] for cells in of_kept)
            # To fewer rows the same prior is a stronger penalty.
            weaker = penalty[both] * len(kept) / rows
            start[:, both], _ = descend(known, own_truth, own_given, weaker, curvature, self.max_iter, _ROUGH)
            del known, seen, curvature
            wider = thin_out(np.arange(rows), truth, _WIDER * most)
            sampled = SampledCurvature.of(standardised, wider, given, start, penalty)
            fitted, converged = descend(standardised, truth, given, penalty, sampled, self.max_iter, _FINE, start)
        self.converged_ = bool(converged.all())
        lines = fitted[:-1].astype(np.float64)
        if root is not None:
            lines = seen[:, :-1].T @ solve_triangular(root, lines, lower=True, trans="T")
        self.coef_[:, varied], self.intercept_[varied] = lines, fitted[-1]
        return self

    def _deal(self, truth: np.ndarray, groups: Groups | None) -> tuple[np.ndarray, np.ndarray]:
        """Deal whole groups to parts, of which the first `parts` choose: the part and the group of each row."""
        unit = np.arange(len(truth)) if groups is None else np.unique(groups, return_inverse=True)[1]
        return deal_groups(unit, truth, self.parts * -(-len(truth) // self.most_rows)), unit

    def _choose(
        self,
        seen: np.ndarray,
        truth: np.ndarray,
        given: np.ndarray,
        unit: np.ndarray,
        part: np.ndarray,
        curvature: Curvature,
        width: int,
    ) -> float:
        """Choose the spread; arrays as those of `descend`, which may learn from the cells that are given."""
        unit = np.unique(unit, return_inverse=True)[1]
        losses = np.zeros((len(self.spreads), unit.max() + 1))
        fits = [(label, left_out) for label in range(truth.shape[1]) for left_out in range(self.parts)]
        # a part is of no use to a label that has one value without it
        values = np.where(given > 0, truth, UNKNOWN)
        fits = [fit for fit in fits if find_varied(values[part != fit[1], fit[0] : fit[0] + 1]).all()]
        at_once = max(1, _COLUMNS // len(self.spreads))
        for start in range(0, len(fits), at_once):
            label, left_out = np.repeat(fits[start : start + at_once], len(self.spreads), axis=0).T
            spread = np.tile(np.arange(len(self.spreads)), len(label) // len(self.spreads))
            own, learnt = truth[:, label], np.ascontiguousarray(given[:, label] * (part[:, None] != left_out))
            penalty = width / np.array(self.spreads)[spread]
            lines, _ = descend(seen, own, learnt, penalty, curvature, self.max_iter, _ROUGH)
            logits = seen @ lines
            lost = np.where(learnt < given[:, label], np.logaddexp(0, logits) - own * logits, 0)
            for number, column in zip(spread, lost.T, strict=True):
                losses[number] += np.bincount(unit, weights=column)
        excess = losses - losses[np.argmin(losses.sum(axis=1))]
        near = excess.sum(axis=1) <= np.sqrt(losses.shape[1]) * excess.std(axis=1)
        return self.spreads[int(np.argmax(near))]


def deal_groups(unit_of_row: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Deal whole groups to parts in turn, those of the rarest label first, larger ones before smaller ones.

    Args:
        unit_of_row: int64 (N,), the group of each row, from 0.
        labels: (N, L), 0 or 1.
        count: of the parts.

    Returns:
        int64 (N,), the part of each row, from 0.
    """
    positives = [np.bincount(unit_of_row, weights=labels[:, label]) for label in np.argsort(-labels.sum(axis=0))]
    order = np.lexsort([np.bincount(unit_of_row), *(own > 0 for own in positives)])[::-1]
    part_of_unit = np.empty(len(order), np.int64)
    part_of_unit[order] = np.arange(len(order)) % count
    return part_of_unit[unit_of_row]


def thin_out(rows: RowIndices, labels: np.ndarray, most: int) -> RowIndices:
    """Keep so many rows at most, with their share of each combination of labels, spread evenly: ascending.

    Args:
        rows: ascending.
        labels: (N, L), 0 or 1, of all rows.
        most: at least 1.
    """
    if len(rows) <= most:
        return rows
    order = np.lexsort(labels[rows].T)  # like ones side by side, and in their order
    return np.sort(rows[order[np.arange(most) * len(rows) // most]])


class RidgeRegression(_Linear):
    """Least squares with an L2 penalty, on labels as numbers, in closed form; a line makes its scores probabilities.

    Penalty and line are fitted to the exact scores that each group would have had without its own rows, per label: the
    penalty of the least log loss. As a prior does not depend on the number of rows, it is chosen on some `most_rows` of
    them, in whole groups; of few large groups, on a share of their rows. The line is fitted to the scores of all rows.
    See `RidgeSolver`.

    Args:
        penalties: to choose from, in units of the rows that the choice is made on.
        most_rows: that the choice is made on, twice as many at the most.

    Attributes:
        mean_, scale_: float64 (D,), of the features that it learnt from.
        coef_: float64 (D, L), on standardised features.
        intercept_: float64 (L,).
        slope_, shift_: float64 (L,), of the lines; 0 and the logit of Laplace's rule for a label of one value.
        penalty_: float64 (L,), what was chosen: scikit-learn's alpha.
    """

    converged_ = True

    def __init__(
        self,
        penalties: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        most_rows: int = 2_500,
    ) -> None:
        self.penalties = penalties
        self.most_rows = most_rows

    def fit(self, X: AnyFeatures, y: Labels, groups: Groups | None = None) -> "RidgeRegression":
        """Learn from rows of features, their labels and, where known, their groups."""
        labels = y.shape[1]
        self.mean_, self.scale_ = measure_scale(X)
        self.coef_, self.intercept_ = np.zeros((X.shape[1], labels)), np.zeros(labels)
        self.penalty_, self.slope_, self.shift_ = np.full(labels, self.penalties[0]), np.zeros(labels), np.zeros(labels)
        patterns, pattern_of_label = np.unique(y != UNKNOWN, axis=1, return_inverse=True)
        for pattern, known in enumerate(patterns.T):  # labels that are known of the same rows are fitted together
            own = np.flatnonzero(pattern_of_label.ravel() == pattern)
            if known.any():
                seen = X if known.all() else take_rows(X, known)
                self._fit_known(seen, y[known][:, own], None if groups is None else groups[known], own)
        constant = ~find_varied(y)
        self.slope_[constant] = 0.0
        self.shift_[constant] = logit(expect_shares(y))[constant]
        return self

    def _fit_known(self, X: AnyFeatures, y: Labels, groups: Groups | None, own: np.ndarray) -> None:
        """Fit some labels, int (n,), to rows of which they are all known."""
        truth = y.astype(np.float64)
        solver = RidgeSolver(X, truth, self.scale_, groups)
        self.penalty_[own] = self._choose(X, truth, groups, solver)
        for penalty in np.unique(self.penalty_[own]):
            coefficients, alone = solver.solve(penalty)
            for label in np.flatnonzero(self.penalty_[own] == penalty):
                self.coef_[:, own[label]] = coefficients[:, label]
                self.slope_[own[label]], self.shift_[own[label]] = fit_line(alone[:, label], truth[:, label])
        mean = (measure_mean(X) - self.mean_) / self.scale_
        self.intercept_[own] = truth.mean(axis=0) - mean @ self.coef_[:, own]

    def _choose(self, X: AnyFeatures, truth: np.ndarray, groups: Groups | None, solver: RidgeSolver) -> np.ndarray:
        """Choose a penalty per label, (L,); the solver is of all the rows."""
        if len(X) > self.most_rows:
            unit = np.arange(len(X)) if groups is None else np.unique(groups, return_inverse=True)[1]
            parts = min(-(-len(X) // self.most_rows), max(1, len(np.unique(unit)) // _LEAST_GROUPS))
            kept = thin_out(np.flatnonzero(deal_groups(unit, truth, parts) == 0), truth, 2 * self.most_rows)
            truth = truth[kept]
            solver = RidgeSolver(X[kept], truth, self.scale_, None if groups is None else groups[kept])
        penalties = len(truth) * np.array(self.penalties)
        losses = np.full((len(penalties), truth.shape[1]), np.inf)
        for own, penalty in zip(losses, penalties, strict=True):
            try:
                _, alone = solver.solve(penalty)
            except np.linalg.LinAlgError:  # it is lost in the rounding of the products
                continue
            lines = np.array([fit_line(*columns) for columns in zip(alone.T, truth.T, strict=True)])
            logits = alone * lines[:, 0] + lines[:, 1]
            own[:] = np.mean(np.logaddexp(0, logits) - truth * logits, axis=0)
        return penalties[np.argmin(losses, axis=0)]

    def lines(self) -> tuple[np.ndarray, np.ndarray]:
        """The same of the scores, put on the logits' scale."""
        coefficients, intercepts = super().lines()
        return coefficients * self.slope_, intercepts * self.slope_ + self.shift_
