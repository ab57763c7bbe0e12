"""What the simulations draw has the truth that they say, and what runs on noise say is added up as it is."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from scripts.benchmark_honesty import PATIENTS, POSITIVES, Noise, print_noise, simulate_slices


@pytest.mark.parametrize("patients", PATIENTS)
@pytest.mark.parametrize("positives", POSITIVES)
def test_slices_are_drawn_of_as_many_positives_and_patients_as_asked_for(patients, positives):
    truth, scores, patient = simulate_slices(np.random.default_rng(0), patients, positives)
    assert len(truth) == len(scores) == 10 * patients
    assert truth.sum() == positives
    assert np.bincount(patient).tolist() == [10] * patients
    bleeding = len(np.unique(patient[truth == 1]))
    assert bleeding == min(positives, max(patients // 3, -(-positives // 10)))


def test_the_truth_of_the_simulated_scores_is_that_which_intervals_are_held_to():
    truth, scores, _ = simulate_slices(np.random.default_rng(0), 4000, 12_000)
    assert roc_auc_score(truth, scores) == pytest.approx(norm.cdf(1.2 / np.sqrt(2)), abs=0.01)
    noise = (scores - 1.2 * truth).reshape(4000, 10)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert np.corrcoef(noise[:, 0], noise[:, 1])[0, 1] == pytest.approx(0.4, abs=0.05)


def test_runs_on_noise_are_summed_up(capsys):
    print_noise([Noise(0.52, 0.51, 0.5, True, True), Noise(0.56, 0.53, 0.48, False, True)])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:4] == ["2", "runs", "on", "noise:"]
    assert [line[-2:] for line in lines[-3:-2]] == [["0.540", "0.014"]]
    assert [line[-3:] for line in lines[-2:]] == [["0.520", "0.007", "50%"], ["0.490", "0.007", "100%"]]
