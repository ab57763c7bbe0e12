"""Keep the finished trials of a search on disk, and refuse to mix them with those of another search.

Why not Optuna's SQLite storage: docs/decisions.md.
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from features.common.errors import InputError, cause_of
from features.common.files import hold

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.journal"
_NAME = "heads"
_IDENTITY = "identity"
#: What older studies have in common that do not say it.
_BEFORE = {"output": "sigmoid"}
_OUTPUTS = {"sigmoid": "each label by itself (sigmoid)", "softmax": "exclusive classes (softmax)"}


@dataclass
class StudyFile:
    """Finished trials, in Optuna's journal: a line of JSON each, flushed to the disk.

    Proposals that have no score yet are in memory only, so that a search that is stopped leaves no trial that would
    seem to run forever.
    """

    _path: Path
    _kept: "optuna.Study"

    @property
    def trials(self) -> list["optuna.trial.FrozenTrial"]:
        """The finished trials, oldest first."""
        return self._kept.get_trials(deepcopy=False)

    def add(self, trials: Sequence["optuna.trial.FrozenTrial"]) -> None:
        """Keep finished trials, all or none: part of a batch would change what is proposed next.

        Raises:
            InputError: the disk refuses.
        """
        size = self._path.stat().st_size
        try:
            self._kept.add_trials(trials)
        except OSError as error:
            os.truncate(self._path, size)
            raise _unwritable(self._path, error) from None
        except BaseException:  # a signal
            os.truncate(self._path, size)
            self._kept = _load(self._path)
            raise


def check_study_folder(folder: Path) -> None:
    """Refuse, by an `InputError`, a file, and a folder that is not empty and holds no study."""
    if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Name another with --out.")
    if folder.is_dir() and not (folder / JOURNAL).exists():
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith(f"{JOURNAL}.lock"))
        if others:
            raise InputError(f"{folder} is not a study: it holds {others[0]}, but no {JOURNAL}. Name another --out.")


@contextmanager
def open_study(folder: Path, identity: Mapping[str, Any]) -> Iterator[StudyFile]:
    """Open the study of a folder, or begin one, for the length of a `with` block; nobody else may write meanwhile.

    The identity is what trials have to have in common to be compared: str, int or dict of str, by what they are called.

    Raises:
        InputError: the folder holds a study of something else, a damaged one, or one that another process works on; or
            it cannot be written.
    """
    path = folder / JOURNAL
    with hold(folder / f"{JOURNAL}.lock"):
        try:
            _cut_half_line(path)
            kept = _load(path)
            if _IDENTITY not in kept.user_attrs and not kept.trials:
                kept.set_user_attr(_IDENTITY, dict(identity))
        except OSError as error:
            raise _unwritable(path, error) from None
        _compare(folder, kept.user_attrs.get(_IDENTITY, {}), json.loads(json.dumps(identity)))
        yield StudyFile(path, kept)


def _load(path: Path) -> "optuna.Study":
    """Read or begin the journal, without Optuna's own messages."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    # `open_study` holds the study already; Optuna's own lock would stay for 30 s after a kill.
    held: Any = SimpleNamespace(acquire=lambda: True, release=lambda: None)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(path), held))
        except (ValueError, LookupError, TypeError, AssertionError) as error:  # what Optuna raises on changed lines
            raise InputError(f"{path} is damaged: {error!r}. Name another folder with --out.") from None
    if _NAME in optuna.get_all_study_names(storage):  # to make it "if it is not there" would add a line each time
        return optuna.load_study(storage=storage, study_name=_NAME)
    return optuna.create_study(storage=storage, study_name=_NAME, direction="maximize")


def _cut_half_line(path: Path) -> None:
    """Cut off half a line that a crash left, as Optuna could not append to it; but nothing of what is not a journal."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        *lines, half = file.read().split(b"\n")
        try:
            known = all("op_code" in json.loads(line) for line in lines) and half.startswith(b'{"op_code"'[: len(half)])
        except (ValueError, TypeError):
            known = False
        if not known:
            raise InputError(f"{path} is damaged, or of another program. Name another folder with --out.")
        file.truncate(sum(len(line) + 1 for line in lines))


def _compare(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse a study whose trials could not be compared with new ones."""
    found = _BEFORE | dict(found)
    for what in wanted:
        if found.get(what) != wanted[what]:
            raise InputError(
                f"{folder} holds a study of other {what}: {_short(found.get(what))} then, {_short(wanted[what])} now. "
                f"Scores of the two cannot be compared. Give what was given then, or name another folder with --out."
            )


def _short(value: Any) -> str:
    """Write a value of an identity so that it fits into a message."""
    text = _OUTPUTS.get(str(value), str(value))
    if isinstance(value, dict):
        text = ", ".join(f"{key} {part}" for key, part in value.items())
    return text if len(text) <= 100 else f"{text[:97]}..."


def _unwritable(path: Path, error: OSError) -> InputError:
    """Make the error of a journal that cannot be written."""
    return InputError(f"{path} cannot be written: {cause_of(error)} Or name another folder with --out.")
