"""What the figures and the slider of a label show agrees with scikit-learn and SciPy."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc, confusion_matrix, roc_curve

from classify.report.data import _describe_split, draw_prevalence
from classify.report.labels import (
    POSITIONS,
    Scored,
    bin_calibration,
    count_from,
    decide,
    draw_precision_recall,
    draw_roc,
    positions,
    thin,
)
from classify.report.plotting import house_style, shorten, to_picture
from classify.report.run_files import LabelledSplit
from classify.scores.metrics import BINS
from features.common.arrays import UNKNOWN


@pytest.fixture
def scored() -> Scored:
    rng = np.random.default_rng(0)
    probability = rng.beta(0.5, 1.5, 3000).astype(np.float32)
    return Scored("test", (rng.random(3000) < probability**1.3).astype(np.uint8), probability)


def test_bins_are_those_of_scikit_learn_with_wilsons_intervals(scored):
    mean, share, low, high = bin_calibration(scored.truth, scored.probability)
    expected_share, expected_mean = calibration_curve(scored.truth, scored.probability, n_bins=BINS)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-6)
    np.testing.assert_allclose(share, expected_share)
    counts = np.histogram(scored.probability.astype(float), np.linspace(0, 1, BINS + 1))[0]
    for at in (0, 7, 14):
        expected = binomtest(round(share[at] * counts[at]), counts[at]).proportion_ci(method="wilson")
        assert (low[at], high[at]) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_a_bin_without_positives_has_an_interval_all_the_same():
    _, share, low, high = bin_calibration(np.zeros(10, np.uint8), np.full(10, 0.1, np.float32))
    assert (share[0], low[0]) == (0, 0)
    assert high[0] == pytest.approx(0.2775, abs=1e-3)  # 1.96² / (10 + 1.96²)


def test_a_thinned_curve_keeps_its_ends_and_its_area(scored):
    x, y, _ = roc_curve(scored.truth, scored.probability, drop_intermediate=False)
    few_x, few_y = thin(x, y)
    assert len(few_x) <= 300 < len(x)
    assert (few_x[0], few_y[0], few_x[-1], few_y[-1]) == (0, 0, 1, 1)
    assert auc(few_x, few_y) == pytest.approx(auc(x, y), abs=0.002)


def test_the_dots_stand_at_the_threshold(scored):
    decided = scored.probability >= 0.4
    sensitivity = decided[scored.truth == 1].mean()
    for draw, expected in (
        (draw_roc, (decided[scored.truth == 0].mean(), sensitivity)),
        (draw_precision_recall, (sensitivity, scored.truth[decided].mean())),
    ):
        dots = [line for line in draw([scored], 0.4).axes[0].lines if line.get_marker() == "o"]
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in dots] == [pytest.approx(expected)]


def test_a_precision_recall_curve_begins_with_the_precision_of_the_first_positive():
    # By falling probability: negative, positive, negative, positive.
    scored = Scored("test", np.array([0, 1, 0, 1], np.uint8), np.array([0.9, 0.8, 0.7, 0.6], np.float32))
    curve = draw_precision_recall([scored], 0.5).axes[0].lines[0]
    assert curve.get_drawstyle() == "steps-post"
    assert np.array(curve.get_xydata()).tolist() == [[1, 0.5], [0.5, pytest.approx(1 / 3)], [0.5, 0.5], [0, 0.5]]


def test_a_threshold_between_two_neighbouring_float32_values_decides_as_the_run_does():
    low = np.float32(0.7)
    high = np.nextafter(low, np.float32(1))
    threshold = (float(low) + float(high)) / 2  # rounded to float32 it is one of the two
    scored = Scored("test", np.array([0, 1], np.uint8), np.array([low, high]))
    assert decide(scored, threshold).tolist() == [False, True]
    alone = Scored("test", np.array([0, 1], np.uint8), np.array([high, low]))
    dots = [line for line in draw_roc([alone], threshold).axes[0].lines if line.get_marker() == "o"]
    assert (dots[0].get_xdata()[0], dots[0].get_ydata()[0]) == (1, 0)
    found, alarms = count_from(scored.truth, scored.probability, np.array([threshold]))
    assert (found[0], alarms[0]) == (1, 0)


def test_names_beside_the_bars_are_shortened_and_the_bars_keep_their_room(tmp_path):
    names = [f"{'intraparenchymal' * 20} {end}" for end in ("left", "right")]
    with house_style(), warnings.catch_warnings():
        warnings.simplefilter("error")  # of a layout that finds no room
        figure = draw_prevalence(names, {"train": np.array([0.1, 0.5])})
        to_picture(figure, "a", "alt", "caption", tmp_path)
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == ["intraparen\u2026ymal left", "intraparen\u2026mal right"]
    assert figure.axes[0].get_position().width > 0.5
    assert [shorten(name, 8) for name in ("12345678", "123456789")] == ["12345678", "1234\u2026789"]


def test_positions_ascend_from_0_to_1_and_are_finest_at_the_ends():
    assert (POSITIONS[0], POSITIONS[-1]) == (0, 1)
    steps = np.diff(POSITIONS)
    assert steps.min() > 0.99e-4
    assert steps.max() < 1.01e-3
    assert np.isin([0.0001, 0.01, 0.25, 0.5, 0.9999], POSITIONS).all()


@pytest.mark.parametrize("threshold", [0.0, 0.06248371, 0.5, 1.0, np.inf])
def test_the_runs_threshold_is_a_position_where_it_can_be(threshold):
    cuts = positions(threshold)
    assert (np.diff(cuts) > 0).all()
    assert np.isin(threshold, cuts) == np.isfinite(threshold)
    assert len(cuts) == len(POSITIONS) + (threshold == 0.06248371)


def test_counts_are_those_of_scikit_learn_ties_with_a_cut_among_them():
    rng = np.random.default_rng(0)
    truth = (rng.random(400) < 0.2).astype(np.uint8)
    # Many probabilities that are a cut themselves, as float32 can be: there a row counts as positive.
    probability = np.where(rng.random(400) < 0.5, rng.integers(0, 9, 400) / 8, rng.random(400)).astype(np.float32)
    cuts = positions(float(probability[7]))
    found, alarms = count_from(truth, probability, cuts)
    for at in [0, 1, 500, len(cuts) - 1, *np.flatnonzero(np.isin(cuts, [0.25, 0.5, float(probability[7])]))]:
        tn, fp, fn, tp = confusion_matrix(truth, probability >= cuts[at], labels=[0, 1]).ravel()
        assert (found[at], alarms[at]) == (tp, fp)
        assert (truth.sum() - found[at], (1 - truth).sum() - alarms[at]) == (fn, tn)


def test_test_images_without_labels_beside_a_hold_out_are_no_groups():
    labels = np.array([[UNKNOWN], [UNKNOWN], [UNKNOWN], [1], [0], [1]], np.uint8)
    groups = np.array(["t0", "t1", "p9", "p1", "p1", "a2"])
    split = LabelledSplit("test", ("t0", "t1", "t2", "a0", "a1", "a2"), groups, labels, np.zeros((6, 1), np.float32))
    run = SimpleNamespace(record={"splits": {"test": {"images": 6, "rejected": []}}}, splits={"test": split})
    row = _describe_split(run, "test")
    assert (row["groups"], row["group_median"], row["group_most"]) == (3, 1, 2)  # p9, p1 and a2
