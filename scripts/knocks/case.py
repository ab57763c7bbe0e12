"""One case of the campaign: what decides it, and how it may end."""

import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from scripts.knocks.stage import Stage

CORRECT, REJECTED = "correct", "rejected"
TRACEBACK, CRASH, HANG, WRONG, LOST, SILENCE, EXECUTED = (
    "traceback", "crash", "hang", "wrong values", "lost rows", "silence", "code run",
)  # fmt: skip
#: How a case may end, and in words; the last seven must never be.
GOOD = {CORRECT: "the right result", REJECTED: "refused, or listed as unreadable, with the reason"}
FAILURES = {
    TRACEBACK: "a traceback, or exit code 1",
    CRASH: "the process ended by a signal that nobody sent, or by another exit code than those of the manual",
    HANG: "no end after 60 seconds",
    WRONG: "features, labels, scores or predictions that are not those of an independent reading",
    LOST: "a row or a file that is neither in the result nor named",
    SILENCE: "a failure without a word",
    EXECUTED: "code that a file held was run",
}
OUTCOMES = (*GOOD, *FAILURES)


class Verdict(NamedTuple):
    """How a case ended: one of `OUTCOMES`, and what was done and seen."""

    outcome: str
    story: str


@dataclass(frozen=True)
class Case:
    """One case: all that it does follows from these three.

    Attributes:
        seed: of the campaign.
        kind: the name of its kind.
        number: from 0.
    """

    seed: int
    kind: str
    number: int

    @property
    def name(self) -> str:
        """As `--case` takes it."""
        return f"{self.kind}:{self.number}"

    def random(self) -> random.Random:
        """A generator that gives the same numbers for the same case, on any machine."""
        return random.Random(f"{self.seed}:{self.kind}:{self.number}")


@dataclass(frozen=True)
class Kind:
    """A kind of cases.

    Attributes:
        name: as `--only` takes it.
        count: cases by default.
        what: what is done, a sentence.
        judged: how the outcome is judged, a sentence.
        play: plays cases in an empty folder: number -> verdict.
        batch: cases that are played together, in one data set.
        needs: what of the stage they use.
        modules: what is imported before a command is forked.
    """

    name: str
    count: int
    what: str
    judged: str
    play: Callable[["Stage", Sequence[Case], Path], Mapping[int, Verdict]]
    batch: int = 1
    needs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


def one_by_one(
    play: Callable[["Stage", Case, Path], Verdict],
) -> Callable[["Stage", Sequence[Case], Path], Mapping[int, Verdict]]:
    """Make the `play` of a kind of what plays one case."""

    def play_all(stage: "Stage", cases: Sequence[Case], folder: Path) -> Mapping[int, Verdict]:
        verdicts = {}
        for case in cases:
            own = folder / str(case.number)
            own.mkdir()
            try:
                verdicts[case.number] = play(stage, case, own)
            except Exception:  # noqa: BLE001 - the campaign goes on, and counts it
                verdicts[case.number] = Verdict(TRACEBACK, f"of the campaign itself: {traceback.format_exc()}")
        return verdicts

    return play_all
