"""What an extraction did and how long each stage took: counted by the pipeline, printed at the end."""

import threading
from collections import defaultdict
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from features.common.text import duration
from features.store.images_table import Rejection


@dataclass
class BackboneReport:
    """One backbone over all splits.

    Attributes:
        rows: rows extracted by this run.
        kept: rows that were in the cache already.
        width: channels D; 0 while nothing was extracted.
        seconds: seconds of the device, compilation left out.
    """

    rows: int = 0
    kept: int = 0
    width: int = 0
    seconds: float = 0.0


@dataclass
class Report:
    """A whole extraction.

    Attributes:
        backbones: by name.
        stages: seconds by stage. `read+decode` and `resize` are CPU seconds summed over threads; `compute`,
            `write` are wall-clock seconds of the one thread that does them.
        waited: seconds that the device waited for images between its first and its last batch.
        images: images looked at.
        decoded: images decoded.
        rejected: images that could not be read.
        stopped: number of the signal that ended the run early; 0 if none did.
        device: what computed; empty if nothing had to be.
    """

    backbones: dict[str, BackboneReport] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    waited: float = 0.0
    images: int = 0
    decoded: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    stopped: int = 0
    device: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def spend(self, stage: str, seconds: float) -> None:
        """Add to a stage's seconds; threads call it."""
        with self._lock:
            self.stages[stage] += seconds

    @property
    def rows(self) -> int:
        """Rows extracted by this run, over all backbones."""
        return sum(backbone.rows for backbone in self.backbones.values())

    @property
    def waiting_share(self) -> float:
        """Share of the device's time spent waiting for images, 0 to 1."""
        busy = self.stages["compute"]
        return self.waited / (self.waited + busy) if busy else 0.0


def print_report(report: Report, console: Console) -> None:
    """Print a line per backbone and a line per stage."""
    table = Table(box=None, header_style="bold")
    table.add_column("backbone")
    for name in ("rows new", "rows kept", "width", "seconds", "images/s"):
        table.add_column(name, justify="right")
    for name, backbone in report.backbones.items():
        table.add_row(
            name,
            f"{backbone.rows:,}",
            f"{backbone.kept:,}",
            str(backbone.width or "-"),
            f"{backbone.seconds:.1f}",
            f"{backbone.rows / backbone.seconds:.1f}" if backbone.seconds else "-",
        )
    console.print(table)
    if report.rows:
        stages = Table(box=None, header_style="bold")
        stages.add_column("stage")
        stages.add_column("seconds", justify="right")
        stages.add_column("of")
        for stage, unit in (
            ("read+decode", "CPU, all threads"),
            ("resize", "CPU, all threads"),
            ("compile", "wall clock"),
            ("compute", "wall clock"),
            ("write", "wall clock"),
        ):
            stages.add_row(stage, f"{report.stages[stage]:.1f}", unit)
        console.print(stages)
        console.print(f"{report.images:,} files read, {report.decoded:,} of them decoded")
        console.print(
            f"device {report.device}: waited for images {report.waiting_share:.1%} of its time "
            f"({duration(report.waited)} of {duration(report.waited + report.stages['compute'])})"
        )
