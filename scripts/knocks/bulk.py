"""Extract many damaged files in one data set, and judge each: its row is right, or it is listed as unreadable."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.knocks.case import CORRECT, LOST, OUTCOMES, REJECTED, SILENCE, WRONG, Case, Verdict
from scripts.knocks.commands import Ended, Surroundings, run
from scripts.knocks.reference import guarded
from scripts.knocks.stage import Stage, rows_of, write_data

#: What is said of files without an ending, beside scans, that are not scans.
_NOT_DICOM = "without an ending do not begin as DICOM"
#: Grey levels by which another decoder of a format that loses detail may differ.
LOSSY = 6.0


@dataclass(frozen=True)
class Specimen:
    """A damaged file.

    Attributes:
        name: of the file, within the split's folder.
        content: its bytes.
        stem: its id; those of its frames or slices begin with it.
        whole: the file before the damage.
        read: reads an image by other means: bytes, and what stands behind the # of its id, -> uint8
            (..., SIDE, SIDE, 3), one or more readings that are right.
        tolerance: grey levels by which a value may differ.
        story: what was done to it.
    """

    name: str
    content: bytes
    stem: str
    whole: bytes
    read: Callable[[bytes, str], np.ndarray]
    tolerance: float
    story: str

    def differs(self, row: np.ndarray, content: bytes, frame: str) -> float:
        """By how many levels a row differs from the image in some bytes, at most; infinity where there is none."""
        image = guarded(lambda: self.read(content, frame))
        if image is None:
            return float("inf")
        return float(np.abs(image.reshape(-1, row.size) - row).max(axis=1).min())


def play_bulk(
    make: Callable[[Case], Specimen],
    options: tuple[str, ...] = (),
    add: Callable[[Path], object] = lambda _: None,
) -> Callable[[Stage, Sequence[Case], Path], Mapping[int, Verdict]]:
    """Make the `play` of a kind whose cases are files of one data set; `add` puts others into the folder."""

    def play(stage: Stage, cases: Sequence[Case], folder: Path) -> dict[int, Verdict]:
        specimens = {case.number: make(case) for case in cases}
        data, cache = folder / "data", folder / "cache"
        write_data(data, patients=1, slices=1, tests=1)
        (data / "train.csv").unlink()
        add(data / "train")
        for specimen in specimens.values():
            (data / "train" / specimen.name).write_bytes(specimen.content)
        ended = run(stage.extract(data, cache, *options), Surroundings(folder / "tmp", real=cases[0].number % 2 == 1))
        if failed := _failure(ended):
            if len(cases) == 1:
                return {cases[0].number: failed._replace(story=f"{specimens[cases[0].number].story}: {failed.story}")}
            return _halves(play, stage, cases, folder, failed)
        return judge(specimens, ended, cache)

    return play


def _failure(ended: Ended) -> Verdict | None:
    """What went wrong with the whole command: no file may end it."""
    if failed := ended.failure():
        return failed
    if ended.code not in (0, 3):
        return Verdict(LOST, f"one file ended the run of all: {ended.last_line()}")
    return None


def _halves(
    play: Callable[[Stage, Sequence[Case], Path], dict[int, Verdict]],
    stage: Stage,
    cases: Sequence[Case],
    folder: Path,
    failed: Verdict,
) -> dict[int, Verdict]:
    """Find the case that made a command fail, by halves."""
    verdicts: dict[int, Verdict] = {}
    for number, part in enumerate((cases[: len(cases) // 2], cases[len(cases) // 2 :])):
        (folder / f"half{number}").mkdir()
        verdicts |= play(stage, part, folder / f"half{number}")
    if all(verdict.outcome in (CORRECT, REJECTED) for verdict in verdicts.values()):
        first, last = cases[0].number, cases[-1].number
        verdicts[first] = failed._replace(story=f"together with all up to {last} alone: {failed.story}")
    return verdicts


def judge(specimens: Mapping[int, Specimen], ended: Ended, cache: Path) -> dict[int, Verdict]:
    """Judge the files of an extraction that ended."""
    rows = rows_of(cache, "train") if (cache / "train").is_dir() else {}
    reasons = read_rejected(cache)
    verdicts = {}
    for number, specimen in specimens.items():
        ids = [name for name in {**rows, **reasons} if name.partition("#")[0] == specimen.stem]
        judged = [
            judge_row(specimen, name.partition("#")[2], rows.get(name), reasons.get(name))
            for name in ids or [specimen.stem]
        ]
        verdict = max(judged, key=_severity)
        if verdict.outcome == LOST and not ids and "." not in specimen.name and _NOT_DICOM in ended.said:
            verdict = Verdict(REJECTED, "a file without an ending that does not begin as DICOM, which is said")
        elif verdict.outcome == REJECTED and ended.code != 3:
            verdict = Verdict(SILENCE, f"exit code {ended.code}, though an image was rejected")
        verdicts[number] = verdict._replace(story=f"{specimen.story}: {verdict.story}")
    return verdicts


def _severity(verdict: Verdict) -> int:
    """Where an outcome stands in the table."""
    return OUTCOMES.index(verdict.outcome)


def judge_row(specimen: Specimen, frame: str, row: np.ndarray | None, reason: str | None) -> Verdict:
    """Judge what became of an image of a file.

    Args:
        specimen: the file.
        frame: what stands behind the # of the image's id.
        row: its features in the cache, float32 (3 * SIDE * SIDE,); None where it has none.
        reason: why it was rejected; None where it is not listed.
    """
    if row is not None and reason is not None:
        return Verdict(WRONG, f"it has a row, and is listed as rejected: {reason}")
    if row is None and reason is None:
        return Verdict(LOST, "it has no row, and is not listed as rejected")
    if row is None:
        if specimen.content == specimen.whole:
            return Verdict(LOST, f"a whole file was rejected: {reason}")
        return Verdict(REJECTED, str(reason)) if str(reason).strip() else Verdict(SILENCE, "rejected without a reason")
    if specimen.differs(row, specimen.whole, frame) <= specimen.tolerance:
        return Verdict(CORRECT, "read as the undamaged file")
    found = specimen.differs(row, specimen.content, frame)
    if found <= specimen.tolerance:
        return Verdict(CORRECT, "read as another decoder reads these bytes")
    by = "another decoder refuses these bytes" if found == float("inf") else f"{found:.0f} levels off another decoder"
    return Verdict(WRONG, f"accepted, but {by}")


def read_rejected(cache: Path) -> dict[str, str]:
    """Read rejected.csv: id -> reason, of train."""
    path = cache / "rejected.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"]: row["reason"] for row in csv.DictReader(file) if row["path"].startswith("train/")}
