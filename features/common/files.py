"""Write, lock and digest files so that neither a crash nor a second process leaves half of one; read records."""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import IO, Any

from features.common.errors import InputError

#: Bytes of a digest.
DIGEST_BYTES = 16
#: What a temporary file is called: `.{name}.{random}.tmp`.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)
#: What the system answers where a disk or a quota is full.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: What a file system answers that has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def digest(content: bytes | memoryview) -> bytes:
    """BLAKE2b-128 of some bytes: 16 bytes."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def digest_file(path: Path) -> bytes:
    """BLAKE2b-128 of a file's bytes: 16 bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).digest()


def read_record(path: Path, remedy: str, *names: str) -> dict[str, Any]:
    """Read a JSON object that has these names; an `InputError` that ends with the remedy says that it is damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("it is not a JSON object")
        if missing := [name for name in names if name not in record]:
            raise ValueError(f"{missing[0]} is missing")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}). {remedy}") from None
    return record


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that it holds; nothing where it is missing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path`; when the block ends without an error, it takes `path`'s place.

    The file is flushed to the disk before the rename, and the folder after it, so that not even a power cut leaves a
    file that is there but incomplete. The folder is made if it is missing; what killed processes left there is removed.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path.parent)
            temporary = _make_temporary(path, stack)
            yield temporary
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror or error}. Nothing that was there before is lost. "
                f"Make room or choose another folder, and run again."
            ) from error


def _make_temporary(path: Path, stack: ExitStack) -> Path:
    """Make a temporary file beside `path`; `stack` removes it, unless it was renamed, and frees its lock."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o666)
        stack.callback(os.close, descriptor)
        with suppress(OSError):  # the lock says that its maker is alive; without locks nobody removes it
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_at(descriptor, temporary):
            stack.callback(temporary.unlink, missing_ok=True)
            return temporary


@cache
def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of a folder whose makers were killed; once a process."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            with suppress(OSError), open(path, "r+b", opener=_open_no_link) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _flush(path: Path) -> None:
    """Wait until the disk holds what was written to a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def hold(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock for the length of a `with` block.

    The operating system frees the lock when its process ends, however it ends: a crash leaves no stale lock.
    The file stays behind, unless its holder removes it within the block: a process that opened it before then finds
    it gone, and makes it again. Removed by anybody else, or after the block, it could be held twice.

    The file and its folder are made if they are missing. With `wait` a second holder waits instead of being refused.

    Raises:
        InputError: another process holds the lock; the message names host, process, start and command. Or the file
            cannot be made or locked.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                # "a" because opening must not wipe what the holder wrote; no buffer, so that closing cannot fail.
                file = stack.enter_context(open(path, "ab+", buffering=0, opener=_open_no_link))
                _refuse_foreign(path, file)
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                if _is_at(file.fileno(), path):
                    break
                file.close()
            about = {
                "host": socket.gethostname(),
                "process": os.getpid(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": " ".join(sys.argv),
            }
            file.truncate(0)
            file.write(json.dumps(about).encode())
        except BlockingIOError:
            # A hidden lock file stands for its folder, a.h5.lock for a.h5.
            what = path.parent if path.name.startswith(".") else path.with_suffix("")
            raise InputError(
                f"{what} is being worked on by {_holder(path)}. Wait for it, or stop it, and run again."
            ) from None
        except OSError as error:
            raise InputError(f"{path} cannot be locked: {_why_not_locked(path, error)}") from None
        yield


def _open_no_link(path: str, flags: int) -> int:
    """Open a file for `open`, but not through a symbolic link, and without waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _refuse_foreign(path: Path, file: IO[bytes]) -> None:
    """Refuse to write into what is not a lock file: a device, a pipe, or another name of somebody's file."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise InputError(f"{path} cannot be locked: it is not an ordinary file. Remove it, and run again.")


def _why_not_locked(path: Path, error: OSError) -> str:
    """Say why a lock file could not be had, and what to do."""
    if error.errno == errno.ELOOP:
        return "it is a symbolic link. Remove it, and run again."
    if error.errno in FULL:
        return f"{error.strerror}. Make room on its disk."
    if error.errno in _NO_LOCKS:
        return f"{error.strerror}. The file system of {path.parent} has no locks: work in a folder on another one."
    return (
        f"{error.strerror}. {path.parent} has to be a folder that can be written: change its rights, or work in "
        "another, such as a copy."
    )


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at a path: it may be removed between opening and locking."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """Describe who holds a lock, as far as the lock file says."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['process']} on {holder['host']} since {holder['since']} ({holder['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it has the lock but has not written about itself yet
