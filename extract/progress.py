"""Show how an extraction comes along: a bar on a terminal, a line now and then in a log."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from features.common.text import duration

_LINE_EVERY_SECONDS = 30.0
_RATE_OVER_SECONDS = 20.0


class Progress:
    """Images done, images a second, time left, and a note of the caller.

    Args:
        console: where it is shown.

    Attributes:
        total: number of images, set before it starts.
    """

    def __init__(self, console: Console) -> None:
        self.total = 0
        self._console = console
        self._done = 0.0
        self._recent: list[tuple[float, float]] = []
        self._spoke = 0.0
        self._bar = Bar(
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} images  {task.fields[state]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, state="loading the backbones ...")

    def __enter__(self) -> "Progress":
        """Start."""
        self._recent = [(time.monotonic(), 0.0)]
        self._spoke = time.monotonic()
        self._bar.update(self._task, total=self.total)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; the bar goes away."""
        self._bar.stop()

    def advance(self, count: float, note: str = "") -> None:
        """Note images done.

        Args:
            count: how many; a fraction where only some of the backbones are done with an image.
            note: what else to say.
        """
        now = time.monotonic()
        if not self._done:
            self._recent = [(now, count)]  # what came before the first image was spent on compiling
        self._done += count
        if now - self._recent[-1][0] < 0.5 and self._done < self.total:
            return
        self._recent.append((now, self._done))
        while len(self._recent) > 2 and now - self._recent[0][0] > _RATE_OVER_SECONDS:
            self._recent.pop(0)
        state = self._state(now, note)
        self._bar.update(self._task, completed=min(self._done, self.total), state=state)
        if not self._console.is_terminal and now - self._spoke >= _LINE_EVERY_SECONDS:
            self._spoke = now
            self._console.print(f"{self._done:.0f}/{self.total} images  {state}")

    def _state(self, now: float, note: str) -> str:
        """The figures behind the bar."""
        start, done = self._recent[0]
        rate = (self._done - done) / (now - start) if now > start else 0.0
        left = duration(max(0.0, self.total - self._done) / rate) if rate > 0 else "?"
        return f"{rate:.1f} images/s  {left} left  {note}".rstrip()
