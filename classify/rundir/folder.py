"""The folder of a run: its files by name, how they become a run all at once, and the seal that proves them whole."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from features.audit.report import DUPLICATES, GROUPS
from features.audit.report import RECORD as AUDIT
from features.common.errors import InputError, cause_of, signals_wait
from features.common.files import HELD, digest, digest_file, hold, read_record, remove
from features.store.gradients import CAM, CAM_LOCK, CAM_STAGING, GRADIENTS
from features.store.run_labels import MARK, OUT_OF_FOLD, RUN_LABELS

#: The tables of a run; `files` writes and reads them; `features.store` reads labels and out-of-fold probabilities.
PROBABILITIES, DECISIONS = "predictions_probability.csv", "predictions_binary.csv"
CLASSES, CONFUSION_MATRIX = "predictions_class.csv", "confusion_matrix.csv"
METRICS_TABLE, THRESHOLDS = "metrics.csv", "thresholds.csv"
BACKBONES_TABLE, CURVES, GALLERY = "backbones.csv", "curves.csv", "gallery.csv"
LEADERBOARD_TABLE, OPERATING_POINTS, LABEL_ERRORS = "leaderboard.csv", "operating_points.csv", "label_errors.csv"
GROUP_SCORES, SUBGROUPS = "group_scores.csv", "subgroups.csv"
#: The folder of a run's fitted models.
MODELS = "models"
#: What a run writes and seals, beside `MARK`.
SEALED = (
    PROBABILITIES, DECISIONS, CLASSES, OUT_OF_FOLD, LEADERBOARD_TABLE, METRICS_TABLE, CONFUSION_MATRIX, THRESHOLDS,
    BACKBONES_TABLE, CURVES, RUN_LABELS, LABEL_ERRORS, GALLERY, OPERATING_POINTS, GROUP_SCORES, SUBGROUPS, MODELS,
)  # fmt: skip
#: What `learn` adds to a finished run.
LEARNING_CURVE = "learning_curve.csv"
#: What `report` makes of a finished run: the page, and the folder of its figures.
REPORT, FIGURES = "report.html", "figures"
#: The folder of predictions of new images, a folder each, and what says in such a folder how they were made.
PREDICTIONS, PREDICTION = "predictions", "prediction.json"
#: Where predictions lie until they are whole. The record leaves it last, so that it says whose the others are.
PREDICTION_PARTIAL = ".prediction.partial"
#: The lock of such a folder, which scripts/predict.sh holds from before its extraction until it has predicted.
PREDICTION_LOCK = ".prediction.lock"
#: What the audit of the features leaves in a run's folder.
_OF_AUDIT = (DUPLICATES, GROUPS, AUDIT)
#: What lies in a folder of predictions; `_CACHE` is the features that scripts/predict.sh keeps there.
_CACHE = "cache"
_OF_PREDICTION = (PROBABILITIES, DECISIONS, CLASSES, GRADIENTS, CAM, _CACHE, PREDICTION_PARTIAL, PREDICTION)
#: All files and folders that a run, or what is made of it later, may write: stale once the run is replaced.
RUN_FILES = (*SEALED, GRADIENTS, LEARNING_CURVE, REPORT, FIGURES, CAM, *_OF_AUDIT, PREDICTIONS, MARK)
_PARTIAL, _REPLACING, _LOCK = ".partial", ".replacing", ".lock"
#: Version of what `MARK` holds. Before 2 there was neither a version nor a seal, before 3 no nested choice.
_FORMAT = 3
#: What the records of all versions hold, and hardly any other program's.
_FIELDS = (b'"folds"', b'"final_model"')


@dataclass(frozen=True)
class SealedRun:
    """A finished run whose record, what `MARK` holds, is what the run wrote."""

    folder: Path
    record: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the record of a run.

        Raises:
            InputError: the folder holds no finished run, one of another format, or its record is damaged or was changed
                by hand.
        """
        path = folder / MARK
        if not path.is_file():
            raise InputError(
                f"{folder} holds no finished run: {path} is missing. Give the folder that `classify run` was given as "
                "--out; a run that was interrupted goes on with the same command."
            )
        record = read_record(path, _remedy(folder))
        version = record.get("format")
        if version != _FORMAT:
            raise InputError(
                f"{path} is of another version of Headbank: its format is {version or 'older than 2'}, expected "
                f"{_FORMAT}. Make the run again with the options that it had, and --overwrite."
            )
        if record.get("seal") != _seal_of(record):
            raise changed(folder, MARK)
        return cls(folder, record)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The L labels."""
        return tuple(self.record["labels"])

    @property
    def exclusive(self) -> bool:
        """Whether the labels are classes, of which each labelled image has exactly one."""
        return bool(self.record.get("exclusive"))  # older runs do not say it

    @property
    def final_model(self) -> str:
        """The model whose predictions the run handed in."""
        return str(self.record["final_model"])

    def holds(self, name: str) -> bool:
        """Whether the run wrote a file."""
        return name in self.record["files"]

    def file(self, name: str) -> Path:
        """Give the path of a file of the run, by its path within the folder; its bytes are those that the run wrote.

        Raises:
            InputError: it is missing, damaged, or was changed by hand.
        """
        path = self.folder / name
        try:
            found = digest_file(path).hex()
        except FileNotFoundError:
            raise InputError(f"{path} is missing. {_remedy(self.folder)}") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {cause_of(error)}") from None
        if found != self.record["files"].get(name):
            raise changed(self.folder, name)
        return path


def seal(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `MARK`: the record (plain values), the digest of each file of the run in `folder`, and one of all that."""
    paths = [path for name in SEALED for path in ((folder / name), *sorted((folder / name).rglob("*")))]
    files = {path.relative_to(folder).as_posix(): digest_file(path).hex() for path in paths if path.is_file()}
    # As it will be read; NaN and infinity are no JSON, and a figure that is missing is null.
    sealed = json.loads(json.dumps({"format": _FORMAT, **record, "files": files}, allow_nan=False))
    sealed["seal"] = _seal_of(sealed)
    (folder / MARK).write_text(json.dumps(sealed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _seal_of(record: Mapping[str, Any]) -> str:
    """Digest a record without its seal, whatever its order and blanks."""
    content = {name: value for name, value in record.items() if name != "seal"}
    return digest(json.dumps(content, sort_keys=True).encode()).hex()


def changed(folder: Path, name: str) -> InputError:
    """Make the error of a file that is not as the run wrote it."""
    return InputError(f"{folder / name} was changed by hand, or is damaged. {_remedy(folder)}")


def _remedy(folder: Path) -> str:
    """Say what helps where a run is not whole."""
    return f"Put the original back, or make the run again: with the options that {folder} had, and --overwrite."


@contextmanager
def open_run(run: Path, overwrite: bool, groups: Path | None = None) -> Iterator[Path]:
    """Lend a folder to write a run's files to; when the block ends without an error, they become the run.

    The folder is empty, and gone after the block.

    Args:
        run: the run's folder; missing, empty, or with `overwrite` an earlier run.
        overwrite: whether an earlier run may be replaced, with all that was made of it later. Files that a person put
            into its folder stay.
        groups: the file of groups that the new run reads, which stays too.

    Raises:
        InputError: `run` is a file, holds something else than a run, holds a run and `overwrite` is false, or cannot be
            written to; raised before the block where it can be known.
    """
    _check(run, overwrite)
    staging = run / _PARTIAL
    with hold_run(run):
        with writing(run):
            clear(staging)  # of what a killed run left
            staging.mkdir(exist_ok=True)
        try:
            yield staging
            _check(run, overwrite)
            with writing(run), signals_wait():
                _publish(staging, run, groups)
        finally:
            clear(staging)


@contextmanager
def hold_run(run: Path, name: str = _LOCK) -> Iterator[None]:
    """Keep other processes from writing to a folder of a run, or of predictions, while the block runs.

    It is made where it is missing, and removed if it is still empty after the block. `name` is the lock's.

    Raises:
        InputError: another process holds it, or the folder cannot be written to.
    """
    existed, lock = run.exists(), run / name
    try:
        with hold(lock):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)  # nobody waits for this lock, and the folder is a person's
    finally:
        if not existed:
            _remove_empty(run)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Report what the system says of a folder that cannot be written to.

    Raises:
        InputError: the block raised an OSError, as on a full disk.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {cause_of(error)} Or use another folder.") from None


def clear(staging: Path, kept: str | None = None) -> None:
    """Remove a folder with everything but what is called `kept`; where a link leads, nothing."""
    if staging.is_symlink():
        staging.unlink()
    if not staging.is_dir():
        return
    for path in staging.iterdir():
        if path.name != kept or path.is_symlink():
            remove(path)
    if not any(staging.iterdir()):
        staging.rmdir()


def _check(run: Path, overwrite: bool) -> None:
    """Refuse a folder that a run may not write to."""
    if not run.exists() and not run.is_symlink():
        return
    if not run.is_dir():
        raise InputError(f"{run} is not a folder. Name another with --out.")
    if not any(path.name not in (_PARTIAL, _LOCK, f"{_LOCK}{HELD}") for path in run.iterdir()):
        return
    if not (run / _REPLACING).exists() and not _is_ours(run / MARK):
        why = "was not written by Headbank" if (run / MARK).exists() else "is missing"
        raise InputError(f"{run} is not empty and is not a run ({MARK} {why}). Name another folder with --out.")
    if not overwrite:
        raise InputError(f"{run} holds a run already. Name another folder with --out, or replace it with --overwrite.")


def _is_ours(record: Path) -> bool:
    """Whether a file is the record of a run, of any version, maybe damaged."""
    try:
        content = record.read_bytes()
    except OSError:
        return False
    return all(field in content for field in _FIELDS)


def _publish(staging: Path, run: Path, groups: Path | None) -> None:
    """Move the files to their place, after what an earlier run and its followers left is removed."""
    # Until the last file is in place this is not a finished run, but may be overwritten like one.
    (run / _REPLACING).touch()
    (run / MARK).unlink(missing_ok=True)
    _remove_stale(run, groups)
    for name in (*SEALED, GRADIENTS, MARK):
        if (staging / name).exists():
            (staging / name).replace(run / name)
    (run / _REPLACING).unlink()


def _remove_stale(run: Path, groups: Path | None) -> None:
    """Remove what an earlier run and its followers left; what a person put there, and `groups`, stay."""
    names = [*SEALED, GRADIENTS, LEARNING_CURVE, REPORT, FIGURES, CAM, PREDICTION]
    names += [path.name for path in run.glob(f".{FIGURES}????????")]  # of a killed report
    if (run / AUDIT).exists():  # else a person put the groups there
        names += [name for name in _OF_AUDIT if groups is None or groups.resolve() != (run / name).resolve()]
    for name in names:
        remove(run / name)
    with suppress(InputError), hold(run / CAM_LOCK):  # else `extract heat` is at work, and will see what it drew for
        remove(run / CAM_STAGING)
        remove(run / CAM_LOCK)
    predictions = run / PREDICTIONS
    if predictions.is_symlink() or not predictions.is_dir():
        return
    for folder in [path for path in predictions.iterdir() if path.is_dir() and not path.is_symlink()]:
        with suppress(InputError), hold_run(folder, PREDICTION_LOCK):  # else it is being predicted, and stays
            for name in _OF_PREDICTION if (folder / PREDICTION).exists() else (_CACHE,):  # alone if it was interrupted
                remove(folder / name)
        _remove_empty(folder)
    _remove_empty(predictions)


def _remove_empty(folder: Path) -> None:
    """Remove a folder, unless it holds something or is a link."""
    with suppress(OSError):
        folder.rmdir()
