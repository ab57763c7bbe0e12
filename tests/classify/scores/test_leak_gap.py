"""`--gap`: what random folds make of a planted leak, and of none."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, KFold

from classify.crossfit.plan import FitPlan, make_repeats
from classify.inputs import Inputs, SplitInputs
from classify.models.baselines import BASELINES
from classify.scores.gains import Gap, measure_gap
from classify.scores.resampling import resample
from tests.classify.test_run import run
from tests.classify.toy import Toy, make_toy

PATIENTS, SLICES, WIDTH = 60, 6, 400


@pytest.fixture
def toy(tmp_path) -> Toy:
    return make_toy(tmp_path)


def make_inputs(leak: bool) -> Inputs:
    """Patients of 6 slices. The label is the patient's; with a leak, so is what the features show, and nothing else."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(PATIENTS), SLICES)
    signs = rng.integers(0, 2, (PATIENTS, 2)).astype(np.uint8)
    labels = signs[patient]
    look = rng.normal(size=(PATIENTS, WIDTH))[patient] if leak else 2.0 * labels @ rng.normal(size=(2, WIDTH))
    features = (look + 0.5 * rng.normal(size=(len(patient), WIDTH))).astype(np.float32)
    if not leak:
        features += rng.normal(size=features.shape).astype(np.float32) * 20
    ids = tuple(f"i{row}" for row in range(len(patient)))
    train = SplitInputs(ids, np.ones(len(ids), bool), features, labels, np.char.add("p", patient.astype(str)), {})
    return Inputs(("a", "b"), {"net": slice(0, WIDTH)}, train, labels, None)


def gap_of(inputs: Inputs, repeats: int = 1) -> tuple[Gap, int]:
    plan = FitPlan(make_repeats(inputs, 5, repeats, 0))
    steps = []
    draws = resample(len(inputs.train_labels), inputs.train.groups, 0)
    return measure_gap(inputs, plan, 0, 1, draws, lambda: steps.append(1)), len(steps)


def test_a_planted_leak_is_worth_what_scikit_learn_says():
    inputs = make_inputs(leak=True)
    gap, steps = gap_of(inputs)
    expected = []
    for folds, groups in ((KFold(5, shuffle=True, random_state=0), None), (GroupKFold(5), inputs.train.groups)):
        X, y = inputs.train.features, inputs.train_labels
        out_of_fold = np.empty(y.shape)
        for learnt, held_out in folds.split(X, groups=groups):
            out_of_fold[held_out] = BASELINES["logistic"].make().fit(X[learnt], y[learnt]).predict_proba(X[held_out])
        expected.append(roc_auc_score(y, out_of_fold, average="macro"))
    assert steps == 10
    assert gap.random.value == pytest.approx(expected[0], abs=0.02)
    # By other folds, so both are chance: 0.5, and with two labels of so many patients three deviations are 0.15.
    assert [gap.grouped.value, expected[1]] == pytest.approx([0.5, 0.5], abs=0.15)
    assert gap.random.value > 0.95
    assert gap.gap.value == pytest.approx(gap.random.value - gap.grouped.value)
    assert 0.2 < gap.gap.low < gap.gap.value < gap.gap.high
    assert gap.grouped.value == pytest.approx(np.mean([grouped for _, grouped in gap.by_label.values()]))


def test_without_a_leak_the_interval_holds_zero():
    gap, _ = gap_of(make_inputs(leak=False))
    assert gap.grouped.value > 0.6
    assert gap.gap.low <= 0.01
    assert abs(gap.gap.value) < 0.03


def test_repeats_are_those_of_the_plan():
    inputs = make_inputs(leak=True)
    assert gap_of(inputs, repeats=2)[1] == 20


def test_the_command_tells_and_records_it(toy):
    code, said, out = run(toy, "run", "--gap", "--select", "mean")
    gap = json.loads((out / "run.json").read_text())["gap"]
    assert code == 0
    assert set(gap["by_label"]) == {"epidural", "intraparenchymal", "subarachnoid"}
    assert f"gap: {gap['gap']['value']:.3f} [{gap['gap']['low']:.3f}, {gap['gap']['high']:.3f}] macro AUC" in said
    assert f"{gap['grouped']['value']:.3f} [{gap['grouped']['low']:.3f}" in said
    with (out / "metrics.csv").open() as file:
        logistic = next(line for line in file if line.startswith("logistic/all,oof,macro,roc_auc"))
    assert float(logistic.split(",")[4]) == pytest.approx(gap["grouped"]["value"], abs=1e-9)  # the same model and folds
    assert json.loads((run(toy, "other")[2] / "run.json").read_text())["gap"] is None


def test_without_groups_or_with_groups_of_one_there_is_no_gap_to_measure(toy, tmp_path):
    alone = tmp_path / "groups.csv"
    alone.write_text("ID,group\n" + "".join(f"{i},{i}\n" for i in toy.train_ids))
    code, said, _ = run(toy, "run", "--gap", "--groups", str(alone))
    assert (code, "each of the 200 groups holds one image" in said) == (2, True)
    table = (toy.data / "train.csv").read_text().replace("patient", "clinic")
    (toy.data / "train.csv").write_text(table)
    code, said, _ = run(toy, "run", "--gap")
    assert (code, "but no groups are known. Use --group-column, --group-from or --groups." in said) == (2, True)
