"""The files of fitted models: Keras files of heads, skops files, which hold no pickle, of everything else."""

import io
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import numpy as np
from sklearn.base import BaseEstimator

from classify.models.keras_file import read_keras, write_keras
from classify.models.trained_head import TrainedHead
from features.common.arrays import Features, Probabilities
from features.common.errors import InputError, cause_of
from features.common.files import digest
from features.store.mapped import AnyFeatures, MappedFeatures, in_blocks

#: What ends the name of a head's file, an ordinary Keras model, and of any other's, in skops' format.
HEAD_SUFFIX, ESTIMATOR_SUFFIX = ".keras", ".skops"
#: Types within scikit-learn's estimators that are trusted beside those that skops trusts by itself, and our own
#: estimators. Reading a file that names any other is refused, so that a run from elsewhere cannot run its own code.
TRUSTED = (
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
#: numpy parses the head of each array as Python; before Python 3.11.8 two threads that do so at a time can end in a
#: SystemError (github.com/python/cpython/issues/106905).
_LOADING = threading.Lock()
#: Types that a person trusts in this process, and digests of the files of estimators that it wrote itself.
_TRUSTED_HERE: set[str] = set()
_WRITTEN_HERE: set[bytes] = set()
_OWN = re.compile(r"(classify\.(?:models\.(?:estimators|linear)|ensembles\.estimators))\.([A-Z]\w*)")


class UntrustedTypes(InputError):
    """A file names types that nobody has said to trust, as that of an estimator of a person's own does elsewhere."""


class Predictor(Protocol):
    """What a loaded file is good for."""

    def predict_proba(self, X: Features) -> Probabilities:
        """Give the probability of each label."""


def predict_rows(model: Predictor, features: AnyFeatures) -> Probabilities:
    """Give the probability of each label; of features on the disk block by block."""
    if not isinstance(features, MappedFeatures):
        return model.predict_proba(features)
    return np.concatenate([model.predict_proba(features[rows]) for rows in in_blocks(len(features))])


class SavedEstimator:
    """A fitted estimator, and the bytes of its file: either is made of the other when it is needed.

    Args:
        fitted: the estimator, or what `dump_trusted` gave of it.
        keep: called with the bytes of an estimator once they are made.
    """

    def __init__(self, fitted: BaseEstimator | bytes, keep: Callable[[bytes], None] = lambda _: None) -> None:
        self._fitted, self._keep = fitted, keep

    @cached_property
    def content(self) -> bytes:
        """The bytes of its file."""
        if isinstance(self._fitted, bytes):
            return self._fitted
        content = dump_trusted(self._fitted)
        self._keep(content)
        return content

    @cached_property
    def estimator(self) -> BaseEstimator:
        """The estimator."""
        return load_trusted(self._fitted, Path("a kept fit")) if isinstance(self._fitted, bytes) else self._fitted

    def predict_proba(self, X: Features) -> Probabilities:
        """Give the probability of each label."""
        return self.estimator.predict_proba(X)


def model_path(models: Path, model: str, fit: str, suffix: str) -> Path:
    """Say where one fit of a model lies, such as `models/challenge__resnet50/fold0.keras`."""
    return models / model.replace("/", "__") / f"{fit}{suffix}"


def ensemble_path(models: Path, ensemble: str) -> Path:
    """Say where an ensemble or a calibrated model lies, such as `models/greedy+platt.skops`."""
    return models / f"{ensemble.replace('/', '__')}{ESTIMATOR_SUFFIX}"


def save_fits(models: Path, name: str, fits: Mapping[str, SavedEstimator | TrainedHead]) -> dict[str, Path]:
    """Save the fits of a model, by name, in a folder made here; gives their files by the same names."""
    files = {}
    for fit, model in fits.items():
        suffix = HEAD_SUFFIX if isinstance(model, TrainedHead) else ESTIMATOR_SUFFIX
        path = files[fit] = model_path(models, name, fit, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(model, TrainedHead):
            path.write_bytes(write_keras(model))
        else:
            path.write_bytes(model.content)
    return files


def load_model(path: Path) -> Predictor:
    """Load a fit, an ensemble or a calibration; an `InputError` says why the file is not a sound model of a run."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {cause_of(error)} If it is lost, make the run again.") from None
    if path.suffix == HEAD_SUFFIX:
        _refuse_damage(content, path)
        return read_keras(content, path)
    return load_trusted(content, path)


def trust(*types: type) -> None:
    """Let models of runs hold these types, such as an estimator of your own, for as long as this process lives.

    Reading a model runs the code of its types: trust only those that you know.
    """
    _TRUSTED_HERE.update(f"{kind.__module__}.{kind.__qualname__}" for kind in types)


def dump_trusted(what: Any) -> bytes:
    """Write a fitted estimator in skops' format: a zip of JSON and numpy arrays."""
    from skops.io import dumps

    content = dumps(what, compression=ZIP_DEFLATED, compresslevel=1)
    _WRITTEN_HERE.add(digest(content))
    return content


def why_not_kept(what: Any) -> str:
    """Write an estimator of a person's own and read it again; gives what fails, "" if nothing does."""
    from skops.io import dumps, get_untrusted_types, loads

    try:
        content = dumps(what)
        with _LOADING:
            loads(content, trusted=get_untrusted_types(data=content))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - what is of no known type can fail anywhere inside skops
        return f"{type(error).__name__}: {error}"
    return ""


def load_trusted(content: bytes, source: Path) -> Any:
    """Read what `dump_trusted` wrote to `source`.

    Raises:
        UntrustedTypes: they name a type that is not trusted. This process trusts what it wrote itself, whatever its
            types.
        InputError: they are damaged, or hold something else.
    """
    from skops.io import get_untrusted_types, loads

    _refuse_damage(content, source)
    with _naming_source(source):
        named = {*get_untrusted_types(data=content)}
    trusted = {*TRUSTED, *_TRUSTED_HERE, *(name for name in named if _is_own(name))}
    if digest(content) in _WRITTEN_HERE:
        trusted |= named
    unknown = sorted(named - trusted)
    if unknown:
        raise UntrustedTypes(
            f"{source} holds types that no estimator of Headbank has (first: {unknown[0]}), so it is not read. "
            "Make the run again on this machine; or, if it is your own, call classify.trust with the type before."
        )
    with _LOADING, _naming_source(source):
        loaded = loads(content, trusted=[*trusted])
    if not _is_own(f"{type(loaded).__module__}.{type(loaded).__name__}"):
        raise InputError(f"{source} holds a {type(loaded).__name__}, not a model of Headbank. Make the run again.")
    return loaded


@contextmanager
def _naming_source(source: Path) -> Iterator[None]:
    """Say in one message that a file is not one of skops: a foreign one can fail anywhere inside it."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - what it means is said above
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{source} is not a file of skops that can be read ({reason}). Make the run again.") from None


def _is_own(name: str) -> bool:
    """Whether a type is an estimator of this package."""
    found = _OWN.fullmatch(name)
    if found is None:
        return False
    kind = getattr(import_module(found[1]), found[2], None)
    return isinstance(kind, type) and issubclass(kind, BaseEstimator) and kind.__module__ == found[1]


def _refuse_damage(content: bytes, source: Path) -> None:
    """Refuse what is not a zip archive whose members all agree with their checksums."""
    try:
        damaged = ZipFile(io.BytesIO(content)).testzip()
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise InputError(f"{source} is damaged ({error}). Make the run again.") from None
    if damaged:
        raise InputError(f"{source} is damaged ({damaged}). Make the run again.")
