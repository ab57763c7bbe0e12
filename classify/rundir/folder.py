"""Publish the files of a run all at once, so that an interrupted run leaves finished fits and nothing half-written."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from features.common.errors import InputError
from features.common.files import hold

#: What makes a folder a run. It is published last.
MARK = "run.json"
#: The folder of a run's fitted models.
MODELS = "models"
#: What `report` makes of a finished run: the page, and the folder of its figures.
REPORT, FIGURES = "report.html", "figures"
#: The folder of a run's heat maps, written by `classify cam`.
CAM = "cam"
#: Where a run that is not finished keeps its finished fits.
FINISHED = "finished"
#: All files and folders that a run, or what is made of it later, may write: stale once the run is replaced.
RUN_FILES = (
    "predictions_probability.csv",
    "predictions_binary.csv",
    "oof_probability.csv",
    "metrics.csv",
    "thresholds.csv",
    "backbones.csv",
    "curves.csv",
    "labels.csv",
    "gallery.csv",
    MODELS,
    REPORT,
    FIGURES,
    CAM,
    "duplicates.csv",
    "audit.json",
    MARK,
)
_PARTIAL = ".partial"
_REPLACING = ".replacing"


def mark_of(run: Path) -> Path:
    """Give the file that makes a folder a finished run.

    Raises:
        InputError: it is not there.
    """
    path = run / MARK
    if not path.is_file():
        raise InputError(
            f"{run} holds no finished run: there is no {path}. Give the folder that `classify run` was given as --out; "
            "a run that was interrupted goes on with the same command."
        )
    return path


@contextmanager
def open_run(run: Path, overwrite: bool) -> Iterator[Path]:
    """Lend a folder to write a run's files to; when the block ends without an error, they become the run.

    Args:
        run: the run's folder; absent, empty, or with `overwrite` an earlier run.
        overwrite: whether the files of an earlier run may be replaced, and the whole of its models/. Other files in its
            folder stay.

    Yields:
        A folder beside `run`, or inside it where it exists; empty but for the `FINISHED` of an earlier run that was
        interrupted, which is not published. It is gone after the block; if the block does not end well, `FINISHED`
        stays where it is, for the next one.

    Raises:
        InputError: `run` is a file, holds something else than a run, holds a run and `overwrite` is false, or cannot be
            written to; raised before the block where it can be known.
    """
    with hold_run(run):
        yield from _stage(run, overwrite)


@contextmanager
def hold_run(run: Path) -> Iterator[None]:
    """Keep other processes from writing to a run's folder while the block runs.

    Args:
        run: the run's folder, absent or not.

    Raises:
        InputError: another process holds it, or the folder around it cannot be written to.
    """
    lock = run.parent / f".{run.name}.lock"
    with hold(lock):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # nobody waits for this lock, and the folder is a person's


def _stage(run: Path, overwrite: bool) -> Iterator[Path]:
    """Do what `open_run` says, while no other process does it."""
    try:
        exists = _check(run, overwrite)
        staging = run / _PARTIAL if exists else run.parent / f".{run.name}{_PARTIAL}"
        _clear(staging)  # of what a killed run left
        staging.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(run, error) from None
    try:
        yield staging
        try:
            _publish(staging, run, overwrite)
            ours = staging if staging.exists() else run  # into which the whole of it was turned
            shutil.rmtree(ours / FINISHED, ignore_errors=True)
        except OSError as error:
            raise _unwritable(run, error) from None
    finally:
        _clear(staging)


def _clear(staging: Path) -> None:
    """Remove everything but finished fits."""
    if not staging.is_dir():
        return
    for path in staging.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name != FINISHED:
                shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    if not any(staging.iterdir()):
        staging.rmdir()


def _check(run: Path, overwrite: bool) -> bool:
    """Tell whether the folder exists; refuse one that a run may not write to."""
    if not run.exists() and not run.is_symlink():
        return False
    if not run.is_dir():
        raise InputError(f"{run} is not a folder. Name another with --out.")
    if not any(path.name != _PARTIAL for path in run.iterdir()):
        return True
    if not (run / MARK).exists() and not (run / _REPLACING).exists():
        raise InputError(f"{run} is not empty and is no run (it holds no {MARK}). Name another folder with --out.")
    if not overwrite:
        raise InputError(f"{run} holds a run already. Name another folder with --out, or replace it with --overwrite.")
    return True


def _publish(staging: Path, run: Path, overwrite: bool) -> None:
    """Move the files to their place."""
    if not _check(run, overwrite):
        staging.replace(run)
        return
    # Until the last file is in place this is no finished run, but may be overwritten like one.
    (run / _REPLACING).touch()
    (run / MARK).unlink(missing_ok=True)
    for name in RUN_FILES:
        old, new = run / name, staging / name
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)  # a folder cannot take the place of one that holds files
        elif not new.is_file():
            old.unlink(missing_ok=True)
        if new.exists():
            new.replace(old)
    (run / _REPLACING).unlink()


def _unwritable(run: Path, error: OSError) -> InputError:
    """Make the error of a folder that cannot be written to."""
    return InputError(f"{run} cannot be written ({error.strerror}). Name another folder with --out.")
