"""Operating points: figures are those of the decisions, their intervals hold, and predictive values follow Bayes."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from classify.scores.prevalence import check_prevalences, parse_prevalences, shift_probability
from classify.scores.tables.operating_points import POINT_FIGURES, measure_point
from features.common.errors import InputError


def test_figures_are_those_of_the_counts():
    truth = np.repeat([1, 0], [40, 160]).astype(np.uint8)
    binary = np.repeat([1, 0, 1, 0], [30, 10, 16, 144])
    found = measure_point(truth, binary, np.arange(200), 0.2)
    values = {figure: found[figure][0] for figure in POINT_FIGURES}
    assert values == {
        "sensitivity": pytest.approx(0.75),
        "specificity": pytest.approx(0.9),
        "ppv": pytest.approx(30 / 46),  # at the prevalence of the images themselves
        "npv": pytest.approx(144 / 154),
        "lr_positive": pytest.approx(7.5),
        "lr_negative": pytest.approx(0.25 / 0.9),
    }
    for value, low, high, _ in found.values():
        assert low < value < high
    rare = measure_point(truth, binary, np.arange(200), 0.01)
    assert rare["ppv"][0] == pytest.approx(0.75 * 0.01 / (0.75 * 0.01 + 0.1 * 0.99))
    assert rare["npv"][0] == pytest.approx(0.9 * 0.99 / (0.9 * 0.99 + 0.25 * 0.01))


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_without_an_error_a_ratio_is_infinite_or_0_and_has_the_end_that_it_can_have(rate):
    truth = np.repeat([1, 0], [30, 60]).astype(np.uint8)
    found = measure_point(truth, np.where(truth == 1, 1 - rate, rate), np.arange(90), 0.1)
    value, low, high, _ = found["lr_negative" if rate else "lr_positive"]
    assert value == high == np.inf
    assert low > 5
    value, low, high, _ = found["lr_positive" if rate else "lr_negative"]
    assert value == low == 0
    assert 0 < high < 0.3
    assert found["ppv"][0] == found["npv"][0] == 1 - rate


def test_what_no_image_can_tell_is_left_out():
    found = measure_point(np.ones(20, np.uint8), np.repeat([1, 0], 10), np.arange(20), 0.5)
    assert {figure: found[figure][0] for figure in POINT_FIGURES} == dict.fromkeys(POINT_FIGURES) | {"sensitivity": 0.5}
    never = measure_point(np.repeat([1, 0], 10).astype(np.uint8), np.zeros(20), np.arange(20), 0.5)
    assert never["lr_positive"][0] is None
    assert never["ppv"][0] is None


@pytest.mark.parametrize(("positives", "patients"), [(24, None), (150, None), (150, 40)])
def test_intervals_hold_the_truth(positives, patients):
    """Decisions of normal scores, alike within a patient: 300 simulations."""
    sensitivity, specificity, prevalence = 0.85, 0.8, 0.05
    truth = np.repeat([1, 0], [positives, 300]).astype(np.uint8)
    patient = np.arange(len(truth)) if patients is None else np.arange(len(truth)) % patients
    alike = 0.0 if patients is None else 0.3
    expected = {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "lr_positive": sensitivity / (1 - specificity),
        "lr_negative": (1 - sensitivity) / specificity,
        "ppv": expit(logit(prevalence) + np.log(sensitivity / (1 - specificity))),
        "npv": expit(-logit(prevalence) - np.log((1 - sensitivity) / specificity)),
    }
    held = dict.fromkeys(POINT_FIGURES, 0)
    for seed in range(300):
        rng = np.random.default_rng([positives, seed])
        of_patient = rng.normal(size=len(truth))[patient]
        scores = np.sqrt(alike) * of_patient + np.sqrt(1 - alike) * rng.normal(size=len(truth))
        binary = scores < np.where(truth == 1, norm.ppf(sensitivity), norm.ppf(1 - specificity))
        for figure, (_, low, high, _) in measure_point(truth, binary, patient, prevalence).items():
            held[figure] += low <= expected[figure] <= high
    assert {figure: count for figure, count in held.items() if count < 0.9 * 300} == {}


def test_shifted_probabilities_are_calibrated_where_the_label_is_rarer():
    rng = np.random.default_rng(0)
    learnt, prevalence, apart = 0.3, 0.02, 1.5
    truth = (rng.random(200_000) < prevalence).astype(np.uint8)
    scores = rng.normal(size=len(truth)) + apart * truth
    p = expit(logit(learnt) + apart * scores - apart**2 / 2)  # what a model says that learnt from a share of 0.3
    shifted = shift_probability(p, learnt, prevalence)
    assert p.mean() > 5 * truth.mean()
    assert shifted.mean() == pytest.approx(truth.mean(), rel=0.03)
    for low, high in ((0.01, 0.05), (0.05, 0.2), (0.2, 0.6)):
        rows = (shifted >= low) & (shifted < high)
        assert truth[rows].mean() == pytest.approx(shifted[rows].mean(), rel=0.1)
    np.testing.assert_allclose(shifted, expit(logit(prevalence) + apart * scores - apart**2 / 2), rtol=1e-9)
    np.testing.assert_allclose(shift_probability(np.array([0.0, 1.0]), learnt, prevalence), [0.0, 1.0])
    np.testing.assert_allclose(shift_probability(p[:9], learnt, learnt), p[:9])


@pytest.mark.parametrize("text", ["epidural", "epidural=", "epidural=x", "=0.1", "epidural=0", "epidural=1", "a=nan"])
def test_a_prevalence_that_is_none_is_refused(text):
    with pytest.raises(InputError, match=r"--prevalence .*: expected a label and a share from 1e-06 to 0\.999999"):
        parse_prevalences([text])


def test_prevalences_are_of_labels_each_once():
    assert parse_prevalences(None) == {}
    shares = parse_prevalences(["epidural=0.01", "a=b=.5"])
    assert shares == {"epidural": 0.01, "a=b": 0.5}
    with pytest.raises(InputError, match="--prevalence names epidural twice"):
        parse_prevalences(["epidural=0.01", "epidural=0.02"])
    with pytest.raises(InputError, match=r"names 'a=b', which is not a label\. The labels: epidural"):
        check_prevalences(shares, ["epidural"])
