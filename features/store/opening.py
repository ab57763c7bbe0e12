"""Open a cache file; what h5py reports of damage becomes an InputError that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from features.common.errors import InputError


@contextmanager
def opening(path: Path) -> Iterator[h5py.File]:
    """Open a cache file for reading.

    Raises:
        InputError: it is damaged, or what is done with it raises an error that does not name it.
    """
    with naming(path), open_file(path) as file:
        yield file


def open_file(path: Path) -> h5py.File:
    """Open a cache file without a cache of chunks: none is read twice."""
    return h5py.File(path, "r", rdcc_nbytes=0)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a cache file in the errors of what is done with it."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} is damaged ({reason}). Run: python -m features verify {path.parent.parent}"
        ) from error
