"""Play cases in processes of their own, a few at a time, and count how they end."""

import importlib
import itertools
import json
import os
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.knocks.case import CRASH, FAILURES, OUTCOMES, TRACEBACK, Case, Kind, Verdict
from scripts.knocks.commands import die_with_parent
from scripts.knocks.stage import Stage

#: Seconds that a batch of cases may take for each case, beside those that its commands may take.
_PATIENCE = 300.0


@dataclass
class Tally:
    """What came out.

    Attributes:
        counts: of each kind, cases by outcome.
        failures: what must not be: the case and its verdict.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[tuple[Case, Verdict]] = field(default_factory=list)

    def add(self, case: Case, verdict: Verdict) -> None:
        """Count a case."""
        self.counts.setdefault(case.kind, Counter())[verdict.outcome] += 1
        if verdict.outcome in FAILURES:
            self.failures.append((case, verdict))

    def table(self) -> str:
        """Write the table of outcomes as Markdown."""
        lines = ["| kind | cases | " + " | ".join(OUTCOMES) + " |", "|" + " --- |" * (2 + len(OUTCOMES))]
        total: Counter[str] = sum(self.counts.values(), Counter())
        for name, counts in [*sorted(self.counts.items()), ("all", total)]:
            cells = [f"{counts.total():,}", *(f"{counts[outcome]:,}" for outcome in OUTCOMES)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        return "\n".join(lines)


def schedule(kinds: Iterable[Kind], seed: int, scale: float, endless: bool) -> Iterator[list[Case]]:
    """Give batches of cases: each kind has its share of any stretch; round after round where it is endless."""
    counts = {kind: max(1, round(kind.count * scale)) for kind in kinds}
    for turn in itertools.count() if endless else range(1):
        batches = []
        for kind, count in counts.items():
            for start in range(0, count, kind.batch):
                numbers = range(turn * count + start, turn * count + min(start + kind.batch, count))
                batches.append(((start + len(numbers) / 2) / count, [Case(seed, kind.name, one) for one in numbers]))
        yield from (batch for _, batch in sorted(batches, key=lambda pair: pair[0]))


def play_all(
    kinds: Mapping[str, Kind], batches: Iterable[Sequence[Case]], stage: Stage, jobs: int, end: float
) -> Iterator[tuple[Case, Verdict]]:
    """Play batches until there are none, or until a moment of `time.monotonic`; give each case with its verdict."""
    for module in dict.fromkeys(name for kind in kinds.values() for name in kind.modules):
        importlib.import_module(module)  # here, once; each command is a fork of this process, or a new interpreter
    waiting = iter(batches)
    playing: dict[int, tuple[Sequence[Case], Path, float]] = {}
    try:
        while True:
            while len(playing) < jobs and time.monotonic() < end and (batch := next(waiting, None)) is not None:
                folder = stage.root / f"{batch[0].kind}-{batch[0].number}"
                folder.mkdir()
                process = os.fork()
                if process == 0:
                    _play_here(kinds[batch[0].kind], stage, batch, folder)
                playing[process] = (batch, folder, time.monotonic() + _PATIENCE + 20 * len(batch))
            if not playing:
                return
            for process in list(playing):
                batch, folder, latest = playing[process]
                done, status = os.waitpid(process, os.WNOHANG)
                if not done and time.monotonic() > latest:
                    os.kill(process, signal.SIGKILL)
                if done:
                    del playing[process]
                    yield from _collect(batch, folder, os.waitstatus_to_exitcode(status))
                    if not stage.is_kept:
                        shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.005)
    finally:
        for process in playing:
            os.kill(process, signal.SIGKILL)  # the commands that it started die with it
            os.waitpid(process, 0)


def _play_here(kind: Kind, stage: Stage, batch: Sequence[Case], folder: Path) -> None:
    """Play a batch in this forked process, write the verdicts, and end."""
    try:
        die_with_parent()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        verdicts = kind.play(stage, batch, folder)
        text = json.dumps({case.number: verdicts[case.number] for case in batch})
    except BaseException:  # noqa: BLE001 - the campaign goes on, and counts it
        text = json.dumps(
            {case.number: (TRACEBACK, f"of the campaign itself: {traceback.format_exc()}") for case in batch}
        )
    _verdicts_of(folder).write_text(text)
    os._exit(0)


def _verdicts_of(folder: Path) -> Path:
    """Where the verdicts of a batch are: beside its folder, on which a disk may be mounted."""
    return folder.with_name(f"{folder.name}.json")


def _collect(batch: Sequence[Case], folder: Path, code: int) -> Iterator[tuple[Case, Verdict]]:
    """Give the verdicts of a batch that ended."""
    path = _verdicts_of(folder)
    found = json.loads(path.read_text()) if path.exists() else {}
    path.unlink(missing_ok=True)
    for case in batch:
        ended = f"the process that judged it, and {len(batch) - 1} others, ended with {code}"
        yield case, Verdict(*found.get(str(case.number), (CRASH, ended)))
