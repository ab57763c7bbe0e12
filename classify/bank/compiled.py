"""Compile functions with numba, and keep what is compiled for as long as its sources are the same."""

import logging
import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from numba import config, njit

logger = logging.getLogger(__name__)
_BANK = Path(__file__).parent
#: Modules of the bank that are compiled, and those of which they take types.
SOURCES = ("compiled", "hidden", "layout", "loops")


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile a function at its first call, with options of `numba.njit`; it holds no lock of Python.

    Numba asks of what it kept whether the function's own file changed, not the files of what that calls, and fails
    where a type is gone that it kept: so the folder is another whenever one of `SOURCES` is.
    """
    options |= {"nogil": True, "error_model": "numpy"}
    folder, others = cache_folder(), config.CACHE_DIR
    if folder is None:
        logger.warning("%s is compiled in every run: set NUMBA_CACHE_DIR to a folder to keep it in", function.__name__)
        found: Callable[..., Any] = njit(**options)(function)
        return found
    config.CACHE_DIR = str(folder)
    try:
        found = njit(cache=True, **options)(function)
    finally:
        config.CACHE_DIR = others
    return found


def cache_folder() -> Path | None:
    """Where compiled code is kept: below `NUMBA_CACHE_DIR`, beside the sources, or in the user's cache folder.

    None if none of them can be written.
    """
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headbank"
    given = [Path(config.CACHE_DIR)] if config.CACHE_DIR else []
    for base in given or (_BANK / "__pycache__", users):
        nearest = next(folder for folder in (base, *base.absolute().parents) if folder.exists())
        if os.access(nearest, os.W_OK):
            return base / _digest_sources()
    return None


def _digest_sources() -> str:
    """A digest of all that is compiled."""
    return blake2b(b"".join(_BANK.joinpath(f"{name}.py").read_bytes() for name in SOURCES), digest_size=8).hexdigest()
