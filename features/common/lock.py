"""Let one process at a time work on a cache file, and say who it is."""

import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from features.common.errors import InputError


@contextmanager
def hold(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock for the length of a `with` block.

    The operating system frees the lock when its process ends, however it ends: a crash leaves no stale lock.
    The file stays behind, unless its holder removes it within the block: who opened it before then finds it gone, and
    makes it anew. Removed by anybody else, or after the block, it could be held twice.

    Args:
        path: the lock file; made, with its folder, where it is missing.
        wait: wait for the holder to finish instead of refusing.

    Raises:
        InputError: another process holds the lock; the message names host, process, start and command. Or the file
            cannot be made or locked.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                # "a+" because opening must not wipe what the holder wrote about itself.
                file = stack.enter_context(path.open("a+", encoding="utf-8"))
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                if _is_at(file, path):
                    break
                file.close()
            file.truncate(0)
            file.write(json.dumps(_about_us()))
            file.flush()
        except BlockingIOError:
            raise InputError(
                f"{path.with_suffix('')} is being worked on by {_holder(path)}. Wait for it, or stop it, and run again."
            ) from None
        except OSError as error:
            raise InputError(
                f"{path} cannot be locked: {error.strerror}. {path.parent} has to be a folder that can be "
                "written: change its rights, or work in another, such as a copy."
            ) from None
        yield


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether an open file is still the one at a path: a holder may have removed it between opening and locking."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _about_us() -> dict[str, str | int]:
    """What a lock file says of its holder."""
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
    }


def _holder(path: Path) -> str:
    """Describe who holds a lock, as far as the lock file tells."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['process']} on {holder['host']} since {holder['since']} ({holder['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it has the lock but has not written about itself yet
