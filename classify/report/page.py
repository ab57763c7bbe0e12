"""The page of a run: read the files, put the sections together, and put the page in its place."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from classify.options import command_line
from classify.report import plotting
from classify.report.data import describe_audit, describe_data
from classify.report.doubts import list_doubts
from classify.report.gallery import describe_gallery, describe_label_errors
from classify.report.labels import describe_labels
from classify.report.learning import describe_learning
from classify.report.models import accuracy_without_model, describe_heads, describe_models
from classify.report.run_files import RunFiles
from classify.report.tables import describe_classes, describe_groups, describe_subgroups
from classify.rundir.folder import FIGURES, REPORT, SealedRun, hold_run, writing
from features.common.files import remove, replacing
from features.common.text import count_things, json_for_html, make_console, render

_TEMPLATE = Path(__file__).parent / "template"
_FILTERS: dict[str, Callable[..., str]] = {
    "short": plotting.short,
    "interval": lambda score: plotting.interval(*score[1:3]),
    "signed_interval": lambda score: plotting.signed_interval(*score[1:3]),
    "with_interval": plotting.with_interval,
    "percent": plotting.percent,
    "thousands": "{:,}".format,
    "count": count_things,
}


def write_report(folder: Path) -> None:
    """Write the report of a finished run: `RUN/report.html`, and each of its figures in `RUN/figures/`.

    An earlier report is replaced when the new one is whole.

    Raises:
        InputError: the folder holds no finished run, a file of it is damaged or was changed by hand, or cannot be
            written to; or another process is writing to it.
    """
    SealedRun.open(folder)  # before the lock, which would make a folder where no run is
    with hold_run(folder):
        run = RunFiles.read(folder)
        with writing(folder), tempfile.TemporaryDirectory(prefix=".figures", dir=folder) as temporary:
            figures = Path(temporary) / FIGURES
            figures.mkdir()
            page = make_page(run, figures)
            with replacing(folder / REPORT) as path:
                path.write_text(page, encoding="utf-8")
            remove(folder / FIGURES)
            figures.replace(folder / FIGURES)
    size = (folder / REPORT).stat().st_size / 1e6
    make_console().print(f"report: {folder / REPORT} ({size:.1f} MB)")


def make_page(run: RunFiles, figures: Path) -> str:
    """Make the page of a run, HTML that asks for nothing else; each figure goes to the folder `figures` as PNG, too.

    Raises:
        InputError: the run's pictures are damaged.
    """
    with plotting.house_style():
        sections: dict[str, Any] = {
            "data": describe_data(run, figures),
            "models": describe_models(run, figures),
            "heads": describe_heads(run, figures),
            "labels": describe_labels(run, figures),
            "learning": describe_learning(run, figures),
        }
    gallery = describe_gallery(run)
    embedded = {
        "labels": [{key: label[key] for key in ("cuts", "start", "half", "splits")} for label in sections["labels"]],
        "thumbnails": gallery["pictures"].thumbnails,
        "heat": gallery["pictures"].heat,
    }
    values = sections | {
        "run": run,
        "gallery": gallery,
        "errors": describe_label_errors(run, gallery["cards"]),
        "classes": describe_classes(run),
        "groups": describe_groups(run),
        "subgroups": describe_subgroups(run),
        "audit": describe_audit(run),
        "doubts": list_doubts(run),
        "command": command_line("classify run", run.folder, run.record),
        "title": Path(run.record["data"]).name or "data",
        "without_model": {
            of_classes: accuracy_without_model(run.splits["train"].labels, of_classes)
            for of_classes in ((False, True) if run.exclusive else (False,))
        },
        "overall": {s.measured: run.score(run.final_model, s.measured) for s in run.splits.values()},
        "embedded": json_for_html(embedded),
    }
    return fill_page("page.html", ("sort.js", "page.js"), values)


def fill_page(template: str, scripts: Sequence[str], values: Mapping[str, Any]) -> str:
    """Fill in a page of `template/`, with the one style and some of the scripts there: HTML that asks for nothing else.

    The page's own script may run and nothing else, whatever a label or an id may hold.
    """
    script = "\n".join((_TEMPLATE / name).read_text(encoding="utf-8") for name in scripts)
    shell = {
        "style": Markup((_TEMPLATE / "page.css").read_text(encoding="utf-8")),
    }
    return render(_TEMPLATE / template, {**values, **shell}, _FILTERS, script)
