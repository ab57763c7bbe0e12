"""Put a run's sections together as one page."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from classify.report import numbers
from classify.report.audit_section import describe_audit, describe_gap
from classify.report.data_section import describe_data
from classify.report.doubts import list_doubts
from classify.report.gallery_section import describe_gallery
from classify.report.label_section import describe_labels
from classify.report.limits_section import describe_limits
from classify.report.models_section import describe_heads, describe_models
from classify.report.plotting import house_style
from classify.report.run_files import RunFiles
from classify.scores.metrics import MACRO
from features.common.text import render

_TEMPLATE = Path(__file__).parent / "template"
_FILTERS: dict[str, Callable[..., str]] = {
    "short": numbers.short,
    "interval": lambda score: numbers.interval(*score[1:]),
    "with_interval": numbers.with_interval,
    "percent": numbers.percent,
    "thousands": "{:,}".format,
}


def make_page(run: RunFiles, figures: Path) -> str:
    """Make the page of a run.

    Args:
        run: what its files say.
        figures: an empty folder, for each figure as PNG.

    Returns:
        HTML that asks for nothing else.

    Raises:
        InputError: the run's pictures are damaged.
    """
    with house_style():
        sections: dict[str, Any] = {
            "data": describe_data(run, figures),
            "models": describe_models(run, figures),
            "heads": describe_heads(run, figures),
            "labels": describe_labels(run, figures),
        }
    gallery = describe_gallery(run)
    script = (_TEMPLATE / "page.js").read_text(encoding="utf-8")
    embedded = {
        "labels": [{key: label[key] for key in ("cuts", "start", "half", "splits")} for label in sections["labels"]],
        "thumbnails": gallery["pictures"].thumbnails,
        "heat": gallery["pictures"].heat,
    }
    values = sections | {
        "run": run,
        "gallery": gallery,
        "audit": describe_audit(run),
        "gap": describe_gap(run),
        "doubts": list_doubts(run),
        "limits": describe_limits(run),
        "title": Path(run.record["data"]).name or "data",
        "overall": {s.measured: run.score(run.final_model, s.measured, MACRO, "roc_auc") for s in run.splits.values()},
        "style": Markup((_TEMPLATE / "page.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        # The page's own script may run and nothing else, whatever a label or an id may hold.
        "script_digest": base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        "embedded": _json_for_html(embedded),
    }
    return render(_TEMPLATE / "page.html", values, _FILTERS)


def _json_for_html(value: Any) -> Markup:
    """Write JSON that may stand within a script element: no `<` in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
