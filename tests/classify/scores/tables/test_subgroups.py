"""Subgroups: each value of a column, scored as if alone, beside the rest on the same draws."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from classify.scores.metrics import MACRO
from classify.scores.resampling import resample
from classify.scores.tables.columns import MISSING, name_subgroups
from classify.scores.tables.splits import SplitReading
from classify.scores.tables.subgroups import LEAST_SUBGROUP, list_small, score_subgroups
from features.common.errors import InputError


def make_split(rows=600, patients=200, worse=0.0, seed=0) -> tuple[SplitReading, np.ndarray]:
    """Test images from two scanners; on those of `B` a label is `worse` harder to tell."""
    rng = np.random.default_rng(seed)
    patient = np.arange(rows) % patients
    scanner = np.where(patient % 3 == 0, "B", "A").astype("U8")
    labels = (rng.random((rows, 2)) < 0.3).astype(np.uint8)
    scores = (1.5 - worse * (scanner == "B"))[:, None] * labels + rng.normal(size=labels.shape)
    p = expit(scores - 1).astype(np.float32)
    groups = np.array([f"p{number:03d}" for number in patient])
    drawn = resample(rows, groups, seed, 200)
    return SplitReading("test", labels, p, (p > 0.5).astype(np.uint8), groups, drawn, None), scanner


def test_figures_are_scikit_learns_of_the_subgroup_and_of_the_rest():
    split, scanner = make_split()
    found = score_subgroups(("x", "y"), [split], {"scanner": {"test": scanner}})
    figures = {(f.subgroup, f.label, f.metric): f for f in found}
    assert {f.images for f in found if f.subgroup == "B"} == {(scanner == "B").sum()}
    for subgroup in ("A", "B"):
        for index, label in enumerate("xy"):
            expected = [
                {
                    "roc_auc": roc_auc_score(split.labels[rows, index], split.probabilities[rows, index]),
                    "average_precision": average_precision_score(
                        split.labels[rows, index], split.probabilities[rows, index]
                    ),
                    "sensitivity": recall_score(split.labels[rows, index], split.binary[rows, index]),
                    "specificity": recall_score(split.labels[rows, index], split.binary[rows, index], pos_label=0),
                }
                for rows in (scanner == subgroup, scanner != subgroup)
            ]
            for metric, value in expected[0].items():
                figure, rest = figures[subgroup, label, metric], expected[1][metric]
                assert (figure.value, figure.rest) == (pytest.approx(value), pytest.approx(rest))
                assert figure.difference == pytest.approx(value - rest)
                assert figure.low < value < figure.high
                assert figure.difference_low < figure.difference < figure.difference_high
    macro = figures["A", "macro", "roc_auc"]
    assert macro.value == pytest.approx(np.mean([figures["A", label, "roc_auc"].value for label in "xy"]))
    # Two subgroups are each other's rest, on the same draws.
    mirrored = figures["B", "macro", "roc_auc"]
    assert mirrored.difference_low == pytest.approx(-macro.difference_high)


def test_the_interval_of_a_difference_holds_the_truth():
    """Where nothing differs it holds 0, of 2 labels in 30 simulations; where much does, not."""
    held = []
    for seed in range(30):
        split, scanner = make_split(240, 40, seed=seed)
        found = score_subgroups(("x", "y"), [split], {"scanner": {"test": scanner}})
        held += [
            f.difference_low <= 0 <= f.difference_high
            for f in found
            if (f.subgroup, f.metric) == ("B", "roc_auc") and f.label != "macro"
        ]
    assert 0.9 <= np.mean(held) <= 1
    split, scanner = make_split(worse=1.5)
    found = score_subgroups(("x", "y"), [split], {"scanner": {"test": scanner}})
    (worse,) = (f for f in found if (f.subgroup, f.label, f.metric) == ("B", "macro", "roc_auc"))
    assert worse.difference_high < 0


def test_a_small_subgroup_is_named_and_not_scored_and_a_label_that_it_lacks_has_no_figure():
    split, scanner = make_split(rows=200, patients=100)
    scanner[:5] = "rare"
    split.labels[scanner == "B", 1] = 0
    found = score_subgroups(("x", "y"), [split], {"scanner": {"test": scanner}})
    assert list_small(found) == ["scanner rare (test, 5)"]
    assert {f.value for f in found if f.subgroup == "rare"} == {None}
    lacking = {f.metric: f for f in found if (f.subgroup, f.label) == ("B", "y")}
    assert lacking["roc_auc"].value is lacking["sensitivity"].value is lacking["roc_auc"].difference is None
    assert lacking["specificity"].value is not None
    assert len(split.labels[scanner == "A"]) >= LEAST_SUBGROUP


def test_a_label_that_a_subgroup_always_has_counts_on_neither_side():
    split, scanner = make_split()
    labels = np.column_stack([split.labels, scanner == "B"]).astype(np.uint8)
    labels[np.flatnonzero(scanner == "A")[::4], 2] = 1  # of z, A has both values and B has one
    p, binary = (np.column_stack([array, array[:, 0]]) for array in (split.probabilities, split.binary))
    split = replace(split, labels=labels, probabilities=p, binary=binary)
    found = score_subgroups(("x", "y", "z"), [split], {"scanner": {"test": scanner}})
    figures = {(f.subgroup, f.label, f.metric): f for f in found}
    for metric in ("roc_auc", "average_precision"):
        assert figures["B", "z", metric].value is None
        assert figures["A", "z", metric].value is not None
        for subgroup in "AB":
            mean = figures[subgroup, MACRO, metric]
            own = [figures[subgroup, label, metric] for label in "xy"]
            assert mean.value == pytest.approx(np.mean([f.value for f in own]))
            assert mean.rest == pytest.approx(np.mean([f.rest for f in own]))
    own = [figures["B", label, "sensitivity"].value for label in "xyz"]
    assert figures["B", MACRO, "sensitivity"].value == pytest.approx(np.mean(own))


def test_the_mean_of_one_label_is_that_label_with_its_intervals():
    split, scanner = make_split(rows=200, patients=200)
    split.labels[:, 1] = 0  # has no part in the mean
    found = score_subgroups(("x", "y"), [split], {"scanner": {"test": scanner}})
    figures = {(f.subgroup, f.label, f.metric): f for f in found}
    assert figures["B", "x", "roc_auc"].interval.startswith("Hanley")
    for subgroup, metric in (("A", "roc_auc"), ("B", "roc_auc"), ("B", "sensitivity")):
        own = figures[subgroup, "x", metric]
        assert figures[subgroup, MACRO, metric] == own._replace(label=MACRO, positives=None)


def test_values_are_subgroups_and_a_blank_cell_is_missing():
    cells = np.array(["F", "", "M", "F"])
    named = name_subgroups("sex", {"oof": cells, "test": np.array(["", "X"])})
    assert named["oof"].tolist() == ["F", MISSING, "M", "F"]
    assert named["test"].tolist() == [MISSING, "X"]


def test_many_numbers_are_cut_at_the_quartiles_of_the_training_images():
    ages = np.array([str(age) for age in range(20, 100)] + [""])
    named = name_subgroups("age", {"oof": ages, "test": np.array(["3", "200.5", ""])})
    assert np.unique(named["oof"], return_counts=True)[1].tolist() == [1, 20, 20, 20, 20]
    assert named["oof"][0] == "below 39.75"
    assert named["test"].tolist() == ["below 39.75", "79.25 or more", MISSING]


def test_decimal_commas_are_numbers_as_decimal_points_are():
    ages = np.array([f"{age},25" for age in range(20, 60)] + ["", "-1,5"])
    named, pointed = (
        name_subgroups("age", {"oof": cells}) for cells in (ages, np.array([age.replace(",", ".") for age in ages]))
    )
    assert named["oof"].tolist() == pointed["oof"].tolist()
    assert (named["oof"][-2:].tolist(), named["oof"][0]) == ([MISSING, "below 29.25"], "below 29.25")
    with pytest.raises(InputError, match=r"not numbers \(1,000,20\)"):
        name_subgroups("age", {"oof": np.append(ages, "1,000,20")})


def test_many_words_are_refused():
    with pytest.raises(InputError, match=r"--by patient: the column has 40 different values, .* \(p0, p1, p10 and 37"):
        name_subgroups("patient", {"oof": np.array([f"p{number}" for number in range(40)])})
