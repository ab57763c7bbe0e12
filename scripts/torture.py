"""Torture the commands with damaged files, kills and full disks, and count how they end: `python scripts/torture.py`.

Every case follows from the seed, its kind and its number, so that one command plays it again.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Annotated

# Before numpy: a command is a fork of this process, and its threads are its own.
sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # run as a file, this folder is on the path, not its parent

import typer

from features.common.errors import cause_of
from features.common.text import count_things, duration
from scripts.knocks.campaign import Tally, play_all, schedule
from scripts.knocks.case import FAILURES, Case, Kind
from scripts.knocks.stage import Stage
from scripts.knocks.table import KINDS

#: Packages that decode, store or load what is damaged.
PACKAGES = (
    "opencv-python-headless", "pillow", "pydicom", "nibabel", "h5py", "numpy", "skops", "onnxruntime", "tensorflow",
    "optuna",
)  # fmt: skip
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another campaign.")] = 1,
    only: Annotated[str | None, typer.Option(metavar="A,B", help=f"Kinds: {', '.join(KINDS)}.")] = None,
    case: Annotated[str | None, typer.Option(metavar="KIND:NUMBER", help="Play one case again, and say more.")] = None,
    scale: Annotated[float | None, typer.Option(min=0.0, help="Times the cases of a kind.", show_default="1")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="Start no case after so many seconds.")] = None,
    hours: Annotated[float | None, typer.Option(min=0, help="Go on with further cases for so many hours.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Cases at a time.", show_default="one a core")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table there, too.")] = None,
    keep: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep the files there, if empty.")] = None,
) -> None:
    """Play the campaign. Exit code 1: a case ended as none must.

    By default about 20 minutes of two cores; hours by --hours. A failed case is printed with the command that plays it
    again. As root, disks are small ones in memory that only this program sees; else limits of the size of files.
    """
    if find_spec("onnxruntime") is None:
        raise typer.BadParameter("it needs ONNX Runtime: .venv/bin/pip install -r requirements-engines.txt")
    _refuse_both("--case", case, {"--only": only, "--scale": scale, "--seconds": seconds, "--hours": hours})
    _refuse_both("--hours", hours, {"--seconds": seconds})
    kinds = _choose(only if case is None else case.partition(":")[0])
    one = None if case is None else _parse(case, seed)
    _check_markdown(markdown)
    _make_empty(keep)
    began = time.monotonic()
    tally = Tally()
    with _stopping(), _scratch(keep) as root:
        stage = Stage(root, is_kept=keep is not None)
        stage.prepare(tuple(dict.fromkeys(need for kind in kinds.values() for need in ("data", *kind.needs))))
        allowed = hours * 3600 if hours is not None else seconds if seconds is not None else float("inf")
        end = time.monotonic() + allowed
        shares = schedule(kinds.values(), seed, 1.0 if scale is None else scale, hours is not None)
        batches = shares if one is None else [[one]]
        for played, verdict in play_all(kinds, batches, stage, jobs or len(os.sched_getaffinity(0)), end):
            tally.add(played, verdict)
            if verdict.outcome in FAILURES or one is not None:
                typer.echo(f"{played.name} {verdict.outcome}: {' | '.join(verdict.story.split(chr(10)))}")
            if verdict.outcome in FAILURES:
                typer.echo(f"  again: .venv/bin/python scripts/torture.py --seed {seed} --case {played.name}")
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    table = f"{tally.table()}\n\nSeed {seed}, {duration(time.monotonic() - began)}; {versions}.\n"
    typer.echo(table)
    if markdown is not None:
        markdown.write_text(table, encoding="utf-8")
    if tally.failures:
        typer.echo(f"{count_things(len(tally.failures), 'case')} ended as none must.")
        raise typer.Exit(1)


def _refuse_both(name: str, value: object, others: dict[str, object]) -> None:
    """Refuse an option beside others that it would leave without effect."""
    if value is not None and (given := [other for other, of_other in others.items() if of_other is not None]):
        raise typer.BadParameter(f"{given[0]} has no effect beside {name}. Leave one of them out.")


def _check_markdown(path: Path | None) -> None:
    """Refuse a file that cannot be written, before the campaign and not after it."""
    if path is None:
        return
    existed = path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise typer.BadParameter(f"--markdown {path} cannot be written: {cause_of(error)}") from None
    if not existed:
        path.unlink()


def _make_empty(folder: Path | None) -> None:
    """Make the folder of --keep; refuse one that holds something, as cases must begin in empty folders."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = next(folder.iterdir(), None)
    except OSError as error:
        raise typer.BadParameter(f"--keep {folder} cannot be a folder: {cause_of(error)}") from None
    if held is not None:
        raise typer.BadParameter(f"--keep {folder} is not empty: it holds {held.name}. Name another folder.")


def _choose(names: str | None) -> dict[str, Kind]:
    """Choose kinds by their names."""
    wanted = list(KINDS) if names is None else names.split(",")
    if unknown := [name for name in wanted if name not in KINDS]:
        raise typer.BadParameter(f"{unknown[0]!r} is not a kind of cases. Expected some of {', '.join(KINDS)}.")
    return {name: kind for name, kind in KINDS.items() if name in wanted}


def _parse(case: str, seed: int) -> Case:
    """Read the value of --case, whose kind is known."""
    kind, _, number = case.partition(":")
    if not number.isascii() or not number.isdigit():
        raise typer.BadParameter(f"--case {case!r}: expected KIND:NUMBER, such as {kind}:17.")
    return Case(seed, kind, int(number))


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that it tidies up."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _scratch(keep: Path | None) -> Iterator[Path]:
    """A folder for the whole campaign, which is removed at the end, unless it is to be kept."""
    if keep is not None:
        yield keep.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="torture-")).resolve()
    os.environ["TMPDIR"] = str(folder)  # packages that are imported from now on leave files there, too
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    app(prog_name="scripts/torture.py")
