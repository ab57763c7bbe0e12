"""Commands that are killed or stopped at any moment, and disks that are full: the same command then goes on."""

import os
import resource
import signal
from pathlib import Path

from scripts.knocks.case import CORRECT, CRASH, LOST, REJECTED, TRACEBACK, Case, Kind, Verdict, one_by_one
from scripts.knocks.commands import EXTRACTING, LEARNING, READING, Ended, Surroundings, mount_small, own_mounts, run
from scripts.knocks.stage import Stage

#: How often each command is stopped: those that write more, and go on where they were, more often.
COMMANDS = ("extract", "run", "search", "predict", "extract", "run", "search", "report", "extract", "run")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
#: Every command of the stage.
ALL = ("extract", "run", "predict", "search", "report")
_MODULES = (*READING, *EXTRACTING, *LEARNING)


def play_stop(stage: Stage, case: Case, folder: Path) -> Verdict:
    """Send a signal at a random moment, then run the same command again, and compare the end with the undisturbed."""
    generator = case.random()
    name = COMMANDS[case.number % len(COMMANDS)]
    number = SIGNALS[generator.randrange(len(SIGNALS))]
    real = case.number % 10 == 9
    moment = generator.uniform(0, 1.0) * stage.seconds[name] + (generator.uniform(0, 2) if real else 0)
    place = folder / "place"
    stage.copy(place, name)
    around = Surroundings(folder / "tmp", real=real)
    stopped = run(stage.command(name, place), Surroundings(folder / "tmp", real=real, signal_at=(number, moment)))
    story = f"{name}, {signal.Signals(number).name} after {moment:.2f} s, ended with {stopped.code}"
    verdict = judge_stopped(stopped)
    if verdict is None:
        again = run(stage.command(name, place), around)
        if again.code == 2 and "--overwrite" in again.said:
            again = Ended(0, again.said, again.seconds)  # all was written before the signal, as the comparison proves
        verdict = again.failure()
        if verdict is None and again.code:
            verdict = Verdict(LOST, f"the same command does not go on: {again.last_line()}")
        verdict = verdict or stage.compare(name, place) or Verdict(CORRECT, "the same command ends as if undisturbed")
    return verdict._replace(story=f"{story}: {verdict.story}")


def judge_stopped(stopped: Ended) -> Verdict | None:
    """What a signal must not bring about: anything but its own exit code, or an end that came before it."""
    if failure := stopped.failure():
        return failure
    expected = (0, -stopped.sent, 128 + stopped.sent) if stopped.sent else (0,)
    if stopped.code not in expected:
        return Verdict(CRASH, f"exit code {stopped.code} instead of {128 + stopped.sent}: {stopped.last_line()}")
    return None


def play_full(stage: Stage, case: Case, folder: Path) -> Verdict:
    """Run a command whose disk, or quota of a file, is too small; then make room, and run it again."""
    generator = case.random()
    name = (*ALL[:4], *ALL)[case.number % 9]
    place = folder / "place"
    place.mkdir()
    around = Surroundings(folder / "tmp")
    of_commands = {"extract": 500, "run": 900, "predict": 16, "search": 60, "report": 900}
    size = generator.randrange(4, of_commands[name]) * 1024
    is_disk = case.number % 4 != 3 and own_mounts() and mount_small(place, 1 << 30)
    stage.copy(place, name)
    if is_disk:
        disk = os.statvfs(place)
        mount_small(place, (disk.f_blocks - disk.f_bfree) * disk.f_frsize + size)
        full = run(stage.command(name, place), around)
        mount_small(place, 1 << 30)
    else:
        full = run(stage.command(name, place), Surroundings(folder / "tmp", limits={resource.RLIMIT_FSIZE: size}))
    story = f"{name}, {size // 1024} kB of {'disk' if is_disk else 'file'}, ended with {full.code}"
    verdict = full.failure()
    if verdict is None and full.code == 0:
        verdict = stage.compare(name, place) or Verdict(CORRECT, "there was room")
    elif verdict is None and not any(word in full.said for word in ("disk", "room", "space", "large", "quota")):
        verdict = Verdict(TRACEBACK, f"it does not say that the disk is full: {full.last_line()}")
    elif verdict is None:
        again = run(stage.command(name, place), around)
        verdict = again.failure() or (
            Verdict(LOST, f"the same command does not go on: {again.last_line()}") if again.code else None
        )
        verdict = verdict or stage.compare(name, place)
        verdict = verdict or Verdict(REJECTED, f"{full.last_line()} Then the same command ended as if undisturbed")
    return verdict._replace(story=f"{story}: {verdict.story}")


KILLS = Kind(
    "kills",
    100,
    "SIGKILL, SIGTERM or SIGINT at a random moment of `extract run`, `classify run` with heads, `classify "
    "search`, `classify predict` or `classify report`; then the same command again",
    "its exit code is that of the signal, without a traceback; the second run has the undisturbed result, and "
    "leaves nothing behind",
    one_by_one(play_stop),
    needs=ALL,
    modules=_MODULES,
)
DISKS = Kind(
    "disks",
    50,
    "the same five commands on a disk of random size, or with a limit of the size of a file; then again, with room",
    "the message says that the disk is full; the second run has the undisturbed result",
    one_by_one(play_full),
    needs=ALL,
    modules=_MODULES,
)
