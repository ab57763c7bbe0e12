"""The one look of the report: how numbers and names are written, and how figures become SVG and PNG."""

import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from cycler import cycler
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Colours by role. In the page they become CSS variables, so that a figure follows light and dark. The two of the
#: series are told apart by the colour-blind as well, and have 4.5:1 against white.
INK, MUTED, GRID = "#1c2733", "#5b6875", "#d5dce3"
FIRST, SECOND = "#0b5fa5", "#b3430f"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", FIRST: "--first", SECOND: "--second"}
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=[FIRST, SECOND]),
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # a label may hold a dollar sign
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",  # words stay words: they can be read aloud, searched, and take the page's font
    "figure.constrained_layout.use": True,
}
#: Inches. A figure is as wide as a column of the page, or as two.
WIDTH, HEIGHT, WIDE = 3.9, 3.0, 7.2
_PNG_DPI = 144
#: Stands where there is no number.
DASH = "\u2013"


class Picture(NamedTuple):
    """A figure as the page shows it: its markup, and what stands below it."""

    svg: Markup
    caption: str


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the report's style within the block; Matplotlib's own settings are as before after it."""
    # Words of scripts that the font does not have are drawn by the browser's font; the PNG shows boxes for them.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes; inches."""
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def unit_figure(x: str, y: str) -> tuple[Figure, Axes]:
    """Make a figure with axes of these names, which run from 0 to 1."""
    figure, axes = new_figure()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=x, ylabel=y)
    return figure, axes


def end_at_one(axes: Axes, x: bool = False) -> None:
    """End an axis of shares at 1, where matplotlib leaves room beyond it; what lies at 1 is not cut."""
    low, high = axes.get_xlim() if x else axes.get_ylim()
    if high <= 1:
        return
    if x:
        axes.set_xlim(low, 1)
    else:
        axes.set_ylim(low, 1)
    for artist in (*axes.lines, *axes.collections):
        artist.set_clip_on(False)


def add_legend(figure: Figure) -> None:
    """Name the lines above the axes, where they hide nothing."""
    figure.legend(loc="outside upper left", ncols=3, handlelength=1.6, columnspacing=1.2, borderpad=0.1)


def to_picture(figure: Figure, name: str, alt: str, caption: str, folder: Path) -> Picture:
    """Save a figure as PNG, and turn it into SVG to stand in a page.

    Args:
        figure: drawn in the house style, and saved in it.
        name: of the PNG file, without extension; no other figure of the page has it.
        alt: what the figure shows, for those who cannot see it.
        caption: what stands below it.
        folder: where the PNG goes to.
    """
    figure.savefig(folder / f"{name}.png", dpi=_PNG_DPI, facecolor="white")
    figure.set_layout_engine("none")  # it has done its work, and would take as long again
    text = io.StringIO()
    # Ids in the markup are hashes of what they name; salted, so that no two figures of a page share one.
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return Picture(_for_page(text.getvalue(), alt), caption)


def _for_page(svg: str, alt: str) -> Markup:
    """Make a file's markup fit to stand within HTML."""
    view = re.search(r'viewBox="[^"]+"', svg)
    assert view is not None  # Matplotlib always writes it
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)  # it would hold for the whole page
    body = re.sub(r'<g id="[^"]+"', "<g", body)  # `axes_1`, of every figure; nothing leads there
    body = re.sub(r' d="[^"]+"', _round, body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(f": {colour}", f": var({variable})")
    body = re.sub(r"font: (?:\w+ )?([\d.]+)px [^;\"]+", r"font-size: \1px", body)
    body = re.sub(r"\n\s*", "\n", body)
    opening = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {view[0]} role="img" aria-label="{escape(alt)}">'
    return Markup(opening + body)


def _round(path: re.Match[str]) -> str:
    """Round the numbers of a path to a hundredth of a point."""
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", path[0])


def short(value: float | None) -> str:
    """Write a figure with three decimals; a dash where there is none."""
    return DASH if value is None or math.isnan(value) else f"{value:.3f}"


def interval(low: float | None, high: float | None) -> str:
    """Write an interval, or nothing where there is none."""
    return "" if low is None or high is None or math.isnan(low + high) else f"[{low:.3f}, {high:.3f}]"


def signed_interval(low: float | None, high: float | None) -> str:
    """Write the interval of a difference, `[-0.003, +0.021]`, or nothing where there is none."""
    return "" if low is None or high is None or math.isnan(low + high) else f"[{low:+.3f}, {high:+.3f}]"


def with_interval(score: Sequence[float | None]) -> str:
    """Write `0.894 [0.858, 0.925]`; without an interval where there is none."""
    return f"{short(score[0])} {interval(score[1], score[2])}".strip()


def percent(share: float) -> str:
    """Write a share of 0 to 1 as `4.0 %`; a dash where there is none."""
    return DASH if math.isnan(share) else f"{100 * share:.1f} %"


def shorten(name: str, characters: int) -> str:
    """Write a name in at most so many characters: of a longer one its two ends, which tell it from its like."""
    if len(name) <= characters:
        return name
    end = (characters - 1) // 2
    return f"{name[: characters - 1 - end]}\u2026{name[-end:]}"


def file_stem(index: int, name: str) -> str:
    """Make a name fit for a file of what a person called something; the index keeps two of them apart."""
    return f"{index + 1}_{re.sub(r'[^A-Za-z0-9]+', '_', name)[:40].strip('_')}".rstrip("_")
