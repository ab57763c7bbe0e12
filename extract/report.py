"""The progress of an extraction, shown while it runs, and what it did, printed at the end."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table

from extract.backbones.onnx_model import AnyBackbone
from features.common.text import LINE_EVERY_SECONDS, count_things, duration, shows_bars
from features.store.images_table import Rejection

#: Of the seconds of all reports, so that a report has none and can be sent to another process.
_LOCK = threading.Lock()
_RATE_OVER_SECONDS = 20.0


@contextmanager
def show_progress(console: Console, total: int) -> Iterator[Callable[..., None]]:
    """Show images done, images a second, time left, and a note of the caller: a bar where one moves, lines in a log.

    Args:
        console: where it is shown.
        total: number of images.

    Yields:
        What notes images done: how many (a fraction where only some of the backbones are done with an image), and
        what else to say.
    """
    bar = Progress(
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} images  {task.fields[state]}", markup=False),
        console=console,
        transient=True,
        disable=not shows_bars(console),
    )
    task = bar.add_task("", total=total, state="loading the backbones ...")
    done, spoke = 0.0, time.monotonic()
    recent = [(spoke, 0.0)]

    def advance(count: float, note: str = "") -> None:
        nonlocal done, spoke
        now = time.monotonic()
        if not done:
            recent[:] = [(now, count)]  # what came before the first image was spent on compiling
        done += count
        if now - recent[-1][0] < 0.5 and done < total:
            return
        recent.append((now, done))
        while len(recent) > 2 and now - recent[0][0] > _RATE_OVER_SECONDS:
            recent.pop(0)
        start, done_before = recent[0]
        rate = (done - done_before) / (now - start) if now > start else 0.0
        left = duration(max(0.0, total - done) / rate) if rate > 0 else "?"
        state = f"{rate:.1f} images/s  {left} left  {note}".rstrip()
        bar.update(task, completed=min(done, total), state=state)
        if not shows_bars(console) and now - spoke >= LINE_EVERY_SECONDS:
            spoke = now
            console.print(f"{done:.0f}/{total} images  {state}")

    with bar:
        yield advance


@dataclass
class BackboneReport:
    """One backbone over all splits.

    Attributes:
        rows: what the cache calls the rows that a pass gives.
        images: images that it ran over.
        kept: images whose rows were in the cache already.
        widths: features D of each of its rows; () while nothing was extracted.
        seconds: seconds of the device, compilation left out.
    """

    rows: tuple[str, ...]
    images: int = 0
    kept: int = 0
    widths: tuple[int, ...] = ()
    seconds: float = 0.0


@dataclass
class Report:
    """A whole extraction.

    Attributes:
        backbones: by name.
        stages: seconds by stage. `read+decode` and `resize` are CPU seconds summed over threads; `compile`, `compute`,
            `write` are wall-clock seconds of the one thread that does them.
        waited: seconds that the device waited for images between its first and its last batch.
        images: images looked at.
        decoded: images decoded.
        rejected: images that could not be read.
        seen: images of which images.csv knows the pixels.
        blank: those of them that are blank or nearly so, as `split/id`.
        repaired: those of them that are CT whose values had wrapped around.
        device: what computed; empty if nothing had to be.
    """

    backbones: dict[str, BackboneReport] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    waited: float = 0.0
    images: int = 0
    decoded: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    seen: int = 0
    blank: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    device: str = ""

    @classmethod
    def of(cls, backbones: Iterable[AnyBackbone]) -> Self:
        """An extraction by some backbones that has not begun."""
        return cls({backbone.name: BackboneReport(backbone.rows) for backbone in backbones})

    def spend(self, stage: str, seconds: float) -> None:
        """Add to a stage's seconds; threads call it."""
        with _LOCK:
            self.stages[stage] += seconds

    def add(self, other: "Report") -> None:
        """Add what another process did, but for its seconds by stage, which pass at the same time as those here."""
        for name, counted in other.backbones.items():
            mine = self.backbones[name]
            mine.images += counted.images
            mine.kept += counted.kept
            mine.seconds += counted.seconds
            mine.widths = mine.widths or counted.widths
        self.images += other.images
        self.decoded += other.decoded
        self.device = self.device or other.device

    def take_images(self, other: "Report") -> None:
        """Take from another what is known of the images."""
        self.seen, self.blank, self.repaired, self.rejected = other.seen, other.blank, other.repaired, other.rejected

    @property
    def rows(self) -> int:
        """Rows extracted by this run, over all backbones."""
        return sum(backbone.images * len(backbone.rows) for backbone in self.backbones.values())

    @property
    def waiting_share(self) -> float:
        """Share of the device's time spent waiting for images, 0 to 1."""
        busy = self.stages["compute"]
        return self.waited / (self.waited + busy) if busy else 0.0


def print_report(report: Report, console: Console) -> None:
    """Print a line per backbone and a line per stage."""
    table = Table("backbone", box=None, header_style="bold")
    for name in ("images new", "images kept", "features", "seconds", "images/s"):
        table.add_column(name, justify="right")
    for name, backbone in report.backbones.items():
        table.add_row(
            name,
            f"{backbone.images:,}",
            f"{backbone.kept:,}",
            " + ".join(f"{width:,}" for width in backbone.widths) or "-",
            f"{backbone.seconds:.1f}",
            f"{backbone.images / backbone.seconds:.1f}" if backbone.seconds else "-",
        )
    console.print(table)
    if report.stages:
        stages = Table("stage", Column("seconds", justify="right"), "of", box=None, header_style="bold")
        for stage in ("read+decode", "resize", "compile", "compute", "write"):
            unit = "CPU, all threads" if stage in ("read+decode", "resize") else "wall clock"
            stages.add_row(stage, f"{report.stages[stage]:.1f}", unit)
        console.print(stages)
        console.print(f"{report.images:,} files read, {report.decoded:,} of them decoded")
        console.print(
            f"device {report.device}: waited for images {report.waiting_share:.1%} of its time "
            f"({duration(report.waited)} of {duration(report.waited + report.stages['compute'])})"
        )


def print_images(report: Report, cache: Path, console: Console) -> bool:
    """Warn of images that are blank or were repaired, and say which could not be read; return whether there are any."""
    if report.blank:
        console.print(
            f"warning: {len(report.blank):,} of {report.seen:,} images are blank or nearly so (first: "
            f"{report.blank[0]}): their grey levels hardly differ. Look at them; values of 16 bits need their --range, "
            "masks of 0 and 1 their 255."
        )
    if report.repaired:
        console.print(f"warning: {repaired_words(report.repaired, report.seen)}")
    if report.rejected:
        console.print(
            f"{count_things(len(report.rejected), 'image')} could not be read (first: {report.rejected[0].path}: "
            f"{report.rejected[0].reason}). All are listed in {cache / 'rejected.csv'}."
        )
    return bool(report.rejected)


def repaired_words(repaired: Sequence[str], count: int) -> str:
    """Say of how many images, at least one, the values had wrapped around."""
    return (
        f"{len(repaired):,} of {count_things(count, 'image')} are CT of 12 bits without an offset, whose air had "
        f"wrapped around to 3072 and more (first: {repaired[0]}): 4096 was taken off these values."
    )
