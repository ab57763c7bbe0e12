"""The tables of figures with their intervals: words first, then figures, in the page as in the files."""

from types import SimpleNamespace

import pandas as pd
import pytest

from classify.report import tables
from classify.report.plotting import DASH
from classify.report.run_files import RunFiles
from classify.rundir.folder import GROUP_SCORES, OPERATING_POINTS, SUBGROUPS
from classify.scores.metrics import MACRO

#: A run of one label, as its tables are described by.
RUN = SimpleNamespace(
    label_names=("epidural",),
    splits={"train": SimpleNamespace(measured="oof", title="training images, out-of-fold")},
    group="patient",
    final_model="greedy",
    score=lambda model, split, label: (0.9, 0.8, 0.95),
)


@pytest.fixture
def files(monkeypatch):
    """The tables of the run by their names; those that are not set are empty."""
    known: dict[str, pd.DataFrame] = {}
    monkeypatch.setattr(tables, "read_run_table", lambda _, name: known.get(name, pd.DataFrame()))
    return known


def test_operating_points_have_a_table_by_label_and_likelihood_ratios_may_have_no_upper_end(files):
    rows = [
        ("sensitivity=0.90", 0.25, "sensitivity", 0.9, 0.8, 0.95),
        ("sensitivity=0.90", 0.25, "lr_positive", 12.4, 3.21, float("inf")),
        ("f1", 0.5, "sensitivity", 0.7, None, None),
        ("f1", 0.5, "lr_positive", None, None, None),
    ]
    table = pd.DataFrame(rows, columns=["at", "threshold", "figure", "value", "low", "high"])
    files[OPERATING_POINTS] = table.assign(label="epidural", split="oof", prevalence=0.3)
    ((label, (of_split,)),) = tables.describe_points(RUN).items()
    assert label == "epidural"
    assert of_split.caption == (
        "Operating points of epidural, training images, out-of-fold; PPV and NPV at a prevalence of 30.0 %"
    )
    assert of_split.rows == [
        (
            {"fitted for": "sensitivity=0.90"},
            {"threshold": ("0.250", "", False), "sensitivity": ("0.900", "[0.800, 0.950]", False),
             "LR+": ("12", "[3.21, \u221e]", False)},
        ),
        (
            {"fitted for": "f1"},
            {"threshold": ("0.500", "", False), "sensitivity": ("0.700", "", False), "LR+": (DASH, "", False)},
        ),
    ]  # fmt: skip


def test_a_run_without_groups_and_subgroups_has_no_tables_of_them(files):
    assert tables.describe_groups(RUN) == tables.describe_subgroups(RUN) == []


def test_scores_by_group_stand_label_by_label_beside_those_by_image(files):
    rows = [(how, *of_label) for how in ("maximum", "mean") for of_label in (("epidural", 7, 0.5), (MACRO, None, None))]
    table = pd.DataFrame(rows, columns=["summary", "label", "positives", "threshold"])
    files[GROUP_SCORES] = table.assign(split="oof", groups=1200, metric="roc_auc", value=0.8, low=0.7, high=0.9)
    (of_split,) = tables.describe_groups(RUN)
    assert of_split.caption == "1,200 patients, training images, out-of-fold"
    assert [tuple(words.values()) for words, _ in of_split.rows] == [
        ("epidural", "maximum"),
        ("epidural", "mean"),
        ("mean over the labels", "maximum"),
        ("mean over the labels", "mean"),
    ]
    one, mean = of_split.rows[0][1], of_split.rows[2][1]
    assert list(one) == ["positive", "threshold", "AUC", "AUC by image"]
    assert [cell.text for cell in one.values()] == ["7", "0.500", "0.800", "0.900"]
    assert one["AUC by image"].ends == "[0.800, 0.950]"
    assert [cell.text for cell in mean.values()] == ["", DASH, "0.800", "0.900"]


@pytest.mark.parametrize(
    ("difference", "ends", "cell"),
    [
        (-0.1, (-0.15, -0.05), ("-0.100", "[-0.150, -0.050]", True)),
        (0.1, (-0.05, 0.25), ("+0.100", "[-0.050, +0.250]", False)),
        (0.1, (None, None), ("+0.100", "", False)),
        (None, (None, None), (DASH, "", False)),
    ],
)
def test_a_subgroup_stands_beside_the_rest_and_is_bold_where_that_is_not_chance(files, difference, ends, cell):
    table = pd.DataFrame({"metric": ["roc_auc", "sensitivity"], "value": [0.8, 0.7], "low": [0.7, 0.6], "high": 0.9})
    columns = {"column": "sex", "split": "oof", "subgroup": MACRO, "label": MACRO, "images": 1500, "positives": None}
    compared = zip(("difference", "difference_low", "difference_high"), (difference, *ends), strict=True)
    files[SUBGROUPS] = table.assign(**columns, **{name: float("nan" if v is None else v) for name, v in compared})
    (of_column,) = tables.describe_subgroups(RUN)
    assert of_column.caption == "By sex, training images, out-of-fold"
    ((names, figures),) = of_column.rows
    assert names == {"subgroup": MACRO, "label": "mean over the labels"}
    assert list(figures) == ["images", "positive", "AUC", "beside the rest", "sensitivity"]
    assert figures["images"].text == "1,500"
    assert figures["beside the rest"] == cell


def test_the_page_shows_each_row_of_the_tables(reported):
    run, page = RunFiles.read(reported), (reported / "report.html").read_text()
    shown = [*tables.describe_groups(run), *(t for own in tables.describe_points(run).values() for t in own)]
    assert len(shown) > len(run.label_names)
    for table in shown:
        part = page.split(f"<caption>{table.caption}</caption>")[1].split("</table>")[0]
        assert part.count("<tr>") == 1 + len(table.rows)
        for words, figures in table.rows:
            cells = "".join(
                f'<td class="number">{cell.text} <span class="range">{cell.ends}</span></td>'
                for cell in figures.values()
            )
            assert all(word in part for word in words.values())
            assert cells in part
