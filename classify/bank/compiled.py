"""Compile functions with numba, and keep what is compiled for as long as its sources are the same."""

import logging
import os
import pickle
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

logger = logging.getLogger(__name__)
_ROOM = Path(__file__).parents[1]
#: Modules of the room that are compiled, and those of which they take types and constants.
SOURCES = ("bank/compiled", "bank/hidden", "bank/layout", "bank/loops", "bank/softmax", "models/trained_head")


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile a function at its first call, with options of `numba.njit`; it holds no lock of Python.

    Numba asks of what it kept whether the function's own file changed, not the files of what that calls, and fails
    where a type is gone that it kept: so the folder is another whenever one of `SOURCES` is. What cannot be read is
    compiled again, what cannot be written is not kept.
    """
    found: Callable[..., Any] = njit(nogil=True, error_model="numpy", **options)(function)
    if kept_folder() is not None:
        found._cache = _Kept(function)  # type: ignore[attr-defined]
    return found


@cache
def kept_folder() -> Path | None:
    """Where compiled code is kept: below `NUMBA_CACHE_DIR`, else beside the sources or in the user's cache folder.

    The first that holds some, or can be written; None, which is said, if there is none.
    """
    bases = [Path(config.CACHE_DIR)]
    if not config.CACHE_DIR:
        bases = [_ROOM / "bank" / "__pycache__"]
        with suppress(RuntimeError):  # there is no home
            bases.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headbank")
    digest = blake2b(b"".join(_ROOM.joinpath(f"{name}.py").read_bytes() for name in SOURCES), digest_size=8).hexdigest()
    for base in bases:
        folder = base / digest
        with suppress(OSError):
            if any(folder.glob("*.nbi")):
                return folder
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
    logger.warning(
        "the training of heads is compiled in every run, some 20 s: %s cannot be written. Set NUMBA_CACHE_DIR to a "
        "folder that can.",
        " and ".join(map(str, bases)),
    )
    return None


def is_compiled() -> bool:
    """Whether any compiled code is kept."""
    folder = kept_folder()
    return folder is not None and any(folder.glob("*.nbi"))


class _Locator(_CacheLocator):
    """Names the folder of a function's compiled code."""

    def ensure_cache_path(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return self._folder.name

    def get_disambiguator(self) -> str:
        return ""

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "_Locator":
        return cls()

    @property
    def _folder(self) -> Path:
        folder = kept_folder()
        assert folder is not None  # else nothing is kept
        return folder


class _Files(CompileResultCacheImpl):
    """The files of a function's compiled code, in no other place."""

    _locator_classes = (_Locator,)


class _Kept(FunctionCache):
    """A function's compiled code; damage and a full disk cost time alone."""

    _impl_class = _Files

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except OSError as error:
            logger.warning("%s cannot be read (%s): what it holds is compiled", self.cache_path, error.strerror)
            return None
        except (EOFError, ValueError, LookupError, TypeError, AttributeError, ImportError, pickle.PickleError):
            logger.warning("%s is damaged: what it holds is compiled again", self.cache_path)
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            logger.warning("%s keeps no compiled code (%s)", self.cache_path, error.strerror)
