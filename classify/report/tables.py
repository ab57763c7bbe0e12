"""The tables of what a reader acts on: operating points, scores by group, by subgroup, and of exclusive classes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pandas as pd

from classify.report import plotting
from classify.report.run_files import RunFiles
from classify.rundir.files import read_run_table
from classify.rundir.folder import CONFUSION_MATRIX, GROUP_SCORES, OPERATING_POINTS, SUBGROUPS
from classify.scores.metrics import CLASS_SELECTORS, MACRO, MAJORITY, OVERALL

#: Headings of figures whose names in the files read badly.
_HEADINGS = {
    "ppv": "PPV",
    "npv": "NPV",
    "lr_positive": "LR+",
    "lr_negative": "LR\u2212",
    "roc_auc": "AUC",
    "average_precision": "average precision",
}

#: Classes up to which the page has the whole confusion matrix; of more it has the most frequent confusions.
_MATRIX, _CONFUSIONS = 20, 30


class Cell(NamedTuple):
    """A figure, its interval, and whether it is bold."""

    text: str
    ends: str = ""
    bold: bool = False


#: The figures of a row by their headings, in the order of the columns.
Figures = dict[str, Cell]


class FiguresTable(NamedTuple):
    """A table: of each row the words that name it, by their headings, and its figures."""

    caption: str
    rows: list[tuple[dict[str, str], Figures]]


def describe_points(run: RunFiles) -> dict[str, list[FiguresTable]]:
    """Gather, by label, a table of operating points for each split."""
    tables: dict[str, list[FiguresTable]] = {label: [] for label in run.label_names}
    for label, split, rows in _part(run, OPERATING_POINTS, "label"):
        prevalence = plotting.percent(rows["prevalence"].iloc[0])
        caption = f"Operating points of {label}, {split}; PPV and NPV at a prevalence of {prevalence}"
        tables[label].append(_tabulate(caption, rows, {"at": "fitted for"}, lambda row, own: _threshold(row) | own))
    return tables


def describe_groups(run: RunFiles) -> list[FiguresTable]:
    """Gather a table of scores by group for each split; none where no groups are known."""

    def arrange(row: pd.Series, own: Figures) -> Figures:
        value, *ends = run.score(run.final_model, row["split"], row["label"])
        by_image = Cell(plotting.short(value), plotting.interval(*ends))
        return _positives(row) | _threshold(row) | own | {"AUC by image": by_image}

    words = {"label": "label", "summary": "probability"}
    return [
        _tabulate(f"{rows['groups'].iloc[0]:,} {run.group}s, {split}", rows, words, arrange)
        for split, rows in _part(run, GROUP_SCORES)
    ]


def describe_subgroups(run: RunFiles) -> list[FiguresTable]:
    """Gather a table of subgroups for each column and split; none where none were asked for."""

    def arrange(row: pd.Series, own: Figures) -> Figures:
        low, high = row["difference_low"], row["difference_high"]
        difference = plotting.DASH if pd.isna(row["difference"]) else f"{row['difference']:+.3f}"
        beside = Cell(difference, plotting.signed_interval(low, high), bool(low > 0 or high < 0))
        images = {"images": Cell(f"{row['images']:,}")}
        return images | _positives(row) | {"AUC": own["AUC"], "beside the rest": beside} | own

    words = {"subgroup": "subgroup", "label": "label"}
    return [
        _tabulate(f"By {column}, {split}", rows, words, arrange)
        for column, split, rows in _part(run, SUBGROUPS, "column")
    ]


def describe_classes(run: RunFiles) -> list[dict[str, Any]]:
    """Gather accuracy and confusion matrix of exclusive classes for each split; none where labels are none."""
    sections = []
    for title, rows in _part(run, CONFUSION_MATRIX):
        measured, count = rows["split"].iloc[0], len(run.label_names)
        cells = [row._asdict() | {"shade": 0 if pd.isna(row.share) else row.share} for row in rows.itertuples()]
        wrong = [cell for cell in cells if cell["truth"] != cell["predicted"] and cell["images"]]
        scores = [run.score(run.final_model, measured, OVERALL, one) for one in (*CLASS_SELECTORS, MAJORITY)]
        sections.append(
            {
                "title": title,
                "scores": scores,
                "matrix": [cells[start : start + count] for start in range(0, count**2, count)] * (count <= _MATRIX),
                "confusions": sorted(wrong, key=lambda cell: -cell["images"]),
                "shown": _CONFUSIONS,
            }
        )
    return sections


def _part(run: RunFiles, file: str, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Give the parts of a table of a run: the values of some columns, the title of the split, and the rows."""
    table, titles = read_run_table(run, file), {split.measured: split.title for split in run.splits.values()}
    for (*values, split), rows in () if table.empty else table.groupby([*columns, "split"], sort=False):
        yield *values, titles[split], rows


def _tabulate(
    caption: str, table: pd.DataFrame, words: dict[str, str], arrange: Callable[[pd.Series, Figures], Figures]
) -> FiguresTable:
    """Make a table from rows of a file, one for each figure.

    The columns of the file that name a row of the table are `words`, with their headings. `arrange` gets the first row
    of those of a row of the table, and their figures, and gives the figures to show.
    """
    rows = []
    for _, first_alike in table.groupby(next(iter(words)), sort=False):
        for _, alike in first_alike.groupby([*words], sort=False):
            row = alike.iloc[0]
            names = {heading: _name(column, row[column]) for column, heading in words.items()}
            kind = "figure" if "figure" in alike else "metric"
            own = {_HEADINGS.get(one[kind], one[kind]): _cell(one, one[kind]) for _, one in alike.iterrows()}
            rows.append((names, arrange(row, own)))
    return FiguresTable(caption, rows)


def _name(column: str, word: str) -> str:
    """Write a word that names a row."""
    return "mean over the labels" if (column, word) == ("label", MACRO) else word


def _cell(row: pd.Series, name: str) -> Cell:
    """Write a figure and its interval."""
    write = _ratio if name.startswith("lr") else plotting.short
    return Cell(write(row["value"]), "" if pd.isna(row["low"]) else f"[{write(row['low'])}, {write(row['high'])}]")


def _positives(row: pd.Series) -> Figures:
    """Write how many are positive; nothing of a mean over the labels."""
    return {"positive": Cell("" if row["label"] == MACRO else f"{row['positives']:.0f}")}


def _threshold(row: pd.Series) -> Figures:
    """Write the threshold."""
    return {"threshold": Cell(plotting.short(row["threshold"]))}


def _ratio(value: float) -> str:
    """Write a likelihood ratio, which may have no upper end."""
    if pd.isna(value) or value == float("inf"):
        return plotting.DASH if pd.isna(value) else "\u221e"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
