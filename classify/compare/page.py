"""What `python -m classify compare` does: compare runs, print a table, write the page."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from rich.table import Table

from classify.compare.differences import COMPARED, Beside, ScoredRun, few_labels, score_runs
from classify.compare.runs import join_runs
from classify.options import CompareOptions
from classify.report import plotting
from classify.report.page import fill_page
from classify.report.plotting import FIRST, MUTED, WIDE
from classify.scores.metrics import CLASS_SELECTORS, MACRO, OVERALL
from features.common.errors import InputError
from features.common.files import replacing
from features.common.text import count_things, make_console, progress_bar

#: What tells a page of ours from any other file, near its beginning.
_MARKER = '<meta name="generator" content="Headbank compare">'
#: Characters of the name of a run in the figure.
_NAME = 40


def compare(options: CompareOptions) -> None:
    """Compare the runs, print the differences, and write the page.

    Raises:
        InputError: see `join_runs`; or the page would replace a file that is not one of ours.
    """
    refuse_other_file(options.out)
    joined = join_runs(options.runs, options.model)
    console = make_console()
    for caveat in joined.caveats:
        console.print(f"not alike: {caveat}")
    with progress_bar("scoring", len(joined.runs) * len(joined.label_names)) as advance:
        runs, left_out = score_runs(joined, advance)
    first = joined.runs[0]
    in_order = sorted(runs, key=lambda row: joined.runs.index(row.run))
    groups = None if joined.groups is None else len(np.unique(joined.groups))
    with plotting.house_style(), TemporaryDirectory() as folder:
        picture = plotting.to_picture(
            draw_differences([row for row in runs if row.run is not first], first.name),
            "differences",
            f"Macro AUC of {count_things(len(runs) - 1, 'run')} minus that of {first.name}, with 95 % intervals.",
            f"Macro AUC of each run minus that of {first.name}, with its 95 % interval.",
            Path(folder),
        )
    accuracies = [
        f"top-1 accuracy of {row.run.name}: {plotting.with_interval(top1[:3])}"
        + ("" if row.run is first else f", {_difference(top1)} beside {first.name}")
        for row in in_order
        if (top1 := row.figures.get((OVERALL, CLASS_SELECTORS[0])))
    ]
    values = {
        "accuracies": accuracies,
        "joined": joined,
        "runs": runs,
        "in_order": in_order,
        "first": first,
        "first_settings": in_order[0].settings,
        "left_out": left_out,
        "groups": groups,
        "rough": few_labels(joined),
        "metrics": COMPARED,
        "picture": picture,
        "marker": Markup(_MARKER),
    }
    page = fill_page("compare.html", ("sort.js",), values)
    with replacing(options.out) as path:
        path.write_text(page, encoding="utf-8")

    of_groups = "" if groups is None else f" of {groups:,} groups"
    console.print(
        f"compared: {len(runs)} runs on {count_things(len(joined.image_ids), 'training image')}{of_groups} and "
        f"{count_things(len(joined.label_names), 'label')}; means over the labels, out-of-fold"
    )
    console.print(_table(runs, first.name))
    console.print(
        f"differences are from {first.name}, the run named first, with 95 % intervals on the same bootstrap draws; "
        "AUC: over pairs within a fold"
    )
    for line in accuracies:
        console.print(line)
    if left_out:
        console.print(f"means are without {', '.join(f'{name} ({why})' for name, why in left_out.items())}")
    for row in in_order[1:]:
        settings = ", ".join(f"{name} {value}" for name, value in row.settings.items())
        console.print(f"{row.run.name} differs in: {settings or 'nothing'}")
    console.print(f"written: {options.out}, with a table per label")


def refuse_other_file(path: Path) -> None:
    """Refuse to replace what is not a page of this command.

    Raises:
        InputError: `path` is a folder, or a file that this command did not write.
    """
    if not path.exists():
        return
    if path.is_file() and _MARKER in path.read_bytes()[:1000].decode("utf-8", "replace"):
        return
    what = "is a folder" if path.is_dir() else "was not written by this command, and would be replaced"
    raise InputError(f"{path} {what}. Name another file with --out.")


def draw_differences(runs: Sequence[ScoredRun], first: str) -> Figure:
    """Draw the difference of each run's macro AUC from the first run's, with its interval."""
    metric = next(iter(COMPARED))
    figures = [row.figures[MACRO, metric] for row in runs]
    ends = np.array([figure[3:6] for figure in figures], float)
    figure, axes = plotting.new_figure(WIDE, 0.9 + 0.26 * len(runs))
    places = np.arange(len(runs))
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.hlines(places, ends[:, 1], ends[:, 2], color=FIRST, linewidth=1.4)
    axes.plot(ends[:, 0], places, "o", color=FIRST, markersize=5)
    axes.set_yticks(places, [plotting.shorten(row.run.name, _NAME) for row in runs])
    axes.set_ylim(len(runs) - 0.4, -0.6)
    axes.set(xlabel=f"macro AUC minus that of {plotting.shorten(first, _NAME)}")
    return figure


def _table(runs: Sequence[ScoredRun], first: str) -> Table:
    """List the runs, best first, with their differences from the first."""
    table = Table(box=None, header_style="bold", padding=(0, 1), pad_edge=False, collapse_padding=True)
    table.add_column("run", overflow="fold")
    for heading in ("macro AUC", *(f"{name},\ndifference" for name in COMPARED.values())):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("note", overflow="fold")
    for row in runs:
        macro = [row.figures[MACRO, metric] for metric in COMPARED]
        name = f"{row.run.name}{' (first)' if row.run.name == first else ''}"
        own = plotting.with_interval(macro[0][:3])
        table.add_row(name, own, *(_difference(one) for one in macro), row.run.note)
    return table


def _difference(figure: Beside) -> str:
    """Write a difference as `+0.012 [+0.003, +0.021]`; a dash of the first run."""
    if figure.difference is None:
        return plotting.DASH
    return f"{figure.difference:+.3f} {plotting.signed_interval(figure.difference_low, figure.difference_high)}".strip()
