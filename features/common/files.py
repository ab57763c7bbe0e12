"""Write files so that a reader, or a crash, sees the old content or the new, never half."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from features.common.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, its file takes `path`'s place for good.

    The file is flushed to the disk before the rename, and the folder after it, so that not even a power cut
    leaves a file that is there but incomplete. The caller sees to it that nobody else writes the same path.

    Args:
        path: the file to make or replace; its folder is made where it is missing.

    Yields:
        The temporary path to write to.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except BaseException as error:
        with suppress(OSError):  # a file may stand where the folder should
            temporary.unlink()
        if not _is_of_disk(error):
            raise
        raise InputError(
            f"{path} cannot be written: {_reason(error)}. Nothing that was there before is lost. "
            f"Make room or choose another folder, and run again."
        ) from error


def _is_of_disk(error: BaseException) -> bool:
    """Whether the system refused to write. h5py reports that as a RuntimeError when it is closing a file."""
    return isinstance(error, OSError) or (isinstance(error, RuntimeError) and "errno = " in str(error))


def _reason(error: BaseException) -> str:
    """The system's words for an error: h5py hides them in a long text, as `errno = 28`."""
    hidden = re.search(r"errno = (\d+)", str(error))
    number = getattr(error, "errno", None) or (int(hidden[1]) if hidden else None)
    return os.strerror(number) if number else str(error)


def _flush(path: Path) -> None:
    """Wait until the disk holds what was written to a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
