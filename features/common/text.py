"""Texts that people read: sizes, ages, durations, lists cut short, pages, and the console that commands print on."""

import base64
import hashlib
import json
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup
    from rich.console import Console

#: Columns of a console that is not a terminal: no line of a table is folded there, so that programs can read it.
_UNFOLDED = 10_000
#: How often a long task says in a log how far it is.
LINE_EVERY_SECONDS = 30.0
#: Control characters that a message or a table may hold itself.
LAYOUT = "\n\t"
#: Bidirectional classes of the characters that turn the direction of what follows: Unicode Standard Annex 9, table 4.
_TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def size(count: float) -> str:
    """Bytes as text: `999 B`, `1.5 kB`, `96.5 MB`; powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(count, 1) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds as text: `0.4 s`, `42 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def age(moment: str) -> str:
    """How long ago an ISO 8601 moment was: `5 min`, `3 h`, `12 d`; `?` where it is not one."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    except (ValueError, TypeError):
        return "?"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def count_things(number: int, thing: str) -> str:
    """Write a number of things: `1 row`, `2 rows`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def visible(text: str, keep: str = "") -> str:
    """Escape the characters of names and cells that a terminal would act on.

    These are control characters, halves of pairs (of a file name that is no text), and what turns the direction of
    writing. Characters of `keep` stay.
    """
    return text if text.isprintable() else "".join(c if c in keep else _visible(c) for c in text)


def _visible(character: str) -> str:
    """Escape one character, if it has to be."""
    acts = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in _TURNS
    return character.encode("unicode_escape").decode() if acts else character


def first_few(names: Sequence[str], count: int = 10, separator: str = ", ") -> str:
    """The first names as text, and how many more there are: `a, b, c and 1,204 more`; "" if there are none."""
    more = len(names) - count
    return separator.join(map(visible, names[:count])) + (f" and {more:,} more" if more > 0 else "")


def make_console(*, stderr: bool = False) -> "Console":
    """Make the console that a command prints on.

    What is printed stays as it is: nothing in it is taken for markup or emoji, and lines are wrapped by the terminal
    only. Tables fit the terminal; elsewhere they are as wide as they need to be. See `visible` for what is escaped.
    """
    from rich.console import Console
    from rich.segment import Segment
    from rich.text import Text

    class VisibleConsole(Console):
        """Escapes what texts hold, not what styles and progress send to the terminal."""

        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(visible(text, LAYOUT), **how)

        def render(self, *what: Any) -> Iterator[Segment]:
            for text, style, control in super().render(*what):
                yield Segment(text if control else visible(text, LAYOUT), style, control)

    console = VisibleConsole(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _UNFOLDED
    return console


def shows_bars(console: "Console") -> bool:
    """Whether a bar can move on a console: on a terminal, and in a notebook that has ipywidgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show on stderr how many steps are done and the time left: a bar where one moves, now and then a line in a log.

    Yields what is called after each step, from any thread.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    screen = make_console(stderr=True)
    moves = shows_bars(screen)
    columns = (title, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    done, started, lock = 0, time.monotonic(), Lock()
    spoke = started

    def advance() -> None:
        nonlocal done, spoke
        progress.advance(task)
        with lock:
            done += 1
            now = time.monotonic()
            if not moves and now - spoke >= LINE_EVERY_SECONDS and done < total:
                spoke, left = now, duration((now - started) / done * (total - done))
                screen.print(f"{title}: {done:,} of {count_things(total, 'step')}, {left} left")

    with Progress(*columns, console=screen, transient=True, disable=not moves) as progress:
        task = progress.add_task("", total=total)
        yield advance


def render(
    template: Path,
    values: Mapping[str, Any],
    filters: Mapping[str, Callable[..., str]] | None = None,
    script: str = "",
) -> str:
    """Fill in a Jinja template; it may include others of its folder.

    The template has `{{ policy }}` in its head: the page asks for nothing else, and runs nothing but `script`, whatever
    a label or an id may hold.

    Args:
        template: an HTML file. Whatever the values hold is shown as text; a name without a value is a fault.
        values: by name.
        filters: by name, beside those of Jinja.
        script: what the template's `{{ script }}` becomes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    allowed = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if script:
        known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed += f"; script-src 'sha256-{known}'"
    policy = Markup(f'<meta http-equiv="Content-Security-Policy" content="{allowed}">')

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters or {}
    return environment.get_template(template.name).render({**values, "policy": policy, "script": Markup(script)})


def json_for_html(value: Any) -> "Markup":
    """Write JSON that may stand within a script element: no `<` in it can end the element."""
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
